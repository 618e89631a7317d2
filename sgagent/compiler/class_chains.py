"""Class chains: dispatch sessions of one direction and family by the class of the far end, then by port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from sgagent.compiler.address_classes import (
    Classified,
    Gotos,
    Networks,
    Peers,
    address_elements,
    lead,
    network_elements,
    reclassify,
)
from sgagent.compiler.decision_list import Entry, Grouped, group, list_entries
from sgagent.compiler.linear import (
    FarEnds,
    entry_rules,
    is_short,
    protocol_rules,
    separate_protocols,
    up_to,
)
from sgagent.compiler.port_chains import PortChains, guards_of_new, read_twice
from sgagent.compiler.port_table import Decider, is_crowd, make_table
from sgagent.compiler.selectors import Selectors, dhcp_rule, readings
from sgagent.core.addresses import meets
from sgagent.core.memo import Memory, changed_places, common_ends
from sgagent.core.model import UDP, Direction, Family
from sgagent.core.policy import ResolvedInterface
from sgagent.nft import names
from sgagent.nft.maps import fixed_map
from sgagent.nft.ruleset import (
    Chain,
    Goto,
    KeyType,
    LookUp,
    Rule,
    VerdictMap,
)


@dataclass(frozen=True, slots=True)
class DirtyClasses:
    """What a change of entries can reach."""

    peers: frozenset[str]
    """In whose classes another entry may decide than before."""

    is_for_everyone: bool
    """Whether some that changed are for everyone."""


MOST_FOR_EVERYONE = 32
"""Entries for everyone up to which it is worth while to find out what they meet: each is held against all."""


def reach(before: Sequence[Entry], after: Sequence[Entry]) -> DirtyClasses | None:
    """Return what a change from some entries to others can reach; None where that may be anything.

    So it may where entries for everyone changed that look at more than protocol and port: how many do so is
    one of the things that tell a crowd.
    """
    changed = _changed(before, after)
    everyone = [entry for entry in changed or () if entry.is_for_everyone]
    if changed is None or len(everyone) > MOST_FOR_EVERYONE or not all(entry.is_plain for entry in everyone):
        return None
    own = {entry.peer for entry in changed if not entry.is_for_everyone}
    met = (entry for other in everyone for entry in after if _meet(entry, other))
    own.update(entry.peer for entry in met if not entry.is_for_everyone)
    return DirtyClasses(frozenset(own), bool(everyone))


def _changed(before: Sequence[Entry], after: Sequence[Entry]) -> tuple[Entry, ...] | None:
    """Return the entries that went and came; None if some others do not stand in the order in which they did.

    What stands in the place of one that decides like it, for other addresses, has not come.
    """
    if len(before) == len(after):
        pairs = [(before[place], after[place]) for place in changed_places(before, after)]
        if {id(old) for old, _ in pairs}.isdisjoint(id(new) for _, new in pairs):
            return tuple(entry for pair in pairs if not _decide_alike(*pair) for entry in pair)
    head, tail = common_ends(before, after)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    olds, news = set(map(id, old)), set(map(id, new))
    if [id(entry) for entry in old if id(entry) in news] != [id(entry) for entry in new if id(entry) in olds]:
        return None
    gone = (entry for entry in old if id(entry) not in news)
    return (*gone, *(entry for entry in new if id(entry) not in olds))


def _decide_alike(one: Entry, other: Entry) -> bool:
    return one.is_for_everyone == other.is_for_everyone and one.decides_like(other)


def _meet(one: Entry, other: Entry) -> bool:
    """Return whether protocol and ports of two entries have something in common."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    if one.ports.is_all or other.ports.is_all:
        return True
    return any(meets(mine, other.ports.ranges) for mine in one.ports.ranges)


@dataclass(frozen=True, slots=True)
class CompiledFamily:
    """The chains and maps of one family, by name; they end in counter chains, which are compiled elsewhere.

    They come in parts. A part that is the same object as before has not changed.
    """

    chains: tuple[Mapping[str, Chain], ...]
    verdict_maps: tuple[Mapping[str, VerdictMap], ...]


def remembered_judging(
    interface: ResolvedInterface,
    direction: Direction,
    family: Family,
    memory: Memory,
    *,
    turned: frozenset[str],
    most_lines: int,
) -> CompiledFamily:
    """Return how sessions opened in the direction through the interface are judged, from the far end on.

    Args:
        interface: what is enforced on it.
        direction: in which sessions are opened.
        family: of their packets.
        memory: of this interface.
        turned: maps of addresses that have their second name.
        most_lines: the longest list of rules to compile; longer ones become lookups.
    """
    inside = memory.apart("inside", direction, family)
    first = names.peers_chain(direction, interface.name, family)
    address_map = names.second_map(first) if first in turned else first
    return memory.part("judging", direction, family, address_map).recall(
        (interface.toward(direction),),
        lambda: _judging(
            interface, direction, family, inside, address_map=address_map, most_lines=most_lines
        ),
    )


def _judging(
    interface: ResolvedInterface,
    direction: Direction,
    family: Family,
    memory: Memory,
    *,
    address_map: str,
    most_lines: int,
) -> CompiledFamily:
    memory.turn()
    entries = list_entries(interface, direction, family, memory.part("entries"))
    grouped = memory.part("grouped").revise(partial(group, entries))
    judge = _Judge(interface.name, direction, family, grouped, address_map=address_map, most_lines=most_lines)
    return judge.compile_(memory)


@dataclass(frozen=True, slots=True)
class _Made:
    """What decides about some addresses, and where that begins."""

    target: str
    chains: Mapping[str, Chain]
    verdict_maps: Mapping[str, VerdictMap]
    is_list: bool = False
    """Whether it is of a class with which the entries for everyone stand in one list."""

    @classmethod
    def of(cls, target: str, deciding: PortChains, *, is_list: bool = False) -> _Made:
        """Return what was made."""
        return cls(target, deciding.chains, deciding.verdict_maps, is_list)


@dataclass(frozen=True, slots=True)
class _Classes:
    """What decides about each class."""

    grouped: Grouped
    distinct: tuple[Peers, ...]
    """The peers of each class."""

    of_everyone: _Made
    made: Mapping[tuple[str, ...], _Made]
    """By the names of the peers, in the order of the classes."""

    def may_change(self, grouped: Grouped) -> set[tuple[str, ...]]:
        """Return the classes about which something else may decide with other entries."""
        reached = reach(self.grouped.entries, grouped.entries)
        if reached is None:
            return set(self.made)
        return {
            names
            for names, one in self.made.items()
            if not reached.peers.isdisjoint(names) or (one.is_list and reached.is_for_everyone)
        }

    @property
    def parts(self) -> tuple[_Made, ...]:
        """Return all that is needed of what was made."""
        return (*self.made.values(), *((self.of_everyone,) if self.asks_everyone else ()))

    @property
    def asks_everyone(self) -> bool:
        """Return whether anything leads to the rules for everyone."""
        return bool(self.grouped.for_everyone) or any(one.chains for one in self.made.values())


def _together(parts: tuple[_Made, ...]) -> CompiledFamily:
    """Return all that decides; what several classes share is the same in all."""
    chains: dict[str, Chain] = {}
    verdict_maps: dict[str, VerdictMap] = {}
    for one in parts:
        chains.update(one.chains)
        verdict_maps.update(one.verdict_maps)
    return CompiledFamily((chains,), (verdict_maps,))


class _Judge:
    """Compile the judging of one interface, direction and family."""

    def __init__(
        self,
        interface: str,
        direction: Direction,
        family: Family,
        grouped: Grouped,
        *,
        address_map: str,
        most_lines: int,
    ) -> None:
        self.interface = interface
        self.direction = direction
        self.family = family
        self.grouped = grouped
        self.entries = grouped.entries
        self.address_map = address_map
        self.most_lines = most_lines
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

    def compile_(self, memory: Memory) -> CompiledFamily:
        """Return all chains and maps."""
        if is_short(self.entries, self.most_lines):
            self._list()
            return CompiledFamily((self.chains,), (self.verdict_maps,))
        of_classes = self._tables(memory)
        return CompiledFamily(
            (*of_classes.chains, self.chains), (*of_classes.verdict_maps, self.verdict_maps)
        )

    def _list(self) -> None:
        """Add the chain that goes through all entries, behind what no group can block: DHCP."""
        entries, last = up_to(self.entries, lambda entry: entry.is_for_everyone and entry.is_for_all)
        onward = self._default if last is None else last.leaf

        far_ends = FarEnds(names.far_end_map(*self._place), self._address_key)
        _, by_header = readings(self.direction, self.family)
        (_, rules), *others = self._by_protocol(entries, by_header, far_ends).items()

        def lines(reading: Selectors) -> list[Rule]:
            if reading.is_tracked:
                return [dhcp_rule(reading, *self._place), *entry_rules(entries, reading, far_ends)]
            return rules

        self._peers_chain(lines, onward)
        for name, rules_of_others in others:
            self.chains[name] = Chain(name=name, rules=(*rules_of_others, Rule((Goto(onward),))))
        self.verdict_maps |= far_ends.made

    def _by_protocol(
        self, entries: tuple[Entry, ...], reading: Selectors, far_ends: FarEnds
    ) -> dict[str, list[Rule]]:
        """Return the rules of the list that read headers, by chain: one chain for each separated protocol.

        The first chain is the entry point. Packets of other protocols go on to the next chain.
        """
        name, separate = names.peers_chain(*self._place), separate_protocols(entries)
        dhcp = dhcp_rule(reading, *self._place)
        found: dict[str, list[Rule]] = {}
        for protocol in separate:
            others = names.others_chain(*self._place, protocol)
            leave = Rule((reading.match_others(protocol), Goto(others)))
            of_protocol = protocol_rules(entries, protocol, reading, far_ends)
            found[name] = [leave, *([dhcp] if protocol == UDP else []), *of_protocol]
            entries = tuple(entry for entry in entries if entry.protocol != protocol.number)
            name = others
        found[name] = [*([] if UDP in separate else [dhcp]), *entry_rules(entries, reading, far_ends)]
        return found

    def _peers_chain(self, lines: Callable[[Selectors], list[Rule]], onward: str) -> None:
        """Add the chain in which judging begins."""
        name, ways = names.peers_chain(*self._place), readings(self.direction, self.family)
        self.chains |= {chain.name: chain for chain in read_twice(name, ways, lines, onward, guards_of_new)}

    def _tables(self, memory: Memory) -> CompiledFamily:
        """Add the chains and maps that look the far end up, and return those that look at the port then."""
        addresses = partial(reclassify, self.grouped.addresses)
        classified = memory.part("classes", *self.grouped.peers).revise(addresses)
        everyone = tuple(self.entries[index] for index in self.base.members)
        # It keeps what it has worked out, of the entries for everyone and their places alone.
        self.base = memory.part("base").recall((self.grouped.for_everyone, *everyone), lambda: self.base)
        of_everyone = memory.part("everyone").recall(everyone, self._for_everyone)
        classes = memory.part("made").revise(partial(self._classes, classified.distinct, of_everyone))
        targets = tuple(one.target for one in classes.made.values())
        gotos = memory.part("gotos").revise(partial(lead, classified.distinct, targets))
        onward = self._everyone if classes.asks_everyone else self._default
        self._look_ups_chain(classified, gotos, memory, onward)
        parts = classes.parts
        together: CompiledFamily = memory.part("together").recall(parts, partial(_together, parts))
        return together

    def _deciding(self) -> PortChains:
        return PortChains(self.interface, self.direction, self.family, self.entries)

    def _classes(self, distinct: tuple[Peers, ...], of_everyone: _Made, before: _Classes | None) -> _Classes:
        """Return what decides about each class."""
        known = before.made if before else {}
        again = before.may_change(self.grouped) if before else set()
        made: dict[tuple[str, ...], _Made] = {}
        if before is not None and before.distinct is distinct:
            made = {**known, **{peers: self._class(peers, known[peers]) for peers in again}}
            return _Classes(self.grouped, distinct, of_everyone, made)
        for members in distinct:
            peers = tuple(self.grouped.peers[place] for place in members)
            one = known.get(peers)
            made[peers] = self._class(peers, one) if one is None or peers in again else one
        return _Classes(self.grouped, distinct, of_everyone, made)

    def _class(self, peers: tuple[str, ...], before: _Made | None) -> _Made:
        """Return what decides about addresses of a class.

        That depends on the entries of its peers, on those for everyone that these meet, and on which stand
        before which; the names depend on the peers'. It does not depend on the addresses of entries.
        """
        made = self._make_class(peers, self.grouped.own(peers))
        return before if before == made else made

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
        if first.is_exempt and first.protocol is None and first.ports.is_all and not earlier:
            return _Made.of(first.leaf, deciding)
        name = names.class_chain(*self._place, peers)
        is_list = is_crowd(self.entries, own, self.base.constrained)
        if is_list:
            deciding.list_chain(name, sorted((*own, *everyone)))
        else:
            deciding.table_chain(name, make_table(self.entries, own, self.base), self._everyone)
        return _Made.of(name, deciding, is_list=is_list)

    def _look_ups_chain(self, classified: Classified, gotos: Gotos, memory: Memory, onward: str) -> None:
        """Add the chain that looks up the far end, after the rule for DHCP, which any far end may use."""
        look_ups = [
            *self._address_map(classified, gotos, memory.part("addresses")),
            *self._network_map(classified.classes.networks, gotos, memory.part("networks")),
        ]

        def lines(reading: Selectors) -> list[Rule]:
            return [
                dhcp_rule(reading, *self._place),
                *(Rule((LookUp((reading.peer,), name),)) for name in look_ups),
            ]

        self._peers_chain(lines, onward)

    def _address_map(self, classified: Classified, gotos: Gotos, memory: Memory) -> Iterator[str]:
        """Add the map from single addresses to classes, and yield its name, if there are any."""
        addressed = memory.part("elements").revise(partial(address_elements, classified, gotos))
        if addressed.elements:
            name = self.address_map
            self.verdict_maps[name] = memory.part(name).recall(
                (addressed.elements,),
                lambda: VerdictMap(name=name, key_types=self._address_key, elements=addressed.elements),
            )
            yield name

    def _network_map(self, networks: Networks, gotos: Gotos, memory: Memory) -> Iterator[str]:
        """Add the map from networks to classes, and yield its name, if there are any."""
        if networks:
            prefix = names.networks_map(*self._place)

            def make() -> VerdictMap:
                elements = network_elements(networks, gotos)
                return fixed_map(prefix, self._address_key, elements, is_interval=True)

            made = memory.recall((networks, gotos), make)
            found = memory.part("map").revise(lambda before: before if before == made else made)
            self.verdict_maps[found.name] = found
            yield found.name

    @property
    def _address_key(self) -> tuple[KeyType, ...]:
        return (KeyType.IPV4_ADDR if self.family is Family.IPV4 else KeyType.IPV6_ADDR,)
