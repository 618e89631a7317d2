"""A store that is away is reported in time, and one that came back in time is not."""

from __future__ import annotations

import threading

import pytest

from sgagent.sources.etcd.source import GRACE_SECONDS, OutageTimer
from sgagent.sources.verified_parse import Failure
from tests.waiting import wait_until

GRACE = 0.05
AWAY = Failure("etcd: away")


def test_it_is_reported_while_a_try_takes_its_time() -> None:
    """Nobody has to fail once more for that; what failed last is what is reported."""
    reported: list[Failure] = []
    absence = OutageTimer(GRACE, reported.append)
    newest = Failure("etcd: still away")
    assert not absence.go_on(AWAY)
    assert not absence.go_on(newest)
    wait_until(lambda: bool(reported), "a report")
    assert reported == [newest]
    assert absence.go_on(AWAY)
    assert reported == [newest]


def test_a_store_that_came_back_is_not_reported() -> None:
    """The next absence counts from its own beginning."""
    reported: list[Failure] = []
    absence = OutageTimer(GRACE, reported.append)
    absence.go_on(AWAY)
    absence.end()
    assert not absence.go_on(AWAY)
    absence.end()
    over = threading.Event()
    assert not over.wait(3 * GRACE)
    assert reported == []
    absence.go_on(AWAY)
    wait_until(lambda: bool(reported), "a report of the next one")


def test_a_timer_for_which_no_thread_starts_is_started_by_the_next_try() -> None:
    """Else nobody would hear of this outage."""
    reported: list[Failure] = []
    absence = OutageTimer(GRACE, reported.append)
    threading.stack_size(1 << 46)  # more than there is
    try:
        with pytest.raises(RuntimeError):
            absence.go_on(AWAY)
    finally:
        threading.stack_size(0)
    absence.go_on(AWAY)
    wait_until(lambda: bool(reported), "a report")


def test_the_time_leaves_room_for_a_step() -> None:
    """The documents say 10 seconds from the loss to the log."""
    assert GRACE_SECONDS <= 9.5
