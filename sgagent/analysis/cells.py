"""Cells: all packets of one direction and family, parted so that the same clauses match all of a part.

A cell is a class of far ends, times a run of protocols with destination ports. Source ports, near ends, users
and units part cells further, without a trace of which they are. A set of clauses is a number with one bit for
each, the first that decides the lowest: what decides, and what would without it, takes one operation a cell.
:mod:`sgagent.analysis.header_space` names packets in all dimensions, and takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import NamedTuple

from sgagent.analysis.header_space import far_ends_by_class
from sgagent.core.addresses import Ranges, common, joined, meets
from sgagent.core.clauses import Clause
from sgagent.core.conditions import NO_UNIT, NO_USER
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS, Family, Policy

LAST_CODE = (256 << 16) - 1
ALL_CODES: Ranges = ((0, LAST_CODE),)

MOST_CELLS = 1_000_000
"""That are looked at unless all are asked for: about 10 s of 10,000 clauses."""

Bits = int
"""A set of clauses: bit ``n`` is the clause at place ``n``."""


def code_of(protocol: int, port: int = 0) -> int:
    """Return the number by which a protocol with a port is sorted among all."""
    return protocol << 16 | port


def codes_of(clause: Clause) -> Ranges:
    """Return the protocols with ports that a clause matches; none if its protocols have no such ports."""
    if clause.protocols is None and not clause.speaks_of_ports:
        return ALL_CODES
    numbers = PORTED_NUMBERS if clause.protocols is None else clause.protocols
    if clause.speaks_of_ports and not all(number in PORTED_NUMBERS for number in numbers):
        return ()
    return tuple(
        (code_of(number, first), code_of(number, last))
        for number in numbers
        for first, last in clause.ports.ranges
    )


def first_of(bits: Bits) -> Bits:
    """Return the clause that decides before all others of a set."""
    return bits & -bits


def places_of(bits: Bits) -> Iterator[int]:
    """Yield the places of clauses, the first that decides first."""
    while bits:
        yield first_of(bits).bit_length() - 1
        bits ^= first_of(bits)


def bits_of(places: Iterable[int]) -> Bits:
    """Return the set of clauses at places, each of which is given once."""
    return sum(1 << place for place in places)


@dataclass(frozen=True, slots=True, eq=False)
class FarEndClass:
    """A class of far ends: those that the same clauses name."""

    ranges: Ranges
    peers: tuple[int, ...]


class PacketCell(NamedTuple):
    """Packets that the same clauses match."""

    far: FarEndClass
    first: int
    """Code of the first protocol with port."""

    last: int
    bits: Bits
    """The clauses."""

    @property
    def decider(self) -> int:
        """Return the place of the clause that decides."""
        return first_of(self.bits).bit_length() - 1


@dataclass(slots=True)
class Precedence:
    """The clauses that meet in cells, by the one that decides there."""

    matching: dict[Bits, Bits] = field(default_factory=dict)
    """All that match, the one that decides included."""

    following: dict[Bits, Bits] = field(default_factory=dict)
    """Those that would decide without it."""

    tied: set[Bits] = field(default_factory=set)
    """Rules of one priority and both policies that match the same packets, which nothing before decides."""

    unfinished: tuple[int, int] | None = None
    """How many classes of far ends were looked at, and of how many; None is all."""


_Changes = Mapping[int, Bits]
"""By codes, the clauses that begin or end to match there."""


@dataclass(frozen=True, slots=True)
class _Edges:
    """The numbers of a dimension at which clauses begin or end to match."""

    at_first: Bits
    """The clauses that match the first number, of those that match only some."""

    following: Sequence[Bits]
    """In order, the clauses that begin or end at each number after it."""

    limited: Bits
    """The clauses that match only some."""

    def cut(self, bits: Bits) -> Iterator[Bits]:
        """Yield the clauses of some that match each number."""
        here = bits & ~self.limited | bits & self.at_first
        yield here
        for change in self.following:
            if change & bits:
                here ^= change & bits
                yield here


def _edges(clauses: Sequence[Clause], wanted: Callable[[Clause], Ranges | None], last: int) -> _Edges:
    """Return the edges of clauses in a dimension."""
    changes: dict[int, Bits] = {}
    limited: Bits = 0
    for place, clause in enumerate(clauses):
        for first, end in joined(wanted(clause) or ()):
            limited |= 1 << place
            for edge in (first, end + 1):
                changes[edge] = changes.get(edge, 0) ^ 1 << place
    following = [bits for edge, bits in sorted(changes.items()) if 0 < edge <= last]
    return _Edges(changes.get(0, 0), following, limited)


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells of clauses, of which one at least matches everything."""

    clauses: Sequence[Clause]
    """In the order in which they decide."""

    family: Family

    @cached_property
    def accepts(self) -> Bits:
        """Return the clauses that accept."""
        return self._select(lambda one: one.policy is Policy.ACCEPT)

    @cached_property
    def rules(self) -> Bits:
        """Return the clauses that are rules."""
        return self._select(lambda one: one.rule is not None)

    def _select(self, is_meant: Callable[[Clause], bool]) -> Bits:
        return bits_of(place for place, one in enumerate(self.clauses) if is_meant(one))

    @cached_property
    def _by_peer(self) -> Mapping[Ranges | None, Sequence[int]]:
        """Return the places of clauses by their far ends; None is everyone."""
        found: dict[Ranges | None, list[int]] = {None: []}
        for place, clause in enumerate(self.clauses):
            peer = None if clause.is_for_everyone(self.family) else clause.addresses
            found.setdefault(peer, []).append(place)
        return found

    @cached_property
    def classes(self) -> Sequence[FarEndClass]:
        """Return the classes of far ends."""
        found = far_ends_by_class([peer for peer in self._by_peer if peer is not None], self.family)
        return [FarEndClass(joined(ranges), peers) for peers, ranges in sorted(found.items())]

    def each(
        self, codes: Ranges = ALL_CODES, among: Ranges | None = None, *, is_place_needed: bool = True
    ) -> Iterator[PacketCell]:
        """Yield the cells, those of a class one after the other.

        Args:
            codes: the protocols with ports of interest.
            among: far ends; only classes that have some of them are of interest. None is every class.
            is_place_needed: whether cells that only clauses for everyone match are yielded of each class, and
                not of the first alone.
        """
        everyone, *by_peer = (self._changes(places, codes) for places in self._by_peer.values())
        for_everyone = bits_of(self._by_peer[None])
        is_known_elsewhere = not is_place_needed and not self.classes[0].peers
        for far in self.classes:
            if among is not None and not any(meets(run, among) for run in far.ranges):
                continue
            changes = dict(everyone)
            for code, bits in chain.from_iterable(by_peer[peer].items() for peer in far.peers):
                changes[code] = changes.get(code, 0) ^ bits
            here, starts = 0, sorted(changes)
            for first, following in zip(starts, [*starts[1:], LAST_CODE + 1], strict=True):
                here ^= changes[first]
                if is_known_elsewhere and far.peers and not here & ~for_everyone:
                    continue
                for bits in self._parted(here) if here else ():
                    yield PacketCell(far, first, following - 1, bits)

    def _changes(self, places: Iterable[int], codes: Ranges) -> _Changes:
        found: dict[int, Bits] = {}
        for place in places:
            own = codes_of(self.clauses[place])
            for first, last in own if codes is ALL_CODES else common(joined(own), codes):
                found[first] = found.get(first, 0) ^ 1 << place
                found[last + 1] = found.get(last + 1, 0) ^ 1 << place
        found.pop(LAST_CODE + 1, None)
        return found

    @cached_property
    def _narrow(self) -> Bits:
        """Return the clauses that match some source ports, near ends, users or units only."""
        return self._select(lambda one: any(wanted(one) for wanted, _ in _NARROWING))

    @cached_property
    def _known(self) -> dict[Bits, Sequence[Bits]]:
        return {}

    def _parted(self, bits: Bits) -> Iterable[Bits]:
        """Return the clauses that match in each part, by what else they match only some of."""
        narrow = bits & self._narrow
        if not narrow:
            return (bits,)
        if narrow not in self._known:
            parts = {narrow}
            for edges in self._edges:
                parts = {part for one in parts for part in edges.cut(one)}
            self._known[narrow] = sorted(parts)
        return [bits ^ narrow ^ part for part in self._known[narrow]]

    @cached_property
    def _edges(self) -> Sequence[_Edges]:
        return [_edges(self.clauses, wanted, last or self.family.last_address) for wanted, last in _NARROWING]

    def precedence(self, most: int | None = MOST_CELLS) -> Precedence:
        """Return which clauses meet; None looks at all cells, however many there are."""
        found, equal = Precedence(), self._equal
        cells = self.each(is_place_needed=False)
        matching, following = found.matching, found.following
        for _, _, _, bits in islice(cells, most):
            decider = bits & -bits
            rest = bits ^ decider
            matching[decider] = matching.get(decider, 0) | bits
            following[decider] = following.get(decider, 0) | rest & -rest
            if decider in equal and bits & equal[decider] & self.accepts:
                found.tied.add(bits & equal[decider])
        left = next(cells, None)
        if left is not None:
            found.unfinished = self.classes.index(left.far), len(self.classes)
        return found

    @cached_property
    def _equal(self) -> Mapping[Bits, Bits]:
        """Return the drops, each with all rules of its priority."""
        by_priority: dict[int, Bits] = {}
        for place, one in enumerate(self.clauses):
            if one.rule is not None:
                by_priority[one.rule.priority] = by_priority.get(one.rule.priority, 0) | 1 << place
        return {
            1 << place: by_priority[one.rule.priority]
            for place, one in enumerate(self.clauses)
            if one.rule is not None and one.policy is Policy.DROP
        }


_NARROWING: Sequence[tuple[Callable[[Clause], Ranges | None], int | None]] = (
    (lambda one: None if one.source_ports.is_all else one.source_ports.ranges, LAST_PORT),
    (lambda one: None if one.local is None else (one.local,), None),
    (lambda one: one.makers[0], NO_USER),
    (lambda one: one.makers[1], NO_UNIT),
)
"""What a clause may match only some of, and the last number of each dimension; None: the last address."""
