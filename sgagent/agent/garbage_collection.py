"""Give back the memory that the interpreter keeps of steps that are done.

It keeps some thousands of freed tuples for the next ones, and is told to look for cycles rarely
(``sgagent.cli.main``). Neither is a leak, but over a few thousand steps both look like one: some MiB.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

STEPS_BETWEEN_SEARCHES = 2_000
"""Between looks at all that is alive, for cycles that are not; each takes as long as a large step."""


class Leftovers:
    """What steps leave behind, until it is swept."""

    def __init__(self, search: Callable[[], object] = gc.collect) -> None:
        """Take what looks for cycles, and gives back what was freed."""
        self._search = search
        self._steps = 0

    def step_done(self) -> None:
        """Give back what was freed; now and then, look for cycles too."""
        self._steps += 1
        if self._steps % STEPS_BETWEEN_SEARCHES == 0:
            self._search()
        else:
            _give_back()


def _give_back() -> None:
    """Give back what was freed, which only a search does: one that finds nothing to look at takes no time."""
    gc.freeze()
    gc.collect()
    gc.unfreeze()
