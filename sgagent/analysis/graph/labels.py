"""Labels of nodes and edges, for all export formats."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sgagent.analysis.graph.graph import Edge, Graph, Node, NodeKind, Outward, Traffic
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
