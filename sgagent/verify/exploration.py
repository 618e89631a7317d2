"""Follow all packets of a view through a table at once, as boxes that the table's rules cut.

A state is a set of packets that took the same way so far: the product of a box, classes of far ends, and
marks. Where its fate is settled, subclasses compare it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, assert_never

from sgagent.core.addresses import holds, without
from sgagent.core.model import Policy
from sgagent.nft import ruleset as nft
from sgagent.verify.compiled_table import (
    OF_TAILS,
    Comparison,
    CompiledTable,
    FarEndIn,
    Find,
    MapNode,
    MarkIn,
    Narrow,
    Operation,
    PacketFate,
)
from sgagent.verify.counter_names import meter_notes
from sgagent.verify.packets import (
    UNCHANGED,
    Cube,
    Marks,
    PacketSpace,
    Phase,
    after_both,
    before_change,
    cubes_of,
    meet,
    split,
    split_marks,
)
from sgagent.verify.views import Read, SelectorReading, Settled, Special, View


class State(NamedTuple):
    """Packets that took the same way so far."""

    box: PacketSpace
    classes: tuple[int, ...]
    """Of far ends."""

    marks: Marks | None
    """Of the session when the packet came; None where there is no session."""

    change: nft.SetMark = UNCHANGED
    """The change of the mark since."""

    counters: tuple[str, ...] = ()

    def counted(self, counter: str) -> State:
        """Return the packets after a counter that they add to, or what a meter says."""
        return self._replace(counters=(*self.counters, counter))

    def fate(self, verdict: Policy) -> PacketFate:
        """Return the fate of the packets if this is their verdict."""
        return PacketFate(self.marks, verdict, self.counters, self.change)


class _Ways(NamedTuple):
    """Where packets go from the rules of a chain."""

    onward: list[State]
    """To the next rule."""

    ended: list[State]
    """Out of the chain."""

    jumped: bool
    """Whether they come back then."""


class Exploration:
    """Follow states of one view; callers define the work where a state's fate is settled."""

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
        self._base_chains = compiled.table.chains_at(view.hook, view.family)
        self._number = 0
        self.phase = Phase.WIRE
        self._finals: list[PacketFate] | None = None
        """Of packets in a chain whose fates are asked for."""

        self._readings_of_tails = {phase: tuple(view.read(one, phase) for one in OF_TAILS) for phase in Phase}
        self._reads_packets = False
        """Whether something else than marks was read since the fates of some marks are asked for."""

    def settle(self, state: State, fates: Sequence[PacketFate]) -> None:
        """Take packets that share a fate, but for their marks."""
        raise NotImplementedError

    def arrive(self, chain: str, state: State) -> None:
        """Follow packets to a chain from which they do not come back."""
        raise NotImplementedError

    @property
    def drops_by_policy(self) -> bool:
        """Return whether the base chain that packets are in drops those that come to its end."""
        return self._base_chains[self._number].drops

    def follow(self, state: State, number: int = 0) -> None:
        """Follow packets through the base chains of the hook, from one on."""
        if number == len(self._base_chains):
            self.settle(state, (state.fate(Policy.ACCEPT),))
            return
        before = self._number, self.phase
        chain = self._base_chains[number]
        self._number, self.phase = number, chain.phase
        self.go_through(chain.name, state)
        self._number, self.phase = before

    def _finish(self, state: State, verdict: Policy) -> None:
        """Apply a verdict: packets that a base chain accepts go on to the next one."""
        if self._finals is not None:
            self._finals.append(state.fate(verdict))
        elif verdict is Policy.ACCEPT and self._number + 1 < len(self._base_chains):
            self.follow(state, self._number + 1)
        else:
            self.settle(state, (state.fate(verdict),))

    def _chain(self, name: str, state: State, *, jumped: bool) -> list[State]:
        """Follow packets through a chain; return those that come to its end."""
        states, ended = [state], list[State]()
        for operations in self.compiled.rules(name, self.view, self.phase):
            ways = _Ways([], ended, jumped)
            for one in states:
                self._rule(operations, one, ways)
            states = ways.onward
            if not states:
                break
        return ended + states

    def _rule(self, operations: Sequence[Operation], state: State, ways: _Ways) -> None:
        """Follow packets through a rule."""
        for operation in operations:
            match operation:
                case nft.Count(counter):
                    state = state.counted(counter)
                case nft.SetMark():
                    changed = self._set_mark(operation, state)
                    if changed is None:
                        break
                    state = changed
                case FarEndIn() | MarkIn() | Narrow():
                    found, others = self._compare(operation, state)
                    ways.onward.extend(others)
                    if found is None:
                        return
                    state = found
                case nft.Limit():
                    ways.onward.append(state)  # as well: what came before decides, and may be anything
                case nft.Meter(meter_set):
                    within, over = meter_notes(operation, self.compiled.table.meter_sets[meter_set])
                    ways.onward.append(state.counted(within))
                    state = state.counted(over)
                case Find():
                    parts = list(self._find(operation, state))
                    ways.onward.extend(one for verdict, one in parts if verdict is None)
                    for verdict, one in parts:
                        if verdict is not None:
                            self._apply(verdict, one, ways)
                    return
                case nft.Accept() | nft.Drop() | nft.Goto() | nft.Jump() | nft.Return():
                    self._apply(operation, state, ways)
                    return
                case _:
                    assert_never(operation)
        ways.onward.append(state)

    def _apply(self, verdict: nft.Verdict, state: State, ways: _Ways) -> None:
        match verdict:
            case nft.Accept():
                self._finish(state, Policy.ACCEPT)
            case nft.Drop():
                self._finish(state, Policy.DROP)
            case nft.Return():
                ways.ended.append(state)
            case nft.Jump(chain):
                ways.onward.extend(self._chain(chain, state, jumped=True))
            case nft.Goto(chain) if ways.jumped and not self.compiled.never_returns(chain):
                ways.ended.extend(self._chain(chain, state, jumped=True))
            case nft.Goto(chain):
                self._goto(chain, state)

    def _goto(self, chain: str, state: State) -> None:
        """Follow packets to a chain from which they do not come back."""
        is_last = self._number + 1 == len(self._base_chains)
        if self._finals is not None:
            fates = self._fates(chain, state._replace(counters=()))
            self._reads_packets |= fates is None
            self._finals += (one._replace(counters=state.counters + one.counters) for one in fates or ())
        elif not is_last:
            self.go_through(chain, state)
        elif self.compiled.is_tail(chain) and (fates := self._fates(chain, state)) is not None:
            self.settle(state, fates)
        else:
            self.arrive(chain, state)

    def go_through(self, chain: str, state: State) -> None:
        """Follow packets through a chain from which they do not come back."""
        verdict = Policy.DROP if self.drops_by_policy else Policy.ACCEPT
        for ended in self._chain(chain, state, jumped=False):
            self._finish(ended, verdict)

    def _fates(self, chain: str, state: State) -> Sequence[PacketFate] | None:
        """Return the fates of packets in a chain; None if it reads more of them than the mark."""
        base = self._base_chains[self._number]
        key = (chain, base.name, *self._readings_of_tails[self.phase], state[2:])
        if key not in self.compiled.fates:
            before, finals = (self._finals, self._reads_packets), list[PacketFate]()
            self._finals, self._reads_packets = finals, False
            self.go_through(chain, state)
            self.compiled.fates[key] = None if self._reads_packets else tuple(finals)
            self._finals, self._reads_packets = before
        return self.compiled.fates[key]

    def _set_mark(self, operation: nft.SetMark, state: State) -> State | None:
        """Return the state afterwards; None where the rule breaks, as there is no mark to read."""
        if self.view.read(nft.CT_MARK, self.phase) is Special.NOTHING:
            return state if operation.keep == operation.put else None
        return state._replace(change=after_both(state.change, operation))

    def _compare(self, operation: Comparison, state: State) -> tuple[State | None, list[State]]:
        """Return the packets that meet a condition, if any do, and the others."""
        self._reads_packets |= not isinstance(operation, MarkIn)
        if isinstance(operation, Narrow):
            box, others = split(state.box, operation.constraints)
            found = None if box is None else state if box is state.box else state._replace(box=box)
            return found, [state._replace(box=other) for other in others]
        if isinstance(operation, MarkIn):
            marks = _split_marks(state, operation.cubes)
            parts = [state._replace(marks=some) if some else None for some in marks]
            found, other = parts if operation.is_in else parts[::-1]
        else:
            inside, outside = list[int](), list[int]()
            for number in state.classes:
                (inside if holds(operation.ranges, self.addresses[number]) else outside).append(number)
            classes = tuple(inside), tuple(outside)
            found, other = (state._replace(classes=some) if some else None for some in classes)
        return found, [] if other is None else [other]

    def _find(self, operation: Find, state: State) -> Iterator[tuple[nft.Verdict | None, State]]:
        """Yield packets with the verdicts that a map has for them; None where it has none."""
        self._reads_packets = True
        box, others = split(state.box, operation.needs)
        yield from ((None, state._replace(box=other)) for other in others)
        if box is not None:
            tree = self.compiled.tree(operation.verdict_map)
            yield from self._descend(tree, operation.readings, state._replace(box=box))

    def _descend(
        self, node: MapNode, readings: Sequence[SelectorReading], state: State
    ) -> Iterator[tuple[nft.Verdict | None, State]]:
        for child, part in self._children(node, readings[0], state):
            if isinstance(child, MapNode):
                yield from self._descend(child, readings[1:], part)
            else:
                yield child, part

    def _children(self, node: MapNode, reading: SelectorReading, state: State) -> Iterable[_Child]:
        """Return parts of a state with the children of a node that they lead to, those without one first."""
        match reading:
            case Settled(value):
                return [(node.words.get(value) if isinstance(value, str) else node.child_of(value), state)]
            case Read(dimension):
                return _children_of_box(node, dimension, state)
            case Special.FAR_END:
                return self._children_of_classes(node, state)
            case _:
                return _children_of_marks(node, state)

    def _children_of_classes(self, node: MapNode, state: State) -> Iterator[_Child]:
        by_child: dict[int, tuple[MapNode | nft.Verdict | None, list[int]]] = {id(None): (None, [])}
        for number in state.classes:
            child = node.child_of(self.addresses[number])
            by_child.setdefault(id(child), (child, []))[1].append(number)
        return ((child, state._replace(classes=tuple(some))) for child, some in by_child.values() if some)


_Child = tuple[MapNode | nft.Verdict | None, State]
"""What a part of a state leads to, if to anything."""


def _split_marks(state: State, cubes: Iterable[Cube]) -> tuple[Marks, Marks]:
    """Return the marks that, as they are by now, are in one of some cubes, and the others."""
    inside, outside = list[Cube](), state.marks or ()
    for cube in cubes:
        before = before_change(state.change, cube)
        if before is not None:
            found, outside = split_marks(outside, before)
            inside += found
    return tuple(inside), outside


def _children_of_box(node: MapNode, dimension: str, state: State) -> Iterator[_Child]:
    have, box = state.box[dimension], state.box
    places = sorted({place for first, last in have for place in range(*node.places_between(first, last))})
    ranges = [(node.starts[place], node.lasts[place]) for place in places]
    left = without(have, tuple(ranges))
    if left:
        yield None, state._replace(box={**box, dimension: left})
    for place, ends in zip(places, ranges, strict=True):
        yield node.children[place], state._replace(box={**box, dimension: meet(have, (ends,))})


def _children_of_marks(node: MapNode, state: State) -> Iterator[_Child]:
    found: list[_Child] = []
    left = state.marks or ()
    for first, last, child in zip(node.starts, node.lasts, node.children, strict=True):
        inside, left = _split_marks(state._replace(marks=left), cubes_of(0xFFFFFFFF, first, last))
        if inside:
            found.append((child, state._replace(marks=inside)))
    if left:
        yield None, state._replace(marks=left)
    yield from found
