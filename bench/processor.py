"""Have one processor for measuring, and see to it that the kernel lost nothing on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class LostPacketsError(Exception):
    """Say that packets were dropped before any ruleset saw them, so that the measurement is void."""


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread, and with it the receiving side, on one processor, before all that is not real-time.

    Others would otherwise run there in between, and leave the processor's caches full of what is theirs.

    Raises:
        LostPacketsError: on leaving.
    """
    allowed, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    parameters = os.sched_getparam(0)
    os.sched_setaffinity(0, {max(allowed)})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with losing_nothing():
        try:
            yield
        finally:
            os.sched_setscheduler(0, policy, parameters)
            os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def losing_nothing() -> Iterator[None]:
    """See to it that the kernel dropped no packet from a full queue meanwhile.

    Raises:
        LostPacketsError: on leaving.
    """
    before = _lost()
    yield
    if lost := _lost() - before:
        raise LostPacketsError(f"the kernel dropped {lost} packets from a full queue")


def _lost() -> int:
    """Return how many packets all processors have dropped before looking at them."""
    lines = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1], base=16) for line in lines)
