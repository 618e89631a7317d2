"""The comparison of all packets of a view, in which no packets are followed twice.

Two things spare work, and neither changes what is found. What was followed from a chain on is not followed
again by packets that are read alike there. A chain that is right for far ends that no clause singles out is
right for all others, but for the packets that other clauses match.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain

from sgagent.nft.ruleset import Selector
from sgagent.verify.exploration import State
from sgagent.verify.fate_comparison import Arrival, FateComparison, RefutedError, Subject
from sgagent.verify.frames import Frame
from sgagent.verify.packets import Marks, split
from sgagent.verify.views import PROTOCOL, SelectorReading, Special, View


class ViewComparison(FateComparison):
    """Compare the fates of all packets of a view with the policy."""

    def __init__(self, subject: Subject, view: View, frame: Frame) -> None:
        """Prepare to compare; of the arguments :class:`FateComparison` says more."""
        super().__init__(subject, view, frame)
        decides = view.direction is None or view.is_expected
        state = view.state if decides else None
        kind = view.ports, view.box[PROTOCOL], state, view.is_elsewhere, view.is_fragment
        self._kind = (frame, *kind)
        self._readings_by_selectors: dict[
            frozenset[Selector], frozenset[tuple[Selector, SelectorReading]]
        ] = {}
        self._open: list[list[Arrival]] = []
        """Of the chains that packets are followed from, behind which no junction has been met yet."""

    def compare(self, marks: Marks | None) -> None:
        """Compare for all packets of the view.

        Raises:
            RefutedError: there is a packet for which the table does not do what the policy says.
        """
        self.follow(State(self.view.box, tuple(range(self.frame.nobody)), marks))

    def arrive(self, chain: str, state: State) -> None:
        """Follow packets to a chain, unless packets like them were followed there before."""
        if chain in self.compiled.junctions:
            for arrivals in self._open:
                arrivals.append((chain, state))
            if not state.counters and self._holds_for_everyone(chain, state):
                before, self._open = self._open, []
                for part in self._matched_by_others(state):
                    self.go_through(chain, part)
                self._open = before
                return
        key = self._key(chain, state)
        if key in self.subject.arrivals:
            for junction, arrived in self.subject.arrivals[key]:
                self.arrive(junction, arrived)
            return
        found: list[Arrival] = []
        self._open.append(found)
        self.go_through(chain, state)
        self._open.pop()
        self.subject.arrivals[key] = found

    def _key(self, chain: str, state: State) -> Hashable:
        """Return all that the fate of packets in a chain depends on."""
        box, *others = state
        readings = self._readings(chain, whole=False)
        return (*self._kind, self.drops_by_policy, chain, readings, *box.values(), *others)

    def _readings(self, chain: str, *, whole: bool) -> frozenset[tuple[Selector, SelectorReading]]:
        """Return how packets are read from a chain on, all the way or up to junctions."""
        reads = self.compiled.reads(chain) if whole else self.compiled.reads_before_junctions(chain)
        known = self._readings_by_selectors
        if reads not in known:
            known[reads] = frozenset((one, self.view.read(one, self.phase)) for one in reads)
        return known[reads]

    def _holds_for_everyone(self, chain: str, state: State) -> bool:
        """Return whether a chain agrees with the policy on far ends that no clause singles out."""
        readings = self._readings(chain, whole=True)
        if any(reading is Special.FAR_END for _, reading in readings):
            return False
        key = (*self._kind, self.drops_by_policy, chain, readings, state.change, state.marks)
        if key not in self.subject.everyone:
            self.subject.everyone[key] = self._attempt(chain, state)
        return self.subject.everyone[key]

    def _attempt(self, chain: str, state: State) -> bool:
        """Follow packets of far ends that no clause singles out, be there such or not."""
        before = self.is_attempt, self._open
        self.is_attempt, self._open = True, []
        try:
            for box in self.frame.without_always(self.view.box):
                self.go_through(chain, State(box, (self.frame.nobody,), state.marks, state.change))
        except RefutedError:
            return False
        finally:
            self.is_attempt, self._open = before
        return True

    def _matched_by_others(self, state: State) -> Iterator[State]:
        """Yield the packets that nothing can block, or that a clause matches which is not for everyone."""
        always = ((clause, state.classes) for clause in self.frame.always)
        own = ((clause, (number,)) for number in state.classes for clause in self.frame.own[number])
        for clause, classes in chain(always, own):
            box, _ = split(state.box, clause.constraints)
            if box is not None:
                yield state._replace(box=box, classes=classes)
