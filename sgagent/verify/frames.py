"""Frames: the deciders on the sessions opened in one direction through one link, for one family.

A frame has the classes of far ends that neither the policy's clauses nor the table's expressions distinguish.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from heapq import merge
from operator import attrgetter

from sgagent.core.addresses import Ranges, joined, ranges_of, sweep, without
from sgagent.core.clauses import DecidedBy
from sgagent.core.model import Direction, Family
from sgagent.core.policy import ResolvedInterface
from sgagent.nft import ruleset as nft
from sgagent.verify.compiled_table import CompiledTable, ranges_in
from sgagent.verify.expectation import BoxClause, ClauseIndex, list_box_clauses
from sgagent.verify.packets import PacketSpace, Phase, reads_other_link, split
from sgagent.verify.verified_table import VerifiedTable, reach, selectors_of
from sgagent.verify.views import Settled, View

PLACE = attrgetter("place")
"""The order in which clauses decide."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """The deciders on the sessions opened in one direction through one link, for one family."""

    judge: ResolvedInterface | None
    """The interface of the policy; None where nothing is judged."""

    everyone: ClauseIndex
    """The clauses for all far ends."""

    always: Sequence[BoxClause]
    """Those of them that no group can block or let through."""

    addresses: Sequence[int]
    """One of each class of far ends. The last class stands for those that only clauses for everyone speak of,
    be there such or not."""

    own: Sequence[tuple[BoxClause, ...]]
    """The clauses for each class, without those for everyone."""

    members: Sequence[Sequence[tuple[int, int]]]
    """All far ends of each class, if they were asked for."""

    @property
    def nobody(self) -> int:
        """Return the last class."""
        return len(self.addresses) - 1

    def far_ends(self, numbers: Iterable[int]) -> Ranges:
        """Return the far ends of some classes, if they were asked for."""
        return joined(ends for number in numbers for ends in self.members[number])

    def without_always(self, box: PacketSpace) -> list[PacketSpace]:
        """Return the packets of a box that no group can block or let through, in disjoint boxes."""
        left = [box]
        for clause in self.always:
            left = [part for one in left for part in split(one, clause.constraints)[1]]
        return left


def make_frame(
    compiled: CompiledTable,
    judge: ResolvedInterface | None,
    view: View,
    *,
    has_members: bool,
) -> Frame:
    """Return a frame with its classes of far ends.

    Args:
        compiled: the table to compare.
        judge: the interface of the policy; None where nothing is judged.
        view: one of those of the frame.
        has_members: whether all far ends of a class will be asked for.
    """
    clauses = list_box_clauses(judge, view.opened, view.family) if judge else ()
    everyone = [clause for clause in clauses if clause.peers is None]
    by_peers: dict[int, list[BoxClause]] = {}
    for clause in clauses:
        if clause.peers is not None:
            by_peers.setdefault(id(clause.peers), []).append(clause)
    groups = list(by_peers.values())
    sets = [some[0].peers or () for some in groups]
    sets += _expressions(compiled, view)
    classes = far_end_classes(sets, view.family)
    is_ordinary = partial(_is_ordinary, view.family)
    own = (merge(*(groups[one] for one in labels if one < len(groups)), key=PLACE) for labels in classes)
    return Frame(
        judge=judge,
        everyone=ClauseIndex(everyone),
        always=[clause for clause in everyone if clause.clause.decided_by is DecidedBy.ALWAYS],
        addresses=[
            *(next(filter(is_ordinary, some), some[0]) for _, some in classes.values()),
            ORDINARY[view.family],
        ],
        own=[*map(tuple, own), ()],
        members=[*(ranges if has_members else () for ranges, _ in classes.values()), ()],
    )


def _expressions(compiled: CompiledTable, view: View) -> Iterator[Ranges]:
    """Yield the sets of far ends that the table distinguishes in packets of a view's link and family."""
    done: set[Hashable] = set()
    for statement in _address_statements(compiled, view):
        for place, selector in enumerate(selectors_of(statement)):
            key = statement.values if isinstance(statement, nft.Match) else (statement.verdict_map, place)
            if key in done or not _is_far_end(selector, view):
                continue
            done.add(key)
            if isinstance(statement, nft.Match):
                yield ranges_in(statement)
            else:
                yield from _keys(compiled.table, statement.verdict_map, place)


def _address_statements(compiled: CompiledTable, view: View) -> Sequence[nft.Match | nft.LookUp]:
    """Return the statements that distinguish addresses in chains within reach of a view's link and family."""
    known, key = compiled.address_statements, (view.link, view.family)
    if key not in known:
        known[key] = [
            one
            for name in _reached(compiled.table, view)
            for one in compiled.table.chains[name].statements
            if isinstance(one, (nft.Match, nft.LookUp))
            and any(selector.key_type in nft.ADDRESS_TYPES.values() for selector in selectors_of(one))
        ]
    return known[key]


def _reached(table: VerifiedTable, view: View) -> Iterable[str]:
    """Return the chains that packets of a view's link and family can get to, at any hook."""
    found: dict[str, None] = {}
    for hook in table.base_chains:
        onward = partial(_onward, table, replace(view, hook=hook))
        found = reach((chain.name for chain in table.chains_at(hook, view.family)), onward, found)
    return found


def _onward(table: VerifiedTable, view: View, name: str) -> Iterator[str]:
    """Yield the chains that a chain may send packets of a view's link and family to."""
    for statements in table.chains[name].rules:
        is_sure, statement = True, None
        for statement in statements:
            match statement:
                case nft.Match():
                    value = _link_or_family(statement.selector, view)
                    if value is None:
                        is_sure = False
                    elif statement.has_word(value) is not (statement.operator is nft.Operator.EQUAL):
                        break
                case nft.LookUp(selectors, verdict_map):
                    yield from _found_in(table, verdict_map, selectors, view)
                case nft.Goto(chain) | nft.Jump(chain):
                    yield chain
        else:
            if is_sure and isinstance(statement, (nft.Accept, nft.Drop, nft.Goto, nft.Return)):
                return


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


def _keys(table: VerifiedTable, name: str, place: int) -> Iterator[Ranges]:
    """Yield the sets of values of a field that lead to different places."""
    verdict_map = table.verdict_maps[name]
    found: dict[Hashable, set[tuple[int, int]]] = {}
    for element in verdict_map.elements:
        verdict, value = element.verdict, element.key[place]
        if isinstance(value, nft.Interval):
            alone: Hashable = verdict.chain if isinstance(verdict, nft.Goto) else verdict
            key = alone if len(element.key) == 1 else value
            found.setdefault(key, set()).add((value.first, value.last))
    yield from (tuple(sorted(ranges)) for ranges in found.values())


def _is_far_end(selector: nft.Selector, view: View) -> bool:
    """Return whether an expression may read the far end in a view of the frame."""
    if selector.key_type is not nft.ADDRESS_TYPES[view.family]:
        return False
    is_original = view.accepted_as is Direction.INGRESS
    judged = nft.TupleDirection.ORIGINAL if is_original else nft.TupleDirection.REPLY
    return view.is_elsewhere or selector.tuple_direction in (None, judged)


_FarEnds = tuple[list[tuple[int, int]], list[int]]
"""All addresses of a class, and some of them that may stand for it."""


def far_end_classes(sets: Sequence[Ranges], family: Family) -> dict[tuple[int, ...], _FarEnds]:
    """Return all addresses in classes, by the places of the sets that hold them.

    The ranges of a set are disjoint. Single addresses are put aside first: they are most of all borders.
    """
    singles: dict[int, list[int]] = {}
    for place, ranges in enumerate(sets):
        for first, last in ranges:
            if first == last:
                singles.setdefault(first, []).append(place)
    wide = ((place, tuple(r for r in ranges if r[0] != r[1])) for place, ranges in enumerate(sets))
    segments = [(first, last, tuple(here)) for first, last, here in sweep(wide, family.last_address)]
    ordered, found = sorted(singles), dict[tuple[int, ...], _FarEnds]()
    for first, last, labels in segments:
        aside = ranges_of(ordered[bisect_left(ordered, first) : bisect_right(ordered, last)])
        left = without(((first, last),), aside)
        if left:
            members, candidates = found.setdefault(labels, ([], []))
            members += left
            wish = max(left[0][0], min(ORDINARY[family], last))
            candidates.append(left[0][0] if wish in singles else wish)
    starts = [first for first, _, _ in segments]
    labels_of = cache(lambda own, around: tuple(sorted({*own, *around})))
    for address in ordered:
        around = segments[bisect_right(starts, address) - 1][2]
        members, candidates = found.setdefault(labels_of(tuple(singles[address]), around), ([], []))
        members.append((address, address))
        candidates.append(address)
    return found


ORDINARY = {Family.IPV4: 198 << 24 | 51 << 16 | 100 << 8 | 7, Family.IPV6: 0x20010DB8 << 96 | 7}


def _is_ordinary(family: Family, address: int) -> bool:
    """Return whether a host can have the address."""
    if family is Family.IPV4:
        return 0 < address >> 24 < 224 and address >> 24 != 127
    return address >> 125 == 1
