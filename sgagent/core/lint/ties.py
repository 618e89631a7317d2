"""Find accepts and drops of one priority that match the same packets, which nothing before them decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from sgagent.core.comparing.bits import bits_of
from sgagent.core.comparing.boxes import ALL_PORTS
from sgagent.core.comparing.clauses import Clause
from sgagent.core.comparing.index import Index
from sgagent.core.comparing.table import Area, Table, common_area
from sgagent.core.comparing.wording import port_text
from sgagent.core.intervals import common
from sgagent.core.lint.reach import RuleKey, key_of
from sgagent.core.lint.subject import Stand
from sgagent.core.model import Policy, Protocol
from sgagent.core.policy import ResolvedRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Two rules that contradict each other."""

    drop: ResolvedRule
    accept: ResolvedRule
    traffic: str
    """What they both match, in words."""


def ties(stand: Stand) -> Iterator[Tie]:
    """Yield the ties of a stand, each pair once."""
    for reach in stand.reaches:
        seen: set[tuple[RuleKey, RuleKey]] = set()
        for tables in reach.tables.values():
            found = (pair for table in tables for pair in _pairs(table))
            for drop, accept in sorted(found, key=lambda pair: (pair[0].place, pair[1].place)):
                tie = _tie(drop.clause, accept.clause)
                pair = (key_of(tie.drop), key_of(tie.accept))
                if pair not in seen:
                    seen.add(pair)
                    yield tie


def _pairs(table: Table) -> Iterator[tuple[Area, Area]]:
    """Yield drops and accepts of one priority that match a packet which nothing before them decides."""
    index: Index | None = None
    left = table.opened()
    numbered = groupby(enumerate(table.areas), key=lambda found: _priority(found[1].clause))
    for priority, found in numbered:
        areas = list(found)
        drops = [(number, area) for number, area in areas if area.clause.policy is Policy.DROP]
        accepts = sum(1 << number for number, area in areas if area.clause.policy is Policy.ACCEPT)
        if priority is not None and drops and accepts:
            if index is None:
                index = Index.of(table)
            for _, drop in drops:
                for other in map(table.areas.__getitem__, bits_of(index.meeting(drop) & accepts)):
                    if left.has(*common_area(drop, other)):
                        yield drop, other
        for _, area in areas:
            left.take(area.rows, area.columns)


def _priority(clause: Clause) -> int | None:
    return clause.rule.priority if clause.rule else None


def _tie(drop: Clause, accept: Clause) -> Tie:
    assert drop.rule is not None  # noqa: S101 - only rules are looked at; for the type checker
    assert accept.rule is not None  # noqa: S101 - as above
    traffic = str(Protocol(drop.protocol if accept.protocol is None else accept.protocol))
    ports = drop.ports if accept.ports is None else accept.ports
    if drop.ports is not None and accept.ports is not None:
        ports = common(drop.ports, accept.ports)
    if ports is not None and ports != ALL_PORTS:
        traffic += f" {port_text(ports)}"
    return Tie(drop=drop.rule, accept=accept.rule, traffic=traffic)
