"""The decision of a step, worked out from values: state, inputs and table in, decision out.

The :class:`sgagent.agent.reconciler.Reconciler` asks the ports for the inputs and carries the decision out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from sgagent.agent.definitions import Definitions, Fetched, KnownLinks, missing_links
from sgagent.agent.guardrails import NO_GUARDRAILS, NO_REPORT, Guarded, GuardrailReport, KnownGuardrails
from sgagent.agent.manual_override import ModeOverrides
from sgagent.agent.names.name_table import ResolvedNames
from sgagent.agent.state.directory import Extent
from sgagent.agent.step import Step, StepEnd
from sgagent.compiler.enforce import Enforced, Enforcement, MarkClearance, ends_observing, enforce, may_cut
from sgagent.compiler.source_way import chains_of_others, close_way, open_way
from sgagent.core.binding import NO_FACTS, PROBLEMS_OF_HOST, Bindings, HostFacts, bind, can_be_matched
from sgagent.core.counter_keys import CounterKey
from sgagent.core.endpoints import Endpoint, exempt
from sgagent.core.errors import Problem, Severity
from sgagent.core.expected_links import bind_expected
from sgagent.core.memo import Memo
from sgagent.core.model import Direction
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, closed_interface, resolve, with_links
from sgagent.core.resolved_rules import UNRESOLVED_NAME
from sgagent.nft.diff import make_plan, plan_without_table
from sgagent.nft.marks import MarkLayout, Sessions
from sgagent.nft.ruleset import FAMILY, TABLE, Ruleset
from sgagent.nft.text import differences
from sgagent.nft.transactions import AddCounter, Delete, Operation, Plan
from sgagent.ports import SOURCE_AWAY, Delivery, Observed
from sgagent.settings import Settings
from sgagent.settings.tables import UnboundInterfaces


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPolicy:
    """The policy that this agent put into the kernel."""

    wanted: ResolvedPolicy
    """The policy before the modes that were set by hand."""

    enforced: Enforced
    counters: Mapping[str, CounterKey]
    uncached: tuple[str, ...]
    """Interfaces whose sessions are judged at every packet."""

    is_interim: bool
    """Whether sessions are judged uncached until marks of unknown generations have been cleared."""

    def differs_from(self, observed: Observed) -> bool:
        """Return whether the table is another one."""
        return observed.ruleset != self.enforced.ruleset or bool(observed.foreign)

    def enforces(self, policy: ResolvedPolicy, observed: Observed) -> bool:
        """Return whether a policy is enforced and the table unchanged, so that there is nothing to do."""
        is_same = self.enforced.policy == policy and not self.is_interim
        return is_same and not self.differs_from(observed)

    @property
    def extent(self) -> Extent:
        """Return how large the table is."""
        policy, ruleset = self.enforced.policy, self.enforced.ruleset
        directions = (i.toward(direction) for i in policy.bound for direction in Direction)
        return Extent(
            interfaces=len(policy.bound),
            rules=sum(len(direction.rules) for direction in directions),
            chains=len(ruleset.chains),
            elements=sum(len(found.elements) for found in ruleset.verdict_maps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """All that one step leaves to the next one."""

    definitions: Definitions
    known_links: KnownLinks
    in_force: InstalledPolicy | None = None
    is_closed: bool = False
    """Whether the host is closed for lack of any snapshot (§9.2)."""

    is_standing: bool = False
    """Whether rules that an earlier agent left are all that is in force (§9.2)."""

    def policy_in_force(self, at: datetime | None) -> ResolvedPolicy | None:
        """Return the policy of definitions that this agent has put in force; None if it has not."""
        return None if self.in_force is None or self.is_closed else self.in_force.wanted.without_ended(at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """The inputs of a step from outside, except the table."""

    fetched: Fetched
    facts: HostFacts = NO_FACTS
    source_endpoints: tuple[Endpoint, ...] = ()
    """Where the source is reached; no group can block it (§7.4)."""

    names: ResolvedNames = field(default_factory=ResolvedNames)
    name_servers: tuple[Endpoint, ...] = ()
    """Where names are resolved; no group can block it while a rule names one (§12.3)."""

    overrides: ModeOverrides = field(default_factory=ModeOverrides)
    now: float = 0.0
    """Seconds since the epoch."""

    latest: datetime | None = None
    """The latest time that is known, by which rules expire (§12.4); without it none does."""

    has_enforced: bool = True
    """Whether this host ever enforced a snapshot."""

    guardrails: KnownGuardrails = NO_GUARDRAILS
    """The statements that no definitions may break (§13.4)."""

    is_table_known: bool = True
    """Whether a table that differs was changed by another process, and not by a step that failed."""


@dataclass(frozen=True, slots=True)
class StepTarget:
    """The definitions and policy that a step should enforce."""

    definitions: Definitions
    """With the source's answer of now."""

    delivery: Delivery | None = None
    """None where no definitions can be enforced."""

    found: Bindings | None = None
    resolution: Resolution | None = None
    refusal: tuple[Problem, ...] = ()
    """Why newer definitions are not enforced."""

    damage: tuple[str, ...] = ()
    """The faults of the definitions that an earlier agent left, whatever the step's result is."""

    guardrails: GuardrailReport = NO_REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChange:
    """A step's changes of the kernel."""

    plan: Plan
    clearance: MarkClearance | None = None
    preview: tuple[ResolvedPolicy | None, ResolvedPolicy] | None = None
    """The policies before and after, if the change may cut open sessions."""

    leaving: frozenset[str] = frozenset()
    """Counters that the flip deletes."""

    is_observing_changed: bool = False
    """Whether drops that are counted from now on are carried out where they were not, or not."""

    removed: frozenset[str] = frozenset()
    """Counters that the removal deletes."""

    is_removal_needed: bool = False
    """Whether the step fails if the kernel refuses the removal; else the next step removes what is left."""

    @property
    def at_zero(self) -> frozenset[str]:
        """Return the counters that begin anew with the flip."""
        made = (o.counter.name for o in self.plan.operations if isinstance(o, AddCounter))
        return self.leaving | frozenset(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecision:
    """A step's report, new state and change of the kernel."""

    step: Step
    """The report, if the kernel takes the change or there is none."""

    state: AgentState
    """Likewise; after a step that the kernel refused, the state is the one before."""

    change: KernelChange | None = None
    refused: Step | None = None
    """The report if the kernel refuses the change."""

    is_compiled: bool = False
    """Whether the table was compiled and compared."""

    def reporting(self, **fields: Any) -> StepDecision:  # noqa: ANN401 - of a step
        """Return the decision with these fields in both reports."""
        refused = None if self.refused is None else replace(self.refused, **fields)
        return replace(self, step=replace(self.step, **fields), refused=refused)


class Planner:
    """Decide each step. Its memos only save work."""

    def __init__(self, settings: Settings) -> None:
        """Take the configuration."""
        self._settings = settings
        self._enforcement = partial(
            enforce,
            layout=MarkLayout(settings.enforcement.mark_mask),
            sessions=settings.enforcement.sessions,
            flow_logging=settings.flow_log.logging,
        )
        self._resolved, self.compiled = Memo(), Memo()

    def choose(self, state: AgentState, inputs: StepInputs) -> StepTarget:
        """Return the best definitions that can be enforced, and why newer ones are not."""
        definitions = replace(state.definitions, fetched=inputs.fetched)
        refusal, damage = inputs.fetched.problems, list[str]()
        report = GuardrailReport(known=inputs.guardrails)
        for delivery, is_new in definitions.candidates(self._settings.limits, damage.append):
            found = self._bind(inputs, delivery)
            resolution = self._resolve(state, inputs, delivery, found)
            errors = self._errors(delivery, resolution)
            if not errors:
                guarded = self._guarded(inputs, delivery, resolution)
                report = report.following(guarded, delivery.snapshot.version, is_new=is_new)
                if not (is_new and guarded.errors):
                    kept = guarded.staying(state.policy_in_force(inputs.latest), self._exemptions(inputs))
                    return StepTarget(definitions, delivery, found, kept, refusal, guardrails=report)
                errors = (*delivery.problems, *guarded.resolution.problems)
            refusal = refusal or errors
        found_damage = tuple(damage)
        definitions = definitions.damaged(found_damage)
        return StepTarget(definitions, refusal=refusal, damage=found_damage, guardrails=report)

    def refusal_of(self, state: AgentState, inputs: StepInputs, delivery: Delivery) -> tuple[Problem, ...]:
        """Return why definitions would be refused on this host as it is; nothing if they would not."""
        found = self._bind(inputs, delivery)
        resolution = self._resolve(state, inputs, delivery, found)
        errors = self._errors(delivery, resolution)
        guarded = self._guarded(inputs, delivery, resolution)
        return errors or ((*delivery.problems, *guarded.resolution.problems) if guarded.errors else ())

    def _guarded(self, inputs: StepInputs, delivery: Delivery, resolution: Resolution) -> Guarded:
        """Return the definitions' resolution under the guardrails (§13.4)."""
        policy, names = inputs.overrides.over(resolution.policy), inputs.names.addresses
        return inputs.guardrails.hold(resolution, delivery.snapshot, policy, names, self._resolved)

    def _errors(self, delivery: Delivery, resolution: Resolution) -> tuple[Problem, ...]:
        """Return all problems of definitions that are not enforced because of some; nothing of others.

        A link's own problem is not their fault (§9.4), nor that a source or name server is away (§12.3).
        """
        problems, strict = (*delivery.problems, *resolution.problems), self._settings.enforcement.strict
        of_host = (*PROBLEMS_OF_HOST, UNRESOLVED_NAME, SOURCE_AWAY)
        if not any((strict or p.severity is Severity.ERROR) and p.code not in of_host for p in problems):
            return ()
        return tuple(replace(p, severity=Severity.ERROR) for p in problems) if strict else problems

    def decide(
        self, state: AgentState, inputs: StepInputs, target: StepTarget, observed: Observed
    ) -> StepDecision:
        """Return the decision on a table."""
        state = replace(state, definitions=target.definitions)
        delivery, found, resolution = target.delivery, target.found, target.resolution
        if delivery is None or found is None or resolution is None:
            return self._without_snapshot(state, inputs, target, observed)

        links = state.known_links.following(found, delivery.snapshot)
        if target.definitions.is_ordered(delivery):  # apply has printed what it unbinds
            links = links.without_unbound({link.name for link in inputs.facts.links})
        missing = missing_links(
            self._settings.interfaces, links, delivery.snapshot, resolution.policy, inputs.facts
        )
        if target.definitions.is_on_trial(delivery):  # what is on trial is expected nowhere
            links = state.known_links
        accepted = target.definitions.accepted(delivery, inputs.now)
        state = replace(state, definitions=accepted, known_links=links, is_closed=False, is_standing=False)
        warnings = (*delivery.problems, *resolution.problems, *inputs.names.warnings_of(resolution.dns_names))
        return self._enforce(state, inputs, resolution.policy, observed).reporting(
            version=delivery.snapshot.version,
            documents=delivery.documents,
            held_back=target.definitions.held_back,
            problems=target.refusal or warnings,
            is_refused=bool(target.refusal),
            source_error=inputs.fetched.source_error,
            unknown_objects=resolution.unknown_objects,
            snapshot=delivery.snapshot,
            missing_links=missing,
            guardrails=target.guardrails,
        )

    def _resolve(
        self, state: AgentState, inputs: StepInputs, delivery: Delivery, found: Bindings
    ) -> Resolution:
        enforcement, missed = self._settings.enforcement, state.known_links.missed
        return resolve(
            delivery.snapshot,
            bind_expected(found, missed, delivery.snapshot, inputs.facts),
            self._exemptions(inputs),
            default_mode=enforcement.mode,
            source_check=enforcement.source_check,
            unbound_closed=enforcement.unbound_interfaces is UnboundInterfaces.CLOSED,
            at=inputs.latest,
            names=inputs.names.addresses,
            memo=self._resolved,
        )

    def _bind(self, inputs: StepInputs, delivery: Delivery) -> Bindings:
        by_hand = self._settings.interfaces
        found = bind(delivery.snapshot, by_hand, inputs.facts, automatically=True)
        return replace(found, is_followed=True)

    def _exemptions(self, inputs: StepInputs) -> Exemptions:
        """Return the traffic that no group can block: lists, and the way to the source (§7.4)."""
        return Exemptions(
            platform=self._settings.platform,
            failsafe=(*self._settings.failsafe, *exempt(inputs.source_endpoints)),
            name_servers=exempt(inputs.name_servers),
        )

    def _without_snapshot(
        self, state: AgentState, inputs: StepInputs, target: StepTarget, observed: Observed
    ) -> StepDecision:
        """Do the work that remains where no definitions can be enforced, by §9.2."""
        held = self._hold(state, inputs, observed)
        decision = held.reporting(
            held_back=target.definitions.held_back,
            problems=target.refusal,
            is_refused=bool(target.refusal),
            source_error=self._source_error(inputs, observed, is_standing=held.step.is_standing),
            guardrails=target.guardrails,
        )
        step = decision.step
        is_as_it_was = step.outcome is StepEnd.WAITING and not (step.is_standing or step.is_refused)
        if inputs.fetched.is_empty and is_as_it_was:
            step = replace(step, source_error=None, awaits_documents=True)
        return replace(decision, step=step)

    def _source_error(self, inputs: StepInputs, observed: Observed, *, is_standing: bool) -> str | None:
        """Return why the source can't be reached, with the chains that block the way in rules that stay."""
        error, table = inputs.fetched.source_error, observed.ruleset
        if error is None or not is_standing or table is None:
            return error
        held = " and ".join(self._chains_of_others(observed, table))
        if not held or open_way(table, inputs.source_endpoints) == table:
            return error
        return (
            f"{error}; the way to it stays closed, as other programs have rules in {held}"
            f" of table {FAMILY} {TABLE} (stop sgagent, delete these, and start it again)"
        )

    def _chains_of_others(self, observed: Observed, table: Ruleset) -> tuple[str, ...]:
        return chains_of_others(table, observed.foreign, self._settings.enforcement.mark_mask)

    def _hold(self, state: AgentState, inputs: StepInputs, observed: Observed) -> StepDecision:
        """Keep the rules in force: those that this agent enforced, or that an earlier one left.

        Without any, a host that never enforced a snapshot is left open, and any other is closed. Rules
        that were on trial are not kept.
        """
        definitions, good = state.definitions, state.definitions.good
        is_going_back = definitions.is_going_back
        if state.in_force is not None and not state.is_closed and not is_going_back:
            policy = state.in_force.wanted.at(inputs.latest)
            if good is None:
                return self._enforce(state, inputs, policy, observed)
            guarded = self._guarded(inputs, good, Resolution(policy=policy))
            kept = guarded.staying(state.policy_in_force(inputs.latest), self._exemptions(inputs))
            decision = self._enforce(state, inputs, kept.policy, observed)
            return decision.reporting(version=good.snapshot.version, documents=good.documents)
        if not self._settings.enforcement.fail_closed and not inputs.has_enforced:
            leave = self._open if is_going_back else self._leave_standing
            return leave(state, inputs, observed)
        closed = self._closed_policy(inputs)
        if not state.is_closed and not is_going_back and self._stands_apart_from(closed, inputs, observed):
            return self._leave_standing(state, inputs, observed)
        gone_back = replace(definitions, is_going_back=False)
        state = replace(state, definitions=gone_back, is_closed=True, is_standing=False)
        return self._enforce(state, inputs, closed, observed).reporting(is_closed=True)

    def _leave_standing(self, state: AgentState, inputs: StepInputs, observed: Observed) -> StepDecision:
        """Leave a table that an earlier agent left as it is, but open the way to the source in it."""
        table = observed.ruleset
        step = Step(outcome=StepEnd.WAITING, is_standing=table is not None, facts=inputs.facts)
        left = StepDecision(step=step, state=replace(state, is_standing=step.is_standing))
        if table is None or self._chains_of_others(observed, table):
            return left
        plan = make_plan(open_way(table, inputs.source_endpoints), table)
        if not plan:
            return left
        opened = replace(step, opened_to=inputs.source_endpoints)
        return replace(left, step=opened, refused=step, change=KernelChange(plan=plan))

    def _open(self, state: AgentState, inputs: StepInputs, observed: Observed) -> StepDecision:
        """Leave the host as it was before the definitions that were on trial: without a table."""
        table, definitions = observed.ruleset, replace(state.definitions, is_going_back=False)
        step = Step(outcome=StepEnd.WAITING, counters={}, facts=inputs.facts)
        opened = StepDecision(step=step, state=replace(state, in_force=None, definitions=definitions))
        if table is None:
            return opened
        plan, removed = plan_without_table(table), frozenset(table.counter_by_name)
        change = KernelChange(plan=plan, removed=removed, is_removal_needed=True)
        refused = Step(outcome=StepEnd.REFUSED, facts=inputs.facts)
        return replace(opened, change=change, refused=refused)

    def _stands_apart_from(self, closed: ResolvedPolicy, inputs: StepInputs, observed: Observed) -> bool:
        """Return whether there is a table, and another than that of a closed host."""
        if observed.ruleset is None:
            return False
        policy, table = inputs.overrides.over(closed), close_way(observed.ruleset)
        return bool(self._enforcement(policy, table, observed.foreign).plan)

    def _closed_policy(self, inputs: StepInputs) -> ResolvedPolicy:
        by_hand, mode = self._settings.interfaces, self._settings.enforcement.mode
        named = [one.interface for one in by_hand if one.pattern is None]
        hardware = [link.name for link in inputs.facts.links if link.has_hardware and not link.is_loopback]
        names = named if by_hand else filter(can_be_matched, hardware)
        exemptions = self._exemptions(inputs)
        interfaces = (closed_interface(name, exemptions, mode) for name in sorted(set(names)))
        patterns = {
            one.pattern: closed_interface(one.interface, exemptions, mode) for one in by_hand if one.pattern
        }
        closed = ResolvedPolicy(interfaces=tuple(interfaces))
        return with_links(closed, patterns, Bindings(facts=inputs.facts, is_followed=True), exemptions)

    def _enforce(
        self, state: AgentState, inputs: StepInputs, wanted: ResolvedPolicy, observed: Observed
    ) -> StepDecision:
        """Compile a policy and compare it with the table, unless that is known to hold just this policy."""
        policy, before = inputs.overrides.over(wanted), state.in_force
        if before is not None and before.enforces(policy, observed):
            step = Step(
                outcome=StepEnd.UNCHANGED,
                policy=before.enforced.policy,
                counters=before.counters,
                uncached=before.uncached,
                facts=inputs.facts,
            )
            return StepDecision(step=step, state=replace(state, in_force=replace(before, wanted=wanted)))
        enforced = before.enforced if before else None
        enforcement = self._enforcement(
            policy, observed.ruleset, observed.foreign, enforced=enforced, memo=self.compiled
        )
        compiled, plan = enforcement.compiled, enforcement.plan
        is_first = observed.ruleset is None or enforcement.forgets_all
        uncached = tuple(name for name in policy.remembering if enforcement.state.slot(name) is None)
        differed: tuple[str, ...] = ()
        if before is not None and inputs.is_table_known and before.differs_from(observed):
            differed = differences(before.enforced.ruleset, observed.ruleset, observed.foreign)
        step = Step(
            outcome=StepEnd.APPLIED if plan else StepEnd.UNCHANGED,
            policy=policy,
            counters=compiled.counters,
            uncached=uncached,
            state=enforcement.state,
            was_drift=bool(differed),
            differed=differed,
            is_first_table=is_first,
            facts=inputs.facts,
            operations=len(plan.operations),
        )
        in_force = InstalledPolicy(
            wanted=wanted,
            enforced=enforcement.enforcing(policy),
            counters=compiled.counters,
            uncached=uncached,
            is_interim=bool(plan) and enforcement.is_interim,
        )
        decision = StepDecision(step=step, state=replace(state, in_force=in_force), is_compiled=True)
        if not plan:
            return decision
        old = before.enforced.policy if before else None
        change = self._change(old, policy, enforcement, is_first=is_first)
        refused = replace(step, outcome=StepEnd.REFUSED, policy=old, state=None)
        return replace(decision, change=change, refused=refused)

    def _change(
        self, old: ResolvedPolicy | None, policy: ResolvedPolicy, enforcement: Enforcement, *, is_first: bool
    ) -> KernelChange:
        """Return a plan's change of the kernel, with its effect on counters and open sessions."""
        plan = enforcement.plan
        gone = frozenset(plan.before.counter_by_name) if plan.is_anew and plan.before else frozenset()
        return KernelChange(
            plan=plan,
            clearance=enforcement.clearance,
            preview=(old, policy) if self._may_cut(old, policy, is_first=is_first) else None,
            leaving=gone | _deleted_counters(plan.flip),
            is_observing_changed=old is not None and old.observed != policy.observed,
            removed=_deleted_counters(plan.removal),
        )

    def _may_cut(self, old: ResolvedPolicy | None, policy: ResolvedPolicy, *, is_first: bool) -> bool:
        """Return whether a policy may cut open sessions; False where it takes nothing away."""
        if old is not None and not may_cut(old, policy):
            return False
        is_kept = self._settings.enforcement.sessions is Sessions.KEEP and not is_first
        return not is_kept or bool(old and ends_observing(old, policy))


def _deleted_counters(operations: tuple[Operation, ...]) -> frozenset[str]:
    return frozenset(o.name for o in operations if isinstance(o, Delete) and o.kind == "counter")
