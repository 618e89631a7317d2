"""Write the measured tables for people, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.durations import BY_NFT, LINEAR
from bench.goals import Goal, judge_goals
from bench.linear import Order
from bench.packetcost import CONNTRACK_ONLY, ESTABLISHED_ONLY, NO_FIREWALL, OURS
from bench.results import Results
from bench.sizes import Size
from bench.traffic import Aim

BEGIN = "<!-- measured: written by python -m bench -->"
END = "<!-- end of what was measured -->"


def insert_tables(page: str, results: Results) -> str:
    """Return the page with what stands between the marks replaced by the tables.

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
            *_goals(judge_goals(results)),
            *(line for aim in (Aim.SPREAD, Aim.NONE) for line in _new_sessions(results, aim)),
            *_places(results),
            *_known_sessions(results),
            *_durations(results),
            *_commands(results),
        ]
    )


def _about_machine(results: Results) -> Iterator[str]:
    machine = results.machine
    yield (
        f"Measured on {machine.processors} processors, Linux {machine.kernel}, {machine.nftables}, "
        f"Python {machine.python}; load before the run {machine.load:.2f}."
    )
    if results.is_quick:
        yield "\nThis was a quick run: fewer sizes, fewer rounds. Don't quote it."
    yield ""


def _goals(goals: Sequence[Goal]) -> Iterator[str]:
    rows = [
        (goal.text, goal.limit, f"{goal.measured:.1f}", "met" if goal.is_met else "**missed**")
        for goal in goals
    ]
    yield from _table("What is promised", ("promise", "limit", "measured", ""), rows)


_NEW = (OURS, *(order.value for order in Order))


def _new_sessions(results: Results, aim: Aim) -> Iterator[str]:
    rows = []
    for size in results.sizes:
        ours = _above(results, size, aim.value, OURS)
        cells = [_with_ratio(_above(results, size, aim.value, name), ours) for name in _NEW[1:]]
        rows.append((str(size), _whole(results, size, aim.value, CONNTRACK_ONLY), _number(ours), *cells))
    heading = f"A new session, packets {aim.value}"
    yield from _table(heading, ("rules / members", "*conntrack only, whole*", *_NEW), rows)


def _places(results: Results) -> Iterator[str]:
    """Yield how the cost depends on where in the policy a packet hits."""
    size = results.sizes[-1] if len(results.sizes) < 3 else results.sizes[2]
    rows = []
    for aim in Aim:
        ours = _above(results, size, aim.value, OURS)
        cells = [_with_ratio(_above(results, size, aim.value, name), ours) for name in _NEW[1:]]
        rows.append((aim.value, _whole(results, size, aim.value, CONNTRACK_ONLY), _number(ours), *cells))
    yield from _table(
        f"A new session at {size}, by where packets hit",
        ("packets", "*conntrack only, whole*", *_NEW),
        rows,
    )


def _known_sessions(results: Results) -> Iterator[str]:
    names = (NO_FIREWALL, CONNTRACK_ONLY, ESTABLISHED_ONLY, OURS)
    rows = [
        (
            str(size),
            *(_whole(results, size, "known sessions", name) for name in names),
            _number(_above(results, size, "known sessions", ESTABLISHED_ONLY)),
            _number(_above(results, size, "known sessions", OURS)),
        )
        for size in results.sizes
    ]
    above = (f"{ESTABLISHED_ONLY}: above conntrack only", f"{OURS}: above conntrack only")
    yield from _table("A packet of a known session", ("rules / members", *names, *above), rows)


def _durations(results: Results) -> Iterator[str]:
    operations = dict.fromkeys(duration.operation for duration in results.durations)
    contenders = (OURS, BY_NFT, LINEAR)
    for size in sorted({duration.size for duration in results.durations}):
        rows = [(name, *(_milliseconds(results, size, name, c) for c in contenders)) for name in operations]
        yield from _table(f"Milliseconds at {size}", ("", *contenders), rows)


def _commands(results: Results) -> Iterator[str]:
    rows = [
        (
            str(command.size),
            f"`{command.command}`",
            f"{command.seconds:.2f}",
            f"{command.peak_mebibytes:.0f}",
            str(command.status),
        )
        for command in results.commands
    ]
    head = ("rules / members", "command", "seconds", "peak memory, MiB", "exit code")
    yield from _table("Whole commands", head, rows)


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


def _with_ratio(value: float | None, ours: float | None) -> str:
    """Return a cost and how many times ours it is."""
    if value is None or not ours:
        return _number(value)
    return f"{value:,.0f} ({_ratio(value / ours)})"


def _ratio(value: float) -> str:
    return f"{value:.1f}×" if value < 10 else f"{value:.0f}×"


def _milliseconds(results: Results, size: Size, operation: str, contender: str) -> str:
    duration = results.duration(size, operation, contender)
    if duration is None:
        return ""
    value = duration.seconds.median * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
