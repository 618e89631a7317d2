"""Show something again and again, until somebody has seen enough."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

Interrupted = Callable[[], bool]


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupted]:
    """Leave the context without a word at Ctrl-C, and hand in what tells whether it was pressed.

    It is noted beside being raised: raised in a destructor alone, it would be lost.
    """
    interruptions = list[int]()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        interruptions.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: bool(interruptions)
    except KeyboardInterrupt:
        pass  # the way in which this is meant to end
    finally:
        signal.signal(signal.SIGINT, before)
