"""Wait for what other threads do, by looking again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.patience import PATIENCE

_DEADLINE_SECONDS = 20.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it never did.
    """
    deadline = time.monotonic() + _DEADLINE_SECONDS * PATIENCE
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        pause.wait(0.005)
