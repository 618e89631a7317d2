"""Make random definitions and random packets that have something to do with each other.

Everything comes from one ``random.Random``, so that a seed names a case. Addresses and ports are drawn from a
small universe of nested and neighbouring ones: what is drawn collides, and edges are hit.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.evaluate import Packet, Tracking
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
)
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Definitions, what is bound on a host, and what that comes to."""

    snapshot: Snapshot
    bindings: tuple[HandBinding, ...]
    policy: ResolvedPolicy
    exemptions: Exemptions


def random_case(
    random: Random, *, interfaces: Sequence[str] = ("eth0", "eth1"), most_rules: int = 40
) -> Case:
    """Return random definitions that have no errors, bound to the interfaces.

    Args:
        random: where chance comes from.
        interfaces: the links to bind; now and then one of them has no group.
        most_rules: per group.
    """
    snapshot = random_snapshot(random, most_rules=most_rules)
    bindings = tuple(_binding(random, name, snapshot) for name in interfaces)
    exemptions = _exemptions(random)
    policy = resolved(snapshot, bindings, exemptions)
    if policy is None:
        raise AssertionError("a generated case has errors")
    return Case(snapshot=snapshot, bindings=bindings, policy=policy, exemptions=exemptions)


def resolved(
    snapshot: Snapshot, bindings: tuple[HandBinding, ...], exemptions: Exemptions
) -> ResolvedPolicy | None:
    """Return what definitions come to on a host; None where they have errors."""
    bound = bind(snapshot, bindings, HostFacts(), automatically=False)
    resolution = resolve(snapshot, bound, exemptions)
    return None if resolution.errors else resolution.policy


def random_snapshot(random: Random, *, most_rules: int = 40) -> Snapshot:
    """Return random definitions that have no errors."""
    return _Definitions(random).snapshot(most_rules)


def random_packets(random: Random, policy: ResolvedPolicy, number: int) -> list[Packet]:
    """Return packets that open sessions, most of them at an edge of something that the policy speaks of."""
    draw = _Packets(random, policy)
    return [draw.packet() for _ in range(number)]


class _Definitions:
    """Draws the objects of one snapshot."""

    def __init__(self, random: Random) -> None:
        """Draw the lists, to which rules will refer."""
        self.random = random
        self.prefix_lists = [self._prefix_list(number) for number in range(random.randint(1, 4))]
        self.port_lists = [self._port_list(number) for number in range(random.randint(1, 2))]
        self.group_ids = [f"sg-{number}" for number in range(random.randint(2, 6))]
        self.account_by_group = {group: random.choice(ACCOUNTS) for group in self.group_ids}
        self.rules = 0

    def snapshot(self, most_rules: int) -> Snapshot:
        """Draw all."""
        groups = [self._group(group_id, most_rules) for group_id in self.group_ids]
        types = {group.security_group_id: group.group_type for group in groups}
        interfaces = [self._network_interface(number, types) for number in range(self.random.randint(0, 6))]
        return Snapshot(
            version="random",
            security_groups=tuple(groups),
            prefix_lists=tuple(self.prefix_lists),
            port_lists=tuple(self.port_lists),
            network_interfaces=tuple(interfaces),
        )

    def _prefix_list(self, number: int) -> PrefixList:
        family = self.random.choice(tuple(Family))
        entries = {random_block(self.random, family) for _ in range(self.random.randint(0, 8))}
        return PrefixList(prefix_list_id=f"pl-{number}", family=family, entries=tuple(sorted(entries)))

    def _port_list(self, number: int) -> PortList:
        entries = PortSet.of(*(self._port_range() for _ in range(self.random.randint(0, 4))))
        return PortList(port_list_id=f"prl-{number}", entries=entries)

    def _group(self, group_id: str, most_rules: int) -> SecurityGroup:
        random = self.random
        rules = [self._rule(group_id) for _ in range(random.randint(0, most_rules))]
        return SecurityGroup(
            security_group_id=group_id,
            group_type=random.choice((GroupType.BASIC, GroupType.BASIC, GroupType.ADVANCED)),
            inner_access_policy=random.choice(tuple(Policy)),
            account_id=self.account_by_group[group_id],
            member_addresses=tuple(sorted({self._member() for _ in range(random.randint(0, 4))}, key=str)),
            rules=tuple(sorted(rules, key=lambda rule: rule.rule_id)),
        )

    def _network_interface(self, number: int, types: dict[str, GroupType]) -> NetworkInterface:
        group_type = self.random.choice(tuple(types.values()))
        candidates = [group for group, found in types.items() if found is group_type]
        chosen = self.random.sample(candidates, self.random.randint(1, len(candidates)))
        return NetworkInterface(
            network_interface_id=f"eni-{number}",
            mac_address=f"00:16:3e:00:00:{number:02x}",
            addresses=tuple(sorted({self._member() for _ in range(self.random.randint(0, 4))}, key=str)),
            security_group_ids=tuple(sorted(chosen)),
        )

    def _member(self) -> CidrBlock:
        """Draw a member's address, now and then a delegated prefix."""
        family = self.random.choice(tuple(Family))
        if self.random.random() < 0.2:
            return random_block(self.random, family)
        return CidrBlock.parse(self.random.choice(_BASES[family]))

    def _rule(self, group_id: str) -> SecurityGroupRule:
        random = self.random
        self.rules += 1
        policy = random.choice(tuple(Policy))
        peer, family = self._object(group_id, policy)
        protocol = self._protocol(family)
        local = random_block(random, family) if family and random.random() < 0.2 else None
        return SecurityGroupRule(
            rule_id=f"sgr-{self.rules:04}",
            direction=random.choice(tuple(Direction)),
            policy=policy,
            priority=random.choice(_PRIORITIES),
            protocol=protocol,
            ports=self._ports(protocol),
            authorization_object=peer,
            source_ports=(
                PortSet.of(self._port_range()) if protocol.has_ports and random.random() < 0.2 else ALL_PORTS
            ),
            local_address=local,
        )

    def _object(self, group_id: str, policy: Policy) -> tuple[AuthorizationObject, Family | None]:
        """Draw the other end, and the one family it speaks of, if it does."""
        random = self.random
        draw = random.random()
        if draw < 0.2:
            other = random.choice(self.group_ids)
            account = self.account_by_group[other]
            is_own = account == self.account_by_group[group_id]
            return GroupReference(other, None if is_own and random.random() < 0.5 else account), None
        if draw < 0.35:
            prefix_list = random.choice(self.prefix_lists)
            return PrefixListReference(prefix_list.prefix_list_id), prefix_list.family
        if draw < 0.38 and policy is Policy.ACCEPT:
            return GroupReference("sg-unknown"), None
        family = random.choice(tuple(Family))
        return random_block(random, family), family

    def _protocol(self, family: Family | None) -> Protocol:
        """Draw a protocol that the family has."""
        own = {Family.IPV4: ICMP, Family.IPV6: ICMPV6, None: self.random.choice((ICMP, ICMPV6))}[family]
        other = Protocol(self.random.choice(_OTHER_PROTOCOLS))
        return self.random.choice((TCP, TCP, TCP, TCP, UDP, UDP, UDP, ALL_PROTOCOLS, own, GRE, other))

    def _ports(self, protocol: Protocol) -> PortSet | PortListReference:
        """Draw destination ports, none for what has none."""
        random = self.random
        if not protocol.has_ports or random.random() < 0.15:
            return ALL_PORTS
        if random.random() < 0.2:
            return PortListReference(random.choice(self.port_lists).port_list_id)
        return PortSet.of(*(self._port_range() for _ in range(random.choice((1, 1, 1, 2, 3)))))

    def _port_range(self) -> tuple[int, int]:
        first, last = sorted(self.random.choices(_PORTS, k=2))
        return (first, first) if self.random.random() < 0.5 else (first, last)


class _Packets:
    """Draws packets for one policy."""

    def __init__(self, random: Random, policy: ResolvedPolicy) -> None:
        """Collect the edges of all that the policy speaks of."""
        self.random = random
        self.policy = policy
        self.interfaces = [interface.name for interface in policy.interfaces]
        self.addresses = {family: _edge_addresses(policy, family) for family in Family}
        self.ports = sorted(_edge_ports(policy))
        self.protocols = _protocols(policy)

    def packet(self) -> Packet:
        """Draw one, half of them from what a rule speaks of."""
        packet = self._anything()
        return packet if self.random.random() < 0.5 else self._aimed(packet)

    def _aimed(self, packet: Packet) -> Packet:
        """Move a packet so that it meets a rule of its interface and direction, if only just."""
        random = self.random
        interface = self.policy.interface(packet.interface)
        rules = interface.toward(packet.direction).rules if interface else ()
        if not rules:
            return packet
        rule = random.choice(rules)
        number = packet.protocol if rule.protocol.number is None else rule.protocol.number
        families = [family for family in Family if rule.peer.addresses.ranges(family)]
        families = [family for family in families if rule.protocol.only_family in (None, family)]
        if not families:
            return packet
        family = random.choice(families)
        if family is Family.IPV6 and number in _EXTENSION_HEADERS:
            return packet
        ends = random.choice(rule.peer.addresses.ranges(family))
        peer = random.choice((*ends, random.randint(*ends)))
        local = self._address(family)
        if rule.local_address is not None and rule.local_address.family is family:
            local = random.randint(rule.local_address.first, rule.local_address.last)
        if not (is_ordinary_address(family, peer) and is_ordinary_address(family, local)):
            return packet
        source, destination = (peer, local) if packet.direction is Direction.INGRESS else (local, peer)
        aimed = Packet(
            interface=packet.interface,
            direction=packet.direction,
            family=family,
            source=source,
            destination=destination,
            protocol=number,
            hop_limit=64,
        )
        aimed = self._with_upper_layer(aimed)
        if aimed.destination_port is not None and rule.ports and not rule.ports.is_all:
            aimed = replace(aimed, destination_port=random.choice(random.choice(rule.ports.ranges)))
        if aimed.source_port is not None and rule.source_ports and not rule.source_ports.is_all:
            aimed = replace(aimed, source_port=random.choice(random.choice(rule.source_ports.ranges)))
        return aimed

    def _anything(self) -> Packet:
        """Draw one from all that the policy speaks of."""
        random = self.random
        family = random.choice(tuple(Family))
        protocol = random.choice(self.protocols) if random.random() < 0.9 else random.randrange(256)
        if family is Family.IPV6 and protocol in _EXTENSION_HEADERS:
            protocol = TCP.wire_number
        packet = Packet(
            interface=random.choice(self.interfaces),
            direction=random.choice(tuple(Direction)),
            family=family,
            source=self._address(family),
            destination=self._address(family),
            protocol=protocol,
            hop_limit=64,
        )
        return self._with_upper_layer(packet)

    def _with_upper_layer(self, packet: Packet) -> Packet:
        """Draw what the protocol's header says; headers that are too short are invalid to conntrack."""
        random = self.random
        if packet.protocol in PORTED_NUMBERS:
            if random.random() < 0.02:
                return replace(packet, tracking=Tracking.INVALID)
            return replace(packet, source_port=self._port(), destination_port=self._port())
        if packet.protocol == 1 and packet.family is Family.IPV4:
            return replace(packet, icmp_type=8)
        if packet.protocol == 58 and packet.family is Family.IPV6:
            return self._with_icmpv6(packet)
        if packet.protocol in (1, 58) or (packet.protocol == 59 and packet.family is Family.IPV6):
            # The other family's, or "no next header": conntrack takes neither.
            return replace(packet, tracking=Tracking.INVALID)
        return packet

    def _with_icmpv6(self, packet: Packet) -> Packet:
        """Draw a ping, or a message that conntrack does not follow and that may be always allowed."""
        random = self.random
        if random.random() < 0.5:
            return replace(packet, icmp_type=128)
        source = random.choice((packet.source, 0, 0xFE80 << 112 | 9))
        return replace(
            packet,
            icmp_type=random.choice((130, 131, 132, 133, 134, 135, 136, 143)),
            hop_limit=random.choice((1, 2, 64, 254, 255, 255)),
            source=source,
            tracking=Tracking.UNTRACKED,
        )

    def _address(self, family: Family) -> int:
        """Draw an address, most often at an edge."""
        edge = self.random.choice(self.addresses[family])
        return edge if self.random.random() < 0.9 else edge ^ 1 << self.random.randrange(16)

    def _port(self) -> int:
        """Draw a port, most often at an edge."""
        return (
            self.random.choice(self.ports)
            if self.random.random() < 0.9
            else self.random.randint(0, LAST_PORT)
        )


def random_block(random: Random, family: Family) -> CidrBlock:
    """Draw a network from the universe of the family."""
    base = random.choice(_BASES[family])
    length = random.choice(_PREFIX_LENGTHS[family])
    return CidrBlock.of(ipaddress.ip_network(f"{base}/{length}", strict=False))


def is_ordinary_address(family: Family, address: int) -> bool:
    """Tell whether a host may send to and from the address: no loopback, multicast, mapped or missing one."""
    if family is Family.IPV4:
        return 0 < address >> 24 < 224 and address >> 24 != 127
    return address >> 96 >= 1 and address >> 120 < 0xFF


def _binding(random: Random, name: str, snapshot: Snapshot) -> HandBinding:
    """Bind a link to groups of one type, and now and then to none."""
    if random.random() < 0.1:
        return HandBinding(interface=name)
    group_type = random.choice([group.group_type for group in snapshot.security_groups])
    of_type = [
        group.security_group_id for group in snapshot.security_groups if group.group_type is group_type
    ]
    chosen = random.sample(of_type, random.randint(1, len(of_type)))
    return HandBinding(interface=name, security_group_ids=tuple(sorted(chosen)))


def _exemptions(random: Random) -> Exemptions:
    """Draw fail-safe entries beside the platform's own."""
    failsafe = tuple(
        Exemption(
            direction=random.choice(tuple(Direction)),
            peer=random_block(random, random.choice(tuple(Family))),
            protocol=random.choice((TCP, UDP, ALL_PROTOCOLS)),
            ports=random.choice((ALL_PORTS, PortSet.of((22, 22)))),
        )
        for _ in range(random.choice((0, 0, 0, 1, 2)))
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
        for direction in Direction:
            toward = interface.toward(direction)
            for addresses in (toward.inner, *(rule.peer.addresses for rule in toward.rules)):
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
        rule.protocol.number
        for interface in policy.interfaces
        for direction in Direction
        for rule in interface.toward(direction).rules
    }
    return (
        [6] * 12
        + [17] * 6
        + [1, 58, 58, 33, 47, 132, 136, 253]
        + sorted(number for number in named if number is not None)
    )
