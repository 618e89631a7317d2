"""A data plane in memory that takes and refuses what the kernel does."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from sgagent.core.errors import KernelRefusedError, NotPermittedError
from sgagent.dataplane.table import find_refused
from sgagent.nft.diff import references, target
from sgagent.nft.marks import MarkTest
from sgagent.nft.ruleset import Chain, Counter, Interval, MeterSet, Ruleset, VerdictMap
from sgagent.nft.transactions import (
    RESET_WATCH,
    AddChain,
    AddCounter,
    AddElements,
    AddMeterSet,
    AddResetWatch,
    AddRule,
    AddTable,
    AddVerdictMap,
    DeclarationVerb,
    Delete,
    DeleteElements,
    DeleteTable,
    DestroyTable,
    Flush,
    Operation,
    Plan,
)
from sgagent.ports import CounterValue, Observed
from tests.fakes.table import FakeTable

NOT_THERE = "No such file or directory"
EXISTS = "File exists"
BUSY = "Device or resource busy"
CONFLICT = "conflicting intervals specified"


class FakeDataplane:
    """Keep a table, the values of its counters, and the marks of sessions."""

    def __init__(self) -> None:
        """Start without a table."""
        self.ruleset: Ruleset | None = None
        self.foreign: tuple[str, ...] = ()
        """What a plan has to remove; set by tests."""

        self.marks: list[int] = []
        """Of the sessions; set by tests."""

        self.applied: list[Plan] = []
        """The plans that were carried out, for tests to look at."""

        self.refusal: KernelRefusedError | NotPermittedError | None = None
        """Raised by every apply while it is set."""

        self.refused_at: int | None = None
        """How many plans are carried out before one is refused; None is no limit."""

        self.fault: NotPermittedError | None = None
        """Raised by every look at the table while it is set."""

        self.watch_refusal: KernelRefusedError | NotPermittedError | None = None
        """Raised by each order to watch for resets while it is set."""

        self.watches_asked = 0
        self.is_left_unlisted = False
        """Whether an earlier agent left the table, and nobody has listed it; set by tests."""

        self.recognized: list[Ruleset] = []
        self.is_closed = False
        self._counts: dict[str, CounterValue] = {}

    def observe(self) -> Observed:
        """Return the table."""
        if self.fault:
            raise self.fault
        return Observed(ruleset=self.ruleset, foreign=self.foreign)

    def recognize(self, ruleset: Ruleset) -> None:
        """Take a ruleset for the table that was left, if a test says that it was."""
        if self.is_left_unlisted:
            self.recognized.append(ruleset)
            self.ruleset = ruleset

    def share(self, ruleset: Ruleset) -> None:
        """Hold this value of the table, if it is equal."""
        if self.observe().ruleset == ruleset:
            self.ruleset = ruleset

    def apply(self, plan: Plan) -> None:
        """Carry out the fill and the flip, or refuse both."""
        if self.refusal:
            raise self.refusal
        if len(self.applied) == self.refused_at:
            raise KernelRefusedError("no more")
        if not plan:
            return
        before = (self.ruleset, self.foreign, self._counts)
        try:
            self._carry_out(Plan(fill=plan.fill))
            self._carry_out(Plan(plan.flip))
        except KernelRefusedError:
            self.ruleset, self.foreign, self._counts = before
            raise
        self.applied.append(plan)

    def remove(self, plan: Plan) -> None:
        """Carry out the removal, or refuse it."""
        self._carry_out(Plan(plan.removal))

    def _carry_out(self, plan: Plan) -> None:
        """Carry out one transaction: all of it or nothing."""
        try:
            transaction = self._transact(plan.operations, plan.verb)
        except _RefusedError as refusal:
            subject = find_refused(plan.operations, lambda some: self._accepts(some, plan.verb))
            raise KernelRefusedError(str(refusal), subject) from refusal
        self.ruleset = transaction.table.ruleset()
        self.foreign = transaction.foreign
        self._counts = transaction.counts

    def _accepts(self, operations: Sequence[Operation], verb: DeclarationVerb) -> bool:
        try:
            self._transact(operations, verb)
        except _RefusedError:
            return False
        return True

    def _transact(self, operations: Sequence[Operation], verb: DeclarationVerb) -> _Transaction:
        transaction = _Transaction(self.ruleset, self.foreign, self._counts, verb)
        for operation in operations:
            transaction.carry_out(operation)
        return transaction

    def count(self, counter: str, packets: int, octets: int) -> None:
        """Let packets pass a named counter."""
        before = self._counts[counter]
        self._counts[counter] = CounterValue(before.packets + packets, before.bytes + octets)

    def read_counters(self) -> Mapping[str, CounterValue]:
        """Return every named counter."""
        if self.fault:
            raise self.fault
        return dict(self._counts)

    def watch_resets(self) -> None:
        """Have a counter show resets."""
        self.watches_asked += 1
        if self.watch_refusal or self.ruleset is None:
            raise self.watch_refusal or KernelRefusedError(NOT_THERE)
        self._counts[RESET_WATCH] = CounterValue(1, 1)

    def reset_counters(self, *names: str) -> None:
        """Set counters to zero as another process may; all of them, without names."""
        for name in names or tuple(self._counts):
            self._counts[name] = CounterValue(0, 0)

    def clear_marks(self, mask: int, tests: Sequence[MarkTest] = ()) -> int:
        """Clear bits in the marks of sessions."""
        chosen = [
            place
            for place, mark in enumerate(self.marks)
            if mark & mask and (not tests or any(test.is_met_by(mark) for test in tests))
        ]
        for place in chosen:
            self.marks[place] &= ~mask
        return len(chosen)

    def close(self) -> None:
        """Leave the table as it is."""
        self.is_closed = True


class _RefusedError(Exception):
    """Say why the kernel would refuse."""


class _Transaction:
    """Carry operations out on a copy, each checked as the kernel does."""

    def __init__(
        self,
        ruleset: Ruleset | None,
        foreign: tuple[str, ...],
        counts: Mapping[str, CounterValue],
        verb: DeclarationVerb,
    ) -> None:
        self.table = FakeTable(copy.copy(ruleset))
        self.foreign = foreign
        self.counts = dict(counts)
        self._creates = verb is DeclarationVerb.CREATE

    def carry_out(self, operation: Operation) -> None:
        """Carry one operation out.

        Raises:
            _RefusedError: the kernel would not.
        """
        reason = self._refusal(operation)
        if reason is not None:
            raise _RefusedError(reason)
        self.table.carry_out(operation)
        self._follow_up(operation)

    def _follow_up(self, operation: Operation) -> None:
        """Do to foreign things and counts what the operation does to them."""
        match operation:
            case AddTable():
                self._forget("table sgagent")
            case DestroyTable() | DeleteTable():
                self.foreign, self.counts = (), {}
            case AddChain(chain):
                self._forget(f"policy {chain.name}")
            case Flush("chain", name):
                self._forget(f"rule {name}")
            case Delete(kind, name):
                self._forget(f"{kind} {name}", *((f"rule {name}",) if kind == "chain" else ()))
                if kind == "counter":
                    self.counts.pop(name, None)
            case AddCounter(counter):
                self.counts.setdefault(counter.name, CounterValue(0, 0))
            case _:
                pass

    def _forget(self, *gone: str) -> None:
        self.foreign = tuple(thing for thing in self.foreign if thing not in gone)

    def _refusal(self, operation: Operation) -> str | None:
        """Return why the kernel would refuse; None if it would not."""
        if isinstance(operation, (AddTable, DestroyTable, AddResetWatch)):
            return None
        if not self.table.stands:
            return NOT_THERE
        exists = False
        match operation:
            case AddChain(chain):
                former = self.table.chains.get(chain.name)
                return EXISTS if former and (self._creates or former.hook != chain.hook) else None
            case Flush(kind, name):
                standing = self._chains() if kind == "chain" else self.table.verdict_maps
                return None if name in standing else NOT_THERE
            case Delete(kind, name):
                return self._deletion_refused(kind, name)
            case AddRule(name, rule):
                wanted = [
                    name in self.table.chains,
                    *(self._stands(kind, to) for kind, to in references(rule)),
                ]
                return None if all(wanted) else NOT_THERE
            case AddVerdictMap(verdict_map):
                return self._addition_refused(verdict_map)
            case AddElements():
                return self._elements_refused(operation)
            case DeleteElements(name, _, elements):
                standing_keys = {element.key for element in self.table.elements(name)}
                return None if all(element.key in standing_keys for element in elements) else NOT_THERE
            case AddMeterSet(declared):
                exists = declared.name in self.table.meter_sets
            case AddCounter(counter):
                exists = counter.name in self.table.counters
            case DeleteTable():
                pass
        return EXISTS if self._creates and exists else None

    def _chains(self) -> set[str]:
        return {
            *self.table.chains,
            *(t.removeprefix("chain ") for t in self.foreign if t.startswith("chain ")),
        }

    def _addition_refused(self, verdict_map: VerdictMap) -> str | None:
        standing = self.table.verdict_maps.get(verdict_map.name)
        if standing is None:
            return None
        same = (standing.key_types, standing.is_interval) == (verdict_map.key_types, verdict_map.is_interval)
        return None if same and not self._creates else EXISTS

    def _elements_refused(self, operation: AddElements) -> str | None:
        if operation.verdict_map not in self.table.verdict_maps:
            return NOT_THERE
        targets = (target(element.verdict) for element in operation.elements)
        if not all(self._stands(Chain, name) for name in targets if name is not None):
            return NOT_THERE
        together = [*self.table.elements(operation.verdict_map), *operation.elements]
        if len({element.key for element in together}) < len(together):
            return EXISTS
        intervals = sorted(e.key[0] for e in together if len(e.key) == 1 and isinstance(e.key[0], Interval))
        overlapping = any(one.last >= other.first for one, other in pairwise(intervals))
        return CONFLICT if overlapping else None

    def _deletion_refused(self, word: str, name: str) -> str | None:
        if f"{word} {name}" in self.foreign:
            return None
        kind = {"chain": Chain, "map": VerdictMap, "counter": Counter, "set": MeterSet}.get(word)
        if kind is None or not self._stands(kind, name):
            return NOT_THERE
        own = name if kind is Chain else None
        return BUSY if (kind, name) in set(self._references(without=own)) else None

    def _stands(self, kind: type, name: str) -> bool:
        table = self.table
        standing: Mapping[type, Collection[str]] = {
            Chain: table.chains,
            VerdictMap: table.verdict_maps,
            Counter: table.counters,
            MeterSet: table.meter_sets,
        }
        return name in standing[kind]

    def _references(self, without: str | None) -> Iterator[tuple[type, str]]:
        """Yield all that is referred to, but for what the rules of one chain do."""
        for name in self.table.chains:
            for rule in self.table.rules(name) if name != without else ():
                yield from references(rule)
        for name in self.table.verdict_maps:
            for element in self.table.elements(name):
                if (chain := target(element.verdict)) is not None:
                    yield Chain, chain
