"""Work out what one transaction must change for the kernel to hold what is desired, and nothing else.

A plan is inspectable data: a tuple of operations in an order in which the kernel takes them. An empty plan
says that desired and observed agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sgagent.core.kernel.differing import Differing, differing_chains, differing_elements
from sgagent.core.kernel.nftwords import BITS
from sgagent.core.kernel.ruleset import (
    Chain,
    Count,
    Counter,
    Element,
    Goto,
    Interval,
    Jump,
    KeyType,
    LookUp,
    LookUpInline,
    Rule,
    Ruleset,
    Verdict,
    VerdictMap,
)


@dataclass(frozen=True, slots=True)
class AddTable:
    """Make the table; does nothing if it stands."""


@dataclass(frozen=True, slots=True)
class DestroyTable:
    """Remove the table and all in it; does nothing if there is none."""


@dataclass(frozen=True, slots=True)
class AddChain:
    """Declare a chain, without its rules."""

    chain: Chain


@dataclass(frozen=True, slots=True)
class FlushChain:
    """Remove all rules of a chain."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteChain:
    """Remove a chain that nothing refers to any more."""

    name: str


@dataclass(frozen=True, slots=True)
class AddRule:
    """Append a rule to a chain."""

    chain: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class AddVerdictMap:
    """Declare a verdict map, without its elements."""

    verdict_map: VerdictMap


@dataclass(frozen=True, slots=True)
class FlushVerdictMap:
    """Remove all elements of a verdict map."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteVerdictMap:
    """Remove a verdict map that nothing refers to any more."""

    name: str


@dataclass(frozen=True, slots=True)
class AddElements:
    """Put elements into a verdict map."""

    verdict_map: str
    key_types: tuple[KeyType, ...]
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class DeleteElements:
    """Take elements out of a verdict map."""

    verdict_map: str
    key_types: tuple[KeyType, ...]
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class AddCounter:
    """Declare a counter, at zero; does nothing if it stands."""

    counter: Counter


@dataclass(frozen=True, slots=True)
class DeleteCounter:
    """Remove a counter that nothing refers to any more."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteForeign:
    """Remove an object of a kind that sgagent never makes."""

    kind: str
    """nft's word for it, like ``set`` or ``quota``."""

    name: str


Operation = (
    AddTable
    | DestroyTable
    | AddChain
    | FlushChain
    | DeleteChain
    | AddRule
    | AddVerdictMap
    | FlushVerdictMap
    | DeleteVerdictMap
    | AddElements
    | DeleteElements
    | AddCounter
    | DeleteCounter
    | DeleteForeign
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations to be carried out in order, in one transaction."""

    operations: tuple[Operation, ...] = ()
    before: Ruleset | None = field(default=None, compare=False, repr=False)
    """What it was made for; None is no table."""

    after: Ruleset | None = field(default=None, compare=False, repr=False)
    """What it leads to from there; None where that was not worked out."""

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.operations)


REFILLED_FROM = 32
"""Elements that leave a map of intervals from which on the map is emptied and filled again, in the same
transaction.

Deleting is dear there. A thousand of 100,000 ranges of one field cost libnftables 57 s, emptying and
filling 1.3 s; half of 20,000 ranges of three fields cost the kernel 160 s and 10 s. It is also the only
sure way: thousands of ranges of one field don't fit into one message, and are then refused although they
stand.
"""


def make_plan(
    desired: Ruleset,
    observed: Ruleset | None,
    foreign: Iterable[str] = (),
    *,
    apart: frozenset[str] = frozenset(),
) -> Plan:
    """Return what one transaction must do to turn what is observed into what is desired.

    What is equal stays untouched, so that counters keep their values and maps that stand are changed by
    elements. The kernel checks references operation by operation, so references are taken away first (rules,
    elements), then what they led to; then everything is declared, and at last elements and rules refer to it.
    As it is all one transaction, no packet sees a state between.

    Args:
        desired: what is to stand.
        observed: what stands; None where there is no table.
        foreign: what else stands, as :func:`sgagent.core.kernel.nftlisting.decode_ruleset` names it.
        apart: chains to which nothing that is desired leads; nobody looks for what does where one of them is
            replaced.
    """
    change = _Change(desired, observed or Ruleset(), _Foreign.parse(foreign), apart)
    operations = tuple(change.operations())
    must_declare = observed is None or change.foreign.is_asleep
    return Plan((AddTable(), *operations) if must_declare else operations, observed, desired)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Foreign:
    """What stands in the table and can't be read as ours."""

    is_asleep: bool
    """Whether the table is there but not in force."""

    rules_in: frozenset[str]
    """Chains with a rule that can't be read."""

    policies_of: frozenset[str]
    """Base chains that don't accept by default."""

    chains: tuple[str, ...]
    others: tuple[tuple[str, str], ...]
    """Kind and name."""

    @classmethod
    def parse(cls, foreign: Iterable[str]) -> _Foreign:
        """Sort the names of foreign things by kind."""
        named = [_kind_and_name(text) for text in sorted(foreign)]
        return cls(
            is_asleep=any(kind == "table" for kind, _ in named),
            rules_in=frozenset(name for kind, name in named if kind == "rule"),
            policies_of=frozenset(name for kind, name in named if kind == "policy"),
            chains=tuple(name for kind, name in named if kind == "chain"),
            others=tuple(
                (kind, name) for kind, name in named if kind not in ("table", "rule", "policy", "chain")
            ),
        )


def _kind_and_name(text: str) -> tuple[str, str]:
    """Return the kind and the name; the kinds of connection tracking's objects are two words."""
    kind, _, name = text.partition(" ")
    if kind == "ct":
        second, _, name = name.partition(" ")
        return f"ct {second}", name
    return kind, name


class _Change:
    """Compare two tables.

    An object that can't be changed in place is *replaced*: deleted and declared again under its name. All
    that refers to it has to let go of it meanwhile.
    """

    def __init__(self, desired: Ruleset, observed: Ruleset, foreign: _Foreign, apart: frozenset[str]) -> None:
        self.desired = desired
        self.observed = observed
        self.foreign = foreign
        chains = differing_chains(observed, desired)
        maps = Differing.between(observed.verdict_map_by_name, desired.verdict_map_by_name)
        counters = Differing.between(observed.counter_by_name, desired.counter_by_name)
        self.leaving_chains = chains.leaving(_same_declaration)
        self.leaving_maps = maps.leaving(_same_key)
        self.leaving_counters = counters.leaving(_same)
        self.replaced_chains = self.leaving_chains & desired.chain_by_name.keys() - apart
        """Those that something that stays may lead to."""

        self.is_anything_replaced = bool(
            self.replaced_chains
            or self.leaving_maps & desired.verdict_map_by_name.keys()
            or self.leaving_counters & desired.counter_by_name.keys()
        )
        must_look_at_all = self.is_anything_replaced or foreign.rules_in
        standing = observed.chains if must_look_at_all else chains.standing_ones()
        self.flushed = frozenset(chain.name for chain in standing if self._must_flush(chain))
        self.chains = chains.wanted_ones(also=self.flushed | foreign.policies_of)
        """The desired ones that may have to be declared, or get rules, in order."""

        self.verdict_maps = desired.verdict_maps if self.replaced_chains else maps.wanted_ones()
        """Those that may have to be declared, or get elements."""

        self.counters = counters.wanted_ones()
        self._elements: dict[str, tuple[tuple[Element, ...], tuple[Element, ...]]] = {}

    def operations(self) -> Iterator[Operation]:
        """Yield the operations in an order in which the kernel takes them."""
        yield from self._let_go()
        yield from self._delete()
        yield from self._declare()
        yield from self._refer()

    def _must_flush(self, chain: Chain) -> bool:
        """Tell whether the rules of a standing chain must go, be it to come again."""
        if chain.name in self.foreign.rules_in:
            return True
        wanted = self.desired.chain_by_name.get(chain.name)
        if chain.name in self.leaving_chains or wanted is None or wanted.rules != chain.rules:
            return bool(chain.rules)
        return self.is_anything_replaced and any(
            self._leaves(kind, name) for rule in chain.rules for kind, name in references(rule)
        )

    def _leaves(self, kind: type, name: str) -> bool:
        if kind is Chain:
            return name in self.leaving_chains
        return name in (self.leaving_counters if kind is Counter else self.leaving_maps)

    def _let_go(self) -> Iterator[Operation]:
        """Take rules and elements away that are not to stay."""
        for name in sorted({*self.flushed, *self.foreign.chains}):
            yield FlushChain(name)
        for verdict_map, wanted in self._standing_maps():
            leaving = self._leaving_elements(verdict_map, wanted)
            if _is_refilled(verdict_map, leaving):
                yield FlushVerdictMap(verdict_map.name)
            elif leaving:
                yield DeleteElements(verdict_map.name, verdict_map.key_types, leaving)

    def _standing_maps(self) -> Iterator[tuple[VerdictMap, VerdictMap]]:
        """Yield the maps that stand and stay, as they are and as they are wanted."""
        for wanted in self.verdict_maps:
            if not self._is_new_map(wanted):
                yield self.observed.verdict_map_by_name[wanted.name], wanted

    def _leaving_elements(self, verdict_map: VerdictMap, wanted: VerdictMap) -> tuple[Element, ...]:
        """Return the elements that go, or come again since the chain that they lead to is replaced."""
        gone, _ = self._gone_and_new(wanted)
        if not self.replaced_chains:
            return gone
        led_away = [e for e in verdict_map.elements if target(e.verdict) in self.replaced_chains]
        if not led_away:
            return gone
        leaving = {*gone, *led_away}
        return tuple(element for element in verdict_map.elements if element in leaving)

    def _delete(self) -> Iterator[Operation]:
        for kind, name in self.foreign.others:
            yield DeleteForeign(kind, name)
        for name in sorted(self.leaving_maps):
            yield DeleteVerdictMap(name)
        for name in sorted({*self.leaving_chains, *self.foreign.chains}):
            yield DeleteChain(name)
        for name in sorted(self.leaving_counters):
            yield DeleteCounter(name)

    def _declare(self) -> Iterator[Operation]:
        for counter in self.counters:
            if counter.name in self.leaving_counters or counter.name not in self.observed.counter_by_name:
                yield AddCounter(counter)
        for chain in self.chains:
            if self._is_new(chain) or chain.name in self.foreign.policies_of:
                yield AddChain(replace(chain, rules=()))
        for verdict_map in self.verdict_maps:
            if self._is_new_map(verdict_map):
                yield AddVerdictMap(replace(verdict_map, elements=()))

    def _is_new(self, chain: Chain) -> bool:
        return chain.name in self.leaving_chains or chain.name not in self.observed.chain_by_name

    def _is_new_map(self, verdict_map: VerdictMap) -> bool:
        return (
            verdict_map.name in self.leaving_maps or verdict_map.name not in self.observed.verdict_map_by_name
        )

    def _refer(self) -> Iterator[Operation]:
        """Put elements and rules in."""
        for verdict_map in self.verdict_maps:
            coming = self._coming_elements(verdict_map)
            if coming:
                yield AddElements(verdict_map.name, verdict_map.key_types, coming)
        for chain in self.chains:
            if self._is_new(chain) or chain.name in self.flushed or not self._has_rules(chain):
                for rule in chain.rules:
                    yield AddRule(chain.name, rule)

    def _has_rules(self, chain: Chain) -> bool:
        return bool(self.observed.chain_by_name[chain.name].rules)

    def _coming_elements(self, wanted: VerdictMap) -> tuple[Element, ...]:
        if self._is_new_map(wanted):
            return tuple(wanted.elements)
        verdict_map = self.observed.verdict_map_by_name[wanted.name]
        leaving = self._leaving_elements(verdict_map, wanted)
        if _is_refilled(verdict_map, leaving):
            return tuple(wanted.elements)
        gone, new = self._gone_and_new(wanted)
        again = set(leaving).difference(gone)
        if not again:
            return new
        coming = again.union(new)
        return tuple(element for element in wanted.elements if element in coming)

    def _gone_and_new(self, wanted: VerdictMap) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
        """Return the elements of a standing map that it is not to have, and those that it lacks."""
        known = self._elements.get(wanted.name)
        if known is None:
            standing = self.observed.verdict_map_by_name[wanted.name]
            known = self._elements[wanted.name] = differing_elements(standing.elements, wanted.elements)
        return known


def _same_declaration(one: Chain, other: Chain) -> bool:
    """Tell whether a chain can stand as it is; the kernel changes neither hook nor comment."""
    return one.hook == other.hook and one.comment == other.comment


def _same_key(one: VerdictMap, other: VerdictMap) -> bool:
    return one.key_types == other.key_types and one.is_interval == other.is_interval


def _same(one: Counter, other: Counter) -> bool:
    return one == other


def _is_refilled(verdict_map: VerdictMap, leaving: tuple[Element, ...]) -> bool:
    """Tell whether a map is emptied and filled again rather than changed element by element.

    That is so where many ranges leave, and where the greatest value by itself does: such an element
    (``65535``, ``255.255.255.255``) stays where it is, although libnftables and the kernel report success.
    """
    if not verdict_map.is_interval or not leaving:
        return False
    if len(leaving) >= REFILLED_FROM:
        return True
    return leaving[-1].key == (Interval.single(_greatest(verdict_map.key_types[0])),)


def _greatest(key_type: KeyType) -> int:
    return (1 << BITS.get(key_type, 0)) - 1


def references(rule: Rule) -> Iterator[tuple[type, str]]:
    """Yield the kinds and names of the objects that a rule refers to."""
    for statement in rule.statements:
        match statement:
            case Goto(chain) | Jump(chain):
                yield Chain, chain
            case LookUp(verdict_map=name):
                yield VerdictMap, name
            case LookUpInline(elements=elements):
                yield from ((Chain, to) for e in elements if (to := target(e.verdict)) is not None)
            case Count(counter):
                yield Counter, counter


def target(verdict: Verdict) -> str | None:
    """Return the chain that a verdict leads to, if it leads to one."""
    return verdict.chain if isinstance(verdict, (Goto, Jump)) else None
