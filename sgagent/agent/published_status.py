"""The published status, which other threads may read of the daemon: its policy, totals, and their trends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import nlargest
from operator import itemgetter
from types import MappingProxyType
from typing import Protocol

from sgagent.agent.entry_sweep import EntrySweep, SweepReport
from sgagent.agent.flowlog.flowlog import FlowLog
from sgagent.agent.log import LogQueue
from sgagent.agent.manual_override import ManualOverride
from sgagent.agent.names.name_table import NameStatus
from sgagent.agent.posture import InterfaceState, Posture
from sgagent.agent.state.counter_file import Times, Totals
from sgagent.agent.status import Durations, ProofReport, Resets, Status, status_after
from sgagent.agent.step import Step, StepEnd
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.core.counter_keys import CounterKey, InvalidCounter, ObservedDropCounter, is_of_drops
from sgagent.core.model import Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.nft.marks import UNCACHED
from sgagent.ports import Clock

STEP_SECONDS = 60.0
"""Between two readings."""

MOST_STEPS = 60
"""That are remembered."""

MOST_KEYS = 2_000
"""Counters of which a step remembers something: those that grew most. The others are not drawn."""

_NOTHING: Mapping[CounterKey, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trend:
    """The hits in each of the last minutes, the oldest first. A counter that did not grow takes no room."""

    steps: tuple[Mapping[CounterKey, int], ...] = ()
    _totals: Totals = field(default_factory=dict)
    """At the end of the newest step."""

    _read_at: float | None = None
    """By the monotonic clock."""

    def after(self, totals: Totals, now: float) -> Trend:
        """Return the trend after a reading; the same unless a step has passed.

        Args:
            totals: what was counted. What is new among it begins with this reading.
            now: seconds that never go back.
        """
        if self._read_at is None:
            return Trend((), totals, now)
        passed = int((now - self._read_at) // STEP_SECONDS)
        if passed < 1:
            return self
        missed = (_NOTHING,) * min(passed - 1, MOST_STEPS)
        most = nlargest(MOST_KEYS, _growths(self._totals, totals), key=itemgetter(1))
        steps = (*self.steps, *missed, MappingProxyType(dict(most)))[-MOST_STEPS:]
        return Trend(steps, totals, self._read_at + passed * STEP_SECONDS)

    def packets(self, key: CounterKey) -> tuple[int, ...]:
        """Return a counter's packets in each step."""
        return tuple(step.get(key, 0) for step in self.steps)


def _growths(before: Totals, totals: Totals) -> Iterator[tuple[CounterKey, int]]:
    """Yield how many packets were counted between two readings, for each key that was in both and grew."""
    for key, total in totals.items():
        earlier = before.get(key, total)
        if earlier is not total and total.packets > earlier.packets:
            yield key, total.packets - earlier.packets


SAMPLE_SECONDS = 10.0
"""Between two samples."""

MOST_SAMPLES = 360
"""That are remembered: an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The packets counted in ten seconds, and the agent's state at their end."""

    dropped: int = 0
    """Packets, also those of observed interfaces, which passed."""

    would_drop: int = 0
    """Of these, the packets of observed interfaces."""

    judged: int = 0
    """Sessions that something decided: accepted ones, and each dropped packet."""

    is_well: bool = False
    enforced: int = 0
    """Interfaces on which verdicts are carried out."""

    warnings: int = 0
    policy_age: float = 0.0
    """Seconds since the agent enforced the snapshot first; 0 without one."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of the last hour, the oldest first."""

    taken: tuple[Sample, ...] = ()
    _totals: Totals = field(default_factory=dict)
    """At the newest sample."""

    _taken_at: float | None = None
    """By the monotonic clock."""

    def after(self, totals: Totals, state: Sample, now: float) -> Samples:
        """Return the samples after a reading; the same unless a sample is due.

        Args:
            totals: what was counted. What is new among it begins with this reading.
            state: how the agent is doing; its counts are not used.
            now: seconds that never go back.
        """
        if self._taken_at is None:
            return Samples((), totals, now)
        if now - self._taken_at < SAMPLE_SECONDS:
            return self
        missed = min(int((now - self._taken_at) // SAMPLE_SECONDS) - 1, MOST_SAMPLES)
        gap = (replace(state, is_well=False),) * missed
        dropped = would_drop = judged = 0
        for key, growth in _growths(self._totals, totals):
            if isinstance(key, ObservedDropCounter):
                would_drop += growth
            else:
                dropped += growth * is_of_drops(key)
                judged += growth * (not isinstance(key, InvalidCounter))
        sample = replace(state, dropped=dropped, would_drop=would_drop, judged=judged)
        taken = (*self.taken, *gap, sample)[-MOST_SAMPLES:]
        return Samples(taken, totals, self._taken_at + (missed + 1) * SAMPLE_SECONDS)


LONGEST_WAIT_SECONDS = 1.0
"""For a reading of the counters that a scrape asks for; after that it gets the one before."""

_NO_TIMES: Times = MappingProxyType({})

LONGEST_TURN_SECONDS = 30.0
"""For one turn of the main loop. To enforce the largest policies for the first time takes seconds."""

STALE_SECONDS = 300.0
"""After which the definitions of an unreachable source count as too old."""

_WITHOUT_POLICY = {
    Posture.NOTHING: "nothing is enforced",
    Posture.IDLE: "nothing is enforced, as no interface of this host is bound",
    Posture.CLOSED: "no policy loaded; the host is closed",
    Posture.STANDING: "no policy loaded; the previous run's rules stay active",
}
"""Postures in which no definitions are enforced."""


class Serving(Protocol):
    """Serves the published status."""

    @property
    def fault(self) -> str | None:
        """Return why nothing is served; None if it is."""


@dataclass(eq=False)
class PublishedStatus:
    """Let the loop write, and anybody read; each value is replaced whole."""

    clock: Clock
    ask_for_reading: Callable[[float], bool]
    """Has the loop read the counters, and waits for so many seconds until it has."""

    flow_log: FlowLog | None = None
    """Who was dropped lately; None if it is switched off. May be read from any thread."""

    log_queue: LogQueue | None = None
    """Counts lines of the agent's own log that were dropped. May be read from any thread."""

    is_verifying: bool = True
    """Whether each change is proved."""

    serving: Serving | None = None
    """Who serves the metrics. May be read from any thread."""

    sweep: EntrySweep | None = None
    """Ends entries of conntrack; None where sessions are kept."""

    @property
    def swept(self) -> SweepReport:
        """Return the report of the sweeps of conntrack's entries."""
        return self.sweep.report if self.sweep is not None else SweepReport()

    def __post_init__(self) -> None:
        """Start with nothing known."""
        self.status = Status()
        """How the agent is doing."""

        self.policy = ResolvedPolicy()
        """The policy in force, as far as the agent knows; one of nothing where none is."""

        self.state = UNCACHED
        """Under which accepted sessions are remembered, as far as the agent knows."""

        self.definitions: tuple[str | None, tuple[DocumentFile, ...]] = (None, ())
        """The version of the snapshot that is in force, and what it was read from."""

        self._totals: Totals = {}
        self.times: Times = {}
        """Since when each total is counted and when it last grew, as of the newest totals."""

        self.trend = Trend()
        """How fast each total grew in the last hour."""

        self.samples = Samples()
        """Of the last hour."""

        self.revision = 0
        """How often something of this has changed."""

        self.step_fault: str | None = None
        """Why the last step could not be done."""

        self.faults: tuple[str, ...] = ()
        """The faults of the agent's own files and its counting, in words."""

        self._turned_at = self.clock.monotonic()

    def note_step(self, step: Step, *, is_fetched: bool, verified: ProofReport | None = None) -> None:
        """Publish the result of a step, and at once whether the resulting table is proved."""
        self.policy = step.policy or ResolvedPolicy()
        self.state = step.state or self.state
        if step.outcome is not StepEnd.REFUSED:
            self.definitions = (step.version, step.documents)
        now = self.clock.now()
        self._publish(status_after(self.status, step, is_fetched=is_fetched, now=now, verified=verified))

    def note_manual_override(self, manual_override: ManualOverride) -> None:
        """Publish the definitions and modes that were set by hand."""
        self._publish(replace(self.status, manual_override=manual_override))

    def note_contest(self, *, is_contested: bool) -> None:
        """Publish whether another process keeps changing the table."""
        if self.status.is_drift_contested is not is_contested:
            self._publish(replace(self.status, is_drift_contested=is_contested))

    def note_resets(self, resets: Resets) -> None:
        """Publish how often other processes reset the counters."""
        if resets != self.status.resets:
            self._publish(replace(self.status, resets=resets))

    def note_names(self, names: tuple[NameStatus, ...], failures: int) -> None:
        """Publish how the names of rules are."""
        if (names, failures) != (self.status.names, self.status.dns_failures):
            self._publish(replace(self.status, names=names, dns_failures=failures))

    def note_verified(self, verified: ProofReport | None, durations: Durations) -> None:
        """Publish the report of the proof of the table in force, and how long proofs took."""
        if (verified, durations) != (self.status.verified, self.status.verify_durations):
            self._publish(replace(self.status, verified=verified, verify_durations=durations))

    def withdraw_proof(self) -> None:
        """Publish that no proof is of the table in force, as this is about to change."""
        self.note_verified(None, self.status.verify_durations)

    def note_doctor(self, diagnosis: Diagnosis | None) -> None:
        """Publish the doctor's diagnosis."""
        if diagnosis is not self.status.diagnosis:
            self._publish(replace(self.status, diagnosis=diagnosis))

    def _publish(self, status: Status) -> None:
        self.status = status
        self.revision += 1

    def note_totals(
        self,
        totals: Totals,
        *,
        times: Times = _NO_TIMES,
        step_fault: str | None = None,
        faults: tuple[str, ...] = (),
    ) -> None:
        """Publish that the loop ran, with its totals and faults.

        Args:
            totals: what was counted.
            times: since when each is counted, and when it was hit last.
            step_fault: why the last step could not be done.
            faults: what is wrong with the agent's own files and its counting, in words.
        """
        self.revision += totals is not self._totals or (step_fault, faults) != (self.step_fault, self.faults)
        self._totals, self.times = totals, times
        self.step_fault, self.faults = step_fault, faults
        self._turned_at = self.clock.monotonic()
        self.trend = self.trend.after(totals, self._turned_at)
        status, now = self.status, self.clock.now()
        since = now if status.snapshot_since is None else status.snapshot_since
        state = Sample(
            is_well=status.is_well and self.step_fault is None,
            enforced=sum(interface.mode is Mode.ENFORCE for interface in status.interfaces),
            warnings=status.warnings or 0,
            policy_age=max(0.0, now - since),
        )
        self.samples = self.samples.after(totals, state, self._turned_at)

    def reasons_not_alive(self) -> tuple[str, ...]:
        """Return why the agent should be restarted; empty if it is alive."""
        seconds = self.clock.monotonic() - self._turned_at
        if seconds <= LONGEST_TURN_SECONDS:
            return ()
        return (f"the main loop has not run for {seconds:.0f} seconds",)

    def reasons_not_ready(self) -> tuple[str, ...]:
        """Return why the host does not enforce its newest definitions; empty if it does."""
        failed = ("the last step of the main loop failed",) if self.step_fault else ()
        return (*self.reasons_not_alive(), *failed, *_shortcomings(self.status, self.clock.now()))

    def totals(self) -> Totals:
        """Return totals as fresh as can be had in a short time."""
        self.ask_for_reading(LONGEST_WAIT_SECONDS)
        return self._totals


def _shortcomings(status: Status, now: float) -> Iterator[str]:
    if status.posture in _WITHOUT_POLICY:
        yield _WITHOUT_POLICY[status.posture]
    for interface in status.interfaces:
        if interface.fault is not None:
            yield f"rules of {interface.name} miss packets: {interface.fault}"
        if interface.state is InterfaceState.PORT:
            yield f"{interface.name} is a port of the {interface.port_of}, so its packets are not judged"
    if status.is_source_up is False:
        if status.source_reached_at is None:
            yield "the source could not be reached since the agent started"
        elif now - status.source_reached_at > STALE_SECONDS:
            yield f"the source could not be reached for {now - status.source_reached_at:.0f} seconds"
    if status.step.is_refused:
        yield "the newest definitions have errors; the previous ones stay active"
    if status.step.kernel_error is not None:
        yield "the kernel refused the newest rules"
    if status.is_drift_contested:
        yield "someone else keeps changing the rules"
    if status.is_drift_unhealed:
        yield "someone else changed the rules, and the repair failed"
