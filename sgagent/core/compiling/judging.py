"""Compile how sessions of one direction and family are judged: by the class of the far end, then by port."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from sgagent.core.always import DHCP
from sgagent.core.compiling.addressed import Gotos, address_elements, lead, network_elements
from sgagent.core.compiling.classes import Classified, Networks, Peers, reclassify
from sgagent.core.compiling.crowds import is_crowd
from sgagent.core.compiling.deciding import Deciding, read_twice
from sgagent.core.compiling.entries import Entry, list_entries
from sgagent.core.compiling.grouped import Grouped, group
from sgagent.core.compiling.selectors import Reading, readings
from sgagent.core.compiling.tables import Decider, make_table
from sgagent.core.kernel import names
from sgagent.core.kernel.ruleset import (
    Chain,
    Goto,
    Interval,
    KeyType,
    LookUp,
    Rule,
    Statement,
    VerdictMap,
)
from sgagent.core.memory import Memory
from sgagent.core.model import UDP, Direction, Family
from sgagent.core.policy import ResolvedInterface
from sgagent.core.remaking import changed_places


@dataclass(frozen=True, slots=True)
class Judging:
    """Chains and maps that judge, by name; they end in the leaves, which are made elsewhere."""

    chains: Mapping[str, Chain]
    verdict_maps: Mapping[str, VerdictMap]


def remembered_judging(
    interface: ResolvedInterface, direction: Direction, family: Family, memory: Memory
) -> Judging:
    """Return how sessions opened in the direction through the interface are judged, from the far end on.

    Args:
        interface: what is enforced on it.
        direction: in which sessions are opened.
        family: of their packets.
        memory: of this interface.
    """
    inside = memory.apart("inside", direction, family)
    return memory.part("judging", direction, family).recall(
        (interface.toward(direction),), lambda: _judging(interface, direction, family, inside)
    )


def _judging(interface: ResolvedInterface, direction: Direction, family: Family, memory: Memory) -> Judging:
    memory.turn()
    entries = list_entries(interface, direction, family, memory.part("entries"))
    grouped = memory.part("grouped").revise(partial(group, entries))
    judge = _Judge(interface.name, direction, family, grouped)
    judge.compile_(memory)
    return Judging(judge.chains, judge.verdict_maps)


@dataclass(frozen=True, slots=True)
class _Made:
    """What decides about some addresses, and where that begins."""

    target: str
    chains: Mapping[str, Chain]
    verdict_maps: Mapping[str, VerdictMap]

    @classmethod
    def of(cls, target: str, deciding: Deciding) -> _Made:
        """Return what was made."""
        return cls(target, deciding.chains, deciding.verdict_maps)


@dataclass(frozen=True, slots=True)
class _MadeOfClass:
    """What decides about a class, and all that it was made of."""

    entries: tuple[Entry, ...]
    """Those of the class alone."""

    places: tuple[int, ...]
    """Before how many entries for everyone each stands, counted from the first."""

    of_everyone: _Made
    made: _Made

    def is_of(self, entries: tuple[Entry, ...], places: tuple[int, ...], of_everyone: _Made) -> bool:
        """Tell whether it was made of the very same."""
        return (
            of_everyone is self.of_everyone
            and places == self.places
            and not changed_places(self.entries, entries)
        )


@dataclass(frozen=True, slots=True)
class _Classes:
    """What decides about each class."""

    grouped: Grouped
    of_everyone: _Made
    made: Mapping[tuple[str, ...], _MadeOfClass]
    """By the names of the peers, in the order of the classes."""

    def still_hold(self, grouped: Grouped, of_everyone: _Made) -> Mapping[tuple[str, ...], _MadeOfClass]:
        """Return those of classes in which no entry has changed, as far as that is seen at a glance."""
        if of_everyone is not self.of_everyone or grouped.by_peer is not self.grouped.by_peer:
            return {}
        changed = changed_places(self.grouped.entries, grouped.entries)
        peers = {grouped.entries[place].peer for place in changed}
        return {names: made for names, made in self.made.items() if peers.isdisjoint(names)}


class _Judge:
    """Compile the judging of one interface, direction and family."""

    def __init__(self, interface: str, direction: Direction, family: Family, grouped: Grouped) -> None:
        self.interface = interface
        self.direction = direction
        self.family = family
        self.grouped = grouped
        self.entries = grouped.entries
        self.chains: dict[str, Chain] = {}
        self.verdict_maps: dict[str, VerdictMap] = {}
        self.base = Decider(self.entries, grouped.for_everyone)

    @cached_property
    def _place(self) -> tuple[Direction, str, Family]:
        return self.direction, self.interface, self.family

    @cached_property
    def _default(self) -> str:
        return names.default_chain(self.direction, self.interface)

    @cached_property
    def _everyone(self) -> str:
        return names.everyone_chain(*self._place)

    def compile_(self, memory: Memory) -> None:
        """Add all chains and maps."""
        peers, by_peer = self.grouped.peers, self.grouped.by_peer
        ranges = tuple(self.entries[by_peer[peer][0]].addresses for peer in peers)
        classified = memory.part("classes", *peers).revise(partial(reclassify, ranges))
        given = tuple(self.entries[index] for index in self.base.members)
        of_everyone = memory.part("everyone").recall(given, self._for_everyone)
        classes = memory.part("made").revise(partial(self._classes, classified.distinct, of_everyone))
        for one in classes.made.values():
            self._take(one.made)
        if self.base.members or self.chains:
            self._take(of_everyone)
        targets = tuple(one.made.target for one in classes.made.values())
        gotos = memory.part("gotos").revise(partial(lead, classified.distinct, targets))
        self._peers_chain(classified, gotos, memory)

    def _take(self, made: _Made) -> None:
        """Add what was made apart; what several share is the same in all."""
        self.chains.update(made.chains)
        self.verdict_maps.update(made.verdict_maps)

    def _deciding(self) -> Deciding:
        return Deciding(self.interface, self.direction, self.family, self.entries)

    def _classes(self, distinct: tuple[Peers, ...], of_everyone: _Made, before: _Classes | None) -> _Classes:
        """Return what decides about each class."""
        made: dict[tuple[str, ...], _MadeOfClass] = {}
        known = before.made if before else {}
        holding = before.still_hold(self.grouped, of_everyone) if before else {}
        for members in distinct:
            peers = tuple(self.grouped.peers[place] for place in members)
            made[peers] = holding.get(peers) or self._class(peers, of_everyone, known.get(peers))
        return _Classes(self.grouped, of_everyone, made)

    def _class(self, peers: tuple[str, ...], of_everyone: _Made, before: _MadeOfClass | None) -> _MadeOfClass:
        """Return what decides about addresses of a class.

        That depends on the entries of its peers, on those for everyone, and on which stand before which; the
        names depend on the peers'.
        """
        own = self.grouped.own(peers)
        entries = tuple(self.entries[index] for index in own)
        places = tuple(bisect_left(self.base.members, index) for index in own)
        if before is not None and before.is_of(entries, places, of_everyone):
            return before
        return _MadeOfClass(entries, places, of_everyone, self._make_class(peers, own))

    def _for_everyone(self) -> _Made:
        """Make the chain of the rules for everyone."""
        deciding, indices = self._deciding(), self.base.members
        if is_crowd(self.entries, indices, ()):
            deciding.list_chain(self._everyone, indices)
        else:
            table = make_table(self.entries, indices, Decider(self.entries, ()))
            deciding.table_chain(self._everyone, table, self._default)
        return _Made.of(self._everyone, deciding)

    def _make_class(self, peers: tuple[str, ...], own: list[int]) -> _Made:
        """Make the chain that decides about addresses of a class.

        Where the first entry exempts all traffic there is nothing to decide.
        """
        deciding, everyone = self._deciding(), self.base.members
        first = self.entries[own[0]]
        earlier = bool(everyone) and everyone[0] < own[0]
        if first.is_exempt and first.protocol is None and first.ports is None and not earlier:
            return _Made.of(first.leaf, deciding)
        name = names.class_chain(*self._place, peers)
        if is_crowd(self.entries, own, everyone):
            deciding.list_chain(name, sorted((*own, *everyone)))
        else:
            deciding.table_chain(name, make_table(self.entries, own, self.base), self._everyone)
        return _Made.of(name, deciding)

    def _peers_chain(self, classified: Classified, gotos: Gotos, memory: Memory) -> None:
        """Add the chain that looks the far end up, behind what is allowed whoever that is: DHCP."""
        look_ups = [
            *self._address_map(classified, gotos, memory.part("addresses")),
            *self._network_map(classified.classes.networks, gotos, memory.part("networks")),
        ]
        accept = Goto(names.accept_chain(self.direction, self.interface))

        def lines(reading: Reading) -> list[Rule]:
            dhcp = Rule((*_dhcp(reading, self.direction, self.family), accept))
            return [dhcp, *(Rule((LookUp((reading.peer,), name),)) for name in look_ups)]

        onward = self._everyone if self._everyone in self.chains else self._default
        name, ways = names.peers_chain(*self._place), readings(self.direction, self.family)
        self.chains[name] = Chain(name=name, rules=read_twice(ways, lines, onward))

    def _address_map(self, classified: Classified, gotos: Gotos, memory: Memory) -> Iterator[str]:
        """Add the map from single addresses to classes, and yield its name, if there are any."""
        addressed = memory.part("elements").revise(partial(address_elements, classified, gotos))
        if addressed.elements:
            name = names.peers_chain(*self._place)
            self.verdict_maps[name] = memory.recall(
                (addressed.elements,),
                lambda: VerdictMap(name=name, key_types=self._address_key, elements=addressed.elements),
            )
            yield name

    def _network_map(self, networks: Networks, gotos: Gotos, memory: Memory) -> Iterator[str]:
        """Add the map from networks to classes, and yield its name, if there are any."""
        if networks:
            name = names.networks_map(*self._place)

            def make() -> VerdictMap:
                elements = network_elements(networks, gotos)
                return VerdictMap(name=name, key_types=self._address_key, is_interval=True, elements=elements)

            made = memory.recall((networks, gotos), make)
            self.verdict_maps[name] = memory.part("map").revise(
                lambda before: before if before == made else made
            )
            yield name

    @property
    def _address_key(self) -> tuple[KeyType, ...]:
        return (KeyType.IPV4_ADDR if self.family is Family.IPV4 else KeyType.IPV6_ADDR,)


def _dhcp(reading: Reading, direction: Direction, family: Family) -> tuple[Statement, ...]:
    """Return the match on DHCP between this host, as a client, and any server (§7.1).

    The source port stands first: libnftables lists neighbouring fields of a header in the header's order.
    """
    server, client = (Interval.single(port) for port in DHCP[family])
    source, destination = (server, client) if direction is Direction.INGRESS else (client, server)
    number = UDP.number or 0
    *protocol, port = reading.match_port(number, destination)
    return (*protocol, reading.match_source_port(number, source), port)
