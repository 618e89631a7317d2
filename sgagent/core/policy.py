"""What the groups of a snapshot come to on this host's interfaces: references resolved, rules in order.

This is what ``resolve`` makes and what ``evaluate`` and the compiler read. It no longer knows documents, only
verdicts: addresses are sets of numbers, port lists are ranges, and the rules of all groups of an interface
are one list in the order that §3.5 gives them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.model import (
    ALL_PROTOCOLS,
    CidrBlock,
    Direction,
    GroupType,
    Mode,
    Policy,
    PortRange,
    Protocol,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end of a rule: an authorization object and the addresses that it stands for."""

    name: str
    """The object as documents write it: ``10.0.0.0/8``, ``sg-app``, ``1000000000000001/sg-x``, ``pl-a``."""

    addresses: AddressSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRule:
    """A rule whose references are resolved."""

    rule_id: str
    security_group_id: str
    policy: Policy
    priority: int
    protocol: Protocol
    ports: tuple[PortRange, ...] | None
    """Destination ports, merged and sorted. None is any, and what has no ports; () is none at all (an unknown
    or empty port list)."""

    source_ports: tuple[PortRange, ...] | None
    """None is any."""

    peer: Peer
    local_address: CidrBlock | None = None


def precedence(rule: ResolvedRule) -> tuple[int, bool, str, str]:
    """Return a sort key that puts the rule that decides first (§3.5).

    Among rules of one priority drop comes first. The ids come last: they make the order total, name the
    rule that gets the hit, and cannot change a verdict.
    """
    return (rule.priority, rule.policy is Policy.ACCEPT, rule.rule_id, rule.security_group_id)


def merged_ports(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """Return the same ports as sorted ranges that neither overlap nor touch."""
    merged: list[PortRange] = []
    for port_range in sorted(ranges):
        if merged and port_range.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, port_range.last))
        else:
            merged.append(port_range)
    return tuple(merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """Traffic of the configuration's platform or fail-safe list, which no group can block (§7.3, §7.4)."""

    direction: Direction
    peer: CidrBlock
    protocol: Protocol
    ports: tuple[PortRange, ...] | None = None
    """Destination ports; None is any."""

    def __str__(self) -> str:
        """Return what the entry lets through, for people: ``egress to 192.0.2.1, tcp 443/443``."""
        way = "from" if self.direction is Direction.INGRESS else "to"
        ports = "" if self.ports is None else " " + ",".join(map(str, self.ports))
        traffic = "" if self.protocol == ALL_PROTOCOLS else f", {self.protocol}{ports}"
        return f"{self.direction.value} {way} {self.peer}{traffic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDirection:
    """All that decides about sessions opened in one direction through one interface, in the order of §3."""

    platform: tuple[Exemption, ...] = ()
    """Step 2, beyond what every interface always allows."""

    failsafe: tuple[Exemption, ...] = ()
    """Step 3."""

    inner: AddressSet = NO_ADDRESSES
    """Step 4: fellow members of the basic groups that let their members talk. Always empty for egress."""

    rules: tuple[ResolvedRule, ...] = ()
    """Step 5, sorted by :func:`precedence`."""

    default: Policy = Policy.DROP
    """Step 6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedInterface:
    """One interface of this host and what is enforced on it."""

    name: str
    """The link's name; it need not exist."""

    network_interface_id: str | None = None
    mode: Mode = Mode.ENFORCE
    security_group_ids: tuple[str, ...] = ()
    """Sorted. Empty: the interface is closed but for steps 1 to 3 of §3."""

    group_type: GroupType | None = None
    """None where there is no group."""

    ingress: ResolvedDirection = ResolvedDirection()
    egress: ResolvedDirection = ResolvedDirection()

    def toward(self, direction: Direction) -> ResolvedDirection:
        """Return what decides about sessions opened in the direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


LOOPBACK = "lo"
"""The link that is never closed for being unbound (§2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPolicy:
    """What this host enforces."""

    interfaces: tuple[ResolvedInterface, ...] = ()
    """Sorted by name; names are unique."""

    unbound: ResolvedInterface | None = None
    """Judges every link that is not in ``interfaces``, loopback apart; None leaves them open (§9.3)."""

    def interface(self, name: str) -> ResolvedInterface | None:
        """Return the bound interface of that name."""
        return next((interface for interface in self.interfaces if interface.name == name), None)

    @property
    def judges(self) -> tuple[ResolvedInterface, ...]:
        """Return whatever judges packets, bound interfaces first."""
        return (*self.interfaces, *((self.unbound,) if self.unbound else ()))

    @property
    def platform(self) -> tuple[Exemption, ...]:
        """Return what passes on judged links by the platform list of the configuration (§7.3)."""
        found = (
            entry
            for judge in self.judges
            for toward in (judge.ingress, judge.egress)
            for entry in toward.platform
        )
        return tuple(dict.fromkeys(found))

    @property
    def observed(self) -> frozenset[str]:
        """Return the names of those that judge and carry nothing out (§9.1)."""
        return frozenset(judge.name for judge in self.judges if judge.mode is Mode.OBSERVE)

    def judge(self, name: str) -> ResolvedInterface | None:
        """Return what judges the packets of a link; None where nothing does (§2.3)."""
        bound = self.interface(name)
        return self.unbound if bound is None and name != LOOPBACK else bound
