"""Log lines of a step: one for the step, and one for each new finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from operator import itemgetter
from typing import Protocol, assert_never

from sgagent.agent.names.name_table import NameState, NameStatus
from sgagent.agent.status import ports_of_masters
from sgagent.agent.step import Step, StepEnd
from sgagent.core.errors import Problem, Severity
from sgagent.core.model import Direction
from sgagent.nft.names import CounterKey, ObservedDropCounter, RuleCounter, is_of_drops, observed_drop
from sgagent.ports import Clock, CounterValue

_MOST_PROBLEMS = 50
"""Problems of one delivery that are logged one by one; beyond, their number has to do."""


class EventLog(Protocol):
    """The part of a structlog logger that is used here."""

    def info(self, event: str, **keys: object) -> object:
        """Log a normal event."""
        ...

    def warning(self, event: str, **keys: object) -> object:
        """Log an event that needs attention."""
        ...

    def error(self, event: str, **keys: object) -> object:
        """Log an error."""
        ...


class StepLog:
    """Log steps; repeated findings are logged once."""

    def __init__(self, log: EventLog) -> None:
        """Take the log to write to."""
        self._log = log
        self._problems: tuple[Problem, ...] = ()
        self._source_error: str | None = None
        self._kernel_error: str | None = None
        self._lack: _Lack | None = None
        self._groupless: tuple[str, ...] = ()
        self._ports: Mapping[str, str] = {}
        self._uncached: tuple[str, ...] = ()
        self._names: Mapping[str, NameStatus] = {}

    def say_names(self, names: Iterable[NameStatus]) -> None:
        """Log which names have another state, or fail in another way, than before."""
        before, self._names = self._names, {one.name: one for one in names}
        for name, one in self._names.items():
            known = before.get(name)
            if known is None or (known.state, known.fault) != (one.state, one.fault):
                is_bad = one.state in (NameState.STALE, NameState.EXPIRED) or one.fault is not None
                say = self._log.warning if is_bad else self._log.info
                say("name_state_changed", name=name, state=one.state.value, reason=one.fault)

    def say(self, step: Step) -> None:
        """Log what is new in this step."""
        self._say_source(step)
        self._say_problems(step)
        self._say_kernel(step)
        self._say_waiting(step)
        self._say_opened(step)
        self._say_groupless(step)
        self._say_ports(step)
        self._say_uncached(step)
        if step.was_drift and step.outcome is StepEnd.APPLIED:
            self._log.warning(
                "drift_repaired",
                differed=list(step.differed),
                operations=step.operations,
                process_id=step.tamperer.process_id if step.tamperer else None,
                process_name=step.tamperer.process_name if step.tamperer else None,
            )
        elif step.outcome is StepEnd.APPLIED:
            self._log.info(
                "ruleset_applied",
                version=step.version,
                interfaces=[interface.name for interface in step.policy.bound] if step.policy else [],
                operations=step.operations,
                compile_seconds=round(step.compile_seconds, 6),
                apply_seconds=round(step.apply_seconds, 6),
            )

    def _say_source(self, step: Step) -> None:
        if step.source_error != self._source_error:
            self._source_error = step.source_error
            if step.source_error:
                self._log.error("source_failed", reason=step.source_error)
            else:
                self._log.info("source_recovered")

    def _say_problems(self, step: Step) -> None:
        """Log a refusal and each problem once, not at every step that finds them again."""
        if step.problems == self._problems:
            return
        self._problems = step.problems
        for problem in step.problems[:_MOST_PROBLEMS]:
            say = self._log.error if problem.severity is Severity.ERROR else self._log.warning
            say("problem_found", code=problem.code, problem=str(problem))
        if step.is_refused:
            errors = sum(problem.severity is Severity.ERROR for problem in step.problems)
            self._log.error("snapshot_refused", errors=errors, in_force=step.version)
        elif len(step.problems) > _MOST_PROBLEMS:
            self._log.warning("more_problems_found", problems=len(step.problems))

    def _say_kernel(self, step: Step) -> None:
        if step.kernel_error != self._kernel_error:
            self._kernel_error = step.kernel_error
            if step.kernel_error:
                self._log.error("ruleset_refused", reason=step.kernel_error)

    def _say_waiting(self, step: Step) -> None:
        """Say loudly, once, what becomes of the host for lack of a snapshot (§9.2)."""
        lack = _lack(step)
        if lack is not self._lack:
            self._lack = lack
            match lack:
                case None:
                    pass
                case _Lack.DOCUMENTS:
                    self._log.warning(
                        "nothing_enforced", reason="the source holds no document yet; the host is unchanged"
                    )
                case _Lack.OPEN:
                    self._log.error("nothing_enforced", reason="no policy loaded yet; the host is unchanged")
                case _Lack.STANDING:
                    self._log.error("older_rules_kept", reason="no policy that can be enforced is loaded")
                case _Lack.CLOSED:
                    self._log.error("host_closed", reason="no policy that can be enforced is loaded")
                case _:
                    assert_never(lack)

    def _say_opened(self, step: Step) -> None:
        """Log which addresses were opened in rules that an earlier agent left (§7.4)."""
        if step.opened_to:
            places = sorted(
                {f"{one.address.network.network_address} {one.protocol} {one.port}" for one in step.opened_to}
            )
            self._log.warning("source_way_opened", endpoints=places)

    def _say_uncached(self, step: Step) -> None:
        """Say where sessions are judged, and counted, at every packet, for lack of mark bits."""
        if step.uncached != self._uncached:
            self._uncached = step.uncached
            for name in step.uncached:
                self._log.warning("interface_judged_at_every_packet", interface=name)

    def _say_groupless(self, step: Step) -> None:
        """Say loudly that an interface has no group and lets nothing through (§3)."""
        groupless = (
            tuple(i.name for i in step.policy.bound if not i.security_group_ids) if step.policy else ()
        )
        if groupless != self._groupless:
            self._groupless = groupless
            for name in groupless:
                self._log.error("interface_without_group", interface=name)

    def _say_ports(self, step: Step) -> None:
        """Log as an error that a bound link became a port, which no policy applies to, and when that ends."""
        before, self._ports = self._ports, ports_of_masters(step)
        for name, master in self._ports.items():
            if before.get(name) != master:
                self._log.error("interface_not_judged", interface=name, port_of=master)
        for name in before.keys() - self._ports.keys():
            self._log.info("interface_no_port_any_more", interface=name)


class _Lack(Enum):
    """What becomes of a host for which there is no snapshot."""

    DOCUMENTS = auto()
    """There are none yet, and it is open."""

    OPEN = auto()
    STANDING = auto()
    CLOSED = auto()


def _lack(step: Step) -> _Lack | None:
    if step.is_closed:
        return None if step.outcome is StepEnd.REFUSED else _Lack.CLOSED
    if step.awaits_documents:
        return _Lack.DOCUMENTS
    if step.outcome is StepEnd.WAITING:
        return _Lack.STANDING if step.is_standing else _Lack.OPEN
    return None


Totals = Mapping[CounterKey, CounterValue]

SECONDS_BETWEEN_LINES = 60.0
"""For each interface."""

MOST_RULES_NAMED = 10
"""Those with the most packets, in one line."""

_NOTHING = CounterValue(packets=0, bytes=0)


@dataclass(slots=True)
class _Observation:
    """What is known of one interface."""

    since: float
    """By the monotonic clock: when the last line was written, or observing began."""

    is_due_at: float
    sum_said: int
    said: dict[CounterKey, int] = field(default_factory=dict)
    """What every counter of drops stood at."""


class ObservationLog:
    """Write a line when something would have been dropped, and no more than one a minute."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        """Take the log, and the clock that spaces lines out."""
        self._log = log
        self._clock = clock
        self._observations: dict[str, _Observation] = {}

    def follow(self, totals: Totals, observed: frozenset[str]) -> None:
        """Log what was counted since the last line.

        Packets from before an interface entered observe mode are left out.

        Args:
            totals: the newest.
            observed: interfaces on which nothing is dropped.
        """
        now = self._clock.monotonic()
        self._observations = {
            name: self._observations.get(name) or _begun(name, totals, now) for name in sorted(observed)
        }
        for name, observation in self._observations.items():
            if now >= observation.is_due_at and _sum(name, totals) != observation.sum_said:
                self._say(name, observation, totals, now)
                self._observations[name] = _begun(name, totals, now, now + SECONDS_BETWEEN_LINES)

    def _say(self, name: str, observation: _Observation, totals: Totals, now: float) -> None:
        """Write the line."""
        counted = {
            key: packets - observation.said.get(key, 0) for key, packets in _drops(name, totals).items()
        }
        most = sorted(
            ((*_named(key), packets) for key, packets in counted.items() if packets > 0),
            key=lambda named: (-named[2], named[0], named[1]),
        )
        self._log.info(
            "would_have_dropped",
            interface=name,
            packets=sum(map(itemgetter(2), most)),
            seconds=round(now - observation.since, 1),
            drops=[
                {"direction": direction, "by": by, "packets": packets}
                for direction, by, packets in most[:MOST_RULES_NAMED]
            ],
            others=sum(map(itemgetter(2), most[MOST_RULES_NAMED:])),
        )


def _begun(name: str, totals: Totals, now: float, due_at: float = 0.0) -> _Observation:
    """Return an observation of an interface that begins with these totals."""
    return _Observation(since=now, is_due_at=due_at, sum_said=_sum(name, totals), said=_drops(name, totals))


def _sum(name: str, totals: Totals) -> int:
    """Return all that would ever have been dropped on an interface, without going through its counters."""
    keys = (ObservedDropCounter(interface=name, direction=direction) for direction in Direction)
    return sum(totals.get(key, _NOTHING).packets for key in keys)


def _drops(name: str, totals: Totals) -> dict[CounterKey, int]:
    """Return what every counter of drops of an interface stands at."""
    return {key: total.packets for key, total in totals.items() if is_of_drops(key) and key.interface == name}


def _named(key: CounterKey) -> tuple[str, str]:
    """Return the direction and the rule, or the step of §3, that a counter of drops is about."""
    drop = observed_drop(key)
    if drop is None:
        raise ValueError(f"{key} counts no drops")
    step = type(key).__name__.removesuffix("Counter").lower()
    return drop.direction.value, key.rule_id if isinstance(key, RuleCounter) else step
