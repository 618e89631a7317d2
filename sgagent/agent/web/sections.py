"""Sections of the overview page, except the rules: the tiles of the first screen, and their details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import urlencode

from sgagent.agent.clock import age
from sgagent.agent.control.requests import DeniedAnswer, StatusAnswer
from sgagent.agent.control.status_text import facts
from sgagent.agent.posture import InterfaceStatus
from sgagent.agent.published_status import MOST_STEPS, SAMPLE_SECONDS, STEP_SECONDS, Sample
from sgagent.agent.web.inspection import MOST_EDGES, Inspected, draw_graph
from sgagent.agent.web.page import PRIVATE, Response, Section, plain
from sgagent.agent.web.rules import Sparkline, draw_bars, explain_flow, rule_path
from sgagent.analysis.lint.findings import FindingSeverity
from sgagent.core.errors import count
from sgagent.core.model import Policy

MOST_FINDINGS = 100
"""Shown on the page, the most severe first."""

MOST_SENTENCES = 500
"""Edges of the graph that the page lists in words."""

MOST_DROPS = 20
"""Shown on the page, the newest first."""


def state_section(answer: StatusAnswer, now: float) -> Section:
    """Return the facts of ``sgagent status``, each label with its lines."""
    view: list[tuple[str, list[str]]] = []
    for label, line in facts(answer, now):
        if label:
            view.append((label, [line]))
        else:
            view[-1][1].append(line)
    return Section("state", "State", "state.html", view)


def interfaces_section(links: Sequence[InterfaceStatus], inspected: Inspected) -> Section:
    """Return the links and their groups.

    Args:
        links: of this host.
        inspected: what is known about the definitions of the groups.
    """
    on: dict[str, list[str]] = {}
    for link in links:
        for group in link.security_group_ids:
            on.setdefault(group, []).append(link.name)
    known = inspected.groups
    groups = [(group, known.get(group), ", ".join(names)) for group, names in sorted(on.items())]
    view = {"links": links, "groups": groups if known.keys() & on.keys() else ()}
    return Section("interfaces", "Interfaces and groups", "interfaces.html", view)


def warnings_section(answer: StatusAnswer, inspected: Inspected) -> Section:
    """Return the warnings of the definitions in force, and lint's findings in them."""
    number = answer.warnings or 0
    view = {
        "summary": f"{count(number, 'warning')} of the definitions; lint: {findings_summary(inspected)}",
        "warnings": answer.first_warnings,
        "warnings_left_out": max(0, number - len(answer.first_warnings)),
        "inspected": inspected,
        "findings": inspected.findings[:MOST_FINDINGS],
        "left_out": max(0, len(inspected.findings) - MOST_FINDINGS),
    }
    return Section("warnings", "Warnings", "warnings.html", view)


def findings_summary(inspected: Inspected) -> str:
    """Return how many findings of each severity there are, in words."""
    if inspected.reason:
        return "not known"
    counts = Counter(finding.severity for finding in inspected.findings)
    parts = (count(counts[severity], severity.value) for severity in FindingSeverity if counts[severity])
    return ", ".join(parts) or "nothing found"


GRAPH_PATH = "/graph.svg"

_GRAPH_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of the drawing alone: it carries its style, and the page shows it as a picture."""


def graph_section(inspected: Inspected, group: str = "", *, is_own_page: bool = False) -> Section:
    """Return the drawing of the graph, and its edges as text.

    Args:
        inspected: what is known about the definitions.
        group: stands out with its edges; empty or unknown is none.
        is_own_page: whether the page shows nothing else.
    """
    group = group if group in inspected.groups else ""
    edges = [edge for edge in inspected.graph.edges if group in {"", edge.source.name, edge.target.name}]
    view = {
        "reason": inspected.reason,
        "is_own_page": is_own_page,
        "group": group,
        "groups": sorted(inspected.groups),
        "is_drawn": inspected.drawing is not None or (bool(group) and len(edges) <= MOST_EDGES),
        "picture": GRAPH_PATH.lstrip("/") + (f"?{urlencode({'group': group})}" if group else ""),
        "edges": edges[:MOST_SENTENCES],
        "left_out": max(0, len(edges) - MOST_SENTENCES),
    }
    return Section("graph", "Who may talk to whom", "graph.html", view)


def graph_response(inspected: Inspected, group: str) -> Response:
    """Return the drawing as a picture, or 404 where there is none."""
    drawing = draw_graph(inspected.graph, group) if group in inspected.groups else inspected.drawing
    if drawing is None:
        return plain(HTTPStatus.NOT_FOUND, "no drawing: the graph is unknown or too large\n")
    return Response(
        status=HTTPStatus.OK,
        content_type="image/svg+xml",
        content=drawing,
        headers=(("Content-Security-Policy", _GRAPH_POLICY), *PRIVATE),
    )


def drops_section(answer: DeniedAnswer) -> Section:
    """Return the newest drops, and how many more there were."""
    view = {
        "unavailable": answer.unavailable,
        "drops": [
            (flow, rule_path(flow.interface, flow.direction, flow), explain_flow(flow))
            for flow in answer.flows[: -MOST_DROPS - 1 : -1]
        ],
        "left_out": sum(entry.left_out for entry in answer.left_out if entry.verdict is Policy.DROP),
        "rate_per_second": answer.rate_per_second,
    }
    return Section("drops", "Recent drops", "drops.html", view)


_PER_MINUTE = round(STEP_SECONDS / SAMPLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure of the first screen with its last hour, and a link to its table."""

    label: str
    target: str
    """Where its table is."""

    value: str
    detail: str
    trend: Sparkline
    unit: str = ""
    mark: str = ""
    """``accept`` where the value is good, ``warning`` where notable, ``drop`` where bad; else empty."""

    is_flat: bool = False
    """Whether the trend is of a state and no figure."""


def make_tiles(
    status: StatusAnswer, samples: Sequence[Sample], findings: str, now: float, *, is_healthy: bool
) -> Iterator[Tile]:
    """Yield the tiles in display order.

    Args:
        status: how the agent is doing.
        samples: of the last hour, the oldest first.
        findings: of lint, in words.
        now: seconds since the epoch.
        is_healthy: whether the newest definitions are enforced or observed.
    """
    since = "" if status.posture_since is None else age(max(0.0, now - status.posture_since))
    value, mark = ("healthy", "accept") if is_healthy else ("needs attention", "drop")
    trend = _trend("healthy", samples, lambda some: all(one.is_well for one in some))
    yield Tile("Verdict", "#state", value, f"{status.posture.value} {since}", trend, mark=mark, is_flat=True)
    yield _mode_tile(status.interfaces, samples)
    observed = sum(one.would_drop for one in samples[-_PER_MINUTE:])
    drops = _rate("Drops", "#drops", samples, lambda one: one.dropped)
    yield replace(drops, detail=f"{observed:,} only observed") if observed else drops
    yield _rate("Sessions judged", "#rules", samples, lambda one: one.judged)
    warnings, mark = status.warnings or 0, "warning" if status.warnings else ""
    trend = _trend("warnings", samples, lambda some: some[-1].warnings)
    yield Tile("Warnings", "#warnings", str(warnings), f"lint: {findings}", trend, mark=mark)
    value = "none" if status.snapshot_since is None else age(max(0.0, now - status.snapshot_since))
    trend = _trend("policy age", samples, lambda some: some[-1].policy_age)
    yield Tile("Policy age", "#state", value, status.snapshot_version or "no policy in force", trend)


def _mode_tile(interfaces: Sequence[InterfaceStatus], samples: Sequence[Sample]) -> Tile:
    judged = [interface.mode for interface in interfaces if interface.mode is not None]
    modes = {mode.value for mode in judged}
    value = "mixed" if len(modes) > 1 else next(iter(modes), "none")
    detail = f"{len(judged)} of {count(len(interfaces), 'interface')} judged"
    trend = _trend("enforced", samples, lambda some: some[-1].enforced)
    return Tile("Mode", "#interfaces", value, detail, trend, is_flat=True)


def _rate(label: str, target: str, samples: Sequence[Sample], number: Callable[[Sample], int]) -> Tile:
    """Return how many there were in the last minute, and in the last hour."""
    value = f"{sum(map(number, samples[-_PER_MINUTE:])):,}" if samples else "–"
    detail = f"{sum(map(number, samples)):,} in {_span(samples)}"
    trend = _trend(label.lower(), samples, lambda some: sum(map(number, some)))
    return Tile(label, target, value, detail, trend, "/min")


def _trend(what: str, samples: Sequence[Sample], value: Callable[[Sequence[Sample]], float]) -> Sparkline:
    """Return a bar for each minute."""
    return draw_bars([value(some) for some in _minutes(samples)], f"{what} in {_span(samples)}")


def _span(samples: Sequence[Sample]) -> str:
    minutes = -(-len(samples) // _PER_MINUTE)
    return "the last hour" if minutes == MOST_STEPS else count(minutes, "minute")


def _minutes(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Yield the samples of each minute; the newest minute ends now."""
    for first in range(len(samples) % _PER_MINUTE - _PER_MINUTE, len(samples), _PER_MINUTE):
        if first + _PER_MINUTE > 0:
            yield samples[max(0, first) : first + _PER_MINUTE]
