"""The graph's values: nodes and edges."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sgagent.analysis.flow_text import port_text, protocol_text
from sgagent.analysis.header_space import ALL_PROTOCOL_NUMBERS, Box, Label
from sgagent.analysis.redundancy import code_of
from sgagent.core.addresses import NONE, Ranges, common, holds, joined, without
from sgagent.core.model import ALL_PORTS, LAST_PORT, PORTED, PORTED_NUMBERS, Family, Protocol

_WITHOUT_PORTS = without(ALL_PROTOCOL_NUMBERS, joined((number, number) for number in PORTED_NUMBERS))


def _codes(protocols: Ranges) -> Ranges:
    """Return protocols with all their ports."""
    return tuple((code_of(first), code_of(last, LAST_PORT)) for first, last in protocols)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What may be sent; equal sets are equal values."""

    codes: Ranges = NONE
    """Protocols with their destination ports, numbered by :func:`code_of`; all ports where there are none."""

    @classmethod
    def of(cls, box: Box[Label]) -> Traffic:
        """Return what a box of packets holds."""
        if box.ports == ALL_PORTS.ranges:
            return cls(joined(_codes(box.protocols)))
        numbers = (number for first, last in box.protocols for number in range(first, last + 1))
        return cls(
            joined(
                (code_of(number, low), code_of(number, high)) for number in numbers for low, high in box.ports
            )
        )

    def __or__(self, other: Traffic) -> Traffic:
        """Return what is in either."""
        return Traffic(joined((*self.codes, *other.codes)))

    def __and__(self, other: Traffic) -> Traffic:
        """Return what is in both."""
        return Traffic(common(self.codes, other.codes))

    def __sub__(self, other: Traffic) -> Traffic:
        """Return what is in this and not in the other."""
        return Traffic(without(self.codes, other.codes))

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
        """Return what may be sent in words, like ``tcp 80, 443`` and ``icmp``; everything is ``all``."""
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
        """Return what may be sent in one line."""
        return "; ".join(self.texts()) or "nothing"


NO_TRAFFIC = Traffic()
ALL_TRAFFIC = Traffic(_codes(ALL_PROTOCOL_NUMBERS))


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
