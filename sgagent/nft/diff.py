"""Compute the transactions that turn the observed table into the desired one.

A plan is inspectable data: operations in an order that the kernel accepts, in up to three transactions. An
empty plan says that desired and observed agree.

Why three: the kernel switches rules, chains and elements of hash maps at one moment of a commit, but new
elements of an interval map become visible only at the end of it, up to 90 ms later. And a packet that is
evaluated at that moment continues in the old rules, but finds new elements. So the plan *fills* new chains
and maps first, *flips* what packets reach in a second transaction, and *removes* the rest in a third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from operator import eq, is_not
from typing import Generic, Self, TypeVar

from sgagent.nft import ruleset as nft, transactions as ops
from sgagent.nft.names import differing_elements
from sgagent.nft.ruleset import BITS, Ruleset
from sgagent.nft.transactions import Operation, Plan

_Object = TypeVar("_Object", nft.Chain, nft.Counter, nft.VerdictMap)


@dataclass(frozen=True, slots=True)
class Differing(Generic[_Object]):
    """The objects of one kind that differ between two tables.

    :meth:`between` compares by identity, because most objects are unchanged.
    """

    standing: Mapping[str, _Object]
    wanted: Mapping[str, _Object]
    names: frozenset[str]
    """Of those that differ, come, or go."""

    @classmethod
    def between(cls, standing: Mapping[str, _Object], wanted: Mapping[str, _Object]) -> Self:
        """Compare all objects of a kind, by name."""
        return cls(standing, wanted, _differing_names(standing, wanted))

    def leaving(self, same: Callable[[_Object, _Object], bool]) -> frozenset[str]:
        """Return the names of objects to delete, including those that the plan declares again."""
        return frozenset(
            name
            for name in self.names & self.standing.keys()
            if (other := self.wanted.get(name)) is None or not same(self.standing[name], other)
        )

    def standing_ones(self) -> Iterator[_Object]:
        """Yield the objects that stand and differ, or go."""
        return (self.standing[name] for name in self.names & self.standing.keys())

    def wanted_ones(self, also: frozenset[str] = frozenset()) -> tuple[_Object, ...]:
        """Return the objects that are wanted and differ, or are to come, and some others, in order."""
        names = (self.names | also) & self.wanted.keys()
        return tuple(self.wanted[name] for name in sorted(names))


def _differing_names(standing: Mapping[str, _Object], wanted: Mapping[str, _Object]) -> frozenset[str]:
    """Return the names of objects that differ, come, or go."""
    if standing is wanted:
        return frozenset()
    names = set(compress(wanted, map(is_not, map(standing.get, wanted), wanted.values())))
    coming = names - standing.keys()
    if len(wanted) - len(coming) < len(standing):
        names |= standing.keys() - wanted.keys()
    return frozenset(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObjects:
    """What is in the table and can't be read as what sgagent makes."""

    is_asleep: bool
    """Whether the table has the flag ``dormant``: the kernel calls none of its chains."""

    rules_in: frozenset[str]
    """Chains with a rule that can't be read."""

    policies_of: frozenset[str]
    """Base chains that don't accept by default."""

    chains: tuple[str, ...]
    others: tuple[tuple[str, str], ...]
    """Kind and name."""

    @classmethod
    def parse(cls, foreign: Iterable[str]) -> ForeignObjects:
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

    def takes_name_of(self, desired: Ruleset) -> bool:
        """Return whether an object that can't be read has the name of one that is wanted.

        Another process has changed it: an element with a comment, for example, makes a map unreadable.
        """
        maps = {name for kind, name in self.others if kind in ("map", "set")}
        counters = {name for kind, name in self.others if kind == "counter"}
        return bool(
            desired.chain_by_name.keys() & set(self.chains)
            or desired.verdict_map_by_name.keys() & maps
            or desired.counter_by_name.keys() & counters
        )


def _kind_and_name(text: str) -> tuple[str, str]:
    """Return the kind and the name; the kinds of connection tracking's objects are two words."""
    kind, _, name = text.partition(" ")
    if kind == "ct":
        second, _, name = name.partition(" ")
        return f"ct {second}", name
    return kind, name


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
    """Return the plan that turns the observed table into the desired one.

    Objects that are equal are left alone, so that counters keep their values, and standing maps are changed
    by elements. The kernel checks references operation by operation, so each transaction first removes
    references (rules, elements), then the objects, then declares new objects, then adds elements and rules.

    Args:
        desired: the table that is wanted.
        observed: the table in the kernel; None where there is no table.
        foreign: what else is in the table, as :func:`sgagent.nft.json_listing.decode_ruleset` names it.
        apart: chains that no desired rule or element refers to; where one of them is replaced, no search for
            references is made.
    """
    found = ForeignObjects.parse(foreign)
    if observed is not None and found.takes_name_of(desired):
        # Nothing says what refers to such an object, so nothing is kept.
        anew = make_plan(desired, None)
        return Plan((ops.DestroyTable(), *anew.operations), before=observed, after=desired)
    change = _Change(desired, observed or Ruleset(), found, apart)
    fill = tuple(change.fill())
    if observed is None or change.foreign.is_asleep:
        fill = (ops.AddTable(), *fill)
    return Plan(tuple(change.flip()), fill, tuple(change.removal()), observed, desired)


def plan_without_table(observed: Ruleset) -> Plan:
    """Return the plan that takes a table out of the way of packets, and then removes it."""
    unhooked = (chain.name for chain in observed.chains if chain.hook is not None)
    flip = tuple(
        operation for name in unhooked for operation in (ops.Flush("chain", name), ops.Delete("chain", name))
    )
    return Plan(flip, removal=(ops.DestroyTable(),), before=observed)


class _Change:
    """Compare two tables.

    An object that can't be changed in place is *replaced*: deleted and declared again under its name, within
    the flip. All that refers to it is removed before, and what is still wanted is added again after. No table
    that sgagent compiled makes that necessary, only what another process did to it.
    """

    def __init__(
        self, desired: Ruleset, observed: Ruleset, foreign: ForeignObjects, apart: frozenset[str]
    ) -> None:
        self.desired = desired
        self.observed = observed
        self.foreign = foreign
        chains = Differing.between(observed.chain_by_name, desired.chain_by_name)
        maps = Differing.between(observed.verdict_map_by_name, desired.verdict_map_by_name)
        counters = Differing.between(observed.counter_by_name, desired.counter_by_name)
        self.leaving_chains = chains.leaving(_same_declaration)
        self.leaving_maps = maps.leaving(_same_key)
        self.leaving_counters = counters.leaving(eq)
        self.replaced_chains = self.leaving_chains & desired.chain_by_name.keys() - apart
        """Those that a rule or element may refer to."""

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
        self.gone_chains = frozenset(name for name in self.leaving_chains if self._is_removed_later(name))
        """Chains that no packet reaches after the flip; they are deleted by the removal."""

        self.gone_maps, self.gone_counters = self.leaving_maps, self.leaving_counters
        """Likewise."""

        if self.is_anything_replaced:
            self.gone_maps = self.gone_counters = frozenset()
        self._elements: dict[str, tuple[tuple[nft.Element, ...], tuple[nft.Element, ...]]] = {}

    def fill(self) -> Iterator[Operation]:
        """Yield the operations that make new objects, to which nothing refers that a packet reaches.

        An interval map that stands was named after its elements, so one whose elements differ was changed by
        another process. It is repaired here, since what is added to it becomes visible only after a commit.
        """
        filled = [verdict_map for verdict_map in self.verdict_maps if self._is_filled(verdict_map)]
        for verdict_map in filled:
            if not self._is_absent(verdict_map):
                yield from self._take_out(verdict_map)
        for counter in self.counters:
            if counter.name not in self.observed.counter_by_name:
                yield ops.AddCounter(counter)
        for chain in self.chains:
            if self._is_unhooked(chain):
                yield ops.AddChain(replace(chain, rules=()))
        for verdict_map in self.verdict_maps:
            if self._is_absent(verdict_map):
                yield ops.AddVerdictMap(replace(verdict_map, elements=()))
        for verdict_map in filled:
            yield from self._put_in(verdict_map)
        for chain in self.chains:
            if self._is_filled_chain(chain):
                yield from (ops.AddRule(chain.name, rule) for rule in chain.rules)

    def flip(self) -> Iterator[Operation]:
        """Yield the operations that change what packets meet."""
        flipped = [verdict_map for verdict_map in self.verdict_maps if not self._is_filled(verdict_map)]
        for name in sorted({*self.flushed, *self.foreign.chains}):
            yield ops.Flush("chain", name)
        for verdict_map in flipped:
            if not self._is_new_map(verdict_map):
                yield from self._take_out(verdict_map)
        yield from (ops.Delete(kind, name) for kind, name in self.foreign.others)
        yield from _delete("map", self.leaving_maps - self.gone_maps)
        replaced_or_base = self.leaving_chains - self.gone_chains
        yield from _delete("chain", {*replaced_or_base, *self.foreign.chains})
        yield from _delete("counter", self.leaving_counters - self.gone_counters)
        yield from (
            ops.AddCounter(counter) for counter in self.counters if counter.name in self.leaving_counters
        )
        for chain in self.chains:
            if self._is_declared_by_flip(chain):
                yield ops.AddChain(replace(chain, rules=()))
        for verdict_map in self.verdict_maps:
            if verdict_map.name in self.leaving_maps:
                yield ops.AddVerdictMap(replace(verdict_map, elements=()))
        for verdict_map in flipped:
            yield from self._put_in(verdict_map)
        for chain in self.chains:
            if not self._is_filled_chain(chain) and self._lacks_rules(chain):
                yield from (ops.AddRule(chain.name, rule) for rule in chain.rules)

    def removal(self) -> Iterator[Operation]:
        """Yield the operations that delete what no packet reaches any more."""
        for name in sorted(self.gone_chains - self.flushed):
            if self.observed.chain_by_name[name].rules:
                yield ops.Flush("chain", name)
        yield from _delete("map", self.gone_maps)
        yield from _delete("chain", self.gone_chains)
        yield from _delete("counter", self.gone_counters)

    def _is_removed_later(self, name: str) -> bool:
        """Return True if no packet reaches a standing chain any more once nothing wanted refers to it."""
        is_gone = name not in self.desired.chain_by_name and self.observed.chain_by_name[name].hook is None
        return is_gone and not self.is_anything_replaced

    def _must_flush(self, chain: nft.Chain) -> bool:
        """Return True if the flip has to remove the rules of a standing chain."""
        if chain.name in self.foreign.rules_in:
            return True
        wanted = self.desired.chain_by_name.get(chain.name)
        if chain.name in self.leaving_chains or wanted is None:
            return bool(chain.rules) and not self._is_removed_later(chain.name)
        return bool(chain.rules) if wanted.rules != chain.rules else self._refers_to_replaced(chain)

    def _refers_to_replaced(self, chain: nft.Chain) -> bool:
        return self.is_anything_replaced and any(
            self._is_replaced(kind, name) for rule in chain.rules for kind, name in references(rule)
        )

    def _is_replaced(self, kind: type, name: str) -> bool:
        if kind is nft.Chain:
            return name in self.leaving_chains and name in self.desired.chain_by_name
        if kind is nft.Counter:
            return name in self.leaving_counters and name in self.desired.counter_by_name
        return name in self.leaving_maps and name in self.desired.verdict_map_by_name

    def _is_unhooked(self, chain: nft.Chain) -> bool:
        """Return True if a desired chain is new, and no packet enters it by itself."""
        return chain.hook is None and chain.name not in self.observed.chain_by_name

    def _is_filled_chain(self, chain: nft.Chain) -> bool:
        """Return True if a desired chain gets its rules by the fill."""
        return self._is_unhooked(chain) and not self._refers_to_replaced(chain)

    def _is_declared_by_flip(self, chain: nft.Chain) -> bool:
        is_new = chain.name in self.leaving_chains or chain.name not in self.observed.chain_by_name
        return (is_new and not self._is_unhooked(chain)) or chain.name in self.foreign.policies_of

    def _lacks_rules(self, chain: nft.Chain) -> bool:
        """Return True if a desired chain has no rules in the midst of the flip."""
        standing = self.observed.chain_by_name.get(chain.name)
        is_emptied = chain.name in self.leaving_chains or chain.name in self.flushed
        return is_emptied or standing is None or not standing.rules

    def _is_filled(self, verdict_map: nft.VerdictMap) -> bool:
        """Return True if a desired map gets its elements by the fill."""
        standing = self.observed.verdict_map_by_name.get(verdict_map.name)
        if standing is None:
            may_refer = self.replaced_chains
        elif verdict_map.is_interval and verdict_map.name not in self.leaving_maps:
            may_refer = self.leaving_chains
        else:
            return False
        return not may_refer or not any(
            target(element.verdict) in may_refer
            for one in (standing, verdict_map)
            if one is not None
            for element in one.elements
        )

    def _take_out(self, wanted: nft.VerdictMap) -> Iterator[Operation]:
        """Yield what removes elements of a standing map that are not wanted."""
        standing = self.observed.verdict_map_by_name[wanted.name]
        leaving = self._leaving_elements(standing, wanted)
        if _is_refilled(standing, leaving):
            yield ops.Flush("map", wanted.name)
        elif leaving:
            yield ops.DeleteElements(wanted.name, wanted.key_types, leaving)

    def _put_in(self, wanted: nft.VerdictMap) -> Iterator[Operation]:
        """Yield what adds the elements that a map lacks."""
        coming = self._coming_elements(wanted)
        if coming:
            yield ops.AddElements(wanted.name, wanted.key_types, coming)

    def _leaving_elements(
        self, verdict_map: nft.VerdictMap, wanted: nft.VerdictMap
    ) -> tuple[nft.Element, ...]:
        """Return the elements that go, or come again since the chain that they lead to is replaced."""
        gone, _ = self._gone_and_new(wanted)
        if not self.replaced_chains:
            return gone
        led_away = [e for e in verdict_map.elements if target(e.verdict) in self.replaced_chains]
        if not led_away:
            return gone
        leaving = {*gone, *led_away}
        return tuple(element for element in verdict_map.elements if element in leaving)

    def _is_absent(self, verdict_map: nft.VerdictMap) -> bool:
        return verdict_map.name not in self.observed.verdict_map_by_name

    def _is_new_map(self, verdict_map: nft.VerdictMap) -> bool:
        return verdict_map.name in self.leaving_maps or self._is_absent(verdict_map)

    def _coming_elements(self, wanted: nft.VerdictMap) -> tuple[nft.Element, ...]:
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

    def _gone_and_new(
        self, wanted: nft.VerdictMap
    ) -> tuple[tuple[nft.Element, ...], tuple[nft.Element, ...]]:
        """Return the elements of a standing map that it is not to have, and those that it lacks."""
        known = self._elements.get(wanted.name)
        if known is None:
            standing = self.observed.verdict_map_by_name[wanted.name]
            known = self._elements[wanted.name] = differing_elements(standing.elements, wanted.elements)
        return known


def _delete(kind: str, names: Iterable[str]) -> Iterator[Operation]:
    return (ops.Delete(kind, name) for name in sorted(names))


def _same_declaration(one: nft.Chain, other: nft.Chain) -> bool:
    """Return whether a chain can stand as it is; the kernel changes neither hook nor comment."""
    return one.hook == other.hook and one.comment == other.comment


def _same_key(one: nft.VerdictMap, other: nft.VerdictMap) -> bool:
    return one.key_types == other.key_types and one.is_interval == other.is_interval


def _is_refilled(verdict_map: nft.VerdictMap, leaving: tuple[nft.Element, ...]) -> bool:
    """Return whether a map is emptied and filled again rather than changed element by element.

    That is so where many ranges leave, and where the greatest value by itself does: such an element
    (``65535``, ``255.255.255.255``) stays where it is, although libnftables and the kernel report success.
    """
    if not verdict_map.is_interval or not leaving:
        return False
    if len(leaving) >= REFILLED_FROM:
        return True
    greatest = (1 << BITS.get(verdict_map.key_types[0], 0)) - 1
    return leaving[-1].key == (nft.Interval.single(greatest),)


def references(rule: nft.Rule) -> Iterator[tuple[type, str]]:
    """Yield the kinds and names of the objects that a rule refers to."""
    for statement in rule.statements:
        match statement:
            case nft.Goto(chain) | nft.Jump(chain):
                yield nft.Chain, chain
            case nft.LookUp(verdict_map=name):
                yield nft.VerdictMap, name
            case nft.Count(counter):
                yield nft.Counter, counter


def target(verdict: nft.Verdict) -> str | None:
    """Return the chain that a verdict leads to, if it leads to one."""
    return verdict.chain if isinstance(verdict, (nft.Goto, nft.Jump)) else None
