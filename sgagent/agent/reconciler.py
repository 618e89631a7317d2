"""The reconciler: one step that brings the kernel to the definitions, whatever state it finds.

It asks the ports for the inputs, has the :class:`sgagent.agent.planner.Planner` decide, carries the decision
out, and replaces its state once the step is done. A step that fails, or that the kernel refuses, leaves the
state as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from sgagent.agent.clock import LatestTime
from sgagent.agent.definitions import Definitions, Fetched, KnownLinks, parse_delivery, written_key
from sgagent.agent.guardrails import GuardrailWatch
from sgagent.agent.inbox import StoppedError, StopRequest
from sgagent.agent.lockout_hold import HeldChange, LockoutHold
from sgagent.agent.manual_override import ModeFile, TrialFile
from sgagent.agent.names.resolver import NameWatch
from sgagent.agent.planner import AgentState, KernelChange, Planner, StepDecision, StepInputs, StepTarget
from sgagent.agent.state.directory import StateDirectory, fault_of, write_durably
from sgagent.agent.state.tables import BootFallback, StandingTable
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import HostFacts
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import KernelRefusedError, NotPermittedError, Problem, SgagentError
from sgagent.core.lockout import NamedCut
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.nft.ruleset import Ruleset
from sgagent.ports import Clock, Dataplane, Delivery, GuardrailSource, Host, Source
from sgagent.settings import Settings
from sgagent.sources.verified_parse import encode_signature, signature_file

PreviewCuts = Callable[[ResolvedPolicy | None, ResolvedPolicy, HostFacts], tuple[NamedCut, ...]]
"""Names the open sessions that live by the one policy, if it is known, and will not by the other."""


@dataclass(eq=False, kw_only=True)
class Reconciler:
    """Carry out steps; nothing is changed before the first."""

    settings: Settings
    source: Source
    host: Host
    dataplane: Dataplane
    directory: StateDirectory
    """Holds the last good definitions, and what else has to survive a restart."""

    clock: Clock
    before_counters_go: Callable[[frozenset[str]], None]
    """Reads the counters. It is called with the names of those that are about to be deleted, and when an
    interface is about to change its mode."""

    counters_gone: Callable[[frozenset[str]], None]
    """Called with the names of deleted and created counters. They start at zero, also those that another
    process deleted before."""

    preview_cuts: PreviewCuts
    before_enforcing: Callable[[Snapshot], None] = lambda _: None
    """Called with the definitions that a step is about to enforce, whose size says how long it may take."""

    before_change: Callable[[], None] = lambda: None
    """Called when the table is about to change."""

    name_servers: Callable[[], tuple[Endpoint, ...]] = tuple
    """Returns the host's name servers; empty if the source's address is not a host name."""

    lockout_hold: LockoutHold | None = None
    """Lets versions of the source wait that would cut a login; without, none waits."""

    left_table: StandingTable | None = None
    """An earlier agent's table in the kernel, which nobody has changed since; without, it is listed."""

    name_watch: NameWatch | None = None
    """Keeps names resolved; without, the step takes what an earlier agent kept, and asks nobody."""

    stop: StopRequest = field(default_factory=StopRequest)
    """Ends each wait for the source."""

    guardrail_source: GuardrailSource | None = None
    """Where statements come from that no definitions may break; without, there are none."""

    def __post_init__(self) -> None:
        """Read the state that an earlier agent left."""
        directory = self.directory.directory
        self.guardrails = GuardrailWatch(
            self.guardrail_source, str(self.settings.guardrails.path or ""), directory
        )
        self._planner = Planner(self.settings)
        self._modes = ModeFile(directory)
        self.trial_file = TrialFile(directory)
        self.fetched = Fetched()
        """The source's last answer, whatever the result of the step was that asked it."""

        self._is_changing = False
        """Whether the last step began to change the table, and did not come to its end."""

        self._is_interim_left = False
        """Whether the kernel refused a table in whose place the interim one of this step stays."""

        kept, self._damage = self.directory.load()
        links = KnownLinks.left(kept.links if kept else (), self.settings.interfaces)
        self.state = AgentState(definitions=Definitions.left(kept), known_links=links)
        self._latest_time = LatestTime(directory, self.clock, is_kept=self.directory.is_changed)
        known = LatestTime(directory, self.clock, is_kept=False)
        self.names = self.name_watch or NameWatch(self.settings, self.clock, known.now())
        self.overrides, damage = self._modes.load()
        self._damage = (*self._damage, *filter(None, (damage,)))
        self._kept_modes = self.overrides
        """Without the modes on trial."""

        self.mode_fault: str | None = None
        """Why these are not saved."""

        self._fallback = BootFallback(self.directory)

    def step(self, *, fetch: bool) -> Step:
        """Have the host enforce the source's delivery, or whatever is the next best.

        Args:
            fetch: whether to ask the source; without, the newest delivery is taken again.

        Raises:
            SgagentError: the step could not be done; the state is what it was.
        """
        if fetch or self.fetched.newest is None:
            try:
                with self.stop.ends_wait():
                    self.fetched = self.fetched.again(self.source)
            except StoppedError:
                stopped = "a signal to stop ended the wait for the source"
                self.fetched = Fetched(newest=self.fetched.newest, source_error=stopped)
        self._is_interim_left = False
        inputs = self._inputs(self.state.definitions)
        target = self._choose(inputs)
        if target.delivery is not None:
            self.before_enforcing(target.delivery.snapshot)
        else:
            # What was kept may have turned out to be damaged, so the name servers may be let through now.
            endpoints = self._source_endpoints(target.definitions)
            inputs = replace(inputs, has_enforced=self.directory.has_enforced(), source_endpoints=endpoints)
        if target.resolution is not None:
            self.names.want(target.resolution.dns_names)
        if target.resolution is None or target.resolution.depends_on_time:
            self._latest_time.keep()  # before a rule goes that would come back if the time did
        step, state = self._bring(self.state, inputs, target)
        if step.outcome is not StepEnd.REFUSED:
            state = self._store(state, target)
        elif target.damage:
            state = replace(state, definitions=state.definitions.damaged(target.damage))
        self.state, self._is_changing = state, self._is_interim_left
        return replace(self._with_held_change(step), parts=self.fetched.parts)

    def _choose(self, inputs: StepInputs) -> StepTarget:
        """Return the target of the step; a version that would cut a login has to wait (§7.4)."""
        nothing_waits = replace(self.state, definitions=replace(self.state.definitions, waiting=None))
        target, hold = self._planner.choose(nothing_waits, inputs), self.lockout_hold
        if hold is None or not hold.is_on:
            return target
        delivery, resolution = target.delivery, target.resolution
        if delivery is None or resolution is None or not target.definitions.is_new_from_source(delivery):
            hold.follow(target.definitions)
            return target
        definitions = replace(self.state.definitions, waiting=delivery.snapshot.version)
        instead = self._planner.choose(replace(self.state, definitions=definitions), inputs)
        if instead.delivery is None and (
            self.settings.enforcement.fail_closed or self.directory.has_enforced()
        ):
            hold.forget()  # a closed host would cut the login as well
            return target
        old, new = instead.resolution, self.overrides.over(resolution.policy)
        stays = self.overrides.over(old.policy) if old else None
        return instead if hold.has_to_wait(delivery.snapshot.version, stays, new, inputs.facts) else target

    def _with_held_change(self, step: Step) -> Step:
        """Return a report with the version that waits."""
        held = self.held_delivery
        if held is None:
            return step
        return replace(step, held_change=self.held_change, held_documents=held.documents)

    @property
    def held_change(self) -> HeldChange | None:
        """Return the version that waits now, as it would cut a login."""
        return self.lockout_hold.held if self.lockout_hold and self.state.definitions.waiting else None

    @property
    def held_delivery(self) -> Delivery | None:
        """Return the definitions that wait now."""
        return self.fetched.newest if self.held_change else None

    def _inputs(self, definitions: Definitions) -> StepInputs:
        """Ask the ports for a step's inputs, except the table."""
        try:
            facts = self.host.facts()
        except OSError as error:
            raise SgagentError(f"links and addresses can't be listed: {error}") from error
        return StepInputs(
            fetched=self.fetched,
            facts=facts,
            names=self.names.resolved(facts),
            name_servers=self.names.endpoints(),
            source_endpoints=self._source_endpoints(definitions),
            overrides=self.overrides,
            guardrails=self.guardrails.read(),
            now=self.clock.now(),
            latest=self._latest_time.now(),
            is_table_known=not self._is_changing,
        )

    def _source_endpoints(self, definitions: Definitions) -> tuple[Endpoint, ...]:
        """Return the endpoints of the way to the source (§7.4).

        The name servers are let through only as long as there are no definitions at all: without them an
        agent whose source has another address by now would never get any.
        """
        is_empty = replace(definitions, fetched=self.fetched).is_empty
        is_lost = self.fetched.source_error is not None and is_empty
        return (*self.source.endpoints(), *(self.name_servers() if is_lost else ()))

    def _bring(
        self, state: AgentState, inputs: StepInputs, target: StepTarget, *, is_second: bool = False
    ) -> tuple[Step, AgentState]:
        """Bring the kernel to the target; return the report, and the state after it."""
        self._recognize(inputs, target)
        observed, began = self.dataplane.observe(), self.clock.monotonic()
        decision = self._planner.decide(state, inputs, target, observed)
        step, state = self._carry_out(decision, inputs.facts, began)
        is_interim = state.in_force is not None and state.in_force.is_interim
        if is_second or not is_interim or step.outcome is not StepEnd.APPLIED:
            return step, state
        last, state = self._bring(state, inputs, target, is_second=True)
        self._is_interim_left = last.outcome is StepEnd.REFUSED
        last = replace(  # the second change found the agent's own table
            last,
            may_cut=step.may_cut or last.may_cut,
            sessions_cut=step.sessions_cut,
            was_drift=step.was_drift,
            differed=step.differed,
            is_first_table=step.is_first_table,
            is_interim=self._is_interim_left,
        )
        return last, state

    def _recognize(self, inputs: StepInputs, target: StepTarget) -> None:
        """Take the table that an earlier agent left for the target's, if it equals that.

        Only in the first step.
        """
        kept, self.left_table = self.left_table, None
        if kept is None or target.resolution is None:
            return
        policy = inputs.overrides.over(target.resolution.policy)
        ruleset = kept.compiled(policy, self.settings, self._planner.compiled)
        if ruleset is not None and kept.is_of(ruleset):
            self.dataplane.recognize(ruleset)

    @property
    def settled_table(self) -> Ruleset | None:
        """Return the table that this agent put into the kernel; None where a further step has to follow."""
        in_force = self.state.in_force
        if in_force is None or in_force.is_interim or self._is_changing:
            return None
        return in_force.enforced.ruleset

    def _carry_out(self, decision: StepDecision, facts: HostFacts, began: float) -> tuple[Step, AgentState]:
        """Carry the decision out; a refusal of the kernel is in the report."""
        compiled = self.clock.monotonic()
        step, state, change = decision.step, decision.state, decision.change
        if decision.is_compiled:
            step = replace(step, compile_seconds=compiled - began)
        if change is not None:
            cut = self.preview_cuts(*change.preview, facts) if change.preview else ()
            error = self._apply(change)
            applied = self.clock.monotonic()
            error = error or self._remove(change)
            if error is not None and decision.refused is not None:
                step = replace(decision.refused, compile_seconds=step.compile_seconds, kernel_error=error)
                return step, self.state if step.outcome is StepEnd.REFUSED else state
            if decision.is_compiled:
                may_cut = change.preview is not None
                step = replace(step, apply_seconds=applied - compiled, may_cut=may_cut, sessions_cut=cut)
        if decision.is_compiled and state.in_force is not None:
            self.dataplane.share(state.in_force.enforced.ruleset)
        return step, state

    def _apply(self, change: KernelChange) -> str | None:
        """Change verdicts, and return why the kernel refused, if it did."""
        if change.leaving or change.is_observing_changed:
            self.before_counters_go(change.leaving)
        try:
            if change.clearance:
                self.dataplane.clear_marks(change.clearance.mask, change.clearance.tests)
            self._is_changing = True
            self.before_change()
            self.dataplane.apply(change.plan)
        except (KernelRefusedError, NotPermittedError) as error:
            return str(error)
        if change.at_zero:
            self.counters_gone(change.at_zero)
        return None

    def _remove(self, change: KernelChange) -> str | None:
        """Delete the chains that no packet reaches any more, after reading their counters for the last time.

        The policy is in force by then. Where another process's changes prevent reading or removal, the next
        step finds what is left and removes it.
        """
        try:
            if change.removed:
                self.before_counters_go(change.removed)
            self.dataplane.remove(change.plan)
        except (KernelRefusedError, NotPermittedError) as error:
            return str(error) if change.is_removal_needed else None
        if change.removed:
            self.counters_gone(change.removed)
        return None

    def _store(self, state: AgentState, target: StepTarget) -> AgentState:
        """Write down which definitions are in force, and return the state with the result of writing."""
        definitions = state.definitions
        if target.delivery is not None and not definitions.is_trial_in_force:
            definitions = self._write_signatures(self._write(state))
            definitions = replace(definitions, is_going_back=False)
        is_trial_left = self.state.definitions.is_going_back or definitions.trial_fault
        if is_trial_left and not definitions.is_going_back and definitions.proposal is None:
            definitions = self.trial_file.forgotten(definitions)
        state = replace(state, definitions=definitions)
        if self.mode_fault:
            self._save_modes()
        self._keep_fallback(state)
        return state

    def _keep_fallback(self, state: AgentState) -> None:
        """Have the boot's fallback follow the policy that a boot would enforce: nothing that is on trial."""
        if state.in_force is not None and not state.definitions.is_trial_in_force:
            self._fallback.follow(self._kept_modes.over(state.in_force.wanted))

    def _write(self, state: AgentState) -> Definitions:
        """Add the definitions in force to the history, unless they are its newest ones."""
        definitions = state.definitions
        kept = definitions.to_write(state.known_links.links)
        if kept is None:
            return replace(definitions, store_fault=None)
        if state.in_force is None:
            return definitions
        kept = replace(kept, record=replace(kept.record, extent=state.in_force.extent))
        complaint = "the enforced definitions could not be saved"
        if fault := fault_of(partial(self.directory.keep, kept), complaint):
            return replace(definitions, store_fault=fault)
        return replace(
            definitions, record=kept.record, written=written_key(kept), store_fault=None, damage=()
        )

    def _write_signatures(self, definitions: Definitions) -> Definitions:
        """Keep the signatures of the definitions in force, so that nothing older takes their place."""
        stored, faults = dict(definitions.signatures), list[str]()
        for part in definitions.good.all_parts if definitions.good else ():
            if part.signed is None or part.signed == stored.get(part.place):
                continue
            path = signature_file(self.directory.directory, part.place or None)
            write = partial(write_durably, path, encode_signature(part.signed))
            of_part = f" of {part.place}" if part.place else ""
            if fault := fault_of(write, f"the signature{of_part} could not be saved"):
                faults.append(fault)
            else:
                stored[part.place] = part.signed
        return replace(definitions, signatures=stored, signature_fault="; ".join(faults) or None)

    @property
    def definitions(self) -> Definitions:
        """Return the definitions that may be enforced, and those that are."""
        return self.state.definitions

    def parse(self, documents: tuple[DocumentFile, ...], version: str | None = None) -> Delivery:
        """Return documents as a source would deliver them.

        Raises:
            DocumentError: they have errors, also as another version or other limits see them.
        """
        return parse_delivery(documents, self.settings.limits, version)

    def replace_definitions(self, definitions: Definitions) -> None:
        """Let a command change which definitions may be enforced, between two steps."""
        self.state = replace(self.state, definitions=definitions)

    @property
    def state_faults(self) -> tuple[str, ...]:
        """Return the faults of the kept state, and those that it had at the start.

        Damage stays known although the agent writes the files anew: what they held is lost.
        """
        of_hold = self.lockout_hold.fault if self.lockout_hold else None
        of_others = (of_hold, self._fallback.fault, self.guardrails.fault)
        others = (self._latest_time.fault, self.mode_fault, self.names.fault, *of_others)
        return (*self._damage, *self.definitions.faults, *(fault for fault in others if fault))

    def latest_time(self) -> datetime:
        """Return the latest time that this host has known."""
        return self._latest_time.now()

    def interface_names(self) -> frozenset[str]:
        """Return every interface that is judged, there, or named by the configuration."""
        policy = self.state.in_force.wanted if self.state.in_force else ResolvedPolicy()
        there = (link.name for link in self.host.facts().links if not link.is_loopback)
        by_hand = (binding.interface for binding in self.settings.interfaces)
        return frozenset((*(judge.name for judge in policy.judges), *there, *by_hand))

    def keep_modes(self) -> None:
        """Keep the overrides that hold now; that they could not be kept is a fault."""
        self._kept_modes = self.overrides
        self._save_modes()
        self._keep_fallback(self.state)

    def _save_modes(self) -> None:
        self.mode_fault = fault_of(
            partial(self._modes.save, self._kept_modes), "the modes could not be saved"
        )

    def refusal_of(self, delivery: Delivery) -> tuple[Problem, ...]:
        """Return why definitions would be refused on this host as it is; nothing if they would not."""
        return self._planner.refusal_of(self.state, self._inputs(self.state.definitions), delivery)

    def has_drifted(self) -> bool:
        """Return whether the table is another one than the last step left, or than it should have left."""
        in_force = self.state.in_force
        if in_force is None:  # of rules that an earlier agent left, only that they are there is known
            return self.state.is_standing and self.dataplane.observe().ruleset is None
        return in_force.is_interim or in_force.differs_from(self.dataplane.observe())
