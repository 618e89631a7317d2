"""List all that may decide about one direction, judge and family as clauses in the order of §3.

Each clause names the step that it stands for, so that whoever finds where it decides can say so. The last one
matches everything, so there is always one that decides. Left out is what every host needs to have an address
at all (§7.1), in which no policy has a say; the part of it that ports tell can be asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.addresses import AddressRanges
from sgagent.core.always import DHCP
from sgagent.core.evaluate import DecidedBy
from sgagent.core.intervals import Ranges, joined
from sgagent.core.model import UDP, CidrBlock, Direction, Family, Policy, PortRange
from sgagent.core.policy import Exemption, ResolvedInterface, ResolvedRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clause:
    """Something that decides about the packets that it matches, unless a clause before it does.

    A clause is itself only: two that say the same are two.
    """

    decided_by: DecidedBy
    policy: Policy
    addresses: AddressRanges
    """Of the far end, in the family that the list is of."""

    protocol: int | None = None
    """None is every one."""

    ports: Ranges | None = None
    """Destination ports; None is any, and what has no ports."""

    source_ports: Ranges | None = None
    local: tuple[int, int] | None = None
    """First and last address of the near end; None is any."""

    rule: ResolvedRule | None = None
    """The rule, where it is one."""

    exemption: Exemption | None = None
    """The entry of the configuration's lists, where it is one."""

    def is_for_everyone(self, family: Family) -> bool:
        """Tell whether the far end may be any address of the family."""
        return self.addresses == ((0, family.last_address),)

    @property
    def content(self) -> tuple[object, ...]:
        """Return all but whom it speaks of and what it is called: equal contents decide alike."""
        return (self.policy, self.protocol, self.ports, self.source_ports, self.local)


def list_clauses(judge: ResolvedInterface | None, direction: Direction, family: Family) -> tuple[Clause, ...]:
    """Return the clauses that can match a packet of the family, the first that decides first.

    Args:
        judge: what judges the packets of a link; None where nothing does (§2.3).
        direction: which way sessions are opened.
        family: of the packets.
    """
    everyone = ((0, family.last_address),)
    if judge is None:
        return (Clause(decided_by=DecidedBy.UNBOUND, policy=Policy.ACCEPT, addresses=everyone),)
    toward = judge.toward(direction)
    clauses = list(_exemptions(toward.platform, DecidedBy.ALWAYS, family))
    clauses += _exemptions(toward.failsafe, DecidedBy.FAILSAFE, family)
    inner = toward.inner.ranges(family)
    if inner:
        clauses.append(Clause(decided_by=DecidedBy.INNER, policy=Policy.ACCEPT, addresses=inner))
    clauses += (_rule(rule, family) for rule in toward.rules if _can_match(rule, family))
    clauses.append(Clause(decided_by=DecidedBy.DEFAULT, policy=toward.default, addresses=everyone))
    return tuple(clauses)


def dhcp_clause(direction: Direction, family: Family) -> Clause:
    """Return what lets DHCP pass, before all others (§7.1)."""
    server, client = DHCP[family]
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    return Clause(
        decided_by=DecidedBy.ALWAYS,
        policy=Policy.ACCEPT,
        addresses=((0, family.last_address),),
        protocol=UDP.number,
        ports=((destination, destination),),
        source_ports=((source, source),),
    )


def _exemptions(entries: tuple[Exemption, ...], decided_by: DecidedBy, family: Family) -> Iterator[Clause]:
    for entry in entries:
        if entry.peer.family is family and entry.protocol.only_family in (None, family):
            yield Clause(
                decided_by=decided_by,
                policy=Policy.ACCEPT,
                addresses=((entry.peer.first, entry.peer.last),),
                protocol=entry.protocol.number,
                ports=_ranges(entry.ports),
                exemption=entry,
            )


def _can_match(rule: ResolvedRule, family: Family) -> bool:
    return (
        bool(rule.peer.addresses.ranges(family))
        and rule.protocol.only_family in (None, family)
        and (rule.local_address is None or rule.local_address.family is family)
        and rule.ports != ()
        and rule.source_ports != ()
    )


def _rule(rule: ResolvedRule, family: Family) -> Clause:
    return Clause(
        decided_by=DecidedBy.RULE,
        policy=rule.policy,
        addresses=rule.peer.addresses.ranges(family),
        protocol=rule.protocol.number,
        ports=_ranges(rule.ports),
        source_ports=_ranges(rule.source_ports),
        local=_constraint(rule.local_address),
        rule=rule,
    )


def _ranges(ports: tuple[PortRange, ...] | None) -> Ranges | None:
    return None if ports is None else joined((one.first, one.last) for one in ports)


def _constraint(block: CidrBlock | None) -> tuple[int, int] | None:
    """Return the ends of a block; a block that is the whole family constrains nothing."""
    return None if block is None or block.is_everything else (block.first, block.last)
