"""Go through every packet that can be decided differently from its neighbours.

A policy draws borders through addresses, protocols and ports. Between two borders nothing changes, so the
first number behind each border stands for all up to the next: a comparison over these is one over everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from sgagent.analysis.header_space import Box, Label
from sgagent.core.addresses import NO_ADDRESSES, Ranges
from sgagent.core.evaluate import Packet
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS, Direction, Family
from sgagent.core.policy import DHCP, Exemption, ResolvedDirection, ResolvedPolicy, ResolvedRule


def every_point(
    policies: Iterable[ResolvedPolicy], interface: str, direction: Direction, family: Family
) -> Iterator[Packet]:
    """Yield a packet for each combination of borders that any of the policies draws at an interface."""
    judges = [judge for policy in policies if (judge := policy.judge(interface))]
    towards = [judge.toward(direction) for judge in judges]
    own = [run for judge in judges for run in (judge.own_addresses or NO_ADDRESSES).ranges(family)]
    sources_in, sources_out = (own, []) if direction is Direction.INGRESS else ([], own)
    peers = _starts((*_peers(towards, family), *sources_in), family.last_address)
    near_ends = _starts((*_near_ends(towards, family), *sources_out), family.last_address)
    ports = _starts(_ports(towards, direction, family), LAST_PORT)
    source_ports = _starts(_source_ports(towards, direction, family), LAST_PORT)
    for protocol, peer, near_end in product(_protocols(towards), peers, near_ends):
        pairs = product(source_ports, ports) if protocol in PORTED_NUMBERS else [(None, None)]
        for source_port, port in pairs:
            source, destination = (peer, near_end) if direction is Direction.INGRESS else (near_end, peer)
            yield Packet(
                interface=interface,
                direction=direction,
                family=family,
                source=source,
                destination=destination,
                protocol=protocol,
                source_port=source_port,
                destination_port=port,
            )


def boxes_with(boxes: Iterable[Box[Label]], packet: Packet) -> list[Box[Label]]:
    """Return the boxes that hold a packet."""
    return [box for box in boxes if _is_in(box, packet)]


def _is_in(box: Box[Label], packet: Packet) -> bool:
    return (
        box.family is packet.family
        and _has(box.peers, packet.peer)
        and _has(box.protocols, packet.protocol)
        and _has(box.ports, packet.destination_port or 0)
        and _has(box.source_ports, packet.source_port or 0)
        and _has(box.locals, packet.local)
    )


def _has(ranges: Ranges, number: int) -> bool:
    return any(first <= number <= last for first, last in ranges)


def _starts(ranges: Iterable[tuple[int, int]], last: int) -> list[int]:
    """Return the first number, and the first behind each border."""
    found = {0} | {border for first, final in ranges for border in (first, final + 1)}
    return sorted(number for number in found if number <= last)


def _rules(towards: Iterable[ResolvedDirection]) -> list[ResolvedRule]:
    return [rule for toward in towards for rule in toward.rules]


def _exemptions(towards: Iterable[ResolvedDirection]) -> list[Exemption]:
    return [entry for toward in towards for entry in (*toward.platform, *toward.failsafe)]


def _peers(towards: list[ResolvedDirection], family: Family) -> Iterator[tuple[int, int]]:
    for toward in towards:
        yield from toward.inner.ranges(family)
    for rule in _rules(towards):
        yield from rule.peer.addresses.ranges(family)
    for entry in _exemptions(towards):
        if entry.peer.family is family:
            yield entry.peer.first, entry.peer.last


def _near_ends(towards: list[ResolvedDirection], family: Family) -> Iterator[tuple[int, int]]:
    for rule in _rules(towards):
        if rule.local_address is not None and rule.local_address.family is family:
            yield rule.local_address.first, rule.local_address.last


def _ports(
    towards: list[ResolvedDirection], direction: Direction, family: Family
) -> Iterator[tuple[int, int]]:
    server, client = DHCP[family]
    port = client if direction is Direction.INGRESS else server
    yield port, port
    for ports in [one.ports for one in _rules(towards)] + [one.ports for one in _exemptions(towards)]:
        yield from ports.ranges


def _source_ports(
    towards: list[ResolvedDirection], direction: Direction, family: Family
) -> Iterator[tuple[int, int]]:
    server, client = DHCP[family]
    port = server if direction is Direction.INGRESS else client
    yield port, port
    for rule in _rules(towards):
        yield from rule.source_ports.ranges


def _protocols(towards: list[ResolvedDirection]) -> list[int]:
    """Return those with ports, those that are named, and one that nobody names."""
    protocols = [protocol for one in _rules(towards) for protocol in one.protocols]
    protocols += [one.protocol for one in _exemptions(towards)]
    numbers = {one.number for one in protocols if one.number is not None} | set(PORTED_NUMBERS)
    return sorted(numbers | {next(number for number in range(255, -1, -1) if number not in numbers)})
