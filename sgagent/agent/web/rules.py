"""Show what decides on each interface, in the order in which it decides, with what it decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.queries import Hit, HitsAnswer, HitStep, InterfaceHits
from sgagent.agent.published_status import Trend
from sgagent.agent.time_text import count
from sgagent.agent.web.markup import Element, Node, tag
from sgagent.agent.web.moments import moment
from sgagent.agent.web.shell import Section
from sgagent.agent.web.sparkline import sparkline
from sgagent.agent.web.tables import Align, Column, table
from sgagent.agent.web.verdict import verdict
from sgagent.core.model import Direction, Mode

ROWS_AT_FIRST = 100
"""Of each interface and direction on the first page; the last, which is the default, stands there too."""

ROWS_OF_A_PAGE = 500
"""Of the pages that show the rest."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What rows are made of, beside what was counted."""

    trend: Trend
    now: float
    """Seconds since the epoch."""


def rules_section(answer: HitsAnswer, figures: Figures) -> Section:
    """Return the effective rules of every interface, ingress first."""
    parts = [_part(part, figures) for part in answer.interfaces]
    nothing = tag("p", "Nothing is judged on this host.")
    note = tag(
        "p",
        "What stands higher decides first. A hit is a packet that was judged: "
        "of a session that is allowed, the first.",
        class_="quiet",
    )
    return Section("rules", "Effective rules", (note, *(parts or (nothing,))))


def _part(part: InterfaceHits, figures: Figures) -> Element:
    hits, is_cut = part.hits, len(part.hits) > ROWS_AT_FIRST + 1
    shown = (*hits[:ROWS_AT_FIRST], hits[-1]) if is_cut else hits
    return tag(
        "div",
        *_observed(part),
        _table(part, shown, figures),
        _rest(part, len(hits) - len(shown)) if is_cut else None,
    )


def _rest(part: InterfaceHits, number: int) -> Element:
    query = urlencode({"interface": part.interface, "direction": part.direction.value})
    words = f"{count(number, 'rule')} more before the default, of {len(part.hits)} lines"
    return tag("p", tag("a", words, href=f"rules?{query}"))


def part_section(part: InterfaceHits, first: int, figures: Figures) -> Section:
    """Return some of the rules of one interface and direction, and links to the others.

    Args:
        part: all of them.
        first: the number of the first that is shown, from 0.
        figures: what else rows are made of.
    """
    shown = part.hits[first : first + ROWS_OF_A_PAGE]
    heading = f"Lines {first + 1} to {first + len(shown)} of {len(part.hits)}"
    content = (*_observed(part), _table(part, shown, figures), _turning(part, first, len(shown)))
    return Section("rules", heading, content)


def _turning(part: InterfaceHits, first: int, number: int) -> Element:
    links = []
    if first > 0:
        links.append(_link(part, max(0, first - ROWS_OF_A_PAGE), "Before these"))
    if first + number < len(part.hits):
        links.append(_link(part, first + number, "After these"))
    return tag("ul", *links, class_="turning")


def _link(part: InterfaceHits, first: int, words: str) -> Element:
    query = urlencode({"interface": part.interface, "direction": part.direction.value, "from": first})
    return tag("li", tag("a", words, href=f"rules?{query}"))


def _observed(part: InterfaceHits) -> Iterator[Element]:
    if part.mode is Mode.OBSERVE:
        packets = count(part.would_drop_packets or 0, "packet")
        yield tag(
            "p", f"{part.interface} is only observed: nothing is dropped, and {packets} would have been."
        )


def _table(part: InterfaceHits, hits: Sequence[Hit], figures: Figures) -> Element:
    return table(title(part), _COLUMNS, (_row(part, hit, figures) for hit in hits))


def title(part: InterfaceHits) -> str:
    """Return what is judged where, in words."""
    way = "into" if part.direction is Direction.INGRESS else "out of"
    interface = "every other link" if part.interface == "*" else part.interface
    return f"{part.direction.value.capitalize()}, {way} {interface}"


_COLUMNS = (
    Column("Rule", is_name=True),
    Column("Group"),
    Column("Verdict"),
    Column("Priority", Align.RIGHT, is_short=True),
    Column("Object"),
    Column("Protocol", is_short=True),
    Column("Ports"),
    Column("Hits", Align.RIGHT, is_short=True),
    Column("Bytes", Align.RIGHT, is_short=True),
    Column("Last hit", is_short=True),
    Column("Last hour", is_short=True),
)


def _row(part: InterfaceHits, hit: Hit, figures: Figures) -> tuple[Node, ...]:
    by_rule = hit.step is HitStep.RULE
    return (
        hit.rule_id or tag("em", hit.step.value),
        hit.security_group_id or "",
        verdict(hit.verdict, part.mode),
        "" if hit.priority is None else str(hit.priority),
        hit.authorization_object or "",
        hit.protocol or "",
        (hit.ports or ("any" if by_rule else "")).replace(",", ", "),
        f"{hit.packets:,}",
        f"{hit.bytes:,}",
        _last_hit(hit, figures.now),
        sparkline(figures.trend.packets(counter_of(part, hit))),
    )


def _last_hit(hit: Hit, now: float) -> Node:
    if hit.last_hit_at is None:
        return tag("span", "never", class_="quiet")
    return moment(hit.last_hit_at, now)
