"""Where each rule of one decision list decides, and what decides instead where it never does."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sgagent.analysis.bit_sets import Columns, Piece, bits_of
from sgagent.analysis.clause_reduction import Index
from sgagent.analysis.header_space import Clause, dhcp_clause, list_clauses
from sgagent.analysis.packet_tables import make_tables
from sgagent.analysis.redundancy import Area, Table, common_area
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedInterface, ResolvedRule

RuleKey = tuple[str, str]
"""A rule's group and id."""


def key_of(rule: ResolvedRule) -> RuleKey:
    """Return what a rule is known by."""
    return (rule.security_group_id, rule.rule_id)


@dataclass(frozen=True)
class RuleReach:
    """What decides about one direction at one judge, worked out once."""

    judge: ResolvedInterface
    direction: Direction

    @cached_property
    def clauses(self) -> Mapping[Family, tuple[Clause, ...]]:
        """Return the clauses of each family, §7.1 included."""
        return {
            family: (
                dhcp_clause(self.direction, family),
                *list_clauses(self.judge, self.direction, family),
            )
            for family in Family
        }

    @cached_property
    def tables(self) -> Mapping[Family, tuple[Table, ...]]:
        """Return tables of every packet of each family."""
        return {family: make_tables(clauses, family) for family, clauses in self.clauses.items()}

    @cached_property
    def deciding_clauses(self) -> Mapping[Family, frozenset[int]]:
        """Return the places of the clauses that decide about any packet."""
        return {
            family: frozenset(
                area.place
                for table in tables
                for area, columns in zip(table.areas, table.deciding(), strict=True)
                if columns
            )
            for family, tables in self.tables.items()
        }

    @cached_property
    def deciding(self) -> frozenset[RuleKey]:
        """Return the rules that decide about any packet."""
        return frozenset(
            key_of(rule)
            for family, places in self.deciding_clauses.items()
            for place in places
            if (rule := self.clauses[family][place].rule)
        )

    @cached_property
    def needed(self) -> frozenset[RuleKey]:
        """Return the rules without which some packet would be decided otherwise."""
        return frozenset(
            key_of(area.clause.rule)
            for tables in self.tables.values()
            for table in tables
            for area, columns in zip(table.areas, table.deciding(table.critical()), strict=True)
            if columns and area.clause.rule
        )

    @cached_property
    def rules(self) -> Mapping[RuleKey, tuple[tuple[Family, int], ...]]:
        """Return the rules that can match any packet, and where they stand among the clauses."""
        places: dict[RuleKey, list[tuple[Family, int]]] = {}
        for family, clauses in self.clauses.items():
            for place, clause in enumerate(clauses):
                if clause.rule is not None:
                    places.setdefault(key_of(clause.rule), []).append((family, place))
        return {key: tuple(found) for key, found in places.items()}

    @cached_property
    def unreached(self) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return the rules that decide about no packet, each with what decides instead, in order."""
        idle = {key: places for key, places in self.rules.items() if key not in self.deciding}
        wanted = {place for places in idle.values() for place in places}
        instead: dict[tuple[Family, int], set[int]] = {}
        for family, tables in self.tables.items():
            for table in tables:
                here = {place for of_family, place in wanted if of_family is family}
                for place, deciders in _instead(table, here, self.deciding_clauses[family]):
                    instead.setdefault((family, place), set()).update(deciders)
        found: dict[RuleKey, tuple[Clause, ...]] = {}
        for key, places in idle.items():
            clauses = (
                self.clauses[family][decider]
                for family, place in places
                for decider in sorted(instead.get((family, place), ()))
            )
            found[key] = tuple({_name(clause): clause for clause in clauses}.values())
        return found

    def behind(self, keys: Container[RuleKey]) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return what would decide without some rules, each taken out alone, in order."""
        found: dict[RuleKey, dict[tuple[object, ...], Clause]] = {}
        for family, tables in self.tables.items():
            places: dict[int, set[int]] = {}
            for table in tables:
                for place, following in _behind(table, keys):
                    places.setdefault(place, set()).update(following)
            clauses = self.clauses[family]
            for place, deciders in places.items():
                rule = clauses[place].rule
                if rule is not None:
                    named = {_name(clauses[decider]): clauses[decider] for decider in sorted(deciders)}
                    found.setdefault(key_of(rule), {}).update(named)
        return {key: tuple(named.values()) for key, named in found.items()}

    def relied_on(self, gone: Container[RuleKey]) -> frozenset[RuleKey]:
        """Return the rules that decide about a packet that would be decided otherwise without some rules."""
        found: set[RuleKey] = set()
        for tables in self.tables.values():
            for table in tables:
                left = [area for area in table.areas if _is_kept(area, gone)]
                if len(left) == len(table.areas):
                    continue
                differing = _differing(table.accepted, table.verdicts(left).accepted)
                for area, columns in zip(table.areas, table.deciding(differing), strict=True):
                    if columns and area.clause.rule:
                        found.add(key_of(area.clause.rule))
        return frozenset(found)

    def rule(self, key: RuleKey) -> ResolvedRule:
        """Return a rule that can match."""
        family, place = self.rules[key][0]
        rule = self.clauses[family][place].rule
        assert rule is not None  # noqa: S101 - only places of rules are kept; for the type checker
        return rule

    def deciders(self, family: Family, code: int) -> Iterator[tuple[Table, Clause, Columns]]:
        """Yield what decides about packets of a protocol and port, with the columns in its table."""
        for table in self.tables[family]:
            for clause, columns in table.deciders(table.row_of(code)):
                yield table, clause, columns


def _is_kept(area: Area, gone: Container[RuleKey]) -> bool:
    return area.clause.rule is None or key_of(area.clause.rule) not in gone


def _differing(one: Sequence[Columns], other: Sequence[Columns]) -> list[Columns]:
    """Return the columns of each row in which only one of two accepts."""
    return [here ^ there for here, there in zip(one, other, strict=True)]


def _instead(
    table: Table, places: Container[int], deciding: Container[int]
) -> Iterator[tuple[int, list[int]]]:
    """Yield clauses, by their places, with those before that decide about what they match."""
    index: Index | None = None
    deciders = 0
    for number, area in enumerate(table.areas):
        if area.place in places:
            if index is None:
                index = Index.of(table)
            yield area.place, _deciders_within(table, area, index.meeting(area) & deciders)
        if area.place in deciding:
            deciders |= 1 << number


def _deciders_within(table: Table, area: Area, before: int) -> list[int]:
    """Return the places of the clauses, of some that stand before one, that decide about what it matches."""
    left: list[Piece] = [(first, last, area.columns) for first, last in area.rows]
    found = []
    for number in bits_of(before):
        other = table.areas[number]
        taken = [_take(left, first, last, other.columns) for first, last in other.rows]
        if any(taken):
            found.append(other.place)
            if not left:
                break
    return found


def _take(pieces: list[Piece], first: int, last: int, columns: Columns) -> bool:
    """Take some columns of a run of rows out of sorted pieces, and return whether any were there."""
    begin = end = bisect_left(pieces, first, key=_last_row)
    rest: list[Piece] = []
    is_taken = False
    while end < len(pieces) and pieces[end][0] <= last:
        start, final, held = pieces[end]
        end += 1
        left = held & ~columns
        if left == held:
            rest.append((start, final, held))
            continue
        is_taken = True
        if start < first:
            rest.append((start, first - 1, held))
        if left and rest and rest[-1][2] == left and rest[-1][1] + 1 == max(start, first):
            rest[-1] = (rest[-1][0], min(final, last), left)
        elif left:
            rest.append((max(start, first), min(final, last), left))
        if last < final:
            rest.append((last + 1, final, held))
    if is_taken:
        pieces[begin:end] = rest
    return is_taken


def _last_row(piece: Piece) -> int:
    return piece[1]


def _behind(table: Table, keys: Container[RuleKey]) -> Iterator[tuple[int, list[int]]]:
    """Yield rules that decide, by their places, with the clauses that would decide without them."""
    index: Index | None = None
    left = table.opened()
    for number, area in enumerate(table.areas):
        rule = area.clause.rule
        if rule is not None and key_of(rule) in keys and left.has(area.rows, area.columns):
            if index is None:
                index = Index.of(table)
            later = index.meeting(area) >> number + 1 << number + 1
            found: list[int] = []
            left.try_out()
            for other in map(table.areas.__getitem__, bits_of(later)):
                if left.take(*common_area(area, other)):
                    found.append(other.place)
                    if not left.has(area.rows, area.columns):
                        break
            left.put_back()
            yield area.place, found
        left.take(area.rows, area.columns)


def _name(clause: Clause) -> tuple[object, ...]:
    return (clause.decided_by, clause.rule and key_of(clause.rule))
