"""The tiles of the first screen: six figures, each with its last hour, that link to their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sgagent.agent.control.requests import StatusAnswer
from sgagent.agent.published_status import MOST_STEPS, SAMPLE_SECONDS, STEP_SECONDS, Sample
from sgagent.agent.status import InterfaceStatus
from sgagent.agent.time_text import age, count
from sgagent.agent.web.rule_table import Sparkline, draw_bars

_PER_MINUTE = round(STEP_SECONDS / SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure."""

    label: str
    target: str
    """Where its table is."""

    value: str
    detail: str
    trend: Sparkline
    unit: str = ""
    mark: str = ""
    """``accept`` where the value is good, ``warning`` where notable, ``drop`` where bad; else empty."""

    is_flat: bool = False
    """Whether the trend is of a state and no figure."""


def make_tiles(
    status: StatusAnswer, samples: Sequence[Sample], findings: str, now: float, *, is_healthy: bool
) -> Iterator[Tile]:
    """Yield the tiles in the order in which one asks.

    Args:
        status: how the agent is doing.
        samples: of the last hour, the oldest first.
        findings: of lint, in words.
        now: seconds since the epoch.
        is_healthy: whether the newest definitions are enforced or observed.
    """
    since = "" if status.posture_since is None else age(max(0.0, now - status.posture_since))
    value, mark = ("healthy", "accept") if is_healthy else ("needs attention", "drop")
    trend = _trend("healthy", samples, lambda some: all(one.is_well for one in some))
    yield Tile("Verdict", "#state", value, f"{status.posture.value} {since}", trend, mark=mark, is_flat=True)
    yield _mode_tile(status.interfaces, samples)
    observed = sum(one.would_drop for one in samples[-_PER_MINUTE:])
    drops = _rate("Drops", "#drops", samples, lambda one: one.dropped)
    yield replace(drops, detail=f"{observed:,} only observed") if observed else drops
    yield _rate("Sessions judged", "#rules", samples, lambda one: one.judged)
    warnings, mark = status.warnings or 0, "warning" if status.warnings else ""
    trend = _trend("warnings", samples, lambda some: some[-1].warnings)
    yield Tile("Warnings", "#warnings", str(warnings), f"lint: {findings}", trend, mark=mark)
    value = "none" if status.snapshot_since is None else age(max(0.0, now - status.snapshot_since))
    trend = _trend("policy age", samples, lambda some: some[-1].policy_age)
    yield Tile("Policy age", "#state", value, status.snapshot_version or "no policy in force", trend)


def _mode_tile(interfaces: Sequence[InterfaceStatus], samples: Sequence[Sample]) -> Tile:
    judged = [interface.mode for interface in interfaces if interface.mode is not None]
    modes = {mode.value for mode in judged}
    value = "mixed" if len(modes) > 1 else next(iter(modes), "none")
    detail = f"{len(judged)} of {count(len(interfaces), 'interface')} judged"
    trend = _trend("enforced", samples, lambda some: some[-1].enforced)
    return Tile("Mode", "#interfaces", value, detail, trend, is_flat=True)


def _rate(label: str, target: str, samples: Sequence[Sample], number: Callable[[Sample], int]) -> Tile:
    """Return how many there were in the last minute, and in the last hour."""
    value = f"{sum(map(number, samples[-_PER_MINUTE:])):,}" if samples else "–"
    detail = f"{sum(map(number, samples)):,} in {_span(samples)}"
    trend = _trend(label.lower(), samples, lambda some: sum(map(number, some)))
    return Tile(label, target, value, detail, trend, "/min")


def _trend(what: str, samples: Sequence[Sample], value: Callable[[Sequence[Sample]], float]) -> Sparkline:
    """Return a bar for each minute."""
    return draw_bars([value(some) for some in _minutes(samples)], f"{what} in {_span(samples)}")


def _span(samples: Sequence[Sample]) -> str:
    minutes = -(-len(samples) // _PER_MINUTE)
    return "the last hour" if minutes == MOST_STEPS else count(minutes, "minute")


def _minutes(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Yield the samples of each minute; the newest minute ends now."""
    for first in range(len(samples) % _PER_MINUTE - _PER_MINUTE, len(samples), _PER_MINUTE):
        if first + _PER_MINUTE > 0:
            yield samples[max(0, first) : first + _PER_MINUTE]
