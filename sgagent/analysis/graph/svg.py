"""A graph as a self-contained SVG with light and dark colours and text for screen readers.

It highlights the effect of a change, or the paths between two nodes.

No meaning is carried by colour alone: what a change opens has a plus, what it closes a minus and a dashed
line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import assert_never

from sgagent.analysis.graph.elements import (
    NO_TRAFFIC,
    Edge,
    Graph,
    GraphNode,
    LabelLine,
    Mark,
    NodeId,
    NodeKind,
    Side,
    edge_lines,
    edge_mark,
    node_lines,
    sentence,
)
from sgagent.analysis.graph.layout import NodePlace, Route, Size, lay_out
from sgagent.core.members import members_by_group
from sgagent.core.model import CidrBlock, Snapshot

_CHARACTER = 7.25
"""The width of one, of 12 pixels of a font in which all are alike."""

_LINE = 16.0
_PADDING = 10.0
_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,&quot;DejaVu Sans Mono&quot;,monospace"

_COLOURS = {
    "paper": ("#ffffff", "#12181f"),
    "ink": ("#1c2733", "#e6edf5"),
    "faint": ("#56657a", "#a3b1c4"),
    "line": ("#6b7a90", "#8a99ae"),
    "box": ("#eef3f9", "#1f2a37"),
    "rim": ("#9fb0c6", "#50627a"),
    "beyond": ("#fff7e6", "#2c2614"),
    "brink": ("#c9a24b", "#a8873a"),
    "open": ("#0b7a3b", "#4cc47f"),
    "shut": ("#b3261e", "#ff8a80"),
    "way": ("#1857c4", "#7fb0ff"),
}
LIGHT = {name: light for name, (light, _) in _COLOURS.items()}

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

_DARK_RULES = "\n".join(f"{selector}{{{name}:{_COLOURS[colour][1]}}}" for selector, name, colour in COLOURED)
_STYLE = f"svg{{color-scheme:light dark}}\n@media(prefers-color-scheme:dark){{\n{_DARK_RULES}\n}}\n"

_STROKES = {
    Mark.PLAIN: ("line", "1.4"),
    Mark.OPENED: ("open", "2.4"),
    Mark.CLOSED: ("shut", "2.4"),
    Mark.WAY: ("way", "3.2"),
}
"""The colour and the width of an edge."""

_LINE_CLASSES = {Mark.PLAIN: "more", Mark.OPENED: "plus", Mark.CLOSED: "minus"}


def as_svg(graph: Graph) -> str:
    """Return the drawing as a document of its own."""
    return "\n".join(_document(graph)) + "\n"


def _document(graph: Graph) -> Iterator[str]:
    lines = [edge_lines(graph, edge) for edge in graph.arrows]
    texts = [node_lines(graph, node) for node in graph.nodes]
    layout = lay_out(
        [_size(text, _PADDING) for text in texts],
        [
            (graph.numbers[edge.source], graph.numbers[edge.target], _size(text, 3.0))
            for edge, text in zip(graph.arrows, lines, strict=True)
        ],
    )
    width, height = layout.size.width, layout.size.height
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" font-family="{_FONT}" font-size="12" role="img"'
        ' aria-labelledby="sgagent-graph-title sgagent-graph-text">'
    )
    yield '<title id="sgagent-graph-title">Who may talk to whom</title>'
    yield f'<desc id="sgagent-graph-text">{escape(_description(graph))}</desc>'
    yield f"<style>\n{_STYLE}</style>"
    yield "<defs>"
    yield from map(_tip, _STROKES)
    yield "</defs>"
    yield f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" fill="{LIGHT["paper"]}"/>'
    marks = [edge_mark(graph, edge) for edge in graph.arrows]
    drawn = sorted(zip(marks, graph.arrows, layout.routes, strict=True), key=lambda one: one[0] is Mark.WAY)
    for mark, edge, route in drawn:  # highlighted edges come last, above the others
        yield from _edge(edge, route, mark)
    for edge, route, text in zip(graph.arrows, layout.routes, lines, strict=True):
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
    return said + (". ".join(map(sentence, graph.edges)) or "No arrows") + "."


def _tip(mark: Mark) -> str:
    name, (colour, _) = _tip_name(mark), _STROKES[mark]
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerUnits="userSpaceOnUse"'
        f' markerWidth="9" markerHeight="9" orient="auto"><path class="{name}" fill="{LIGHT[colour]}"'
        ' d="M0 0L10 5L0 10z"/></marker>'
    )


def _tip_name(mark: Mark) -> str:
    return f"tip-{mark.value}" if mark.value else "tip"


def _edge(edge: Edge, route: Route, mark: Mark) -> Iterator[str]:
    colour, width = _STROKES[mark]
    dashes = ' stroke-dasharray="7 5"' if mark is Mark.CLOSED else ""
    yield f'<g class="edge {mark.value}"><title>{escape(sentence(edge))}</title>'
    yield (
        f'<path d="{_path(route.points)}" fill="none" stroke="{LIGHT[colour]}" stroke-width="{width}"{dashes}'
        f' marker-end="url(#{_tip_name(mark)})"/></g>'
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


def _node(node: GraphNode, place: NodePlace, lines: Sequence[LabelLine], *, is_way: bool) -> Iterator[str]:
    is_group = node.node_id.side is Side.BOTH
    kind = ("node" if is_group else "node beyond") + " way" * is_way
    yield f'<g class="{kind}"><title>{escape(lines[0].text)}</title>'
    fill, stroke = ("box", "rim") if is_group else ("beyond", "brink")
    stroke, width = _STROKES[Mark.WAY] if is_way else (stroke, "1.2")
    paint = f'fill="{LIGHT[fill]}" stroke="{LIGHT[stroke]}" stroke-width="{width}"'
    yield _rectangle(place, 8 if is_group else place.size.height / 2, paint)
    yield from _text(place, lines, _PADDING, first="name", plain="faint")
    yield "</g>"


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
    """Return both graphs as one, in which each edge knows the traffic before."""
    before = dict(old.edge_by_ends)
    edges = []
    for ends, edge in new.edge_by_ends.items():
        earlier = before.pop(ends, None)
        edges.append(replace(edge, before=NO_TRAFFIC if earlier is None else earlier.traffic))
    edges += (replace(edge, traffic=NO_TRAFFIC, before=edge.traffic) for edge in before.values())
    return Graph.of({**old.node_by_id, **new.node_by_id}.values(), edges)


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
    steps: list[list[Edge]] = []
    here, seen, ends = _with_fellows(graph, sources), frozenset[NodeId](), frozenset[NodeId]()
    while here and not ends & reached:
        steps.append([edge for edge in edges if edge.source in here])
        ends, seen = frozenset(edge.target for edge in steps[-1]), seen | here
        here = _with_fellows(graph, ends) - seen
    wanted = ends & reached
    for step in reversed(steps):
        leading = [edge for edge in step if edge.target in wanted]
        yield from ((edge.source, edge.target) for edge in leading)
        wanted = _with_fellows(graph, (edge.source for edge in leading))


def _with_fellows(graph: Graph, nodes: Iterable[NodeId]) -> frozenset[NodeId]:
    """Return nodes, and the groups that some member of theirs is in, too."""
    nodes = frozenset(nodes)
    return nodes.union(*(graph.node_by_id[node].together_with for node in nodes))


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
    groups = {
        NodeId(name=group, side=Side.BOTH)
        for group, addresses in members_by_group(snapshot).items()
        if addresses.contains(address.family, address.first)
    }
    beyond = (node for node in graph.nodes if node.node_id.side is side and _holds(node, address, snapshot))
    return frozenset((groups & graph.node_by_id.keys()) or (node.node_id for node in beyond))


def _holds(node: GraphNode, address: CidrBlock, snapshot: Snapshot) -> bool:
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
