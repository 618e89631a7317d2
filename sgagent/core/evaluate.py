"""The executable specification: evaluate one packet by a plain walk over §3, for review by eye.

The compiler never calls this. Tests compare compiled rulesets with it, the verifier proves the table by it,
and ``explain`` and ``sgagent test`` ask it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from sgagent.core.clauses import DecidedBy
from sgagent.core.model import ICMPV6, UDP, Direction, Family, Policy, Protocol
from sgagent.core.policy import (
    DHCP,
    LINK_LOCAL,
    MULTICAST_LISTENER_TYPES,
    NEIGHBOUR_DISCOVERY_TYPES,
    Exemption,
    InvalidPackets,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
)


class Tracking(enum.Enum):
    """Conntrack's state of a packet."""

    NEW = "new"
    """It opens a session, or belongs to one that the current policy has not judged."""

    ALLOWED = "allowed"
    """It belongs to a session that the current policy allows, or is an error message about one (§6)."""

    UNTRACKED = "untracked"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet as it is on the wire at an interface (§2.2), or the one that opened its session."""

    interface: str
    direction: Direction
    """Of the session: the way its first packet went."""

    family: Family
    source: int
    """An address as a number."""

    destination: int
    protocol: int
    """For IPv6 the upper-layer header behind the extension headers (§4.1)."""

    source_port: int | None = None
    """None for protocols without ports, and for packets too short to hold any."""

    destination_port: int | None = None
    icmp_type: int | None = None
    hop_limit: int | None = None
    tracking: Tracking = Tracking.NEW
    user: int | None = None
    """Who made the socket of this host that sent it; None without one (§13.3)."""

    unit: int | None = None
    """The number of the control group in which it was made (§13.3); None without one."""

    is_of_unknown_user: bool = False
    """Whether it answers a session of this host, whose user and unit it does not show."""

    is_fragment: bool = False
    """Whether it is a fragment of IPv6 that conntrack did not put together with the others (§4.2)."""

    is_over_limit: bool = False
    """Whether its source has opened as many sessions as any limit lets it (§13.1)."""

    @property
    def peer(self) -> int:
        """Return the address of the far end."""
        return self.source if self.direction is Direction.INGRESS else self.destination

    @property
    def local(self) -> int:
        """Return the address of the near end."""
        return self.destination if self.direction is Direction.INGRESS else self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict and how it came about."""

    verdict: Policy
    decided_by: DecidedBy
    rule: ResolvedRule | None = None
    """The rule that decided, if one did."""

    shadowed: tuple[ResolvedRule, ...] = ()
    """Every other rule that matches, in order of precedence, whatever step decided."""


def evaluate(policy: ResolvedPolicy, packet: Packet) -> Decision:
    """Return the verdict on a packet; in observe mode, the one that enforcing would bring (§9.1)."""
    interface = policy.judge(packet.interface)
    if interface is None:
        return Decision(verdict=Policy.ACCEPT, decided_by=DecidedBy.UNBOUND)
    rules = interface.toward(packet.direction).rules
    matching = tuple(rule for rule in rules if matches(rule, packet))  # the one that decides first (§3.5)
    verdict, decided_by = _first_step_that_applies(interface, packet, matching)
    rule, shadowed = (matching[0], matching[1:]) if decided_by in _BY_RULE else (None, matching)
    return Decision(verdict=verdict, decided_by=decided_by, rule=rule, shadowed=shadowed)


_BY_RULE = (DecidedBy.RULE, DecidedBy.OVER_LIMIT)


def _first_step_that_applies(
    interface: ResolvedInterface, packet: Packet, matching: tuple[ResolvedRule, ...]
) -> tuple[Policy, DecidedBy]:
    """Go through the steps of §3."""
    toward = interface.toward(packet.direction)
    is_invalid = packet.tracking is Tracking.INVALID and interface.invalid is InvalidPackets.DROP
    if is_invalid or packet.is_fragment:  # §6.6, §4.2
        return Policy.DROP, DecidedBy.INVALID
    if packet.tracking is Tracking.ALLOWED:  # step 1
        return Policy.ACCEPT, DecidedBy.SESSION
    if is_spoofed(interface, packet):
        return Policy.DROP, DecidedBy.SPOOFED
    if is_always_allowed(packet) or any(exempts(entry, packet) for entry in toward.platform):  # step 2
        return Policy.ACCEPT, DecidedBy.ALWAYS
    if any(exempts(entry, packet) for entry in toward.failsafe):  # step 3
        return Policy.ACCEPT, DecidedBy.FAILSAFE
    if toward.inner.contains(packet.family, packet.peer):  # step 4; never for egress, where the set is empty
        return Policy.ACCEPT, DecidedBy.INNER
    if matching and matching[0].conditions.limit and packet.is_over_limit:  # step 5, §13.1
        return Policy.DROP, DecidedBy.OVER_LIMIT
    if matching:  # step 5
        return matching[0].policy, DecidedBy.RULE
    return toward.default, DecidedBy.DEFAULT  # step 6


def is_spoofed(interface: ResolvedInterface, packet: Packet) -> bool:
    """Return whether the source check drops a packet that opens a session, or has none (§12.6)."""
    if interface.own_addresses is None or is_always_allowed(packet):
        return False
    is_own = interface.own_addresses.contains(packet.family, packet.source)
    return is_own is (packet.direction is Direction.INGRESS)


def matches(rule: ResolvedRule, packet: Packet) -> bool:
    """Return whether the packet is one that the rule speaks of (§4)."""
    return (
        rule.peer.addresses.contains(packet.family, packet.peer)
        and rule.source_ports.matches(packet.source_port)
        and matches_but_for_source(rule, packet)
    )


def matches_but_for_source(rule: ResolvedRule, packet: Packet) -> bool:
    """Return whether the rule may match such a packet of another far end, or from another port."""
    return (
        any(_protocol_matches(protocol, packet) for protocol in rule.protocols)
        and _local_matches(rule, packet)
        and rule.ports.matches(packet.destination_port)
        and (
            rule.local_address is None
            or (
                rule.local_address.family is packet.family
                and rule.local_address.first <= packet.local <= rule.local_address.last
            )
        )
    )


def _local_matches(rule: ResolvedRule, packet: Packet) -> bool:
    """Return whether the packet is of the rule's user or unit; an unknown one is, if so it passes (§6.3)."""
    if rule.conditions.local is None:
        return True
    if packet.is_of_unknown_user:
        return rule.policy is Policy.ACCEPT
    if rule.units is None:
        return packet.user == rule.user
    return packet.unit is not None and rule.units[0] <= packet.unit <= rule.units[1]


def exempts(entry: Exemption, packet: Packet) -> bool:
    """Return whether a platform or fail-safe entry speaks of the packet (§7.3, §7.4)."""
    return (
        entry.direction is packet.direction
        and entry.peer.family is packet.family
        and entry.peer.first <= packet.peer <= entry.peer.last
        and _protocol_matches(entry.protocol, packet)
        and entry.ports.matches(packet.destination_port)
    )


def _protocol_matches(protocol: Protocol, packet: Packet) -> bool:
    if protocol.number is None:
        return True
    return protocol.number == packet.protocol and protocol.only_family in (None, packet.family)


def is_always_allowed(packet: Packet) -> bool:
    """Return whether a host needs the packet to have an address at all (§7.1)."""
    return _is_dhcp(packet) or _is_neighbour_discovery(packet) or _is_multicast_listener(packet)


def _is_dhcp(packet: Packet) -> bool:
    server, client = DHCP[packet.family]
    ports = (server, client) if packet.direction is Direction.INGRESS else (client, server)
    return packet.protocol == UDP.number and (packet.source_port, packet.destination_port) == ports


def _is_neighbour_discovery(packet: Packet) -> bool:
    """Return whether it is router or neighbour discovery from this very link (RFC 4861: hop limit 255)."""
    return _is_icmpv6(packet, NEIGHBOUR_DISCOVERY_TYPES) and packet.hop_limit == 255


def _is_multicast_listener(packet: Packet) -> bool:
    """Return whether it is MLD (RFC 2710, RFC 3810: link-local or unspecified source, hop limit 1)."""
    near = packet.source == 0 or LINK_LOCAL[0] <= packet.source <= LINK_LOCAL[1]
    return _is_icmpv6(packet, MULTICAST_LISTENER_TYPES) and packet.hop_limit == 1 and near


def _is_icmpv6(packet: Packet, types: tuple[int, ...]) -> bool:
    return packet.family is Family.IPV6 and packet.protocol == ICMPV6.number and packet.icmp_type in types


_ICMP_REQUESTS = frozenset({8, 13, 15, 17})
"""ICMP types that open a session: echo, timestamp, information and address mask (RFC 792, RFC 950)."""

_ICMPV6_REQUESTS = frozenset({128, 139})
"""ICMPv6 types that open one: echo and node information (RFC 4443, RFC 4620)."""

_ICMPV6_UNFOLLOWED = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143, 151, 152})
"""ICMPv6 types that conntrack leaves alone: listeners, neighbours, routers (RFC 3810, RFC 4861, RFC 4286)."""

_NO_UPPER_LAYER = frozenset({0, 43, 44, 51, 59, 60})
"""IPv6's extension headers that conntrack looks behind, and "no next header" (RFC 8200, RFC 4302).

A packet whose last header is one of these has no upper layer. Mobility (135), HIP (139) and Shim6 (140) are
upper layers to conntrack, and so is ESP (50).
"""


def as_opener(packet: Packet) -> Packet:
    """Return the packet as conntrack takes it where it belongs to no session that it follows.

    A packet about which it said something already is returned as it is.
    """
    if packet.tracking is not Tracking.NEW:
        return packet
    is_ipv4, protocol = packet.family is Family.IPV4, Protocol(packet.protocol)
    types = _ICMP_REQUESTS if is_ipv4 else _ICMPV6_REQUESTS | _ICMPV6_UNFOLLOWED
    may_open = (
        protocol.only_family in (None, packet.family)
        and (is_ipv4 or protocol.number not in _NO_UPPER_LAYER)
        and (not protocol.has_types or packet.icmp_type is None or packet.icmp_type in types)
    )
    return packet if may_open else replace(packet, tracking=Tracking.INVALID)
