"""Highlights in a graph: the effect of a change, and the paths between two nodes."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from sgagent.analysis.graph.elements import NO_TRAFFIC, Graph, Node, NodeId, NodeKind, Side, order
from sgagent.core.model import CidrBlock, Snapshot
from sgagent.core.policy import members_by_group


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
        case NodeKind.GROUP:
            blocks = ()
        case _:
            assert_never(node.kind)
    return any(
        block.family is address.family and block.first <= address.first <= block.last for block in blocks
    )
