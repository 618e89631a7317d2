"""Semantic comparison of two policies: packets that one accepts and the other drops, with the deciding rules.

Parts that are equal are skipped. Implicit allows (§7.1) are left out, since no policy can change them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, product
from operator import attrgetter

from sgagent.analysis.cells import Bits, Cells, codes_of, first_of, places_of
from sgagent.analysis.header_space import BOX_ORDER, Box, Columns, cut_into_boxes
from sgagent.core.addresses import AddressRanges, Ranges, common, joined, meets, without
from sgagent.core.clauses import Clause, DecidedBy, dhcp_clause, list_clauses
from sgagent.core.memo import gone_and_come
from sgagent.core.model import ALL_PROTOCOLS, Direction, Family, Policy
from sgagent.core.policy import ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule

UNBOUND_LINKS = "*"
"""Stands for every link that nothing is bound to, where those are closed (§9.3)."""


class Effect(enum.Enum):
    """The effect on packets."""

    OPENS = "opens"
    CLOSES = "closes"


@dataclass(frozen=True, slots=True)
class Change:
    """The clauses that decided before and after; their verdicts differ."""

    before: Clause
    after: Clause

    @property
    def effect(self) -> Effect:
        """Return the effect on the packets."""
        return Effect.OPENS if self.after.policy is Policy.ACCEPT else Effect.CLOSES


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowChange:
    """Packets that are accepted on one side and dropped on the other."""

    interfaces: tuple[str, ...]
    """The links on which it is so, sorted."""

    direction: Direction
    box: Box[Change]

    @property
    def effect(self) -> Effect:
        """Return the effect on the packets."""
        return self.box.label.effect


class Fate(enum.Enum):
    """The change of a rule."""

    APPEARS = "appears"
    GOES = "goes"
    CHANGES = "changes"
    """It is written differently."""

    OBJECT_CHANGES = "object_changes"
    """It is written as before, but its object stands for other addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """A rule that has changed."""

    fate: Fate
    before: ResolvedRule | None
    after: ResolvedRule | None
    has_effect: bool
    """Whether it decides, on one side, about packets whose verdict or limit (§13.1) changes."""

    @property
    def rule(self) -> ResolvedRule:
        """Return the rule as it is, or was."""
        found = self.after or self.before
        assert found is not None  # noqa: S101 - one of the two is always there; for the type checker
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All in which two policies differ."""

    flows: tuple[FlowChange, ...] = ()
    """Opening flows first, then closing ones."""

    rules: tuple[RuleChange, ...] = ()
    """Sorted by group and id."""

    bound: tuple[str, ...] = ()
    """Links that are judged only after."""

    unbound: tuple[str, ...] = ()
    """Links that are judged only before."""

    modes: tuple[str, ...] = ()
    """Links on both sides whose mode differs."""

    def count(self, effect: Effect) -> int:
        """Return how many flow changes have the effect."""
        return sum(flow.effect is effect for flow in self.flows)

    @property
    def is_nothing(self) -> bool:
        """Return whether the policies mean the same and are written alike."""
        return not (self.flows or self.rules or self.bound or self.unbound or self.modes)


def compare(
    old: ResolvedPolicy, new: ResolvedPolicy, *, tick: Callable[[], None] = lambda: None
) -> Comparison:
    """Return all differences between two policies; links with equal differences are merged.

    Args:
        old: the policy in force.
        new: the policy to compare with it.
        tick: called after each link of either, as :func:`links` counts them.
    """
    pairs = _pairs(old, new)
    groups = _alike(pairs)
    found: list[FlowChange] = []
    for names, pair in groups:
        for direction in Direction:
            found += (
                FlowChange(interfaces=names, direction=direction, box=box)
                for box in compare_judges(*pair, direction)
            )
        for _ in names:
            tick()
    flows = _told_once(found)
    return Comparison(
        flows=tuple(sorted(flows, key=_order)),
        rules=_compare_rules([pair for _, pair in groups], flows),
        bound=tuple(name for name, (before, _) in pairs.items() if before is None),
        unbound=tuple(name for name, (_, after) in pairs.items() if after is None),
        modes=tuple(
            name
            for name, (before, after) in pairs.items()
            if before is not None and after is not None and before.mode is not after.mode
        ),
    )


def links(old: ResolvedPolicy, new: ResolvedPolicy) -> int:
    """Return how many links are compared."""
    return len(_pairs(old, new))


_Pair = tuple[ResolvedInterface | None, ResolvedInterface | None]
"""The judges of a link before and after."""


def _pairs(old: ResolvedPolicy, new: ResolvedPolicy) -> Mapping[str, _Pair]:
    """Return the judge of each link of either policy, by name."""
    before, after = ({judge.name: judge for judge in policy.bound} for policy in (old, new))
    pairs: dict[str, _Pair] = {
        name: (before.get(name) or old.judge(name), after.get(name) or new.judge(name))
        for name in sorted(before.keys() | after.keys())
    }
    if old.unbound or new.unbound:
        pairs[UNBOUND_LINKS] = (old.unbound, new.unbound)
    return pairs


def _alike(pairs: Mapping[str, _Pair]) -> list[tuple[tuple[str, ...], _Pair]]:
    """Return the pairs with the names of the links; those that judge alike are one."""
    found: dict[tuple[object, ...], list[tuple[list[str], _Pair]]] = {}
    for name, pair in pairs.items():
        bucket = found.setdefault(tuple(judge and judge.security_group_ids for judge in pair), [])
        nameless = _nameless(pair)
        for names, present in bucket:
            if _nameless(present) == nameless:
                names.append(name)
                break
        else:
            bucket.append(([name], pair))
    return [(tuple(names), pair) for bucket in found.values() for names, pair in bucket]


def _nameless(pair: _Pair) -> tuple[ResolvedInterface | None, ...]:
    return tuple(judge and replace(judge, name="", network_interface_id=None) for judge in pair)


def _told_once(flows: Iterable[FlowChange]) -> list[FlowChange]:
    """Return the changes with those made one that are alike on several links."""
    found: dict[tuple[object, ...], FlowChange] = {}
    for flow in flows:
        change = flow.box.label
        key = (*_order(replace(flow, interfaces=())), _name(change.before), _name(change.after))
        interfaces = {*flow.interfaces, *(found[key].interfaces if key in found else ())}
        found[key] = replace(flow, interfaces=tuple(sorted(interfaces)))
    return list(found.values())


def _name(clause: Clause) -> tuple[object, ...]:
    """Return the identity of a clause for people."""
    rule = clause.rule
    return (clause.decided_by, rule and rule.security_group_id, rule and rule.rule_id)


def compare_judges(
    old: ResolvedInterface | None, new: ResolvedInterface | None, direction: Direction
) -> tuple[Box[Change], ...]:
    """Return the packets about whose verdict two judges differ; None lets everything pass."""
    if old is not None and new is not None:
        old, new = _without_bystanders(old, new, direction)
    checks_sources = any(judge is not None and judge.own_addresses is not None for judge in (old, new))
    found: list[Box[Change]] = []
    for family in Family:
        before = [dhcp_clause(direction, family)] if checks_sources else []
        one, other = ((*before, *list_clauses(judge, direction, family)) for judge in (old, new))
        found += _compare_clauses(one, other, family)
    return tuple(found)


def _without_bystanders(
    old: ResolvedInterface, new: ResolvedInterface, direction: Direction
) -> tuple[ResolvedInterface, ResolvedInterface]:
    """Return both without rules that match no packet that a changed rule matches.

    They differ in the same packets, by the same rules; clauses of all rules would take longer to make.
    """
    before, after = old.toward(direction), new.toward(direction)
    if replace(before, rules=()) != replace(after, rules=()) or old.own_addresses != new.own_addresses:
        return old, new
    gone, come = gone_and_come(before.rules, after.rules)
    involves = _overlap_with((*gone, *come))
    one, other = (replace(way, rules=tuple(filter(involves, way.rules))) for way in (before, after))
    if direction is Direction.INGRESS:
        return replace(old, ingress=one), replace(new, ingress=other)
    return replace(old, egress=one), replace(new, egress=other)


def _overlap_with(rules: Sequence[ResolvedRule]) -> Callable[[ResolvedRule], bool]:
    """Return a function that says whether another rule may match a packet of some rules.

    It looks at protocol, port and far end.
    """
    protocols = {protocol for rule in rules for protocol in rule.protocols}
    ports = joined(run for rule in rules for run in rule.ports.ranges)
    far_ends = [joined(run for rule in rules for run in rule.peer.addresses.ranges(one)) for one in Family]

    def involves(rule: ResolvedRule) -> bool:
        is_any_protocol = ALL_PROTOCOLS in protocols or ALL_PROTOCOLS in rule.protocols
        return (
            (is_any_protocol or not protocols.isdisjoint(rule.protocols))
            and any(meets(run, ports) for run in rule.ports.ranges)
            and any(
                meets(run, wanted)
                for family, wanted in zip(Family, far_ends, strict=True)
                for run in rule.peer.addresses.ranges(family)
            )
        )

    return involves


def _compare_clauses(old: Sequence[Clause], new: Sequence[Clause], family: Family) -> tuple[Box[Change], ...]:
    if _say_the_same(old, new) and all(
        before.addresses == after.addresses for before, after in zip(old, new, strict=True)
    ):
        return ()
    narrowed = _narrow(old, new, family)
    if narrowed is None:
        return ()
    before, after, originals = narrowed

    def change(columns: Columns) -> Change | None:
        (was, *_), (is_now, *_) = columns
        return None if was.policy is is_now.policy else Change(originals[was], originals[is_now])

    return cut_into_boxes((before, after), family, change, skip=_agree)


def _agree(columns: Columns) -> bool:
    """Return whether two lists are seen to give the same verdicts, without looking closely."""
    old, new = columns
    return len({clause.policy for column in columns for clause in column}) == 1 or _say_the_same(old, new)


def _say_the_same(old: Sequence[Clause], new: Sequence[Clause]) -> bool:
    return len(old) == len(new) and all(
        before.content == after.content for before, after in zip(old, new, strict=True)
    )


_Narrowed = tuple[Sequence[Clause], Sequence[Clause], dict[Clause, Clause]]
"""Two lists of clauses that differ in the same packets as those that they were made of, and what each was."""


def _narrow(old: Sequence[Clause], new: Sequence[Clause], family: Family) -> _Narrowed | None:
    """Return the clauses that can matter where two lists differ; None where they differ about no packet."""
    changed = _changed(old, new)
    if not changed:
        return None
    addresses = joined(ends for clause in changed for ends in clause.addresses)
    codes = joined(run for clause in changed for run in codes_of(clause))
    lists = [_within(clauses, addresses, codes, family) for clauses in (old, new)]
    originals = {narrowed: clause for pairs in lists for narrowed, clause in pairs}
    (before, after) = ([narrowed for narrowed, _ in pairs] for pairs in lists)
    differing = _differing(before, after, originals, codes, family)
    if differing is None:
        return None
    far_ends, kept = differing
    others = without(((0, family.last_address),), far_ends)
    guard = Clause(DecidedBy.UNBOUND, Policy.ACCEPT, others)
    lists = [
        _within([clause for clause in clauses if clause in kept], far_ends, codes, family)
        for clauses in (before, after)
    ]
    narrowed = [[guard, *(clause for clause, _ in pairs)] for pairs in lists]
    was = {clause: originals[one] for pairs in lists for clause, one in pairs}
    return narrowed[0], narrowed[1], {guard: guard, **was}


def _identity(clause: Clause) -> tuple[object, ...]:
    """Return the identity of a clause, its place among others included."""
    rule = clause.rule
    named = rule and (rule.priority, rule.security_group_id, rule.rule_id)
    return (clause.decided_by, named, clause.content, clause.addresses)


def _changed(old: Sequence[Clause], new: Sequence[Clause]) -> list[Clause]:
    """Return the clauses that only one of the lists has.

    A name includes all members, which take long to hash, so rules that both lists share get no name.
    """
    rules = [{id(clause.rule) for clause in clauses if clause.rule is not None} for clauses in (old, new)]
    in_both = rules[0] & rules[1]
    before, after = (
        {_identity(clause): clause for clause in clauses if id(clause.rule) not in in_both}
        for clauses in (old, new)
    )
    return [
        *(clause for name, clause in before.items() if name not in after),
        *(clause for name, clause in after.items() if name not in before),
    ]


def _within(
    clauses: Sequence[Clause], far_ends: Ranges, codes: Ranges, family: Family
) -> list[tuple[Clause, Clause]]:
    """Return the clauses that match packets of some far ends, protocols and ports, narrowed to the far ends.

    Each comes with what it was. The last is left as it is: it matches everything.
    """
    known: dict[int, AddressRanges] = {}
    last = len(clauses) - 1
    found = []
    for place, clause in enumerate(clauses):
        if place == last:
            found.append((replace(clause), clause))
        elif any(meets(run, codes) for run in codes_of(clause)):
            addresses = known.get(id(clause.addresses))
            if addresses is None:
                is_everyone = clause.is_for_everyone(family)
                addresses = far_ends if is_everyone else common(joined(clause.addresses), far_ends)
                known[id(clause.addresses)] = addresses
            if addresses:
                found.append((replace(clause, addresses=addresses), clause))
    return found


def _differing(
    old: Sequence[Clause],
    new: Sequence[Clause],
    originals: dict[Clause, Clause],
    codes: Ranges,
    family: Family,
) -> tuple[Ranges, Container[Clause]] | None:
    """Return the far ends about which lists differ for some codes, and the clauses that decide there.

    A clause that both lists have stays in both if it decides by either: lists that are alike for some packets
    stay so.
    """
    cells, olds = Cells((*old, *new), family), (1 << len(old)) - 1
    far_ends: list[tuple[int, int]] = []
    deciding: Bits = 0
    for far, found in groupby(cells.each(codes), attrgetter("far")):
        pairs = {(first_of(cell.bits & olds), first_of(cell.bits & ~olds)) for cell in found}
        if any(bool(before & cells.accepts) is not bool(after & cells.accepts) for before, after in pairs):
            far_ends += far.ranges
            for before, after in pairs:
                deciding |= before | after
    if not far_ends:
        return None
    named = {_identity(originals[cells.clauses[place]]) for place in places_of(deciding)}
    lasts = (old[-1], new[-1])
    kept = {clause for clause in (*old, *new) if clause in lasts or _identity(originals[clause]) in named}
    return joined(far_ends), kept


def _order(flow: FlowChange) -> tuple[object, ...]:
    box = flow.box
    is_outwards = flow.direction is Direction.EGRESS
    return (flow.effect is Effect.CLOSES, flow.interfaces, is_outwards, box.family.bits, *BOX_ORDER(box))


def _compare_rules(pairs: Sequence[_Pair], flows: Iterable[FlowChange]) -> tuple[RuleChange, ...]:
    """Return the rules that differ on any link."""
    changes = chain((flow.box.label for flow in flows), _changes_of_limits(pairs))
    clauses = (clause for change in changes for clause in (change.before, change.after))
    effective = {(c.rule.security_group_id, c.rule.rule_id) for c in clauses if c.rule}
    old, new = _rules(pairs, 0), _rules(pairs, 1)
    return tuple(
        RuleChange(
            fate=fate,
            before=old.get(key),
            after=new.get(key),
            has_effect=key in effective,
        )
        for key in sorted({*old, *new})
        if (fate := _fate(old.get(key), new.get(key))) is not None
    )


_Key = tuple[str, str]
"""A rule's group and id."""


def _rules(pairs: Iterable[_Pair], side: int) -> Mapping[_Key, ResolvedRule]:
    return {
        (rule.security_group_id, rule.rule_id): rule
        for pair in pairs
        if (judge := pair[side])
        for direction in Direction
        for rule in (*judge.toward(direction).rules, *judge.toward(direction).dormant)
    }


def _changes_of_limits(pairs: Iterable[_Pair]) -> Iterator[Change]:
    """Yield the changes for sources that have used up the rules of a limit, as these drop then (§13.1)."""
    for pair, direction in product(pairs, Direction):
        rules = [rule for judge in pair if judge for rule in judge.toward(direction).rules]
        for limit in filter(None, dict.fromkeys(rule.conditions.limit for rule in rules)):
            drops = {
                id(one): replace(one, policy=Policy.DROP) for one in rules if one.conditions.limit == limit
            }
            old, new = (
                judge and judge.with_side(direction, _with_drops(judge.toward(direction), drops))
                for judge in pair
            )
            yield from (box.label for box in compare_judges(old, new, direction))


def _with_drops(side: ResolvedDirection, drops: Mapping[int, ResolvedRule]) -> ResolvedDirection:
    return replace(side, rules=tuple(drops.get(id(rule), rule) for rule in side.rules))


def _fate(before: ResolvedRule | None, after: ResolvedRule | None) -> Fate | None:
    if before is None or after is None:
        return Fate.APPEARS if before is None else Fate.GOES
    if before == after:
        return None
    is_written_alike = before.peer.name == after.peer.name and replace(before, peer=after.peer) == after
    return Fate.OBJECT_CHANGES if is_written_alike else Fate.CHANGES
