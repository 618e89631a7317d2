"""Export of a graph as DOT for Graphviz, and as Mermaid for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sgagent.analysis.graph.graph import Edge, Graph, NodeKind
from sgagent.analysis.graph.labels import LabelLine, Mark, edge_lines, edge_mark, node_lines

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
