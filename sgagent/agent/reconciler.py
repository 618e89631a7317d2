"""The reconciler: one step that brings the kernel to the definitions, whatever state it finds.

A step fetches, resolves, compiles, plans and applies. The result depends on the definitions, the host's links
and the observed table. The reconciler's own state only saves work or records observations.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from sgagent.agent.definitions import Definitions
from sgagent.agent.modes import ModeFile
from sgagent.agent.session_cuts import NamedCut
from sgagent.agent.source_way import SourceWays
from sgagent.agent.state.directory import StateDirectory
from sgagent.agent.state.known_links import KnownLinks
from sgagent.agent.state.snapshot_file import Extent
from sgagent.agent.step import Step, StepEnd
from sgagent.compiler.enforce import Enforced, Enforcement, enforce
from sgagent.compiler.marks import MarkLayout
from sgagent.compiler.revocation import ends_observing, may_cut
from sgagent.compiler.source_way import close_way
from sgagent.core.binding import PORT_OF_MASTER, Bindings, bind, bind_expected, can_be_matched
from sgagent.core.errors import KernelRefusedError, NotPermittedError, Problem, Severity
from sgagent.core.host_facts import HostFacts
from sgagent.core.memo import Memory
from sgagent.core.model import Direction, Sessions, Snapshot
from sgagent.core.policy import Endpoint, ResolvedPolicy, exempt
from sgagent.core.resolve import Exemptions, Resolution, closed_interface, resolve
from sgagent.nft.describe import differences
from sgagent.nft.plan import AddCounter, DeleteCounter, Operation, Plan, plan_without_table
from sgagent.nft.ruleset import Ruleset
from sgagent.ports import Clock, Dataplane, Delivery, Host, Source
from sgagent.settings import Settings, UnboundInterfaces

Foresee = Callable[[ResolvedPolicy | None, ResolvedPolicy, HostFacts], tuple[NamedCut, ...]]
"""Names the open sessions that live by the one policy, if it is known, and will not by the other."""


def _foresee_nothing(
    _old: ResolvedPolicy | None, _new: ResolvedPolicy, _facts: HostFacts
) -> tuple[NamedCut, ...]:
    return ()


class Reconciler:
    """Carry out steps."""

    def __init__(
        self,
        *,
        settings: Settings,
        source: Source,
        host: Host,
        dataplane: Dataplane,
        state: StateDirectory,
        clock: Clock,
        before_counters_go: Callable[[frozenset[str]], None],
        counters_gone: Callable[[frozenset[str]], None],
        foresee: Foresee = _foresee_nothing,
        name_servers: Callable[[], tuple[Endpoint, ...]] = tuple,
    ) -> None:
        """Take the ports; nothing is changed before the first step.

        Args:
            settings: the configuration.
            source: where definitions come from.
            host: the links.
            dataplane: the kernel's table.
            state: where the last good definitions are kept.
            clock: for durations.
            before_counters_go: reads the counters. It is called with the names of those that are about to
                be deleted, and when an interface is about to change its mode.
            counters_gone: called with the names of deleted and created counters. They start at zero, also
                those that another process deleted before.
            foresee: returns the sessions that a policy is about to cut.
            name_servers: returns the host's name servers; empty if the source's address is not a host name.
        """
        self._settings = settings
        self._source = source
        self._host = host
        self._dataplane = dataplane
        self._state = state
        self._clock = clock
        self._before_counters_go = before_counters_go
        self._counters_gone = counters_gone
        self._foresee = foresee
        self._layout = MarkLayout(settings.enforcement.mark_mask)
        self._resolved, self._compiled = Memory(), Memory()
        self._expectations: KnownLinks | None = None
        self._wanted: ResolvedPolicy | None = None
        self._enforced: Enforced | None = None
        self._is_closed = False
        self._settled: Step | None = None
        self._modes = ModeFile(state.directory)
        self.definitions = Definitions(source, state, settings.limits, clock)
        self._ways = SourceWays(source, self.definitions, name_servers)
        self.is_standing = False
        """Whether rules that an earlier agent left are all that is in force (§9.2)."""

        self.overrides, self.mode_fault = self._modes.load()

    @property
    def state_faults(self) -> tuple[str, ...]:
        """Return what is wrong with what is kept."""
        return (*self.definitions.faults, *((self.mode_fault,) if self.mode_fault else ()))

    def interface_names(self) -> frozenset[str]:
        """Return every interface that is judged, there, or named by the configuration."""
        policy = self._wanted or ResolvedPolicy()
        judges = (*policy.interfaces, *((policy.unbound,) if policy.unbound else ()))
        there = (link.name for link in self._host.facts().links if not link.is_loopback)
        by_hand = (binding.interface for binding in self._settings.interfaces)
        return frozenset((*(judge.name for judge in judges), *there, *by_hand))

    def keep_modes(self) -> None:
        """Keep the overrides that hold now; that they could not be kept is a fault."""
        self.mode_fault = None
        try:
            self._modes.save(self.overrides)
        except OSError as error:
            self.mode_fault = f"the modes could not be kept: {error}"

    def step(self, *, fetch: bool) -> Step:
        """Have the host enforce what the source delivers, or whatever is the next best.

        Args:
            fetch: whether to ask the source; without, the newest delivery is taken again.
        """
        if fetch or self.definitions.newest is None:
            self.definitions.fetch()
        facts = self._host.facts()
        chosen, refusal = self._choose(facts)
        if chosen is None:
            return self._without_snapshot(facts, refusal)
        delivery, resolution = chosen
        step = replace(
            self._enforce(resolution.policy, facts),
            version=delivery.snapshot.version,
            documents=delivery.documents,
            held_back=self.definitions.held_back,
            problems=refusal or (*delivery.problems, *resolution.problems),
            is_refused=bool(refusal),
            source_error=self.definitions.source_error,
            unknown_objects=resolution.unknown_objects,
        )
        if step.outcome is not StepEnd.REFUSED:
            self._is_closed, self.is_standing = False, False
            self._accept(delivery, facts)
        return step

    def judge(self, delivery: Delivery) -> tuple[Problem, ...]:
        """Return why definitions would be refused on this host as it is; nothing if they would not."""
        resolution = self._resolve(delivery, self._host.facts())
        problems, strict = (*delivery.problems, *resolution.problems), self._settings.enforcement.strict
        return _as_errors(problems, strict=strict) if _is_refused(problems, strict=strict) else ()

    def _choose(self, facts: HostFacts) -> tuple[tuple[Delivery, Resolution] | None, tuple[Problem, ...]]:
        """Return the best enforceable definitions, what they come to, and why newer ones are not enforced."""
        refusal, strict = self.definitions.problems, self._settings.enforcement.strict
        for delivery in self.definitions.candidates():
            resolution = self._resolve(delivery, facts)
            problems = (*delivery.problems, *resolution.problems)
            if not _is_refused(problems, strict=strict):
                return (delivery, resolution), refusal
            refusal = refusal or _as_errors(problems, strict=strict)
        return None, refusal

    def _accept(self, delivery: Delivery, facts: HostFacts) -> None:
        """Have the definitions kept that are in force; what is on trial is expected nowhere."""
        expectations = self._expect()
        if not self.definitions.is_on_trial(delivery):
            expectations.follow(self._bind(delivery.snapshot, facts).bindings, delivery.snapshot)
        self.definitions.accept(delivery, expectations.links, self._measure)

    def _measure(self) -> Extent:
        """Return how large the table is."""
        assert self._enforced is not None  # noqa: S101 - it is asked only once something is
        policy, ruleset = self._enforced.policy, self._enforced.ruleset
        directions = (i.toward(direction) for i in policy.interfaces for direction in Direction)
        return Extent(
            interfaces=len(policy.interfaces),
            rules=sum(len(direction.rules) for direction in directions),
            chains=len(ruleset.chains),
            elements=sum(len(found.elements) for found in ruleset.verdict_maps),
        )

    @property
    def _exemptions(self) -> Exemptions:
        """Return what no group can block: the configuration's lists, and the way to the source (§7.4)."""
        failsafe = (*self._settings.failsafe, *exempt(self._ways.endpoints()))
        return Exemptions(platform=self._settings.platform, failsafe=failsafe)

    def _resolve(self, delivery: Delivery, facts: HostFacts) -> Resolution:
        enforcement = self._settings.enforcement
        found = self._bind(delivery.snapshot, facts)
        return resolve(
            delivery.snapshot,
            bind_expected(found, self._expect().missed, delivery.snapshot, facts),
            self._exemptions,
            default_mode=enforcement.mode,
            unbound_closed=enforcement.unbound_interfaces is UnboundInterfaces.CLOSED,
            memory=self._resolved,
        )

    def _bind(self, snapshot: Snapshot, facts: HostFacts) -> Bindings:
        return bind(snapshot, self._settings.interfaces, facts, automatically=True)

    def _expect(self) -> KnownLinks:
        """Return where network interfaces are expected, at first as an earlier agent left it."""
        if self._expectations is None:
            kept = self.definitions.kept()
            self._expectations = KnownLinks(kept.links if kept else (), self._settings.interfaces)
        return self._expectations

    def _without_snapshot(self, facts: HostFacts, refusal: tuple[Problem, ...]) -> Step:
        """Do what is left to do where no definitions can be enforced; §9.2 says what."""
        step, fetched = self._hold(facts), self.definitions.fetched
        is_as_it_was = step.outcome is StepEnd.WAITING and not step.is_standing and not refusal
        awaits_documents = fetched.is_empty and is_as_it_was
        return replace(
            step,
            held_back=self.definitions.held_back,
            problems=refusal,
            is_refused=bool(refusal),
            source_error=None if awaits_documents else fetched.source_error,
            awaits_documents=awaits_documents,
        )

    def _hold(self, facts: HostFacts) -> Step:
        """Keep in force what is: what this agent enforced, or rules that an earlier one left.

        Without any, a host that never enforced a snapshot is left open, and any other is closed. What was on
        trial is none of that.
        """
        is_going_back = self.definitions.is_going_back
        if self._wanted is not None and not self._is_closed and not is_going_back:
            step, good = self._enforce(self._wanted, facts), self.definitions.good
            if good is None:
                return step
            return replace(step, version=good.snapshot.version, documents=good.documents)
        if not self._settings.enforcement.fail_closed and not self._state.has_enforced():
            if is_going_back:
                return self._open(facts)
            return self._leave_standing(facts)
        closed = self._closed_policy(facts)
        if not self._is_closed and not is_going_back and self._stands_apart_from(closed):
            return self._leave_standing(facts)
        step = self._enforce(closed, facts)
        if step.outcome is not StepEnd.REFUSED:
            self._is_closed, self.is_standing = True, False
            if is_going_back:
                self.definitions.gone_back()
        return replace(step, is_closed=True)

    def _leave_standing(self, facts: HostFacts) -> Step:
        """Leave a table that an earlier agent left as it is, but for the way to the source."""
        step = self._ways.open_in_standing(self._dataplane, facts)
        self.is_standing = step.is_standing
        return step

    def _open(self, facts: HostFacts) -> Step:
        """Leave the host as it was before the definitions that were on trial: without a table."""
        table = self._dataplane.observe().ruleset
        try:
            if table is not None:
                counters, plan = frozenset(table.counter_by_name), plan_without_table(table)
                self._dataplane.apply(plan)
                self._before_counters_go(counters)
                self._dataplane.remove(plan)
                self._counters_gone(counters)
        except (KernelRefusedError, NotPermittedError) as error:
            return Step(outcome=StepEnd.REFUSED, kernel_error=str(error), facts=facts)
        self._enforced, self._settled, self._wanted = None, None, None
        self.definitions.gone_back()
        return Step(outcome=StepEnd.WAITING, counters={}, facts=facts)

    def _stands_apart_from(self, closed: ResolvedPolicy) -> bool:
        """Return whether there is a table, and another than that of a closed host."""
        observed = self._dataplane.observe()
        if observed.ruleset is None:
            return False
        policy = self.overrides.over(closed)
        logging = self._settings.flow_log.logging
        table = close_way(observed.ruleset)
        found = enforce(policy, table, observed.foreign, self._layout, flow_logging=logging)
        return bool(found.plan)

    def _closed_policy(self, facts: HostFacts) -> ResolvedPolicy:
        named = [binding.interface for binding in self._settings.interfaces]
        hardware = [link.name for link in facts.links if link.has_hardware and not link.is_loopback]
        names = named or filter(can_be_matched, hardware)
        mode = self._settings.enforcement.mode
        interfaces = (closed_interface(name, self._exemptions, mode) for name in sorted(set(names)))
        return ResolvedPolicy(interfaces=tuple(interfaces))

    def _enforce(self, policy: ResolvedPolicy, facts: HostFacts) -> Step:
        """Bring the kernel to the policy; where it is known to hold just that, nothing is worked out."""
        wanted, policy = policy, self.overrides.over(policy)
        settled = self._settled
        if settled is not None and settled.policy == policy and not self.has_drifted():
            self._wanted = wanted
            return replace(settled, facts=facts)
        step = self._bring(policy, facts)
        if step.outcome is StepEnd.REFUSED:
            self._settled = None
        else:
            self._wanted = wanted
            self._settled = Step(
                outcome=StepEnd.UNCHANGED, policy=policy, counters=step.counters, uncached=step.uncached
            )
        return step

    def _bring(self, policy: ResolvedPolicy, facts: HostFacts) -> Step:
        """Compile, compare and apply."""
        observed = self._dataplane.observe()
        began = self._clock.monotonic()
        enforcement = enforce(
            policy,
            observed.ruleset,
            observed.foreign,
            self._layout,
            enforced=self._enforced,
            sessions=self._settings.enforcement.sessions,
            flow_logging=self._settings.flow_log.logging,
            memory=self._compiled,
        )
        compiled = self._clock.monotonic()
        differed = self._differences() if self.has_drifted() else ()
        step = Step(
            outcome=StepEnd.UNCHANGED,
            policy=policy,
            counters=enforcement.compiled.counters,
            uncached=tuple(i.name for i in policy.interfaces if enforcement.state.slot(i.name) is None),
            state=enforcement.state,
            was_drift=bool(differed),
            differed=differed,
            is_first_table=observed.ruleset is None,
            facts=facts,
            compile_seconds=compiled - began,
            operations=len(enforcement.plan.operations),
        )
        if enforcement.plan:
            cut = self._sessions_cut(policy, facts, is_first=observed.ruleset is None)
            step = self._apply(enforcement, step, compiled)
            step = step if step.outcome is StepEnd.REFUSED else replace(step, sessions_cut=cut)
        if step.outcome is not StepEnd.REFUSED:
            self._remember(policy, enforcement.compiled.ruleset)
        if step.outcome is StepEnd.APPLIED and enforcement.is_interim:
            return replace(
                self._bring(policy, facts),
                sessions_cut=step.sessions_cut,
                was_drift=step.was_drift,
                differed=step.differed,
            )
        return step

    def _sessions_cut(
        self, policy: ResolvedPolicy, facts: HostFacts, *, is_first: bool
    ) -> tuple[NamedCut, ...]:
        """Name the open sessions that this policy will cut; without a look where it takes nothing away."""
        old = self._policy_in_force
        if old is not None and not may_cut(old, policy, self._compiled):
            return ()
        is_kept = self._settings.enforcement.sessions is Sessions.KEEP and not is_first
        if is_kept and not (old and ends_observing(old, policy)):
            return ()
        return self._foresee(old, policy, facts)

    def _apply(self, enforcement: Enforcement, step: Step, began: float) -> Step:
        """Apply a plan; what the kernel refuses is in the step."""
        plan = enforcement.plan
        going = _deleted_counters(plan.flip)
        if going or self._begins_or_ends_observing(step.policy):
            self._before_counters_go(going)
        try:
            if enforcement.clearance:
                self._dataplane.clear_marks(enforcement.clearance.mask, enforcement.clearance.tests)
            self._dataplane.apply(plan)
        except (KernelRefusedError, NotPermittedError) as error:
            return replace(
                step,
                outcome=StepEnd.REFUSED,
                policy=self._policy_in_force,
                state=None,
                kernel_error=str(error),
            )
        seconds = self._clock.monotonic() - began
        self._counters_gone(going | _made_counters(plan))
        self._remove(plan)
        return replace(step, outcome=StepEnd.APPLIED, apply_seconds=seconds)

    def _remove(self, plan: Plan) -> None:
        """Delete what no packet reaches any more, after its counters were read for the last time.

        The policy is in force by then. Where another process's change prevents the removal, the next step
        finds what is left and removes it.
        """
        going = _deleted_counters(plan.removal)
        if going:
            self._before_counters_go(going)
        with suppress(KernelRefusedError, NotPermittedError):
            self._dataplane.remove(plan)
            if going:
                self._counters_gone(going)

    def _begins_or_ends_observing(self, policy: ResolvedPolicy | None) -> bool:
        """Return whether drops that are counted from now on are carried out where they were not, or not."""
        old = self._policy_in_force
        return old is not None and policy is not None and old.observed != policy.observed

    def _remember(self, policy: ResolvedPolicy, desired: Ruleset) -> None:
        """Keep what is enforced, as the data plane's own value where it agrees: it is compared in no time."""
        observed = self._dataplane.observe().ruleset
        self._enforced = Enforced(policy=policy, ruleset=observed if observed == desired else desired)

    def has_drifted(self) -> bool:
        """Return whether another process changed the table since the last step."""
        if self._enforced is None:
            return False
        observed = self._dataplane.observe()
        return observed.ruleset != self._enforced.ruleset or bool(observed.foreign)

    def _differences(self) -> tuple[str, ...]:
        """Return what another process changed since the last step."""
        if self._enforced is None:
            return ()
        observed = self._dataplane.observe()
        return differences(self._enforced.ruleset, observed.ruleset, observed.foreign)

    @property
    def _policy_in_force(self) -> ResolvedPolicy | None:
        return self._enforced.policy if self._enforced else None


def _deleted_counters(operations: tuple[Operation, ...]) -> frozenset[str]:
    return frozenset(o.name for o in operations if isinstance(o, DeleteCounter))


def _made_counters(plan: Plan) -> frozenset[str]:
    return frozenset(o.counter.name for o in plan.operations if isinstance(o, AddCounter))


def _is_refused(problems: tuple[Problem, ...], *, strict: bool) -> bool:
    """Return whether definitions are not enforced. That a bound link is a port is not their fault (§9.4)."""
    of_definitions = [problem for problem in problems if problem.code != PORT_OF_MASTER]
    return bool(of_definitions) if strict else any(p.severity is Severity.ERROR for p in of_definitions)


def _as_errors(problems: tuple[Problem, ...], *, strict: bool) -> tuple[Problem, ...]:
    return tuple(replace(p, severity=Severity.ERROR) for p in problems) if strict else problems
