"""The flow log on the kernel: which flows it reports, by which rule, how often, and the count of the rest."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from integration.lab import Lab, wait_for
from integration.service import Service, definitions, service_on
from sgagent.core.errors import KernelRefusedError
from sgagent.dataplane.dataplane import ApplierDataplane
from sgagent.dataplane.nflog import open_log
from sgagent.dataplane.privsep import fork_applier
from sgagent.nft import transactions as p
from sgagent.nft.ruleset import Chain, Limit, Log, Rule
from sgagent.nft.transactions import Plan
from sgagent.policy_test.packet_bytes import WirePacket, icmpv6, tcp, udp
from tests.patience import PATIENCE

HOST, HOST_6 = ip_address("10.0.0.11"), ip_address("2001:db8::11")
GUEST, STRANGER, STRANGER_6 = (ip_address(a) for a in ("203.0.113.9", "198.51.100.7", "2001:db8:1::7"))
RULES = ("ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress drop 5 tcp 22 from 203.0.113.0/24")
OFTEN = "\n[flow_log]\nrate_per_second = 1000\n"
GROUP = 9469
LIMIT = Limit(per_second=10, burst=10)


@pytest.fixture
def agent(one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give the host an agent that is not started yet, and its documents."""
    with service_on(one_interface.host, tmp_path) as made:
        made.define(definitions(*RULES, addresses="10.0.0.11, 2001:db8::11"))
        yield made


def denied(agent: Service, *options: str) -> Mapping[str, Any]:
    """Return who was dropped."""
    return dict(agent.as_json("denied", *options))


def wait_for_flows(agent: Service, count: int) -> Sequence[Mapping[str, Any]]:
    """Wait until so many drops are told of, and return them."""
    wait_for(lambda: len(denied(agent)["flows"]) >= count, f"{count} drops to be told of")
    flows: Sequence[Mapping[str, Any]] = denied(agent)["flows"]
    return flows


def to_port(port: int) -> WirePacket:
    """Return the first packet of a stranger's session."""
    return tcp(STRANGER, HOST, 1024, port)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a flow log, which may be written to or moved away at the same time."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    whole, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def test_who_was_dropped_is_told_with_what_decided(one_interface: Lab, agent: Service) -> None:
    """Without being asked for: by a rule, by the default, in both families; who gets in is not."""
    agent.start()
    one_interface.send_ingress(
        [
            tcp(GUEST, HOST, 1024, 22),
            to_port(3306),
            to_port(80),
            udp(STRANGER_6, HOST_6, 1024, 53),
            icmpv6(STRANGER_6, HOST_6, 128),
        ]
    )
    flows = wait_for_flows(agent, 4)
    assert [(flow["protocol"], flow["destination"]["port"], flow["icmp_type"]) for flow in flows] == [
        ("tcp", 22, None),
        ("tcp", 3306, None),
        ("udp", 53, None),
        ("icmpv6", None, 128),
    ]
    by_rule, default = flows[0], flows[1]
    assert (by_rule["decided_by"], by_rule["rule_id"], by_rule["priority"]) == ("rule", "sgr-1", 5)
    assert by_rule["source"]["address"] == "203.0.113.9"
    assert by_rule["destination"] == {
        "address": "10.0.0.11",
        "port": 22,
        "network_interface_id": "eni-1",
        "security_group_ids": ["sg-1"],
    }
    assert (default["decided_by"], default["rule_id"], default["mode"]) == ("default", None, "enforce")
    assert denied(agent, "--rule", "sgr-1")["flows"] == [by_rule]
    assert denied(agent, "--direction", "egress")["flows"] == []
    shown = agent.command("denied").output
    assert "tcp 22" in shown
    assert "eni-1 (sg-1)" in shown
    assert agent.metric("sgagent_flow_log_flows_total", verdict="drop") == 4


def test_a_flood_is_limited_and_nothing_of_it_is_forgotten(one_interface: Lab, agent: Service) -> None:
    """Reported and left out flows together are the dropped ones; a rule is reported all the same."""
    agent.start()
    for _ in range(3):
        one_interface.send_ingress([to_port(port) for port in range(2000, 2200)])
    one_interface.send_ingress([tcp(GUEST, HOST, 1024, 22)])

    def accounted() -> tuple[int, int]:
        found = denied(agent, "--lines", "2000")
        return len(found["flows"]), sum(entry["left_out"] for entry in found["left_out"])

    wait_for(lambda: sum(accounted()) == 601, "all to be accounted for")
    told, left_out = accounted()
    assert 10 < told < 300
    assert agent.metric("sgagent_flow_log_lost_total", reason="limited") == left_out
    assert agent.metric("sgagent_flow_log_lost_total", reason="overrun") == 0
    assert len(denied(agent, "--rule", "sgr-1")["flows"]) == 1
    assert f"{left_out} more packets dropped on eth0 ingress by the default" in agent.command("denied").output


def test_a_file_has_a_line_for_each_and_goes_on_after_a_restart(one_interface: Lab, agent: Service) -> None:
    """A killed agent loses the flows of the meantime; the table stays, and no session is judged again."""
    path = agent.directory / "flows.log"
    agent.configure(f'{OFTEN}output = "{path}"\naccepted = true\n')
    agent.start()
    one_interface.send_ingress([to_port(3306), to_port(80)])
    wait_for(lambda: len(lines_of(path)) == 2, "both to be written")
    generation = agent.generation()
    agent.kill()
    one_interface.send_ingress([to_port(3307)])
    agent.start()
    assert agent.events("ruleset_applied")[1:] == []
    assert agent.generation() == generation
    one_interface.send_ingress([to_port(3308)])
    wait_for(lambda: len(lines_of(path)) == 3, "the next one to be written")
    found = [(line["verdict"], line["destination"]["port"], line["number"]) for line in lines_of(path)]
    assert found == [("drop", 3306, 1), ("accept", 80, 2), ("drop", 3308, 1)]
    assert lines_of(path)[0]["time"].endswith("Z")


def test_a_session_that_is_cut_is_told_of_as_it_was_opened(one_interface: Lab, agent: Service) -> None:
    """At its next packet, which may be an answer (§6.3)."""
    lab = one_interface
    lab.add_host_addresses(["10.0.0.11"])
    agent.start()
    with (
        lab.listen(lab.host, "10.0.0.11", 80) as listener,
        lab.connect(lab.peer, (str(STRANGER), 0), ("10.0.0.11", 80)) as client,
    ):
        server, _ = listener.accept()
        with server:
            agent.define(definitions(RULES[1], addresses="10.0.0.11"))
            agent.wait_for_event("ruleset_applied", 2)
            server.send(b"an answer")
            (flow, *_) = wait_for_flows(agent, 1)
            port = client.getsockname()[1]
    assert flow["is_reply"] is True
    assert (flow["direction"], flow["decided_by"]) == ("ingress", "default")
    assert (flow["source"]["address"], flow["source"]["port"]) == (str(STRANGER), port)
    assert (flow["destination"]["address"], flow["destination"]["port"]) == ("10.0.0.11", 80)


@pytest.mark.long
def test_what_is_followed_appears_until_it_is_interrupted(one_interface: Lab, agent: Service) -> None:
    """A line for each drop, as it comes, also when another agent was started meanwhile."""
    agent.start()
    follower = subprocess.Popen(
        [
            *(sys.executable, "-u", "-m", "sgagent", "denied", "--follow", "--json"),
            *("--config", str(agent.directory / "sgagent.toml")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    with follower:
        try:
            assert follower.stdout is not None
            for port in (3306, 3307, 3308):
                if port == 3308:
                    agent.stop()
                    agent.start()
                one_interface.send_ingress([to_port(port)])
                assert json.loads(follower.stdout.readline())["destination"]["port"] == port
            follower.send_signal(signal.SIGINT)
            assert follower.wait(10 * PATIENCE) == 0
            assert follower.stderr is not None
            assert "Traceback" not in follower.stderr.read()
        finally:
            follower.kill()


def test_a_group_that_somebody_else_listens_to_is_left_alone(one_interface: Lab, agent: Service) -> None:
    """The policy is enforced without the log, it is said once, and whoever asks is told."""
    with one_interface.host.entered():
        other = open_log(GROUP)
    with closing(other):
        agent.start()
        assert one_interface.send_ingress([to_port(3306)]) == [False]
        assert "log" not in agent.table()
        assert "listens" in denied(agent)["unavailable"]
        assert len(agent.events("flow_log_unavailable")) == 1
    agent.stop()
    generation = agent.generation()
    agent.start()
    assert 'log prefix "default/eth0/ingress" group 9469' in agent.table()
    assert agent.generation() == generation


def test_it_can_be_switched_off(one_interface: Lab, agent: Service) -> None:
    """Then the table has no such lines, and a restart with others judges no session again."""
    agent.start()
    generation = agent.generation()
    agent.stop()
    agent.configure("[flow_log]\ndropped = false\n")
    agent.start()
    assert "log" not in agent.table()
    assert agent.generation() == generation
    assert one_interface.send_ingress([to_port(3306), to_port(80)]) == [False, True]
    assert "flow_log.dropped" in denied(agent)["unavailable"]


def test_what_is_compiled_logs_only_if_it_is_asked_to(agent: Service) -> None:
    """As no agent is left that listens; a second time there is nothing to do."""
    arguments = ("compile", "--interface", "eth0=sg-1", "--yes")
    assert agent.command(*arguments).status == 0
    assert "log prefix" not in agent.table()
    agent.configure("[flow_log]\n")
    printed = agent.command("compile", "--dry-run", "--interface", "eth0=sg-1").output
    assert 'log prefix "rule/eth0/sgr-1" group 9469' in printed
    assert agent.command(*arguments).status == 0
    assert 'log prefix "rule/eth0/sgr-1" group 9469' in agent.table()
    assert agent.command(*arguments).output.startswith("unchanged")


class TestApplier:
    """The applier's limits on the agent's use of the kernel's packet log."""

    @pytest.fixture
    def plane(self, one_interface: Lab) -> Iterator[ApplierDataplane]:
        """Begin with an applier of the host."""
        with one_interface.host.entered(), fork_applier(owned=True) as applier:
            yield ApplierDataplane(applier.channel, mask=0xFFFF0000)

    def test_the_socket_can_be_read_and_changes_nothing(self, plane: ApplierDataplane) -> None:
        """It is the group's that was named; whoever holds it without privilege can't choose another."""
        assert plane.allow_log(GROUP)
        with plane.open_log() as opened:
            assert (opened.family, opened.type) == (socket.AF_NETLINK, socket.SOCK_RAW)
            assert not opened.get_inheritable()
            with pytest.raises(BlockingIOError):
                opened.recv(1)

    def test_a_group_is_named_once(self, plane: ApplierDataplane) -> None:
        """And before the log is opened; there are 65,536 of them."""
        with pytest.raises(KernelRefusedError, match="no group"):
            plane.open_log()
        with pytest.raises(KernelRefusedError, match="out of bounds"):
            plane.allow_log(1 << 16)
        assert plane.allow_log(GROUP)
        with pytest.raises(KernelRefusedError, match="a second group"):
            plane.allow_log(7)

    def test_plans_log_to_that_group_alone(self, plane: ApplierDataplane) -> None:
        """An agent that was taken over can't fill the log of another program."""
        assert plane.allow_log(GROUP)
        chain = Chain(name="rule/eth0/sgr-1")
        for group, is_taken in ((7, False), (GROUP, True)):
            rule = p.AddRule(chain.name, Rule((LIMIT, Log("rule/eth0/sgr-1", group))))
            plan = Plan((p.AddTable(), p.AddChain(chain), rule))
            if is_taken:
                plane.apply(plan)
            else:
                with pytest.raises(KernelRefusedError, match="no such request"):
                    plane.apply(plan)
        observed = plane.observe()
        assert observed.ruleset is not None
        assert observed.foreign == ()
        assert observed.ruleset.chain_by_name[chain.name].rules == (
            Rule((LIMIT, Log("rule/eth0/sgr-1", GROUP))),
        )

    def test_asking_leaves_no_trace(self, plane: ApplierDataplane) -> None:
        """Whether the kernel can do it is tried without doing anything."""
        assert plane.allow_log(GROUP)
        assert plane.observe().ruleset is None
