"""Garbage collection after steps.

The interpreter keeps some thousands of freed tuples for reuse. ``sgagent.cli.main`` makes it search for
cycles rarely. Neither is a leak, but over a few thousand steps memory grows by some MiB.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

STEPS_BETWEEN_SEARCHES = 2_000
"""Steps between full collections; each collection takes as long as a large step."""


class Leftovers:
    """Collect the garbage that steps leave."""

    def __init__(self, search: Callable[[], object] = gc.collect) -> None:
        """Take the function that collects cycles and frees memory."""
        self._search = search
        self._steps = 0

    def step_done(self) -> None:
        """Free cached memory; every :data:`STEPS_BETWEEN_SEARCHES` steps, collect cycles too."""
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
