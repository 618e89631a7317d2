"""Compile a resolved policy into one nftables table, in which every packet costs a fixed number of lookups.

The table accepts a packet of a known session by one comparison of its mark. It looks up any other packet by
the class of its far end, then by protocol and port. The lookup ends in a counter chain, which counts the
packet for the entry that decided. ``docs/ruleset.md`` explains a compiled table line by line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from sgagent.compiler.class_chains import remembered_judging
from sgagent.compiler.counter_chains import SILENT, FlowLogging, make_leaves
from sgagent.compiler.linear import MOST_LINES
from sgagent.compiler.marks import EnforcementState, MarkLayout, encode_state
from sgagent.core.memo import Memory, changed_places
from sgagent.core.model import Direction, Family
from sgagent.core.policy import (
    LINK_LOCAL,
    LOOPBACK,
    MULTICAST_LISTENER_TYPES,
    NEIGHBOUR_DISCOVERY_TYPES,
    ResolvedInterface,
    ResolvedPolicy,
)
from sgagent.nft import names, ruleset
from sgagent.nft.counter_keys import CounterKey
from sgagent.nft.maps import fixed_map
from sgagent.nft.ruleset import (
    Accept,
    Chain,
    Counter,
    Element,
    Goto,
    Hook,
    Interval,
    Jump,
    LookUp,
    Match,
    Operator,
    Rule,
    Ruleset,
    SetMark,
    Symbol,
    Verdict,
    VerdictMap,
)

Thing = TypeVar("Thing")


class Parts:
    """Collect parts; no name is in two of them."""

    def __init__(self) -> None:
        """Start without any."""
        self._single: dict[str, Chain] = {}
        self._chains: list[Mapping[str, Chain]] = [self._single]
        self._verdict_maps: list[Mapping[str, VerdictMap]] = []
        self._counters: list[Mapping[str, Counter]] = []
        self.keys: list[Mapping[str, CounterKey]] = []
        """What counters count."""

    def add_chain(self, chain: Chain) -> None:
        """Add a chain that is compiled by itself."""
        if chain.name in self._single:
            raise AssertionError(f"two chains of one name: {chain.name}")
        self._single[chain.name] = chain

    def add_judging(
        self, chains: Sequence[Mapping[str, Chain]], verdict_maps: Sequence[Mapping[str, VerdictMap]]
    ) -> None:
        """Add what judges, by name."""
        self._chains += chains
        self._verdict_maps += verdict_maps

    def add_leaves(
        self, chains: Mapping[str, Chain], counters: Mapping[str, Counter], keys: Mapping[str, CounterKey]
    ) -> None:
        """Add where judging ends, by name."""
        self._chains.append(chains)
        self._counters.append(counters)
        self.keys.append(keys)

    def table(self, memory: Memory) -> Ruleset:
        """Return all of it in canonical order."""
        return Ruleset.by_name(
            chains=_in_order(self._chains, memory.part("chains")),
            verdict_maps=_in_order(self._verdict_maps, memory.part("maps")),
            counters=_in_order(self._counters, memory.part("counters")),
            chain_parts=tuple(self._chains),
        )


@dataclass(frozen=True, slots=True)
class _Joined(Generic[Thing]):
    """Parts, and what they are together."""

    parts: tuple[Mapping[str, Thing], ...]
    things: Mapping[str, Thing]
    """Sorted by name."""


def _in_order(parts: Sequence[Mapping[str, Thing]], memory: Memory) -> Mapping[str, Thing]:
    """Return all of several parts, sorted by name."""
    found: _Joined[Thing] = memory.revise(partial(_join, tuple(parts)))
    return found.things


def _join(parts: tuple[Mapping[str, Thing], ...], before: _Joined[Thing] | None) -> _Joined[Thing]:
    """Put parts together; where no name comes or goes, only those are looked at that are new."""
    if before is None or len(before.parts) != len(parts):
        return _join_anew(parts)
    places = changed_places(before.parts, parts)
    if any(before.parts[place].keys() != parts[place].keys() for place in places):
        return _join_anew(parts)
    if not places:
        return before
    revised = dict(before.things)
    for place in places:
        revised.update(parts[place])
    return _Joined(parts, revised)


def _join_anew(parts: tuple[Mapping[str, Thing], ...]) -> _Joined[Thing]:
    things = joined(parts)
    return _Joined(parts, {name: things[name] for name in sorted(things)})


def joined(parts: Sequence[Mapping[str, Thing]]) -> Mapping[str, Thing]:
    """Return all of several parts; a name that two have is a fault of ours."""
    things: dict[str, Thing] = {}
    for part in parts:
        things.update(part)
    if len(things) < sum(map(len, parts)):
        raise AssertionError("two objects of one name")
    return things


PREROUTING = Hook(name="prerouting", hook_priority=-150)
"""After conntrack (-200), before DNAT (-100): what comes in is judged as it is on the wire (§2.2)."""

POSTROUTING = Hook(name="postrouting", hook_priority=300)
"""After SNAT (100)."""


FEW_INTERFACES = 2
"""Up to so many are compared one after the other, which costs a packet less than a look-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A table and what its counters count."""

    ruleset: Ruleset
    counters: Mapping[str, CounterKey]
    """By the counter's name in the table."""


def compile_(
    policy: ResolvedPolicy,
    layout: MarkLayout,
    state: EnforcementState,
    flow_logging: FlowLogging = SILENT,
    memory: Memory | None = None,
    *,
    turned: frozenset[str] = frozenset(),
    most_lines: int = MOST_LINES,
) -> Compiled:
    """Return the table that enforces the policy.

    Args:
        policy: what to enforce.
        layout: our bits of the conntrack mark.
        state: the policy generation under which accepted sessions are remembered, and who has which slot.
        flow_logging: of which judgements the kernel tells.
        memory: of what was compiled before, to spare work; the result is the same without.
        turned: maps of addresses, by their first names, that have their second name.
        most_lines: up to how many lines of a direction and family are a list; where it is 0, none is.
    """
    memory = memory or Memory()
    parts = Parts()
    parts.add_chain(Chain(name=names.STATE_CHAIN, comment=encode_state(state, layout)))
    edges = [
        _Edge(parts, interface, layout, state, flow_logging, turned, most_lines)
        for interface in _all_interfaces(policy)
    ]
    if edges:
        parts.add_chain(Chain(name=names.NEIGHBOURS_CHAIN, rules=_always_allowed_icmpv6()))
    for edge in edges:
        edge.compile_(memory)
    for hook, direction in ((PREROUTING, Direction.INGRESS), (POSTROUTING, Direction.EGRESS)):
        if policy.unbound is None and len(edges) == 1:
            parts.add_chain(_only_door(hook, direction, edges[0]))
        else:
            door, links = _dispatch(hook, direction, policy)
            parts.add_chain(door)
            parts.add_judging((), (links,))
            for edge in edges:
                parts.add_chain(edge.entry_chain(direction))
    keys = memory.part("keys").recall(tuple(parts.keys), lambda: joined(parts.keys))
    return Compiled(ruleset=parts.table(memory.part("table")), counters=keys)


def _all_interfaces(policy: ResolvedPolicy) -> tuple[ResolvedInterface, ...]:
    return (*policy.interfaces, *((policy.unbound,) if policy.unbound else ()))


def _only_door(hook: Hook, direction: Direction, edge: _Edge) -> Chain:
    """Return the base chain that all packets of the one bound link enter, and those of others leave at once.

    It spares each packet the way to a chain of the link's own.
    """
    elsewhere = Match(_LINK[direction], (Symbol(edge.interface.name),), Operator.NOT_EQUAL)
    rules = (Rule((elsewhere, Accept())), *edge.entry(direction))
    return Chain(name=hook.name, hook=hook, rules=rules)


_LINK = {Direction.INGRESS: ruleset.META_IIFNAME, Direction.EGRESS: ruleset.META_OIFNAME}
"""What says through which link a packet passes."""


def _dispatch(
    hook: Hook, direction: Direction, policy: ResolvedPolicy
) -> tuple[Chain, Mapping[str, VerdictMap]]:
    """Return the base chain that sends each bound link's packets to where they are judged, and its map."""
    selector = _LINK[direction]
    verdicts: dict[str, Verdict] = {
        interface.name: Goto(names.entry_chain(direction, interface.name)) for interface in policy.interfaces
    }
    rules: list[Rule] = []
    if policy.unbound:
        verdicts.setdefault(LOOPBACK, Accept())
        rules.append(Rule((Goto(names.entry_chain(direction, policy.unbound.name)),)))
    maps: dict[str, VerdictMap] = {}
    if len(verdicts) > FEW_INTERFACES:
        elements = (Element((Symbol(name),), verdict) for name, verdict in verdicts.items())
        links = fixed_map(names.links_map(direction), (selector.key_type,), elements, is_interval=False)
        maps[links.name] = links
        rules.insert(0, Rule((LookUp((selector,), links.name),)))
    else:
        rules[:0] = [Rule((Match(selector, (Symbol(name),)), verdicts[name])) for name in sorted(verdicts)]
    return Chain(name=hook.name, hook=hook, rules=tuple(rules)), maps


@dataclass(frozen=True, slots=True)
class _Edge:
    """Compile one interface."""

    parts: Parts
    interface: ResolvedInterface
    layout: MarkLayout
    state: EnforcementState
    flow_logging: FlowLogging
    turned: frozenset[str]
    most_lines: int

    def compile_(self, memory: Memory) -> None:
        """Add all chains, maps and counters of the interface to the table."""
        memory = memory.part("interface", self.interface.name)
        for direction in Direction:
            self._live(direction)
            self._accept(direction)
            leaves = make_leaves(self.interface, direction, self.flow_logging, memory)
            self.parts.add_leaves(leaves.chains, leaves.counters, leaves.keys)
            for family in Family:
                judging = remembered_judging(
                    self.interface, direction, family, memory, turned=self.turned, most_lines=self.most_lines
                )
                self.parts.add_judging(judging.chains, judging.verdict_maps)

    def entry_chain(self, direction: Direction) -> Chain:
        """Return the chain that every packet of the direction enters, where there are several links."""
        return Chain(name=names.entry_chain(direction, self.interface.name), rules=self.entry(direction))

    def entry(self, direction: Direction) -> tuple[Rule, ...]:
        """Return the rules that every packet of the direction meets: known, new, untracked, invalid or live.

        Of the sessions whose packets come in, those whose original packets do were opened inwards; those
        whose replies do, outwards. For packets that go out it is the other way round. There is one rule that
        leads to where new sessions of a family are judged, as the kernel validates all that is there once for
        each.
        """
        onward, backward = _opened(direction)
        name = self.interface.name
        ipv4, ipv6 = (Goto(names.peers_chain(onward, name, family)) for family in Family)
        by_header = Match(ruleset.CT_STATE, (Symbol("new"), Symbol("untracked")))
        is_untracked, is_invalid = (
            Match(ruleset.CT_STATE, (Symbol(state),)) for state in ("untracked", "invalid")
        )
        is_reply = Match(ruleset.CT_DIRECTION, (Symbol("reply"),))
        return (
            *self._known(onward, backward),
            Rule((by_header, _IS_IPV4, ipv4)),
            Rule((is_untracked, Jump(names.NEIGHBOURS_CHAIN))),
            Rule((by_header, ipv6)),
            Rule((is_invalid, Goto(names.invalid_chain(direction, name)))),
            Rule((is_reply, Goto(names.live_session_chain(backward, name)))),
            Rule((Goto(names.live_session_chain(onward, name)),)),
        )

    def _known(self, onward: Direction, backward: Direction) -> tuple[Rule, ...]:
        """Return the rules that accept packets of sessions that the current policy allowed (§3, step 1).

        The rule for original packets compares the mark first, the rule for replies compares the direction
        first. The first packet of a session has no mark and is no reply, so each rule rejects it after one
        comparison.
        """
        original, reply = (Match(ruleset.CT_DIRECTION, (Symbol(word),)) for word in ("original", "reply"))
        return (
            *(Rule((mark, original, Accept())) for mark in self._marks(onward)),
            *(Rule((reply, mark, Accept())) for mark in self._marks(backward)),
        )

    def _marks(self, opened: Direction) -> tuple[Match, ...]:
        """Return the matches on marks of allowed sessions; empty if no session is remembered as allowed."""
        bits = self._remembered(opened)
        if bits is None:
            return ()
        bit, generation = bits
        mask = self.layout.generation_mask | bit
        return (Match(ruleset.CT_MARK, (Interval.single(generation | bit),), mask=mask),)

    def _remembered(self, opened: Direction) -> tuple[int, int] | None:
        """Return the bit and generation that mark allowed sessions; None where nothing is remembered."""
        slot = self.state.slot(self.interface.name)
        if slot is None or self.state.generation is None:
            return None
        return self.layout.direction_bit(slot, opened), self.layout.generation_bits(self.state.generation)

    def _accept(self, opened: Direction) -> None:
        """Add the chain that remembers a session as allowed, and accepts.

        A mark of the current generation keeps its bits, which other interfaces may have set; under any other
        generation all our bits mean nothing any more.
        """
        rules: list[Rule] = []
        bits = self._remembered(opened)
        if bits is not None:
            bit, generation = bits
            current = Match(ruleset.CT_MARK, (Interval.single(generation),), mask=self.layout.generation_mask)
            rules.append(Rule((current, SetMark(keep=_ALL_BITS, put=bit), Accept())))
            rules.append(Rule((SetMark.replacing(self.layout.mask, generation | bit), Accept())))
        rules.append(Rule((Accept(),)))
        self.parts.add_chain(Chain(name=names.accept_chain(opened, self.interface.name), rules=tuple(rules)))

    def _live(self, opened: Direction) -> None:
        """Add the chain that judges live sessions opened in the direction, by family."""
        ipv4, ipv6 = (
            names.live_chain(names.peers_chain(opened, self.interface.name, family)) for family in Family
        )
        rules = (Rule((_IS_IPV4, Goto(ipv4))), Rule((Goto(ipv6),)))
        chain = names.live_session_chain(opened, self.interface.name)
        self.parts.add_chain(Chain(name=chain, rules=rules))


_IS_IPV4 = Match(ruleset.META_NFPROTO, (Symbol("ipv4"),))
_ALL_BITS = 0xFFFFFFFF


def _opened(direction: Direction) -> tuple[Direction, Direction]:
    """Return how sessions were opened whose original, and whose reply, packets go in the direction."""
    if direction is Direction.INGRESS:
        return Direction.INGRESS, Direction.EGRESS
    return Direction.EGRESS, Direction.INGRESS


def _always_allowed_icmpv6() -> tuple[Rule, ...]:
    """Return the rules for neighbour discovery and multicast listeners (§7.1), without any set."""
    discovery = [
        Rule((Match(ruleset.ICMPV6_TYPE, (types,)), Match(ruleset.IP6_HOPLIMIT, _HOPS_255), Accept()))
        for types in _intervals(NEIGHBOUR_DISCOVERY_TYPES)
    ]
    listeners = [
        Rule(
            (
                Match(ruleset.ICMPV6_TYPE, (types,)),
                Match(ruleset.IP6_HOPLIMIT, _HOPS_1),
                Match(ruleset.IP6_SADDR, (sources,)),
                Accept(),
            )
        )
        for types in _intervals(MULTICAST_LISTENER_TYPES)
        for sources in (Interval.single(0), Interval(*LINK_LOCAL))
    ]
    return *discovery, *listeners


_HOPS_1, _HOPS_255 = (Interval.single(1),), (Interval.single(255),)


def _intervals(numbers: tuple[int, ...]) -> tuple[Interval, ...]:
    """Return numbers as intervals, neighbours joined, as the kernel lists them."""
    intervals: list[Interval] = []
    for number in sorted(numbers):
        if intervals and intervals[-1].last + 1 == number:
            intervals[-1] = Interval(intervals[-1].first, number)
        else:
            intervals.append(Interval.single(number))
    return tuple(intervals)
