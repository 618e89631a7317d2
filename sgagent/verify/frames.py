"""Frames: what decides about the sessions that are opened in one direction through one link, for one family.

A frame has the classes of far ends that neither the policy's clauses nor the table's expressions distinguish.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import merge
from operator import attrgetter

from sgagent.core.addresses import AddressRanges, Ranges, common, joined, ranges_of, sweep, without
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedInterface
from sgagent.nft import ruleset as nft
from sgagent.verify.compiled_table import CompiledTable
from sgagent.verify.expectation import BoxClause, ClauseIndex, RestrictedPolicy, list_box_clauses
from sgagent.verify.packets import Box, Phase, reads_other_link, split
from sgagent.verify.verified_table import Return, VerifiedTable, reach, selectors_of
from sgagent.verify.views import Settled, View

PLACE = attrgetter("place")
"""The order in which clauses decide."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """What decides about the sessions that are opened in one direction through one link, for one family."""

    key: tuple[object, ...]
    """Equal in the frames of other proofs that decide about the same sessions."""

    judge: ResolvedInterface | None
    """The interface of the policy; None where nothing is judged."""

    restricted: RestrictedPolicy | None
    everyone: ClauseIndex
    """The clauses for all far ends."""

    always: Sequence[BoxClause]
    """Those of them that no group can block or let through."""

    addresses: Sequence[int]
    """One of each class of far ends. The last class stands for those that only clauses for everyone speak of,
    be there such or not."""

    own: Sequence[tuple[BoxClause, ...]]
    """The clauses for each class, without those for everyone."""

    members: Sequence[Iterable[tuple[int, int]]]
    """All far ends of each class, if they were asked for."""

    @property
    def nobody(self) -> int:
        """Return the last class."""
        return len(self.addresses) - 1

    def far_ends(self, numbers: Iterable[int]) -> Ranges:
        """Return the far ends of some classes, if they were asked for."""
        return joined(ends for number in numbers for ends in self.members[number])

    def without_always(self, box: Box) -> list[Box]:
        """Return the packets of a box that no group can block or let through, in disjoint boxes."""
        left = [box]
        for clause in self.always:
            left = [part for one in left for part in split(one, clause.constraints)[1]]
        return left


def make_frame(
    compiled: CompiledTable,
    judge: ResolvedInterface | None,
    view: View,
    within: Ranges | None = None,
    *,
    has_members: bool = False,
) -> Frame:
    """Return a frame with its classes of far ends.

    Args:
        compiled: the table to compare.
        judge: the interface of the policy; None where nothing is judged.
        view: one of those of the frame.
        within: the far ends that have to be looked at; None for all.
        has_members: whether all far ends of a class will be asked for.
    """
    clauses = list_box_clauses(judge, view.opened, view.family) if judge else ()
    everyone = [clause for clause in clauses if clause.peers is None]
    by_peers: dict[int, list[BoxClause]] = {}
    for clause in clauses:
        if clause.peers is not None:
            by_peers.setdefault(id(clause.peers), []).append(clause)
    sets = Distinctions(view.family)
    inside = None if within is None else sets.add(within)
    by_label = {sets.add(_within(some[0].peers or (), within)): some for some in by_peers.values()}
    for ranges in _expressions(compiled, view, within):
        sets.add(ranges)
    classes = [one for one in sets.classes() if inside is None or inside in one.labels]
    members = sets.members() if has_members else {}
    own = (merge(*(by_label.get(label, ()) for label in one.labels), key=PLACE) for one in classes)
    return Frame(
        key=(view.link, view.opened, view.family, judge is not None),
        judge=judge,
        restricted=RestrictedPolicy(judge, view.opened) if judge else None,
        everyone=ClauseIndex(everyone),
        always=[clause for clause in everyone if clause.decided_by is DecidedBy.ALWAYS],
        addresses=[*(one.address for one in classes), ORDINARY[view.family]],
        own=[*map(tuple, own), ()],
        members=[*(members.get(one.labels, ()) for one in classes), ()],
    )


_Sets = Iterator[Iterable[tuple[int, int]]]


def _within(ranges: AddressRanges, within: Ranges | None) -> AddressRanges:
    return ranges if within is None else common(ranges, within)


def _expressions(compiled: CompiledTable, view: View, within: Ranges | None) -> _Sets:
    """Yield the sets of far ends that the table distinguishes in packets of a view's link and family."""
    done: set[Hashable] = set()
    for statement in _address_statements(compiled, view):
        for place, selector in enumerate(selectors_of(statement)):
            key = statement.values if isinstance(statement, nft.Match) else (statement.verdict_map, place)
            if key in done or not is_far_end(selector, view):
                continue
            done.add(key)
            if isinstance(statement, nft.Match):
                yield _within(tuple(_ends(statement.values)), within)
            elif len(statement.selectors) == 1 and within is not None:
                yield from _keys_within(compiled, statement.verdict_map, within)
            else:
                yield from _keys(compiled.table, statement.verdict_map, place, within)


def _address_statements(compiled: CompiledTable, view: View) -> tuple[nft.Match | nft.LookUp, ...]:
    """Return what distinguishes addresses in chains that packets of a view's link and family can get to."""
    known, key, addresses = compiled.address_statements, (view.link, view.family), nft.ADDRESS_TYPES.values()
    if key not in known:
        known[key] = tuple(
            one
            for name in _reached(compiled.table, view)
            for one in compiled.table.chains[name].statements
            if isinstance(one, (nft.Match, nft.LookUp))
            and any(selector.key_type in addresses for selector in selectors_of(one))
        )
    return known[key]


def _reached(table: VerifiedTable, view: View) -> Iterable[str]:
    """Return the chains that packets of a view's link and family can get to, at any hook."""
    found: dict[str, None] = {}
    for hook, chains in table.base_chains.items():
        onward = partial(_onward, table, replace(view, hook=hook))
        found = reach((chain.name for chain in chains), onward, found)
    return found


def _onward(table: VerifiedTable, view: View, name: str) -> Iterator[str]:
    """Yield the chains that a chain may send packets of a view's link and family to."""
    for statements in table.chains[name].rules:
        is_sure, statement = True, None
        for statement in statements:
            match statement:
                case nft.Match():
                    found = _settled(statement, view)
                    if found is False:
                        break
                    is_sure = is_sure and found is True
                case nft.LookUp(selectors, verdict_map):
                    yield from _found_in(table, verdict_map, selectors, view)
                case nft.Goto(chain) | nft.Jump(chain):
                    yield chain
        else:
            if is_sure and isinstance(statement, (nft.Accept, nft.Drop, nft.Goto, Return)):
                return


def _settled(match: nft.Match, view: View) -> bool | None:
    """Return whether packets meet a condition on their link and family; None for other conditions."""
    value = _link_or_family(match.selector, view)
    if value is None:
        return None
    return match.has_word(value) is (match.operator is nft.Operator.EQUAL)


def _found_in(
    table: VerifiedTable, name: str, selectors: tuple[nft.Selector, ...], view: View
) -> Iterable[str]:
    """Return the chains that a look-up may lead to."""
    value = _link_or_family(selectors[0], view)
    if value is None:
        return table.map_targets(name)
    elements = table.verdict_maps[name].elements
    found = (element.verdict for element in elements if element.key[0] == nft.Symbol(value))
    return [verdict.chain for verdict in found if isinstance(verdict, (nft.Goto, nft.Jump))]


def _link_or_family(selector: nft.Selector, view: View) -> str | None:
    """Return the link or family, where an expression reads it; others than the packet's own vary."""
    if selector.kind != "meta" or selector.key == "l4proto" or reads_other_link(selector.key, view.hook):
        return None
    reading = view.read(selector, Phase.WIRE)
    return str(reading.value) if isinstance(reading, Settled) else None


def _keys_within(compiled: CompiledTable, name: str, within: Ranges) -> _Sets:
    """Yield the same for a map of far ends alone, of which few matter."""
    tree = compiled.tree(name)
    found: dict[int, set[tuple[int, int]]] = {}
    for first, last in within:
        for place in range(*tree.places_between(first, last)):
            ends = max(first, tree.starts[place]), min(last, tree.lasts[place])
            found.setdefault(id(tree.children[place]), set()).add(ends)
    yield from map(sorted, found.values())


def _keys(table: VerifiedTable, name: str, place: int, within: Ranges | None) -> _Sets:
    """Yield the sets of values of a field that lead to different places."""
    verdict_map = table.verdict_maps[name]
    found: dict[Hashable, set[tuple[int, int]]] = {}
    for element in verdict_map.elements:
        verdict, value = element.verdict, element.key[place]
        if isinstance(value, nft.Interval):
            alone: Hashable = verdict.chain if isinstance(verdict, nft.Goto) else verdict
            key = alone if len(element.key) == 1 else value
            found.setdefault(key, set()).add((value.first, value.last))
    for ranges in found.values():
        yield _within(tuple(sorted(ranges)), within)


def _ends(values: Iterable[object]) -> Iterator[tuple[int, int]]:
    return ((value.first, value.last) for value in values if isinstance(value, nft.Interval))


def is_far_end(selector: nft.Selector, view: View) -> bool:
    """Return whether an expression may read the far end in a view of the frame."""
    if selector.key_type is not nft.ADDRESS_TYPES[view.family]:
        return False
    judged = nft.TupleDirection.ORIGINAL if view.opened is Direction.INGRESS else nft.TupleDirection.REPLY
    return selector.tuple_direction in (None, judged)


@dataclass(frozen=True, slots=True)
class FarEndClass:
    """A class."""

    address: int
    """One that stands for all: one that hosts can have, if there is such."""

    labels: tuple[int, ...]
    """The labels of the sets that hold it, sorted."""


class Distinctions:
    """Sets of addresses, with labels by which callers find them again in the classes."""

    def __init__(self, family: Family) -> None:
        """Start without any."""
        self._family = family
        self._singles: dict[int, list[int]] = {}
        self._wide: list[list[tuple[int, int]]] = []
        """By label, what is no single address."""

    def add(self, ranges: Iterable[tuple[int, int]]) -> int:
        """Add a set, whose ranges are disjoint, and return its label."""
        label, singles = len(self._wide), self._singles
        wide: list[tuple[int, int]] = []
        for first, last in ranges:
            if first != last:
                wide.append((first, last))
            else:
                singles.setdefault(first, []).append(label)
        self._wide.append(wide)
        return label

    def classes(self) -> tuple[FarEndClass, ...]:
        """Return the classes; together they hold all addresses."""
        segments = self._segments()
        starts = [first for first, _, _ in segments]
        ordered = sorted(self._singles)
        found: dict[tuple[int, ...], int] = {}
        for first, last, labels in segments:
            left = self._outside_singles(ordered, first, last)
            if left is not None:
                self._take(found, labels, left)
        by_own: dict[tuple[int, tuple[int, ...]], tuple[int, ...]] = {}
        for address in ordered:
            own, place = tuple(self._singles[address]), bisect_right(starts, address) - 1
            known = by_own.get((place, own))
            if known is None:
                known = by_own[place, own] = tuple(sorted({*own, *segments[place][2]}))
            self._take(found, known, address)
        return tuple(FarEndClass(address, labels) for labels, address in found.items())

    def members(self) -> dict[tuple[int, ...], list[tuple[int, int]]]:
        """Return the addresses of each class, by the labels of the sets that hold it."""
        found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        ordered = sorted(self._singles)
        for first, last, labels in self._segments():
            singles = ordered[bisect_left(ordered, first) : bisect_right(ordered, last)]
            others = without(((first, last),), ranges_of(singles))
            found.setdefault(labels, []).extend(others)
            for one in singles:
                found.setdefault(tuple(sorted({*self._singles[one], *labels})), []).append((one, one))
        return found

    def _segments(self) -> list[tuple[int, int, tuple[int, ...]]]:
        spans = ((label, tuple(sorted(ranges))) for label, ranges in enumerate(self._wide))
        return [(first, last, tuple(here)) for first, last, here in sweep(spans, self._family.last_address)]

    def _outside_singles(self, ordered: list[int], first: int, last: int) -> int | None:
        """Return an address of a segment that is not among the singles; None if all are."""
        place = bisect_right(ordered, first - 1)
        for address in range(first, last + 1):
            if place == len(ordered) or ordered[place] != address:
                ordinary = ORDINARY[self._family]
                wished = max(address, min(ordinary, last))
                return address if wished in self._singles else wished
            place += 1
        return None

    def _take(self, found: dict[tuple[int, ...], int], labels: tuple[int, ...], address: int) -> None:
        known = found.get(labels)
        if known is None or (not _is_ordinary(self._family, known) and _is_ordinary(self._family, address)):
            found[labels] = address


ORDINARY = {Family.IPV4: 198 << 24 | 51 << 16 | 100 << 8 | 7, Family.IPV6: 0x20010DB8 << 96 | 7}


def _is_ordinary(family: Family, address: int) -> bool:
    """Return whether a host can have the address."""
    if family is Family.IPV4:
        return 0 < address >> 24 < 224 and address >> 24 != 127
    return address >> 125 == 1
