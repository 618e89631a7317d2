"""Where rules of one decision list decide, the deciders where they never do, and everyone's reach."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from sgagent.analysis.bit_sets import Columns, Piece, bits_of
from sgagent.analysis.header_space import Clause, dhcp_clause, list_clauses
from sgagent.analysis.packet_tables import make_tables
from sgagent.analysis.redundancy import Area, Table, code_of, common_area
from sgagent.core.addresses import Ranges, joined, size
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import ALL_PROTOCOLS, GRE, LAST_PORT, PORTED_NUMBERS, Direction, Family, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedRule

RuleKey = tuple[str, str]
"""A rule's group and id."""


_Deciders = dict[tuple[Family, int], set[int]]
"""By a clause's family and place, the places of clauses that decide about its packets."""


def key_of(rule: ResolvedRule) -> RuleKey:
    """Return the identity of a rule."""
    return (rule.security_group_id, rule.rule_id)


@dataclass(frozen=True)
class RuleReach:
    """The deciders on one direction at one judge, worked out once."""

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
            family: frozenset(area.place for table in tables for area in table.deciding())
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
            for area in table.deciding(table.all_verdicts.critical)
            if area.clause.rule
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
        """Return the rules that decide about no packet, each with its deciders instead, in order."""
        idle = {key: places for key, places in self.rules.items() if key not in self.deciding}
        instead: _Deciders = {place: set() for places in idle.values() for place in places}
        for family, tables in self.tables.items():
            here = {place for of_family, place in instead if of_family is family}
            for table in tables:
                for place, deciders in _instead(table, here, self.deciding_clauses[family]):
                    instead[family, place].update(deciders)
        return self._by_rule(instead)

    def behind(self, keys: Container[RuleKey]) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return the deciders without some rules, each taken out alone, in order."""
        following: _Deciders = {}
        for family, tables in self.tables.items():
            for table in tables:
                for place, deciders in _behind(table, keys):
                    following.setdefault((family, place), set()).update(deciders)
        return self._by_rule(following)

    def _by_rule(self, deciders: _Deciders) -> dict[RuleKey, tuple[Clause, ...]]:
        """Return rules with the deciders about their packets, in order, by the places of both."""
        found: dict[RuleKey, dict[tuple[object, ...], Clause]] = {}
        for (family, place), numbers in deciders.items():
            clauses = self.clauses[family]
            rule = clauses[place].rule
            if rule is not None:
                named = {known_by(clauses[number]): clauses[number] for number in sorted(numbers)}
                found.setdefault(key_of(rule), {}).update(named)
        return {key: tuple(named.values()) for key, named in found.items()}

    def relied_on(self, gone: Container[RuleKey]) -> frozenset[RuleKey]:
        """Return the rules that decide about a packet that would be decided otherwise without some rules."""
        found: set[RuleKey] = set()
        for tables in self.tables.values():
            for table in tables:
                areas = [
                    area
                    for area in table.areas
                    if area.clause.rule is None or key_of(area.clause.rule) not in gone
                ]
                if len(areas) == len(table.areas):
                    continue
                accepted = zip(table.all_verdicts.accepted, table.verdicts(areas).accepted, strict=True)
                deciding = table.deciding([here ^ there for here, there in accepted])
                found.update(key_of(area.clause.rule) for area in deciding if area.clause.rule)
        return frozenset(found)

    @cached_property
    def void_drops(self) -> Mapping[RuleKey, tuple[Clause, ...]]:
        """Return the drops whose traffic is accepted before, at least in part, each with the accepts."""
        found = {
            key: tuple(clause for clause in instead if clause.policy is Policy.ACCEPT)
            for key, instead in self.unreached.items()
            if self.rule(key).policy is Policy.DROP
        }
        return {key: accepting for key, accepting in found.items() if accepting}

    @cached_property
    def denied(self) -> Mapping[RuleKey, tuple[ResolvedRule, ...]]:
        """Return the accepts that decide nothing for a drop of everything, each with the drops."""
        found = {
            key: tuple(c.rule for c in instead if c.rule is not None and denies_all(c.rule))
            for key, instead in self.unreached.items()
            if self.rule(key).policy is Policy.ACCEPT
        }
        return {key: denying for key, denying in found.items() if denying}

    def without(self, gone: Container[RuleKey]) -> RuleReach:
        """Return the reach without some rules; the same object if it has none of them."""
        if not any(key in gone for key in self.rules):
            return self
        return RuleReach(self.judge.with_rules(lambda rule: key_of(rule) not in gone), self.direction)

    def rule(self, key: RuleKey) -> ResolvedRule:
        """Return a rule that can match."""
        family, place = self.rules[key][0]
        rule = self.clauses[family][place].rule
        assert rule is not None  # noqa: S101 - only places of rules are kept; for the type checker
        return rule

    def deciders(self, family: Family, code: int) -> Iterator[tuple[Table, Clause, Columns]]:
        """Yield the deciders about packets of a protocol and port, with the columns in its table."""
        for table in self.tables[family]:
            for clause, columns in table.deciders(table.row_of(code)):
                yield table, clause, columns


EVERYONE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


def denies_all(rule: ResolvedRule, families: Iterable[Family] = tuple(Family)) -> bool:
    """Return whether a rule drops everything from or to everyone of any of some families."""
    everyone = [EVERYONE[family] for family in families]
    return (
        rule.policy is Policy.DROP
        and ALL_PROTOCOLS in rule.protocols
        and any(peer.name in everyone for peer in rule.peer.objects)
        and rule.local_address is None
        and rule.conditions.local is None
    )


def _instead(
    table: Table, places: Container[int], deciding: Container[int]
) -> Iterator[tuple[int, list[int]]]:
    """Yield clauses, by their places, with those before that decide about their packets."""
    deciders = 0
    for number, area in enumerate(table.areas):
        if area.place in places:
            yield area.place, _deciders_within(table, area, table.index.meeting(area) & deciders)
        if area.place in deciding:
            deciders |= 1 << number


def _deciders_within(table: Table, area: Area, before: int) -> list[int]:
    """Return the places of the clauses, of some that stand before one, that decide about its packets."""
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
    begin = end = bisect_left(pieces, first, key=itemgetter(1))
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


def _behind(table: Table, keys: Container[RuleKey]) -> Iterator[tuple[int, list[int]]]:
    """Yield rules that decide, by their places, with the clauses that would decide without them."""
    left = table.opened()
    for number, area in enumerate(table.areas):
        rule = area.clause.rule
        if rule is not None and key_of(rule) in keys and left.has(area.rows, area.columns):
            later = table.index.meeting(area) >> number + 1 << number + 1
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


def known_by(clause: Clause) -> tuple[object, ...]:
    """Return the identity of a clause: its step, and its rule if it has one."""
    return (clause.decided_by, clause.rule and key_of(clause.rule))


_WIDE = {Family.IPV4: 1 << 31, Family.IPV6: 1 << 124}
"""More than half of the addresses that there are: in IPv6 the public ones are an eighth of all."""

_PARTS = 256
"""A rule for less than one such part of what counts as wide is not held to open anything to everyone."""

OpenPorts = Mapping[int, Mapping[RuleKey, Ranges]]
"""Ports that are open to everyone, by protocol and by the rules that open them. GRE counts as open at all."""

_LOOKED_AT = (*PORTED_NUMBERS, GRE.wire_number)
"""Protocols."""


def is_wide(peers: Ranges, family: Family) -> bool:
    """Return whether addresses are more than half of all: everyone, some aside."""
    return size(peers) > _WIDE[family]


def ports_open_to_everyone(clauses: Sequence[Clause], family: Family) -> OpenPorts:
    """Return the ports that rules open to everyone, by clauses in the order in which they decide."""
    accepting = sum(map(_is_opening, clauses))
    # What is smaller comes, if that are few rules, to no more than a quarter of what counts.
    least = max(_WIDE[family] // (4 * accepting or 1), _WIDE[family] // _PARTS)
    counting = [clause for clause in clauses if size(clause.addresses) > least]
    found: dict[int, dict[RuleKey, list[tuple[int, int]]]] = {number: {} for number in _LOOKED_AT}
    tables = make_tables(counting, family)
    for number in _LOOKED_AT:
        for key, first, last in _opened(tables, number, family, least):
            found[number].setdefault(key, []).append((first, last))
    return {
        number: {key: joined(ranges) for key, ranges in by_rule.items()} for number, by_rule in found.items()
    }


def _is_opening(clause: Clause) -> bool:
    return clause.decided_by is DecidedBy.RULE and clause.policy is Policy.ACCEPT


def _opened(
    tables: Sequence[Table], number: int, family: Family, least: int
) -> Iterator[tuple[RuleKey, int, int]]:
    """Yield runs of ports of a protocol that are open to everyone, with each rule that does it."""
    accepted = [table.verdicts(accepts=_is_opening).accepted for table in tables]
    for first, last in _runs(tables, number):
        rows = [table.row_of(first) for table in tables]
        here = [columns[row] for columns, row in zip(accepted, rows, strict=True)]
        if _weight(zip(tables, here, strict=True)) <= _WIDE[family]:
            continue
        opening: dict[RuleKey, list[tuple[Table, Columns]]] = {}
        for table, row in zip(tables, rows, strict=True):
            for clause, columns in table.deciders(row):
                if clause.rule is not None and _is_opening(clause):
                    opening.setdefault(key_of(clause.rule), []).append((table, columns))
        for key, pairs in opening.items():
            if _weight(pairs) > least:
                yield key, first & LAST_PORT, last & LAST_PORT


def _weight(pairs: Iterable[tuple[Table, Columns]]) -> int:
    """Return how many far ends there are in columns of tables; those in several tables count once."""
    return size(joined(ends for table, columns in pairs for ends in table.far_ranges(columns)))


def _runs(tables: Sequence[Table], number: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last code of runs of ports of a protocol in which no table has a border."""
    first, last = code_of(number), code_of(number, LAST_PORT)
    starts = sorted({first, *(code for table in tables for code in table.starts if first < code <= last)})
    yield from zip(starts, [*(start - 1 for start in starts[1:]), last], strict=True)
