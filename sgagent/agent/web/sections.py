"""The sections of the overview but for the rules: state, links and groups, findings, graph and drops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from sgagent.agent.control.queries import DeniedAnswer, StatusAnswer
from sgagent.agent.control.status_text import facts
from sgagent.agent.flowlog.flow import Flow
from sgagent.agent.status import InterfaceStatus
from sgagent.agent.time_text import count
from sgagent.agent.web.inspection import Found, Inspected, NotFound
from sgagent.agent.web.page import Section
from sgagent.agent.web.responses import PRIVATE, Response, plain
from sgagent.analysis.graph.labels import sentence
from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.core.model import Direction, GroupType, Policy, SecurityGroup

MOST_FINDINGS = 100
"""Shown on the page, the most severe first."""

MOST_SENTENCES = 500
"""Edges of the graph that the page lists in words."""

MOST_DROPS = 20
"""Shown on the page, the newest first."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A label of the state with its lines."""

    label: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateView:
    """The section "State"."""

    facts: tuple[Fact, ...]


def state_section(answer: StatusAnswer, now: float) -> Section:
    """Return what ``sgagent status`` prints."""
    return Section("state", "State", "state.html", StateView(tuple(_facts(facts(answer, now)))))


def _facts(lines: Iterable[tuple[str, str]]) -> Iterator[Fact]:
    """Yield each label with its lines; a line without a label belongs to the label before."""
    current: Fact | None = None
    for label, line in lines:
        if current is not None and not label:
            current = replace(current, lines=(*current.lines, line))
            continue
        if current is not None:
            yield current
        current = Fact(label, (line,))
    if current is not None:
        yield current


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLine:
    """A group that links of this host have, as the page shows it."""

    security_group_id: str
    name: str
    group_type: str = ""
    inner_access: str = ""
    ingress_rules: int | None = None
    egress_rules: int | None = None
    interfaces: tuple[str, ...]
    """The links that have it."""


@dataclass(frozen=True, slots=True)
class InterfacesView:
    """The section "Interfaces and groups"."""

    links: Sequence[InterfaceStatus]
    groups: tuple[GroupLine, ...]


def interfaces_section(links: Sequence[InterfaceStatus], inspected: Inspected) -> Section:
    """Return the links and their groups.

    Args:
        links: of this host.
        inspected: what is known about the definitions of the groups.
    """
    known = inspected.groups if isinstance(inspected, Found) else {}
    used = sorted({group for link in links for group in link.security_group_ids})
    lines = tuple(_group_line(group, known, links) for group in used) if known.keys() & set(used) else ()
    return Section("interfaces", "Interfaces and groups", "interfaces.html", InterfacesView(links, lines))


def _group_line(
    group_id: str, known: Mapping[str, SecurityGroup], links: Sequence[InterfaceStatus]
) -> GroupLine:
    on = tuple(link.name for link in links if group_id in link.security_group_ids)
    group = known.get(group_id)
    if group is None:
        return GroupLine(security_group_id=group_id, name="not defined", interfaces=on)
    rules = Counter(rule.direction for rule in group.rules)
    return GroupLine(
        security_group_id=group_id,
        name=group.name or "–",
        group_type=group.group_type.value,
        inner_access=group.inner_access_policy.value if group.group_type is GroupType.BASIC else "–",
        ingress_rules=rules[Direction.INGRESS],
        egress_rules=rules[Direction.EGRESS],
        interfaces=on,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsView:
    """The section "Findings"."""

    reason: str | None = None
    """Why findings are not known; None where they are."""

    summary: str = ""
    findings: Sequence[Finding] = ()
    left_out: int = 0
    at: float = 0.0
    """When they were found; seconds since the epoch."""


def findings_section(inspected: Inspected) -> Section:
    """Return what lint finds in the definitions in force."""
    return Section("findings", "Findings", "findings.html", _findings(inspected))


def _findings(inspected: Inspected) -> FindingsView:
    if isinstance(inspected, NotFound):
        return FindingsView(reason=inspected.reason)
    findings = inspected.findings
    return FindingsView(
        summary=_summary(findings),
        findings=findings[:MOST_FINDINGS],
        left_out=max(0, len(findings) - MOST_FINDINGS),
        at=inspected.at,
    )


def _summary(findings: Iterable[Finding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    parts = (count(counts[severity], severity.value) for severity in FindingSeverity if counts[severity])
    return ", ".join(parts) or "Nothing was found."


GRAPH_PATH = "/graph.svg"

_GRAPH_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Of the drawing alone: it carries its style, and the page shows it as a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphView:
    """The section "Who may talk to whom"."""

    reason: str | None = None
    """Why the graph is not known; None where it is."""

    is_drawn: bool = False
    edges: int = 0
    sentences: tuple[str, ...] = ()
    """Describe the first edges."""


def graph_section(inspected: Inspected) -> Section:
    """Return the drawing of the graph, and its edges in words."""
    return Section("graph", "Who may talk to whom", "graph.html", _graph(inspected))


def _graph(inspected: Inspected) -> GraphView:
    if isinstance(inspected, NotFound):
        return GraphView(reason=inspected.reason)
    edges = inspected.graph.edges
    return GraphView(
        is_drawn=inspected.drawing is not None,
        edges=len(edges),
        sentences=tuple(f"{sentence(edge)}." for edge in edges[:MOST_SENTENCES]),
    )


def graph_response(inspected: Inspected) -> Response:
    """Return the drawing as a picture, or 404 where there is none."""
    if not isinstance(inspected, Found) or inspected.drawing is None:
        return plain(HTTPStatus.NOT_FOUND, "no drawing: the graph is unknown or too large\n")
    return Response(
        status=HTTPStatus.OK,
        content_type="image/svg+xml",
        content=inspected.drawing,
        headers=(("Content-Security-Policy", _GRAPH_POLICY), *PRIVATE),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DropsView:
    """The section "Recent drops"."""

    unavailable: str | None
    """Why the flow log misses drops; None where it works."""

    flows: Sequence[Flow]
    """The newest first."""

    left_out: int
    """Drops that the kernel counted and did not report, as there were too many."""

    rate_per_second: int


def drops_section(answer: DeniedAnswer) -> Section:
    """Return the newest drops, and how many more there were."""
    view = DropsView(
        unavailable=answer.unavailable,
        flows=answer.flows[: -MOST_DROPS - 1 : -1],
        left_out=sum(entry.left_out for entry in answer.left_out if entry.verdict is Policy.DROP),
        rate_per_second=answer.rate_per_second,
    )
    return Section("drops", "Recent drops", "drops.html", view)
