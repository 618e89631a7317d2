"""Layered layout of a graph: nodes in every other column, edge labels in the columns between."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import accumulate, count, pairwise

Pair = tuple[int, int]

_RANK_SWEEPS = 12


def acyclic(nodes: int, edges: Iterable[Pair]) -> list[Pair]:
    """Return the edges, those turned round that would close a circle.

    Args:
        nodes: how many there are; they are numbered, and walks begin at the lowest numbers.
        edges: from one number to another.
    """
    edges = list(edges)
    onward = _neighbours(edges)[1]
    targets = {target for _, target in edges}
    place = _finishing_places(
        [onward.get(node, ()) for node in range(nodes)],
        sorted(range(nodes), key=lambda node: (node in targets, node)),
    )
    return [
        (source, target) if place[source] > place[target] else (target, source) for source, target in edges
    ]


def _neighbours(edges: Iterable[Pair]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Return the nodes before and after each node that has any there."""
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for source, target in edges:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    return before, after


def _finishing_places(onward: Sequence[Sequence[int]], starts: Iterable[int]) -> list[int]:
    """Return when a depth-first search finishes each node: the last one comes first."""
    place, done, seen = [-1] * len(onward), count(), set[int]()
    for start in starts:
        walk = [] if start in seen else [(start, iter(onward[start]))]
        seen.add(start)
        while walk:
            node, following = walk[-1]
            found = next((other for other in following if other not in seen), None)
            if found is None:
                walk.pop()
                place[node] = next(done)
            else:
                seen.add(found)
                walk.append((found, iter(onward[found])))
    return place


def ranked(nodes: int, edges: Sequence[Pair]) -> list[int]:
    """Return the rank of each node: one more than the highest before it; who is reached by none stands close.

    Args:
        nodes: how many there are.
        edges: without circles.
    """
    before, after = _neighbours(edges)
    ranks = [0] * nodes
    for node in TopologicalSorter(before).static_order():
        ranks[node] = max((ranks[source] + 1 for source in before.get(node, ())), default=0)
    for node in after.keys() - before.keys():
        ranks[node] = min(ranks[target] for target in after[node]) - 1
    return ranks


def ordered(layers: Sequence[Sequence[int]], edges: Iterable[Pair]) -> list[list[int]]:
    """Return the layers, each in an order that makes edges cross seldom.

    Args:
        layers: the nodes of each.
        edges: each from one layer to the next.
    """
    before, after = _neighbours(edges)
    best = [list(layer) for layer in layers]
    fewest = _crossings(best, after)
    tried = [list(layer) for layer in best]
    for sweep in range(_RANK_SWEEPS):
        if sweep % 2 == 0:
            for number in range(1, len(tried)):
                tried[number] = _by_neighbours(tried[number], tried[number - 1], before)
        else:
            for number in range(len(tried) - 2, -1, -1):
                tried[number] = _by_neighbours(tried[number], tried[number + 1], after)
        crossings = _crossings(tried, after)
        if crossings < fewest:
            fewest, best = crossings, [list(layer) for layer in tried]
    return best


def _by_neighbours(
    layer: Sequence[int], fixed: Sequence[int], neighbours: Mapping[int, Sequence[int]]
) -> list[int]:
    """Return a layer sorted by the mean place of each node's neighbours; who has none keeps its place."""
    places = {node: place for place, node in enumerate(fixed)}

    def mean(own: tuple[int, int]) -> float:
        place, node = own
        near = neighbours.get(node)
        return sum(places[one] for one in near) / len(near) if near else place

    return [node for _, node in sorted(enumerate(layer), key=mean)]


def _crossings(layers: Sequence[Sequence[int]], after: Mapping[int, Sequence[int]]) -> int:
    """Count the pairs of edges that cross."""
    crossings = 0
    for layer, following in pairwise(layers):
        places = {node: place for place, node in enumerate(following)}
        seen: list[int] = []
        for node in layer:
            ends = sorted(places[target] for target in after.get(node, ()))
            crossings += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return crossings


_COLUMN_GAP = 26.0
_ROW_GAP = 18.0
_BEND_HEIGHT = 6.0
_SWEEPS = 10
_MARGIN = 16.0
_NARROWEST = 900.0
"""Lonely nodes fill rows of at least this width."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a text."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class NodePlace:
    """A rectangle, by its middle."""

    x: float
    y: float
    size: Size

    @property
    def left(self) -> float:
        """Return where it begins."""
        return self.x - self.size.width / 2

    @property
    def right(self) -> float:
        """Return where it ends."""
        return self.x + self.size.width / 2

    @property
    def top(self) -> float:
        """Return where it begins, from above."""
        return self.y - self.size.height / 2

    @property
    def bottom(self) -> float:
        """Return where it ends, from above."""
        return self.y + self.size.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """How an edge is drawn."""

    points: tuple[tuple[float, float], ...]
    """From its source to its target; between two of them it may bend."""

    label: NodePlace


@dataclass(frozen=True, slots=True)
class GraphLayout:
    """Where everything is."""

    size: Size
    nodes: tuple[NodePlace, ...]
    routes: tuple[Route, ...]


def lay_out(nodes: Sequence[Size], edges: Sequence[tuple[int, int, Size]]) -> GraphLayout:
    """Return where nodes and edges are.

    Args:
        nodes: what each takes.
        edges: source, target and what the label takes; none leads to its own source.
    """
    pairs = acyclic(len(nodes), ((source, target) for source, target, _ in edges))
    touched = {end for pair in pairs for end in pair}
    ranks = [2 * rank for rank in ranked(len(nodes), pairs)]
    columns = _Columns(list(nodes))
    for node in sorted(touched):
        columns.put(node, ranks[node])
    chains = [columns.chain(pair, ranks, label) for pair, (_, _, label) in zip(pairs, edges, strict=True)]
    places = columns.places()
    bottom = max((place.bottom for place in places.values()), default=_MARGIN - _ROW_GAP)
    right = max((place.right for place in places.values()), default=0.0)
    lonely = [node for node in range(len(nodes)) if node not in touched]
    places |= _in_rows(lonely, nodes, bottom + _ROW_GAP, max(right, _NARROWEST))
    routes = [
        _route(chain, places, is_turned=pair != (source, target))
        for chain, pair, (source, target, _) in zip(chains, pairs, edges, strict=True)
    ]
    return GraphLayout(
        size=Size(
            max((place.right for place in places.values()), default=0.0) + _MARGIN,
            max((place.bottom for place in places.values()), default=0.0) + _MARGIN,
        ),
        nodes=tuple(places[node] for node in range(len(nodes))),
        routes=tuple(routes),
    )


@dataclass(slots=True)
class _Columns:
    """Nodes, labels and bends, all as numbers, in columns."""

    sizes: list[Size]
    _columns: dict[int, list[int]] = field(default_factory=dict)
    _links: list[Pair] = field(default_factory=list)

    def put(self, item: int, column: int) -> None:
        """Put something into a column."""
        self._columns.setdefault(column, []).append(item)

    def chain(self, pair: Pair, ranks: Sequence[int], label: Size) -> Sequence[int]:
        """Lead an edge through the columns between its ends; of its stops, the last but one is its label."""
        source, target = pair
        stops = [source]
        for column in range(ranks[source] + 1, ranks[target]):
            is_label = column == ranks[target] - 1
            self.sizes.append(label if is_label else Size(0.0, _BEND_HEIGHT))
            self.put(len(self.sizes) - 1, column)
            stops.append(len(self.sizes) - 1)
        stops.append(target)
        self._links += pairwise(stops)
        return stops

    def places(self) -> dict[int, NodePlace]:
        """Return where everything is."""
        numbers = sorted(self._columns)
        layers = ordered([self._columns[number] for number in numbers], self._links)
        heights = self._heights(layers)
        lowest = min((heights[item] - self.sizes[item].height / 2 for item in heights), default=0.0)
        places: dict[int, NodePlace] = {}
        x = _MARGIN
        for layer in layers:
            width = max(self.sizes[item].width for item in layer)
            for item in layer:
                size = self.sizes[item]
                if not size.width:  # a bend: the line keeps its height past all that stands in the column
                    size = Size(width, size.height)
                places[item] = NodePlace(x + width / 2, heights[item] - lowest + _MARGIN, size)
            x += width + _COLUMN_GAP
        return places

    def _heights(self, layers: Sequence[Sequence[int]]) -> dict[int, float]:
        """Return the height of each node, close to its neighbours."""
        _, neighbours = _neighbours(way for link in self._links for way in (link, link[::-1]))
        heights: dict[int, float] = {}
        for layer in layers:
            heights |= self._apart(layer, dict.fromkeys(layer, 0.0))
        for sweep in range(_SWEEPS):
            for layer in layers if sweep % 2 else reversed(layers):
                wanted = {
                    item: sum(heights[one] for one in near) / len(near)
                    for item in layer
                    if (near := neighbours.get(item))
                }
                heights |= self._apart(layer, {item: wanted.get(item, heights[item]) for item in layer})
        return heights

    def _apart(self, layer: Sequence[int], wanted: Mapping[int, float]) -> Iterator[tuple[int, float]]:
        """Yield heights as near to those that are wanted as can be, in order and without overlap.

        With the room that each needs taken off, that is the nearest sequence that never falls: wherever one
        would, those that stand in each other's way meet at their mean.
        """
        heights = (self.sizes[item].height for item in layer)
        gaps = ((above + below) / 2 + _ROW_GAP for above, below in pairwise(heights))
        offsets = list(accumulate(gaps, initial=0.0))
        blocks: list[tuple[float, int]] = []
        for item, far in zip(layer, offsets, strict=True):
            total, count = wanted[item] - far, 1
            while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
                total, count = total + blocks[-1][0], count + blocks[-1][1]
                blocks.pop()
            blocks.append((total, count))
        means = (total / count for total, count in blocks for _ in range(count))
        yield from ((item, mean + far) for item, mean, far in zip(layer, means, offsets, strict=True))


def _in_rows(items: Iterable[int], sizes: Sequence[Size], top: float, width: float) -> dict[int, NodePlace]:
    """Return places in rows, from the left to the right, for nodes without edges."""
    places: dict[int, NodePlace] = {}
    x, row = _MARGIN, 0.0
    for item in items:
        size = sizes[item]
        if x > _MARGIN and x + size.width > width:
            x, top, row = _MARGIN, top + row + _ROW_GAP, 0.0
        places[item] = NodePlace(x + size.width / 2, top + size.height / 2, size)
        x += size.width + _COLUMN_GAP
        row = max(row, size.height)
    return places


def _route(stops: Sequence[int], places: Mapping[int, NodePlace], *, is_turned: bool) -> Route:
    """Return how an edge runs: out of the right of its lower end, into the left of its higher one."""
    source, *between, target = (places[stop] for stop in stops)
    points = [(source.right, source.y)]
    for stop in between:
        points += [(stop.left, stop.y), (stop.right, stop.y)]
    points.append((target.left, target.y))
    return Route(tuple(reversed(points) if is_turned else points), places[stops[-2]])
