"""What steps leave behind is swept."""

from __future__ import annotations

import gc
import sys
import weakref

from sgagent.agent.daemon import STEPS_BETWEEN_SEARCHES, Leftovers


def test_a_step_gives_back_what_the_interpreter_keeps() -> None:
    """Tuples that were freed count as memory in use until then."""
    leftovers = Leftovers()
    gc.collect()
    before = sys.getallocatedblocks()
    for length in range(2, 10):
        del [tuple(range(length)) for _ in range(1000)][:]
    kept = sys.getallocatedblocks() - before
    leftovers.step_done()
    assert sys.getallocatedblocks() - before < kept / 10
    assert kept > 1000


def test_now_and_then_there_is_a_search() -> None:
    """Not at each step, as that would take as long as the step."""
    searches: list[int] = []
    leftovers = Leftovers(lambda: searches.append(1))
    seen = []
    for _ in range(2 * STEPS_BETWEEN_SEARCHES + 1):
        leftovers.step_done()
        seen.append(len(searches))
    assert [seen.index(count) + 1 for count in (1, 2)] == [STEPS_BETWEEN_SEARCHES, 2 * STEPS_BETWEEN_SEARCHES]
    assert seen[-1] == 2


class _Cycle:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_a_search_finds_cycles_that_steps_passed_over() -> None:
    """What no step looks at is not kept for good."""
    leftovers = Leftovers()
    leftovers.step_done()
    lost = weakref.ref(_Cycle())
    for _ in range(STEPS_BETWEEN_SEARCHES):
        leftovers.step_done()
    assert lost() is None
