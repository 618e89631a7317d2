"""Stand-ins for names that the DNS did not answer for: addresses of their own that no rule is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from sgagent.analysis.lint.rule_reach import is_wide
from sgagent.analysis.lint.subject import LintSubject
from sgagent.core.addresses import NO_ADDRESSES, AddressSet, Ranges, common, joined, without
from sgagent.core.model import Direction, Family
from sgagent.core.policy import Peer, ResolvedInterface, ResolvedRule

StandIns = Mapping[str, AddressSet]
"""Addresses by the name of the object, like ``dns:mirror.example.org``."""


def stand_ins(subject: LintSubject) -> StandIns:
    """Return an address of each family, if there is room, for each name that is not resolved."""
    rules = [
        rule
        for attachment in subject.attachments
        for side in map(attachment.judge.toward, Direction)
        for rule in side.rules
    ]
    peers = {peer.name: peer for rule in rules for peer in rule.peer.objects}
    names = sorted(
        name
        for name, peer in peers.items()
        if peer.is_dynamic and name.removeprefix("dns:") not in subject.names
    )
    sets = [*(peer.addresses for peer in peers.values()), *subject.members.values()] if names else []
    rooms = {family: islice(_room(sets, family), len(names)) for family in Family}
    found: dict[str, AddressSet] = {}
    for name in names:
        four, six = (tuple((one, one) for one in islice(rooms[family], 1)) for family in Family)
        found[name] = AddressSet(four, six)
    return found


def _room(sets: Iterable[AddressSet], family: Family) -> Iterator[int]:
    """Yield the addresses that rules for nearly everyone are about, and no others."""
    room: Ranges = ((0, family.last_address),)
    spoken_of = {joined(some.ranges(family)) for some in sets}
    for ranges in spoken_of:
        room = common(room, ranges) or room if is_wide(ranges, family) else room
    narrow = joined(one for ranges in spoken_of if not is_wide(ranges, family) for one in ranges)
    for first, last in reversed(without(room, narrow)):
        yield from range(last, first - 1, -1)


def with_stand_ins(judge: ResolvedInterface, known: StandIns) -> ResolvedInterface:
    """Return the judge where names have their stand-ins' addresses; the same object where it has none."""
    for direction in Direction if known else ():
        side = judge.toward(direction)
        rules = tuple(_placed(rule, known) for rule in side.rules)
        judge = judge.with_side(direction, replace(side, rules=rules))
    return judge


def _placed(rule: ResolvedRule, known: StandIns) -> ResolvedRule:
    if not rule.peer.is_dynamic:
        return rule
    parts = tuple(replace(one, addresses=known.get(one.name, one.addresses)) for one in rule.peer.objects)
    whole = NO_ADDRESSES.union(*(one.addresses for one in parts))
    peer: Peer = replace(rule.peer, addresses=whole, parts=parts) if rule.peer.parts else parts[0]
    return replace(rule, peer=peer)
