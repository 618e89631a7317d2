"""Tables of the effective rules, in order of precedence, with hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.queries import Hit, HitsAnswer, HitStep, InterfaceHits
from sgagent.agent.published_status import MOST_STEPS, Trend
from sgagent.agent.time_text import count
from sgagent.agent.web.page import PageLink, Section
from sgagent.core.model import Direction, Mode

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
        """Return the ports in words; empty where the step knows none."""
        if self.hit.ports is None:
            return "any" if self.hit.step is HitStep.RULE else ""
        return self.hit.ports.replace(",", ", ")


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
