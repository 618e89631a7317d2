"""Give the nodes of a directed graph ranks, so that edges lead from lower to higher, and an order in each.

The way of Sugiyama: circles are broken by turning edges round, ranks are those of longest ways, and each rank
is ordered by where its neighbours stand; of several sweeps the one with the fewest crossings is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]

_SWEEPS = 12


def acyclic(nodes: int, edges: Iterable[Pair]) -> list[Pair]:
    """Return the edges, those turned round that would close a circle.

    Args:
        nodes: how many there are; they are numbered, and walks begin at the lowest numbers.
        edges: from one number to another.
    """
    edges = list(edges)
    onward: list[list[int]] = [[] for _ in range(nodes)]
    reached_by = [0] * nodes
    for source, target in edges:
        onward[source].append(target)
        reached_by[target] += 1
    place = _finishing_places(onward, sorted(range(nodes), key=lambda node: (reached_by[node] > 0, node)))
    return [
        (source, target) if place[source] > place[target] else (target, source) for source, target in edges
    ]


def _finishing_places(onward: Sequence[Sequence[int]], starts: Iterable[int]) -> list[int]:
    """Return when a walk in depth has done with each node: what is done with later comes first."""
    place = [-1] * len(onward)
    seen = [False] * len(onward)
    done = 0
    for start in starts:
        if seen[start]:
            continue
        seen[start] = True
        walk = [(start, iter(onward[start]))]
        while walk:
            node, following = walk[-1]
            found = next((other for other in following if not seen[other]), None)
            if found is None:
                walk.pop()
                place[node], done = done, done + 1
            else:
                seen[found] = True
                walk.append((found, iter(onward[found])))
    return place


def ranked(nodes: int, edges: Sequence[Pair]) -> list[int]:
    """Return the rank of each node: one more than the highest before it; who is reached by none stands close.

    Args:
        nodes: how many there are.
        edges: without circles.
    """
    onward: list[list[int]] = [[] for _ in range(nodes)]
    left = [0] * nodes
    for source, target in edges:
        onward[source].append(target)
        left[target] += 1
    ranks = [0] * nodes
    ready = [node for node in range(nodes) if not left[node]]
    first = list(ready)
    while ready:
        node = ready.pop()
        for target in onward[node]:
            ranks[target] = max(ranks[target], ranks[node] + 1)
            left[target] -= 1
            if not left[target]:
                ready.append(target)
    for node in first:
        if onward[node]:
            ranks[node] = min(ranks[target] for target in onward[node]) - 1
    return ranks


def ordered(layers: Sequence[Sequence[int]], edges: Iterable[Pair]) -> list[list[int]]:
    """Return the layers, each in an order that makes edges cross seldom.

    Args:
        layers: the nodes of each.
        edges: each from one layer to the next.
    """
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
        before.setdefault(target, []).append(source)
    best = [list(layer) for layer in layers]
    fewest = _all_crossings(best, after)
    tried = [list(layer) for layer in best]
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = before if downwards else after
        numbers = range(1, len(tried)) if downwards else range(len(tried) - 2, -1, -1)
        for number in numbers:
            fixed = tried[number - 1] if downwards else tried[number + 1]
            tried[number] = _by_neighbours(tried[number], fixed, neighbours)
        crossings = _all_crossings(tried, after)
        if crossings < fewest:
            fewest, best = crossings, [list(layer) for layer in tried]
    return best


def _by_neighbours(
    layer: Sequence[int], fixed: Sequence[int], neighbours: Mapping[int, Sequence[int]]
) -> list[int]:
    """Return a layer sorted by the mean place of each node's neighbours; who has none keeps its place."""
    places = {node: place for place, node in enumerate(fixed)}
    own = {node: place for place, node in enumerate(layer)}

    def mean(node: int) -> tuple[float, int]:
        near = neighbours.get(node, ())
        return (sum(places[one] for one in near) / len(near) if near else float(own[node]), own[node])

    return sorted(layer, key=mean)


def _all_crossings(layers: Sequence[Sequence[int]], after: Mapping[int, Sequence[int]]) -> int:
    return sum(_crossings(layer, following, after) for layer, following in pairwise(layers))


def _crossings(layer: Sequence[int], following: Sequence[int], after: Mapping[int, Sequence[int]]) -> int:
    """Count the pairs of edges that cross, by a tree of sums."""
    places = {node: place for place, node in enumerate(following)}
    tree = [0] * (len(following) + 1)
    seen = crossings = 0
    for node in layer:
        ends = sorted(places[target] for target in after.get(node, ()))
        for end in ends:
            crossings += seen - _sum_up_to(tree, end)
        for end in ends:
            seen += 1
            _add_at(tree, end)
    return crossings


def _sum_up_to(tree: Sequence[int], place: int) -> int:
    total, place = 0, place + 1
    while place:
        total += tree[place]
        place &= place - 1
    return total


def _add_at(tree: list[int], place: int) -> None:
    place += 1
    while place < len(tree):
        tree[place] += 1
        place += place & -place
