"""Draw the peers' costs over the size of the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.charts import BLUE, GREEN, ORANGE, PINK, Chart, Line, draw as draw_charts
from bench.peers.contenders import COMMAND, CONTENDERS
from bench.peers.figures import Figures, Operation, PeerResults
from bench.sizes import Size
from bench.traffic import Aim

_YELLOW = "#a58a00"
_COLOURS = dict(zip(CONTENDERS, (BLUE, BLUE, ORANGE, GREEN, PINK, _YELLOW), strict=True))
_TIME = ("ns", "µs", "ms", "s")
_MEMORY = ("MiB", "GiB")
_TITLE = "sgagent beside what users would pick instead"


def draw(results: PeerResults) -> str:
    """Return the picture of the measurements; failures and cut off ones have no point."""
    names = results.contenders
    costs = {name: list(_costs(results, name)) for name in names}
    starts = {name: list(_times(results, name, Operation.START)) for name in names}
    members = {name: list(_times(results, name, Operation.MEMBER)) for name in names}
    memory = {name: list(_memory(results, name)) for name in names}
    charts = (
        Chart("A packet that no rule matches, above connection tracking alone", _TIME, _lines(costs)),
        Chart("From nothing to enforced", _TIME, _lines(starts)),
        Chart("One member joins, by the quickest way there is", _TIME, _lines(members)),
        Chart("Memory of processes, at most", _MEMORY, _lines(memory)),
    )
    return draw_charts(_TITLE, charts)


def _lines(points: Mapping[str, list[tuple[Size, float]]]) -> list[Line]:
    return [Line(name, _COLOURS[name], found, is_dashed=name == COMMAND) for name, found in points.items()]


def _costs(results: PeerResults, contender: str) -> Iterator[tuple[Size, float]]:
    for size in results.sizes:
        cost = results.cost(size, Aim.NONE.value, contender)
        if cost and cost.above.median > 0:
            yield size, cost.above.median


def _times(results: PeerResults, contender: str, operation: Operation) -> Iterator[tuple[Size, float]]:
    for figures in _of(results, contender):
        if found := figures.seconds.get(operation.value):
            yield figures.size, 1e9 * found.median


def _memory(results: PeerResults, contender: str) -> Iterator[tuple[Size, float]]:
    for figures in _of(results, contender):
        if figures.peak_mebibytes:
            yield figures.size, figures.peak_mebibytes


def _of(results: PeerResults, contender: str) -> Iterator[Figures]:
    return (figures for figures in results.figures if figures.contender == contender)
