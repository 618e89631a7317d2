"""A graph as a self-contained SVG with light and dark colours and text for screen readers.

It highlights the effect of a change, or the paths between two nodes.

No meaning is carried by colour alone: what a change opens has a plus, what it closes a minus and a dashed
line.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import assert_never

from sgagent.analysis.graph.elements import (
    NO_TRAFFIC,
    Edge,
    Graph,
    LabelLine,
    Mark,
    Node,
    NodeId,
    NodeKind,
    Side,
    edge_lines,
    edge_mark,
    node_lines,
    order,
    sentence,
)
from sgagent.analysis.graph.layout import NodePlace, Route, Size, lay_out
from sgagent.core.model import CidrBlock, Snapshot
from sgagent.core.policy import members_by_group

_CHARACTER = 7.25
"""The width of one, of 12 pixels of a font in which all are alike."""

_LINE = 16.0
_PADDING = 10.0
_TITLE = "Who may talk to whom"

_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,&quot;DejaVu Sans Mono&quot;,monospace"

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2733",
    "faint": "#56657a",
    "line": "#6b7a90",
    "box": "#eef3f9",
    "rim": "#9fb0c6",
    "beyond": "#fff7e6",
    "brink": "#c9a24b",
    "open": "#0b7a3b",
    "shut": "#b3261e",
    "way": "#1857c4",
}
DARK = {
    "paper": "#12181f",
    "ink": "#e6edf5",
    "faint": "#a3b1c4",
    "line": "#8a99ae",
    "box": "#1f2a37",
    "rim": "#50627a",
    "beyond": "#2c2614",
    "brink": "#a8873a",
    "open": "#4cc47f",
    "shut": "#ff8a80",
    "way": "#7fb0ff",
}

COLOURED = (
    (".paper,.label rect", "fill", "paper"),
    ("text", "fill", "ink"),
    (".node rect", "fill", "box"),
    (".node rect", "stroke", "rim"),
    (".beyond rect", "fill", "beyond"),
    (".beyond rect", "stroke", "brink"),
    (".node.way rect", "stroke", "way"),
    (".node .more", "fill", "faint"),
    (".plus", "fill", "open"),
    (".minus", "fill", "shut"),
    (".edge path", "stroke", "line"),
    (".opened path", "stroke", "open"),
    (".closed path", "stroke", "shut"),
    (".way path", "stroke", "way"),
    (".tip", "fill", "line"),
    (".tip-opened", "fill", "open"),
    (".tip-closed", "fill", "shut"),
    (".tip-way", "fill", "way"),
)
"""What has which colour.

The light ones are attributes of each element: many viewers know no style sheets, or no variables in them. The
style sheet holds the dark ones alone.
"""

_DARK_RULES = "\n".join(f"{selector}{{{name}:{DARK[colour]}}}" for selector, name, colour in COLOURED)
_STYLE = f"svg{{color-scheme:light dark}}\n@media(prefers-color-scheme:dark){{\n{_DARK_RULES}\n}}\n"

_STROKES = {"": ("line", "1.4"), "opened": ("open", "2.4"), "closed": ("shut", "2.4"), "way": ("way", "3.2")}
"""The colour and the width of an edge of each kind."""

_LINE_CLASSES = {Mark.PLAIN: "more", Mark.OPENED: "plus", Mark.CLOSED: "minus"}


def as_svg(graph: Graph) -> str:
    """Return the drawing as a document of its own."""
    return "\n".join(_document(graph)) + "\n"


def _document(graph: Graph) -> Iterator[str]:
    numbers = {node.node_id: number for number, node in enumerate(graph.nodes)}
    edges = [edge for edge in graph.edges if edge.source != edge.target]
    lines = [edge_lines(edge, graph.node_by_id[edge.source].kind) for edge in edges]
    texts = [node_lines(graph, node) for node in graph.nodes]
    layout = lay_out(
        [_size(text, _PADDING) for text in texts],
        [
            (numbers[edge.source], numbers[edge.target], _size(text, 3.0))
            for edge, text in zip(edges, lines, strict=True)
        ],
    )
    width, height = layout.size.width, layout.size.height
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" font-family="{_FONT}" font-size="12" role="img"'
        ' aria-labelledby="sgagent-graph-title sgagent-graph-text">'
    )
    yield f'<title id="sgagent-graph-title">{_TITLE}</title>'
    yield f'<desc id="sgagent-graph-text">{escape(_description(graph))}</desc>'
    yield f"<style>\n{_STYLE}</style>"
    yield "<defs>"
    yield from map(_tip, _STROKES)
    yield "</defs>"
    yield f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" fill="{LIGHT["paper"]}"/>'
    ways = [(edge.source, edge.target) in graph.highlighted for edge in edges]
    drawn = sorted(zip(ways, edges, layout.routes, strict=True), key=lambda drawing: drawing[0])
    for is_way, edge, route in drawn:  # what stands out comes last, above the others
        yield from _edge(edge, route, is_way=is_way)
    for edge, route, text in zip(edges, layout.routes, lines, strict=True):
        yield from _label(edge, route.label, text)
    for node, place, text in zip(graph.nodes, layout.nodes, texts, strict=True):
        yield from _node(node, place, text, is_way=(node.node_id, node.node_id) in graph.highlighted)
    yield "</svg>"


def _size(lines: Sequence[LabelLine], padding: float) -> Size:
    """Return the room that lines of text take."""
    longest = max((len(line.text) for line in lines), default=0)
    return Size(longest * _CHARACTER + 2 * padding, len(lines) * _LINE + padding)


def _description(graph: Graph) -> str:
    """Return the drawing in words, for who can't see it."""
    said = "An arrow leads from who opens a session to who is reached. "
    return said + ". ".join(sentence(edge) for edge in graph.edges) + ("." if graph.edges else "No arrows.")


def _tip(kind: str) -> str:
    name, (colour, _) = _tip_name(kind), _STROKES[kind]
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerUnits="userSpaceOnUse"'
        f' markerWidth="9" markerHeight="9" orient="auto"><path class="{name}" fill="{LIGHT[colour]}"'
        ' d="M0 0L10 5L0 10z"/></marker>'
    )


def _tip_name(kind: str) -> str:
    return f"tip-{kind}" if kind else "tip"


def _edge(edge: Edge, route: Route, *, is_way: bool) -> Iterator[str]:
    kind = (
        "way" if is_way else {Mark.PLAIN: "", Mark.OPENED: "opened", Mark.CLOSED: "closed"}[edge_mark(edge)]
    )
    colour, width = _STROKES[kind]
    dashes = ' stroke-dasharray="7 5"' if kind == "closed" else ""
    yield f'<g class="edge {kind}"><title>{escape(sentence(edge))}</title>'
    yield (
        f'<path d="{_path(route.points)}" fill="none" stroke="{LIGHT[colour]}" stroke-width="{width}"{dashes}'
        f' marker-end="url(#{_tip_name(kind)})"/></g>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return a line that runs level through every point."""
    (x, y), *_ = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for (x, y), (following_x, following_y) in pairwise(points):
        if y == following_y:
            parts.append(f"H{following_x:.1f}")
        else:
            middle = (x + following_x) / 2
            parts.append(
                f"C{middle:.1f} {y:.1f} {middle:.1f} {following_y:.1f} {following_x:.1f} {following_y:.1f}"
            )
    return "".join(parts)


def _label(edge: Edge, place: NodePlace, lines: Sequence[LabelLine]) -> Iterator[str]:
    yield f'<g class="label"><title>{escape(sentence(edge))}</title>'
    yield _rectangle(place, 3, f'fill="{LIGHT["paper"]}"')
    yield from _text(place, lines, 3.0, first="", plain="ink")
    yield "</g>"


def _node(node: Node, place: NodePlace, lines: Sequence[LabelLine], *, is_way: bool) -> Iterator[str]:
    kind = ("node" if _is_group(node.node_id) else "node beyond") + " way" * is_way
    yield f'<g class="{kind}"><title>{escape(lines[0].text)}</title>'
    fill, stroke = ("box", "rim") if _is_group(node.node_id) else ("beyond", "brink")
    stroke, width = _STROKES["way"] if is_way else (stroke, "1.2")
    paint = f'fill="{LIGHT[fill]}" stroke="{LIGHT[stroke]}" stroke-width="{width}"'
    yield _rectangle(place, 8 if _is_group(node.node_id) else place.size.height / 2, paint)
    yield from _text(place, lines, _PADDING, first="name", plain="faint")
    yield "</g>"


def _is_group(node_id: NodeId) -> bool:
    return node_id.side is Side.BOTH


def _rectangle(place: NodePlace, radius: float, paint: str) -> str:
    return (
        f'<rect x="{place.left:.1f}" y="{place.top:.1f}" width="{place.size.width:.1f}"'
        f' height="{place.size.height:.1f}" rx="{radius:.0f}" {paint}/>'
    )


def _text(
    place: NodePlace, lines: Sequence[LabelLine], padding: float, *, first: str, plain: str
) -> Iterator[str]:
    """Yield lines of text, one below the other.

    Args:
        place: of the rectangle behind it.
        lines: what to write.
        padding: between the rectangle's border and the text.
        first: the class of the first line; empty is that of its mark.
        plain: the colour of lines without a mark.
    """
    x, y = place.left + padding, place.top + padding / 2 + _LINE * 0.75
    for number, line in enumerate(lines):
        kind = first if first and not number else _LINE_CLASSES[line.mark]
        colour = {"name": "ink", "more": plain, "plus": "open", "minus": "shut"}[kind]
        weight = "" if kind == "more" else ' font-weight="700"'
        yield (
            f'<text x="{x:.1f}" y="{y + number * _LINE:.1f}" class="{kind}" fill="{LIGHT[colour]}"{weight}>'
            f"{escape(line.text)}</text>"
        )


def compared(old: Graph, new: Graph) -> Graph:
    """Return both graphs as one, in which each edge knows what might be sent before."""
    before = {(edge.source, edge.target): edge for edge in old.edges}
    edges = []
    for edge in new.edges:
        earlier = before.pop((edge.source, edge.target), None)
        edges.append(replace(edge, before=NO_TRAFFIC if earlier is None else earlier.traffic))
    gone = [replace(edge, traffic=NO_TRAFFIC, before=edge.traffic) for edge in before.values()]
    nodes = {**old.node_by_id, **new.node_by_id}
    return Graph(
        nodes=tuple(sorted(nodes.values(), key=lambda node: order(node.node_id))),
        edges=tuple(sorted((*edges, *gone), key=lambda edge: (order(edge.source), order(edge.target)))),
    )


_Stop = NodeId | None
"""Where somebody on a way may go on from; None is where the way ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HighlightedWay:
    """From whom to whom, and to which port there."""

    source: str
    target: str
    port: int | None = None


def highlighted(graph: Graph, way: HighlightedWay, snapshot: Snapshot) -> Graph:
    """Return the graph with the shortest ways marked: every edge that is on one.

    Who reaches a host by one of its groups may go on by another.

    Args:
        graph: the graph.
        way: its ends are nodes, or addresses of them; a port is asked for where the way ends.
        snapshot: tells whose member an address is.

    Raises:
        ValueError: an end is no node, and no address of one.
    """
    sources = _ends(graph, way.source, snapshot, Side.SOURCE)
    targets = _ends(graph, way.target, snapshot, Side.TARGET)
    return replace(graph, highlighted=frozenset(_on_shortest_ways(graph, sources, targets, way.port)))


def _on_shortest_ways(
    graph: Graph, sources: frozenset[NodeId], targets: frozenset[NodeId], port: int | None
) -> Iterator[tuple[NodeId, NodeId]]:
    """Yield the ends of all edges on the shortest ways of at least one; none where there is no way."""
    reached = _with_fellows(graph, targets)
    edges = [
        edge
        for edge in graph.edges
        if edge.traffic and (port is None or edge.target not in reached or edge.traffic.has_port(port))
    ]
    stops: dict[NodeId, Iterable[_Stop]] = {
        edge.target: [None] if edge.target in reached else _with_fellows(graph, {edge.target})
        for edge in edges
    }
    steps = [(edge.source, stop) for edge in edges for stop in stops[edge.target]]
    after = _distances(steps, _with_fellows(graph, sources))
    before = _distances(((stop, source) for source, stop in steps), [None])
    lengths: dict[tuple[NodeId, NodeId], int] = {}
    for edge in edges:
        left = [before[stop] for stop in stops[edge.target] if stop in before]
        if edge.source in after and left:
            lengths[edge.source, edge.target] = after[edge.source] + 1 + min(left)
    shortest = min(lengths.values(), default=0)
    return (ends for ends, length in lengths.items() if length == shortest)


def _with_fellows(graph: Graph, nodes: Iterable[NodeId]) -> frozenset[NodeId]:
    """Return nodes, and the groups that some member of theirs is in, too."""
    nodes = frozenset(nodes)
    return nodes.union(*(graph.node_by_id[node].together_with for node in nodes))


def _distances(pairs: Iterable[tuple[_Stop, _Stop]], starts: Iterable[_Stop]) -> Mapping[_Stop, int]:
    """Return how many steps lead from the nearest start to each stop that can be reached."""
    onward: dict[_Stop, list[_Stop]] = {}
    for source, target in pairs:
        onward.setdefault(source, []).append(target)
    steps = dict.fromkeys(starts, 0)
    waiting = deque(steps)
    while waiting:
        node = waiting.popleft()
        for following in onward.get(node, ()):
            if following not in steps:
                steps[following] = steps[node] + 1
                waiting.append(following)
    return steps


def _ends(graph: Graph, name: str, snapshot: Snapshot, side: Side) -> frozenset[NodeId]:
    """Return the nodes that are meant by a name, or by an address.

    Raises:
        ValueError: there is none.
    """
    known = graph.node_by_id.keys()
    for node_id in (NodeId(name=name, side=Side.BOTH), NodeId(name=name, side=side)):
        if node_id in known:
            return frozenset({node_id})
    try:
        address = CidrBlock.parse(str(ipaddress.ip_address(name)))
    except ValueError:
        raise ValueError(name) from None
    return _holders(graph, address, snapshot, side)


def _holders(graph: Graph, address: CidrBlock, snapshot: Snapshot, side: Side) -> frozenset[NodeId]:
    """Return the nodes that an address belongs to; where it is no member of a group, also anywhere."""
    members = members_by_group(snapshot)
    groups = {
        NodeId(name=group, side=Side.BOTH)
        for group, addresses in members.items()
        if addresses.contains(address.family, address.first)
    }
    beyond = {
        node.node_id for node in graph.nodes if node.node_id.side is side and _holds(node, address, snapshot)
    }
    return frozenset((groups & graph.node_by_id.keys()) or beyond)


def _holds(node: Node, address: CidrBlock, snapshot: Snapshot) -> bool:
    """Return whether a node that is no group holds an address."""
    match node.kind:
        case NodeKind.ANYWHERE:
            return True
        case NodeKind.NETWORK:
            blocks: tuple[CidrBlock, ...] = (CidrBlock.parse(node.node_id.name),)
        case NodeKind.PREFIX_LIST:
            entries = snapshot.prefix_list_by_id.get(node.node_id.name)
            blocks = entries.entries if entries else ()
        case NodeKind.GROUP | NodeKind.NAME:
            blocks = ()
        case _:
            assert_never(node.kind)
    return any(
        block.family is address.family and block.first <= address.first <= block.last for block in blocks
    )
