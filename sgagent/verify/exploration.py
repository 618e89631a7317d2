"""Follow all packets of a view through a table at once, as boxes that the table's rules cut.

A state is a set of packets that took the same way so far: the product of a box, classes of far ends, and
marks. Where its fate is settled, subclasses compare it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sgagent.core.addresses import Ranges, holds, without
from sgagent.core.model import Policy
from sgagent.nft import ruleset as nft
from sgagent.verify.compiled_table import (
    CompiledTable,
    FarEndIn,
    Find,
    MapNode,
    MarkIn,
    Narrow,
    Never,
    Operation,
    PacketFate,
)
from sgagent.verify.packets import (
    UNCHANGED,
    Box,
    Cube,
    MarkChange,
    Marks,
    Phase,
    after_both,
    before_change,
    common_marks,
    cubes_of,
    meet,
    other_marks,
    phase_of,
    split,
)
from sgagent.verify.verified_table import Return, VerifiedChain
from sgagent.verify.views import Read, Reading, Settled, Special, View


class State(NamedTuple):
    """Packets that took the same way so far."""

    box: Box
    classes: tuple[int, ...]
    """Of far ends."""

    marks: Marks | None
    """Of the session when the packet came; None where there is no session."""

    change: MarkChange = UNCHANGED
    """What became of the mark since."""

    counters: tuple[str, ...] = ()


class Exploration:
    """Follow states of one view; callers say what is done where a state's fate is settled."""

    def __init__(self, compiled: CompiledTable, view: View, addresses: Sequence[int]) -> None:
        """Prepare to follow packets.

        Args:
            compiled: the table.
            view: of the packets.
            addresses: one of each class of far ends.
        """
        self.compiled = compiled
        self.view = view
        self.addresses = addresses
        self._base_chains = compiled.table.base_chains.get(view.hook, ())
        self._number = 0
        self.phase = Phase.WIRE
        self._finals: list[tuple[State, Policy]] | None = None

    def settle(self, state: State, fates: Sequence[PacketFate], tail: str | None = None) -> None:
        """Take packets that share a fate, but for their marks; and the tail that settled it, if one did."""
        raise NotImplementedError

    def distinguish(self, ranges: Ranges | None) -> None:
        """Take note that far ends in some ranges are distinguished from others; None: in any."""
        raise NotImplementedError

    def arrive(self, chain: str, state: State) -> None:
        """Follow packets to a chain from which they do not come back."""
        raise NotImplementedError

    @property
    def drops_by_policy(self) -> bool:
        """Return whether the base chain that packets are in drops those that come to its end."""
        hook = self._base_chains[self._number].hook
        return hook is not None and hook.drops

    def follow(self, state: State) -> None:
        """Follow packets through all base chains of the hook."""
        self._enter_base(0, state)

    def _enter_base(self, number: int, state: State) -> None:
        if number == len(self._base_chains):
            self._settle_one(state, Policy.ACCEPT)
            return
        before = self._number, self.phase
        chain = self._base_chains[number]
        self._number, self.phase = number, _phase_of(chain)
        for ended in self._chain(chain.name, state, jumped=False):
            self._end_base(ended)
        self._number, self.phase = before

    def _end_base(self, state: State) -> None:
        """Apply the policy of the base chain."""
        self._finish(state, Policy.DROP if self.drops_by_policy else Policy.ACCEPT)

    def _finish(self, state: State, verdict: Policy) -> None:
        """Apply a verdict: what a base chain accepts goes on to the next one."""
        if self._finals is not None:
            self._finals.append((state, verdict))
        elif verdict is Policy.ACCEPT and self._number + 1 < len(self._base_chains):
            self._enter_base(self._number + 1, state)
        else:
            self._settle_one(state, verdict)

    def _settle_one(self, state: State, verdict: Policy) -> None:
        self.settle(state, (PacketFate(state.marks, verdict, state.counters, state.change),))

    def _chain(self, name: str, state: State, *, jumped: bool) -> list[State]:
        """Follow packets through a chain; return those that come to its end."""
        states, ended = [state], list[State]()
        for operations in self.compiled.rules(name, self.view, self.phase):
            onward: list[State] = []
            for one in states:
                self._rule(operations, one, onward, ended, jumped=jumped)
            states = onward
            if not states:
                break
        return ended + states

    def _rule(
        self,
        operations: Sequence[Operation],
        state: State,
        onward: list[State],
        ended: list[State],
        *,
        jumped: bool,
    ) -> None:
        """Follow packets through a rule; list those that go on behind it, and that leave the chain."""
        for operation in operations:
            if isinstance(operation, nft.Count):
                state = state._replace(counters=(*state.counters, operation.counter))
            elif isinstance(operation, nft.SetMark):
                changed = self._set_mark(operation, state)
                if changed is None:
                    break
                state = changed
            elif isinstance(operation, (tuple, FarEndIn, MarkIn)):
                found, others = self._compare(operation, state)
                onward += others
                if found is None:
                    return
                state = found
            elif isinstance(operation, nft.Limit):
                onward.append(state)  # as well: what came before decides, and may be anything
            elif isinstance(operation, Never):
                break
            elif isinstance(operation, Find):
                verdicts, missed = self._find(operation, state)
                onward += missed
                for verdict, one in verdicts:
                    self._apply(verdict, one, onward, ended, jumped=jumped)
                return
            else:
                self._apply(operation, state, onward, ended, jumped=jumped)
                return
        onward.append(state)

    def _apply(
        self,
        verdict: nft.Verdict | Return,
        state: State,
        onward: list[State],
        ended: list[State],
        *,
        jumped: bool,
    ) -> None:
        match verdict:
            case nft.Accept():
                self._finish(state, Policy.ACCEPT)
            case nft.Drop():
                self._finish(state, Policy.DROP)
            case Return():
                ended.append(state)
            case nft.Jump(chain):
                onward += self._chain(chain, state, jumped=True)
            case nft.Goto(chain) if jumped:
                ended += self._chain(chain, state, jumped=True)
            case nft.Goto(chain):
                self._goto(chain, state)

    def _goto(self, chain: str, state: State) -> None:
        """Follow packets to a chain from which they do not come back."""
        is_last = self._number + 1 == len(self._base_chains)
        if self._finals is not None:
            for fate in self.fates(chain, state._replace(counters=())):
                counters = (*state.counters, *fate.counters)
                settled = state._replace(marks=fate.marks, change=fate.change, counters=counters)
                self._finals.append((settled, fate.verdict))
        elif not is_last:
            self.go_through(chain, state)
        elif self.compiled.is_tail(chain):
            self.settle(state, self.fates(chain, state), chain)
        else:
            self.arrive(chain, state)

    def go_through(self, chain: str, state: State) -> None:
        """Follow packets through a chain from which they do not come back."""
        for ended in self._chain(chain, state, jumped=False):
            self._end_base(ended)

    def fates(self, chain: str, state: State) -> Sequence[PacketFate]:
        """Return what becomes of packets in a chain that reads nothing of them but the mark."""
        base = self._base_chains[self._number]
        key = (chain, base.name, self.view.read(nft.CT_MARK, self.phase), state[2:])
        found = self.compiled.fates.get(key)
        if found is None:
            before, finals = self._finals, list[tuple[State, Policy]]()
            self._finals = finals
            self.go_through(chain, state)
            self._finals = before
            found = tuple(PacketFate(one.marks, how, one.counters, one.change) for one, how in finals)
            self.compiled.fates[key] = found
        return found

    def _set_mark(self, operation: nft.SetMark, state: State) -> State | None:
        """Return the state afterwards; None where the rule breaks, as there is no mark to read."""
        if self.view.read(nft.CT_MARK, self.phase) is Special.NOTHING:
            return state if operation.keep == operation.put else None
        change = MarkChange(keep=operation.keep, put=operation.put)
        return state._replace(change=after_both(state.change, change))

    def _compare(
        self, operation: Narrow | FarEndIn | MarkIn, state: State
    ) -> tuple[State | None, list[State]]:
        """Return the packets that meet a condition, if any do, and the others."""
        if isinstance(operation, MarkIn):
            return self._compare_mark(operation, state)
        if isinstance(operation, FarEndIn):
            self.distinguish(operation.ranges)
            inside = tuple(
                c for c in state.classes if holds(operation.ranges, self.addresses[c]) is operation.is_in
            )
            return _by_classes(state, inside)
        box, others = split(state.box, operation)
        return (
            None if box is None else state if box is state.box else state._replace(box=box),
            [state._replace(box=other) for other in others],
        )

    def _compare_mark(self, operation: MarkIn, state: State) -> tuple[State | None, list[State]]:
        inside, outside = _split_marks(state, operation.cubes)
        found, others = (inside, outside) if operation.is_in else (outside, inside)
        return (
            state._replace(marks=found) if found else None,
            [state._replace(marks=others)] if others else [],
        )

    def _find(
        self, operation: Find, state: State
    ) -> tuple[list[tuple[nft.Verdict | Return, State]], list[State]]:
        """Return the verdicts that a map has for packets, and the packets that it has none for."""
        box, others = split(state.box, operation.needs)
        missed = [state._replace(box=other) for other in others]
        found: list[tuple[nft.Verdict | Return, State]] = []
        if box is not None:
            tree = self.compiled.tree(operation.verdict_map)
            self._descend(tree, operation.readings, state._replace(box=box), found, missed)
        return found, missed

    def _descend(
        self,
        node: MapNode,
        readings: Sequence[Reading],
        state: State,
        found: list[tuple[nft.Verdict | Return, State]],
        missed: list[State],
    ) -> None:
        parts, others = self._children(node, readings[0], state)
        missed += others
        for child, part in parts:
            if isinstance(child, MapNode):
                self._descend(child, readings[1:], part, found, missed)
            else:
                found.append((child, part))

    def _children(
        self, node: MapNode, reading: Reading, state: State
    ) -> tuple[list[tuple[MapNode | nft.Verdict, State]], list[State]]:
        """Return the parts of a state that lead to each child of a node, and the parts that lead to none."""
        match reading:
            case Settled(value):
                child = node.words.get(value) if isinstance(value, str) else node.child_of(value)
                return ([], [state]) if child is None else ([(child, state)], [])
            case Read(dimension):
                return _children_of_box(node, dimension, state)
            case Special.FAR_END:
                return self._children_of_classes(node, state)
            case _:
                return _children_of_marks(node, state)

    def _children_of_classes(
        self, node: MapNode, state: State
    ) -> tuple[list[tuple[MapNode | nft.Verdict, State]], list[State]]:
        self.distinguish(None)
        by_child: dict[int, tuple[MapNode | nft.Verdict, list[int]]] = {}
        missed: list[int] = []
        for number in state.classes:
            child = node.child_of(self.addresses[number])
            if child is None:
                missed.append(number)
            else:
                by_child.setdefault(id(child), (child, []))[1].append(number)
        parts = [(child, state._replace(classes=tuple(numbers))) for child, numbers in by_child.values()]
        return parts, [state._replace(classes=tuple(missed))] if missed else []


def _phase_of(chain: VerifiedChain) -> Phase:
    return phase_of(chain.hook.name, chain.hook.priority) if chain.hook else Phase.WIRE


def _by_classes(state: State, inside: tuple[int, ...]) -> tuple[State | None, list[State]]:
    if len(inside) == len(state.classes):
        return state, []
    chosen = set(inside)
    others = tuple(number for number in state.classes if number not in chosen)
    return (state._replace(classes=inside) if inside else None), [state._replace(classes=others)]


def _split_marks(state: State, cubes: Iterable[Cube]) -> tuple[Marks, Marks]:
    """Return the marks that, as they are by now, are in one of some cubes, and the others."""
    inside, outside = list[Cube](), state.marks or ()
    for cube in cubes:
        before = before_change(state.change, cube)
        if before is not None:
            inside += common_marks(outside, before)
            outside = other_marks(outside, before)
    return tuple(inside), outside


def _children_of_box(
    node: MapNode, dimension: str, state: State
) -> tuple[list[tuple[MapNode | nft.Verdict, State]], list[State]]:
    have, box = state.box[dimension], state.box
    parts: list[tuple[MapNode | nft.Verdict, State]] = []
    covered: list[tuple[int, int]] = []
    places = {place for first, last in have for place in range(*node.places_between(first, last))}
    for place in sorted(places):
        ends = (node.starts[place], node.lasts[place])
        part = meet(have, (ends,))
        covered.append(ends)
        parts.append((node.children[place], state._replace(box={**box, dimension: part})))
    left = without(have, tuple(covered))
    return parts, [state._replace(box={**box, dimension: left})] if left else []


def _children_of_marks(
    node: MapNode, state: State
) -> tuple[list[tuple[MapNode | nft.Verdict, State]], list[State]]:
    parts: list[tuple[MapNode | nft.Verdict, State]] = []
    left = state.marks or ()
    for first, last, child in zip(node.starts, node.lasts, node.children, strict=True):
        cubes = cubes_of(0xFFFFFFFF, first, last)
        inside, left = _split_marks(state._replace(marks=left), cubes)
        if inside:
            parts.append((child, state._replace(marks=inside)))
    return parts, [state._replace(marks=left)] if left else []
