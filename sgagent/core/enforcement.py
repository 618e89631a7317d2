"""Decide what one step has to do for the kernel to enforce a policy, sessions' marks included.

A function of the policy and of the table that stands, with no memory but for one hint: the policy that is known to have
been enforced spares sessions a second judgement where the new one takes nothing away.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core import names
from sgagent.core.compiler import Compiled, compile_
from sgagent.core.marks import (
    UNCACHED,
    EnforcementState,
    MarkLayout,
    decode_state,
    first_state,
    next_state,
)
from sgagent.core.model import Sessions
from sgagent.core.narrowing import narrows
from sgagent.core.plan import Plan, make_plan
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.ruleset import Ruleset




@dataclass(frozen=True, slots=True, kw_only=True)
class Enforced:
    """What is known to stand in the kernel because this agent put it there."""

    policy: ResolvedPolicy
    ruleset: Ruleset


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkClearance:
    """Marks that have to be cleared before the plan is applied."""

    mask: int
    value: int | None
    """Only marks that have these bits; None is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What to do: clear marks, then apply the plan; and whether another step has to follow."""

    compiled: Compiled
    plan: Plan
    clearance: MarkClearance | None = None
    is_interim: bool = False
    """Whether sessions are judged uncached until marks of unknown generations have been cleared."""


def enforce(
    policy: ResolvedPolicy,
    observed: Ruleset | None,
    foreign: tuple[str, ...],
    layout: MarkLayout,
    *,
    enforced: Enforced | None = None,
    sessions: Sessions = Sessions.REJUDGE,
) -> Enforcement:
    """Return what has to be done for the policy to be enforced.

    Args:
        policy: what to enforce.
        observed: our table as it stands; None where there is none.
        foreign: objects in it that are none of ours.
        layout: our bits of the conntrack mark.
        enforced: what is known to have been enforced, if anything is.
        sessions: whether live sessions are judged again.
    """
    interfaces = [interface.name for interface in policy.interfaces]
    everything = MarkClearance(mask=layout.mask, value=None)
    state = _standing_state(observed, layout)
    if observed is None or (state == UNCACHED and layout.can_cache):
        fresh = first_state(interfaces, layout)
        return _under(policy, layout, fresh, observed, foreign, clearance=everything)
    if state is None:
        # The table sets marks of a generation that nobody knows: stop it first, clear what it left, then remember.
        return _under(policy, layout, UNCACHED, observed, foreign, is_interim=layout.can_cache)
    kept = next_state(state, interfaces, layout, narrows=False)
    is_ours = enforced is not None and enforced.ruleset == observed and not foreign
    if sessions is Sessions.KEEP or (is_ours and enforced is not None and not narrows(enforced.policy, policy)):
        return _bumped(policy, layout, state, kept, observed, foreign)
    unbumped = _under(policy, layout, kept, observed, foreign)
    if not unbumped.plan:
        return unbumped
    return _bumped(policy, layout, state, next_state(state, interfaces, layout, narrows=True), observed, foreign)


def _standing_state(observed: Ruleset | None, layout: MarkLayout) -> EnforcementState | None:
    """Return the state that the table keeps; None where it can't be read."""
    keeper = observed.chain_by_name.get(names.STATE_CHAIN) if observed else None
    return decode_state(keeper.comment, layout) if keeper else None


def _bumped(
    policy: ResolvedPolicy,
    layout: MarkLayout,
    before: EnforcementState,
    state: EnforcementState,
    observed: Ruleset | None,
    foreign: tuple[str, ...],
) -> Enforcement:
    """Enforce under a state; marks of a generation that is used again are cleared before."""
    clearance = None
    if state.generation is not None and state.generation != before.generation and state.reused:
        clearance = MarkClearance(mask=layout.generation_mask, value=layout.generation_bits(state.generation))
    return _under(policy, layout, state, observed, foreign, clearance=clearance)


def _under(
    policy: ResolvedPolicy,
    layout: MarkLayout,
    state: EnforcementState,
    observed: Ruleset | None,
    foreign: tuple[str, ...],
    *,
    clearance: MarkClearance | None = None,
    is_interim: bool = False,
) -> Enforcement:
    compiled = compile_(policy, layout, state)
    plan = make_plan(compiled.ruleset, observed, foreign)
    return Enforcement(compiled=compiled, plan=plan, clearance=clearance, is_interim=is_interim)
