"""The decision list of one direction, interface and family: clauses in the order of §3; the first decides.

The source check stands first, then exemptions of the configuration, inner access, rules, and the default. The
compiler, analysis and the proof of a table know the policy by it; what no policy can change (§7.1) they add.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from sgagent.core.addresses import AddressRanges, Ranges, joined, without
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    UDP,
    Direction,
    Family,
    Policy,
    PortSet,
    Protocols,
)
from sgagent.core.policy import DHCP, Exemption, ResolvedDirection, ResolvedInterface, ResolvedRule


class DecidedBy(enum.Enum):
    """The step of §3 that decided."""

    SESSION = "session"
    ALWAYS = "always"
    FAILSAFE = "failsafe"
    INNER = "inner"
    RULE = "rule"
    OVER_LIMIT = "over_limit"
    """A rule accepts it, but not so many from its source (§13.1)."""

    DEFAULT = "default"
    UNBOUND = "unbound"
    """Nothing is enforced on the interface (§2.3)."""

    INVALID = "invalid"
    SPOOFED = "spoofed"
    """The source check drops it: its source is on the wrong side of the interface (§12.6)."""


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """Something that decides about the packets that it matches, unless a clause before it does.

    A clause is itself only: two that say the same are two. Classes that extend it compare what matches.
    """

    decided_by: DecidedBy = field(compare=False)
    policy: Policy = field(compare=False)
    addresses: AddressRanges
    """Of the far end, in the family that the list is of."""

    protocols: tuple[int, ...] | None = None
    """Sorted; None is every one."""

    ports: PortSet = ALL_PORTS
    """Destination ports."""

    source_ports: PortSet = ALL_PORTS
    local: tuple[int, int] | None = None
    """First and last address of the near end; None is any."""

    user: int | None = None
    """The user whose sockets of this host it is about; None is all packets (§13.3)."""

    units: tuple[int, int] | None = None
    """The same of control groups, by the first and last number."""

    rule: ResolvedRule | None = field(default=None, compare=False)
    """The rule, where it is one."""

    exemption: Exemption | None = field(default=None, compare=False)
    """The entry of the configuration's lists, where it is one."""

    def is_for_everyone(self, family: Family) -> bool:
        """Return whether the far end may be any address of the family."""
        return self.addresses == ((0, family.last_address),)

    def may_have(self, protocol: int | None) -> bool:
        """Return whether packets of a protocol can match; None is one that no clause names."""
        return self.protocols is None or protocol in self.protocols

    @property
    def speaks_of_ports(self) -> bool:
        """Return whether no packet without ports matches."""
        return not (self.ports.is_all and self.source_ports.is_all)

    @property
    def makers(self) -> tuple[Ranges | None, Ranges | None]:
        """Return the users and the control groups whose sockets it is about; None is all packets."""
        users = None if self.user is None else ((self.user, self.user),)
        return users, None if self.units is None else (self.units,)

    @property
    def is_anybodys(self) -> bool:
        """Return whether it matches sockets of all users and units, and packets without one."""
        return self.user is None and self.units is None

    @property
    def content(self) -> tuple[object, ...]:
        """Return all but the addresses and the identity: equal contents decide alike."""
        return (self.policy, self.protocols, self.ports, self.source_ports, self.local, *self.makers)


def list_clauses(judge: ResolvedInterface | None, direction: Direction, family: Family) -> tuple[Clause, ...]:
    """Return the clauses that can match a packet of the family, the first that decides first.

    Args:
        judge: what judges the packets of a link; None where nothing does (§2.3).
        direction: which way sessions are opened.
        family: of the packets.
    """
    everyone = ((0, family.last_address),)
    if judge is None:
        return (Clause(DecidedBy.UNBOUND, Policy.ACCEPT, everyone),)
    toward = judge.toward(direction)
    return (
        *_spoofed(judge, direction, family),
        *exempt_clauses(toward, family),
        *(rule_clause(rule, family) for rule in toward.rules if rule.can_match(family)),
        Clause(DecidedBy.DEFAULT, toward.default, everyone),
    )


def _spoofed(judge: ResolvedInterface, direction: Direction, family: Family) -> Iterator[Clause]:
    """Yield the clauses of the source check's drops, DHCP apart (§12.6)."""
    if judge.own_addresses is None:
        return
    own, everyone = joined(judge.own_addresses.ranges(family)), ((0, family.last_address),)
    if direction is Direction.INGRESS and own:
        yield Clause(DecidedBy.SPOOFED, Policy.DROP, own)
    for local in without(everyone, own) if direction is Direction.EGRESS else ():
        yield Clause(DecidedBy.SPOOFED, Policy.DROP, everyone, local=local)


def dhcp_clause(direction: Direction, family: Family) -> Clause:
    """Return the clause that lets DHCP pass, before all others (§7.1)."""
    server, client = DHCP[family]
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    return Clause(
        DecidedBy.ALWAYS,
        Policy.ACCEPT,
        ((0, family.last_address),),
        (UDP.wire_number,),
        ports=PortSet.of((destination, destination)),
        source_ports=PortSet.of((source, source)),
    )


def exempt_clauses(toward: ResolvedDirection, family: Family) -> Iterator[Clause]:
    """Yield the clauses of what rules can't block: exemptions of the configuration, and inner access."""
    for decided_by, entries in (
        (DecidedBy.ALWAYS, toward.platform),
        (DecidedBy.FAILSAFE, toward.failsafe),
    ):
        for entry in entries:
            if entry.can_match(family):
                peers, numbers = ((entry.peer.first, entry.peer.last),), numbers_of((entry.protocol,))
                yield Clause(decided_by, Policy.ACCEPT, peers, numbers, ports=entry.ports, exemption=entry)
    if inner := toward.inner.ranges(family):
        yield Clause(DecidedBy.INNER, Policy.ACCEPT, inner)


def numbers_of(protocols: Protocols) -> tuple[int, ...] | None:
    """Return the numbers of protocols; None for all of them."""
    return None if ALL_PROTOCOLS in protocols else tuple(one.wire_number for one in protocols)


def rule_clause(rule: ResolvedRule, family: Family) -> Clause:
    """Return the clause of a rule that can match packets of the family."""
    return Clause(
        DecidedBy.RULE,
        rule.policy,
        rule.peer.addresses.ranges(family),
        numbers_of(rule.protocols_of(family)),
        ports=rule.ports,
        source_ports=rule.source_ports,
        local=rule.near_ends,
        user=rule.user,
        units=rule.units,
        rule=rule,
    )
