"""Compile how sessions of one direction and family are judged: by the class of the far end, then by port."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from sgagent.core.always import DHCP
from sgagent.core.compiling.addressed import address_elements
from sgagent.core.compiling.classes import Classified, Peers, reclassify
from sgagent.core.compiling.crowds import is_crowd
from sgagent.core.compiling.deciding import Deciding, read_twice
from sgagent.core.compiling.entries import Entry, list_entries
from sgagent.core.compiling.selectors import Reading, readings
from sgagent.core.compiling.tables import Decider, make_table
from sgagent.core.kernel import names
from sgagent.core.kernel.ruleset import (
    Chain,
    Element,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Chains and maps that judge; they end in the leaves, which are made elsewhere."""

    chains: tuple[Chain, ...]
    verdict_maps: tuple[VerdictMap, ...]


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
    judge = _Judge(interface.name, direction, family, entries)
    judge.compile_(memory)
    return Judging(
        chains=tuple(judge.chains[name] for name in sorted(judge.chains)),
        verdict_maps=tuple(judge.verdict_maps[name] for name in sorted(judge.verdict_maps)),
    )


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


class _Judge:
    """Compile the judging of one interface, direction and family."""

    def __init__(
        self, interface: str, direction: Direction, family: Family, entries: tuple[Entry, ...]
    ) -> None:
        self.interface = interface
        self.direction = direction
        self.family = family
        self.entries = entries
        self.chains: dict[str, Chain] = {}
        self.verdict_maps: dict[str, VerdictMap] = {}
        self.by_peer: dict[str, list[int]] = {}
        """The entries of each peer that is not everyone."""

        for_everyone: list[int] = []
        for index, entry in enumerate(entries):
            if entry.is_for_everyone:
                for_everyone.append(index)
            else:
                self.by_peer.setdefault(entry.peer, []).append(index)
        self.base = Decider(entries, for_everyone)
        self.peers = sorted(self.by_peer)

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
        ranges = tuple(self.entries[self.by_peer[peer][0]].addresses for peer in self.peers)
        classified = memory.part("classes", *self.peers).revise(partial(reclassify, ranges))
        given = tuple(self.entries[index] for index in self.base.members)
        of_everyone = memory.part("everyone").recall(given, self._for_everyone)
        targets: dict[Peers, str] = {}
        for members in classified.classes.distinct():
            made = self._class(members, of_everyone, memory.part("class"))
            targets[members] = made.target
            self._take(made)
        if self.base.members or self.chains:
            self._take(of_everyone)
        self._peers_chain(classified, targets, memory)

    def _take(self, made: _Made) -> None:
        """Add what was made apart; what several share is the same in all."""
        for name, chain in made.chains.items():
            self.chains.setdefault(name, chain)
        for name, verdict_map in made.verdict_maps.items():
            self.verdict_maps.setdefault(name, verdict_map)

    def _deciding(self) -> Deciding:
        return Deciding(self.interface, self.direction, self.family, self.entries)

    def _for_everyone(self) -> _Made:
        """Make the chain of the rules for everyone."""
        deciding, indices = self._deciding(), self.base.members
        if is_crowd(self.entries, indices, ()):
            deciding.list_chain(self._everyone, indices)
        else:
            table = make_table(self.entries, indices, Decider(self.entries, ()))
            deciding.table_chain(self._everyone, table, self._default)
        return _Made.of(self._everyone, deciding)

    def _class(self, members: Peers, of_everyone: _Made, memory: Memory) -> _Made:
        """Return what decides about addresses of a class.

        That depends on the entries of its peers, on those for everyone, and on which stand before which; the
        names depend on the peers'.
        """
        peers = tuple(self.peers[place] for place in members)
        own = sorted(index for peer in peers for index in self.by_peer[peer])
        places = tuple(bisect_left(self.base.members, index) for index in own)
        given = (of_everyone, *(self.entries[index] for index in own))
        return memory.part(places, peers).recall(given, lambda: self._make_class(peers, own))

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

    def _peers_chain(self, classified: Classified, targets: Mapping[Peers, str], memory: Memory) -> None:
        """Add the chain that looks the far end up, behind what is allowed whoever that is: DHCP."""
        gotos = {members: Goto(target) for members, target in targets.items()}
        look_ups = [
            *self._address_map(classified, gotos, memory),
            *self._network_map(classified, gotos, memory),
        ]
        accept = Goto(names.accept_chain(self.direction, self.interface))

        def lines(reading: Reading) -> list[Rule]:
            dhcp = Rule((*_dhcp(reading, self.direction, self.family), accept))
            return [dhcp, *(Rule((LookUp((reading.peer,), name),)) for name in look_ups)]

        onward = self._everyone if self._everyone in self.chains else self._default
        name, ways = names.peers_chain(*self._place), readings(self.direction, self.family)
        self.chains[name] = Chain(name=name, rules=read_twice(ways, lines, onward))

    def _address_map(
        self, classified: Classified, gotos: Mapping[Peers, Goto], memory: Memory
    ) -> Iterator[str]:
        """Add the map from single addresses to classes, and yield its name, if there are any."""
        addressed = memory.part("addresses").revise(partial(address_elements, classified, gotos))
        if addressed.elements:
            name = names.peers_chain(*self._place)
            self.verdict_maps[name] = memory.part("address map").recall(
                (addressed.elements,),
                lambda: VerdictMap(name=name, key_types=self._address_key, elements=addressed.elements),
            )
            yield name

    def _network_map(
        self, classified: Classified, gotos: Mapping[Peers, Goto], memory: Memory
    ) -> Iterator[str]:
        """Add the map from networks to classes, and yield its name, if there are any."""
        elements = tuple(
            Element((Interval(first, last),), gotos[members])
            for first, last, members in classified.classes.networks
        )
        if elements:
            name = names.networks_map(*self._place)
            made = VerdictMap(name=name, key_types=self._address_key, is_interval=True, elements=elements)
            self.verdict_maps[name] = memory.part("network map").revise(
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
