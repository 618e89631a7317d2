"""Draw the cost of a packet, the time of applies, and their memory, over the size of the policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.charts import BLUE, GREEN, ORANGE, PINK, Chart, Line, draw as draw_charts
from bench.daemon import AtWork
from bench.definition_writers import Change, Notice
from bench.durations import BY_NFT, FIRST_APPLY, LINEAR
from bench.linear import Order
from bench.packetcost import OURS
from bench.results import Results
from bench.section import percentile
from bench.sizes import Size
from bench.traffic import Aim

_TIME = ("ns", "µs", "ms", "s")
_Points = list[tuple[Size, float]]


def draw(results: Results, at_work: Sequence[AtWork] = ()) -> str:
    """Return the picture of the measurements; of the daemon there may be nothing."""
    told = [found for found in at_work if found.changed[0].notice == Notice.SIGNAL.value]
    charts = (_packets(results), _first_apply(results), _member(told), _memory(results, told))
    return draw_charts("sgagent over the size of the policy", charts)


def _packets(results: Results) -> Chart:
    by_address, by_port = Order.ADDRESS_FIRST.value, Order.PORT_FIRST.value
    lines = (
        Line("linear, address first", ORANGE, _costs(results, by_address, Aim.NONE.value)),
        Line("linear, port first", PINK, _costs(results, by_port, Aim.NONE.value)),
        Line("sgagent, new session", BLUE, _costs(results, OURS, Aim.NONE.value)),
        Line("sgagent, known session", BLUE, _costs(results, OURS, "known sessions"), is_dashed=True),
    )
    title = "A packet above connection tracking alone; of new sessions: that no rule matches"
    return Chart(title, _TIME, lines)


def _costs(results: Results, contender: str, aim: str) -> _Points:
    found = ((size, results.cost(size, aim, contender)) for size in results.sizes)
    return [(size, cost.above.median) for size, cost in found if cost and cost.above.median > 0]


def _first_apply(results: Results) -> Chart:
    names = (
        ("sgagent compile", BLUE, OURS),
        ("nft -f of the finished text", GREEN, BY_NFT),
        ("nft -f of linear rules", ORANGE, LINEAR),
    )
    lines = [Line(name, colour, _loads(results, contender)) for name, colour, contender in names]
    return Chart("From nothing to enforced, as a command", _TIME, lines)


def _loads(results: Results, contender: str) -> _Points:
    found = (
        duration
        for duration in results.durations
        if (duration.operation, duration.contender) == (FIRST_APPLY, contender)
    )
    return sorted((duration.size, 1e9 * duration.seconds.median) for duration in found)


def _member(at_work: Sequence[AtWork]) -> Chart:
    pairs = [
        (found.size, changed)
        for found in at_work
        for changed in found.changed
        if changed.change == Change.MEMBER.value
    ]
    lines = (
        Line("sgagent, the daemon", BLUE, [(s, 1e9 * percentile(c.enforced, 50)) for s, c in pairs]),
        Line("nft, the same transaction", GREEN, [(s, 1e9 * percentile(c.by_nft, 50)) for s, c in pairs]),
    )
    return Chart("One member joins or leaves, from the word to enforced", _TIME, lines)


def _memory(results: Results, at_work: Sequence[AtWork]) -> Chart:
    lines = (
        Line("the daemon, both processes", BLUE, [(found.size, found.mebibytes_later) for found in at_work]),
        Line("sgagent compile --dry-run, at most", BLUE, list(_peaks(results)), is_dashed=True),
    )
    return Chart("Memory", ("MiB",), lines)


def _peaks(results: Results) -> Iterator[tuple[Size, float]]:
    """Yield the most that a dry run took, one point for each size."""
    peaks: dict[Size, float] = {}
    for command in results.commands:
        peaks[command.size] = max(peaks.get(command.size, 0.0), command.peak_mebibytes)
    yield from peaks.items()
