"""The agent's status as one immutable value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sgagent.agent.manual_override import ManualOverride
from sgagent.agent.names.name_table import NameStatus
from sgagent.agent.posture import BOUND_STATES, Drift, InterfaceState, InterfaceStatus, Posture
from sgagent.agent.step import (
    Step,
    StepEnd,
    bound_links,
    lower_devices,
    ports_of_masters,
    unenforceable_links,
)
from sgagent.agent.timed_rules import ExpiringRule, RecurringRule, expiring_rules, recurring_rules
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.core.errors import Severity
from sgagent.core.link_topology import FindingCode, findings
from sgagent.core.lockout import NamedCut, SessionKind
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolved_rules import OF_UNKNOWN_OBJECTS
from sgagent.verify import Outcome

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of durations in seconds, each included; the last bucket has none."""

MOST_ERRORS_SHOWN = 5
"""Of a refused delivery, in the status; the log has more."""

MOST_EXPIRING_SHOWN = 10
MOST_WARNINGS_SHOWN = 5
"""Of what is enforced all the same, in the status; the log has more."""

MOST_MISSING_SHOWN = 5
"""Of the links that should be bound and are not, in the status."""

MOST_CUTS_SHOWN = 5
"""Of the sessions that a change cut, in the status; the log has more."""

_COUNTED_OUTCOMES = (StepEnd.APPLIED, StepEnd.UNCHANGED, StepEnd.REFUSED)
"""Of steps that compared the kernel with a policy."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, each time that it was done."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    """By bucket; not cumulative."""

    sum_seconds: float = 0.0

    def with_one(self, seconds: float) -> Durations:
        """Return these durations and one more."""
        bucket = sum(bound < seconds for bound in BOUNDS)
        counts = (*self.counts[:bucket], self.counts[bucket] + 1, *self.counts[bucket + 1 :])
        return Durations(counts, self.sum_seconds + seconds)


@dataclass(frozen=True, slots=True)
class Resets:
    """Resets of the kernel's counters by other processes, since the agent started."""

    count: int = 0
    """Of readings that showed any; between two there may have been several."""

    last_at: float | None = None
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """The result of a proof."""

    outcome: Outcome
    version: str | None = None
    """The snapshot that the proof is of; None where it was of no snapshot (§9.2)."""

    generation: int | None
    """Of the policy in the marks of sessions; None where none are remembered."""

    seconds: float
    at: float
    """Seconds since the epoch."""

    cells: int = 0
    unsupported: tuple[str, ...] = ()
    """Why the outcome is unknown."""

    counterexample: dict[str, Any] | None = None
    """As ``sgagent verify --json`` prints it."""

    description: tuple[str, ...] = ()
    """The same in words, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The agent's state; None where it is not known yet."""

    step: Step = field(default_factory=lambda: Step(outcome=StepEnd.WAITING))
    """The report of the last step."""

    posture: Posture = Posture.NOTHING
    posture_since: float | None = None
    """When this agent began to be in that posture; None before its first step."""

    snapshot_version: str | None = None
    """Of what is enforced."""

    snapshot_since: float | None = None
    """When this agent enforced that version first; seconds since the epoch."""

    last_success_at: float | None = None
    """When all was well last: the source delivered, and the kernel holds what it delivered."""

    is_source_up: bool | None = None
    source_reached_at: float | None = None
    """When the source could be reached last."""

    errors: int = 0
    """In the newest delivery."""

    first_errors: tuple[str, ...] = ()
    """In words, safe to print."""

    is_drift_unhealed: bool = False
    """Whether another process changed the table and the agent could not repair it."""

    source_errors: int = 0
    """Fetches that delivered nothing that can be enforced."""

    outcomes: Mapping[StepEnd, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED_OUTCOMES, 0))
    """Steps, by how they ended."""

    apply_durations: Durations = field(default_factory=Durations)
    compile_durations: Durations = field(default_factory=Durations)
    drift_repaired: int = 0
    last_drift: Drift | None = None
    is_drift_contested: bool = False
    """Whether another process changes the table so often that repairs are delayed."""

    unknown_objects: int | None = None
    warnings: int | None = None
    first_warnings: tuple[str, ...] = ()
    """In words, safe to print; those about objects that nobody knows come first."""

    interfaces: tuple[InterfaceStatus, ...] = ()
    """Sorted by name."""

    expiring: tuple[ExpiringRule, ...] = ()
    """The rules in force that will end, the one that ends first at the front."""

    recurring: tuple[RecurringRule, ...] = ()
    """The rules that have hours, sorted by group and id."""

    names: tuple[NameStatus, ...] = ()
    """Of rules in force, sorted (§12.3)."""

    dns_failures: int = 0
    """Look-ups that failed since the agent started."""

    sessions_cut: Mapping[SessionKind, int] = field(default_factory=lambda: dict.fromkeys(SessionKind, 0))
    """Open sessions that changes of the policy cut since the agent started, of those that were looked at."""

    guardrail_refusals: Mapping[str, int] = field(default_factory=dict)
    """Versions that were refused for a guardrail since the agent started, by its id."""

    last_cut: tuple[NamedCut, ...] = ()
    """Those that the newest change that cut any has cut."""

    last_cut_at: float | None = None

    manual_override: ManualOverride = field(default_factory=ManualOverride)
    """The definitions and modes that were set by hand."""

    verified: ProofReport | None = None
    """The report of the proof of the table in force; None until that was proved."""

    verify_durations: Durations = field(default_factory=Durations)
    resets: Resets = field(default_factory=Resets)
    """Of the kernel's counters by other processes."""

    diagnosis: Diagnosis | None = None
    """The doctor's newest findings; None before its first look."""

    @property
    def bound_links(self) -> int | None:
        """Return how many links of this host are bound; None where no definitions are in force."""
        if self.posture not in (Posture.ENFORCING, Posture.OBSERVING, Posture.IDLE):
            return None
        return sum(one.state in BOUND_STATES for one in self.interfaces)

    @property
    def is_well(self) -> bool:
        """Return whether verdicts follow the newest definitions, and nobody changes the table."""
        is_in_step = not self.step.is_refused and self.step.kernel_error is None
        is_alone = not (self.is_drift_unhealed or self.is_drift_contested)
        is_judging = self.posture in (Posture.ENFORCING, Posture.OBSERVING)
        return is_judging and is_in_step and is_alone and self.is_source_up is not False


def status_after(
    status: Status, step: Step, *, is_fetched: bool, now: float, verified: ProofReport | None = None
) -> Status:
    """Return the status after a step.

    Args:
        status: the one before.
        step: what the step found and did.
        is_fetched: whether the step asked the source.
        now: seconds since the epoch.
        verified: what the proof of the table came to that the step left; None if it has yet to be proved.
    """
    is_judged = step.outcome in _COUNTED_OUTCOMES
    has_failed = step.is_refused or step.source_error is not None
    is_in_force = is_judged and step.outcome is not StepEnd.REFUSED
    is_held = step.held_back is not None or step.held_change is not None
    is_well = is_in_force and not has_failed and not step.is_closed and not is_held
    version = (step.version if is_in_force else None) or status.snapshot_version
    warnings = [problem for problem in step.problems if problem.severity is Severity.WARNING]
    warnings.sort(key=lambda problem: problem.code not in OF_UNKNOWN_OBJECTS)
    errors = [problem for problem in step.problems if problem.severity is Severity.ERROR]
    posture = posture_of(step)
    is_reached = is_fetched and step.source_error is None
    is_posture_old = posture is status.posture and status.posture_since is not None
    outcomes, cuts = Counter(status.outcomes), Counter(status.sessions_cut)
    outcomes.update([step.outcome] if is_judged else ())
    refusals = Counter(status.guardrail_refusals)
    refusals.update(id_ for _, id_ in step.guardrails.refusing - status.step.guardrails.refusing)
    cuts.update(one.kind for one in step.sessions_cut)
    is_same = step.policy is status.step.policy
    drift = Drift(at=now, **asdict(step.tamperer), differed=step.differed)
    return replace(
        status,
        step=step,
        posture=posture,
        posture_since=status.posture_since if is_posture_old else now,
        source_reached_at=now if is_reached else status.source_reached_at,
        errors=len(errors),
        first_errors=tuple(map(str, errors[:MOST_ERRORS_SHOWN])),
        is_drift_unhealed=step.was_drift and step.outcome is StepEnd.REFUSED,
        snapshot_version=version,
        snapshot_since=status.snapshot_since if version == status.snapshot_version else now,
        last_success_at=now if is_well else status.last_success_at,
        is_source_up=step.source_error is None if is_fetched else status.is_source_up,
        source_errors=status.source_errors + (is_fetched and has_failed),
        outcomes=outcomes,
        apply_durations=_timed(status.apply_durations, step.apply_seconds),
        compile_durations=_timed(status.compile_durations, step.compile_seconds),
        last_drift=drift if step.was_drift else status.last_drift,
        drift_repaired=status.drift_repaired + (step.was_drift and step.outcome is StepEnd.APPLIED),
        unknown_objects=step.unknown_objects if is_judged else status.unknown_objects,
        warnings=len(warnings),
        first_warnings=tuple(map(str, warnings[:MOST_WARNINGS_SHOWN])),
        interfaces=tuple(_interfaces(step)),
        expiring=status.expiring if is_same else expiring_rules(step.policy),
        recurring=status.recurring if is_same else recurring_rules(step.policy),
        sessions_cut=cuts,
        guardrail_refusals=refusals,
        last_cut=step.sessions_cut or status.last_cut,
        last_cut_at=now if step.sessions_cut else status.last_cut_at,
        verified=verified,
    )


def posture_of(step: Step) -> Posture:
    """Return how the agent treats traffic after a step."""
    if step.is_standing:
        return Posture.STANDING
    if step.policy is None or step.outcome is StepEnd.WAITING:
        return Posture.NOTHING
    if step.is_closed:
        return Posture.CLOSED
    policy, ports = step.policy, ports_of_masters(step)
    judging = (interface for interface in policy.bound if interface.name not in ports)
    modes = {judge.mode for judge in (*judging, policy.unbound) if judge is not None}
    if not modes:
        return Posture.IDLE
    return Posture.ENFORCING if Mode.ENFORCE in modes else Posture.OBSERVING


def _timed(durations: Durations, seconds: float) -> Durations:
    """Return the durations with one more, if it was done at all."""
    return durations.with_one(seconds) if seconds > 0 else durations


def _interfaces(step: Step) -> Iterator[InterfaceStatus]:
    """Return the state of each link that there is or should be, loopback apart, in the order of names.

    A pattern, whose name counters have, is there if a link is that it means.
    """
    policy = step.policy or ResolvedPolicy()
    named = {judge.name: judge for judge in policy.bound}
    links = {link.name: policy.judge(link.name) for link in step.facts.links if not link.is_loopback}
    present = links.keys() | {judge.name for judge in links.values() if judge}
    ports, lower, faults = ports_of_masters(step), lower_devices(step), unenforceable_links(step)
    found = findings(step.facts, named.keys() | bound_links(step))
    above = {one.link: one.other for one in found if one.code is FindingCode.LINK_ABOVE}
    bridged = {one.link: one.message for one in found if one.code is FindingCode.BRIDGED_FRAMES}
    for name in sorted(named.keys() | links.keys()):
        interface = named.get(name) or links[name]
        if interface is None:
            yield InterfaceStatus(
                name=name,
                network_interface_id=None,
                state=InterfaceState.UNBOUND,
                mode=None,
                above=above.get(name),
            )
            continue
        is_bound = interface.name in named
        if name not in present:
            state = InterfaceState.ABSENT
        elif name in ports:
            state = InterfaceState.PORT
        elif name in lower:
            state = InterfaceState.LOWER_DEVICE
        elif step.is_closed or not is_bound:
            state = InterfaceState.CLOSED
        elif name in faults:
            state = InterfaceState.UNENFORCEABLE
        elif interface.security_group_ids:
            state = InterfaceState.BOUND
        else:
            state = InterfaceState.WITHOUT_GROUPS
        yield InterfaceStatus(
            name=name,
            network_interface_id=interface.network_interface_id,
            state=state,
            mode=None if name in ports else interface.mode,
            security_group_ids=interface.security_group_ids,
            is_judged_at_every_packet=interface.name in step.uncached or not is_bound,
            port_of=ports.get(name) or lower.get(name),
            fault=faults.get(name) if state is InterfaceState.UNENFORCEABLE else None,
            bridged_frames=bridged.get(name) if state in BOUND_STATES else None,
        )
