"""Draw the cost of a new session over the size of the policy, both axes logarithmic, as one SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.linear import Order
from bench.packetcost import OURS
from bench.results import Results
from bench.sizes import Size
from bench.traffic import Aim

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 68, 112, 70

_LABEL = 'role="img" aria-label="Cost of a packet over the number of rules and members"'

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 12px }
.grid { stroke: #d0d7de; stroke-width: 1 }
.line { fill: none; stroke-width: 2.5 }
.known { stroke-dasharray: 5 5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #3d444d }
}
"""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the picture."""

    contender: str
    aim: str
    label: str
    colour: str
    """Told apart from the others on white and on black, and by those who don't tell red from green."""

    style: str = "line"
    """Classes of the style."""


_LINES = (
    _Line(Order.ADDRESS_FIRST.value, Aim.NONE.value, "linear, address first", "#d55e00"),
    _Line(Order.PORT_FIRST.value, Aim.NONE.value, "linear, port first", "#cc79a7"),
    _Line(OURS, Aim.NONE.value, "sgagent, new session", "#2f81f7"),
    _Line(OURS, "known sessions", "sgagent, known session", "#2f81f7", "line known"),
)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a size and a cost lie in the picture."""

    sizes: Sequence[Size]
    lowest: int
    """The power of ten at the foot of the vertical axis."""

    highest: int

    def across(self, size: Size) -> float:
        """Return the distance from the left."""
        first, last = (math.log10(self.sizes[place].rules) for place in (0, -1))
        share = (math.log10(size.rules) - first) / (last - first or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def down(self, nanoseconds: float) -> float:
        """Return the distance from the top."""
        share = (math.log10(max(nanoseconds, 1)) - self.lowest) / (self.highest - self.lowest)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def draw(results: Results) -> str:
    """Return the picture; it needs no font or file, and reads in light and in dark."""
    costs = [(line, _costs(results, line)) for line in _LINES]
    everything = [value for _, points in costs for _, value in points]
    lowest, highest = math.floor(math.log10(min(everything))), math.ceil(math.log10(max(everything)))
    scale = _Scale(results.sizes, lowest, highest)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_LABEL}>',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="24">What a packet costs, above connection tracking alone</text>',
        f'<text class="small" x="{_LEFT}" y="44">New sessions: packets that no rule matches.</text>',
        *_legend(),
        *_grid(scale),
        *(part for line, points in costs for part in _curve(line, points, scale)),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _costs(results: Results, line: _Line) -> list[tuple[Size, float]]:
    found = ((size, results.cost(size, line.aim, line.contender)) for size in results.sizes)
    return [(size, cost.above.median) for size, cost in found if cost and cost.above.median > 0]


def _legend() -> Iterator[str]:
    for number, line in enumerate(_LINES):
        x, y = _LEFT + 250 * (number % 2), 68 + 22 * (number // 2)
        stroke = f'class="{line.style}" stroke="{line.colour}"'
        yield f'<line {stroke} x1="{x}" y1="{y}" x2="{x + 30}" y2="{y}"/>'
        yield f'<text x="{x + 38}" y="{y + 4}">{line.label}</text>'


def _grid(scale: _Scale) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for power in range(scale.lowest, scale.highest + 1):
        y = scale.down(10**power)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_time(10**power)}</text>'
    for size in scale.sizes:
        x = scale.across(size)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{size}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text class="small" x="{middle}" y="{_HEIGHT - 16}" text-anchor="middle">rules / members</text>'


def _curve(line: _Line, points: Sequence[tuple[Size, float]], scale: _Scale) -> Iterator[str]:
    places = [(scale.across(size), scale.down(value), value) for size, value in points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    yield f'<polyline class="{line.style}" stroke="{line.colour}" points="{joined}"/>'
    for x, y, value in places:
        yield (
            f'<circle fill="{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{line.label}: {value:.0f} ns</title></circle>"
        )


def _time(nanoseconds: float) -> str:
    for unit, size in (("ns", 1), ("µs", 1_000)):
        if nanoseconds < 1_000 * size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds / 1_000_000:g} ms"
