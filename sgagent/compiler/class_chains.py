"""Class chains: dispatch sessions of one direction and family by the class of the far end, then by port.

A short decision list has no classes: its linear chain comes first (:func:`list_chains`).

Where sources are checked, the source check comes before (§12.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, filterfalse

from sgagent.compiler.address_classes import Classes, Gotos
from sgagent.compiler.decision_list import Entry, Grouped, Place, Selectors, dhcp_rule, readings
from sgagent.compiler.linear import (
    FarEnds,
    entry_rules,
    guards_of_maps,
    guards_of_new,
    protocol_rules,
    read_twice,
    separate_protocols,
    up_to,
)
from sgagent.compiler.port_chains import PortChains
from sgagent.compiler.port_table import Decider, is_crowd, make_table
from sgagent.core.addresses import AddressRanges, meets
from sgagent.core.memo import Memo, Seam, gone_and_come
from sgagent.core.model import UDP, Direction
from sgagent.nft import names, ruleset as nft


@dataclass(frozen=True, slots=True)
class FamilyChains:
    """The chains and maps of one decision list, by name; they lead to counter chains."""

    chains: Mapping[str, nft.Chain]
    verdict_maps: Mapping[str, nft.VerdictMap]


def list_chains(entries: tuple[Entry, ...], place: Place) -> FamilyChains:
    """Return the chain that goes through all entries, behind what no group can block: DHCP."""
    direction, interface, family = place
    entries, last = up_to(entries, lambda entry: entry.is_for_everyone and entry.is_for_all)
    onward = names.default_chain(direction, interface) if last is None else last.leaf
    far_ends = FarEnds(names.far_end_map(*place), (nft.ADDRESS_TYPES[family],))
    _, by_header = readings(direction, family)
    (_, rules), *others = _by_protocol(entries, by_header, far_ends, place).items()

    def lines(reading: Selectors) -> list[nft.Rule]:
        if reading.is_tracked:
            return [dhcp_rule(reading, *place), *entry_rules(entries, reading, far_ends)]
        return rules

    chains = [
        *_peers_chain(lines, onward, place),
        *(
            nft.Chain(name=name, rules=(*of_others, nft.Rule((nft.Goto(onward),))))
            for name, of_others in others
        ),
    ]
    return FamilyChains({chain.name: chain for chain in chains}, far_ends.made)


def _by_protocol(
    entries: tuple[Entry, ...], reading: Selectors, far_ends: FarEnds, place: Place
) -> dict[str, list[nft.Rule]]:
    """Return the rules of the list that read headers, by chain: one chain for each separated protocol.

    The first chain is the entry point. Packets of other protocols go on to the next chain.
    """
    name, separate, dhcp = names.peers_chain(*place), separate_protocols(entries), dhcp_rule(reading, *place)
    found: dict[str, list[nft.Rule]] = {}
    for protocol in separate:
        others = names.others_chain(*place, protocol)
        leave = nft.Rule((reading.match_others(protocol), nft.Goto(others)))
        of_protocol = protocol_rules(entries, protocol, reading, far_ends)
        found[name] = [leave, *([dhcp] if protocol == UDP else []), *of_protocol]
        entries = tuple(entry for entry in entries if entry.protocol != protocol.number)
        name = others
    found[name] = [*([] if UDP in separate else [dhcp]), *entry_rules(entries, reading, far_ends)]
    return found


def _peers_chain(
    lines: Callable[[Selectors], list[nft.Rule]], onward: str, place: Place
) -> tuple[nft.Chain, ...]:
    """Return the chain that every new session enters, and the one for live sessions."""
    direction, _, family = place
    return read_twice(names.peers_chain(*place), readings(direction, family), lines, onward, guards_of_new)


def lookup_chains(chains: ClassChains, maps: Iterable[nft.VerdictMap], place: Place) -> FamilyChains:
    """Return all chains and maps of a list whose entries are for classes.

    Args:
        chains: of the classes.
        maps: from the far end to its class, in the order of lookup.
        place: of the entries.
    """
    by_name = {verdict_map.name: verdict_map for verdict_map in maps}

    def lines(reading: Selectors) -> list[nft.Rule]:
        lookups = (nft.Rule((nft.LookUp((reading.peer,), name),)) for name in by_name)
        return [dhcp_rule(reading, *place), *lookups]  # DHCP may come from any far end

    first = {chain.name: chain for chain in _peers_chain(lines, chains.onward, place)}
    return FamilyChains({**chains.chains, **first}, {**chains.verdict_maps, **by_name})


@dataclass(frozen=True, slots=True)
class ClassChain:
    """What decides about some addresses, and where that begins."""

    target: str
    chains: Mapping[str, nft.Chain]
    verdict_maps: Mapping[str, nft.VerdictMap]
    is_list: bool = False
    """Whether the entries for everyone stand in one list with those of the class."""


@dataclass(frozen=True)
class ClassChains:
    """What decides about each class."""

    entries: tuple[Entry, ...]
    """What it was made of."""

    distinct: tuple[tuple[int, ...], ...]
    """The classes."""

    made: Mapping[tuple[str, ...], ClassChain]
    """By the names of a class's peers, in the order of the classes."""

    for_everyone: ClassChain | None
    """What a lookup without a hit leads to; None if that is the default."""

    default: str

    @property
    def onward(self) -> str:
        """Return where packets of no class go."""
        return self.default if self.for_everyone is None else self.for_everyone.target

    @property
    def gotos(self) -> Gotos:
        """Return where each class leads."""
        return {
            peers: nft.Goto(one.target) for peers, one in zip(self.distinct, self.made.values(), strict=True)
        }

    @property
    def chains(self) -> Mapping[str, nft.Chain]:
        """Return all chains; those that classes share are the same in all."""
        return dict(chain.from_iterable(one.chains.items() for one in self._parts))

    @property
    def verdict_maps(self) -> Mapping[str, nft.VerdictMap]:
        """Return all maps."""
        return dict(chain.from_iterable(one.verdict_maps.items() for one in self._parts))

    @property
    def _parts(self) -> tuple[ClassChain, ...]:
        return (*self.made.values(), *((self.for_everyone,) if self.for_everyone else ()))

    def clean(self, entries: tuple[Entry, ...]) -> Mapping[tuple[str, ...], ClassChain]:
        """Return the classes about which the same is decided with other entries."""
        dirty = dirty_classes(self.entries, entries)
        if dirty is None:
            return {}
        return {
            peers: one
            for peers, one in self.made.items()
            if dirty.peers.isdisjoint(peers) and not (one.is_list and dirty.is_for_everyone)
        }


def class_chains(grouped: Grouped, classes: Classes, place: Place, memo: Memo) -> ClassChains:
    """Return what decides about each class: a port table, or a list where that would be too large."""
    memo, compiler = memo.part(Seam.DIRTY_CLASSES, *place), _ClassCompiler(grouped, place)
    everyone = tuple(grouped.entries[index] for index in grouped.for_everyone)
    for_everyone = memo.get("for everyone", everyone, compiler.compile_for_everyone)
    distinct = classes.distinct()
    return memo.update("classes", lambda before: compiler.compile_(distinct, for_everyone, before))


class _ClassCompiler:
    """Compile the classes of one decision list."""

    def __init__(self, grouped: Grouped, place: Place) -> None:
        """Take the entries."""
        self._grouped = grouped
        self._place = place
        self._default = names.default_chain(*place[:2])
        self._everyone = names.everyone_chain(*place)
        self._base = Decider(grouped.entries, grouped.for_everyone)

    def compile_(
        self,
        distinct: tuple[tuple[int, ...], ...],
        for_everyone: ClassChain,
        before: ClassChains | None,
    ) -> ClassChains:
        """Return what decides about each class; what was made before is taken where it holds."""
        known = {} if before is None else before.clean(self._grouped.entries)
        in_names = (tuple(self._grouped.peers[place] for place in peers) for peers in distinct)
        made = {peers: known[peers] if peers in known else self._class(peers) for peers in in_names}
        leads_on = bool(self._base.members) or any(one.chains for one in made.values())
        return ClassChains(
            self._grouped.entries, distinct, made, for_everyone if leads_on else None, self._default
        )

    def compile_for_everyone(self) -> ClassChain:
        """Return the chain of the entries for everyone."""
        entries, indices, deciding = self._grouped.entries, self._base.members, self._deciding()
        if is_crowd(entries, indices, ()):
            deciding.list_chain(self._everyone, indices)
        else:
            table = make_table(entries, indices, Decider(entries, ()))
            deciding.table_chain(self._everyone, table, self._default)
        return ClassChain(self._everyone, deciding.chains, deciding.verdict_maps)

    def _class(self, peers: tuple[str, ...]) -> ClassChain:
        """Return what decides about addresses of a class.

        That depends on the entries of its peers, on those for everyone that these meet, and on which stand
        before which; the names depend on the peers'. It does not depend on the addresses of entries. Where
        the first entry exempts all traffic there is nothing to decide.
        """
        entries, own, everyone = self._grouped.entries, self._grouped.own(peers), self._base.members
        first, deciding = entries[own[0]], self._deciding()
        earlier = bool(everyone) and everyone[0] < own[0]
        if first.is_exempt and first.protocol is None and first.ports.is_all and not earlier:
            return ClassChain(first.leaf, {}, {})
        name = names.class_chain(*self._place, peers)
        is_list = is_crowd(entries, own, self._base.constrained)
        if is_list:
            deciding.list_chain(name, sorted((*own, *everyone)))
        else:
            deciding.table_chain(name, make_table(entries, own, self._base), self._everyone)
        return ClassChain(name, deciding.chains, deciding.verdict_maps, is_list)

    def _deciding(self) -> PortChains:
        direction, interface, family = self._place
        return PortChains(interface, direction, family, self._grouped.entries)


@dataclass(frozen=True, slots=True)
class DirtyClasses:
    """The classes about which something else may be decided than before."""

    peers: frozenset[str]
    """Those of any of these peers."""

    is_for_everyone: bool
    """Whether entries for everyone changed, which stand in lists too."""


MOST_FOR_EVERYONE = 32
"""Entries for everyone. If more change, all classes are dirty: comparing each with all entries costs more."""


def dirty_classes(before: Sequence[Entry], after: Sequence[Entry]) -> DirtyClasses | None:
    """Return the classes that a change of entries makes dirty; None if all may be.

    All may be if entries that stayed changed their order, or if entries for everyone changed that match more
    than protocol and port: their number is one of the things that decide between table and list.
    """
    gone, come = gone_and_come(before, after)
    changed = (*gone, *come)
    everyone = [entry for entry in changed if entry.is_for_everyone]
    if len(everyone) > MOST_FOR_EVERYONE or not all(entry.is_plain for entry in everyone):
        return None
    if _without(before, gone) != _without(after, come):
        return None
    own = {entry.peer for entry in changed if not entry.is_for_everyone}
    met = (entry for other in everyone for entry in after if _meet(entry, other))
    own.update(entry.peer for entry in met if not entry.is_for_everyone)
    return DirtyClasses(frozenset(own), bool(everyone))


def _without(entries: Sequence[Entry], some: Sequence[Entry]) -> list[int]:
    """Return the identities of entries, without some of them."""
    return list(filterfalse(set(map(id, some)).__contains__, map(id, entries)))


def _meet(one: Entry, other: Entry) -> bool:
    """Return whether protocol and ports of two entries have something in common."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    if one.ports.is_all or other.ports.is_all:
        return True
    return any(meets(mine, other.ports.ranges) for mine in one.ports.ranges)


def check_sources(own: AddressRanges, place: Place) -> FamilyChains:
    """Return the chains and the map that check sources before the far end is looked up.

    Only packets that open a session, or whose session is judged again, meet these chains. The rules compare
    single addresses themselves, so that a change of the link's addresses replaces the rules of these chains
    only. DHCP is accepted before; IPv6's neighbour discovery has passed already.

    Args:
        own: the addresses of the host on the interface, of the family.
        place: whose sessions are judged.
    """
    direction, _, family = place
    by_session, by_header = readings(direction, family)
    name, first = names.sources_chain(*place), names.peers_chain(*place)
    live_name, live_first = names.live_chain(name), names.live_chain(first)
    networks = _networks_map(own, place)
    chains = []
    if networks and direction is Direction.EGRESS:  # the map leads packets and live sessions to one chain
        checked = names.checked_chain(*place)
        guards = guards_of_maps(nft.Goto(live_first), family)
        chains.append(nft.Chain(name=checked, rules=(*guards, nft.Rule((nft.Goto(first),)))))
        first = live_first = checked
    guards = guards_of_new(nft.Goto(live_name), family)
    rules = _source_rules(own, networks, by_header, first, place)
    chains.append(nft.Chain(name=name, rules=(*guards, *rules)))
    chains.append(
        nft.Chain(name=live_name, rules=_source_rules(own, networks, by_session, live_first, place))
    )
    maps = {networks.name: networks} if networks else {}
    return FamilyChains({chain.name: chain for chain in chains}, maps)


def _source_rules(
    own: AddressRanges, networks: nft.VerdictMap | None, reading: Selectors, onward: str, place: Place
) -> tuple[nft.Rule, ...]:
    """Return the rules that send spoofed packets to their counter, and others on."""
    direction, interface, _ = place
    spoofed = nft.Goto(names.step_chain("spoofed", direction, interface))
    is_inwards = direction is Direction.INGRESS
    source = reading.peer if is_inwards else reading.local
    rules = [dhcp_rule(reading, *place)]
    if networks:
        rules.append(nft.Rule((nft.LookUp((source,), networks.name),)))
    singles = tuple(nft.Interval(first, last) for first, last in own if first == last)
    if singles:
        operator = nft.Operator.EQUAL if is_inwards else nft.Operator.NOT_EQUAL
        rules.append(nft.Rule((nft.Match(source, singles, operator), spoofed)))
    rules.append(nft.Rule((nft.Goto(onward) if singles or is_inwards else spoofed,)))
    return tuple(rules)


def _networks_map(own: AddressRanges, place: Place) -> nft.VerdictMap | None:
    """Return the map of the host's own networks, which are delegated to it; None where there are none."""
    direction, interface, family = place
    is_inwards = direction is Direction.INGRESS
    goto = nft.Goto(
        names.step_chain("spoofed", direction, interface) if is_inwards else names.checked_chain(*place)
    )
    elements = [nft.Element((nft.Interval(first, last),), goto) for first, last in own if first != last]
    if not elements:
        return None
    return names.fixed_map(
        names.prefixes_map(*place), (nft.ADDRESS_TYPES[family],), elements, is_interval=True
    )
