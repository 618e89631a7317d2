"""The tiles of the first screen: six figures, each with its last hour, that link to their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sgagent.agent.control.requests import StatusAnswer
from sgagent.agent.published_status import MOST_STEPS, SAMPLE_SECONDS, STEP_SECONDS, Sample
from sgagent.agent.status import InterfaceStatus
from sgagent.agent.time_text import age, count
from sgagent.agent.web.rule_table import Sparkline, draw_bars
from sgagent.core.model import Mode

_PER_MINUTE = round(STEP_SECONDS / SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure."""

    label: str
    target: str
    """Where its table is."""

    value: str
    unit: str = ""
    detail: str
    mark: str = ""
    """``accept`` where the value is good, ``warning`` where notable, ``drop`` where bad; else empty."""

    trend: Sparkline
    is_flat: bool = False
    """Whether the trend is of a state and no figure."""


def make_tiles(
    status: StatusAnswer, samples: Sequence[Sample], findings: str, now: float, *, is_healthy: bool
) -> tuple[Tile, ...]:
    """Return the tiles in the order in which one asks.

    Args:
        status: how the agent is doing.
        samples: of the last hour, the oldest first.
        findings: of lint, in words.
        now: seconds since the epoch.
        is_healthy: whether the newest definitions are enforced or observed.
    """
    judged = [interface for interface in status.interfaces if interface.mode is not None]
    last = samples[-_PER_MINUTE:]
    return (
        Tile(
            label="Verdict",
            target="#state",
            value="healthy" if is_healthy else "needs attention",
            detail=_since(status.posture.value, status.posture_since, now),
            mark="accept" if is_healthy else "drop",
            trend=_drawn(samples, lambda some: all(one.is_well for one in some), "healthy"),
            is_flat=True,
        ),
        Tile(
            label="Mode",
            target="#interfaces",
            value=_mode(judged),
            detail=f"{len(judged)} of {count(len(status.interfaces), 'interface')} judged",
            mark="" if judged else "warning",
            trend=_drawn(samples, lambda some: some[-1].enforced, "enforced"),
            is_flat=True,
        ),
        Tile(
            label="Drops",
            target="#drops",
            value=f"{sum(one.dropped for one in last):,}" if last else "–",
            unit="/min",
            detail=_would_drop(sum(one.would_drop for one in last), samples),
            trend=_drawn(samples, lambda some: sum(one.dropped for one in some), "drops"),
        ),
        Tile(
            label="Sessions judged",
            target="#rules",
            value=f"{sum(one.judged for one in last):,}" if last else "–",
            unit="/min",
            detail=f"{sum(one.judged for one in samples):,} in {_span(samples)}",
            trend=_drawn(samples, lambda some: sum(one.judged for one in some), "sessions"),
        ),
        Tile(
            label="Warnings",
            target="#warnings",
            value=str(status.warnings or 0),
            detail=f"lint: {findings}",
            mark="warning" if status.warnings else "",
            trend=_drawn(samples, lambda some: some[-1].warnings, "warnings"),
        ),
        Tile(
            label="Policy age",
            target="#state",
            value=_since("", status.snapshot_since, now).strip() or "none",
            detail=status.snapshot_version or "no policy in force",
            trend=_drawn(samples, lambda some: some[-1].policy_age, "age"),
        ),
    )


def _since(word: str, since: float | None, now: float) -> str:
    return word if since is None else f"{word} {age(max(0.0, now - since))}"


def _mode(judged: Sequence[InterfaceStatus]) -> str:
    modes = {interface.mode for interface in judged}
    if len(modes) == 1:
        return "enforce" if Mode.ENFORCE in modes else "observe"
    return "mixed" if modes else "none"


def _would_drop(packets: int, samples: Sequence[Sample]) -> str:
    if packets:
        return f"{packets:,} only observed"
    return f"{sum(one.dropped for one in samples):,} in {_span(samples)}"


def _span(samples: Sequence[Sample]) -> str:
    minutes = -(-len(samples) // _PER_MINUTE)
    return "the last hour" if minutes == MOST_STEPS else count(minutes, "minute")


def _drawn(samples: Sequence[Sample], value: Callable[[Sequence[Sample]], float], what: str) -> Sparkline:
    """Return a bar for each minute, the newest of which is not over."""
    values = [value(some) for some in _minutes(samples)]
    return draw_bars(values, f"{what} in {_span(samples)}")


def _minutes(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Yield the samples of each minute; the newest minute ends now."""
    for first in range(len(samples) % _PER_MINUTE - _PER_MINUTE, len(samples), _PER_MINUTE):
        if first + _PER_MINUTE > 0:
            yield samples[max(0, first) : first + _PER_MINUTE]
