"""Draw what the peers take over the size of the policy, both axes logarithmic: several charts in one SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.peers.contenders import CONTENDERS
from bench.peers.figures import Figures, Operation, PeerResults
from bench.sizes import Size
from bench.traffic import Aim

_WIDTH, _CHART_HEIGHT = 760, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 68, 56, 52
_LEGEND_HEIGHT = 84

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 12px }
.grid { stroke: #d0d7de; stroke-width: 1 }
.line { fill: none; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #3d444d }
}
"""
_LABEL = 'role="img" aria-label="Cost of a packet, time to apply and memory over the number of rules"'

_COLOURS = ("#2f81f7", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#a58a00")
"""Told apart from each other on white and on black, and by those who don't tell red from green."""

COLOUR_OF = dict(zip(CONTENDERS, _COLOURS, strict=True))


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: a line for each contender."""

    title: str
    units: tuple[str, str, str]
    """Of a value, of a thousand and of a million."""

    lines: Mapping[str, Sequence[tuple[Size, float]]]
    """By contender; only what was measured."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a size and a value lie."""

    sizes: Sequence[Size]
    top: float
    """Of the chart, from the top of the picture."""

    lowest: int
    """The power of ten at the foot."""

    highest: int

    @property
    def bottom(self) -> float:
        """Return where the foot of the chart is."""
        return self.top + _CHART_HEIGHT - _BOTTOM

    def across(self, size: Size) -> float:
        """Return the distance from the left."""
        first, last = (math.log10(self.sizes[place].rules) for place in (0, -1))
        share = (math.log10(size.rules) - first) / (last - first or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def down(self, value: float) -> float:
        """Return the distance from the top of the picture."""
        share = (math.log10(value) - self.lowest) / (self.highest - self.lowest or 1)
        return self.bottom - share * (_CHART_HEIGHT - _TOP - _BOTTOM)


def draw(results: PeerResults) -> str:
    """Return the picture; it needs no font or file, and reads in light and in dark."""
    charts = [chart for chart in charts_of(results) if any(chart.lines.values())]
    height = _LEGEND_HEIGHT + _CHART_HEIGHT * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {_LABEL}>',
        f"<style>{_STYLE}</style>",
        *_legend(results.contenders),
        *(
            part
            for number, chart in enumerate(charts)
            for part in _chart(chart, results.sizes, _LEGEND_HEIGHT + number * _CHART_HEIGHT)
        ),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def charts_of(results: PeerResults) -> tuple[Chart, ...]:
    """Return what is drawn."""
    starts = {name: list(_times(results, name, Operation.START)) for name in results.contenders}
    members = {name: list(_times(results, name, Operation.MEMBER)) for name in results.contenders}
    memory = {name: list(_memory(results, name)) for name in results.contenders}
    costs = {name: list(_costs(results, name)) for name in results.contenders}
    return (
        Chart("A packet that no rule matches, above connection tracking alone", ("ns", "µs", "ms"), costs),
        Chart("From nothing to enforced", ("ms", "s", "ks"), starts),
        Chart("One member joins, by the quickest way there is", ("ms", "s", "ks"), members),
        Chart("Memory of processes, at most", ("MiB", "GiB", "TiB"), memory),
    )


def _costs(results: PeerResults, contender: str) -> Iterator[tuple[Size, float]]:
    for size in results.sizes:
        cost = results.cost(size, Aim.NONE.value, contender)
        if cost and cost.above.median > 0:
            yield size, cost.above.median


def _times(results: PeerResults, contender: str, operation: Operation) -> Iterator[tuple[Size, float]]:
    for figures in _of(results, contender):
        if found := figures.seconds.get(operation.value):
            yield figures.size, found.median * 1000


def _memory(results: PeerResults, contender: str) -> Iterator[tuple[Size, float]]:
    for figures in _of(results, contender):
        if figures.peak_mebibytes:
            yield figures.size, figures.peak_mebibytes


def _of(results: PeerResults, contender: str) -> Iterator[Figures]:
    return (figures for figures in results.figures if figures.contender == contender)


def _legend(contenders: Sequence[str]) -> Iterator[str]:
    yield f'<text class="title" x="{_LEFT}" y="24">sgagent beside what users would pick instead</text>'
    for number, name in enumerate(contenders):
        x, y = _LEFT + 210 * (number % 3), 48 + 22 * (number // 3)
        yield f'<line class="line" stroke="{COLOUR_OF[name]}" x1="{x}" y1="{y}" x2="{x + 26}" y2="{y}"/>'
        yield f'<text x="{x + 34}" y="{y + 4}">{name}</text>'


def _chart(chart: Chart, sizes: Sequence[Size], top: float) -> Iterator[str]:
    values = [value for points in chart.lines.values() for _, value in points]
    lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    scale = _Scale(sizes, top, lowest, max(highest, lowest + 1))
    yield f'<text class="small" x="{_LEFT}" y="{top + 36:.0f}">{chart.title}</text>'
    yield from _grid(chart, scale)
    for name, points in chart.lines.items():
        yield from _curve(name, points, scale, chart)


def _grid(chart: Chart, scale: _Scale) -> Iterator[str]:
    right = _WIDTH - _RIGHT
    for power in range(scale.lowest, scale.highest + 1):
        y = scale.down(10.0**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        text = _quantity(10.0**power, chart.units)
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for size in scale.sizes:
        x, top = scale.across(size), scale.down(10.0**scale.highest)
        yield f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{scale.bottom:.1f}"/>'
        yield f'<text x="{x:.1f}" y="{scale.bottom + 24:.1f}" text-anchor="middle">{size}</text>'


def _curve(name: str, points: Sequence[tuple[Size, float]], scale: _Scale, chart: Chart) -> Iterator[str]:
    places = [(scale.across(size), scale.down(value), value) for size, value in points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    if len(places) > 1:
        yield f'<polyline class="line" stroke="{COLOUR_OF[name]}" points="{joined}"/>'
    for x, y, value in places:
        yield (
            f'<circle fill="{COLOUR_OF[name]}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{name}: {_quantity(value, chart.units)}</title></circle>"
        )


def _quantity(value: float, units: tuple[str, str, str]) -> str:
    for number, unit in enumerate(units):
        scaled = value / 1_000**number
        if scaled < 1_000 or number == len(units) - 1:
            return f"{scaled:.3g} {unit}"
    raise AssertionError(units)
