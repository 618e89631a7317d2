"""The comparison of settled fates with the policy's verdicts on the packets."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import merge
from itertools import chain
from typing import NamedTuple

from sgagent.core.addresses import Ranges
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.model import Direction, Policy
from sgagent.core.openers import counts_reopened
from sgagent.core.policy import InvalidPackets, ResolvedInterface, ResolvedPolicy
from sgagent.nft.ruleset import CONFIRMED, SetMark
from sgagent.verify.compiled_table import CompiledTable, PacketFate
from sgagent.verify.counter_names import counters_of, notes_of
from sgagent.verify.expectation import (
    ANSWERS_THAT_OPEN_NOTHING,
    JUDGED_HOOKS,
    REOPENING,
    BoxClause,
    Expectation,
    SessionMemory,
    carried_out,
    cut,
    expect,
    frames_dropped_unjudged,
    restricted,
)
from sgagent.verify.exploration import Exploration, State
from sgagent.verify.frames import PLACE, Frame
from sgagent.verify.interpreter import Trace, traces
from sgagent.verify.packets import (
    EVERY_MARK,
    UNCHANGED,
    CtDirection,
    CtState,
    Cube,
    Dimension,
    Marks,
    PacketAtHook,
    PacketSpace,
    Ports,
    difference,
    is_disjoint,
    opener_of,
    split,
    split_marks,
)
from sgagent.verify.users import UNIT, USER, hides_maker
from sgagent.verify.verified_table import UnsupportedStatementError
from sgagent.verify.views import (
    ETHER_DESTINATION,
    HOP_LIMIT,
    ICMP_TYPE,
    NEAR_END,
    PORT,
    PROTOCOL,
    SOURCE_PORT,
    STATUS,
    View,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """A packet on which the table and the policy disagree."""

    packet: PacketAtHook
    expected: Expectation
    found: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonScope:
    """The parts of fates that are compared."""

    counters: bool = True
    marks: bool = True
    revocations: bool = True
    """Whether packets of sessions that the policy does not allow, and invalid ones, have to be dropped."""

    others: bool = True
    """Whether nothing may become of packets at links that are not bound, and at other hooks."""

    hidden: bool = True
    """Whether packets of IPv6 are looked at that hide what is in them from nftables: behind an
    authentication header, or as fragments."""

    hooks: tuple[str, ...] = JUDGED_HOOKS
    """At which the policy is asked."""

    forwarded: bool = False
    """Whether only packets are looked at that are forwarded, with the link on their other side."""

    def differs(self, packet: PacketAtHook, expected: Expectation, found: Trace) -> bool:
        """Return whether the table does something else with a packet than it has to."""
        if expected.verdict is Policy.DROP and self.spares(packet.state):
            return False
        if expected.over is not None and found.counters[:1] == expected.over.counters[:1]:
            expected = expected.over
        return (
            expected.verdict is not found.verdict
            or (self.counters and expected.counters != found.counters)
            or (self.marks and expected.mark != found.mark)
        )

    def spares(self, state: CtState) -> bool:
        """Return whether packets that the policy drops may be accepted."""
        return not self.revocations and state not in {CtState.NEW, CtState.UNTRACKED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Packets on which the table and the policy disagree."""

    view: View
    box: PacketSpace
    far_ends: Ranges
    marks: Marks
    """Of those packets."""

    example: Counterexample


EVERYTHING = ComparisonScope()
VERDICTS = ComparisonScope(counters=False, marks=False, revocations=False, others=False, hidden=False)
"""What can be asked of the filters of others."""


class InconsistentProofError(Exception):
    """Say that the verifier contradicts itself: a fault of its own."""


class RefutedError(Exception):
    """Say that there are packets on which the table and the policy disagree."""


class Demand(NamedTuple):
    """The fate that packets have to get."""

    accepts: bool
    counters: tuple[str, ...]
    is_judged: bool = True
    """Whether the policy judges them now; else nothing but the verdict may come of them."""

    is_remembered: bool = True
    """Whether the mark says afterwards that they were accepted; not of answers that open nothing (§6.4)."""


class _Decided(NamedTuple):
    """What the policy decides about packets that all have the same first clause that matches."""

    ranges: tuple[Ranges, ...]
    """Of the dimensions by which it decides."""

    numbers: Sequence[int]
    """The classes of far ends."""

    demand: Demand
    metered: tuple[Demand, Demand] | None
    """Of what opens a session, where a limit may exceed it: within the limit, and beyond."""


def dimensions_decided(view: View) -> tuple[Dimension, ...]:
    """Return the dimensions by which a policy decides about packets of a view."""
    of_icmp = (ICMP_TYPE, HOP_LIMIT) if view.ports is Ports.OTHER else ()
    makers = (USER, UNIT) if view.opened is Direction.EGRESS else ()
    return (PROTOCOL, PORT, SOURCE_PORT, NEAR_END, *of_icmp, *makers)


def _demand_of(judge: ResolvedInterface, opener: Packet, decision: Decision, *notes: str) -> Demand:
    accepts = carried_out(judge, decision) is Policy.ACCEPT
    counters = counters_of(judge, opener, decision, *notes)
    return Demand(accepts, counters, is_remembered=not hides_maker(judge, opener))


OPEN = Demand(accepts=True, counters=(), is_judged=False)
SHUT = OPEN._replace(accepts=False)

MOST_CELLS = 2_000_000
"""Of a proof; 10,000 rules take a tenth, and two thirds if their objects overlap. A table of somebody else
can't keep a host busy."""


Arrival = tuple[str, State]
"""A junction, and packets that came there."""


@dataclass(kw_only=True)
class Subject:
    """The table and policy that are compared, for all views, and what was found out so far."""

    compiled: CompiledTable
    policy: ResolvedPolicy
    memory: SessionMemory
    scope: ComparisonScope
    most_cells: int = MOST_CELLS
    most_differences: int = 1
    """After so many the comparison ends."""

    differences: list[Difference] = field(default_factory=list)
    cells: int = 0
    decided: dict[Hashable, tuple[_Decided, ...]] = field(default_factory=dict)
    """What the policy decides, by all that it depends on: several views ask alike."""

    arrivals: dict[Hashable, list[Arrival]] = field(default_factory=dict)
    """At the first junctions behind a chain, by the chain and the packets that came there."""

    everyone: dict[Hashable, bool] = field(default_factory=dict)
    """Whether chains are right for far ends that no clause singles out."""


class FateComparison(Exploration):
    """Compare fates as soon as they are settled."""

    def __init__(self, subject: Subject, view: View, frame: Frame) -> None:
        """Prepare to compare.

        Args:
            subject: what is compared.
            view: of the packets.
            frame: what decides about them.
        """
        super().__init__(subject.compiled, view, frame.addresses)
        self.subject = subject
        self.frame = frame
        self.is_invalid = frame.judge is not None and (
            view.is_fragment or (view.is_invalid and frame.judge.invalid is InvalidPackets.DROP)
        )
        """Whether the packets are dropped before any clause is asked (§6.6)."""

        self.is_attempt = False
        """Whether it is only to be found out if there is a difference."""

        judge = frame.judge
        self._allowed = None
        if judge is not None and view.direction is not None and not view.is_expected:
            self._allowed = subject.memory.allowed_marks(judge.name, view.accepted_as)
        """Marks of sessions that the policy allowed before."""

        self._counts_reopened = view.may_reopen and judge is not None and counts_reopened(judge, view.opened)
        self._changes = _changes_of_accepted(subject.memory, view, judge)
        """Of marks of sessions that are accepted now."""

        self._met: set[tuple[object, ...]] = set()
        self._dimensions = dimensions_decided(view)
        is_apart = view.direction is None or view.is_elsewhere
        self._asking = view.ports, self.is_invalid, (view.headers, view.state) if is_apart else None
        """What decides about packets besides the dimensions and the frame."""

    def settle(self, state: State, fates: Sequence[PacketFate]) -> None:
        """Compare the fates of some packets, far end by far end, where policy and table may differ."""
        if self.frame.judge is None:
            self._compare_unjudged(state, fates)
            return
        for judged, some in self._evaluated(state, fates):
            self._settle_evaluated(judged, some)

    def _evaluated(
        self, state: State, fates: Sequence[PacketFate]
    ) -> Iterator[tuple[State, Sequence[PacketFate]]]:
        """Yield the packets and fates that the policy decides about; those of allowed sessions pass (§6.2).

        Where it counts sessions, it decides about what may open one in the entry of an older one (§13.1).
        """
        if self._allowed is None:
            yield state, fates
            return
        remembered, others = _split_fates(fates, self._allowed)
        reopening, going_on = split(state.box, REOPENING) if self._counts_reopened else (None, [state.box])
        if reopening is not None:
            yield state._replace(box=reopening), fates
        for box in going_on:
            if remembered:
                self._demand(OPEN, remembered, box, state.classes)
            if others:
                yield state._replace(box=box), others

    def _settle_evaluated(self, state: State, fates: Sequence[PacketFate]) -> None:
        """Compare the fates of packets that the policy decides about."""
        for decided in self._decided(state):
            box = {**state.box, **dict(zip(self._dimensions, decided.ranges, strict=True))}
            for demand, some, part in self._by_meter(decided, fates, box):
                for cell, opens in self._opening(part):
                    wanted = demand._replace(is_remembered=demand.is_remembered and opens)
                    self._demand(wanted, some, cell, decided.numbers)

    def _decided(self, state: State) -> Iterator[_Decided]:
        """Yield what the policy decides about packets, one by one: the first may show a difference."""
        key = (self.frame, *self._asking, state.classes, *(state.box[one] for one in self._dimensions))
        known = self.subject.decided.get(key)
        if known is not None:
            yield from known
            return
        found = []
        for decided in self._decide(state):
            found.append(decided)
            yield decided
        self.subject.decided[key] = tuple(found)

    def _decide(self, state: State) -> Iterator[_Decided]:
        """Yield parts of some packets in which the same clause decides about all."""
        judge = self.frame.judge
        assert judge is not None  # noqa: S101 - asked where there is a judge
        for clauses, numbers in self._groups(state):
            policy = restricted(judge, self.view.opened, clauses)
            address = self.addresses[numbers[0]]
            for box, clause in cut(state.box, clauses):
                packet = self.view.packet(self.view.values(box, address))
                opener = opener_of(packet, is_elsewhere=self.view.is_elsewhere)
                decision = evaluate(policy, opener)
                self._check_clause(clause, decision)
                demand = partial(_demand_of, judge, opener)
                notes, metered = notes_of(judge.name, decision, opener.family), None
                if notes is not None:
                    exceeding = replace(decision, verdict=Policy.DROP, decided_by=DecidedBy.OVER_LIMIT)
                    metered = demand(decision, notes[0]), demand(exceeding, notes[1])
                ranges = tuple(box[one] for one in self._dimensions)
                yield _Decided(ranges, numbers, demand(decision), metered)

    def _by_meter(
        self, decided: _Decided, fates: Sequence[PacketFate], box: PacketSpace
    ) -> Iterator[tuple[Demand, Sequence[PacketFate], PacketSpace]]:
        """Yield demands with fates and parts of a box: a limit may exceed what opens a session (§13.1)."""
        judge = self.frame.judge
        if judge is None or decided.metered is None or self.view.direction is CtDirection.REPLY:
            yield decided.demand, fates, box
            return
        within, over = decided.metered
        here = self.subject.memory.elsewhere_bit(judge.name, self.view.opened), 0
        confirmed, others = split(box, _IS_CONFIRMED)
        opening = [(fates, other) for other in others]
        if confirmed is not None:
            opened, elsewhere = _split_fates(fates, here)
            reopening, going_on = split(confirmed, REOPENING) if self.view.may_reopen else (None, [confirmed])
            yield from ((decided.demand, opened, one) for one in going_on)
            if reopening is not None:
                opening.append((opened, reopening))
            opening.append((elsewhere, confirmed))
        for some, part in opening:
            for fate in some:
                yield over if fate.counters[:1] == over.counters[:1] else within, (fate,), part

    def _opening(self, box: PacketSpace) -> Iterator[tuple[PacketSpace, bool]]:
        """Yield parts of a box, and whether an accepted packet of them opens a session here."""
        others = [box]
        for constraints in ANSWERS_THAT_OPEN_NOTHING if self.view.is_elsewhere else ():
            parts = [split(one, constraints) for one in others]
            yield from ((inside, False) for inside, _ in parts if inside is not None)
            others = [one for _, outside in parts for one in outside]
        yield from ((one, True) for one in others)

    def _compare_unjudged(self, state: State, fates: Sequence[PacketFate]) -> None:
        """Compare the fates of packets of a link that nothing judges: it is open, but to some frames."""
        dropped = frames_dropped_unjudged(self.subject.policy, self.view.hook)
        box, others = split(state.box, ((ETHER_DESTINATION, dropped),))
        if box is not None:
            self._demand(SHUT, fates, box, state.classes)
        for other in others:
            self._demand(OPEN, fates, other, state.classes)

    def _groups(self, state: State) -> Iterator[tuple[Sequence[BoxClause], Sequence[int]]]:
        """Yield the classes of far ends by the clauses that they have; none decides about invalid packets."""
        if self.is_invalid:
            yield (), state.classes
            return
        found: dict[tuple[BoxClause, ...], list[int]] = {}
        for number in state.classes:
            own = self.frame.own[number]
            have = tuple(c for c in own if not is_disjoint(state.box, c.constraints))
            found.setdefault(have, []).append(number)
        everyone = self.frame.everyone.meeting(state.box)
        yield from ((list(merge(own, everyone, key=PLACE)), numbers) for own, numbers in found.items())

    def _check_clause(self, clause: BoxClause | None, decision: Decision) -> None:
        """Refuse a cell in which the policy does not decide by the clause for which it was cut."""
        default = DecidedBy.INVALID if self.is_invalid else DecidedBy.DEFAULT
        decided_by = default if clause is None else clause.clause.decided_by
        if decision.decided_by is not decided_by or decision.rule is not (clause and clause.clause.rule):
            raise InconsistentProofError(f"a fault of the verifier: {decision} decides, not {clause}")

    def _demand(
        self, demand: Demand, fates: Sequence[PacketFate], box: PacketSpace, numbers: Sequence[int]
    ) -> None:
        """Compare fates with the one that packets of a cell have to have.

        Raises:
            RefutedError: they differ.
        """
        self.subject.cells += 1
        if self.subject.cells > self.subject.most_cells:
            raise UnsupportedStatementError(f"more than {self.subject.most_cells:,} parts of the packets")
        key = (demand, *fates)
        if key not in self._met:
            found = [(self._differing(fate, demand), fate.marks or EVERY_MARK) for fate in fates]
            differing = [(mark, marks) for mark, marks in found if mark is not None]
            if differing:
                marks = tuple(chain.from_iterable(marks for _, marks in differing))
                self._refute(box, numbers, differing[0][0], marks)
                return
            self._met.add(key)

    def _differing(self, fate: PacketFate, demand: Demand) -> int | None:
        """Return a mark with which a packet has another fate than it has to have; None if there is none."""
        scope = self.subject.scope
        if not demand.accepts and scope.spares(self.view.state):
            return None
        accepts = fate.verdict is Policy.ACCEPT
        if accepts is not demand.accepts or (scope.counters and fate.counters != demand.counters):
            return fate.marks[0][1] if fate.marks else 0
        if fate.marks is None or not scope.marks:
            return None
        is_accepted_now = demand.accepts and (demand.is_judged or self.frame.judge is None)
        is_marked = is_accepted_now and demand.is_remembered
        return _differing_mark(fate, self._changes if is_marked else _NO_CHANGES)

    def _refute(self, box: PacketSpace, numbers: Sequence[int], mark: int, marks: Marks) -> None:
        """Keep the difference, after interpreting the table for one packet of it alone.

        Raises:
            RefutedError: there are enough of them.
        """
        if self.is_attempt:
            raise RefutedError
        address = self.addresses[numbers[0]]
        packet = self.view.packet(self.view.values(box, address), mark)
        subject = self.subject
        expected = expect(subject.policy, subject.memory, packet)
        for found in traces(subject.compiled.table, packet):
            if subject.scope.differs(packet, expected, found):
                example = Counterexample(packet=packet, expected=expected, found=found)
                far_ends = self.frame.far_ends(numbers)
                subject.differences.append(
                    Difference(view=self.view, box=box, far_ends=far_ends, marks=marks, example=example)
                )
                if len(subject.differences) >= subject.most_differences:
                    raise RefutedError
                return
        reason = f"the table does with {packet} what the policy says"
        raise InconsistentProofError(f"a fault of the verifier: {reason}")


_IS_CONFIRMED = ((STATUS, ((CONFIRMED, 2 * CONFIRMED - 1),)),)


def _split_fates(fates: Iterable[PacketFate], cube: Cube) -> tuple[list[PacketFate], list[PacketFate]]:
    """Return the fates of sessions with marks in the cube, and those of others and of packets without one."""
    inside, outside = list[PacketFate](), list[PacketFate]()
    for fate in fates:
        if fate.marks is None:
            outside.append(fate)
            continue
        for marks, some in zip(split_marks(fate.marks, cube), (inside, outside), strict=True):
            if marks:
                some.append(fate._replace(marks=marks))
    return inside, outside


_Changes = tuple[tuple[Cube, SetMark], ...]
_NO_CHANGES: _Changes = ((EVERY_MARK[0], UNCHANGED),)


def _changes_of_accepted(memory: SessionMemory, view: View, judge: ResolvedInterface | None) -> _Changes:
    """Return the changes of marks of sessions that are accepted now; the first cube that has one counts."""
    is_error = view.is_error and not view.is_expected  # and says nothing of sessions
    if is_error or view.is_invalid or view.hook not in JUDGED_HOOKS:
        return _NO_CHANGES
    return memory.accepting(
        None if judge is None else judge.name,
        view.accepted_as,
        is_new=view.state is CtState.NEW,
        is_expected=view.is_expected,
        is_elsewhere=view.is_elsewhere,
    )


def _differing_mark(fate: PacketFate, changes: _Changes) -> int | None:
    """Return a mark of which another becomes than it has to; None if there is none."""
    left = fate.marks or ()
    for cube, wanted in changes:
        some, left = split_marks(left, cube)
        mark = difference(some, fate.change, wanted)
        if mark is not None:
            return mark
    return None
