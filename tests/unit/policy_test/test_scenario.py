"""Files of packets are read strictly, and all that is wrong with one is told at once."""

from __future__ import annotations

import ipaddress

import pytest

from sgagent.core.binding import HandBinding
from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import DocumentError, Origin
from sgagent.core.evaluate import Decision, Packet
from sgagent.core.model import Direction, Family, Policy, SourceCheck
from sgagent.policy_test.scenario import (
    ExpectedDecision,
    ExpectedPacket,
    ExpectedReply,
    disagreement,
    parse_packets,
)

WHOLE = b"""
definitions: ../groups.d
bind:
  eth1: eni-web-1
  eth0: [sg-web, sg-base]
packets:
  - name: HTTPS
    interface: eth0
    direction: ingress
    source: 203.0.113.7
    destination: 10.0.0.11
    protocol: TCP
    source_port: 1024
    port: 443
    expect: accept
    decided_by: rule
    rule_id: sgr-1
    security_group_id: sg-web
  - {name: its answer, replies_to: HTTPS, expect: accept, decided_by: session}
"""


def problems_of(packet: str, bind: str = "{eth0: [sg-1]}") -> list[tuple[str, str]]:
    """Return code and path of all that is wrong with a file of one packet."""
    with pytest.raises(DocumentError) as refused:
        parse_packets(f"bind: {bind}\npackets:\n  - {packet}\n".encode(), "packets.yaml")
    return [(problem.code, problem.origin.path) for problem in refused.value.problems]


def test_everything_is_read() -> None:
    """Every field of the format arrives where it belongs."""
    scenario = parse_packets(WHOLE, "packets.yaml")
    packet, reply = scenario.traffic
    assert scenario.definitions == "../groups.d"
    assert scenario.bindings == (
        HandBinding(
            interface="eth0",
            security_group_ids=("sg-base", "sg-web"),
            origin=Origin(file="packets.yaml", line=5, path="bind.eth0"),
        ),
        HandBinding(
            interface="eth1",
            network_interface_id="eni-web-1",
            origin=Origin(file="packets.yaml", line=4, path="bind.eth1"),
        ),
    )
    assert packet == ExpectedPacket(
        name="HTTPS",
        packet=Packet(
            interface="eth0",
            direction=Direction.INGRESS,
            family=Family.IPV4,
            source=int(ipaddress.ip_address("203.0.113.7")),
            destination=int(ipaddress.ip_address("10.0.0.11")),
            protocol=6,
            source_port=1024,
            destination_port=443,
            hop_limit=64,
        ),
        expected=ExpectedDecision(
            verdict=Policy.ACCEPT, decided_by=DecidedBy.RULE, rule_id="sgr-1", security_group_id="sg-web"
        ),
        origin=Origin(file="packets.yaml", line=7, path="packets[0]"),
    )
    assert isinstance(reply, ExpectedReply)
    assert reply.opener is packet
    assert reply.expected == ExpectedDecision(verdict=Policy.ACCEPT, decided_by=DecidedBy.SESSION)


def test_what_is_left_out_has_a_default() -> None:
    """The only bound interface, a client's port, a ping and an ordinary hop limit are meant."""
    text = b"""
    bind: {eth0: [sg-1]}
    packets:
      - {name: a, direction: egress, source: "::1", destination: "::2", protocol: icmpv6, expect: drop}
      - {name: b, direction: egress, source: "::1", destination: "::2", protocol: 17, port: 0, expect: drop}
    """
    scenario = parse_packets(text, "packets.yaml")
    ping, datagram = (entry.packet for entry in scenario.packets)
    assert scenario.definitions == "groups.d"
    assert (ping.interface, ping.icmp_type, ping.hop_limit, ping.source_port) == ("eth0", 128, 64, None)
    assert (datagram.source_port, datagram.destination_port, datagram.icmp_type) == (40_000, 0, None)


def test_json_is_read_too() -> None:
    """A file of packets may be written as JSON."""
    assert parse_packets(b'{"bind": {"eth0": []}, "packets": []}', "packets.json").traffic == ()


ENDS = "name: a, direction: ingress, source: 10.0.0.1, destination: 10.0.0.2, expect: drop"
NAMELESS = ENDS.replace("name: a", "name: ''")


@pytest.mark.parametrize(
    ("packet", "expected"),
    (
        (f"{{{ENDS}, protocol: tcp}}", [("missing_field", "packets[0].port")]),
        (f"{{{ENDS}, protocol: tcp, port: 65536}}", [("out_of_range", "packets[0].port")]),
        (f"{{{ENDS}, protocol: tcp, port: http}}", [("wrong_type", "packets[0].port")]),
        (f"{{{ENDS}, protocol: gre, port: 1}}", [("no_ports", "packets[0].port")]),
        (f"{{{ENDS}, protocol: all}}", [("bad_value", "packets[0].protocol")]),
        (f"{{{ENDS}, protocol: 256}}", [("bad_value", "packets[0].protocol")]),
        (f"{{{ENDS}, protocol: icmpv6, icmp_type: 8}}", [("no_type", "packets[0].icmp_type")]),
        (f"{{{ENDS}, protocol: icmp, hop_limit: 256}}", [("out_of_range", "packets[0].hop_limit")]),
        (f"{{{ENDS}, protocol: icmp, interface: eth1}}", [("unknown_interface", "packets[0].interface")]),
        (f"{{{ENDS}, protocol: icmp, colour: red}}", [("unknown_field", "packets[0].colour")]),
        (f"{{{ENDS}, protocol: icmp, decided_by: luck}}", [("bad_value", "packets[0].decided_by")]),
        (f"{{{ENDS}, protocol: icmp, decided_by: default, rule_id: sgr-1}}", [("mismatch", "packets[0]")]),
        (f"{{{NAMELESS}, protocol: icmp}}", [("bad_value", "packets[0].name")]),
        (
            f"{{{ENDS.replace('10.0.0.2', '10.0.0.0/8')}, protocol: icmp}}",
            [("bad_value", "packets[0].destination")],
        ),
        (
            f"{{{ENDS.replace('10.0.0.2', 'fe80::1%eth0')}, protocol: icmp}}",
            [("bad_value", "packets[0].destination")],
        ),
        (
            f"{{{ENDS.replace('10.0.0.', '0::ffff:10.0.0.')}, protocol: icmpv6}}",
            [("mapped_address", "packets[0].source"), ("mapped_address", "packets[0].destination")],
        ),
        (
            f"{{{ENDS.replace('10.0.0.2', '2001:db8::1')}, protocol: icmp}}",
            [("mixed_families", "packets[0]")],
        ),
        ("{name: a, replies_to: b, expect: accept}", [("unknown_packet", "packets[0].replies_to")]),
        (
            "{name: a, replies_to: b, expect: accept, port: 1}",
            [("unknown_field", "packets[0].port"), ("unknown_packet", "packets[0].replies_to")],
        ),
        ("3", [("wrong_type", "packets[0]")]),
        (
            "{}",
            [
                ("missing_field", f"packets[0].{name}")
                for name in ("name", "expect", "direction", "source", "destination", "protocol")
            ],
        ),
    ),
)
def test_every_error_is_told_with_its_place(packet: str, expected: list[tuple[str, str]]) -> None:
    """What does not fit is an error at the field that is wrong, and nothing is guessed."""
    assert problems_of(packet) == expected


def test_the_interface_must_be_said_where_several_are_bound() -> None:
    """With two interfaces a packet does not choose one by itself."""
    packet = f"{{{ENDS}, protocol: icmp}}"
    assert problems_of(packet, "{eth0: [sg-1], eth1: [sg-1]}") == [("missing_field", "packets[0].interface")]


@pytest.mark.parametrize(
    ("text", "code"),
    (
        (b"", "empty_document"),
        (b"[]", "wrong_type"),
        (b"a: b: c", "syntax"),
        (b"\xff", "not_utf8"),
        (b"packets: []", "missing_field"),
        (b"bind: {}", "missing_field"),
        (b"bind: {eth0: 3}\npackets: []", "wrong_type"),
        (b"bind: {eth0: sg-1}\npackets: []", "wrong_type"),
        (b"bind: {eth0: []}\nbind: {eth0: []}\npackets: []", "duplicate_key"),
        (b"bind: {eth0: [{}]}\npackets: []", "wrong_type"),
        (b"bind: {eth0: []}\npackets: {}", "wrong_type"),
    ),
)
def test_what_is_no_scenario_is_refused(text: bytes, code: str) -> None:
    """A file that is something else is refused with the reason."""
    with pytest.raises(DocumentError) as refused:
        parse_packets(text, "packets.yaml")
    assert [problem.code for problem in refused.value.problems] == [code]


def test_a_name_stands_once() -> None:
    """Two packets of one name are an error: a reply could not say which it answers."""
    packet = f"{{{ENDS}, protocol: icmp}}"
    assert problems_of(f"{packet}\n  - {packet}") == [("duplicate_name", "packets[1]")]


def test_a_decision_differs_only_in_what_is_looked_at() -> None:
    """What a judgement leaves open is not compared; the first difference is told."""
    decision = Decision(verdict=Policy.DROP, decided_by=DecidedBy.DEFAULT)
    assert disagreement(ExpectedDecision(verdict=Policy.DROP), decision) is None
    assert disagreement(ExpectedDecision(verdict=Policy.ACCEPT), decision) == "verdict is drop, not accept"
    by_rule = ExpectedDecision(verdict=Policy.DROP, rule_id="sgr-1")
    assert disagreement(by_rule, decision) == "rule_id is None, not sgr-1"


def test_sources_may_be_checked() -> None:
    """For every interface of the file, by the addresses of its network interface (§12.6)."""
    text = "bind: {eth0: eni-1, eth1: [sg-1]}\nsource_check: on\npackets: []\n"
    bindings = parse_packets(text.encode(), "packets.yaml").bindings
    assert {binding.source_check for binding in bindings} == {SourceCheck.ON}
    with pytest.raises(DocumentError, match="source_check"):
        parse_packets(text.replace("on\n", "maybe\n").encode(), "packets.yaml")


def test_names_have_the_addresses_that_the_file_states() -> None:
    """Compared without case and final dot; none is an empty object (§12.3)."""
    text = "bind: {eth0: [sg-1]}\ndns: {Mirror.example.org.: [192.0.2.80], b.example: []}\npackets: []\n"
    names = parse_packets(text.encode(), "packets.yaml").names
    assert names.keys() == {"mirror.example.org", "b.example"}
    assert names["mirror.example.org"].contains(Family.IPV4, int(ipaddress.ip_address("192.0.2.80")))
    assert not names["b.example"]
    with pytest.raises(DocumentError, match="not an address"):
        parse_packets(text.replace("192.0.2.80", "nowhere").encode(), "packets.yaml")


def test_patterns_are_bound_and_packets_pass_links() -> None:
    """A packet names a link that a pattern matches, as the pattern alone says none."""
    packet = f"{{{ENDS}, protocol: icmp"
    bind = "{'br-*': [sg-1], br-lan: [sg-2]}"
    text = f"bind: {bind}\npackets:\n  - {packet}, interface: br-0}}\n"
    assert parse_packets(text.encode(), "packets.yaml").links == ("br-0", "br-lan")
    assert problems_of(f"{packet}}}", "{'br-*': [sg-1]}") == [("missing_field", "packets[0].interface")]
    assert problems_of(f"{packet}, interface: xbr-0}}", bind) == [
        ("unknown_interface", "packets[0].interface")
    ]
    assert problems_of(f"{packet}, interface: br-0}}", "{'*': [sg-1]}")[0] == ("bad_interface_name", "bind.*")
