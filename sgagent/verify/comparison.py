"""The comparison of all packets of a view, in which no packets are followed twice.

Three things spare work, and none changes what is found. What was followed from a chain on is not followed
again by packets that are read alike there. A chain that is right for far ends that no clause singles out is
right for all others, but for the packets that other clauses match. And what an earlier proof compared holds
for far ends to which nothing changed, as long as the tails still do what they have to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sgagent.core.addresses import Ranges, holds, without
from sgagent.nft.ruleset import Selector
from sgagent.verify.expectation import BoxClause
from sgagent.verify.exploration import State
from sgagent.verify.fate_comparison import Demand, Duty, FateComparison, RefutedError, Subject
from sgagent.verify.frames import Frame
from sgagent.verify.packets import UNCHANGED, Marks, split
from sgagent.verify.revision import Revision
from sgagent.verify.views import PROTOCOL, Reading, Special, View

Arrival = tuple[str, State]
"""A junction, and packets that came there."""

Key = tuple[object, ...]


@dataclass(slots=True)
class Walk:
    """What was met between a chain and the fates of packets."""

    arrivals: list[Arrival] = field(default_factory=list)
    duties: set[Duty] = field(default_factory=set)
    is_whole: bool = True
    """Whether the duties are all that was compared."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What was met from a chain on by packets of any far end and any mark."""

    duties: frozenset[Duty]
    marks: Marks | None
    """With which the duties were compared; no mark at all if it was with several sets of them."""


_SEVERAL: Marks = ()


@dataclass(kw_only=True)
class ProofMemo:
    """What was found out in a proof."""

    walks: dict[Key, Walk] = field(default_factory=dict)
    """Up to junctions, by the chain and the packets that came there."""

    everyone: dict[Key, Visit | None] = field(default_factory=dict)
    """Of chains that are right for far ends that no clause singles out; None for those that are not."""

    visits: dict[Key, Visit] = field(default_factory=dict)


class WholeNeededError(Exception):
    """Say that packets of a view have to be followed for all far ends."""


class ViewComparison(FateComparison):
    """Compare the fates of all packets of a view with what the policy says."""

    def __init__(
        self,
        subject: Subject,
        view: View,
        frame: Frame,
        memo: ProofMemo,
        revised: tuple[Revision, ProofMemo] | None = None,
    ) -> None:
        """Prepare to compare.

        Args:
            subject: what is compared.
            view: of the packets.
            frame: what decides about them.
            memo: of this proof.
            revised: what is another than in an earlier proof, and the memo of that; the frame has the far
                ends to which something changed. None to compare for all.
        """
        super().__init__(subject, view, frame)
        self._memo = memo
        self._revision = None if revised is None else revised[0]
        self._before = ProofMemo() if revised is None else revised[1]
        decides = view.direction is None or view.is_expected
        common = (view.ports, view.box[PROTOCOL], view.state if decides else None, view.is_elsewhere)
        self._kind: Key = (frame, *common)
        self._lasting: Key = (frame.key, *common)
        self._readings_by_selectors: dict[frozenset[Selector], frozenset[tuple[Selector, Reading]]] = {}
        self._walks: list[Walk] = []
        """Those that packets are on."""

        self._before_junction = 0
        """From which of the walks on no junction has been met yet."""

        self._is_visiting = False

    def compare(self, marks: Marks | None) -> None:
        """Compare for all packets of the view.

        Raises:
            RefutedError: there is a packet for which the table does not do what the policy says.
            WholeNeededError: the far ends to which something changed do not suffice.
        """
        nobody = self.frame.nobody
        classes = range(nobody if self._revision is None else nobody + 1)
        self.follow(State(self.view.box, tuple(classes), marks))

    def distinguish(self, ranges: Ranges | None) -> None:
        """Refuse to take nobody for the far ends to which nothing changed where it may not be like them."""
        if self._revision is None or self._is_visiting or self.is_attempt:
            return
        nobody = self.addresses[self.frame.nobody]
        if ranges is None or without(ranges, self._revision.far_ends) or holds(ranges, nobody):
            raise WholeNeededError

    def note(self, tail: str | None, demand: Demand, number: int, clause: BoxClause | None) -> None:
        """Take note of a duty on all walks."""
        # What decides whatever the far end: no clause before it names any.
        is_for_everyone = self.is_invalid or clause in self.frame.always
        if self._walks:
            duty = (tail or "", demand)
            duty = self.subject.duties.setdefault(duty, duty)
            for walk in self._noting:
                if tail is None:
                    walk.is_whole = False
                else:
                    walk.duties.add(duty)
        elif number == self.frame.nobody and not is_for_everyone:
            raise WholeNeededError

    def arrive(self, chain: str, state: State) -> None:
        """Follow packets to a chain, unless packets like them were followed there before."""
        is_clean = not state.counters and state.change == UNCHANGED
        is_first = not self._is_visiting and not self.is_attempt and self.frame.judge is not None
        if is_clean and is_first and not self.compiled.touches_marks(chain):
            self._visit(chain, state)
        else:
            self._go_on(chain, state)

    def _visit(self, chain: str, state: State) -> None:
        """Follow packets from where on neither marks nor the way to here matter, but to tails."""
        key = (
            *self._lasting,
            self.drops_by_policy,
            chain,
            self._readings(chain, whole=True),
            *state.box.values(),
        )
        known = frozenset[Duty]()
        if self._revision is not None:
            known = self._known(self._before.visits.get(key), chain, state.marks)
            real = tuple(number for number in state.classes if number != self.frame.nobody)
            state = state._replace(classes=real)
        walk = Walk()
        if state.classes:
            self._is_visiting = True
            self._walks.append(walk)
            self._go_on(chain, state)
            self._walks.pop()
            self._is_visiting = False
        if walk.is_whole:
            duties = known | walk.duties
            seen = self._memo.visits.get(key, Visit(frozenset(), state.marks))
            marks = state.marks if seen.marks == state.marks else _SEVERAL
            self._memo.visits[key] = Visit(duties | seen.duties, marks)

    def _known(self, visit: Visit | None, chain: str, marks: Marks | None) -> frozenset[Duty]:
        """Return the duties that an earlier proof compared, and that are met by now.

        Raises:
            WholeNeededError: there was no such visit, or the chains behind it are others.
        """
        revision = self._revision
        if visit is None or revision is None or chain in revision.tainted:
            raise WholeNeededError
        duties = visit.duties
        if revision.counters:
            duties = frozenset(duty for duty in duties if revision.counters.isdisjoint(duty[1].counters))
        is_same = revision.same_marks and visit.marks == marks
        if not is_same and not self.meets(duties, marks):
            raise WholeNeededError
        return duties

    def _go_on(self, chain: str, state: State) -> None:
        if chain in self.compiled.junctions:
            for walk in self._walks[self._before_junction :]:
                walk.arrivals.append((chain, state))
            if not state.counters and self._holds_for_everyone(chain, state):
                before, self._before_junction = self._before_junction, len(self._walks)
                for part in self._matched_by_others(state):
                    self.go_through(chain, part)
                self._before_junction = before
                return
        key = self._key(chain, state)
        known = self._memo.walks.get(key)
        if known is None:
            walk = Walk()
            self._walks.append(walk)
            self.go_through(chain, state)
            self._walks.pop()
            self._memo.walks[key] = walk
        else:
            for one in self._noting:
                one.duties.update(known.duties)
                one.is_whole = one.is_whole and known.is_whole
            for junction, arrived in known.arrivals:
                self._go_on(junction, arrived)

    @property
    def _noting(self) -> list[Walk]:
        """Return the walks that note duties: behind a junction the first, and those begun there.

        Those in between end at the junction; a walk that takes one goes on from there.
        """
        if self._before_junction:
            return [self._walks[0], *self._walks[self._before_junction :]]
        return self._walks

    def _key(self, chain: str, state: State) -> Key:
        """Return all that the fate of packets in a chain depends on."""
        box, *others = state
        readings = self._readings(chain, whole=False)
        return (*self._kind, self.drops_by_policy, chain, readings, *box.values(), *others)

    def _readings(self, chain: str, *, whole: bool) -> frozenset[tuple[Selector, Reading]]:
        """Return how packets are read from a chain on, all the way or up to junctions."""
        reads = self.compiled.reads(chain) if whole else self.compiled.reads_before_junctions(chain)
        found = self._readings_by_selectors.get(reads)
        if found is None:
            found = frozenset((one, self.view.read(one, self.phase)) for one in reads)
            self._readings_by_selectors[reads] = found
        return found

    def _holds_for_everyone(self, chain: str, state: State) -> bool:
        """Return whether a chain does what the policy says of far ends that no clause singles out."""
        readings = self._readings(chain, whole=True)
        if any(reading is Special.FAR_END for _, reading in readings):
            return False
        lasting = (*self._lasting, self.drops_by_policy, chain, readings, state.change)
        key = (*lasting, state.marks)
        if key not in self._memo.everyone:
            try:
                duties = self._known(self._before.everyone.get(lasting), chain, state.marks)
                visit: Visit | None = Visit(duties, state.marks)
            except WholeNeededError:
                visit = self._attempt(chain, state)
            self._memo.everyone[key] = visit
            if visit is not None:
                self._memo.everyone[lasting] = visit
        found = self._memo.everyone[key]
        if found is not None:
            for walk in self._walks[:1]:
                walk.duties.update(found.duties)
        return found is not None

    def _attempt(self, chain: str, state: State) -> Visit | None:
        """Follow packets of far ends that no clause singles out, be there such or not."""
        before = self.is_attempt, self._walks, self._before_junction
        walk = Walk()
        self.is_attempt, self._walks, self._before_junction = True, [walk], 0
        try:
            for box in self.frame.without_always(self.view.box):
                self.go_through(chain, State(box, (self.frame.nobody,), state.marks, state.change))
        except RefutedError:
            return None
        finally:
            self.is_attempt, self._walks, self._before_junction = before
        return Visit(frozenset(walk.duties), state.marks) if walk.is_whole else None

    def _matched_by_others(self, state: State) -> Iterator[State]:
        """Yield the packets that nothing can block, or that a clause matches which is not for everyone."""
        for clause in self.frame.always:
            box, _ = split(state.box, clause.constraints)
            if box is not None:
                yield state._replace(box=box)
        for number in state.classes:
            for clause in self.frame.own[number]:
                box, _ = split(state.box, clause.constraints)
                if box is not None:
                    yield state._replace(box=box, classes=(number,))
