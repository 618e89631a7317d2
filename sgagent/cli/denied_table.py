"""The table of drops: flows that differ only in time and source port share a row."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from sgagent.agent.control.queries import DeniedAnswer
from sgagent.agent.flowlog.flow import Flow, FlowEnd, decider, sentence, traffic
from sgagent.agent.time_text import clock_time
from sgagent.cli.output import lay_out
from sgagent.core.errors import printable
from sgagent.core.model import Direction, Mode

_HEADINGS = ("TIME", "PACKETS", "INTERFACE", "WAY", "TRAFFIC", "FROM", "TO", "BY")
_NUMBERS = (1,)
_Row = tuple[str, ...]


def report(answer: DeniedAnswer, shown: int, width: int | None) -> list[str]:
    """Return the lines of the report: the newest drops, and how many more there were.

    Args:
        answer: what the agent said.
        shown: how many lines of drops at most.
        width: of the terminal; None is no limit.
    """
    if answer.unavailable is not None:
        return [printable(f"drops are not recorded: {answer.unavailable}")]
    rows = folded(answer.flows)
    newest = rows[max(0, len(rows) - shown) :]
    lines = [_NONE_REMEMBERED.format(clock_time(answer.begun_at))]
    if newest:
        lines = lay_out([_HEADINGS, *newest], right=_NUMBERS, width=width)
    if earlier := len(rows) - len(newest):
        lines.append(f"… and {earlier} earlier: --lines {len(rows)} shows them")
    return [*lines, *map(sentence, answer.left_out)]


_NONE_REMEMBERED = (
    "no drop is remembered since the agent started, {}; 'sgagent hits' counts those before, too"
)


class FollowedTable:
    """Lay rows out as they come, below those before."""

    def __init__(self) -> None:
        """Start without a row."""
        self._least = [8, *map(len, _HEADINGS[1:])]
        self._is_begun = False

    def lines(self, flows: Sequence[Flow], width: int | None) -> list[str]:
        """Return lines for flows that are new, with headings above the first of all.

        Columns only grow, so that most rows stand below each other.
        """
        if not flows:
            return []
        rows = folded(flows)
        self._least = [max(least, *map(len, cells)) for least, *cells in zip(self._least, *rows, strict=True)]
        headline, *laid_out = lay_out([_HEADINGS, *rows], right=_NUMBERS, width=width, least=self._least)
        lines = laid_out if self._is_begun else [headline, *laid_out]
        self._is_begun = True
        return lines


def folded(flows: Iterable[Flow]) -> list[_Row]:
    """Return a row for all flows that read alike, with the time of the newest, which decides the order."""
    found: dict[_Row, tuple[int, float]] = {}
    for flow in flows:
        cells = _cells(flow)
        packets, _ = found.pop(cells, (0, 0.0))
        found[cells] = packets + 1, flow.seen_at
    return [(_moment(seen_at), str(packets), *cells) for cells, (packets, seen_at) in found.items()]


def _cells(flow: Flow) -> _Row:
    would = "would, by " if flow.mode is Mode.OBSERVE else ""
    return (
        flow.interface,
        "in" if flow.direction is Direction.INGRESS else "out",
        traffic(flow) + (" (reply)" if flow.is_reply else ""),
        _end(flow.source),
        _end(flow.destination),
        would + (flow.rule_id or decider(flow)),
    )


def _moment(seconds: float) -> str:
    """Return a moment of today by its time, any other with its date, where this is."""
    then, now = time.localtime(seconds), time.localtime()
    is_today = (then.tm_year, then.tm_yday) == (now.tm_year, now.tm_yday)
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", then)


def _end(one: FlowEnd) -> str:
    """Return an end by its names, or by its address where it has none: ``eni-web-1 (sg-web)``."""
    groups = ", ".join(one.security_group_ids)
    if one.network_interface_id is not None:
        return f"{one.network_interface_id} ({groups})" if groups else one.network_interface_id
    return f"{one.address} ({groups})" if groups else one.address
