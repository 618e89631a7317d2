"""The check of guardrails against a policy, for every packet (§13.4).

A statement is broken if any packet that it speaks of is decided otherwise than it demands. Only clauses that
decide otherwise can break it, so most statements need no look at single packets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from sgagent.analysis.cells import codes_of
from sgagent.analysis.header_space import Box, Columns, find_box
from sgagent.core.addresses import AddressRanges, Ranges, common, holds, joined, meets, without
from sgagent.core.clauses import Clause, DecidedBy, dhcp_clause, list_clauses, numbers_of
from sgagent.core.conditions import NO_UNIT, NO_USER
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import EPHEMERAL_PORT
from sgagent.core.guardrails import (
    Guardrails,
    ResolvedGuardrail,
    Violation,
    dns_names_of,
    resolve_guardrails,
)
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import (
    ICMP,
    ICMPV6,
    PORTED_NUMBERS,
    TCP,
    CidrBlock,
    Direction,
    Family,
    Mode,
    Policy,
    Snapshot,
)
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import Resolution
from sgagent.core.resolved_rules import KnownNames


def find_violations(
    guardrails: Iterable[ResolvedGuardrail], policy: ResolvedPolicy, memo: Memo | None = None
) -> tuple[Violation, ...]:
    """Return one violation of each statement on each bound interface that breaks it, in this order.

    Args:
        guardrails: what must hold.
        policy: of this host.
        memo: of what was checked before, to spare work; the result is the same without.
    """
    memo = memo or Memo()
    judges = [
        (judge, {direction: _Side(judge, direction) for direction in Direction}) for judge in policy.bound
    ]
    found = (
        _checked(resolved, judge, sides[resolved.guardrail.direction], memo)
        for resolved in guardrails
        for judge, sides in judges
    )
    return tuple(violation for violation in found if violation is not None)


def with_violations(
    resolution: Resolution,
    guardrails: Guardrails,
    definitions: Snapshot,
    *,
    policy: ResolvedPolicy | None = None,
    names: KnownNames | None = None,
    memo: Memo | None = None,
) -> Resolution:
    """Return a resolution with the violations of guardrails, and with the problems that these are.

    Args:
        resolution: of the definitions.
        guardrails: what must hold.
        definitions: what the names of objects mean.
        policy: what to check; None is the policy of the resolution.
        names: what the DNS says; None where nobody asked.
        memo: of what was checked before.
    """
    resolved, problems = resolve_guardrails(guardrails, definitions, names, memo)
    violations = find_violations(resolved, policy or resolution.policy, memo)
    broken = [violation.problem(definitions) for violation in violations]
    return replace(
        resolution,
        problems=(*resolution.problems, *problems, *broken),
        violations=(*resolution.violations, *violations),
        dns_names=resolution.dns_names | dns_names_of(guardrails),
    )


def _checked(
    resolved: ResolvedGuardrail, judge: ResolvedInterface, side: _Side, memo: Memo
) -> Violation | None:
    """Return a violation on an interface: the last result, if statement and interface are the same."""
    part = memo.part(Seam.RESOLVED_RULES, "guardrail", resolved.guardrail.guardrail_id, judge.name)
    enforced = part.same("interface", replace(judge, mode=Mode.ENFORCE))
    found = part.get("violation", (resolved, enforced), lambda: side.violation(resolved))
    return found and replace(found, mode=judge.mode)


class _Side:
    """All that decides about sessions opened in one direction at one interface."""

    def __init__(self, judge: ResolvedInterface, direction: Direction) -> None:
        """Take the interface."""
        self._judge = judge
        self._direction = direction
        self._lists = {family: _ClauseList(judge, direction, family) for family in Family}

    def violation(self, resolved: ResolvedGuardrail) -> Violation | None:
        """Return a packet that is not decided as a statement demands; None if there is none."""
        for family, clauses in self._lists.items():
            region = list(_region(resolved, self._judge, family))
            box = _broken(region, clauses, resolved.guardrail.demanded) if region else None
            if box is not None:
                return Violation(
                    guardrail=resolved.guardrail,
                    interface=self._judge.name,
                    mode=self._judge.mode,
                    packet=_example(box, self._judge.name, self._direction),
                    decided_by=box.label.decided_by,
                    rule=box.label.rule,
                )
        return None


class _ClauseList:
    """The clauses of one family, the first that decides first, made when they are needed."""

    def __init__(self, judge: ResolvedInterface, direction: Direction, family: Family) -> None:
        """Take the interface."""
        self.family = family
        self._judge = judge
        self._direction = direction
        self._joined: dict[int, tuple[AddressRanges, Ranges]] = {}

    @cached_property
    def clauses(self) -> Sequence[Clause]:
        """Return the clauses; the last is the default."""
        listed = list_clauses(self._judge, self._direction, self.family)
        return (dhcp_clause(self._direction, self.family), *listed)

    @cached_property
    def _runs(self) -> Sequence[tuple[int, int, Sequence[int]]]:
        """Return runs of protocols and ports, each with the places of the clauses that match it."""
        found: dict[tuple[int, int], list[int]] = {}
        for place, clause in enumerate(self.clauses):
            for run in codes_of(clause):
                found.setdefault(run, []).append(place)
        return [(first, last, places) for (first, last), places in found.items()]

    def within(self, region: Sequence[Clause]) -> Iterator[Clause]:
        """Yield the clauses that match packets of a region, with no other far ends than the region has."""
        near_ends = joined(one.local or (0, self.family.last_address) for one in region)
        is_everyone = region[0].is_for_everyone(self.family)
        for place in self._places(joined(codes_of(region[0]))):
            clause = self.clauses[place]
            if clause.local is not None and not meets(clause.local, near_ends):
                continue
            addresses = clause.addresses
            if clause.is_for_everyone(self.family):
                addresses = region[0].addresses
            elif not is_everyone:
                addresses = common(self.canonical(addresses), region[0].addresses)
            if addresses:
                yield replace(clause, addresses=addresses) if addresses is not clause.addresses else clause

    def _places(self, codes: Ranges) -> list[int]:
        found: set[int] = set()
        for start, end in codes:
            for places in [some for first, last, some in self._runs if first <= end and last >= start]:
                found.update(places)
        return sorted(found)

    def canonical(self, addresses: AddressRanges) -> Ranges:
        """Return addresses as a set; those of a group are the same object in each of its clauses."""
        _, known = self._joined.get(id(addresses), (addresses, None))
        if known is None:
            known = joined(addresses)
            self._joined[id(addresses)] = addresses, known  # kept, as another one could get its id
        return known


def _region(resolved: ResolvedGuardrail, judge: ResolvedInterface, family: Family) -> Iterator[Clause]:
    """Yield clauses that match the packets of a family of which a statement speaks on an interface."""
    protocols, far_ends = resolved.protocols_of(family), resolved.far_ends.ranges(family)
    if not (protocols and far_ends and resolved.ports):
        return
    for near_end in resolved.near_ends_at(judge, family):
        yield Clause(
            DecidedBy.RULE,
            resolved.guardrail.demanded,
            far_ends,
            numbers_of(protocols),
            ports=resolved.ports,
            local=None if near_end == (0, family.last_address) else near_end,
        )


_BEYOND = {
    Policy.DROP: (DecidedBy.ALWAYS, DecidedBy.FAILSAFE),
    Policy.ACCEPT: (DecidedBy.SPOOFED,),
}
"""What may decide otherwise than a statement demands: no policy can change it, or the source is a lie."""


def _broken(region: Sequence[Clause], clauses: _ClauseList, demanded: Policy) -> Box[Clause] | None:
    """Return packets of a region that one clause decides otherwise than demanded; None if there are none.

    The first clause that may do so is looked at first: behind others it matters only if that one decides
    about no packet of the region.
    """
    before: list[Clause] = []
    for clause in clauses.within(region):
        if _decides_as(clause, demanded) or clause.decided_by in _BEYOND[demanded]:
            before.append(clause)
            if _covers(clause, region):
                return None
        elif (box := _decided(clause, before, region, clauses)) is not None:
            return box
    return None


def _decides_as(clause: Clause, demanded: Policy) -> bool:
    """Return whether a clause decides so about all that it matches: a limit accepts only some (§13.1)."""
    is_limited = clause.rule is not None and clause.rule.conditions.limit is not None
    return clause.policy is demanded and not (is_limited and demanded is Policy.ACCEPT)


def _covers(clause: Clause, region: Sequence[Clause]) -> bool:
    """Return whether a clause, which has no other far ends than a region, matches all of its packets."""
    one = region[0]
    is_plain = clause.source_ports.is_all and clause.local is None and clause.is_anybodys
    return is_plain and clause.addresses == one.addresses and not without(codes_of(one), codes_of(clause))


def _decided(
    clause: Clause, before: Sequence[Clause], region: Sequence[Clause], clauses: _ClauseList
) -> Box[Clause] | None:
    """Return packets of a region about which a clause decides; None if others before it decide about all."""
    family, far_ends = clauses.family, clauses.canonical(clause.addresses)
    others = Clause(DecidedBy.UNBOUND, clause.policy, ((0, family.last_address),))
    here = [replace(one, addresses=far_ends) for one in region]
    codes = joined(codes_of(clause))
    shadows = []
    for one in before:
        if not any(meets(run, codes) for run in codes_of(one)):
            continue
        addresses = common(clauses.canonical(one.addresses), far_ends)
        if addresses:
            shadows.append(replace(one, addresses=addresses))

    def label(columns: Columns) -> Clause | None:
        return columns[1][0] if columns[1][0] is clause else None

    def skip(columns: Columns) -> bool:
        return columns[0][0] is others or clause not in columns[1]

    return find_box(((*here, others), (*shadows, clause, others)), family, label, skip=skip)


_FAR_ENDS = {
    Family.IPV4: ("203.0.113.1", "198.51.100.1", "192.0.2.1", "10.0.0.0/8"),
    Family.IPV6: ("2001:db8::1", "2000::/3"),
}
_NEAR_ENDS = {Family.IPV4: ("192.0.2.1", "10.0.0.0/8"), Family.IPV6: ("2001:db8:1::1", "2000::/3")}
"""Addresses for examples, where any will do; else the first of these networks, or the first at all."""

_ECHO_REQUEST = {ICMP.wire_number: 8, ICMPV6.wire_number: 128}


def _example(box: Box[Clause], interface: str, direction: Direction) -> Packet:
    """Return one of the packets, as a person would write it."""
    family = box.family
    far, near = _pick(box.peers, _FAR_ENDS[family]), _pick(box.locals, _NEAR_ENDS[family])
    protocol = _pick_number(box.protocols, TCP.wire_number)
    has_ports = protocol in PORTED_NUMBERS
    is_ingress = direction is Direction.INGRESS
    return Packet(
        interface=interface,
        direction=direction,
        family=family,
        source=far if is_ingress else near,
        destination=near if is_ingress else far,
        protocol=protocol,
        source_port=_pick_number(box.source_ports, EPHEMERAL_PORT) if has_ports else None,
        destination_port=_pick_number(box.ports, 1) if has_ports else None,
        icmp_type=_ECHO_REQUEST.get(protocol),
        user=None if (user := _pick_number(box.users, NO_USER)) == NO_USER else user,
        unit=None if (unit := _pick_number(box.units, NO_UNIT)) == NO_UNIT else unit,
    )


def _pick(ranges: Ranges, wanted: Sequence[str]) -> int:
    """Return an address of a set, if possible in one of the wanted networks."""
    for text in wanted:
        block = CidrBlock.parse(text)
        if found := common(ranges, ((block.first, block.last),)):
            return found[0][0]
    return ranges[0][0]


def _pick_number(ranges: Ranges, wanted: int) -> int:
    return wanted if holds(ranges, wanted) else ranges[0][0]
