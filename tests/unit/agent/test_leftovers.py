"""What steps leave behind is swept now and then."""

from __future__ import annotations

import gc
import sys

from sgagent.agent.leftovers import STEPS_BETWEEN, Leftovers


def test_every_so_many_steps_there_is_a_sweep() -> None:
    """Not at each, as that would take as long as a small step."""
    sweeps: list[int] = []
    leftovers = Leftovers(lambda: sweeps.append(1))
    swept = []
    for _ in range(2 * STEPS_BETWEEN + 1):
        leftovers.step_done()
        swept.append(len(sweeps))
    assert [swept.index(count) + 1 for count in (1, 2)] == [STEPS_BETWEEN, 2 * STEPS_BETWEEN]
    assert swept[-1] == 2


def test_a_sweep_gives_back_what_the_interpreter_keeps() -> None:
    """Tuples that were freed count as memory in use until then."""
    leftovers = Leftovers()
    gc.collect()
    before = sys.getallocatedblocks()
    for length in range(2, 10):
        del [tuple(range(length)) for _ in range(1000)][:]
    kept = sys.getallocatedblocks() - before
    for _ in range(STEPS_BETWEEN):
        leftovers.step_done()
    assert sys.getallocatedblocks() - before < kept / 10
    assert kept > 1000
