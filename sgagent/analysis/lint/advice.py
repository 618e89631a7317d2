"""Edits that findings suggest: the first of several candidates that changes just the wanted flows."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from sgagent.analysis.compare import Effect, FlowChange
from sgagent.analysis.lint.edits import Fix, RuleEdit, changed_flows, edit_judge, exceeding, merged
from sgagent.analysis.lint.rule_reach import RuleKey, RuleReach, key_of
from sgagent.analysis.lint.rule_relations import as_if_of_everyone, contradict, is_part, may_meet
from sgagent.analysis.lint.subject import Attachment, LintSubject
from sgagent.core.addresses import Ranges, without
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import AuthorizationObjects, Direction, PortSet
from sgagent.core.policy import ResolvedInterface, ResolvedRule, precedence
from sgagent.core.rule_values import EVERYTHING

LAST_PRIORITY = 100
"""The greatest that the cloud takes (§4.6)."""

Edits = tuple[RuleEdit, ...]


def removal(subject: LintSubject, key: RuleKey) -> Fix:
    """Return the fix that takes a needless rule out, with all that would come to decide without it."""
    return Fix(edits=tuple(_edit(one) for one in subject.removals.along.get(key, (key,))))


def lets_drop(subject: LintSubject, drop: ResolvedRule, accepts: Sequence[ResolvedRule]) -> Fix | None:
    """Return the fix that moves a void drop before wider accepts, and behind the narrower ones."""
    narrow = subject.exceptions.get(key_of(drop), {})
    wide = [one for one in accepts if not is_part(one, drop)]
    if not wide:
        return None
    names, first = set(map(key_of, wide)), min(one.priority for one in wide)
    behind = max((one.priority for one in narrow.values()), default=0)

    def candidates() -> Iterator[Edits]:
        for place in (first - 1, first):
            yield (_edit(key_of(drop), priority=place),) if place > behind else ()
        for place in (LAST_PRIORITY - 1, behind + 1):
            moved = (_edit(key, priority=place + 1) for key in names)
            yield merged((_edit(key_of(drop), priority=place), *moved)) if place > behind else ()

    def is_meant(flow: FlowChange) -> bool:
        before, after = flow.box.label.before.rule, flow.box.label.after.rule
        return _closes(flow) and _is(after, {key_of(drop)}) and _is(before, names)

    return _first(subject, filter(None, candidates()), is_meant)


def lets_accept(subject: LintSubject, deny: RuleKey, accepts: Mapping[RuleKey, ResolvedRule]) -> Fix | None:
    """Return the fix that moves accepts before a drop of everything, or that drop behind them."""
    last = max(rule.priority for rule in accepts.values())

    def candidates() -> Iterator[Edits]:
        yield (_edit(deny, priority=last + 1),)
        before = {reach.rule(deny).priority for _, reach in subject.reaches if deny in reach.rules}
        for place in (*(priority - 1 for priority in before), 1):
            moved = [_edit(key, priority=place) for key in accepts]
            if place in before:  # else the drop follows as it is, and does not come before others
                moved.append(_edit(deny, priority=place + 1))
            yield merged(moved)

    def is_meant(flow: FlowChange) -> bool:
        before, after = flow.box.label.before.rule, flow.box.label.after.rule
        return not _closes(flow) and _is(before, {deny}) and _is(after, accepts)

    return _first(subject, candidates(), is_meant)


def unties(subject: LintSubject, drop: RuleKey, accept: RuleKey, priority: int, others: Edits) -> Fix | None:
    """Return the fix that sets two rules of one priority apart and changes no verdict.

    Args:
        subject: what is looked at.
        drop: the rule that wins.
        accept: the other one.
        priority: of both.
        others: edits without effect, beside and without which this one has none either.
    """
    known = {edit.key: edit for edit in others}
    mine = tuple(known[key] for key in (drop, accept) if key in known)
    steps = [(key, priority + step) for n in (1, 2, 3) for key, step in ((accept, n), (drop, -n))]
    apart = [(_edit(key, priority=number),) for key, number in steps if key not in known]
    for edits in (mine, *apart):
        is_tried = edits and not any(_passes_a_name(one, edits) for one in subject.attachments)
        fix = _first(subject, (edits,), lambda _: False, changes=False) if is_tried else None
        if fix is not None and not _changes_beside(subject, edits, others):
            return fix
    return None


def _passes_a_name(attachment: Attachment, edits: Edits) -> bool:
    """Return whether a rule and one that names a name change places; the DNS may have both match a packet."""
    priorities = {edit.key: edit.priority for edit in edits}

    def place(rule: ResolvedRule) -> tuple[object, ...]:
        return precedence(replace(rule, priority=priorities.get(key_of(rule)) or rule.priority))

    moved = [rule for rule in attachment.rules if key_of(rule) in priorities]
    return any(
        (place(rule) < place(named)) is not (precedence(rule) < precedence(named)) and may_meet(rule, named)
        for named in as_if_of_everyone(attachment.rules)
        for rule in (attachment.rules if key_of(named) in priorities else moved)
    )


def _changes_beside(subject: LintSubject, edits: Edits, others: Edits) -> bool:
    """Return whether edits change a verdict beside others, and where all that is needless is removed."""
    besides = (*others, *map(_edit, subject.removals.every))
    base, together = merged(besides), merged((*besides, *edits))
    removed = {edit.key for edit in base if not edit.fields}
    if removed.isdisjoint(edit.key for edit in edits):
        # What is beside changes no verdict, so that what all change is what these change after it.
        judges = [
            (interfaces, edit_judge(judge, base, subject.members))
            for interfaces, judge in (*_judges(subject), *_later_judges(subject))
        ]
        flows = changed_flows(judges, edits, subject.members)
    else:
        flows = (*_flows(subject, together), *_later_flows(subject, together))
    return bool(flows) or any(_exceeding_flows(subject, together))


def leaves_out(subject: LintSubject, keys: Iterable[RuleKey], ports: Ranges) -> Fix | None:
    """Return the fix that takes TCP ports out of rules' ranges, if that closes these and nothing else."""
    edits = []
    for key in keys:
        rule = subject.rules[key][1]
        if not isinstance(rule.ports, PortSet) or rule.ports.is_all:
            return None  # port 0, and protocols without ports, are in no range
        edits.append(_edit(key, ports=PortSet(tuple(without(rule.ports.ranges, ports)))))
    names = {edit.key for edit in edits}

    def is_meant(flow: FlowChange) -> bool:
        return _closes(flow) and _is(flow.box.label.before.rule, names)

    return _first(subject, (tuple(edits),) if all(edit.ports for edit in edits) else (), is_meant)


def shuts_both(subject: LintSubject, key: RuleKey) -> Fix | None:
    """Return the fix that extends a drop to the other family, if it closes traffic of the default there."""

    def is_meant(flow: FlowChange) -> bool:
        change = flow.box.label
        return (
            _closes(flow) and _is(change.after.rule, {key}) and change.before.decided_by is DecidedBy.DEFAULT
        )

    return _first(subject, ((_edit(key, objects=EVERYTHING),),), is_meant)


def names_instead(subject: LintSubject, key: RuleKey, objects: AuthorizationObjects) -> Fix | None:
    """Return the fix that gives an accept other objects, if that opens nothing."""
    return _first(subject, ((_edit(key, objects=objects),),), _closes)


def _edit(
    key: RuleKey,
    *,
    priority: int | None = None,
    ports: PortSet | None = None,
    objects: AuthorizationObjects | None = None,
) -> RuleEdit:
    group, rule_id = key
    return RuleEdit(security_group_id=group, rule_id=rule_id, priority=priority, ports=ports, objects=objects)


def _closes(flow: FlowChange) -> bool:
    return flow.effect is Effect.CLOSES


def _is(rule: ResolvedRule | None, keys: Iterable[RuleKey]) -> bool:
    return rule is not None and key_of(rule) in keys


def _first(
    subject: LintSubject,
    candidates: Iterable[Edits],
    is_meant: Callable[[FlowChange], bool],
    *,
    changes: bool = True,
) -> Fix | None:
    """Return the first edits by which just the meant flows change, now and when rules have ended."""
    for edits in candidates:
        if any(edit.priority is not None and edit.priority < 1 for edit in edits):
            continue
        if any((edit.priority or 1) > max(LAST_PRIORITY, _priority(subject, edit.key)) for edit in edits):
            continue
        if not _is_foreseen(subject, edits):
            continue
        if not subject.search.allows(len(edits) * subject.rules_of_a_try) or _ties(subject, edits):
            continue
        flows = _flows(subject, edits)
        is_right = bool(flows) is changes and all(map(is_meant, (*flows, *_later_flows(subject, edits))))
        is_right = is_right and all(map(is_meant, _exceeding_flows(subject, edits)))
        if is_right and _are_all_reached(subject, edits):
            return Fix(edits=edits, flows=flows)
    return None


def _is_foreseen(subject: LintSubject, edits: Edits) -> bool:
    """Return whether it is known what edits change at other times."""
    keys = {edit.key for edit in edits}
    return all(
        one.later is not None or keys.isdisjoint(map(key_of, one.rules)) for one in subject.attachments
    )


def _priority(subject: LintSubject, key: RuleKey) -> int:
    return subject.rules[key][1].priority


def _flows(subject: LintSubject, edits: Edits) -> tuple[FlowChange, ...]:
    return changed_flows(_judges(subject), edits, subject.members)


def _later_flows(subject: LintSubject, edits: Edits) -> tuple[FlowChange, ...]:
    return changed_flows(_later_judges(subject), edits, subject.members)


def _judges(subject: LintSubject) -> list[tuple[tuple[str, ...], ResolvedInterface]]:
    return [(attachment.interfaces, attachment.judge) for attachment in subject.attachments]


def _later_judges(subject: LintSubject) -> list[tuple[tuple[str, ...], ResolvedInterface]]:
    return [
        (attachment.interfaces, judge)
        for attachment in subject.attachments
        for judge in attachment.later or ()
    ]


def _exceeding_flows(subject: LintSubject, edits: Edits) -> Iterator[FlowChange]:
    """Yield the changes for sources that have used up a limit, as then its rule drops (§13.1)."""
    keys = {edit.key for edit in edits if edit.fields}
    for attachment in subject.attachments if keys else ():
        moved = [rule for rule in attachment.rules if key_of(rule) in keys]
        judges = [(attachment.interfaces, judge) for judge in (attachment.judge, *(attachment.later or ()))]
        for limited in attachment.limited:
            if any(may_meet(rule, limited) for rule in moved):
                view = partial(exceeding, key=key_of(limited))
                yield from changed_flows(judges, edits, subject.members, view)


def _are_all_reached(subject: LintSubject, edits: Edits) -> bool:
    """Return whether all that is set anew decides somewhere, and drops of that are void nowhere."""
    moved = {edit.key for edit in edits if edit.fields}
    waiting = set(moved)
    for judge in (attachment.judge for attachment in subject.attachments):
        edited = edit_judge(judge, edits, subject.members) if moved else judge
        for direction in Direction if edited is not judge else ():
            reach = RuleReach(_meeting(edited, direction, moved), direction)
            waiting -= reach.deciding
            if not moved.isdisjoint(reach.void_drops):
                return False
    return not waiting


def _meeting(judge: ResolvedInterface, direction: Direction, keys: Container[RuleKey]) -> ResolvedInterface:
    """Return a judge with the rules alone that may match packets of some: no other decides about these."""
    side = judge.toward(direction)
    mine = [rule for rule in side.rules if key_of(rule) in keys]
    near = tuple(rule for rule in side.rules if any(may_meet(one, rule) for one in mine))
    return judge.with_side(direction, replace(side, rules=near))


def _ties(subject: LintSubject, edits: Edits) -> bool:
    """Return whether a rule gets the priority of one that contradicts it."""
    moved = {edit.key for edit in edits if edit.priority is not None or edit.objects is not None}
    for judge in (attachment.judge for attachment in subject.attachments) if moved else ():
        edited = edit_judge(judge, edits, subject.members)
        sides = map(edited.toward, Direction) if edited is not judge else ()
        for side in sides:
            mine = [rule for rule in side.rules if key_of(rule) in moved]
            if any(contradict(rule, other) for rule in mine for other in side.rules):
                return True
    return False
