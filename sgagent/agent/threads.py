"""Threads that work beside the agent's loop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def running_thread(name: str, work: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Work in a thread until the context is left.

    Args:
        name: of the thread.
        work: called in it.
        end: called when the context is left; makes ``work`` return.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()
