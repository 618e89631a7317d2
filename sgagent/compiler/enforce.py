"""One enforcement step: the plan and the state that make the kernel enforce a policy, session marks included.

The result depends on the policy and the observed table. One hint saves work: with the policy that is known to
have been enforced, sessions are not evaluated again unless the new one revokes something.

That may say yes falsely, never no. It says no only if every accepting entry is still there with no fewer
members, and every dropping entry was there before with no fewer. A packet that an old entry accepted then
still meets that entry, and no dropping entry before it: such an entry would have dropped the packet under the
old policy too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from sgagent.compiler.compilation import Compiled, compile_, without_logging
from sgagent.compiler.source_way import close_way
from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.conditions import LocalUnit
from sgagent.core.memo import Memo, gone_and_come
from sgagent.core.model import Direction, Family, Mode, Policy
from sgagent.core.policy import (
    SILENT,
    Exemption,
    FlowLogging,
    ResolvedDirection,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
)
from sgagent.nft import marks, names, ruleset as nft
from sgagent.nft.diff import make_plan
from sgagent.nft.transactions import AddElements, AddRule, DeleteElements, Flush, Operation, Plan

_Match = tuple[object, ...]
"""All of a rule but whom it speaks of."""


def narrows(old: ResolvedPolicy, new: ResolvedPolicy) -> bool:
    """Return whether the new policy may drop a session that the old one allowed, on an interface of both.

    An interface that is newly bound has a slot of its own, in which no session has been allowed yet.

    Args:
        old: the policy in force.
        new: the policy to apply.
    """
    before = {interface.name: interface for interface in old.bound}
    return any(
        _interface_narrows(before[interface.name], interface)
        for interface in new.bound
        if interface.name in before
    )


def ends_observing(old: ResolvedPolicy, new: ResolvedPolicy) -> bool:
    """Return whether an interface leaves observe mode, so that sessions are judged again (§9.1)."""
    observed = {interface.name for interface in old.bound if interface.mode is Mode.OBSERVE}
    return any(i.name in observed and i.mode is Mode.ENFORCE for i in new.bound)


def may_cut(old: ResolvedPolicy, new: ResolvedPolicy) -> bool:
    """Return whether a session that lives by the old policy may not by the new one, on any interface.

    Those that are newly judged count, too.
    """
    before = {interface.name for interface in old.bound}
    is_newly_judged = any(interface.name not in before for interface in new.bound)
    closes_others = new.unbound is not None and new.unbound != old.unbound
    return is_newly_judged or closes_others or narrows(old, new)


def _interface_narrows(old: ResolvedInterface, new: ResolvedInterface) -> bool:
    if old.mode is Mode.OBSERVE and new.mode is Mode.ENFORCE:
        return True  # what was only observed was remembered as allowed (§9.1)
    if new.own_addresses is not None and new.own_addresses != old.own_addresses:
        return True  # a source that left is spoofed outwards, one that came is spoofed inwards (§12.6)
    return any(_direction_narrows(old.toward(direction), new.toward(direction)) for direction in Direction)


def _direction_narrows(old: ResolvedDirection, new: ResolvedDirection) -> bool:
    return (
        (old.default is Policy.ACCEPT and new.default is Policy.DROP)
        or not _exemptions(old) <= _exemptions(new)
        or not old.inner.issubset(new.inner)
        or _rules_narrow(old.rules, new.rules)
    )


def _rules_narrow(old: tuple[ResolvedRule, ...], new: tuple[ResolvedRule, ...]) -> bool:
    """Return whether an accepting rule lost members, or a dropping one gained some.

    Most rules are unchanged objects. Of these, only rules that match the same traffic as a changed rule are
    compared, because they may name the same members.
    """
    if old is new:
        return False
    gone, come = gone_and_come(old, new)
    if not gone and not come:
        return False
    changed = (*gone, *come)
    before, after = _as_urgent(old, changed), _as_urgent(new, changed)
    return not (
        _all_within(_by_match(before, Policy.ACCEPT), _by_match(after, Policy.ACCEPT))
        and _all_within(_by_match(after, Policy.DROP), _by_match(before, Policy.DROP))
    )


def _as_urgent(rules: tuple[ResolvedRule, ...], changed: tuple[ResolvedRule, ...]) -> list[ResolvedRule]:
    """Return those of rules that may match a changed one's packets: of its priority, and its first port."""
    priorities = {rule.priority for rule in changed}
    urgent = [rule for rule in rules if rule.priority in priorities]
    matches = {(rule.priority, rule.ports.ranges[:1]) for rule in changed}
    return [rule for rule in urgent if (rule.priority, rule.ports.ranges[:1]) in matches]


def _exemptions(toward: ResolvedDirection) -> frozenset[Exemption]:
    return frozenset((*toward.platform, *toward.failsafe))


def _by_match(rules: Iterable[ResolvedRule], policy: Policy) -> Mapping[_Match, AddressSet]:
    """Return whom the rules of one policy speak of, by priority and everything else that they match."""
    found: dict[_Match, list[ResolvedRule]] = {}
    for rule in rules:
        for protocol in rule.protocols if rule.policy is policy else ():
            ports = rule.ports, rule.source_ports
            local = rule.conditions.local
            if isinstance(local, LocalUnit) and policy is Policy.ACCEPT:
                local = replace(local, group=None)  # a new start takes nothing away
            match = (rule.priority, protocol, *ports, rule.local_address, local)
            found.setdefault(match, []).append(rule)
    return {match: _union(alike) for match, alike in found.items()}


def _union(rules: list[ResolvedRule]) -> AddressSet:
    if len(rules) == 1:
        return rules[0].peer.addresses
    peers = {id(rule.peer.addresses): rule.peer.addresses for rule in rules}
    return NO_ADDRESSES.union(*peers.values())


def _all_within(inner: Mapping[_Match, AddressSet], outer: Mapping[_Match, AddressSet]) -> bool:
    """Return whether each match has no members in ``inner`` that it lacks in ``outer``."""
    return all(
        not members or (match in outer and (members is outer[match] or members.issubset(outer[match])))
        for match, members in inner.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforced:
    """The policy and table that stand in the kernel because this agent put them there."""

    policy: ResolvedPolicy
    ruleset: nft.Ruleset
    is_taken_up: bool = False
    """As of :class:`Enforcement`."""

    def has_state_of(self, observed: nft.Ruleset) -> bool:
        """Return whether a table keeps the state that this agent put into its own."""
        keepers = (table.chain_by_name.get(names.STATE_CHAIN) for table in (self.ruleset, observed))
        return len(set(keepers)) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkClearance:
    """Marks that have to be cleared before the plan is applied."""

    mask: int
    """The bits to clear."""

    tests: tuple[marks.MarkTest, ...] = ()
    """Only of marks that meet one of these; without any of all."""

    is_of_generations: bool = True
    """Whether marks of other generations are among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """A change to carry out: clear marks, then apply the plan; and whether another step has to follow."""

    compiled: Compiled
    plan: Plan
    state: marks.EnforcementState
    """Under which accepted sessions are remembered."""

    clearance: MarkClearance | None = None
    is_interim: bool = False
    """Whether sessions are judged uncached until marks of unknown generations have been cleared, or those of
    an interface until the slot that another one gives up is free."""

    is_taken_up: bool = False
    """Whether the generation is that of a table that was found. Somebody may have saved and loaded it, so
    marks of generations after it may be about."""

    @property
    def forgets_all(self) -> bool:
        """Return whether no session is remembered from before: no table stood, or one that remembers none."""
        return self.clearance is not None and not self.clearance.tests

    @property
    def forgets_generations(self) -> bool:
        """Return whether marks of other generations are cleared."""
        return self.clearance is not None and self.clearance.is_of_generations

    def enforcing(self, policy: ResolvedPolicy) -> Enforced:
        """Return the policy and table that stand once this was done for a policy."""
        return Enforced(policy=policy, ruleset=self.compiled.ruleset, is_taken_up=self.is_taken_up)


def enforce(
    policy: ResolvedPolicy,
    observed: nft.Ruleset | None,
    foreign: tuple[str, ...],
    layout: marks.MarkLayout,
    *,
    enforced: Enforced | None = None,
    sessions: marks.Sessions = marks.Sessions.REJUDGE,
    flow_logging: FlowLogging = SILENT,
    memo: Memo | None = None,
) -> Enforcement:
    """Return the change that makes the kernel enforce the policy.

    Args:
        policy: what to enforce.
        observed: our table as it is; None where there is none.
        foreign: objects in it that are none of ours.
        layout: our bits of the conntrack mark.
        enforced: what is known to have been enforced, if anything is.
        sessions: whether live sessions are judged again.
        flow_logging: of which judgements the kernel tells.
        memo: of the last step; the result is the same without.
    """
    memo = memo or Memo()
    memo.turn()
    transition = _Transition(
        observed=observed,
        foreign=foreign,
        policy=policy,
        layout=layout,
        sessions=sessions,
        flow_logging=flow_logging,
        memo=memo,
        enforced=enforced,
    )
    found = transition.enforcement
    # What passes before a new table shows its ranges may not be remembered.
    if found.plan.is_anew and found.state.generation is not None:
        return transition.interim
    return replace(found, is_taken_up=transition.is_taken_up and not found.forgets_generations)


def renamed_maps(table: nft.Ruleset) -> frozenset[str]:
    """Return the maps of addresses, by their first names, that stand in a table of ours under the second."""
    firsts = {one.name: names.first_map(one.name) for one in table.verdict_maps}
    return frozenset(first for name, first in firsts.items() if name == names.second_map(first))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transition:
    """From the observed table to one that enforces the policy."""

    observed: nft.Ruleset | None
    foreign: tuple[str, ...]
    policy: ResolvedPolicy
    layout: marks.MarkLayout
    sessions: marks.Sessions
    flow_logging: FlowLogging
    memo: Memo
    enforced: Enforced | None

    @property
    def is_taken_up(self) -> bool:
        """Return whether marks of generations after that of the table may be about."""
        return self.enforced is None or self.enforced.is_taken_up

    @property
    def state(self) -> marks.EnforcementState | None:
        """Return the state that the table keeps; None where it can't be read."""
        keeper = self.observed.chain_by_name.get(names.STATE_CHAIN) if self.observed else None
        return marks.decode_state(keeper.comment, self.layout) if keeper else None

    @property
    def ends_observing(self) -> bool:
        """Return whether an interface changes from observe to enforce mode (§9.1).

        The mode in the kernel is read from the default inwards, which drops in every table that enforces.
        """
        chains = self.observed.chain_by_name if self.observed else {}
        enforced = (i.name for i in self.policy.bound if i.mode is Mode.ENFORCE)
        leaves = (chains.get(names.default_chain(Direction.INGRESS, name)) for name in enforced)
        drops = (any(nft.Drop() in rule.statements for rule in leaf.rules) for leaf in leaves if leaf)
        return not all(drops)

    @property
    def enforcement(self) -> Enforcement:
        """Return the change, if new ranges in a table made anew were visible at once."""
        interfaces, layout, state = self.policy.remembering, self.layout, self.state
        enforced = self.enforced
        if self.observed is None or (state == marks.UNCACHED and layout.can_cache):
            return self.under(marks.first_state(interfaces, layout), MarkClearance(mask=layout.mask))
        if state is None or (enforced is not None and not enforced.has_state_of(self.observed)):
            return self.interim  # the table sets marks of a generation that nobody knows
        kept = marks.next_state(state, interfaces, layout, narrows=False)
        bumped = marks.next_state(state, interfaces, layout, narrows=True)
        if self.sessions is marks.Sessions.KEEP:
            return self.following(state, bumped if self.ends_observing else kept)
        if state.keeps:
            return self.following(state, bumped)
        if enforced is not None and enforced.ruleset == self.observed and not self.foreign:
            return self.following(state, bumped if narrows(enforced.policy, self.policy) else kept)
        unbumped = self.under(kept)
        return unbumped if self.judges_as(unbumped.compiled.ruleset) else self.following(state, bumped)

    @property
    def interim(self) -> Enforcement:
        """Return the change where marks can't be trusted yet: judge uncached.

        The next step clears all marks, and remembers sessions again.
        """
        return replace(self.under(marks.UNCACHED), is_interim=self.layout.can_cache)

    def judges_as(self, desired: nft.Ruleset) -> bool:
        """Return whether the observed table gives the desired verdicts; log statements don't count.

        The observed table may still have the way to the source open: a session that passed there is not
        remembered as allowed.
        """
        if self.observed is None or self.foreign:
            return False
        observed = close_way(self.observed)
        return observed == desired or without_logging(observed) == without_logging(desired)

    def following(self, before: marks.EnforcementState, state: marks.EnforcementState) -> Enforcement:
        """Return the change from one state to another: clear marks that the new state could mistake.

        Where an interface takes a slot, entries may have the bit of having been opened elsewhere than at the
        one before.
        """
        taken = marks.taken_slots(before.slots, state.slots)
        bits = tuple(self.layout.elsewhere_bit(slot, opened) for slot, opened in product(taken, Direction))
        tests = tuple(marks.MarkTest(bit, bit) for bit in bits)
        of_generations = self.reused_generations(before, state)
        if not tests and not of_generations:
            return self.under(state)
        mask = sum(bits) | (self.layout.generation_mask if of_generations else 0)
        clearance = MarkClearance(
            mask=mask, tests=(*of_generations, *tests), is_of_generations=bool(of_generations)
        )
        return self.under(state, clearance)

    def reused_generations(
        self, before: marks.EnforcementState, state: marks.EnforcementState
    ) -> tuple[marks.MarkTest, ...]:
        """Return the tests of marks of generations that are used again.

        Marks of a generation that is used again are cleared before. For the first that is so, it is those of
        that one; with the second all others go as well, which spares looking for each when its turn comes. So
        they do with the first after a table was taken up.
        """
        if before.generation is None or state.generation in (None, before.generation):
            return ()
        if state.reused:
            return (self.layout.of_generation(state.generation),)
        if before.reused or self.is_taken_up:
            return self.layout.of_other_generations(before.generation)
        return ()

    def under(self, state: marks.EnforcementState, clearance: MarkClearance | None = None) -> Enforcement:
        """Return the change to enforce under a state."""
        keeps = self.sessions is marks.Sessions.KEEP and state.generation is not None
        state, renamed = replace(state, keeps=keeps), self._renamed
        compiled, plan = self._planned(state, renamed)
        mixed = _mixed(plan)
        if mixed:
            compiled, plan = self._planned(state, renamed ^ mixed)
        is_interim = state.generation is not None and marks.is_slot_due(state.slots, self.policy.remembering)
        return Enforcement(
            compiled=compiled, plan=plan, state=state, clearance=clearance, is_interim=is_interim
        )

    @property
    def _renamed(self) -> frozenset[str]:
        """Return the maps of addresses that packets look up under their second name."""
        chains = self.observed.chain_by_name if self.observed else {}
        judges = [judge.name for judge in self.policy.judges]
        places = product(Direction, (*judges, *map(names.answers_of, judges)), Family)
        standing = (chains.get(names.peers_chain(*place)) for place in places)
        rules = (rule for chain in standing if chain for rule in chain.rules)
        lookups = (one for rule in rules for one in rule.statements if isinstance(one, nft.LookUp))
        firsts = ((one.verdict_map, names.first_map(one.verdict_map)) for one in lookups)
        return frozenset(first for name, first in firsts if name == names.second_map(first))

    def _planned(self, state: marks.EnforcementState, renamed: frozenset[str]) -> tuple[Compiled, Plan]:
        compiled = compile_(self.policy, self.layout, state, self.flow_logging, self.memo, renamed=renamed)
        plan = make_plan(compiled.ruleset, self.observed, self.foreign)
        return compiled, plan


def _mixed(plan: Plan) -> frozenset[str]:
    """Return the maps of addresses whose elements a flip changes together with rules that judge.

    A packet that is evaluated at that moment would meet old rules and new elements, which may be neither the
    policy before nor the policy after. Elements alone, with the generation in the mark, are harmless: what is
    judged by new elements is then remembered under the old generation, at most.
    """
    maps = frozenset(
        names.first_map(operation.verdict_map)
        for operation in plan.flip
        if isinstance(operation, (AddElements, DeleteElements))
        if operation.verdict_map.startswith(names.PEERS)
    )
    return maps if any(map(_changes_a_decision, plan.flip)) else frozenset()


def _changes_a_decision(operation: Operation) -> bool:
    match operation:
        case AddRule(chain=chain) | Flush("chain", chain):
            return names.decides(chain)
        case _:
            return False
