"""Compute the transactions that turn the observed table into the desired one.

A plan is inspectable data: operations in an order that the kernel accepts, in up to three transactions. An
empty plan says that desired and observed agree.

Why three: the kernel switches rules, chains and elements of hash maps at one moment of a commit, but new
elements of an interval map become visible only at the end of it, up to 90 ms later. And a packet that is
evaluated at that moment continues in the old rules, but finds new elements. So the plan *fills* new chains
and maps first, *flips* what packets reach in a second transaction, and *removes* the rest in a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from operator import is_not
from typing import Generic, TypeVar

from sgagent.nft import ruleset as nft, transactions as ops
from sgagent.nft.names import STATE_CHAIN
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.transactions import Operation, Plan

_Object = TypeVar("_Object", nft.Chain, nft.Counter, nft.MeterSet, nft.VerdictMap)


class _Compared(Generic[_Object]):
    """The objects of one kind in two tables, compared by identity, because most objects are unchanged."""

    def __init__(self, standing: Mapping[str, _Object], wanted: Mapping[str, _Object]) -> None:
        self.standing: Mapping[str, _Object] = standing
        self.wanted: Mapping[str, _Object] = wanted
        names = set(compress(wanted, map(is_not, map(standing.get, wanted), wanted.values())))
        coming = names - standing.keys()
        if len(wanted) - len(coming) < len(standing):
            names |= standing.keys() - wanted.keys()
        self.names = frozenset(names)
        """Of those that may differ, come, or go."""

        self.gone = self.names - wanted.keys()

    @property
    def redeclared(self) -> frozenset[str]:
        """Return the names of those that can't be changed into the wanted ones."""
        both = self.names & self.standing.keys() & self.wanted.keys()
        return frozenset(n for n in both if _declaration(self.standing[n]) != _declaration(self.wanted[n]))

    def wanted_ones(self, also: Iterable[str] = ()) -> tuple[_Object, ...]:
        """Return the objects that are wanted and differ, or are to come, and some others, in order."""
        return tuple(self.wanted[name] for name in sorted(self.names.union(also) & self.wanted.keys()))


def _declaration(one: nft.Chain | nft.VerdictMap | nft.MeterSet | nft.Counter) -> tuple[object, ...]:
    """Return the part of a declaration that no change of a standing object alters."""
    match one:
        case nft.Chain():
            return one.hook, one.comment
        case nft.VerdictMap():
            # An interval map is named after its elements. Where it has others, another process changed it,
            # and with what that changed besides the kernel may refuse the right ones: they make a loop.
            return one.key_types, one.is_interval, one.elements if one.is_interval else ()
        case nft.MeterSet():
            return one.key_type, one.size, one.timeout
        case nft.Counter():
            return (one.comment,)


def _kind_and_name(text: str) -> tuple[str, str]:
    """Return the kind and the name; the kinds of connection tracking's objects are two words."""
    kind, _, name = text.partition(" ")
    if kind == "ct":
        second, _, name = name.partition(" ")
        return f"ct {second}", name
    return kind, name


_NO_OBJECTS = frozenset(("table", "rule", "policy"))
"""What else may be foreign: the table's flags, chains with rules of others, chains with another policy."""


def make_plan(desired: Ruleset, observed: Ruleset | None, foreign: Iterable[str] = ()) -> Plan:
    """Return the plan that turns the observed table into the desired one.

    Objects that are equal are left alone, so that counters keep their values, and standing hash maps are
    changed by elements. The kernel checks references operation by operation, so each transaction first
    removes references (rules, elements), then the objects, then declares new objects, then adds elements and
    rules.

    Where an object can't be changed into the wanted one of its name, or can't be deleted, or the table can't
    be listed, one transaction makes the table anew. No table that sgagent compiled makes that necessary, only
    what another process did to it.

    Args:
        desired: the table that is wanted. Nothing in it leads to the chain that keeps the state.
        observed: the table in the kernel; None where there is no table, or one that can't be listed.
        foreign: what else is in the table, as :func:`sgagent.nft.own_table.decode_ruleset` names it.
    """
    others = [_kind_and_name(text) for text in sorted(foreign)]
    change = _Change(desired, observed or Ruleset(), others)
    if change.is_impossible if observed is not None else others:
        anew = make_plan(desired, None)
        return Plan(flip=(ops.DestroyTable(), *anew.operations), before=observed, after=desired)
    fill = tuple(change.fill())
    if observed is None or change.foreign_names("table"):  # the kernel calls no chain of a dormant table
        fill = (ops.AddTable(), *fill)
    flip, removal = tuple(change.flip()), tuple(change.removal())
    return Plan(flip=flip, fill=fill, removal=removal, before=observed, after=desired)


def plan_without_table(observed: Ruleset) -> Plan:
    """Return the plan that takes a table out of the way of packets, and then removes it."""
    unhooked = (chain.name for chain in observed.chains if chain.hook is not None)
    flip = tuple(make("chain", name) for name in unhooked for make in (ops.Flush, ops.Delete))
    return Plan(flip, removal=(ops.DestroyTable(),), before=observed)


class _Change:
    """Compare two tables."""

    def __init__(self, desired: Ruleset, observed: Ruleset, foreign: list[tuple[str, str]]) -> None:
        """Compare.

        Args:
            desired: the table that is wanted.
            observed: the table in the kernel.
            foreign: kind and name of what else is in the table.
        """
        self._foreign = foreign
        self._chains = _Compared(observed.chain_by_name, desired.chain_by_name)
        self._maps = _Compared(observed.verdict_map_by_name, desired.verdict_map_by_name)
        self._counters = _Compared(observed.counter_by_name, desired.counter_by_name)
        self._meter_sets = _Compared(observed.meter_set_by_name, desired.meter_set_by_name)
        standing = self._chains.standing
        self._unreached = frozenset(name for name in self._chains.gone if standing[name].hook is None)
        """Chains that no packet reaches after the flip; the removal deletes them."""

        self._redeclared = self._chains.redeclared
        """Chains that the flip deletes and declares again, if nothing that stays leads to them."""

        foreign_objects = {name for kind, name in foreign if kind not in _NO_OBJECTS}
        self._leaving = self._redeclared | foreign_objects
        """What the flip deletes: until then whatever leads there has to go."""

        gone = (self._maps.standing[name] for name in self._maps.gone)
        self._emptied = frozenset(
            one.name
            for one in gone
            if any(target(element.verdict) in self._leaving for element in one.elements)
        )
        """Maps that the removal deletes, and that lead there."""

        flushed = filter(self._must_flush, self._chains.names & standing.keys())
        self._flushed = frozenset(flushed) | (self.foreign_names("rule") & standing.keys())
        self._wanted_chains = self._chains.wanted_ones(self._flushed | self.foreign_names("policy"))
        """Those that may have to be declared, or get rules."""

        self._wanted_maps = self._maps.wanted_ones()
        """Those that may have to be declared, or get elements."""

        standing_sets = self._meter_sets.standing
        self._strange_sets = sorted(
            name
            for name in self._meter_sets.names & self._meter_sets.wanted.keys()
            if name in standing_sets and standing_sets[name].strange_bucket is not None
        )
        """Those in which another process put a bucket."""

        standing_maps = self._maps.standing
        self._changed_maps = [
            (one.name, one.key_types, *differing_elements(standing_maps[one.name].elements, one.elements))
            for one in self._wanted_maps
            if one.name in standing_maps
        ]
        """Name, key types, elements that go and elements that come."""

    def foreign_names(self, *kinds: str) -> frozenset[str]:
        """Return the names of foreign objects, of some kinds."""
        return frozenset(name for kind, name in self._foreign if kind in kinds)

    @property
    def is_impossible(self) -> bool:
        """Return whether an object can't be deleted, or one of a wanted name not be read, or not be changed.

        An element with a comment, for example, makes a map unreadable. Then nothing says what refers to it. A
        base chain and the chain that keeps the state are declared again: nothing wanted leads to them.
        """
        standing, wanted = self._chains.standing, self._chains.wanted
        in_use = (name for name in self._redeclared if name != STATE_CHAIN)
        return bool(
            any(standing[name].hook is None or wanted[name].hook is None for name in in_use)
            or self._maps.redeclared
            or self._counters.redeclared
            or self._meter_sets.redeclared
            or {kind for kind, _ in self._foreign} - _NO_OBJECTS - ops.DELETABLE
            or self.foreign_names("chain") & self._chains.wanted.keys()
            or self.foreign_names("map", "set") & (self._maps.wanted.keys() | self._meter_sets.wanted.keys())
            or self.foreign_names("counter") & self._counters.wanted.keys()
        )

    def fill(self) -> Iterator[Operation]:
        """Yield the operations that make new objects, to which nothing refers that a packet reaches."""
        new_chains = [one for one in self._wanted_chains if self._is_filled_chain(one)]
        new_maps = [one for one in self._wanted_maps if one.name not in self._maps.standing]
        for counter in self._counters.wanted_ones():
            if counter.name not in self._counters.standing:
                yield ops.AddCounter(counter)
        for meter_set in self._meter_sets.wanted_ones():
            if meter_set.name not in self._meter_sets.standing:
                yield ops.AddMeterSet(meter_set)
        for one in new_chains:
            yield ops.AddChain(replace(one, rules=()))
        for verdict_map in new_maps:
            yield ops.AddVerdictMap(replace(verdict_map, elements=()))
        for verdict_map in new_maps:
            if verdict_map.elements:
                yield ops.AddElements(verdict_map.name, verdict_map.key_types, tuple(verdict_map.elements))
        for one in new_chains:
            yield from (ops.AddRule(one.name, rule) for rule in one.rules)

    def flip(self) -> Iterator[Operation]:
        """Yield the operations that change the rules that packets meet."""
        standing, foreign_chains = self._chains.standing, self.foreign_names("chain")
        deleted = (self._chains.gone - self._unreached) | self._redeclared
        declared = deleted | self.foreign_names("policy")
        changed_chains = [one for one in self._wanted_chains if not self._is_filled_chain(one)]
        for name in sorted(self._flushed | foreign_chains):
            yield ops.Flush("chain", name)
        for name in sorted(self._emptied):
            yield ops.Flush("map", name)
        for name in self._strange_sets:
            yield ops.Flush("set", name)
        for name, types, gone, _ in self._changed_maps:
            if gone:
                yield ops.DeleteElements(name, types, gone)
        for kind, name in sorted(self._foreign, key=_is_no_map):  # a map may lead to the others
            if kind != "chain" and kind not in _NO_OBJECTS:
                yield ops.Delete(kind, name)
        yield from _delete("chain", deleted | foreign_chains)
        for one in changed_chains:
            if one.name in declared or one.name not in standing:
                yield ops.AddChain(replace(one, rules=()))
        for name, types, _, come in self._changed_maps:
            if come:
                yield ops.AddElements(name, types, come)
        for one in changed_chains:
            if one.name in self._flushed or one.name not in standing or not standing[one.name].rules:
                yield from (ops.AddRule(one.name, rule) for rule in one.rules)

    def removal(self) -> Iterator[Operation]:
        """Yield the operations that delete the objects that no packet reaches any more."""
        for name in sorted(self._unreached - self._flushed):
            if self._chains.standing[name].rules:
                yield ops.Flush("chain", name)
        yield from _delete("map", self._maps.gone)
        yield from _delete("chain", self._unreached)
        yield from _delete("set", self._meter_sets.gone)
        yield from _delete("counter", self._counters.gone)

    def _must_flush(self, name: str) -> bool:
        """Return True if the flip has to remove the rules of a standing chain that differs, or goes."""
        rules, wanted = self._chains.standing[name].rules, self._chains.wanted.get(name)
        if name in self._unreached:
            return any(one in self._leaving for rule in rules for _, one in references(rule))
        is_other = wanted is None or wanted.rules != rules or name in self._redeclared
        return bool(rules) and is_other

    def _is_filled_chain(self, chain: nft.Chain) -> bool:
        """Return True if a desired chain is new, and no packet enters it by itself: the fill makes it."""
        return chain.hook is None and chain.name not in self._chains.standing


def _delete(kind: str, names: Iterable[str]) -> Iterator[Operation]:
    return (ops.Delete(kind, name) for name in sorted(names))


def _is_no_map(foreign: tuple[str, str]) -> bool:
    return foreign[0] != "map"


def references(rule: nft.Rule) -> Iterator[tuple[type, str]]:
    """Yield the kinds and names of the objects that a rule refers to."""
    for statement in rule.statements:
        match statement:
            case nft.Goto(chain) | nft.Jump(chain):
                yield nft.Chain, chain
            case nft.LookUp(verdict_map=name):
                yield nft.VerdictMap, name
            case nft.Meter(meter_set):
                yield nft.MeterSet, meter_set
            case nft.Count(counter):
                yield nft.Counter, counter


def target(verdict: nft.Verdict) -> str | None:
    """Return the chain that a verdict leads to, if it leads to one."""
    return verdict.chain if isinstance(verdict, (nft.Goto, nft.Jump)) else None


def differing_elements(
    elements: Sequence[nft.Element], others: Sequence[nft.Element]
) -> tuple[tuple[nft.Element, ...], tuple[nft.Element, ...]]:
    """Return the elements that are not among the others, and those of the others that are not among these.

    Both are sorted, so what they have in common at either end is left out first: of 100,000 elements of which
    one changed, comparing takes a moment where hashing them all would take a second.
    """
    if elements is others:
        return (), ()
    elements, others = tuple(elements), tuple(others)
    shorter = min(len(elements), len(others))
    head = _common(elements, others, shorter)
    tail = _common(elements[head:][::-1], others[head:][::-1], shorter - head)
    left, right = elements[head : len(elements) - tail], others[head : len(others) - tail]
    among_left, among_right = set(left), set(right)
    gone = tuple(element for element in left if element not in among_right)
    return gone, tuple(element for element in right if element not in among_left)


def _common(elements: tuple[nft.Element, ...], others: tuple[nft.Element, ...], most: int) -> int:
    """Return the length of the common prefix, limited to ``most``.

    This is a binary search over slices: most elements are identical objects, and tuples of identical objects
    compare fast.
    """
    start, stop = 0, most
    while start < stop:
        middle = (start + stop + 1) // 2
        if elements[start:middle] == others[start:middle]:
            start = middle
        else:
            stop = middle - 1
    return start
