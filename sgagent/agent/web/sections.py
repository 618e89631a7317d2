"""The sections of the overview: state, links and groups, findings, graph, drops and rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import urlencode

from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.requests import DeniedAnswer, Hit, HitsAnswer, InterfaceHits, StatusAnswer
from sgagent.agent.control.status_text import facts
from sgagent.agent.flowlog.flow import Flow
from sgagent.agent.published_status import MOST_STEPS, Trend
from sgagent.agent.status import InterfaceStatus
from sgagent.agent.time_text import count
from sgagent.agent.web.inspection import Found, Inspected, NotFound
from sgagent.agent.web.page import PageLink, Section
from sgagent.agent.web.responses import PRIVATE, Response, plain
from sgagent.analysis.graph.export import sentence
from sgagent.analysis.lint.findings import Finding, FindingSeverity
from sgagent.core.model import Direction, Mode, Policy, SecurityGroup

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
        inner_access=group.inner_access.value if group.inner_access else "–",
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


ROWS_ON_OVERVIEW = 100
"""Of each interface and direction; the overview also shows the last, which is the default."""

ROWS_PER_PAGE = 500
"""Of the pages that show the whole table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """Hits of each minute of the last hour, as bars in an SVG, and in words."""

    words: str
    ground: str = ""
    """Path of the base line."""

    bars: str = ""
    """Path of the bars, the newest minute at the right end; empty where there was no hit."""

    width: int = MOST_STEPS * 2
    height: int = 20


def draw_sparkline(packets: Sequence[int]) -> Sparkline:
    """Return the bars of the hits in each minute.

    Args:
        packets: of each minute, the oldest first; empty before the first minute is over.
    """
    if not packets:
        return Sparkline(words="not yet known")
    span = "in the last hour" if len(packets) == MOST_STEPS else f"in {count(len(packets), 'minute')}"
    if not any(packets):
        return Sparkline(words=f"none {span}")
    first = MOST_STEPS - len(packets)
    bars = (_bar(first + number, hits / max(packets)) for number, hits in enumerate(packets) if hits)
    return Sparkline(
        words=f"{count(sum(packets), 'hit')} {span}, at most {max(packets)} in one",
        ground=f"M{first * 2} 19.5H{MOST_STEPS * 2}",
        bars="".join(bars),
    )


def _bar(minute: int, share: float) -> str:
    """Return the path of a bar: 1.5 wide, at most 19 high, and at least 1.5, so that one hit is visible."""
    return f"M{minute * 2} 20v-{round(max(1.5, share * 19), 1)}h1.5V20z"


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A row of the table: a rule, or another step that decides."""

    hit: Hit
    trend: Sparkline

    @property
    def ports(self) -> str:
        """Return the ports for people."""
        return self.hit.ports_text


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTable:
    """Rows of one interface and direction."""

    caption: str
    interface: str
    mode: Mode
    would_drop: str | None
    """How many packets the table would have dropped; None where it drops."""

    lines: tuple[RuleLine, ...]
    rest: PageLink | None = None
    """Leads to the rows that are left out."""


@dataclass(frozen=True, slots=True)
class RulesView:
    """The section "Effective rules" of the overview."""

    parts: tuple[RuleTable, ...]


@dataclass(frozen=True, slots=True)
class RulePartView:
    """One page of a long table."""

    part: RuleTable
    links: tuple[PageLink, ...]
    """Lead to the pages before and after."""


def rules_section(answer: HitsAnswer, trend: Trend) -> Section:
    """Return the effective rules of every interface, ingress first."""
    parts = tuple(_first_rows(part, trend) for part in answer.interfaces)
    return Section("rules", "Effective rules", "rules.html", RulesView(parts))


def _first_rows(part: InterfaceHits, trend: Trend) -> RuleTable:
    left_out = len(part.hits) - ROWS_ON_OVERVIEW - 1
    if left_out <= 0:
        return _table(part, part.hits, trend)
    words = f"{count(left_out, 'rule')} more before the default, of {len(part.hits)} lines"
    return _table(part, (*part.hits[:ROWS_ON_OVERVIEW], part.hits[-1]), trend, _link(part, words))


def rule_part_section(part: InterfaceHits, first: int, trend: Trend) -> Section:
    """Return one page of the rules of one interface and direction.

    Args:
        part: all rules.
        first: the index of the first that the page shows.
        trend: how often each was hit.
    """
    end = min(first + ROWS_PER_PAGE, len(part.hits))
    links = []
    if first > 0:
        links.append(_link(part, "Before these", max(0, first - ROWS_PER_PAGE)))
    if end < len(part.hits):
        links.append(_link(part, "After these", end))
    heading = f"Lines {first + 1} to {end} of {len(part.hits)}"
    view = RulePartView(_table(part, part.hits[first:end], trend), tuple(links))
    return Section("rules", heading, "rule_part.html", view)


def _link(part: InterfaceHits, words: str, first: int | None = None) -> PageLink:
    query: dict[str, str | int] = {"interface": part.interface, "direction": part.direction.value}
    if first is not None:
        query["from"] = first
    return PageLink(f"rules?{urlencode(query)}", words)


def _table(part: InterfaceHits, hits: Sequence[Hit], trend: Trend, rest: PageLink | None = None) -> RuleTable:
    is_observed = part.mode is Mode.OBSERVE
    return RuleTable(
        caption=caption(part),
        interface=part.interface,
        mode=part.mode,
        would_drop=count(part.would_drop_packets or 0, "packet") if is_observed else None,
        lines=tuple(RuleLine(hit, draw_sparkline(trend.packets(counter_of(part, hit)))) for hit in hits),
        rest=rest,
    )


def caption(part: InterfaceHits) -> str:
    """Return which packets a table decides, in words."""
    way = "into" if part.direction is Direction.INGRESS else "out of"
    interface = "every other link" if part.interface == "*" else part.interface
    return f"{part.direction.value.capitalize()}, {way} {interface}"
