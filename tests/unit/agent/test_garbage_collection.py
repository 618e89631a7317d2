"""What steps leave behind is swept."""

from __future__ import annotations

import gc
import sys
import weakref

from sgagent.agent.daemon import STEPS_BETWEEN_SEARCHES, clean_up


def test_a_step_gives_back_what_the_interpreter_keeps() -> None:
    """Tuples that were freed count as memory in use until then."""
    gc.collect()
    before = sys.getallocatedblocks()
    for length in range(2, 10):
        del [tuple(range(length)) for _ in range(1000)][:]
    kept = sys.getallocatedblocks() - before
    clean_up(1)
    assert sys.getallocatedblocks() - before < kept / 10
    assert kept > 1000


class _Cycle:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_now_and_then_cycles_are_searched_that_steps_passed_over() -> None:
    """Not at each step, as that would take as long as the step."""
    lost = weakref.ref(_Cycle())
    seen = []
    for steps in range(1, 2 * STEPS_BETWEEN_SEARCHES + 1):
        clean_up(steps)
        if lost() is None:
            seen.append(steps)
            lost = weakref.ref(_Cycle())
    assert seen == [STEPS_BETWEEN_SEARCHES, 2 * STEPS_BETWEEN_SEARCHES]
