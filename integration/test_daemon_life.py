"""The daemon starts, tells how it is doing, ends and starts again, and changes nothing that it need not."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import METRICS_PORT, Service, definitions, is_let_in

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
DNS = "ingress accept 1 udp 53 from 0.0.0.0/0"
DROP_TELNET = "ingress drop 1 tcp 23 from 0.0.0.0/0"
POLICY = definitions(WEB, DNS, DROP_TELNET)

OF_A_RULE = ("interface", "security_group_id", "rule_id", "direction", "policy")
PROMISED = {
    "sgagent_rule_packets": ("counter", OF_A_RULE),
    "sgagent_rule_bytes": ("counter", OF_A_RULE),
    "sgagent_default_packets": ("counter", ("interface", "direction", "verdict")),
    "sgagent_inner_packets": ("counter", ("interface",)),
    "sgagent_invalid_packets": ("counter", ("interface", "direction")),
    "sgagent_apply": ("counter", ("outcome",)),
    "sgagent_apply_duration_seconds": ("histogram", ()),
    "sgagent_compile_duration_seconds": ("histogram", ()),
    "sgagent_snapshot_info": ("gauge", ("version",)),
    "sgagent_snapshot_age_seconds": ("gauge", ()),
    "sgagent_last_success_timestamp_seconds": ("gauge", ()),
    "sgagent_source_up": ("gauge", ()),
    "sgagent_source_errors": ("counter", ()),
    "sgagent_log_lines_dropped": ("counter", ()),
    "sgagent_drift_repaired": ("counter", ()),
    "sgagent_unknown_objects": ("gauge", ()),
    "sgagent_warnings": ("gauge", ()),
    "sgagent_interface_info": ("gauge", ("interface", "network_interface_id", "state")),
    "sgagent_mode": ("gauge", ("interface", "mode")),
}
"""The metric families that others build on, as a scrape types and labels them."""

_STRANGER = 65534

_START_SECONDS = 20.0

End = Callable[[Service], object]


def end_by_signal(agent: Service) -> None:
    """Stop the agent as a service manager does."""
    assert agent.stop() == 0


both_ends = pytest.mark.parametrize("end", (end_by_signal, Service.kill), ids=("stopped", "killed"))


agent = agent_with(POLICY, is_started=False)


def test_it_enforces_from_the_moment_that_it_is_ready(running: Service, one_interface: Lab) -> None:
    """The service manager is told when the rules stand; the log says so, with their version."""
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    running.wait_for_event("agent_started")
    assert [event["level"] for event in running.events("agent_started")] == ["info"]
    assert [event["interfaces"] for event in running.events("ruleset_applied")] == [["eth0"]]
    assert "eth0" in next(notice for notice in running.notices() if notice.startswith("STATUS="))
    wait_for(lambda: running.notices().count("WATCHDOG=1") >= 2, "the watchdog to be fed again")


def test_every_metric_is_served(running: Service, one_interface: Lab) -> None:
    """A scrape has every family that is promised, with its type, its labels and a word about it."""
    is_let_in(one_interface, CLIENT, HOST, 80)
    families = running.families()
    for name, (kind, labels) in PROMISED.items():
        family = families[name]
        assert (family.name, family.type) == (name, kind)
        assert family.documentation
        assert {frozenset(sample.labels) - {"le"} for sample in family.samples} == {frozenset(labels)}, name
    assert running.metric("sgagent_interface_info", interface="eth0", state="bound") == 1
    assert running.metric("sgagent_interface_info", network_interface_id="eni-1") == 1
    assert running.metric("sgagent_mode", interface="eth0", mode="enforce") == 1
    assert running.metric("sgagent_source_up") == 1
    assert running.metric("sgagent_apply_total", outcome="applied") == 1


def test_a_hit_is_a_session(running: Service, one_interface: Lab) -> None:
    """Ten packets of one session, and ten answers, are one hit; a scrape right behind them shows it."""
    lab = one_interface
    with (
        lab.listen(lab.host, str(HOST), 53, socket.SOCK_DGRAM) as server,
        lab.connect(lab.peer, (str(CLIENT), 0), (str(HOST), 53), socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(2)
        for _ in range(10):
            client.send(b"question")
            server.sendto(b"answer", server.recvfrom(64)[1])
            client.recv(64)
    assert running.hits("sgr-1") == 1
    assert running.metric("sgagent_rule_bytes_total", rule_id="sgr-1") == 20 + 8 + len(b"question")


def test_hits_tell_rules_and_defaults_apart(running: Service, one_interface: Lab) -> None:
    """Each new session is counted once: at the rule that decided, or at the default."""
    for port in (80, 80, 23, 24, 25, 26):
        is_let_in(one_interface, CLIENT, HOST, port)
    assert (running.hits("sgr-0"), running.hits("sgr-1"), running.hits("sgr-2")) == (2, 0, 1)
    ingress = {"interface": "eth0", "direction": "ingress"}
    assert running.metric("sgagent_default_packets_total", verdict="drop", **ingress) == 3
    assert running.metric("sgagent_invalid_packets_total", **ingress) == 0


@both_ends
def test_the_rules_outlive_the_agent(running: Service, one_interface: Lab, end: End) -> None:
    """Nobody is let in, and nobody kept out, because the agent is not there."""
    end(running)
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert not is_let_in(one_interface, CLIENT, HOST, 81)


@both_ends
def test_a_restart_changes_nothing(running: Service, one_interface: Lab, end: End) -> None:
    """A restarted agent takes the table up as it stands: no session is judged again, and totals go on."""
    lab = one_interface
    with lab.listen(lab.host, str(HOST), 80) as listener:
        client = lab.connect(lab.peer, (str(CLIENT), 0), (str(HOST), 80))
        server, _ = listener.accept()
    with client, server:
        server.settimeout(2)
        assert running.hits("sgr-0") == 1
        generation = running.generation()
        end(running)
        is_let_in(lab, CLIENT, HOST, 80)
        client.sendall(b"meanwhile")
        assert server.recv(64) == b"meanwhile"
        running.start()
        client.sendall(b"afterwards")
        assert server.recv(64) == b"afterwards"
        assert running.hits("sgr-0") == 2
    assert running.generation() == generation
    assert running.metric("sgagent_apply_total", outcome="applied") == 0
    assert running.metric("sgagent_apply_total", outcome="unchanged") == 1
    assert len(running.events("ruleset_applied")) == 1


def test_a_stop_is_said(running: Service) -> None:
    """The log and the service manager are told of an orderly end, and that the rules stay."""
    assert running.stop() == 0
    assert [event["rules"] for event in running.events("agent_stopped")] == ["stay in force"]
    assert "STOPPING=1" in running.notices()


@pytest.mark.parametrize("is_in_a_change", (False, True), ids=("idle", "in_a_change"))
def test_a_lost_applier_ends_the_agent(running: Service, one_interface: Lab, *, is_in_a_change: bool) -> None:
    """Log and last line name the process and the signal; the rules stay, and the next start applies."""
    applier = running.applier_pid
    if is_in_a_change:
        running.define(definitions(WEB))
        running.reload()
    os.kill(applier, signal.SIGKILL)
    assert running.wait_for_end() == 70
    [told] = running.events("applier_lost")
    reason = "was killed by signal 9 (Killed)"
    assert (told["process_id"], told["process_name"], told["reason"]) == (applier, "sgagent-applier", reason)
    line = f"sgagent: sgagent-applier, process {applier}, which holds the privilege, is lost: {reason}"
    assert f"\n{line} (" in running.log
    assert not running.events("step_failed") + running.events("counters_not_read")
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    running.define(definitions(DNS))
    running.start()
    assert not is_let_in(one_interface, CLIENT, HOST, 80)


def test_a_configuration_may_come_through_a_pipe(agent: Service) -> None:
    """It is read once, and kept for a boot as it was read."""
    path = agent.directory / "sgagent.toml"
    text = path.read_text()
    path.unlink()
    os.mkfifo(path)
    agent.launch()
    path.write_text(text)
    agent.wait_for_event("agent_started", seconds=_START_SECONDS)
    assert (agent.state / "last-good.toml").read_text() == text


@pytest.mark.long
def test_the_signal_of_ended_children_may_be_ignored(agent: Service) -> None:
    """Some programs leave it so to their children; a process of its own lists a table that is there."""
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    through = (sys.executable, "-c", f"{ignore}; os.execv(sys.argv[1], sys.argv[1:])")
    for _ in range(2):
        ended = agent.command("compile", "--yes", through=through)
        assert (ended.status, ended.errors) == (0, "")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("address", ("127.0.0.1", "0.0.0.0", "::"))  # noqa: S104 - that of another program
def test_a_taken_metrics_address_hinders_nothing(agent: Service, one_interface: Lab, address: str) -> None:
    """Who holds it is said, as far as it is known; metrics are served soon after it is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with agent.namespace.socket(family, socket.SOCK_STREAM) as taken:
        taken.bind((address, METRICS_PORT))
        taken.listen()
        agent.start()
        assert not is_let_in(one_interface, CLIENT, HOST, 22)
        held = f"127.0.0.1:{METRICS_PORT}: address already in use, held by user root"
        wait_for(lambda: held in agent.command("status", "--json").output, "the status to say so")
    agent.wait_for_event("metrics_served")
    assert agent.metric("sgagent_source_up") == 1
    wait_for(lambda: held not in agent.command("status", "--json").output, "the fault to go")
    (refused,) = agent.events("metrics_not_served")
    assert held in refused["reason"]
    assert agent.stop() == 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_defined", (True, False))
def test_without_the_privilege_it_ends_with_5(agent: Service, *, is_defined: bool) -> None:
    """Without CAP_NET_ADMIN the agent names the missing privilege in a line, even with nothing to enforce."""
    if not is_defined:
        (agent.documents / "policy.yaml").unlink()
    ended = agent.command("run", through=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"))
    assert ended.status == 5
    assert ended.errors.startswith("sgagent: ")
    assert "CAP_NET_ADMIN" in ended.errors
    assert ended.errors.count("\n") == 1
    assert not agent.table()


@pytest.mark.parametrize("what", ("state", "state/history"))
def test_what_another_user_keeps_is_refused_in_a_line(agent: Service, what: str) -> None:
    """The agent holds no privilege, as root neither: it names another user's files, and ends."""
    agent.start()
    assert agent.stop() == 0
    os.chown(agent.directory / what, _STRANGER, -1)
    ended = agent.command("run")
    assert ended.status == 5
    assert f"{agent.directory / what}: user {_STRANGER} keeps the state there" in ended.errors
    assert ended.errors.count("\n") == 1
    assert agent.table(), "what was in force stays"


@pytest.mark.long
def test_boot_closes_a_host_whose_state_it_may_not_read(agent: Service, one_interface: Lab) -> None:
    """A state that can't be read may have been enforced, and so the host is closed (§9.2)."""
    agent.start()
    assert agent.stop() == 0
    one_interface.host.remove_table("sgagent")
    os.chown(agent.state, _STRANGER, -1)
    ended = agent.command("boot", through=("setpriv", "--bounding-set=-dac_override,-dac_read_search"))
    assert ended.status == 0
    assert ended.output.startswith("closed, as no policy is loaded")
    assert f"Permission denied: '{agent.state / 'history'}'" in ended.errors


def test_boot_without_the_privilege_ends_with_5(agent: Service) -> None:
    """The command names the missing privilege in a line, before it asks the kernel for anything."""
    ended = agent.command("boot", through=("setpriv", "--bounding-set=-net_admin"))
    assert (ended.status, ended.output) == (5, "")
    assert ended.errors == "sgagent: nftables can be read and changed only with CAP_NET_ADMIN\n"
