"""The page of one rule: its definition, its hits, its drops, and a packet that it matches."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.requests import Hit, HitsAnswer, InterfaceHits
from sgagent.agent.flowlog.flow import Flow
from sgagent.agent.published_status import Board, Trend
from sgagent.agent.web.inspection import Inspected, rule_of
from sgagent.agent.web.page import Section
from sgagent.agent.web.rule_table import Sparkline, caption, draw_sparkline
from sgagent.core.errors import NOWHERE, Origin
from sgagent.core.model import ALL_PROTOCOLS, ICMP, TCP, CidrBlock, Direction, Family
from sgagent.core.policy import ResolvedRule
from sgagent.documents import DocumentFile

LINES_BEFORE, LINES_AFTER = 3, 12
"""Of a document, around the first line of a rule."""

LONGEST_LINE = 200
"""Characters of a line of a document; what is longer is cut."""


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A line of a document."""

    number: int
    text: str
    is_first: bool
    """Whether the rule begins here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleView:
    """The section with what is known of a rule."""

    hit: Hit
    part: InterfaceHits
    where: str
    trend: Sparkline
    description: str
    origin: Origin
    lines: tuple[DocumentLine, ...]
    explain: str
    """The form, filled in with a packet that the rule matches; empty where none was found."""


def find_rule(answer: HitsAnswer, fields: Mapping[str, str]) -> tuple[InterfaceHits, Hit] | None:
    """Return the rule that the fields of a link name; None where it is not in force."""
    for part in answer.interfaces:
        if (part.interface, part.direction.value) == (fields.get("interface"), fields.get("direction")):
            for hit in part.hits:
                if (hit.security_group_id, hit.rule_id) == (fields.get("group"), fields.get("rule")):
                    return part, hit
    return None


def rule_section(part: InterfaceHits, hit: Hit, board: Board, inspected: Inspected) -> Section:
    """Return what is known of a rule that is in force."""
    rule = rule_of(inspected, hit)
    origin = rule.origin if rule else NOWHERE
    trend: Trend = board.trend()
    view = RuleView(
        hit=hit,
        part=part,
        where=caption(part),
        trend=draw_sparkline(trend.packets(counter_of(part, hit))),
        description=rule.description if rule else "",
        origin=origin,
        lines=tuple(excerpt(board.definitions()[1], origin)),
        explain=_matching_packet(part, hit, board),
    )
    return Section("rule", "In force", "rule.html", view)


def excerpt(files: Iterable[DocumentFile], origin: Origin) -> Iterator[DocumentLine]:
    """Yield the lines of a document around a place; none where the line is not known."""
    content = next((file.content for file in files if file.name == origin.file), b"") if origin.line else b""
    lines = content.decode(errors="replace").splitlines()
    first = max(1, origin.line - LINES_BEFORE)
    for number, text in enumerate(lines[first - 1 : origin.line + LINES_AFTER], start=first):
        yield DocumentLine(number, text[:LONGEST_LINE], is_first=number == origin.line)


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


def _matching_packet(part: InterfaceHits, hit: Hit, board: Board) -> str:
    """Return the form filled in with a packet that a rule matches; empty where no address is known."""
    judge = next((judge for judge in board.policy().judges if judge.name == part.interface), None)
    rules = judge.toward(part.direction).rules if judge else ()
    keys = (hit.rule_id, hit.security_group_id)
    rule = next((rule for rule in rules if (rule.rule_id, rule.security_group_id) == keys), None)
    links = board.status().step.facts.links
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
    kind = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
    protocol = rule.protocols_of(family)[0]
    protocol = TCP if protocol == ALL_PROTOCOLS else protocol
    has_ports = protocol.has_ports
    return _explain(
        interface=part.interface,
        direction=part.direction.value,
        source=str(kind(source)),
        destination=str(kind(destination)),
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
    own = (block for block in own if block.family is family and not block.network.is_link_local)
    first = next(own, None)
    local = rule.local_address
    return local.first if local and local.family is family else first.first if first else None
