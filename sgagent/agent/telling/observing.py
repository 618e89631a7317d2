"""Say in the log what would have been dropped on interfaces that are only observed (§9.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import assert_never

from sgagent.agent.telling.steplog import EventLog
from sgagent.core.kernel.counters import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
    is_of_drops,
)
from sgagent.core.model import Direction
from sgagent.ports import Clock, CounterValue

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
        """Say what came to be counted since the last line.

        What was counted before an interface was seen to be observed is left out.

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
    match key:
        case RuleCounter():
            return key.direction.value, key.rule_id
        case DefaultCounter():
            return key.direction.value, "default"
        case InvalidCounter():
            return key.direction.value, "invalid"
        case InnerCounter() | ExemptionCounter() | ObservedDropCounter():
            raise ValueError(f"{key} counts no drops")
        case _:
            assert_never(key)
