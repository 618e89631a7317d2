"""Draw charts over the size of the policy, both axes logarithmic, below each other in one SVG.

It needs no font and no file, and reads in light and in dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.section import figure
from bench.sizes import Size

_WIDTH = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 68, 40, 54
_PLOT = 260
_TITLE_HEIGHT, _LEGEND_LINE = 40, 22
_LEGEND_COLUMNS = 2

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.heading { font-weight: 600 }
.small { font-size: 12px }
.grid { stroke: #d0d7de; stroke-width: 1 }
.line { fill: none; stroke-width: 2.5 }
.dashed { stroke-dasharray: 5 5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #3d444d }
}
"""

BLUE, ORANGE, PINK, GREEN = "#2f81f7", "#d55e00", "#cc79a7", "#009e73"
"""Told apart on white and on black, and by those who don't tell red from green."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    label: str
    colour: str
    points: Sequence[tuple[Size, float]]
    is_dashed: bool = False

    @property
    def style(self) -> str:
        """Return the classes of the style."""
        return "line dashed" if self.is_dashed else "line"


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines of the same quantity."""

    title: str
    units: tuple[str, ...]
    """Of a value, of a thousand, and so on."""

    lines: Sequence[Line]

    @property
    def drawn(self) -> Sequence[Line]:
        """Return the lines that have points."""
        return [line for line in self.lines if line.points]

    @property
    def legend_height(self) -> int:
        """Return how much room the legend takes."""
        return _LEGEND_LINE * math.ceil(len(self.drawn) / _LEGEND_COLUMNS)

    @property
    def height(self) -> int:
        """Return how much room the chart takes."""
        return _TOP + self.legend_height + _PLOT + _BOTTOM


def draw(title: str, charts: Sequence[Chart]) -> str:
    """Return the picture of those charts that have anything."""
    charts = [chart for chart in charts if chart.drawn]
    label = f'role="img" aria-label="{title}"'
    height = _TITLE_HEIGHT + sum(chart.height for chart in charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {label}>',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="24">{title}</text>',
    ]
    top = _TITLE_HEIGHT
    for chart in charts:
        parts.extend(_chart(chart, top))
        top += chart.height
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a size and a value lie in the picture."""

    sizes: Sequence[Size]
    top: float
    """Of the plot."""

    lowest: int
    """The power of ten at the foot."""

    highest: int

    def across(self, size: Size) -> float:
        """Return the distance from the left."""
        first, last = (math.log10(self.sizes[place].rules) for place in (0, -1))
        share = (math.log10(size.rules) - first) / (last - first or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def down(self, value: float) -> float:
        """Return the distance from the top."""
        share = (math.log10(value) - self.lowest) / (self.highest - self.lowest)
        return self.top + _PLOT * (1 - share)


def _chart(chart: Chart, top: float) -> Iterator[str]:
    points = [point for line in chart.drawn for point in line.points]
    values = [value for _, value in points]
    lowest = math.floor(math.log10(min(values)))
    scale = _Scale(
        sizes=sorted({size for size, _ in points}),
        top=top + _TOP + chart.legend_height,
        lowest=lowest,
        highest=max(lowest + 1, math.ceil(math.log10(max(values)))),
    )
    yield f'<text class="heading" x="{_LEFT}" y="{top + 18:.0f}">{chart.title}</text>'
    yield from _legend(chart.drawn, top + 36)
    yield from _grid(scale, chart.units)
    for line in chart.drawn:
        yield from _curve(line, scale, chart.units)


def _legend(lines: Sequence[Line], top: float) -> Iterator[str]:
    for number, line in enumerate(lines):
        x = _LEFT + 300 * (number % _LEGEND_COLUMNS)
        y = top + _LEGEND_LINE * (number // _LEGEND_COLUMNS)
        yield f'<line class="{line.style}" stroke="{line.colour}" x1="{x}" y1="{y}" x2="{x + 30}" y2="{y}"/>'
        yield f'<text x="{x + 38}" y="{y + 4}">{line.label}</text>'


def _grid(scale: _Scale, units: tuple[str, ...]) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, scale.top + _PLOT
    for power in range(scale.lowest, scale.highest + 1):
        y = scale.down(10.0**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        text = _quantity(10.0**power, units)
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for size in scale.sizes:
        x = scale.across(size)
        yield f'<line class="grid" x1="{x:.1f}" y1="{scale.top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{size}</text>'
    place = f'x="{(_LEFT + right) / 2}" y="{bottom + 36:.1f}"'
    yield f'<text class="small" {place} text-anchor="middle">rules / members</text>'


def _curve(line: Line, scale: _Scale, units: tuple[str, ...]) -> Iterator[str]:
    places = [(scale.across(size), scale.down(value), value) for size, value in line.points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    if len(places) > 1:
        yield f'<polyline class="{line.style}" stroke="{line.colour}" points="{joined}"/>'
    for x, y, value in places:
        yield (
            f'<circle fill="{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{line.label}: {_quantity(value, units)}</title></circle>"
        )


def _quantity(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while value >= 1_000 and power < len(units) - 1:
        value, power = value / 1_000, power + 1
    return f"{figure(value)} {units[power]}"
