"""Find accepts and drops of one priority that match the same packets, which nothing before them decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sgagent.core.comparing.boxes import ALL_PORTS
from sgagent.core.comparing.clauses import Clause
from sgagent.core.comparing.wording import port_text
from sgagent.core.intervals import Ranges, common, joined
from sgagent.core.lint.reach import Reach, RuleKey, deciders_within, key_of
from sgagent.core.lint.subject import Stand
from sgagent.core.model import Family, Policy, Protocol
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
        for family in Family:
            for tie in _ties(reach, family):
                pair = (key_of(tie.drop), key_of(tie.accept))
                if pair not in seen:
                    seen.add(pair)
                    yield tie


def _ties(reach: Reach, family: Family) -> Iterator[Tie]:
    clauses = reach.clauses[family]
    by_priority: dict[int, list[tuple[int, Clause]]] = {}
    for place, clause in enumerate(clauses):
        if clause.rule is not None:
            by_priority.setdefault(clause.rule.priority, []).append((place, clause))
    for rules in by_priority.values():
        before = clauses[: rules[0][0]]
        drops = [clause for _, clause in rules if clause.policy is Policy.DROP]
        accepts = [clause for _, clause in rules if clause.policy is Policy.ACCEPT]
        for drop in drops:
            for accept in accepts:
                both = overlap(drop, accept)
                if both is not None and both in deciders_within(both, before, family):
                    yield _tie(drop, accept, both)


def overlap(one: Clause, other: Clause) -> Clause | None:
    """Return what matches just the packets that both match; None if there are none."""
    if one.protocol is not None and other.protocol not in (None, one.protocol):
        return None
    ports, source_ports = _both(one.ports, other.ports), _both(one.source_ports, other.source_ports)
    local = _both(one.local and (one.local,), other.local and (other.local,))
    if ports == () or source_ports == () or local == ():
        return None
    addresses = common(joined(one.addresses), joined(other.addresses))
    if not addresses:
        return None
    return replace(
        one,
        addresses=addresses,
        protocol=other.protocol if one.protocol is None else one.protocol,
        ports=ports,
        source_ports=source_ports,
        local=local[0] if local else None,
    )


def _both(one: Ranges | None, other: Ranges | None) -> Ranges | None:
    """Return what two sets have in common; None is everything."""
    if one is None or other is None:
        return other if one is None else one
    return common(one, other)


def _tie(drop: Clause, accept: Clause, both: Clause) -> Tie:
    assert drop.rule is not None  # noqa: S101 - only rules are looked at; for the type checker
    assert accept.rule is not None  # noqa: S101 - as above
    traffic = str(Protocol(both.protocol))
    if both.ports is not None and both.ports != ALL_PORTS:
        traffic += f" {port_text(both.ports)}"
    return Tie(drop=drop.rule, accept=accept.rule, traffic=traffic)
