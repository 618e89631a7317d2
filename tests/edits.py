"""Edit a random case in small steps, as people do, and find packets about which both cases agree."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

from sgagent.core.binding import HandBinding, HostFacts
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import (
    TCP,
    CidrBlock,
    Direction,
    Family,
    Mode,
    Policy,
    PortSet,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
    SourceCheck,
)
from sgagent.core.policy import LINK_LOCAL, InvalidPackets
from sgagent.core.rule_values import canonical_objects
from tests.draws import Draws
from tests.generators import NOW, Case, random_addresses, random_block, random_packets, resolved

_FOURTEEN = 14
_TRIES = 20
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class _Draft:
    """A case that is being edited."""

    draws: Draws
    snapshot: Snapshot
    bindings: tuple[HandBinding, ...]
    facts: HostFacts

    def with_group(self, edit: Callable[[SecurityGroup], SecurityGroup]) -> _Draft:
        """Return the draft with one group edited, most often one that is bound."""
        bound = {group for binding in self.bindings for group in binding.security_group_ids}
        groups = list(self.snapshot.security_groups)
        places = [place for place, group in enumerate(groups) if group.security_group_id in bound]
        place = self.draws.choice(places or range(len(groups)))
        groups[place] = edit(groups[place])
        return replace(self, snapshot=replace(self.snapshot, security_groups=tuple(groups)))

    def with_rule(self, edit: Callable[[SecurityGroupRule], SecurityGroupRule]) -> _Draft:
        """Return the draft with one rule edited."""

        def in_group(group: SecurityGroup) -> SecurityGroup:
            rules = list(group.rules)
            if rules:
                place = self.draws.index(rules)
                rules[place] = edit(rules[place])
            return replace(group, rules=tuple(rules))

        return self.with_group(in_group)

    def with_list(self, edit: Callable[[PrefixList], PrefixList]) -> _Draft:
        """Return the draft with one prefix list edited."""
        lists = list(self.snapshot.prefix_lists)
        if not lists:
            return self
        place = self.draws.index(lists)
        lists[place] = edit(lists[place])
        return replace(self, snapshot=replace(self.snapshot, prefix_lists=tuple(lists)))


def edited(draws: Draws, case: Case) -> tuple[Case, tuple[str, ...]] | None:
    """Return a case that is one to three edits away from another, and the names of the edits.

    None where no edit that was tried leads to another policy without errors.

    Args:
        draws: where chance comes from.
        case: the other one.
    """
    for _ in range(_TRIES):
        names = tuple(draws.choice(tuple(_EDITS)) for _ in range(draws.randint(1, 3)))
        draft = _Draft(draws, case.snapshot, case.bindings, case.facts)
        for name in names:
            draft = _EDITS[name](draft)
        policy = resolved(draft.snapshot, draft.bindings, case.exemptions, draft.facts)
        if policy is not None and policy != case.policy:
            made = Case(
                snapshot=draft.snapshot,
                bindings=draft.bindings,
                policy=policy,
                exemptions=case.exemptions,
                facts=draft.facts,
            )
            return made, names
    return None


def packets_to_send(draws: Draws, one: Case, other: Case, number: int) -> list[Packet]:
    """Return packets, drawn from what either case speaks of, that connection tracking follows.

    Both ends differ: to connection tracking a packet from an end to itself is its own answer. What goes out
    has a way there: neighbours on a link that nobody has are looked for, and packets to them wait.
    """
    drawn = (*random_packets(draws, one.policy, number), *random_packets(draws, other.policy, number))
    return [
        packet
        for packet in dict.fromkeys(drawn)
        if packet.tracking is Tracking.NEW
        and packet.source != packet.destination
        and not (packet.direction is Direction.EGRESS and _is_on_link(packet))
    ]


def _is_on_link(packet: Packet) -> bool:
    first, last = LINK_LOCAL
    return packet.family is Family.IPV6 and first <= packet.destination <= last


def _add_entry(draft: _Draft) -> _Draft:
    def edit(prefix_list: PrefixList) -> PrefixList:
        entry = random_block(draft.draws, prefix_list.family)
        return replace(prefix_list, entries=tuple(sorted({*prefix_list.entries, entry})))

    return draft.with_list(edit)


def _remove_entry(draft: _Draft) -> _Draft:
    def edit(prefix_list: PrefixList) -> PrefixList:
        entries = list(prefix_list.entries)
        if entries:
            entries.pop(draft.draws.index(entries))
        return replace(prefix_list, entries=tuple(entries))

    return draft.with_list(edit)


def _add_rule(draft: _Draft) -> _Draft:
    return draft.with_group(lambda group: _with_rules(draft, group, 1))


def _add_fourteen_rules(draft: _Draft) -> _Draft:
    return draft.with_group(lambda group: _with_rules(draft, group, _FOURTEEN))


def _with_rules(draft: _Draft, group: SecurityGroup, count: int) -> SecurityGroup:
    taken = {rule.rule_id for one in draft.snapshot.security_groups for rule in one.rules}
    rules = group.rules
    for _ in range(count):
        rules += (_new_rule(draft.draws, taken),)
        taken.add(rules[-1].rule_id)
    return replace(group, rules=tuple(sorted(rules, key=lambda rule: rule.rule_id)))


def unused_rule_id(draws: Draws, taken: Container[str]) -> str:
    """Return an id that no rule has; small draws, which Hypothesis likes, would be equal."""
    number = draws.number(8)
    while f"sgr-new-{number:016x}" in taken:
        number += 1
    return f"sgr-new-{number:016x}"


def _new_rule(draws: Draws, taken: Container[str]) -> SecurityGroupRule:
    first = draws.randint(1, _HIGHEST_PORT)
    return SecurityGroupRule(
        rule_id=unused_rule_id(draws, taken),
        direction=draws.choice(tuple(Direction)),
        policy=draws.choice(tuple(Policy)),
        priority=draws.choice((1, 2, 50, 100)),
        protocols=(TCP,),
        ports=PortSet.of((first, draws.choice((first, min(first + 9, _HIGHEST_PORT))))),
        authorization_objects=(random_block(draws, draws.choice(tuple(Family))),),
    )


def _remove_rule(draft: _Draft) -> _Draft:
    def edit(group: SecurityGroup) -> SecurityGroup:
        rules = list(group.rules)
        if rules:
            rules.pop(draft.draws.index(rules))
        return replace(group, rules=tuple(rules))

    return draft.with_group(edit)


def _rename_rules(draft: _Draft) -> _Draft:
    def edit(group: SecurityGroup) -> SecurityGroup:
        prefix = f"sgr-{draft.draws.number(4):08x}-"
        return replace(group, rules=tuple(replace(r, rule_id=prefix + r.rule_id) for r in group.rules))

    return draft.with_group(edit)


def _flip_rule(draft: _Draft) -> _Draft:
    other = {Policy.ACCEPT: Policy.DROP, Policy.DROP: Policy.ACCEPT}
    return draft.with_rule(lambda rule: replace(rule, policy=other[rule.policy]))


def _change_priority(draft: _Draft) -> _Draft:
    return draft.with_rule(lambda rule: replace(rule, priority=draft.draws.randint(1, 100)))


def _widen_range(draft: _Draft) -> _Draft:
    def edit(rule: SecurityGroupRule) -> SecurityGroupRule:
        if not isinstance(rule.ports, PortSet) or rule.ports.is_all:
            return rule
        *others, (first, last) = rule.ports.ranges
        wider = (first, min(last + draft.draws.randint(1, 50), _HIGHEST_PORT))
        return replace(rule, ports=PortSet.of(*others, wider))

    return draft.with_rule(edit)


def _take_protocol_away(draft: _Draft) -> _Draft:
    def edit(rule: SecurityGroupRule) -> SecurityGroupRule:
        left = list(rule.protocols)
        left.pop(draft.draws.index(left))
        return replace(rule, protocols=tuple(left)) if left else rule

    return draft.with_rule(edit)


def _end_rule(draft: _Draft) -> _Draft:
    return draft.with_rule(lambda rule: replace(rule, expires=NOW))


def _change_network(draft: _Draft) -> _Draft:
    def edit(rule: SecurityGroupRule) -> SecurityGroupRule:
        others = list(rule.authorization_objects)
        place = draft.draws.index(others)
        block = others[place]
        if not isinstance(block, CidrBlock):
            return rule
        others[place] = random_block(draft.draws, block.family)
        return replace(rule, authorization_objects=canonical_objects(others))

    return draft.with_rule(edit)


def _add_member(draft: _Draft) -> _Draft:
    def edit(group: SecurityGroup) -> SecurityGroup:
        member = random_block(draft.draws, draft.draws.choice(tuple(Family)))
        return replace(group, member_addresses=tuple(sorted({*group.member_addresses, member}, key=str)))

    return draft.with_group(edit)


def _remove_member(draft: _Draft) -> _Draft:
    return draft.with_group(lambda group: replace(group, member_addresses=group.member_addresses[1:]))


def _change_inner_access(draft: _Draft) -> _Draft:
    other = {Policy.ACCEPT: Policy.DROP, Policy.DROP: Policy.ACCEPT}
    return draft.with_group(lambda one: replace(one, inner_access_policy=other[one.inner_access_policy]))


def _change_mode(draft: _Draft) -> _Draft:
    place = draft.draws.index(draft.bindings)
    bindings = list(draft.bindings)
    mode = Mode.ENFORCE if bindings[place].mode is Mode.OBSERVE else Mode.OBSERVE
    bindings[place] = replace(bindings[place], mode=mode)
    return replace(draft, bindings=tuple(bindings))


def _switch_source_check(draft: _Draft) -> _Draft:
    place = draft.draws.index(draft.bindings)
    bindings = list(draft.bindings)
    switched = SourceCheck.OFF if bindings[place].source_check is SourceCheck.ON else SourceCheck.ON
    bindings[place] = replace(bindings[place], source_check=switched)
    return replace(draft, bindings=tuple(bindings))


def _switch_invalid(draft: _Draft) -> _Draft:
    place = draft.draws.index(draft.bindings)
    bindings = list(draft.bindings)
    is_dropped = bindings[place].invalid is InvalidPackets.DROP
    switched = InvalidPackets.EVALUATE if is_dropped else InvalidPackets.DROP
    bindings[place] = replace(bindings[place], invalid=switched)
    return replace(draft, bindings=tuple(bindings))


def _change_addresses(draft: _Draft) -> _Draft:
    links = list(draft.facts.links)
    if not links:
        return draft
    place = draft.draws.index(links)
    links[place] = replace(links[place], addresses=random_addresses(draft.draws))
    return replace(draft, facts=HostFacts(links=tuple(links)))


def _unbind(draft: _Draft) -> _Draft:
    """Leave one link out, but never the first."""
    if len(draft.bindings) == 1:
        return draft
    left_out = draft.draws.randint(1, len(draft.bindings) - 1)
    bindings = draft.bindings[:left_out] + draft.bindings[left_out + 1 :]
    return replace(draft, bindings=bindings)


def _take_groups_away(draft: _Draft) -> _Draft:
    place = draft.draws.index(draft.bindings)
    bindings = list(draft.bindings)
    bindings[place] = replace(bindings[place], security_group_ids=bindings[place].security_group_ids[1:])
    return replace(draft, bindings=tuple(bindings))


_EDITS: Mapping[str, Callable[[_Draft], _Draft]] = {
    "add an entry to a list": _add_entry,
    "remove an entry of a list": _remove_entry,
    "add a rule": _add_rule,
    "add fourteen rules": _add_fourteen_rules,
    "remove a rule": _remove_rule,
    "rename the rules of a group": _rename_rules,
    "flip a rule": _flip_rule,
    "change a priority": _change_priority,
    "widen a range": _widen_range,
    "change a network": _change_network,
    "let a rule end": _end_rule,
    "take a protocol away": _take_protocol_away,
    "add a member": _add_member,
    "remove a member": _remove_member,
    "change the inner access": _change_inner_access,
    "change a mode": _change_mode,
    "switch a source check": _switch_source_check,
    "switch what becomes of invalid packets": _switch_invalid,
    "change the addresses of a link": _change_addresses,
    "unbind a link": _unbind,
    "take a group away": _take_groups_away,
}
