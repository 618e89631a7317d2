"""Tables that partition the packets of one direction and family, cut at the borders of clauses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from sgagent.analysis.bit_sets import Columns, number_of
from sgagent.analysis.header_space import Clause, far_ends_by_class
from sgagent.analysis.redundancy import LAST_CODE, Area, Table, code_of
from sgagent.core.addresses import Ranges, sweep
from sgagent.core.conditions import NO_UNIT, NO_USER
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS, Family

MOST_COLUMNS = 1 << 11
"""In one table. With more of them, each sum would take longer than it takes Python to ask for it; with fewer,
what is for everyone would be in very many tables."""

_MOST_COLUMNS_OF_CROWDS = 1 << 14
"""The same where members of groups, or what is in lists, are mixed, so that most would be in many tables."""

_Numbered = Sequence[tuple[int, Clause]]
"""Clauses with their places among all."""


def make_tables(clauses: Sequence[Clause], family: Family, most: int | None = None) -> tuple[Table, ...]:
    """Return tables that hold every packet, each once.

    Args:
        clauses: in the order in which they decide; the last one matches everything.
        family: of the packets.
        most: how many columns a table may have; None is what suits the clauses.
    """
    return tuple(_tables(list(enumerate(clauses)), family, most))


@dataclass(frozen=True, slots=True)
class _Class:
    """Far ends in the same clauses, and the kinds of near ends, source ports and makers of these clauses."""

    ends: Ranges
    peers: tuple[int, ...]
    sides: _Sides


def _tables(numbered: _Numbered, family: Family, most: int | None) -> Iterator[Table]:
    """Yield tables, each of as many classes of far ends as it has room for."""
    sides_by_peer: dict[Ranges, set[_Side]] = {}
    for_everyone: set[_Side] = {_ANYWHERE}
    for _, clause in numbered:
        is_for_everyone = clause.is_for_everyone(family)
        wanted_there = for_everyone if is_for_everyone else sides_by_peer.setdefault(clause.addresses, set())
        wanted_there.add(_side_of(clause))
    # Those of one peer come together, so that it is in few tables.
    found = sorted(far_ends_by_class(sides_by_peer, family).items())
    by_peer, known = list(sides_by_peer.values()), dict[frozenset[_Side], list[_Sides]]()
    classes: list[_Class] = []
    most = most or _room(peers for peers, _ in found)
    room = most
    for peers, ends in found:
        wanted = frozenset(for_everyone.union(*(by_peer[peer] for peer in peers)))
        if wanted not in known:
            known[wanted] = list(_Sides.of(wanted, family).parts(most))
        for sides in known[wanted]:
            if len(sides) > room:
                yield _table(numbered, family, list(sides_by_peer), classes)
                classes, room = [], most
            classes.append(_Class(tuple(ends), peers, sides))
            room -= len(sides)
    yield _table(numbered, family, list(sides_by_peer), classes)


def _room(combinations: Iterable[tuple[int, ...]]) -> int:
    """Return how many columns a table has room for: more where most peers would be in several tables."""
    touched, peers = set[tuple[int, int]](), set[int]()
    for place, combination in enumerate(combinations):
        peers.update(combination)
        touched.update((peer, place // MOST_COLUMNS) for peer in combination)
    return MOST_COLUMNS if len(touched) <= 2 * len(peers) else _MOST_COLUMNS_OF_CROWDS


_Side = tuple[Ranges | None, Ranges | None, Ranges | None, Ranges | None]
"""The near ends, the source ports, the users and the units that a clause wants; None is any."""

_ANYWHERE: _Side = (None, None, None, None)


def _side_of(clause: Clause) -> _Side:
    return (
        None if clause.local is None else (clause.local,),
        None if clause.source_ports.is_all else clause.source_ports.ranges,
        *clause.makers,
    )


_Kind = frozenset[Ranges]
"""All wanted ranges that hold a number; numbers in the same ranges are of one kind."""


def _kinds(wanted: Iterable[Ranges], last: int) -> list[_Kind]:
    """Return the kinds that ranges sort all numbers into, in the order in which they occur first."""
    some = list(wanted)
    pieces = sweep(enumerate(some), last)
    return list(dict.fromkeys(frozenset(some[number] for number in here) for _, _, here in pieces))


class _Sides:
    """Kinds of near ends, source ports, users and units, and which of them a clause matches."""

    def __init__(self, kinds: Sequence[Sequence[_Kind]]) -> None:
        """Take the kinds of all of them."""
        self._kinds = kinds
        self._places = tuple(map(_places_of, kinds))

    def __len__(self) -> int:
        """Return how many combinations of kinds there are."""
        return prod(map(len, self._kinds))

    @classmethod
    def of(cls, wanted: Iterable[_Side], family: Family) -> _Sides:
        """Return the kinds of near ends, source ports, users and units that clauses distinguish."""
        lasts = (family.last_address, LAST_PORT, NO_USER, NO_UNIT)
        return cls(
            [
                _kinds(set(ranges) - {None}, last)
                for ranges, last in zip(zip(*wanted, strict=True), lasts, strict=True)
            ]
        )

    def parts(self, most: int) -> Iterator[_Sides]:
        """Yield the combinations of kinds in parts of which none is larger than wanted."""
        if len(self) <= most:
            yield self
        else:
            place = max(range(len(self._kinds)), key=lambda place: len(self._kinds[place]))
            longest = self._kinds[place]
            for half in (longest[: len(longest) // 2], longest[len(longest) // 2 :]):
                yield from _Sides([*self._kinds[:place], half, *self._kinds[place + 1 :]]).parts(most)

    def matched(self, side: _Side) -> list[int]:
        """Return the places of the combinations of kinds that a clause matches; they rise."""
        found = [0]
        for wanted, kinds, places in zip(side, self._kinds, self._places, strict=True):
            here = range(len(kinds)) if wanted is None else places.get(wanted, ())
            found = [place * len(kinds) + one for place in found for one in here]
        return found


def _places_of(kinds: Sequence[_Kind]) -> dict[Ranges, list[int]]:
    """Return, for ranges, the places of the kinds that they hold."""
    found: dict[Ranges, list[int]] = {}
    for place, kind in enumerate(kinds):
        for ranges in kind:
            found.setdefault(ranges, []).append(place)
    return found


def _table(numbered: _Numbered, family: Family, peers: Sequence[Ranges], classes: Sequence[_Class]) -> Table:
    """Return the table of some classes of far ends."""
    ends = list(accumulate(len(one.sides) for one in classes))
    columns_of = _column_finder(peers, list(zip((0, *ends), classes, strict=False)), family)
    found: list[tuple[int, Clause, Ranges, Columns]] = []
    borders = {0}
    for place, clause in numbered:
        codes = codes_of(clause)
        columns = columns_of(clause) if codes else 0
        if columns:
            found.append((place, clause, codes, columns))
            for first, last in codes:
                borders |= {first, last + 1}
    starts = sorted(border for border in borders if border <= LAST_CODE)
    rows = {start: row for row, start in enumerate(starts)}
    rows[LAST_CODE + 1] = len(starts)
    return Table(
        starts=starts,
        far_ends={end - 1: one.ends for end, one in zip(ends, classes, strict=True)},
        every_column=(1 << (ends[-1] if ends else 0)) - 1,
        areas=[
            Area(clause, place, tuple((rows[first], rows[last + 1] - 1) for first, last in codes), columns)
            for place, clause, codes, columns in found
        ],
    )


def _column_finder(
    peers: Sequence[Ranges], classes: Sequence[tuple[int, _Class]], family: Family
) -> Callable[[Clause], Columns]:
    """Return a function that finds the columns of a clause in a table, by each class's first column."""
    by_peer: dict[Ranges, list[tuple[int, _Class]]] = {peer: [] for peer in peers}
    for first, one in classes:
        for peer in one.peers:
            by_peer[peers[peer]].append((first, one))
    known: dict[tuple[object, ...], Columns] = {}

    def columns_of(clause: Clause) -> Columns:
        side = _side_of(clause)
        key = (clause.addresses, side)
        if key not in known:
            of_clause = classes if clause.is_for_everyone(family) else by_peer[clause.addresses]
            sides = {id(one.sides): one.sides for _, one in of_clause}
            matched = {key: some.matched(side) for key, some in sides.items()}  # classes share most sides
            known[key] = number_of([first + at for first, one in of_clause for at in matched[id(one.sides)]])
        return known[key]

    return columns_of


def codes_of(clause: Clause) -> Ranges:
    """Return the protocols with ports that a clause matches; none if its protocols have no such ports."""
    if clause.protocols is None and not clause.speaks_of_ports:
        return ((0, LAST_CODE),)
    numbers = PORTED_NUMBERS if clause.protocols is None else clause.protocols
    if clause.speaks_of_ports and not all(number in PORTED_NUMBERS for number in numbers):
        return ()
    return tuple(
        (code_of(number, first), code_of(number, last))
        for number in numbers
        for first, last in clause.ports.ranges
    )
