"""Hosts of the graph: combinations of attached groups, and the packets they accept and drop.

A host is an interface of the documents. A group member that is given by address, without an interface, has no
known policy: as a far end it sends and accepts everything. An interface that lists no address of a family may
have one all the same: toward what is no group, it is judged at every address that nobody has.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from sgagent.analysis.graph.elements import AllowedTraffic
from sgagent.analysis.graph.unresolved import stand_ins, with_stand_ins
from sgagent.analysis.header_space import Box, Columns, cut_into_boxes
from sgagent.analysis.lint.subject import Attachment, LintSubject
from sgagent.core.addresses import NONE, AddressSet, Ranges, common, joined, size, sweep, without
from sgagent.core.clauses import Clause, DecidedBy, list_clauses
from sgagent.core.model import Direction, Family, Policy
from sgagent.core.policy import ResolvedInterface

FamilyRanges = Mapping[Family, Ranges]


class Places:
    """All places of definitions, and where the members of each group are."""

    def __init__(self, subject: LintSubject) -> None:
        """Sort interfaces and members into places."""
        self._subject = subject
        self.members: Mapping[str, FamilyRanges] = {
            group: {family: joined(members.ranges(family)) for family in Family}
            for group, members in subject.members.items()
        }
        """The members of each group (§5.2)."""

        self.stand_ins = stand_ins(subject)
        """Of names that are not resolved."""

        attachments = [
            (with_stand_ins(attachment.judge, self.stand_ins), attachment.interfaces)
            for attachment in subject.attachments
            if attachment.interfaces
        ]
        closed = tuple(
            interface.network_interface_id
            for interface in subject.snapshot.network_interfaces
            if not interface.security_group_ids
        )
        if closed:
            attachments.append((ResolvedInterface(name=""), closed))
        interfaces = subject.snapshot.interface_by_id
        hosts = [[AddressSet.of(interfaces[name].addresses) for name in names] for _, names in attachments]
        addresses = [
            {family: joined(r for host in some for r in host.ranges(family)) for family in Family}
            for some in hosts
        ]
        self._taken = {family: joined(r for one in addresses for r in one[family]) for family in Family}
        shared = {family: _shared([one[family] for one in addresses], family) for family in Family}
        nobodys = {family: without(((0, family.last_address),), self._taken[family]) for family in Family}
        self._attached = tuple(
            HostAddress(
                judge,
                some,
                one,
                {family: without(one[family], shared[family]) for family in Family},
                {
                    family: NONE if all(host.ranges(family) for host in some) else nobodys[family]
                    for family in Family
                },
            )
            for (judge, _), some, one in zip(attachments, hosts, addresses, strict=True)
        )
        self._nobodys = nobodys
        self._alone = {
            attachment.judge.security_group_ids[0]: self._place_alone(attachment)
            for attachment in subject.attachments
            if not attachment.interfaces
        }
        self.all: tuple[HostAddress, ...] = (*self._attached, *self._alone.values())
        self._at: dict[str, list[HostAddress]] = {}
        for place in self.all:
            for group in place.groups:
                self._at.setdefault(group, []).append(place)
        self._having = {group: tuple(self._find_members(group)) for group in subject.members}

    def unplaced(self, group: str, family: Family) -> Ranges:
        """Return the members of a group that are on no interface of the documents."""
        return without(self.members[group][family], self._taken[family])

    def of(self, group: str) -> Sequence[HostAddress]:
        """Return the places where a group is attached, or the one where it is looked at by itself."""
        return self._at.get(group, ())

    def judging(self, group: str) -> Iterator[tuple[HostAddress, FamilyRanges]]:
        """Yield the places of a group's members, attached to it or not, and where they are judged there."""
        for place, here in self._having[group]:
            yield place, place.near if group in place.groups else here
        for place in self._at.get(group, ()):
            if not place.hosts:
                yield place, place.near

    def having(self, group: str, *, alone: bool = False) -> Iterator[tuple[HostAddress, FamilyRanges]]:
        """Yield the places of a group's members, attached to it or not, and which addresses they have there.

        Args:
            group: the group.
            alone: whether its own rules judge its members where it is attached nowhere.
        """
        yield from self._having[group]
        if alone and group in self._alone:
            yield self._alone[group], self._alone[group].addresses

    def _find_members(self, group: str) -> Iterator[tuple[HostAddress, FamilyRanges]]:
        for place in self._at.get(group, ()):
            if place.hosts:
                yield place, place.addresses
        listed = AddressSet.of(self._subject.snapshot.group_by_id[group].member_addresses)
        parts = {family: common(joined(listed.ranges(family)), self._taken[family]) for family in Family}
        if any(parts.values()):
            for place in self._attached:
                here = {family: common(parts[family], place.addresses[family]) for family in Family}
                if group not in place.groups and any(here.values()):
                    yield place, here

    def _place_alone(self, attachment: Attachment) -> HostAddress:
        """Return where a group is that is attached nowhere: at its members that are on no interface."""
        (group,) = attachment.judge.security_group_ids
        addresses = {family: self.unplaced(group, family) for family in Family}
        unlisted = {
            family: NONE if self.members[group][family] else self._nobodys[family] for family in Family
        }
        judge = with_stand_ins(attachment.judge, self.stand_ins)
        return HostAddress(judge, (), addresses, addresses, unlisted)


@dataclass(frozen=True, eq=False)
class HostAddress:
    """Where the same groups are attached, at one interface or several."""

    judge: ResolvedInterface
    hosts: Sequence[AddressSet]
    """The addresses of each interface. Empty for a group that is attached nowhere: there each address is a
    host of its own."""

    addresses: FamilyRanges
    only_here: FamilyRanges
    """The addresses that no other place has."""

    unlisted: FamilyRanges
    """The addresses that nobody has, of a family of which a host here lists none: it may have one of them."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the groups that are attached."""
        return self.judge.security_group_ids

    @cached_property
    def near(self) -> FamilyRanges:
        """Return the addresses at which hosts here are judged."""
        return {family: joined((*self.addresses[family], *self.unlisted[family])) for family in Family}

    @property
    def has_addresses(self) -> bool:
        """Return whether any address is here."""
        return any(self.addresses.values())

    @cached_property
    def _boxes(self) -> Mapping[tuple[Direction, Family], tuple[Box[Clause], ...]]:
        return {
            (direction, family): cut_into_boxes(
                [list_clauses(self.judge, direction, family)], family, _accepting_clause
            )
            for direction in Direction
            for family in Family
        }

    @cached_property
    def accepted(self) -> Mapping[tuple[Direction, Family], tuple[Box[Clause], ...]]:
        """Return disjoint boxes of the accepted packets, each with its decider."""
        return {
            key: tuple(box for box in boxes if box.label is not _DROP) for key, boxes in self._boxes.items()
        }

    @cached_property
    def dropped_by_address(self) -> Mapping[tuple[Direction, Family], DroppedBoxes]:
        """Return disjoint boxes of the dropped packets, to be found by their far ends."""
        return {
            key: DroppedBoxes((AllowedTraffic.of(box), box) for box in boxes if box.label is _DROP)
            for key, boxes in self._boxes.items()
        }

    def accepted_here(self, direction: Direction) -> Iterator[Box[Clause]]:
        """Yield the boxes of accepted packets of which a near end is here."""
        for family in Family:
            for box in self.accepted.get((direction, family), ()):
                if common(box.locals, self.near[family]):
                    yield box

    def has_pair(self, family: Family, near: Ranges, far: Ranges) -> bool:
        """Return whether a host here and another host, anywhere, have addresses in two sets, one in each.

        Args:
            family: of the addresses.
            near: addresses of this place, listed or not.
            far: any addresses.
        """
        if not near or not far:
            return False
        if has_two_addresses(common(near, self.unlisted[family]), far):
            return True
        near = common(near, self.addresses[family])
        elsewhere = without(far, self.only_here[family])
        if has_two_addresses(near, elsewhere):
            return True
        return self.has_pair_here(family, near, common(far, self.addresses[family]))

    def has_pair_here(self, family: Family, near: Ranges, far: Ranges) -> bool:
        """Return whether two hosts of this place have addresses in two sets of its addresses, one in each."""
        if not has_two_addresses(near, far):
            return False
        both = joined((*near, *far))
        having = (host for host in self.hosts if common(joined(host.ranges(family)), both))
        return not self.hosts or len(list(islice(having, 2))) > 1


_Dropped = tuple[AllowedTraffic, Box[Clause]]


class DroppedBoxes:
    """Boxes with their traffic, to be found by far ends without a look at all of them."""

    def __init__(self, dropped: Iterable[_Dropped]) -> None:
        """Index as many boxes as are disjoint, beginning with those of the fewest addresses."""
        self._firsts: list[int] = []
        """The first address of each range in the index, sorted; ranges are disjoint."""

        self._lasts: list[int] = []
        self._boxes: list[_Dropped] = []
        """The box of each range."""

        self._wide: list[_Dropped] = []
        """Boxes that overlap others in far ends."""

        for one in sorted(dropped, key=lambda found: size(found[1].peers)):
            ranges = one[1].peers
            if any(self._boxes[self._at(first, last)] for first, last in ranges):
                self._wide.append(one)
                continue
            for first, last in ranges:
                place = bisect_left(self._firsts, first)
                self._firsts.insert(place, first)
                self._lasts.insert(place, last)
                self._boxes.insert(place, one)

    def meeting(self, addresses: Ranges) -> Iterator[_Dropped]:
        """Yield the boxes whose far ends may include some of the addresses, and no others of the index."""
        for first, last in addresses:
            yield from self._boxes[self._at(first, last)]
        yield from self._wide

    def _at(self, first: int, last: int) -> slice:
        return slice(bisect_left(self._lasts, first), bisect_right(self._firsts, last))


_DROP = Clause(decided_by=DecidedBy.DEFAULT, policy=Policy.DROP, addresses=())
"""Stands for every clause that drops: which of them decides makes no difference here."""


def _accepting_clause(columns: Columns) -> Clause:
    ((first, *_),) = columns
    return first if first.policy is Policy.ACCEPT else _DROP


def _shared(parts: Iterable[Ranges], family: Family) -> Ranges:
    """Return the addresses that several parts have."""
    pieces = sweep(enumerate(parts), family.last_address)
    return joined((first, last) for first, last, holders in pieces if len(holders) > 1)


def has_two_addresses(near: Ranges, far: Ranges) -> bool:
    """Return whether two sets have two different addresses, one in each."""
    return bool(near and far) and not (near == far and size(near) == 1)
