"""Make random definitions and random packets that have something to do with each other.

Addresses and ports are drawn from a small universe of nested and neighbouring ones: what is drawn collides,
and edges are hit.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import count
from zoneinfo import ZoneInfo

import yaml
from hypothesis.vendor.pretty import RepresentationPrinter

from sgagent.core.addresses import NO_ADDRESSES
from sgagent.core.binding import NO_FACTS, HandBinding, HostFacts, Link, bind
from sgagent.core.conditions import Conditions, SourceLimit
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.hours import Hours
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    GRE,
    ICMP,
    ICMPV6,
    LAST_PORT,
    PORTED_NUMBERS,
    TCP,
    UDP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    NetworkInterface,
    Policy,
    PortList,
    PortListReference,
    PortSet,
    PrefixList,
    PrefixListReference,
    Protocol,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
    SourceCheck,
)
from sgagent.core.policy import Exemption, InvalidPackets, ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.core.rule_values import EVERYTHING, canonical_objects
from sgagent.documents.writer import write_document
from tests.draws import Draws

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
"""The latest time in all cases; some rules ended before, and some will."""

ENDS = (NOW - timedelta(microseconds=1), NOW, NOW + timedelta(microseconds=1), NOW + timedelta(days=30))
HOURS = (
    Hours(days=(4,), begins=12 * 60, ends=13 * 60),
    Hours(begins=11 * 60, ends=12 * 60),
    Hours(days=(3,), begins=13 * 60, ends=12 * 60 + 1),
    Hours(days=(3,), begins=13 * 60, ends=12 * 60),
    Hours(days=(4,), begins=21 * 60, ends=22 * 60, zone=ZoneInfo("Asia/Tokyo")),
)
"""The first, third and last hold at :data:`NOW`, a Friday."""

LIMITS = (SourceLimit(rate=10, seconds=60, burst=20), SourceLimit(rate=1, seconds=3600, burst=1))
METADATA = CidrBlock.parse("100.100.100.200/32")
ACCOUNTS = ("1000000000000001", "1000000000000002")

_BASES = {
    Family.IPV4: ("10.1.2.3", "10.1.2.4", "10.1.3.3", "10.200.0.1", "192.168.7.7", "203.0.113.5", "8.8.8.8"),
    Family.IPV6: (
        "2001:db8:1:2::3",
        "2001:db8:1:2::4",
        "2001:db8:1:3::3",
        "2001:db8:ffff::1",
        "fd00:1:2:3::4",
        "fe80::7",
    ),
}
_PREFIX_LENGTHS = {
    Family.IPV4: (0, 1, 7, 8, 9, 12, 15, 16, 17, 23, 24, 25, 29, 30, 31, 32, 32, 32, 32),
    Family.IPV6: (0, 1, 3, 16, 32, 47, 48, 63, 64, 65, 112, 126, 127, 128, 128, 128, 128),
}
_PORTS = (1, 2, 22, 67, 68, 80, 81, 443, 546, 547, 1023, 1024, 8080, 32768, 40000, 65534, 65535)
_PRIORITIES = (1, 1, 1, 2, 2, 3, 50, 99, 100, 110)
_OTHER_PROTOCOLS = (0, 2, 4, 33, 41, 50, 89, 112, 132, 136, 253, 254, 255)
_EXTENSION_HEADERS = (0, 43, 44, 51, 60, 135, 139, 140)
"""As the protocol of an IPv6 packet these are headers before an upper layer, not one."""


MOST_LINES_SHOWN = 40


class Shown:
    """Something that Hypothesis prints as its text, and not as all its fields."""

    def _repr_pretty_(self, printer: RepresentationPrinter, _is_cycle: bool) -> None:  # noqa: FBT001 - its protocol
        printer.text(str(self))


@dataclass(frozen=True, slots=True)
class ShownDocument(Shown):
    """Definitions that are printed as a document with a rule on each line."""

    snapshot: Snapshot

    def __str__(self) -> str:
        """Return the document, cut off where it is long."""
        document = write_document(self.snapshot)
        lines = yaml.dump(document, default_flow_style=None, sort_keys=False, width=1_000).splitlines()
        return "\n".join([*lines[:MOST_LINES_SHOWN], *["…"] * (len(lines) > MOST_LINES_SHOWN)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Shown):
    """Definitions, what is bound on a host, and what that comes to."""

    snapshot: Snapshot
    bindings: tuple[HandBinding, ...]
    policy: ResolvedPolicy
    exemptions: Exemptions
    facts: HostFacts

    def __str__(self) -> str:
        """Return what makes the case again."""
        bound = [f"# {hand.interface}: {', '.join(hand.security_group_ids)}" for hand in self.bindings]
        bound += [
            f"# {link.name} carries {', '.join(map(str, link.addresses))}, sources are checked"
            for hand in self.bindings
            for link in self.facts.links
            if link.name == hand.interface and hand.source_check
        ]
        failsafe = [f"# fail-safe: {entry}" for entry in self.exemptions.failsafe]
        return "\n".join(["Case:", *bound, *failsafe, str(ShownDocument(self.snapshot))])


def described(packet: Packet) -> str:
    """Return a packet in one line, as a person reads it."""
    address = ipaddress.IPv4Address if packet.family is Family.IPV4 else ipaddress.IPv6Address
    source, destination = address(packet.source), address(packet.destination)
    return (
        f"{packet.interface} {packet.direction.value} {source} > {destination} protocol {packet.protocol}"
        f" ports {packet.source_port} > {packet.destination_port} type {packet.icmp_type}"
        f" hop limit {packet.hop_limit} {packet.tracking.value}"
    )


def random_case(draws: Draws, *, interfaces: Sequence[str] = ("eth0", "eth1"), most_rules: int = 40) -> Case:
    """Return random definitions that have no errors, bound to the interfaces.

    Args:
        draws: where chance comes from.
        interfaces: the links to bind; now and then one of them has no group.
        most_rules: per group.
    """
    snapshot = random_snapshot(draws, most_rules=most_rules)
    bindings = tuple(draws.item(partial(_binding, name=name, snapshot=snapshot)) for name in interfaces)
    exemptions = draws.item(_exemptions)
    facts = random_facts(draws, interfaces)
    policy = resolved(snapshot, bindings, exemptions, facts)
    if policy is None:
        raise AssertionError("a generated case has errors")
    return Case(snapshot=snapshot, bindings=bindings, policy=policy, exemptions=exemptions, facts=facts)


def without_limits(case: Case) -> Case:
    """Return a case whose rules limit no source, so that earlier packets decide nothing about later ones."""
    groups = tuple(
        replace(group, rules=tuple(map(_without_limit, group.rules)))
        for group in case.snapshot.security_groups
    )
    snapshot = replace(case.snapshot, security_groups=groups)
    policy = resolved(snapshot, case.bindings, case.exemptions, case.facts)
    if policy is None:
        raise AssertionError("a generated case has errors")
    return replace(case, snapshot=snapshot, policy=policy)


def _without_limit(rule: SecurityGroupRule) -> SecurityGroupRule:
    return replace(rule, conditions=replace(rule.conditions, limit=None))


def random_facts(draws: Draws, interfaces: Sequence[str]) -> HostFacts:
    """Return links that carry random addresses and networks."""

    def link(draws: Draws, name: str, index: int) -> Link:
        return Link(name=name, index=index, addresses=random_addresses(draws))

    return HostFacts(
        links=tuple(
            draws.item(partial(link, name=name, index=index))
            for index, name in enumerate(sorted(interfaces), 2)
        )
    )


def random_addresses(draws: Draws) -> tuple[CidrBlock, ...]:
    """Return addresses and networks of a link: few, so that many packets come from elsewhere."""
    return tuple(draws.many(lambda draws: random_block(draws, draws.choice(tuple(Family))), 4))


def resolved(
    snapshot: Snapshot, bindings: tuple[HandBinding, ...], exemptions: Exemptions, facts: HostFacts = NO_FACTS
) -> ResolvedPolicy | None:
    """Return what definitions come to on a host; None where they have errors."""
    bound = bind(snapshot, bindings, facts, automatically=False)
    resolution = resolve(snapshot, bound, exemptions, at=NOW)
    return None if resolution.errors else resolution.policy


def random_snapshot(draws: Draws, *, most_rules: int = 40) -> Snapshot:
    """Return random definitions that have no errors."""
    return _Definitions(draws).snapshot(most_rules)


def random_packets(draws: Draws, policy: ResolvedPolicy, number: int) -> list[Packet]:
    """Return packets that open sessions, most of them at an edge of something that the policy speaks of."""
    return draws.many(_Packets(policy).packet, number, is_full=True)


class _Definitions:
    """Draws the objects of one snapshot."""

    def __init__(self, draws: Draws) -> None:
        """Draw the lists, to which rules will refer."""
        self.draws = draws
        self.rules, self.lists, self.interfaces = count(1), count(), count()
        self.prefix_lists = draws.many(self._prefix_list, 4) or [self._prefix_list(draws)]
        self.port_lists = draws.many(self._port_list, 2) or [self._port_list(draws)]
        self.group_ids = [f"sg-{number}" for number in range(draws.randint(2, 6))]
        self.account_by_group = {group: draws.choice(ACCOUNTS) for group in self.group_ids}

    def snapshot(self, most_rules: int) -> Snapshot:
        """Draw all."""
        groups = [self._group(group_id, most_rules) for group_id in self.group_ids]
        types = {group.security_group_id: group.group_type for group in groups}
        interfaces = self.draws.many(lambda draws: self._network_interface(draws, types), 6)
        return Snapshot(
            version="random",
            security_groups=tuple(groups),
            prefix_lists=tuple(self.prefix_lists),
            port_lists=tuple(self.port_lists),
            network_interfaces=tuple(interfaces),
        )

    def _prefix_list(self, draws: Draws) -> PrefixList:
        family = draws.choice(tuple(Family))
        entries = set(draws.many(lambda draws: random_block(draws, family), 8))
        return PrefixList(
            prefix_list_id=f"pl-{next(self.lists)}", family=family, entries=tuple(sorted(entries))
        )

    def _port_list(self, draws: Draws) -> PortList:
        entries = PortSet.of(*draws.many(_port_range, 4))
        return PortList(port_list_id=f"prl-{next(self.lists)}", entries=entries)

    def _group(self, group_id: str, most_rules: int) -> SecurityGroup:
        group = self.draws.item(lambda draws: self._group_without_rules(draws, group_id))
        rules = self.draws.many(lambda draws: self._rule(draws, group_id), most_rules)
        return replace(group, rules=tuple(sorted(rules, key=lambda rule: rule.rule_id)))

    def _group_without_rules(self, draws: Draws, group_id: str) -> SecurityGroup:
        return SecurityGroup(
            security_group_id=group_id,
            group_type=draws.choice((GroupType.BASIC, GroupType.BASIC, GroupType.ADVANCED)),
            inner_access_policy=draws.choice(tuple(Policy)),
            account_id=self.account_by_group[group_id],
            member_addresses=_members(draws),
        )

    def _network_interface(self, draws: Draws, types: dict[str, GroupType]) -> NetworkInterface:
        number = next(self.interfaces)
        group_type = draws.choice(tuple(types.values()))
        candidates = [group for group, found in types.items() if found is group_type]
        chosen = draws.sample(candidates, draws.randint(1, len(candidates)))
        return NetworkInterface(
            network_interface_id=f"eni-{number}",
            mac_address=f"00:16:3e:00:00:{number:02x}",
            addresses=_members(draws),
            security_group_ids=tuple(sorted(chosen)),
        )

    def _rule(self, draws: Draws, group_id: str) -> SecurityGroupRule:
        policy = draws.choice(tuple(Policy))
        peer, family = self._object(draws, group_id, policy)
        protocol = _protocol(draws, family)
        local = random_block(draws, family) if family and draws.chance(20) else None
        others = self._other_objects(draws, group_id, policy, local) if draws.chance(25) else ()
        protocols = _with_others(draws, protocol, family) if draws.chance(25) else (protocol,)
        has_ports = all(one.has_ports for one in protocols)
        return SecurityGroupRule(
            rule_id=f"sgr-{next(self.rules):04}",
            direction=draws.choice(tuple(Direction)),
            policy=policy,
            priority=draws.choice(_PRIORITIES),
            protocols=protocols,
            ports=self._ports(draws) if has_ports else ALL_PORTS,
            authorization_objects=canonical_objects([peer, *others]),
            source_ports=PortSet.of(_port_range(draws)) if has_ports and draws.chance(20) else ALL_PORTS,
            local_address=local,
            expires=draws.choice(ENDS) if draws.chance(10) else None,
            conditions=Conditions(
                active=draws.choice(HOURS) if draws.chance(10) else None,
                limit=draws.choice(LIMITS) if policy is Policy.ACCEPT and draws.chance(10) else None,
            ),
        )

    def _object(
        self, draws: Draws, group_id: str, policy: Policy
    ) -> tuple[AuthorizationObject, Family | None]:
        """Draw the other end, and the one family it speaks of, if it does."""
        draw = draws.randint(0, 99)
        if draw >= 80:
            other = draws.choice(self.group_ids)
            account = self.account_by_group[other]
            is_own = account == self.account_by_group[group_id]
            return GroupReference(other, None if is_own and draws.chance(50) else account), None
        if draw >= 65:
            prefix_list = draws.choice(self.prefix_lists)
            return PrefixListReference(prefix_list.prefix_list_id), prefix_list.family
        if draw >= 62 and policy is Policy.ACCEPT:
            return GroupReference("sg-unknown"), None
        family = draws.choice(tuple(Family))
        return random_block(draws, family), family

    def _other_objects(
        self, draws: Draws, group_id: str, policy: Policy, local: CidrBlock | None
    ) -> list[AuthorizationObject]:
        """Draw more objects, with a near end only those of its family."""
        if draws.chance(20) and local is None:
            return list(EVERYTHING)
        drawn = [self._object(draws, group_id, policy) for _ in range(draws.randint(1, 4))]
        return [one for one, family in drawn if local is None or family in (None, local.family)]

    def _ports(self, draws: Draws) -> PortSet | PortListReference:
        """Draw destination ports."""
        if draws.chance(15):
            return ALL_PORTS
        if draws.chance(20):
            return PortListReference(draws.choice(self.port_lists).port_list_id)
        return PortSet.of(*(_port_range(draws) for _ in range(draws.choice((1, 1, 1, 2, 3)))))


def _members(draws: Draws) -> tuple[CidrBlock, ...]:
    """Draw the addresses of members, now and then a delegated prefix."""

    def member(draws: Draws) -> CidrBlock:
        family = draws.choice(tuple(Family))
        if draws.chance(20):
            return random_block(draws, family)
        return _network(draws.choice(_BASES[family]), family.bits)

    return tuple(sorted(set(draws.many(member, 4)), key=str))


def _protocol(draws: Draws, family: Family | None) -> Protocol:
    """Draw a protocol that the family has."""
    own = {Family.IPV4: ICMP, Family.IPV6: ICMPV6, None: draws.choice((ICMP, ICMPV6))}[family]
    other = Protocol(draws.choice(_OTHER_PROTOCOLS))
    return draws.choice((TCP, TCP, TCP, TCP, UDP, UDP, UDP, ALL_PROTOCOLS, own, GRE, other))


def _with_others(draws: Draws, protocol: Protocol, family: Family | None) -> tuple[Protocol, ...]:
    """Draw protocols beside one, which is a few times the only one."""
    if protocol == ALL_PROTOCOLS:
        return (protocol,)
    others = {_protocol(draws, family) for _ in range(draws.randint(1, 2))} - {ALL_PROTOCOLS}
    if protocol.has_ports and draws.chance(60):
        others = {TCP, UDP}
    return tuple(sorted({protocol, *others}))


def _port_range(draws: Draws) -> tuple[int, int]:
    first, last = sorted((draws.choice(_PORTS), draws.choice(_PORTS)))
    return (first, last) if draws.chance(50) else (first, first)


class _Packets:
    """Draws packets for one policy."""

    def __init__(self, policy: ResolvedPolicy) -> None:
        """Collect the edges of all that the policy speaks of."""
        self.policy = policy
        self.interfaces = [interface.name for interface in policy.interfaces]
        self.addresses = {family: _edge_addresses(policy, family) for family in Family}
        self.ports = sorted(_edge_ports(policy))
        self.protocols = _protocols(policy)

    def packet(self, draws: Draws) -> Packet:
        """Draw one, most of them from what a rule speaks of."""
        interface, direction = draws.choice(self.interfaces), draws.choice(tuple(Direction))
        aimed = self._aimed(draws, interface, direction) if draws.chance(65) else None
        return aimed or self._anything(draws, interface, direction)

    def _aimed(self, draws: Draws, interface: str, direction: Direction) -> Packet | None:
        """Draw a packet that meets a rule of an interface and direction, if only just."""
        judge = self.policy.interface(interface)
        rules = judge.toward(direction).rules if judge else ()
        if not rules:
            return None
        rule = draws.choice(rules)
        families = [family for family in Family if rule.peer.addresses.ranges(family)]
        families = [family for family in families if rule.protocols_of(family)]
        if not families:
            return None
        family = draws.choice(families)
        number = draws.choice(rule.protocols_of(family)).number
        number = self._protocol(draws, family) if number is None else number
        if family is Family.IPV6 and number in _EXTENSION_HEADERS:
            return None
        ends = draws.choice(rule.peer.addresses.ranges(family))
        peer = draws.randint(*ends) if draws.chance(33) else draws.choice(ends)
        if rule.local_address is not None and rule.local_address.family is family:
            local = draws.randint(rule.local_address.first, rule.local_address.last)
        else:
            local = self._address(draws, family)
        if not (is_ordinary_address(family, peer) and is_ordinary_address(family, local)):
            return None
        aimed = self._with_ends(draws, (interface, direction), (peer, local), (family, number))
        if aimed.destination_port is not None and rule.ports and not rule.ports.is_all:
            aimed = replace(aimed, destination_port=draws.choice(draws.choice(rule.ports.ranges)))
        if aimed.source_port is not None and rule.source_ports and not rule.source_ports.is_all:
            aimed = replace(aimed, source_port=draws.choice(draws.choice(rule.source_ports.ranges)))
        return aimed

    def _anything(self, draws: Draws, interface: str, direction: Direction) -> Packet:
        """Draw one from all that the policy speaks of."""
        family = draws.choice(tuple(Family))
        ends = self._address(draws, family), self._address(draws, family)
        return self._with_ends(draws, (interface, direction), ends, (family, self._protocol(draws, family)))

    def _with_ends(
        self, draws: Draws, place: tuple[str, Direction], ends: tuple[int, int], what: tuple[Family, int]
    ) -> Packet:
        """Return a packet between the far and the near end; draw what the protocol's header says."""
        (interface, direction), (peer, local), (family, protocol) = place, ends, what
        source, destination = (peer, local) if direction is Direction.INGRESS else (local, peer)
        packet = Packet(
            interface=interface,
            direction=direction,
            family=family,
            source=source,
            destination=destination,
            protocol=protocol,
            hop_limit=64,
        )
        if protocol in PORTED_NUMBERS:
            if draws.chance(2):
                return replace(packet, tracking=Tracking.INVALID)  # too short to hold ports
            return replace(packet, source_port=self._port(draws), destination_port=self._port(draws))
        if protocol == 1 and family is Family.IPV4:
            return replace(packet, icmp_type=8)
        if protocol == 58 and family is Family.IPV6:
            return _with_icmpv6(draws, packet)
        if protocol in (1, 58) or (protocol == 59 and family is Family.IPV6):
            # The other family's, or "no next header": conntrack takes neither.
            return replace(packet, tracking=Tracking.INVALID)
        return packet

    def _protocol(self, draws: Draws, family: Family) -> int:
        """Draw a protocol, most often one that the policy names."""
        protocol = draws.randint(0, 255) if draws.chance(10) else draws.choice(self.protocols)
        is_header = family is Family.IPV6 and protocol in _EXTENSION_HEADERS
        return TCP.wire_number if is_header else protocol

    def _address(self, draws: Draws, family: Family) -> int:
        """Draw an address, most often at an edge."""
        edge = draws.choice(self.addresses[family])
        return edge ^ 1 << draws.randint(0, 15) if draws.chance(10) else edge

    def _port(self, draws: Draws) -> int:
        """Draw a port, most often at an edge."""
        return draws.randint(0, LAST_PORT) if draws.chance(10) else draws.choice(self.ports)


def _with_icmpv6(draws: Draws, packet: Packet) -> Packet:
    """Draw a ping, or a message that conntrack does not follow and that may be always allowed."""
    if draws.chance(50):
        return replace(packet, icmp_type=128)
    return replace(
        packet,
        icmp_type=draws.choice((130, 131, 132, 133, 134, 135, 136, 143)),
        hop_limit=draws.choice((1, 2, 64, 254, 255, 255)),
        source=draws.choice((packet.source, 0, 0xFE80 << 112 | 9)),
        tracking=Tracking.UNTRACKED,
    )


def random_block(draws: Draws, family: Family) -> CidrBlock:
    """Draw a network from the universe of the family."""
    return _network(draws.choice(_BASES[family]), draws.choice(_PREFIX_LENGTHS[family]))


@cache  # parsing took a fifth of the time of drawing a case
def _network(base: str, length: int) -> CidrBlock:
    return CidrBlock.of(ipaddress.ip_network(f"{base}/{length}", strict=False))


def is_ordinary_address(family: Family, address: int) -> bool:
    """Tell whether a host may send to and from the address: no loopback, multicast, mapped or missing one."""
    if family is Family.IPV4:
        return 0 < address >> 24 < 224 and address >> 24 != 127
    return address >> 96 >= 1 and address >> 120 < 0xFF


def _binding(draws: Draws, name: str, snapshot: Snapshot) -> HandBinding:
    """Bind a link to groups of one type, and now and then to none."""
    if draws.chance(10):
        return HandBinding(interface=name)
    group_type = draws.choice([group.group_type for group in snapshot.security_groups])
    of_type = [one.security_group_id for one in snapshot.security_groups if one.group_type is group_type]
    chosen = draws.sample(of_type, draws.randint(1, len(of_type)))
    return HandBinding(
        interface=name,
        security_group_ids=tuple(sorted(chosen)),
        source_check=SourceCheck.ON if draws.chance(20) else None,
        invalid=InvalidPackets.EVALUATE if draws.chance(20) else InvalidPackets.DROP,
    )


def _exemptions(draws: Draws) -> Exemptions:
    """Draw fail-safe entries beside the platform's own."""
    failsafe = tuple(
        Exemption(
            direction=draws.choice(tuple(Direction)),
            peer=random_block(draws, draws.choice(tuple(Family))),
            protocol=draws.choice((TCP, UDP, ALL_PROTOCOLS)),
            ports=draws.choice((ALL_PORTS, PortSet.of((22, 22)))),
        )
        for _ in range(draws.choice((0, 0, 1, 1, 2)))
    )
    failsafe = tuple(
        replace(entry, ports=ALL_PORTS) if entry.protocol is ALL_PROTOCOLS else entry for entry in failsafe
    )
    platform = Exemption(direction=Direction.EGRESS, peer=METADATA, protocol=ALL_PROTOCOLS)
    return Exemptions(platform=(platform,), failsafe=failsafe)


def _edge_addresses(policy: ResolvedPolicy, family: Family) -> list[int]:
    """Return the addresses at and next to the ends of every range that the policy speaks of."""
    ends = {int(ipaddress.ip_address(base)) for base in _BASES[family]}
    if family is Family.IPV4:
        ends.add(METADATA.first)
    for interface in policy.interfaces:
        own = interface.own_addresses or NO_ADDRESSES
        ends.update(end for ends_of_range in own.ranges(family) for end in ends_of_range)
        for direction in Direction:
            toward = interface.toward(direction)
            spoken_of = (toward.inner, *(rule.peer.addresses for rule in toward.rules))
            # Many rules speak of one group, whose addresses are one object.
            for addresses in {id(one): one for one in spoken_of}.values():
                ends.update(end for ends_of_range in addresses.ranges(family) for end in ends_of_range)
            for block in (rule.local_address for rule in toward.rules):
                if block is not None and block.family is family:
                    ends.update((block.first, block.last))
    near = {end + step for end in ends for step in (-1, 0, 1)}
    return sorted(address for address in near if is_ordinary_address(family, address))


def _edge_ports(policy: ResolvedPolicy) -> set[int]:
    """Return the ports at and next to the ends of every range that the policy speaks of."""
    ends = {0, 67, 68, 546, 547, LAST_PORT}
    for interface in policy.interfaces:
        for direction in Direction:
            for rule in interface.toward(direction).rules:
                for first, last in (*rule.ports.ranges, *rule.source_ports.ranges):
                    ends.update((first - 1, first, last, last + 1))
    return {port for port in ends if 0 <= port <= LAST_PORT}


def _protocols(policy: ResolvedPolicy) -> list[int]:
    """Return protocols to draw from: those with ports often, and all that the policy names."""
    named = {
        protocol.number
        for interface in policy.interfaces
        for direction in Direction
        for rule in interface.toward(direction).rules
        for protocol in rule.protocols
    }
    return (
        [6] * 12
        + [17] * 6
        + [1, 58, 58, 33, 47, 132, 136, 253]
        + sorted(number for number in named if number is not None)
    )
