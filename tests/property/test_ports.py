"""Sets of ports mean the same to all who read a rule: all, some ranges, or none at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from sgagent.analysis.header_space import cut_into_boxes
from sgagent.compiler.compilation import compile_
from sgagent.compiler.linear import MOST_LINES
from sgagent.core.addresses import AddressSet, joined
from sgagent.core.clauses import dhcp_clause, list_clauses
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.explanation import explain
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    ICMP,
    LAST_PORT,
    PORTED,
    TCP,
    UDP,
    Direction,
    Family,
    Policy,
    PortSet,
    Protocol,
)
from sgagent.core.policy import (
    Exemption,
    Peer,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
    precedence,
)
from sgagent.nft.marks import MarkLayout, first_state
from tests.points import boxes_with, every_point
from tests.tracing import walk
from tests.words import ACCEPT, DROP, IN, block, blocks, packet

LAYOUT = MarkLayout(0xFFFF0000)
NO_PORTS = PortSet()
EDGES = (0, 1, 22, 23, 80, 1024, LAST_PORT - 1, LAST_PORT)
PEERS = tuple(
    Peer(name=text, addresses=AddressSet.of(blocks(text)))
    for text in ("192.0.2.7", "192.0.2.0/24", "0.0.0.0/0")
)
"""Whom rules speak of: an address, a network, everyone."""


@st.composite
def port_sets(draw: st.DrawFn) -> PortSet:
    """Draw all ports, none, or up to three ranges."""
    ends = st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES))
    pairs = st.lists(ends.map(lambda pair: (min(pair), max(pair))), max_size=3)
    return draw(
        st.one_of(st.just(ALL_PORTS), st.just(NO_PORTS), pairs.map(lambda some: PortSet(joined(some))))
    )


@st.composite
def ports_of_protocol(draw: st.DrawFn) -> tuple[Protocol, PortSet, PortSet]:
    """Draw a protocol, destination and source ports; documents give ranges to those with ports alone."""
    protocol = draw(st.sampled_from((*PORTED, ALL_PROTOCOLS)))
    some = port_sets() if protocol.has_ports else st.sampled_from((ALL_PORTS, NO_PORTS))
    return protocol, draw(some), draw(some)


@st.composite
def rules(draw: st.DrawFn) -> tuple[ResolvedRule, ...]:
    """Draw up to four rules that differ in ports above all."""
    return tuple(
        sorted(
            (
                resolved(
                    number,
                    *draw(ports_of_protocol()),
                    policy=draw(st.sampled_from(Policy)),
                    peer=draw(st.sampled_from(PEERS)),
                )
                for number in range(draw(st.integers(1, 4)))
            ),
            key=precedence,
        )
    )


def resolved(
    number: int, protocol: Protocol, ports: PortSet, source_ports: PortSet, *, policy: Policy, peer: Peer
) -> ResolvedRule:
    """Return a rule."""
    return ResolvedRule(
        rule_id=f"r{number}",
        security_group_id="sg-1",
        direction=IN,
        authorization_objects=(),
        policy=policy,
        priority=number % 2 + 1,
        protocols=(protocol,),
        ports=ports,
        source_ports=source_ports,
        peer=peer,
    )


def policy_with(
    direction: Direction, *some: ResolvedRule, exempt: PortSet = NO_PORTS, default: Policy
) -> ResolvedPolicy:
    """Return a policy of rules and fail-safe entries in one direction."""
    failsafe = tuple(
        Exemption(direction=direction, peer=block(peer), protocol=protocol, ports=ports)
        for peer, protocol, ports in (
            ("192.0.2.9", TCP, exempt),
            ("203.0.113.1", ALL_PROTOCOLS, exempt if exempt.is_all else NO_PORTS),
        )
    )
    way = ResolvedDirection(failsafe=failsafe, rules=some, default=default)
    eth0 = ResolvedInterface(name="eth0")
    eth0 = replace(eth0, ingress=way) if direction is IN else replace(eth0, egress=way)
    return ResolvedPolicy(interfaces=(eth0,))


def verdicts(policy: ResolvedPolicy, judged: Packet, *, most_lines: int) -> set[Policy]:
    """Return what the specification, the explanation, the table and the header space say of a packet."""
    table = compile_(policy, LAYOUT, first_state(["eth0"], LAYOUT), most_lines=most_lines).ruleset
    way, family = judged.direction, judged.family
    clauses = (dhcp_clause(way, family), *list_clauses(policy.judge("eth0"), way, family))
    boxes = cut_into_boxes([clauses], family, lambda columns: columns[0][0].policy)
    (box,) = boxes_with(boxes, judged)
    return {
        evaluate(policy, judged).verdict,
        explain(policy, judged).verdict,
        ACCEPT if walk(table, judged).accepted else DROP,
        box.label,
    }


def packets(direction: Direction) -> list[Packet]:
    """Return packets at and beside every edge, and one without ports."""
    ends = {place for edge in EDGES for place in (edge, edge + 1) if place <= LAST_PORT}
    with_ports = [
        packet(direction, far_end, protocol, port, source_port=source_port)
        for far_end in ("192.0.2.7", "192.0.2.9", "203.0.113.1")
        for protocol in PORTED
        for port in sorted(ends)
        for source_port in (22, 40_000)
    ]
    return [*with_ports, packet(direction, "192.0.2.7", ICMP, icmp_type=8)]


SHAPES = (0, MOST_LINES)
"""Most lines of a list: look-ups alone, and lists where they are short."""


@given(rules(), port_sets(), st.sampled_from(Policy), st.sampled_from(Direction), st.data())
def test_all_who_read_a_rule_agree(
    some: tuple[ResolvedRule, ...],
    exempt: PortSet,
    default: Policy,
    direction: Direction,
    data: st.DataObject,
) -> None:
    """Specification, explanation, compiled table and header space give each packet the same verdict."""
    policy = policy_with(direction, *some, exempt=exempt, default=default)
    most_lines = data.draw(st.sampled_from(SHAPES))
    for judged in data.draw(st.lists(st.sampled_from(packets(direction)), min_size=1, max_size=8)):
        assert len(verdicts(policy, judged, most_lines=most_lines)) == 1, judged


@given(port_sets(), st.integers(0, LAST_PORT))
def test_a_set_holds_what_its_ranges_hold(ports: PortSet, port: int) -> None:
    """Only all ports hold what has none; nothing is in a set without ranges."""
    assert ports.matches(port) is any(first <= port <= last for first, last in ports.ranges)
    assert ports.matches(None) is (ports == ALL_PORTS)
    assert bool(ports) is any(ports.matches(one) for one in (*EDGES, None))


@pytest.mark.parametrize("most_lines", SHAPES)
@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("protocol", (TCP, ALL_PROTOCOLS))
@pytest.mark.parametrize("ports", ((NO_PORTS, ALL_PORTS), (ALL_PORTS, NO_PORTS), (NO_PORTS, NO_PORTS)))
def test_a_rule_without_ports_matches_nothing(
    ports: tuple[PortSet, PortSet], protocol: Protocol, policy: Policy, most_lines: int
) -> None:
    """An empty set of destination or source ports opens nothing, and closes nothing."""
    empty = resolved(1, protocol, *ports, policy=policy, peer=PEERS[2])
    default = DROP if policy is ACCEPT else ACCEPT
    for direction in Direction:
        closed = policy_with(direction, empty, default=default)
        for judged in (
            packet(direction, "192.0.2.9", TCP, 22),
            packet(direction, "192.0.2.9", UDP, LAST_PORT),
            packet(direction, "192.0.2.9", ICMP, icmp_type=8),
        ):
            assert verdicts(closed, judged, most_lines=most_lines) == {default}, judged
        for point in every_point([closed], "eth0", direction, Family.IPV4):
            assert evaluate(closed, point).rule is None, point
