"""``sgagent graph``: draw which groups and addresses may connect to each other."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from dataclasses import replace

from sgagent.analysis.flow_text import port_text
from sgagent.analysis.graph.edges import make_graph
from sgagent.analysis.graph.elements import AllowedTraffic, Edge, Graph, as_dot, as_mermaid
from sgagent.analysis.graph.svg import HighlightedWay, as_svg, compared, highlighted
from sgagent.analysis.lint.subject import make_subject
from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import progress, warn
from sgagent.core.binding import HostFacts
from sgagent.core.errors import Problem, Severity, UsageError
from sgagent.core.model import LAST_PORT, PORTED, Snapshot
from sgagent.core.resolve import Exemptions, dns_names
from sgagent.documents.parse import with_key_lines
from sgagent.ports import Delivery
from sgagent.settings import Settings

_FEW = 5
_WRITERS = {"svg": as_svg, "dot": as_dot, "mermaid": as_mermaid}
_WAY = re.compile(
    r"(?P<source>[^>]+)->(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<target>[^:>]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    inputs.add_definitions_arguments(parser)
    inputs.add_dns_argument(parser)
    add("--output", "what is printed (default: svg)", choices=tuple(_WRITERS), default="svg")
    add(
        "--highlight SOURCE->DESTINATION[:PORT]",
        "highlight the shortest paths from one group, object or address to another",
        type=_way,
    )
    add("--changes-from PATH", "mark what opens and closes compared with these documents")
    add("--strict", "treat warnings as errors")
    add("--json", "print one JSON object instead")


def run(options: argparse.Namespace) -> int:
    """Print the graph."""
    settings = load_settings(options)
    delivery = inputs.fetch(settings, options.definitions)
    graph = _graph(settings, delivery, options)
    if options.changes_from is not None:
        graph = compared(_graph(settings, inputs.fetch(settings, options.changes_from), options), graph)
    if options.highlight is not None:
        graph = _highlighted(graph, options.highlight, delivery.snapshot)
    if options.json:
        print(json.dumps(as_json(graph)))
    else:
        sys.stdout.write(_WRITERS[options.output](graph))
    return 0


def _way(text: str) -> HighlightedWay:
    """Return the way that an argument names."""
    found = _WAY.fullmatch(text)
    if found is None or int(found["port"] or 1) not in range(1, LAST_PORT + 1):
        raise argparse.ArgumentTypeError(f"expected SOURCE->DESTINATION[:PORT], found {text}")
    return HighlightedWay(
        source=found["source"].strip(),
        target=(found["address"] or found["target"]).strip(),
        port=int(found["port"]) if found["port"] else None,
    )


def _graph(settings: Settings, delivery: Delivery, options: argparse.Namespace) -> Graph:
    """Return the graph of the definitions; print their problems."""
    dns = inputs.dns_answers(settings, options)
    names = dns.of(dns_names(delivery.snapshot), HostFacts()).addresses
    subject = make_subject(delivery.snapshot, Exemptions(), at=inputs.latest_time(settings), names=names)
    own = with_key_lines(map(_bearable, subject.problems), delivery.documents, settings.limits)
    inputs.accept_or_refuse((*delivery.problems, *own), settings, options)
    with progress("looking at groups", len(subject.attachments)) as advance:
        return make_graph(subject, advance)


def _bearable(problem: Problem) -> Problem:
    """Return a problem, as a warning where it is an object that is not there: nobody, and so no edge."""
    is_absence = problem.code in ("unknown_object", "unknown_object_in_drop")
    return replace(problem, severity=Severity.WARNING) if is_absence else problem


def _highlighted(graph: Graph, way: HighlightedWay, snapshot: Snapshot) -> Graph:
    """Return the graph with a way marked, and tell if there is none.

    Raises:
        UsageError: an end of it is nowhere in the graph.
    """
    try:
        found = highlighted(graph, way, snapshot)
    except ValueError as error:
        names = sorted({node.node_id.name for node in graph.nodes})
        near = difflib.get_close_matches(str(error), names) or names[:_FEW]
        raise UsageError(
            f"--highlight {error}: neither in the graph nor an address (there is {', '.join(near)} …)"
        ) from error
    if not found.highlighted:
        to = way.target if way.port is None else f"port {way.port} of {way.target}"
        warn(f"there is no path from {way.source} to {to}")
    return found


def as_json(graph: Graph) -> dict[str, object]:
    """Return the graph as the object that scripts read."""
    nodes = [
        {
            "id": str(node.node_id),
            "name": node.node_id.name,
            "kind": node.kind.value,
            "title": node.title,
            "outward": node.outward.value if node.outward else None,
            "together_with": sorted(map(str, node.together_with)),
        }
        for node in graph.nodes
    ]
    return {"nodes": nodes, "edges": [_edge_json(edge, graph) for edge in graph.edges]}


def _edge_json(edge: Edge, graph: Graph) -> dict[str, object]:
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "allowed": _traffic_json(edge.traffic),
        "rule_ids": list(edge.rules),
        "families": sorted(family.value for family in edge.families),
        "is_partial": edge.is_partial,
        "opened": _traffic_json(edge.opened) if edge.before is not None else None,
        "closed": _traffic_json(edge.closed) if edge.before is not None else None,
        "is_highlighted": (edge.source, edge.target) in graph.highlighted,
    }


def _traffic_json(traffic: AllowedTraffic) -> dict[str, object]:
    """Return traffic: ports by protocol, numbers of protocols without ports, and all of it in words."""
    return {
        "text": str(traffic),
        **{str(protocol): port_text(traffic.ports(protocol)) or None for protocol in PORTED},
        "other_protocols": port_text(traffic.others) or None,
    }
