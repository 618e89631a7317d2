"""Many events are one step, and none is lost, whoever says so and whenever."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from sgagent.agent.inbox import Happened, Inbox

TraceFunction = Callable[[FrameType, str, object], "TraceFunction"]


@pytest.fixture
def inbox() -> Inbox:
    """Return an inbox in which nothing happened."""
    return Inbox()


def test_nothing_happens_by_itself(inbox: Inbox) -> None:
    """A wait that ends without an event brings none."""
    assert inbox.take(0.0) == Happened()


def test_events_are_taken_together_and_once(inbox: Inbox) -> None:
    """What happened between two looks is taken with the second, and is forgotten then."""
    inbox.source_changed()
    inbox.host_changed()
    inbox.source_changed()
    assert inbox.take(5.0) == Happened(source_changed=True, host_changed=True)
    assert inbox.take(0.0) == Happened()


def test_an_event_ends_a_wait(inbox: Inbox) -> None:
    """Whoever waits is woken from another thread."""
    thread = threading.Thread(target=inbox.stop)
    thread.start()
    assert inbox.take(20.0).stop
    thread.join()


def test_a_reader_ends_a_wait_and_is_told(inbox: Inbox) -> None:
    """A reading that is asked for is no event, but the loop looks at once."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(inbox.wait_for_reading(20.0)))
    thread.start()
    assert inbox.take(20.0) == Happened()
    assert inbox.has_readers
    for reader in inbox.take_readers():
        reader.set()
    thread.join()
    assert answers == [True]
    assert not inbox.has_readers


def test_a_signal_may_interrupt_anything(inbox: Inbox) -> None:
    """Handlers run in the very thread that takes, between any two steps, and neither waits for the other."""
    taken: list[Happened] = []

    def interrupt(_frame: FrameType, _event: str, _argument: object) -> TraceFunction:
        """Be a handler that runs at every line of whatever is executed."""
        sys.settrace(None)
        inbox.reload()
        sys.settrace(interrupt)
        return interrupt

    def take() -> None:
        inbox.host_changed()
        sys.settrace(interrupt)
        taken.append(inbox.take(0.0))
        taken.append(inbox.take(0.0))
        sys.settrace(None)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(20.0)
    assert taken[0] == Happened(host_changed=True, reload=True)
    assert taken[1].reload
