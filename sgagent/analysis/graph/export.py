"""The graph as DOT and Mermaid, and the labels of nodes and edges in every format."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sgagent.analysis.graph.elements import Edge, Graph, Node, NodeKind, Outward, Traffic
from sgagent.core.errors import printable

LONGEST = 30
"""Characters of a line; what is longer is cut or goes on in the next."""

_MOST_LINES = 4


class Mark(enum.Enum):
    """What stands out about an edge, or a part of what it carries."""

    PLAIN = "plain"
    OPENED = "opened"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LabelLine:
    """A line of text."""

    text: str
    mark: Mark = Mark.PLAIN


_SIGNS = {Mark.PLAIN: "", Mark.OPENED: "+ ", Mark.CLOSED: "- "}
_OUTWARD = {Outward.OPEN: "anything else goes out", Outward.PARTLY: "some else goes out", Outward.CLOSED: ""}


def node_lines(graph: Graph, node: Node) -> tuple[LabelLine, ...]:
    """Return what stands in a node: its name first, then what is known of it."""
    lines = [LabelLine(printable(node.node_id.name))]
    if node.title:
        lines.append(LabelLine(_cut(printable(node.title))))
    own = next((edge for edge in graph.edges_from(node.node_id) if edge.target == node.node_id), None)
    if own is not None:
        lines += [LabelLine(f"among members: {line.text}", line.mark) for line in edge_lines(own, node.kind)]
    if node.outward is not None and _OUTWARD[node.outward]:
        lines.append(LabelLine(_OUTWARD[node.outward]))
    return tuple(lines)


def edge_lines(edge: Edge, kind: NodeKind) -> tuple[LabelLine, ...]:
    """Return what an edge carries, in a few lines; where something changes, that comes last, with signs.

    Args:
        edge: the edge.
        kind: of its source; of anywhere it is said if only one family is meant.
    """
    parts = (
        (edge.traffic - edge.opened, Mark.PLAIN),
        (edge.opened, Mark.OPENED),
        (edge.closed, Mark.CLOSED),
    )
    lines = [
        LabelLine(_SIGNS[mark] + text, mark) for traffic, mark in parts for text in _traffic_lines(traffic)
    ]
    if kind is NodeKind.ANYWHERE and len(edge.families) == 1:
        (family,) = edge.families
        lines.append(LabelLine(f"{family.value.replace('ip', 'IP')} only"))
    if edge.is_partial:
        lines.append(LabelLine("in part"))
    return tuple(lines)


def edge_mark(edge: Edge) -> Mark:
    """Return what stands out about an edge as a whole."""
    if edge.closed and not edge.traffic:
        return Mark.CLOSED
    return Mark.OPENED if edge.opened and not edge.before else Mark.PLAIN


def sentence(edge: Edge) -> str:
    """Return all there is to say about an edge."""
    what = f"{edge.source.name} to {edge.target.name}: {edge.traffic}"
    if edge.opened:
        what += f"; opened: {edge.opened}"
    if edge.closed:
        what += f"; closed: {edge.closed}"
    if edge.rules:
        what += f" (by {', '.join(edge.rules)})"
    return printable(what + (", in part" if edge.is_partial else ""))


def _traffic_lines(traffic: Traffic) -> Sequence[str]:
    """Return traffic in lines of bearable length, and of them not too many."""
    lines: list[str] = []
    for text in traffic.texts():
        line = ""
        for word in text.split(" "):
            if line and len(line) + 1 + len(word) > LONGEST:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
        lines.append(line)
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "…"]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


_OPEN_COLOUR, _SHUT_COLOUR, _WAY_COLOUR = "#0b7a3b", "#b3261e", "#1857c4"


def as_dot(graph: Graph) -> str:
    """Return the graph in Graphviz's language."""
    return "\n".join(_dot(graph)) + "\n"


def _dot(graph: Graph) -> Iterator[str]:
    numbers = {node.node_id: number for number, node in enumerate(graph.nodes)}
    yield "digraph sgagent {"
    yield '  rankdir=LR; node [fontname="monospace", shape=box, style=rounded]; edge [fontname="monospace"];'
    for node in graph.nodes:
        shape = "" if node.kind is NodeKind.GROUP else ", shape=oval"
        yield f"  n{numbers[node.node_id]} [label={_dot_text(node_lines(graph, node))}{shape}];"
    for edge in _between_nodes(graph):
        label = _dot_text(edge_lines(edge, graph.node_by_id[edge.source].kind))
        style = _dot_style(edge, is_way=(edge.source, edge.target) in graph.highlighted)
        yield f"  n{numbers[edge.source]} -> n{numbers[edge.target]} [label={label}{style}];"
    yield "}"


def _dot_text(lines: Iterable[LabelLine]) -> str:
    escaped = (line.text.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _dot_style(edge: Edge, *, is_way: bool) -> str:
    if is_way:
        return f', color="{_WAY_COLOUR}", penwidth=3'
    return {
        Mark.PLAIN: "",
        Mark.OPENED: f', color="{_OPEN_COLOUR}", penwidth=2',
        Mark.CLOSED: f', color="{_SHUT_COLOUR}", penwidth=2, style=dashed',
    }[edge_mark(edge)]


def as_mermaid(graph: Graph) -> str:
    """Return the graph as a flowchart of Mermaid."""
    return "\n".join(_mermaid(graph)) + "\n"


def _mermaid(graph: Graph) -> Iterator[str]:
    numbers = {node.node_id: number for number, node in enumerate(graph.nodes)}
    yield "flowchart LR"
    for node in graph.nodes:
        opening, closing = ("[", "]") if node.kind is NodeKind.GROUP else ("([", "])")
        yield f"  n{numbers[node.node_id]}{opening}{_mermaid_text(node_lines(graph, node))}{closing}"
    styles = []
    for place, edge in enumerate(_between_nodes(graph)):
        label = _mermaid_text(edge_lines(edge, graph.node_by_id[edge.source].kind))
        yield f"  n{numbers[edge.source]} -->|{label}| n{numbers[edge.target]}"
        style = _mermaid_style(edge, is_way=(edge.source, edge.target) in graph.highlighted)
        if style:
            styles.append(f"  linkStyle {place} {style}")
    yield from styles


def _mermaid_text(lines: Iterable[LabelLine]) -> str:
    """Return lines quoted; what Mermaid or a browser would take for more than text goes by its number."""
    return '"' + "<br>".join(map(_mermaid_line, lines)) + '"'


def _mermaid_line(line: LabelLine) -> str:
    """Return a line escaped; one that begins with a sign and a blank would be an item of a list."""
    sign, blank, rest = line.text.partition(" ")
    begins_with_sign = line.mark is not Mark.PLAIN and sign in ("+", "-")
    escaped = "".join(map(_mermaid_character, rest if begins_with_sign else line.text))
    return f"{sign}#160;{escaped}" if begins_with_sign and blank else escaped


def _mermaid_character(character: str) -> str:
    return f"#{ord(character)};" if character in "\"'#&<>`\\[]{}|;" else character


def _mermaid_style(edge: Edge, *, is_way: bool) -> str:
    if is_way:
        return f"stroke:{_WAY_COLOUR},stroke-width:3px"
    return {
        Mark.PLAIN: "",
        Mark.OPENED: f"stroke:{_OPEN_COLOUR},stroke-width:2px",
        Mark.CLOSED: f"stroke:{_SHUT_COLOUR},stroke-width:2px,stroke-dasharray:7 5",
    }[edge_mark(edge)]


def _between_nodes(graph: Graph) -> Iterator[Edge]:
    """Yield the edges that are drawn as such; what fellow members may do stands in their node."""
    return (edge for edge in graph.edges if edge.source != edge.target)
