"""Enrich logged packets to flows: both ends with names, the deciding rule and the verdict.

The prefix of a log statement names the leaf of the table that logged. The head of the packet, as far as the
kernel logs it, says who sends what to whom.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from sgagent.agent.flowlog.flow import Flow, FlowEnd
from sgagent.core.binding import link_name
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import CounterKey, InnerCounter, OverLimitCounter, RuleCounter, is_of_drops
from sgagent.core.explanation import step_of
from sgagent.core.link_patterns import is_pattern
from sgagent.core.model import (
    PROTOCOL_TABLE,
    CidrBlock,
    Direction,
    Family,
    Mode,
    Policy,
    PortUse,
    Protocol,
    Snapshot,
    address_text,
)
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.dataplane.nflog import LoggedPacket
from sgagent.nft.names import log_prefix

_IPV4 = struct.Struct("!BxHxxHxBxxII")
_IPV6 = struct.Struct("!IHBx16s16s")
_PORTS = struct.Struct("!HH")
_SHORTEST_IPV4_WORDS = 5
_FRAGMENT_OFFSET = 0x1FFF
_IPV6_FRAGMENT_OFFSET = 0xFFF8
_WITH_PORTS = frozenset(row.protocol.number for row in PROTOCOL_TABLE if row.ports is not PortUse.NONE)

_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140})
_MOST_EXTENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketHead:
    """The addresses, protocol and ports of a packet, as far as they could be read."""

    family: Family
    source: int
    destination: int
    protocol: int
    """For IPv6 behind the extension headers that could be read."""

    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    bytes: int
    """Of the whole packet, as its IP header says."""


def read_head(head: bytes) -> PacketHead | None:
    """Return the addresses, protocol and ports in a packet's first bytes; None if they are no IP header.

    Args:
        head: from the IP header on, cut off somewhere.
    """
    match head[0] >> 4 if head else 0:
        case 4 if len(head) >= _IPV4.size and head[0] & 0xF >= _SHORTEST_IPV4_WORDS:
            words, length, fragment, protocol, source, destination = _IPV4.unpack_from(head)
            family, rest = Family.IPV4, b"" if fragment & _FRAGMENT_OFFSET else head[4 * (words & 0xF) :]
        case 6 if len(head) >= _IPV6.size:
            _, length, protocol, *ends = _IPV6.unpack_from(head)
            family, length, (source, destination) = (
                Family.IPV6,
                length + _IPV6.size,
                map(int.from_bytes, ends),
            )
            protocol, rest = _behind_extensions(protocol, head[_IPV6.size :])
        case _:
            return None
    has_ports = protocol in _WITH_PORTS and len(rest) >= _PORTS.size
    source_port, destination_port = _PORTS.unpack_from(rest) if has_ports else (None, None)
    is_icmp = Protocol(protocol).only_family is family
    return PacketHead(
        family=family,
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=source_port,
        destination_port=destination_port,
        icmp_type=rest[0] if is_icmp and rest else None,
        bytes=length,
    )


def _behind_extensions(protocol: int, rest: bytes) -> tuple[int, bytes]:
    """Return the upper-layer protocol and its bytes; of a later fragment, or where they end, no bytes."""
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS or len(rest) < 8:
            break
        if protocol == _FRAGMENT:
            if int.from_bytes(rest[2:4]) & _IPV6_FRAGMENT_OFFSET:
                return rest[0], b""
            size = 8
        elif protocol == _AUTHENTICATION:
            size = 4 * (rest[1] + 2)
        else:
            size = 8 * (rest[1] + 1)
        protocol, rest = rest[0], rest[size:]
    return protocol, rest


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLeaf:
    """A leaf, where evaluation ends, and the meaning of its verdict for a packet."""

    key: CounterKey
    interface: str
    network_interface_id: str | None
    interface_groups: tuple[str, ...]
    """Those of the interface."""

    direction: Direction
    verdict: Policy
    mode: Mode
    decided_by: DecidedBy
    rule_id: str | None = None
    security_group_id: str | None = None
    priority: int | None = None
    local: str | None = None
    """In words: whose sockets the rule is for (§13.3)."""


Leaves = Mapping[str, LoggedLeaf]
"""By the prefix of the log statement."""


def leaves_of(policy: ResolvedPolicy, counters: Mapping[str, CounterKey]) -> Leaves:
    """Return the leaves of a table.

    Args:
        policy: what it enforces.
        counters: what its counters count, by name: each leaf has one of its own name.
    """
    rules = {
        (judge.name, direction, rule.rule_id): rule
        for judge in policy.judges
        for direction in Direction
        for rule in judge.toward(direction).rules
    }
    judges = {judge.name: judge for judge in policy.judges}
    return {
        log_prefix(name): _leaf(key, judges.get(key.interface, policy.unbound), rules)
        for name, key in counters.items()
    }


def have_same_leaves(one: ResolvedPolicy, other: ResolvedPolicy) -> bool:
    """Return whether two policies, whose tables have the same counters, describe each leaf alike.

    The members of groups make no difference.
    """
    return (one.unbound is None) is (other.unbound is None) and (
        [_leaf_facts(judge) for judge in one.judges] == [_leaf_facts(judge) for judge in other.judges]
    )


def _leaf_facts(judge: ResolvedInterface) -> tuple[object, ...]:
    """Return the facts of an interface and its rules that its leaves carry."""
    rules = (judge.toward(direction).rules for direction in Direction)
    ids = ([(rule.rule_id, rule.priority, rule.local_text) for rule in some] for some in rules)
    return judge.name, judge.network_interface_id, judge.security_group_ids, judge.mode, *ids


def _leaf(
    key: CounterKey, judge: ResolvedInterface | None, rules: Mapping[tuple[str, Direction, str], ResolvedRule]
) -> LoggedLeaf:
    direction = Direction.INGRESS if isinstance(key, InnerCounter) else key.direction
    of_rule = key if isinstance(key, RuleCounter | OverLimitCounter) else None
    rule = rules.get((key.interface, direction, of_rule.rule_id)) if of_rule else None
    return LoggedLeaf(
        key=key,
        interface=key.interface,
        network_interface_id=judge.network_interface_id if judge else None,
        interface_groups=judge.security_group_ids if judge else (),
        direction=direction,
        verdict=Policy.DROP if is_of_drops(key) else Policy.ACCEPT,
        mode=judge.mode if judge else Mode.ENFORCE,
        decided_by=step_of(key),
        rule_id=of_rule.rule_id if of_rule else None,
        security_group_id=of_rule.security_group_id if of_rule else None,
        priority=rule.priority if rule else None,
        local=rule.local_text if rule else None,
    )


MOST_NAMED = 200_000
"""Addresses that are named. Of definitions with more, those that come last stay without a name."""


@dataclass(frozen=True, slots=True)
class Name:
    """The interface and groups of an address."""

    network_interface_id: str | None = None
    security_group_ids: tuple[str, ...] = ()


NAMELESS = Name()

_Owner = tuple[str | None, Name]
"""The VPC of something that has an address, and what it is called."""

_Key = tuple[Family, int, int]
"""Family, length of the prefix, and its bits."""


@dataclass(frozen=True)
class Directory:
    """The names of a snapshot's addresses; worked out when the first is asked for."""

    snapshot: Snapshot

    def name(self, family: Family, address: int, vpc_id: str | None) -> Name:
        """Return the interface and groups of an address in a VPC.

        An address that several interfaces have, as networks that don't know of each other may, is called by
        the groups of all of them.

        Args:
            family: of the address.
            address: as a number.
            vpc_id: of the interface where it was seen; owners of another VPC are not meant. None is any.
        """
        names = [
            name
            for length in self._lengths[family]
            for owner_vpc, name in self._owners.get(_key(family, address, length), ())
            if vpc_id is None or owner_vpc in (None, vpc_id)
        ]
        interfaces = {name.network_interface_id for name in names if name.network_interface_id}
        groups = {group for name in names for group in name.security_group_ids}
        return Name(next(iter(interfaces)) if len(interfaces) == 1 else None, tuple(sorted(groups)))

    def vpc_of(self, network_interface_id: str | None) -> str | None:
        """Return the VPC of an interface; None where it is not known."""
        found = self.snapshot.interface_by_id.get(network_interface_id or "")
        return found.vpc_id if found else None

    @cached_property
    def _owners(self) -> dict[_Key, list[_Owner]]:
        owners = defaultdict[_Key, list[_Owner]](list)
        for block, owner in islice(self._owned(), MOST_NAMED):
            key = _key(block.family, block.first, block.network.prefixlen)
            owners[key].append(owner)
        return dict(owners)

    def _owned(self) -> Iterator[tuple[CidrBlock, _Owner]]:
        """Yield each address and prefix with its owner."""
        for interface in self.snapshot.network_interfaces:
            name = Name(interface.network_interface_id, interface.security_group_ids)
            yield from ((block, (interface.vpc_id, name)) for block in interface.addresses)
        for group in self.snapshot.security_groups:
            name = Name(None, (group.security_group_id,))
            yield from ((block, (group.vpc_id, name)) for block in group.member_addresses)

    @cached_property
    def _lengths(self) -> dict[Family, tuple[int, ...]]:
        """Return the lengths of prefixes that occur, the longest first."""
        return {
            family: tuple(sorted({key[1] for key in self._owners if key[0] is family}, reverse=True))
            for family in Family
        }


def _key(family: Family, address: int, length: int) -> _Key:
    return family, length, address >> (family.bits - length)


def make_flow(
    packet: LoggedPacket,
    head: PacketHead,
    leaf: LoggedLeaf,
    directory: Directory,
    *,
    number: int,
    seen_at: float,
) -> Flow:
    """Return the flow that a packet belongs to.

    Args:
        packet: the packet as the kernel logged it.
        head: its parsed headers.
        leaf: the counter chain that logged it.
        directory: maps addresses to names.
        number: of the flow.
        seen_at: when the agent read it; seconds since the epoch.
    """
    is_reply = packet.is_leaving is (leaf.direction is Direction.INGRESS)
    vpc_id = directory.vpc_of(leaf.network_interface_id)
    # A spoofed source that leaves is no address of the interface (§12.6).
    is_foreign = leaf.decided_by is DecidedBy.SPOOFED and leaf.direction is Direction.EGRESS

    def end(address: int, port: int | None, *, is_local: bool) -> FlowEnd:
        """Return an end with its names; a near end without any has those of the interface."""
        name = directory.name(head.family, address, vpc_id)
        if name == NAMELESS and is_local and not is_foreign:
            name = Name(leaf.network_interface_id, leaf.interface_groups)
        return FlowEnd(
            address=address_text(head.family, address),
            port=port,
            network_interface_id=name.network_interface_id,
            security_group_ids=name.security_group_ids,
        )

    source = end(head.source, head.source_port, is_local=packet.is_leaving)
    destination = end(head.destination, head.destination_port, is_local=not packet.is_leaving)
    if is_reply and head.icmp_type is None:
        source, destination = destination, source
    return Flow(
        number=number,
        seen_at=seen_at,
        interface=_link_name(packet, leaf),
        direction=leaf.direction,
        verdict=leaf.verdict,
        mode=leaf.mode,
        decided_by=leaf.decided_by,
        rule_id=leaf.rule_id,
        security_group_id=leaf.security_group_id,
        priority=leaf.priority,
        local=leaf.local,
        family=head.family,
        protocol=str(Protocol(head.protocol)),
        source=source,
        destination=destination,
        icmp_type=head.icmp_type,
        is_reply=is_reply,
        user=packet.user,
        bytes=head.bytes,
    )


def _link_name(packet: LoggedPacket, leaf: LoggedLeaf) -> str:
    """Return the name of the link, also where several links are judged together."""
    if is_pattern(leaf.interface):
        with contextlib.suppress(OSError):
            return link_name(os.fsencode(socket.if_indextoname(packet.link_index)))
    return leaf.interface
