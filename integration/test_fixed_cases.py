"""The guide's cases before and after lint's fixes: the kernel decides otherwise only what lint named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration import forkserver
from integration.kernel_verdicts import judge
from integration.lab import Lab, lab
from integration.test_examples import printed_ruleset
from sgagent.core.evaluate import Packet
from sgagent.core.model import LAST_PORT, Direction, Policy, Protocol
from sgagent.policy_test.scenario import parse_packets
from tests.corpus import Example, examples

Flow = Mapping[str, Any]
"""One of the changes that lint names, as ``plan --json`` has it."""

CASES = [example for example in examples() if re.match(r"[1-6][a-z]?-", example.name)]

CHANGED = {
    "3-databases": {"PostgreSQL from elsewhere, which the broad accept opens too"},
    "6t-the-trap": {
        "the first site over HTTP, where drop wins the tie",
        "the second site over HTTPS likewise",
    },
    "3t-everything-first": {"MySQL from elsewhere", "MySQL from a neighbour of its client"},
}
"""The packets of the cases' files that the fixes decide otherwise; of other cases, none."""

EVERYTHING_FIRST = """\
version: 1
security_groups:
  - security_group_id: sg-database
    type: basic
    rules:
      - {rule_id: open, direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 1/65535,
         authorization_object: 0.0.0.0/0}
      - {rule_id: mysql, direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 3306,
         authorization_object: 172.16.1.2}
      - {rule_id: nomysql, direction: ingress, policy: drop, priority: 100, protocol: tcp, port_range: 3306,
         authorization_object: 0.0.0.0/0}
"""
"""The guide's third case with its broad accept before the drop that should close MySQL."""


def _packets(*rows: tuple[str, str, int, str]) -> bytes:
    names = ("name", "source", "port", "expect")
    same = {"direction": "ingress", "destination": "10.0.0.11", "protocol": "tcp"}
    packets = [same | dict(zip(names, row, strict=True)) for row in rows]
    return json.dumps({"bind": {"eth0": ["sg-database"]}, "packets": packets}).encode()


EVERYTHING_FIRST_PACKETS = _packets(
    ("MySQL from its client", "172.16.1.2", 3306, "accept"),
    ("MySQL from elsewhere", "198.51.100.23", 3306, "accept"),
    ("MySQL from a neighbour of its client", "172.16.1.3", 3306, "accept"),
    ("another port from elsewhere", "198.51.100.23", 8080, "accept"),
    ("another port from MySQL's client", "172.16.1.2", 22, "accept"),
)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_fixes_of_a_case(case: Example, tmp_path: Path) -> None:
    """What is decided otherwise is what the fixes name, and fixes without a code change no verdict."""
    definitions = tmp_path / "groups.d"
    shutil.copytree(case.definitions, definitions)
    assert_fixes_do_what_they_say(replace(case, definitions=definitions))


def test_the_database_keeps_its_client(tmp_path: Path) -> None:
    """The broad accept goes behind the closing drop, and that behind the rule of the database's client."""
    document = tmp_path / "groups.d" / "case3.yaml"
    document.parent.mkdir()
    document.write_text(EVERYTHING_FIRST)
    scenario = parse_packets(EVERYTHING_FIRST_PACKETS, "packets.json")
    assert_fixes_do_what_they_say(
        Example(name="3t-everything-first", scenario=scenario, definitions=document.parent), "void_drop"
    )
    (group,) = yaml.safe_load(document.read_text())["security_groups"]
    priorities = {rule["rule_id"]: rule["priority"] for rule in group["rules"]}
    assert priorities == {"open": 100, "mysql": 1, "nomysql": 99}


def assert_fixes_do_what_they_say(case: Example, *only: str) -> None:
    """Play a case's packets and their neighbours before and after all fixes of its documents."""
    packets = [entry.packet for entry in case.scenario.packets]
    around = list(dict.fromkeys(near for packet in packets for near in (packet, *neighbours(packet))))
    with lab(*case.scenario.links) as built:
        before = judged(built, case, around)
        accepting = [entry.expected.verdict is Policy.ACCEPT for entry in case.scenario.packets]
        assert [before[packet] for packet in packets] == accepting
        assert fixed(case, "--fix") == []
        codes = only or tuple(offered(case))
        flows = fixed(case, f"--fix={','.join(codes)}") if codes else []
        after = judged(built, case, around)
    named = {packet for packet in around if any(is_in(packet, flow) for flow in flows)}
    assert {packet for packet in around if after[packet] is not before[packet]} == named
    changed = {entry.name for entry in case.scenario.packets if entry.packet in named}
    assert changed == CHANGED.get(case.name, set())
    assert not set(codes).intersection(offered(case))


def judged(built: Lab, case: Example, packets: Sequence[Packet]) -> dict[Packet, bool]:
    """Return which packets pass, by what the case's documents are now."""
    built.host.remove_table("sgagent")
    built.load(printed_ruleset(built, case))
    return dict(zip(packets, judge(built, packets), strict=True))


def fixed(case: Example, option: str) -> list[Flow]:
    """Fix the documents of a case, and return the flows that the command named."""
    return list(lint(case, option)["fixed"]["flows"])


def offered(case: Example) -> dict[str, None]:
    """Return the codes of which lint offers a fix, in order."""
    return dict.fromkeys(one["code"] for one in lint(case)["findings"] if "fix" in one)


def lint(case: Example, *options: str) -> dict[str, Any]:
    """Return the JSON of a lint of the documents of a case."""
    arguments = ("lint", "--json", *options, "--definitions", str(case.definitions))
    done = forkserver.run(arguments, seconds=60)
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def neighbours(packet: Packet) -> Iterator[Packet]:
    """Yield the packets beside one: of the ports, and of the addresses of the far end, next to its own."""
    port, is_inwards = packet.destination_port, packet.direction is Direction.INGRESS
    for step in (-1, 1):
        if port is not None and 0 < port + step <= LAST_PORT:
            yield replace(packet, destination_port=port + step)
        yield (
            replace(packet, source=packet.source + step)
            if is_inwards
            else replace(packet, destination=packet.destination + step)
        )


def is_in(packet: Packet, flow: Flow) -> bool:
    """Return whether a packet is one of those that a flow is about."""
    assert flow["source_ports"] is flow["local_addresses"] is None
    far = packet.source if packet.direction is Direction.INGRESS else packet.destination
    ranges = [map(int, one.split("/")) for one in (flow["ports"] or f"0/{LAST_PORT}").split(",")]
    return (
        (flow["direction"], flow["family"]) == (packet.direction.value, packet.family.value)
        and flow["protocol"] in ("all", str(Protocol(packet.protocol)))
        and any(first <= (packet.destination_port or 0) <= last for first, last in ranges)
        and any(ip_address(far) in ip_network(one) for one in flow["addresses"])
    )
