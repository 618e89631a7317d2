"""The graph's values: nodes and edges."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sgagent.analysis.flow_text import port_text, protocol_text
from sgagent.analysis.header_space import ALL_PROTOCOL_NUMBERS, Box, Label
from sgagent.core.addresses import NONE, Ranges, common, holds, joined, without
from sgagent.core.model import ALL_PORTS, TCP, UDP, Family

_TCP, _UDP = 6, 17
_WITHOUT_PORTS = without(ALL_PROTOCOL_NUMBERS, ((_TCP, _TCP), (_UDP, _UDP)))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What may be sent; equal sets are equal values."""

    tcp: Ranges = NONE
    """Destination ports."""

    udp: Ranges = NONE
    others: Ranges = NONE
    """Numbers of protocols without ports."""

    @classmethod
    def of(cls, box: Box[Label]) -> Traffic:
        """Return what a box of packets holds."""
        return cls(
            tcp=box.ports if holds(box.protocols, _TCP) else NONE,
            udp=box.ports if holds(box.protocols, _UDP) else NONE,
            others=common(box.protocols, _WITHOUT_PORTS),
        )

    def __or__(self, other: Traffic) -> Traffic:
        """Return what is in either."""
        return Traffic(
            joined((*self.tcp, *other.tcp)),
            joined((*self.udp, *other.udp)),
            joined((*self.others, *other.others)),
        )

    def __and__(self, other: Traffic) -> Traffic:
        """Return what is in both."""
        return Traffic(
            common(self.tcp, other.tcp), common(self.udp, other.udp), common(self.others, other.others)
        )

    def __sub__(self, other: Traffic) -> Traffic:
        """Return what is in this and not in the other."""
        return Traffic(
            without(self.tcp, other.tcp), without(self.udp, other.udp), without(self.others, other.others)
        )

    def __bool__(self) -> bool:
        """Return whether anything may be sent."""
        return bool(self.tcp or self.udp or self.others)

    def has_port(self, port: int) -> bool:
        """Return whether the port may be reached, by TCP or UDP."""
        return holds(self.tcp, port) or holds(self.udp, port)

    def texts(self) -> tuple[str, ...]:
        """Return what may be sent in words, like ``tcp 80, 443`` and ``icmp``; everything is ``all``."""
        if self == ALL_TRAFFIC:
            return ("all",)
        found = [
            f"{protocol} {port_text(ports)}" if ports != ALL_PORTS.ranges else str(protocol)
            for protocol, ports in ((TCP, self.tcp), (UDP, self.udp))
            if ports
        ]
        if self.others == _WITHOUT_PORTS:
            found.append("all other protocols")
        elif self.others:
            found.append(protocol_text(self.others))
        return tuple(found)

    def __str__(self) -> str:
        """Return what may be sent in one line."""
        return "; ".join(self.texts()) or "nothing"


NO_TRAFFIC = Traffic()
ALL_TRAFFIC = Traffic(ALL_PORTS.ranges, ALL_PORTS.ranges, _WITHOUT_PORTS)


ANYWHERE = "anywhere"


class NodeKind(enum.Enum):
    """What a node stands for."""

    GROUP = "group"
    PREFIX_LIST = "prefix_list"
    NETWORK = "network"
    ANYWHERE = "anywhere"


class Side(enum.Enum):
    """Which end of edges a node is; what is no group is one node for each end."""

    BOTH = "both"
    SOURCE = "source"
    TARGET = "target"


class Outward(enum.Enum):
    """What becomes of what a group's members open and no rule speaks of."""

    OPEN = "open"
    """The default lets it out, wherever the group is attached, in every family that is there."""

    PARTLY = "partly"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeId:
    """What a node is known by."""

    name: str
    """The id of a group or list, a CIDR, or ``anywhere``."""

    side: Side

    def __str__(self) -> str:
        """Return the id for scripts: the name, that of a target beyond the groups after ``to``."""
        return f"to {self.name}" if self.side is Side.TARGET else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Somebody who may talk, or be talked to."""

    node_id: NodeId
    kind: NodeKind
    title: str = ""
    """The group's name."""

    outward: Outward | None = None
    """None for what is no group, and for groups without members."""

    together_with: frozenset[NodeId] = frozenset()
    """The other groups that some member is in, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What one may send to another."""

    source: NodeId
    target: NodeId
    traffic: Traffic
    rules: tuple[str, ...]
    """Ids of the rules that accept it, sorted; none where fellow members may talk."""

    families: frozenset[Family]
    """In which any of it may be sent."""

    is_partial: bool = False
    """Whether it holds for some members only, some addresses of the object, or some source ports."""

    before: Traffic | None = None
    """What might be sent before a change; None where nothing is compared."""

    @property
    def opened(self) -> Traffic:
        """Return what a change lets in."""
        return NO_TRAFFIC if self.before is None else self.traffic - self.before

    @property
    def closed(self) -> Traffic:
        """Return what a change shuts out."""
        return NO_TRAFFIC if self.before is None else self.before - self.traffic


@dataclass(frozen=True)
class Graph:
    """Nodes and edges, sorted."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    highlighted: frozenset[tuple[NodeId, NodeId]] = frozenset()
    """Source and target of edges that stand out."""

    @cached_property
    def node_by_id(self) -> Mapping[NodeId, Node]:
        """Return the nodes by their ids."""
        return {node.node_id: node for node in self.nodes}

    @cached_property
    def edges_by_source(self) -> Mapping[NodeId, tuple[Edge, ...]]:
        """Return the edges by where they begin."""
        found: dict[NodeId, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.source, []).append(edge)
        return {source: tuple(edges) for source, edges in found.items()}

    def edges_from(self, source: NodeId) -> tuple[Edge, ...]:
        """Return the edges that begin at a node."""
        return self.edges_by_source.get(source, ())


def order(node_id: NodeId) -> tuple[str, str]:
    """Return a sort key."""
    return (node_id.name, node_id.side.value)
