"""Write the measured tables for people, in Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from bench.durations import BY_NFT, LINEAR
from bench.goals import Goal, is_gain, judge_goals, least_gain
from bench.linear import Order
from bench.packetcost import CONNTRACK_ONLY, ESTABLISHED_ONLY, NO_FIREWALL, OURS
from bench.results import Results
from bench.section import figure, measured_at
from bench.sizes import SIZES, Size
from bench.traffic import Aim

BEGIN = "<!-- measured: written by python -m bench -->"
END = "<!-- end of what was measured -->"


def insert_tables(page: str, results: Results) -> str:
    """Return the page with the text between the marks replaced by the tables.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the tables")
    return f"{before}{BEGIN}\n\n{write_tables(results)}\n{END}{after}"


def write_tables(results: Results) -> str:
    """Return all tables."""
    return "\n".join(
        [
            *_about_machine(results),
            *_goals(goal for goal in judge_goals(results) if not is_gain(goal)),
            *_new_sessions(results),
            *_known_sessions(results),
            *_durations(results),
        ]
    )


def _about_machine(results: Results) -> Iterator[str]:
    machine = results.machine
    yield (
        f"{measured_at()} On {machine.processors} processors, Linux {machine.kernel}, {machine.nftables}, "
        f"Python {machine.python}; load before the run {machine.load:.2f}."
    )
    if results.is_quick:
        yield "\nThis was a quick run: fewer sizes, fewer rounds. Don't quote it."
    yield ""


def _goals(goals: Iterable[Goal]) -> Iterator[str]:
    rows = [
        (goal.text, goal.limit, figure(goal.measured), "met" if goal.is_met else "**missed**")
        for goal in goals
    ]
    yield from _table("Goals", ("goal", "limit", "measured", ""), rows)


_LISTS = (Order.ADDRESS_FIRST, Order.PORT_FIRST)


def _new_sessions(results: Results) -> Iterator[str]:
    """Yield the cost of new sessions, by size and by where in the policy their packets hit."""
    rows = []
    for size, aim in itertools.product(results.sizes, Aim):
        ours = _above(results, size, aim.value, OURS)
        if ours is not None and (size == SIZES[2] or aim in (Aim.SPREAD, Aim.NONE)):
            cells = [
                _with_ratio(_above(results, size, aim.value, order.value), ours, least_gain(size, aim, order))
                for order in _LISTS
            ]
            whole = _whole(results, size, aim.value, CONNTRACK_ONLY)
            rows.append((str(size), aim.value, whole, _number(ours), *cells))
    lists = (order.value for order in _LISTS)
    head = ("rules/members", "packets", f"*{CONNTRACK_ONLY}*", OURS, *lists)
    yield from _table("A new session: nanoseconds above conntrack only (times sgagent's ≥ goal)", head, rows)


def _known_sessions(results: Results) -> Iterator[str]:
    names = (NO_FIREWALL, CONNTRACK_ONLY, ESTABLISHED_ONLY, OURS)
    rows = [
        (str(size), *(_whole(results, size, "known sessions", name) for name in names))
        for size in results.sizes
    ]
    yield from _table("A packet of a known session: nanoseconds", ("rules/members", *names), rows)


_CONTENDERS = (OURS, BY_NFT, LINEAR)
_WITHOUT_GOAL = (": decide", ": nothing changes", ": everything is other")
"""What no goal is about: the daemon decides with its caches, as ``python -m bench.daemon`` measures it."""


def _durations(results: Results) -> Iterator[str]:
    operations = dict.fromkeys(
        duration.operation for duration in results.durations if not duration.operation.endswith(_WITHOUT_GOAL)
    )
    sizes = sorted({duration.size for duration in results.durations})
    rows = [(name, *(_compared(results, size, name) for size in sizes)) for name in operations]
    rows += _commands(results)
    yield from _table(f"Milliseconds: {', '.join(_CONTENDERS)}", ("", *map(str, sizes)), rows)


def _compared(results: Results, size: Size, operation: str) -> str:
    """Return the time of an operation for each contender that has it."""
    found = (_milliseconds(results, size, operation, contender) for contender in _CONTENDERS)
    return ", ".join(text for text in found if text)


def _commands(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the time of commands, and their memory."""
    found = {(command.command, command.size): command for command in results.commands}
    sizes = sorted({command.size for command in results.commands})
    for name in dict.fromkeys(command.command for command in results.commands):
        rows = [found.get((name, size)) for size in sizes]
        yield (f"`{name}`", *(f"{1000 * row.seconds:,.0f}" if row else "" for row in rows))
        yield ("its peak memory, MiB", *(f"{row.peak_mebibytes:.0f}" if row else "" for row in rows))


def _table(heading: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    rows = list(rows)
    if not rows:
        return
    yield f"### {heading}\n"
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _above(results: Results, size: Size, aim: str, contender: str) -> float | None:
    cost = results.cost(size, aim, contender)
    return cost.above.median if cost else None


def _whole(results: Results, size: Size, aim: str, contender: str) -> str:
    cost = results.cost(size, aim, contender)
    return f"*{cost.whole.median:,.0f}*" if cost else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _with_ratio(value: float | None, ours: float | None, least: float | None) -> str:
    """Return a cost, how many times ours it is, and the goal for that; in bold where it is missed."""
    if value is None or not ours:
        return _number(value)
    if least is None:
        return f"{value:,.0f} ({_ratio(value / ours)})"
    ratio = f"{value / ours:.1f}×"
    return f"{value:,.0f} ({ratio if value >= least * ours else f'**{ratio}**'} ≥ {least:g}×)"


def _ratio(value: float) -> str:
    return f"{value:.1f}×" if value < 10 else f"{value:.0f}×"


def _milliseconds(results: Results, size: Size, operation: str, contender: str) -> str:
    duration = results.duration(size, operation, contender)
    if duration is None:
        return ""
    value = duration.seconds.median * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
