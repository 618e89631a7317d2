"""The rules in force with their hits: the filter, the tables, and the page of one rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Self
from urllib.parse import parse_qsl, urlencode

from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.hits import Hit, HitsAnswer, InterfaceHits
from sgagent.agent.flowlog.flow import Flow
from sgagent.agent.published_status import MOST_STEPS, PublishedStatus, Trend
from sgagent.agent.web.inspection import Inspected
from sgagent.agent.web.page import PageLink, Section
from sgagent.core.errors import NOWHERE, Origin, count
from sgagent.core.explanation import ExplainedRule
from sgagent.core.model import (
    ALL_PROTOCOLS,
    ICMP,
    TCP,
    CidrBlock,
    Direction,
    Family,
    Mode,
    SecurityGroupRule,
    address_text,
)
from sgagent.core.policy import ResolvedRule
from sgagent.documents import DocumentFile

ROWS_ON_OVERVIEW = 100
"""Of each interface and direction; the overview also shows the last, which is the default."""

ROWS_PER_PAGE = 500
"""Of the pages that show the whole table."""

MOST_FIELDS = 16
"""In a query string."""

LONGEST_FILTER = 128
"""Characters of a field of the filter, as long as the longest id."""


def read_fields(query: str) -> Mapping[str, str]:
    """Return the fields of a query string; none where there are too many."""
    try:
        return dict(parse_qsl(query, max_num_fields=MOST_FIELDS))
    except ValueError:
        return {}


HIT, NEVER_HIT = "yes", "never"
"""Values of the filter's field ``hit``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFilter:
    """Which rules to show; an empty field restricts nothing."""

    text: str = ""
    """Is in the id, group, object, protocol, ports or description, in upper or lower case."""

    interface: str = ""
    direction: str = ""
    group: str = ""
    verdict: str = ""
    hit: str = ""

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Self:
        """Return the filter in the fields of a query string."""
        return cls(**{name: fields.get(name, "").strip()[:LONGEST_FILTER] for name in cls.__slots__})

    @property
    def fields(self) -> Mapping[str, str]:
        """Return the fields that restrict something."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    def has_part(self, part: InterfaceHits) -> bool:
        """Return whether the filter shows an interface and direction."""
        return self.interface in ("", part.interface) and self.direction in ("", part.direction.value)

    def has_hit(self, hit: Hit, rule: SecurityGroupRule | None) -> bool:
        """Return whether the filter shows a rule or other step.

        Args:
            hit: what it counted.
            rule: its definition; None where that is not known.
        """
        return (
            self.group in ("", hit.security_group_id)
            and self.verdict in ("", hit.verdict.value)
            and self.hit in ("", HIT if hit.packets else NEVER_HIT)
            and (not self.text or self.text.lower() in _words(hit, rule).lower())
        )


def _words(hit: Hit, rule: SecurityGroupRule | None) -> str:
    texts = (hit.rule_id or hit.step.value, hit.security_group_id, hit.authorization_object, hit.protocol)
    return "\n".join(text for text in (*texts, hit.ports_text, rule.description if rule else "") if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparkline:
    """A value for each minute of the last hour, as bars in an SVG, and in words."""

    words: str
    ground: str = ""
    """Path of the base line."""

    bars: str = ""
    """Path of the bars, the newest minute at the right end; nothing where every value is 0."""

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
    hits = f"{count(sum(packets), 'hit')} {span}, at most {max(packets)} in one"
    return draw_bars(packets, hits if any(packets) else f"none {span}")


def draw_bars(values: Sequence[float], words: str) -> Sparkline:
    """Return the bars of values, the oldest first; a value of 0 has none."""
    first = MOST_STEPS - len(values)
    bars = (_bar(first + number, value / max(values)) for number, value in enumerate(values) if value)
    return Sparkline(words=words, ground=f"M0 19.5H{MOST_STEPS * 2}", bars="".join(bars))


def _bar(minute: int, share: float) -> str:
    """Return the path of a bar: 1.5 wide, at most 19 high, and at least 1.5, so that one hit is visible."""
    return f"M{minute * 2} 20v-{round(max(1.5, share * 19), 1)}h1.5V20z"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSources:
    """The sources of the tables of rules."""

    answer: HitsAnswer
    trend: Trend
    inspected: Inspected
    """Knows the descriptions."""


def rules_section(sources: RuleSources, rule_filter: RuleFilter, action: str, first: int = 0) -> Section:
    """Return the rules that the filter leaves, ingress first.

    Args:
        sources: all rules.
        rule_filter: what to show of them.
        action: the path of the page; the overview shows the first rows of each table alone.
        first: the index of the first row, where the filter leaves one interface and direction.
    """
    found = [
        (part, [hit for hit in part.hits if rule_filter.has_hit(hit, sources.inspected.rule_of(hit))])
        for part in sources.answer.interfaces
        if rule_filter.has_part(part)
    ]
    is_paged = action == "rules" and len(found) == 1
    cut = partial(_page_from, first=first) if is_paged else _first_rows
    parts = (_table(part, *cut(part, hits, rule_filter), sources) for part, hits in found if hits)
    groups = {hit.security_group_id for part in sources.answer.interfaces for hit in part.hits}
    lines = sum(len(part.hits) for part in sources.answer.interfaces)
    view = {
        "action": action,
        "rule_filter": rule_filter,
        "interfaces": tuple(dict.fromkeys(part.interface for part in sources.answer.interfaces)),
        "groups": tuple(sorted(group for group in groups if group)),
        "shown": f"{sum(len(hits) for _, hits in found)} of {count(lines, 'line')}",
        "parts": tuple(parts),
    }
    return Section("rules", "Rules", "rules.html", view)


_Rows = tuple[Sequence[Hit], Sequence[PageLink]]
"""Rows of a table, and links to those that are left out."""


def _first_rows(part: InterfaceHits, hits: Sequence[Hit], rule_filter: RuleFilter) -> _Rows:
    left_out = len(hits) - ROWS_ON_OVERVIEW - 1
    if left_out <= 0:
        return hits, ()
    link = _link(part, rule_filter, f"{count(left_out, 'line')} more before the last, of {len(hits)}")
    return (*hits[:ROWS_ON_OVERVIEW], hits[-1]), [link]


def _page_from(part: InterfaceHits, hits: Sequence[Hit], rule_filter: RuleFilter, first: int) -> _Rows:
    """Return the page that holds a row; the nearest where there is no such row."""
    first = min(first, len(hits) - 1) // ROWS_PER_PAGE * ROWS_PER_PAGE
    end = min(first + ROWS_PER_PAGE, len(hits))
    links = []
    if first > 0:
        before = max(0, first - ROWS_PER_PAGE)
        links.append(_link(part, rule_filter, f"Lines {before + 1} to {first}", before))
    if end < len(hits):
        after = min(end + ROWS_PER_PAGE, len(hits))
        links.append(_link(part, rule_filter, f"Lines {end + 1} to {after} of {len(hits)}", end))
    return hits[first:end], links


def _table(
    part: InterfaceHits, hits: Sequence[Hit], links: Sequence[PageLink], sources: RuleSources
) -> Mapping[str, object]:
    return {
        "caption": caption(part),
        "interface": part.interface,
        "mode": part.mode,
        "would_drop": count(part.would_drop_packets or 0, "packet") if part.mode is Mode.OBSERVE else None,
        "lines": list(_lines(part, hits, sources)),
        "links": links,
    }


def _link(part: InterfaceHits, rule_filter: RuleFilter, words: str, first: int | None = None) -> PageLink:
    wanted = replace(rule_filter, interface=part.interface, direction=part.direction.value)
    fields = {**wanted.fields, **({} if first is None else {"from": str(first)})}
    return PageLink(f"rules?{urlencode(fields)}", words)


def _lines(part: InterfaceHits, hits: Iterable[Hit], sources: RuleSources) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a table: rules, and the other steps that decide, which have no page."""
    for hit in hits:
        rule = sources.inspected.rule_of(hit)
        yield {
            "hit": hit,
            "trend": draw_sparkline(sources.trend.packets(counter_of(part, hit))),
            "target": rule_path(part.interface, part.direction, hit),
            "description": rule.description if rule else "",
        }


def rule_path(interface: str, direction: Direction, rule: Flow | Hit | ExplainedRule) -> str:
    """Return the path of a rule's page; empty for anything but a rule."""
    if rule.rule_id is None:
        return ""
    fields = {
        "interface": interface,
        "direction": direction.value,
        "group": rule.security_group_id or "",
        "rule": rule.rule_id,
    }
    return f"rule?{urlencode(fields)}"


def caption(part: InterfaceHits) -> str:
    """Return which packets a table decides, in words."""
    way = "into" if part.direction is Direction.INGRESS else "out of"
    interface = "every other link" if part.interface == "*" else part.interface
    return f"{part.direction.value.capitalize()}, {way} {interface}"


LINES_BEFORE, LINES_AFTER = 3, 12
"""Of a document, around the first line of a rule."""

LONGEST_LINE = 200
"""Characters of a line of a document; what is longer is cut."""


def find_rule(answer: HitsAnswer, fields: Mapping[str, str]) -> tuple[InterfaceHits, Hit] | None:
    """Return the rule that the fields of a link name; None where it is not in force."""
    wanted = tuple(fields.get(name, "") for name in ("interface", "direction", "group", "rule"))
    for part in answer.interfaces:
        for hit in part.hits:
            if (part.interface, part.direction.value, hit.security_group_id, hit.rule_id) == wanted:
                return part, hit
    return None


def rule_section(part: InterfaceHits, hit: Hit, published: PublishedStatus, inspected: Inspected) -> Section:
    """Return the facts of a rule that is in force."""
    rule = inspected.rule_of(hit)
    origin = rule.origin if rule else NOWHERE
    view = {
        "hit": hit,
        "part": part,
        "where": caption(part),
        "trend": draw_sparkline(published.trend.packets(counter_of(part, hit))),
        "description": rule.description if rule else "",
        "origin": origin,
        "lines": tuple(excerpt(published.definitions[1], origin)),
        "explain": _matching_packet(part, hit, published),
    }
    return Section("rule", "In force", "rule.html", view)


def excerpt(files: Iterable[DocumentFile], origin: Origin) -> Iterator[tuple[int, str, bool]]:
    """Yield number and text of lines around a place, and whether it is there; none where it is not known."""
    content = next((file.content for file in files if file.name == origin.file), b"") if origin.line else b""
    lines = content.decode(errors="replace").split("\n")  # as documents count them; not at U+2028
    first = max(1, origin.line - LINES_BEFORE)
    for number, text in enumerate(lines[first - 1 : origin.line + LINES_AFTER], start=first):
        yield number, text.removesuffix("\r")[:LONGEST_LINE], number == origin.line


def explain_flow(flow: Flow) -> str:
    """Return the form filled in with the packet of a flow."""
    return _explain(
        interface=flow.interface,
        direction=flow.direction.value,
        source=flow.source.address,
        destination=flow.destination.address,
        protocol=flow.protocol,
        source_port=flow.source.port,
        port=flow.destination.port,
        icmp_type=flow.icmp_type,
    )


def _explain(**fields: str | int | None) -> str:
    known = {name: value for name, value in fields.items() if value is not None}
    return f"explain?{urlencode(known)}#answer"


def _matching_packet(part: InterfaceHits, hit: Hit, published: PublishedStatus) -> str:
    """Return the form filled in with a packet that a rule matches; empty where no address is known."""
    judge = next((judge for judge in published.policy.judges if judge.name == part.interface), None)
    rules = judge.toward(part.direction).rules if judge else ()
    keys = (hit.rule_id, hit.security_group_id)
    rule = next((rule for rule in rules if (rule.rule_id, rule.security_group_id) == keys), None)
    links = published.status.step.facts.links
    own = next((link.addresses for link in links if link.name == part.interface), ())
    for family in Family:
        if rule is None or not rule.can_match(family):
            continue
        near, far = _near_address(rule, own, family), _far_address(rule, family)
        if near is not None and far is not None:
            return _explain_rule(rule, part, near, far, family)
    return ""


def _explain_rule(rule: ResolvedRule, part: InterfaceHits, near: int, far: int, family: Family) -> str:
    source, destination = (far, near) if part.direction is Direction.INGRESS else (near, far)
    protocol = rule.protocols_of(family)[0]
    protocol = TCP if protocol == ALL_PROTOCOLS else protocol
    has_ports = protocol.has_ports
    return _explain(
        interface=part.interface,
        direction=part.direction.value,
        source=address_text(family, source),
        destination=address_text(family, destination),
        protocol=str(protocol),
        port=(_USUAL_PORT if rule.ports.is_all else rule.ports.ranges[0][0]) if has_ports else None,
        source_port=None if rule.source_ports.is_all or not has_ports else rule.source_ports.ranges[0][0],
        icmp_type=(8 if protocol == ICMP else 128) if protocol.has_types else None,
    )


_USUAL_PORT = 443
_EXAMPLES = {Family.IPV4: 0xC633_6407, Family.IPV6: 0x2001_0DB8 << 96 | 7}
"""Addresses for documentation, for objects that hold them: 198.51.100.7 and 2001:db8::7."""


def _far_address(rule: ResolvedRule, family: Family) -> int | None:
    """Return an address of a rule's object."""
    addresses = rule.peer.addresses
    if addresses.contains(family, _EXAMPLES[family]):
        return _EXAMPLES[family]
    first, last = next(iter(addresses.ranges(family)), (None, None))
    return first if first is None or first == last else first + 1


def _near_address(rule: ResolvedRule, own: Iterable[CidrBlock], family: Family) -> int | None:
    """Return an address of this host that a rule is about, not one that is valid on its link alone."""
    routed = (block for block in own if not block.network.is_link_local)
    blocks = chain((rule.local_address,) if rule.local_address else (), routed)
    return next((block.first for block in blocks if block.family is family), None)
