"""The graph's values, nodes and edges, their labels in every format, and the graph as DOT and Mermaid."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from sgagent.analysis.cells import code_of
from sgagent.analysis.flow_text import port_text, protocol_text
from sgagent.analysis.header_space import ALL_PROTOCOL_NUMBERS, Box, Label
from sgagent.core.addresses import NONE, Ranges, common, holds, joined, ranges_of, without
from sgagent.core.errors import printable
from sgagent.core.model import ALL_PORTS, LAST_PORT, PORTED, PORTED_NUMBERS, Family, Protocol

_WITHOUT_PORTS = without(ALL_PROTOCOL_NUMBERS, ranges_of(PORTED_NUMBERS))


def _codes(protocols: Ranges) -> Ranges:
    """Return protocols with all their ports."""
    return tuple((code_of(first), code_of(last, LAST_PORT)) for first, last in protocols)


@dataclass(frozen=True, slots=True)
class AllowedTraffic:
    """The packets that may be sent; equal sets are equal values."""

    codes: Ranges = NONE
    """Protocols with their destination ports, numbered by :func:`code_of`; all ports where there are none."""

    @classmethod
    def of(cls, box: Box[Label]) -> AllowedTraffic:
        """Return the traffic of a box of packets."""
        if box.ports == ALL_PORTS.ranges:
            return cls(joined(_codes(box.protocols)))
        numbers = (number for first, last in box.protocols for number in range(first, last + 1))
        codes = ((code_of(one, low), code_of(one, high)) for one in numbers for low, high in box.ports)
        return cls(joined(codes))

    def __or__(self, other: AllowedTraffic) -> AllowedTraffic:
        """Return the traffic in either."""
        return AllowedTraffic(joined((*self.codes, *other.codes)))

    def __and__(self, other: AllowedTraffic) -> AllowedTraffic:
        """Return the traffic in both."""
        return AllowedTraffic(common(self.codes, other.codes))

    def __sub__(self, other: AllowedTraffic) -> AllowedTraffic:
        """Return the traffic in this and not in the other."""
        return AllowedTraffic(without(self.codes, other.codes))

    def __bool__(self) -> bool:
        """Return whether anything may be sent."""
        return bool(self.codes)

    def ports(self, protocol: Protocol) -> Ranges:
        """Return the destination ports of a protocol."""
        number = protocol.wire_number
        here = common(self.codes, _codes(((number, number),)))
        return tuple((first & LAST_PORT, last & LAST_PORT) for first, last in here)

    @property
    def others(self) -> Ranges:
        """Return the numbers of protocols without ports."""
        here = common(self.codes, _codes(_WITHOUT_PORTS))
        return tuple((first >> 16, last >> 16) for first, last in here)

    def has_port(self, port: int) -> bool:
        """Return whether the port may be reached, by any protocol."""
        return any(holds(self.ports(protocol), port) for protocol in PORTED)

    def texts(self) -> tuple[str, ...]:
        """Return the traffic in words, like ``tcp 80, 443`` and ``icmp``; everything is ``all``."""
        if self == ALL_TRAFFIC:
            return ("all",)
        found = [
            f"{protocol} {port_text(ports)}" if ports != ALL_PORTS.ranges else str(protocol)
            for protocol in PORTED
            if (ports := self.ports(protocol))
        ]
        if self.others == _WITHOUT_PORTS:
            found.append("all other protocols")
        elif self.others:
            found.append(protocol_text(self.others))
        return tuple(found)

    def __str__(self) -> str:
        """Return the traffic in one line."""
        return "; ".join(self.texts()) or "nothing"


NO_TRAFFIC = AllowedTraffic()
ALL_TRAFFIC = AllowedTraffic(_codes(ALL_PROTOCOL_NUMBERS))


ANYWHERE = "anywhere"


class NodeKind(enum.Enum):
    """The kind of a node's object."""

    GROUP = "group"
    PREFIX_LIST = "prefix_list"
    NAME = "name"
    NETWORK = "network"
    ANYWHERE = "anywhere"


class Side(enum.Enum):
    """Which end of edges a node is; anything but a group is one node for each end."""

    BOTH = "both"
    SOURCE = "source"
    TARGET = "target"


class Outward(enum.Enum):
    """The verdict on packets that a group's members send and no rule matches."""

    OPEN = "open"
    """The default lets it out, wherever the group is attached, in every family that is there."""

    PARTLY = "partly"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeId:
    """The identity of a node."""

    name: str
    """The id of a group or list, a CIDR, or ``anywhere``."""

    side: Side

    @property
    def order(self) -> tuple[str, str]:
        """Return a sort key."""
        return self.name, self.side.value

    def __str__(self) -> str:
        """Return the id for scripts: the name, that of a target beyond the groups after ``to``."""
        return f"to {self.name}" if self.side is Side.TARGET else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """Somebody who may talk, or be talked to."""

    node_id: NodeId
    kind: NodeKind
    title: str = ""
    """The group's name, or that a name is not resolved."""

    outward: Outward | None = None
    """None for what is no group, and for groups that are attached nowhere and have no rules."""

    together_with: frozenset[NodeId] = frozenset()
    """The other groups that some member is in, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The traffic that one node may send to another."""

    source: NodeId
    target: NodeId
    traffic: AllowedTraffic
    rules: tuple[str, ...]
    """Ids of the rules that accept it, sorted; none where fellow members may talk."""

    families: frozenset[Family]
    """In which any of it may be sent."""

    is_partial: bool = False
    """Whether it holds for some members only, some addresses of the object, or some source ports."""

    before: AllowedTraffic | None = None
    """The traffic before a change; None where nothing is compared."""

    @property
    def opened(self) -> AllowedTraffic:
        """Return the traffic that a change lets in."""
        return NO_TRAFFIC if self.before is None else self.traffic - self.before

    @property
    def closed(self) -> AllowedTraffic:
        """Return the traffic that a change shuts out."""
        return NO_TRAFFIC if self.before is None else self.before - self.traffic


@dataclass(frozen=True)
class Graph:
    """Nodes and edges, sorted."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[Edge, ...]
    highlighted: frozenset[tuple[NodeId, NodeId]] = frozenset()
    """Source and target of edges that stand out."""

    @classmethod
    def of(cls, nodes: Iterable[GraphNode], edges: Iterable[Edge]) -> Graph:
        """Return the graph of nodes and edges in any order."""
        return cls(
            nodes=tuple(sorted(nodes, key=lambda node: node.node_id.order)),
            edges=tuple(sorted(edges, key=lambda edge: (edge.source.order, edge.target.order))),
        )

    @cached_property
    def node_by_id(self) -> Mapping[NodeId, GraphNode]:
        """Return the nodes by their ids."""
        return {node.node_id: node for node in self.nodes}

    @cached_property
    def numbers(self) -> Mapping[NodeId, int]:
        """Return the place of each node."""
        return {node.node_id: number for number, node in enumerate(self.nodes)}

    @cached_property
    def edge_by_ends(self) -> Mapping[tuple[NodeId, NodeId], Edge]:
        """Return the edges by their sources and targets."""
        return {(edge.source, edge.target): edge for edge in self.edges}

    @cached_property
    def arrows(self) -> tuple[Edge, ...]:
        """Return the edges that are drawn as such; the traffic of fellow members is in their node."""
        return tuple(edge for edge in self.edges if edge.source != edge.target)


LONGEST = 30
"""Characters of a line; what is longer is cut or goes on in the next."""

_MOST_LINES = 4


class Mark(enum.Enum):
    """The emphasis of an edge, or of a part of its traffic."""

    PLAIN = ""
    OPENED = "opened"
    CLOSED = "closed"
    WAY = "way"
    """The edge is highlighted."""


@dataclass(frozen=True, slots=True)
class LabelLine:
    """A line of text."""

    text: str
    mark: Mark = Mark.PLAIN


_OUTWARD = {Outward.OPEN: "anything else goes out", Outward.PARTLY: "some else goes out", Outward.CLOSED: ""}


def node_lines(graph: Graph, node: GraphNode) -> tuple[LabelLine, ...]:
    """Return the lines in a node: its name first, then its facts."""
    lines = [LabelLine(printable(node.node_id.name))]
    if node.title:
        title = printable(node.title)
        lines.append(LabelLine(title if len(title) <= LONGEST else f"{title[: LONGEST - 1]}…"))
    own = graph.edge_by_ends.get((node.node_id, node.node_id))
    if own is not None:
        lines += [LabelLine(f"among members: {line.text}", line.mark) for line in edge_lines(graph, own)]
    if node.outward is not None and _OUTWARD[node.outward]:
        lines.append(LabelLine(_OUTWARD[node.outward]))
    return tuple(lines)


def edge_lines(graph: Graph, edge: Edge) -> tuple[LabelLine, ...]:
    """Return an edge's traffic, in a few lines; changes come last, with signs."""
    parts = (
        (edge.traffic - edge.opened, "", Mark.PLAIN),
        (edge.opened, "+ ", Mark.OPENED),
        (edge.closed, "- ", Mark.CLOSED),
    )
    lines = [
        LabelLine(sign + text, mark) for traffic, sign, mark in parts for text in _traffic_lines(traffic)
    ]
    if graph.node_by_id[edge.source].kind is NodeKind.ANYWHERE and len(edge.families) == 1:
        (family,) = edge.families
        lines.append(LabelLine(f"{family.value.replace('ip', 'IP')} only"))
    if edge.is_partial:
        lines.append(LabelLine("in part"))
    return tuple(lines)


def edge_mark(graph: Graph, edge: Edge) -> Mark:
    """Return the emphasis of an edge as a whole."""
    if (edge.source, edge.target) in graph.highlighted:
        return Mark.WAY
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


def _traffic_lines(traffic: AllowedTraffic) -> Sequence[str]:
    """Return traffic in lines of bearable length, and of them not too many."""
    wrap = partial(textwrap.wrap, width=LONGEST, break_long_words=False, break_on_hyphens=False)
    lines = [line for text in traffic.texts() for line in wrap(text)]
    return lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "…"]


_DOT_STYLES = {
    Mark.PLAIN: "",
    Mark.OPENED: ', color="#0b7a3b", penwidth=2',
    Mark.CLOSED: ', color="#b3261e", penwidth=2, style=dashed',
    Mark.WAY: ', color="#1857c4", penwidth=3',
}
_MERMAID_STYLES = {
    Mark.OPENED: "stroke:#0b7a3b,stroke-width:2px",
    Mark.CLOSED: "stroke:#b3261e,stroke-width:2px,stroke-dasharray:7 5",
    Mark.WAY: "stroke:#1857c4,stroke-width:3px",
}


def as_dot(graph: Graph) -> str:
    """Return the graph in Graphviz's language."""
    return "\n".join(_dot(graph)) + "\n"


def _dot(graph: Graph) -> Iterator[str]:
    yield "digraph sgagent {"
    yield '  rankdir=LR; node [fontname="monospace", shape=box, style=rounded]; edge [fontname="monospace"];'
    for number, node in enumerate(graph.nodes):
        shape = "" if node.kind is NodeKind.GROUP else ", shape=oval"
        yield f"  n{number} [label={_dot_text(node_lines(graph, node))}{shape}];"
    for edge in graph.arrows:
        label, style = _dot_text(edge_lines(graph, edge)), _DOT_STYLES[edge_mark(graph, edge)]
        yield f"  n{graph.numbers[edge.source]} -> n{graph.numbers[edge.target]} [label={label}{style}];"
    yield "}"


def _dot_text(lines: Iterable[LabelLine]) -> str:
    escaped = (line.text.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def as_mermaid(graph: Graph) -> str:
    """Return the graph as a flowchart of Mermaid."""
    return "\n".join(_mermaid(graph)) + "\n"


def _mermaid(graph: Graph) -> Iterator[str]:
    yield "flowchart LR"
    for node in graph.nodes:
        opening, closing = ("[", "]") if node.kind is NodeKind.GROUP else ("([", "])")
        yield f"  n{graph.numbers[node.node_id]}{opening}{_mermaid_text(node_lines(graph, node))}{closing}"
    for edge in graph.arrows:
        label = _mermaid_text(edge_lines(graph, edge))
        yield f"  n{graph.numbers[edge.source]} -->|{label}| n{graph.numbers[edge.target]}"
    for place, mark in enumerate(edge_mark(graph, edge) for edge in graph.arrows):
        if mark in _MERMAID_STYLES:
            yield f"  linkStyle {place} {_MERMAID_STYLES[mark]}"


def _mermaid_text(lines: Iterable[LabelLine]) -> str:
    """Return lines quoted; signs that Mermaid or a browser may take for more than text go by number."""
    return '"' + "<br>".join(map(_mermaid_line, lines)) + '"'


def _mermaid_line(line: LabelLine) -> str:
    """Return a line escaped; one that begins with a sign and a blank would be an item of a list."""
    escaped = "".join(f"#{ord(one)};" if one in "\"'#&<>`\\[]{}|;" else one for one in line.text)
    has_sign = line.mark is not Mark.PLAIN and escaped[:2] in ("+ ", "- ")
    return f"{escaped[0]}#160;{escaped[2:]}" if has_sign else escaped
