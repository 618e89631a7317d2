"""Give back the memory that the interpreter keeps of steps that are done.

It keeps some thousands of freed tuples for the next ones, and is told to look for cycles rarely
(``sgagent.cli.main``). Neither is a leak, but over a few thousand steps both look like one: some MiB.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

STEPS_BETWEEN = 200
"""A sweep takes a thirtieth of a second where a step takes a tenth, and grows with the policy as steps do."""


class Leftovers:
    """What steps leave behind, until it is swept."""

    def __init__(self, sweep: Callable[[], object] = gc.collect) -> None:
        """Take what sweeps."""
        self._sweep = sweep
        self._steps = 0

    def step_done(self) -> None:
        """Sweep now and then."""
        self._steps += 1
        if self._steps >= STEPS_BETWEEN:
            self._steps = 0
            self._sweep()
