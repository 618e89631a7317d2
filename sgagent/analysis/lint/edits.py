"""Edits of rules, and the flows that change by them: a finding's suggestion is tried before it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sgagent.analysis.compare import FlowChange, compare
from sgagent.core.addresses import AddressSet, joined
from sgagent.core.model import AuthorizationObjects, CidrBlock, GroupReference, Policy, PortSet, Snapshot
from sgagent.core.policy import (
    Peer,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
    precedence,
)
from sgagent.core.rule_values import ANY, EVERYTHING, objects_text

Members = Mapping[str, AddressSet]
"""Of groups, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEdit:
    """A change of one rule, or its removal, where no field is set."""

    security_group_id: str
    rule_id: str
    priority: int | None = None
    ports: PortSet | None = None
    objects: AuthorizationObjects | None = None
    """CIDRs or groups."""

    @property
    def key(self) -> tuple[str, str]:
        """Return the rule's group and id."""
        return (self.security_group_id, self.rule_id)

    @property
    def fields(self) -> Mapping[str, object]:
        """Return the new fields, as native documents have them; nothing where the rule is removed."""
        found: dict[str, object] = {}
        if self.priority is not None:
            found["priority"] = self.priority
        if self.ports is not None:
            found["port_range"] = _one_or_all(self.ports.texts)
        if self.objects is not None:
            texts = [str(one) for one in self.objects]
            found["authorization_object"] = ANY if self.objects == EVERYTHING else _one_or_all(texts)
        return found

    def __str__(self) -> str:
        """Return the edit in words: ``set priority 2 of sgr-a``."""
        sets = [f"{name.replace('_', ' ')} {value}" for name, value in self.fields.items()]
        return f"set {', '.join(sets)} of {self.rule_id}" if sets else f"remove {self.rule_id}"


def _one_or_all(texts: Sequence[str]) -> object:
    return texts[0] if len(texts) == 1 else list(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """Edits that were tried, with all that changes by them."""

    edits: tuple[RuleEdit, ...]
    flows: tuple[FlowChange, ...] = field(default=(), compare=False)
    """Follow from the edits."""

    @property
    def changes_verdicts(self) -> bool:
        """Return whether any packet is decided otherwise."""
        return bool(self.flows)


MOST_TRIED = 100_000
"""Rules that edits are tried on, counted for each edit: about a second."""


@dataclass(slots=True)
class SearchBudget:
    """Bounds how many edits are tried: each is compared with all rules."""

    left: float
    is_cut: bool = False
    """Whether an edit was not tried."""

    def allows(self, rules: int) -> bool:
        """Return whether edits may be tried that take a look at so many rules, and count these."""
        if rules > self.left:
            self.is_cut = True
            return False
        self.left -= rules
        return True


def merged(edits: Iterable[RuleEdit]) -> tuple[RuleEdit, ...]:
    """Return one edit for each rule, sorted: a later one goes on from those before, which a removal ends."""
    by_key: dict[tuple[str, str], RuleEdit] = {}
    for edit in edits:
        before = by_key.get(edit.key)
        by_key[edit.key] = _after(before, edit) if before and before.fields and edit.fields else edit
    return tuple(by_key[key] for key in sorted(by_key))


def _after(before: RuleEdit, edit: RuleEdit) -> RuleEdit:
    return replace(
        edit,
        priority=edit.priority if edit.priority is not None else before.priority,
        ports=edit.ports if edit.ports is not None else before.ports,
        objects=edit.objects if edit.objects is not None else before.objects,
    )


def edit_snapshot(snapshot: Snapshot, edits: Iterable[RuleEdit]) -> Snapshot:
    """Return the definitions with the edits made."""
    by_key = {edit.key: edit for edit in edits}
    groups = []
    for group in snapshot.security_groups:
        rules = []
        for rule in group.rules:
            edit = by_key.get((group.security_group_id, rule.rule_id))
            if edit is None:
                rules.append(rule)
            elif edit.fields:
                ports = rule.ports if edit.ports is None else edit.ports
                objects = edit.objects or rule.authorization_objects
                priority = edit.priority or rule.priority
                rules.append(replace(rule, priority=priority, ports=ports, authorization_objects=objects))
        is_same = all(old is new for old, new in zip(group.rules, rules, strict=False))
        kept = is_same and len(rules) == len(group.rules)
        groups.append(group if kept else replace(group, rules=tuple(rules)))
    return replace(snapshot, security_groups=tuple(groups))


def exceeding(judge: ResolvedInterface, key: tuple[str, str]) -> ResolvedInterface:
    """Return a judge of sources that have used up a rule's limit: the rule drops, in its place (§13.1)."""
    sides = (judge.ingress, judge.egress)
    ingress, egress = (replace(side, rules=tuple(_dropping(side.rules, key))) for side in sides)
    return replace(judge, ingress=ingress, egress=egress)


def _dropping(rules: Iterable[ResolvedRule], key: tuple[str, str]) -> Iterator[ResolvedRule]:
    for rule in rules:
        is_meant = (rule.security_group_id, rule.rule_id) == key
        yield replace(rule, policy=Policy.DROP) if is_meant else rule


def edit_judge(judge: ResolvedInterface, edits: Iterable[RuleEdit], members: Members) -> ResolvedInterface:
    """Return an interface's judge after the edits; the same object where none concerns it."""
    by_key = {edit.key: edit for edit in edits}
    ingress, egress = (_edit_side(side, by_key, members) for side in (judge.ingress, judge.egress))
    if ingress is judge.ingress and egress is judge.egress:
        return judge
    return replace(judge, ingress=ingress, egress=egress)


def _edit_side(
    side: ResolvedDirection, edits: Mapping[tuple[str, str], RuleEdit], members: Members
) -> ResolvedDirection:
    rules, is_same = [], True
    for rule in side.rules:
        edit = edits.get((rule.security_group_id, rule.rule_id))
        is_same = is_same and edit is None
        if edit is None:
            rules.append(rule)
        elif edit.fields:
            rules.append(_edit_rule(rule, edit, members))
    return side if is_same else replace(side, rules=tuple(sorted(rules, key=precedence)))


def _edit_rule(rule: ResolvedRule, edit: RuleEdit, members: Members) -> ResolvedRule:
    ports = rule.ports if edit.ports is None else replace(edit.ports, ranges=joined(edit.ports.ranges))
    peer = rule.peer if edit.objects is None else _peer(edit.objects, members)
    return replace(rule, priority=edit.priority or rule.priority, ports=ports, peer=peer)


def _peer(objects: AuthorizationObjects, members: Members) -> Peer:
    """Return the addresses that CIDRs and groups of the definitions stand for."""
    parts = []
    for one in objects:
        if isinstance(one, CidrBlock):
            parts.append(Peer(name=str(one), addresses=AddressSet.of((one,))))
        elif isinstance(one, GroupReference):
            parts.append(Peer(name=str(one), addresses=members[one.security_group_id]))
    if len(parts) == 1:
        return parts[0]
    whole = AddressSet(()).union(*(part.addresses for part in parts))
    return Peer(name=objects_text(objects), addresses=whole, parts=tuple(parts))


def changed_flows(
    judges: Sequence[tuple[tuple[str, ...], ResolvedInterface]],
    edits: Sequence[RuleEdit],
    members: Members,
    view: Callable[[ResolvedInterface], ResolvedInterface] = lambda judge: judge,
) -> tuple[FlowChange, ...]:
    """Return all packets that are decided otherwise once the edits are made.

    Args:
        judges: what judges, each with the links or network interfaces that it judges.
        edits: to try.
        members: of the groups.
        view: returns what a judge, as it is and as it is edited, decides in some case.
    """
    links, old, new = {}, [], []
    for number, (interfaces, judge) in enumerate(judges):
        edited = edit_judge(judge, edits, members)
        if edited is not judge:
            name = f"{number:06}"
            links[name] = interfaces
            old.append(replace(view(judge), name=name))
            new.append(replace(view(edited), name=name))
    found = compare(ResolvedPolicy(interfaces=tuple(old)), ResolvedPolicy(interfaces=tuple(new))).flows
    return tuple(
        replace(flow, interfaces=tuple(sorted({link for name in flow.interfaces for link in links[name]})))
        for flow in found
    )
