"""Other processes' changes of the table, and the agent's of theirs: who may change it, and its repair."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.namespaces import CommandError
from integration.prepared_agent import agent_with
from integration.service import NOTICED_SECONDS, Service, definitions, is_let_in, service_on
from sgagent.agent.drift import CONTESTED_FROM
from tests.patience import PATIENCE

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
DNS = "ingress accept 1 udp 53 from 0.0.0.0/0"
FOREIGN = """
table inet other {
    counter here { packets 7 bytes 420 }
    chain c {
        type filter hook input priority 5; policy accept;
        tcp dport 9 counter name here drop
    }
}
table ip sgagent {
    chain c {
    }
}
"""
DAMAGE = (
    "flush ruleset",
    "delete table inet sgagent",
    "flush chain inet sgagent prerouting",
    "flush chain inet sgagent peers/eth0/ingress/ipv4",
    "insert rule inet sgagent prerouting accept",
)

WHAT_DIFFERED = dict(
    zip(
        DAMAGE,
        (
            "table inet sgagent",
            "table inet sgagent",
            "chain prerouting",
            "chain peers/eth0/ingress/ipv4",
            "chain prerouting",
        ),
        strict=True,
    )
)


agent = agent_with(definitions(WEB), is_started=False)


def test_nobody_else_changes_the_table(running: Service, one_interface: Lab) -> None:
    """While the agent runs, a foreign flush passes the table by, and foreign edits are refused."""
    before = running.table()
    running.namespace.nft("flush", "ruleset")
    for command in ("delete table inet sgagent", "flush table inet sgagent", "add chain inet sgagent evil"):
        with pytest.raises(CommandError, match="Operation not permitted"):
            running.namespace.nft(command)
    assert running.table() == before
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    assert running.metric("sgagent_drift_repaired_total") == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_restarted_agent_undoes_later_changes(running: Service, one_interface: Lab, damage: str) -> None:
    """Another process's change of the table while no agent ran is undone at the next start; totals go on."""
    is_let_in(one_interface, CLIENT, HOST, 80)
    assert running.hits("sgr-0") == 1
    running.kill()
    running.namespace.nft(damage)
    assert is_let_in(one_interface, CLIENT, HOST, 81)
    running.start()
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert running.hits("sgr-0") == 2


@pytest.mark.sampled(2)
@pytest.mark.parametrize("damage", DAMAGE)
def test_drift_is_repaired_within_about_a_second(agent: Service, one_interface: Lab, damage: str) -> None:
    """Where the table can't be owned, another process's change of it is repaired, logged and counted."""
    agent.namespace.nft("add table inet sgagent")  # without "persist" nobody can take it up
    agent.start()
    is_let_in(one_interface, CLIENT, HOST, 80)
    assert agent.hits("sgr-0") == 1
    began = time.monotonic()
    agent.namespace.run("nft", damage)
    agent.wait_for_event("drift_repaired")
    assert time.monotonic() - began < NOTICED_SECONDS * PATIENCE
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert agent.metric("sgagent_drift_repaired_total") == 1
    assert agent.hits("sgr-0") == 2
    [found] = agent.events("drift_repaired")
    assert found["process_name"] == "nft"
    assert found["process_id"] > 0
    assert found["differed"] == [WHAT_DIFFERED[damage]]
    last = agent.as_json("status")["last_drift"]
    assert (last["process_name"], last["differed"]) == ("nft", found["differed"])
    assert f"nft (process {found['process_id']}) changed" in agent.command("status").output


def test_who_changes_the_table_again_and_again_raises_an_alarm(agent: Service) -> None:
    """Mending slows down then, and that is said everywhere; the table is right in the end all the same."""
    agent.namespace.nft("add table inet sgagent")
    agent.start()
    for number in range(CONTESTED_FROM + 1):
        agent.namespace.run("nft", DAMAGE[-1])
        agent.wait_for_event("drift_repaired", number + 1)
    agent.wait_for_event("drift_contested")
    [found] = agent.events("drift_contested")
    assert (found["process_name"], found["level"]) == ("nft", "error")
    assert agent.metric("sgagent_drift_contested") == 1
    ended = agent.command("status", "--json")
    assert json.loads(ended.output)["is_drift_contested"] is True
    assert "keeps changing the rules" in " ".join(json.loads(ended.output)["not_ready_because"])
    for _ in range(20):
        agent.namespace.nft(DAMAGE[-1])
    wait_for(lambda: "\taccept\n" not in chain(agent, "prerouting"), "the table to be mended")
    assert len(agent.events("drift_repaired")) <= CONTESTED_FROM + 5
    assert len(agent.events("drift_contested")) == 1


def chain(agent: Service, name: str) -> str:
    """Return the listing of a chain of ours."""
    return agent.namespace.nft("list", "chain", "inet", "sgagent", name)


def test_a_second_agent_is_told_who_was_first(running: Service, one_interface: Lab, tmp_path: Path) -> None:
    """It ends with 5 and changes nothing; when the owner has died it takes the table over."""
    with service_on(running.namespace, tmp_path / "second") as second:
        second.configure('[metrics]\nlisten = "127.0.0.1:9470"\n')
        second.define(definitions(DNS))
        ended = second.command("run")
        assert ended.status == 5
        assert f"process {running.applier_pid} (sgagent-applier)" in ended.errors
        assert is_let_in(one_interface, CLIENT, HOST, 80)
        running.kill()
        second.start()
        assert not is_let_in(one_interface, CLIENT, HOST, 80)
        assert is_let_in(one_interface, CLIENT, HOST, 53, is_udp=True)
        second.namespace.nft("flush", "ruleset")
        assert not is_let_in(one_interface, CLIENT, HOST, 80)


def test_tables_of_others_are_left_alone(agent: Service) -> None:
    """Starting, enforcing, changing and flushing leaves foreign tables as they were, counters included."""
    host = agent.namespace
    host.nft("-f", "-", stdin=FOREIGN)
    before = host.nft("list", "ruleset")
    agent.start()
    agent.define(definitions(DNS))
    agent.wait_for_event("ruleset_applied", 2)
    assert agent.stop() == 0
    assert agent.command("flush").status == 0
    assert host.nft("list", "ruleset") == before


def test_one_shots_are_refused_while_the_agent_owns_the_table(running: Service, one_interface: Lab) -> None:
    """``compile`` and its printed text can't change the daemon's table; both are told why."""
    printed = running.command("compile", "--dry-run", "--interface", "eth0=")
    assert printed.status == 0
    with pytest.raises(CommandError, match="Operation not permitted"):
        running.namespace.nft("-f", "-", stdin=printed.output)
    for command in (("compile", "--interface", "eth0="), ("compile",), ("flush",)):  # the second: no change
        ended = running.command(*command)
        assert ended.status == 5
        assert f"process {running.applier_pid} (sgagent-applier)" in ended.errors
    assert is_let_in(one_interface, CLIENT, HOST, 80)


def test_a_second_agent_is_refused(running: Service) -> None:
    """An agent beside one that owns the table ends at once and names it, even with nothing to change."""
    ended = running.command("run")
    assert ended.status == 5
    assert f"process {running.applier_pid} (sgagent-applier)" in ended.errors


@pytest.mark.long
def test_one_shots_at_once_leave_one_of_their_tables(running: Service) -> None:
    """Commands that change the table under each other's hands plan anew: none fails, and nothing is mixed."""
    assert running.stop() == 0
    paths = [running.directory / name for name in ("one.yaml", "two.yaml")]
    for number, path in enumerate(paths, start=1):
        path.write_text(
            definitions(*(f"ingress accept 1 tcp {port} from 10.{number}.0.{port}" for port in range(1, 40)))
        )
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            commands = [pool.submit(running.command, "compile", "--definitions", str(p)) for p in paths * 2]
        assert [command.result().errors for command in commands if command.result().status] == []
        standing = {number for number in (1, 2) if f" 10.{number}.0." in running.table()}
        assert len(standing) == 1


def make_unlistable(running: Service) -> None:
    """Stop the agent, and put a rule into the table that ends a process that lists it."""
    assert running.stop() == 0
    argv = ["ip", "netns", "exec", running.namespace.name, "nft", "-f", "-"]
    text = b'add chain inet sgagent evil\nadd rule inet sgagent evil iifname "\xff" accept\n'
    subprocess.run(argv, input=text, check=True)


def test_a_one_shot_replaces_a_table_that_can_not_be_listed(running: Service) -> None:
    """To list it ends a process, which is not that of the command."""
    make_unlistable(running)
    done = running.command("compile")
    assert (done.status, done.output.partition(":")[0]) == (0, "applied")
    assert running.command("compile").output.startswith("unchanged")


def test_a_flush_removes_a_table_that_can_not_be_listed(running: Service) -> None:
    """It does not say either that there was none."""
    make_unlistable(running)
    done = running.command("flush")
    assert (done.status, done.output.partition(":")[0]) == (0, "removed table inet sgagent")
    assert running.command("flush").output.startswith("nothing to remove")
    assert running.table() == ""


def test_one_shots_work_after_the_agent_has_ended(running: Service, one_interface: Lab) -> None:
    """``compile`` takes the generation up and judges live sessions again; the printed text loads over it."""
    lab = one_interface
    with lab.listen(lab.host, str(HOST), 80) as listener:
        client = lab.connect(lab.peer, (str(CLIENT), 0), (str(HOST), 80))
        server, _ = listener.accept()
    with client, server:
        server.settimeout(0.5)
        assert running.stop() == 0
        before = running.generation()
        running.define(definitions(DNS))
        assert running.command("compile").status == 0
        assert running.generation() != before
        client.sendall(b"cut")
        with pytest.raises(TimeoutError):
            server.recv(64)
    assert running.command("compile").output.startswith("unchanged")
    running.namespace.nft("-f", "-", stdin=running.command("compile", "--dry-run").output)
    assert is_let_in(lab, CLIENT, HOST, 53, is_udp=True)
    assert not is_let_in(lab, CLIENT, HOST, 80)
    assert running.command("flush").status == 0
    assert not running.table()
