"""Many events are one step, and none is lost, whoever says so and whenever."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from sgagent.agent.inbox import Inbox, LoopEvent, NotBegunError, NotDoneError
from sgagent.agent.step import Step, StepEnd

TraceFunction = Callable[[FrameType, str, object], "TraceFunction"]


@pytest.fixture
def inbox() -> Inbox:
    """Return an inbox in which nothing happened."""
    return Inbox()


def test_nothing_happens_by_itself(inbox: Inbox) -> None:
    """A wait that ends without an event brings none."""
    assert inbox.take(0.0) == LoopEvent.NOTHING


def test_events_are_taken_together_and_once(inbox: Inbox) -> None:
    """What happened between two looks is taken with the second, and is forgotten then."""
    inbox.put(LoopEvent.SOURCE_CHANGED)
    inbox.put(LoopEvent.HOST_CHANGED)
    inbox.put(LoopEvent.SOURCE_CHANGED)
    assert inbox.take(5.0) == LoopEvent.SOURCE_CHANGED | LoopEvent.HOST_CHANGED
    assert inbox.take(0.0) == LoopEvent.NOTHING


def test_an_event_ends_a_wait(inbox: Inbox) -> None:
    """Whoever waits is woken from another thread."""
    thread = threading.Thread(target=inbox.put, args=[LoopEvent.STOP])
    thread.start()
    assert inbox.take(20.0) is LoopEvent.STOP
    thread.join()


def test_a_reader_ends_a_wait_and_is_told(inbox: Inbox) -> None:
    """A reading that is asked for is no event, but the loop looks at once."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(inbox.wait_for_reading(20.0)))
    thread.start()
    assert inbox.take(20.0) == LoopEvent.NOTHING
    assert inbox.has_readers
    for reader in inbox.take_readers():
        reader.set()
    thread.join()
    assert answers == [True]
    assert not inbox.has_readers


def test_a_signal_may_interrupt_anything(inbox: Inbox) -> None:
    """Handlers run in the very thread that takes, between any two steps, and neither waits for the other."""
    taken: list[LoopEvent] = []

    def interrupt(_frame: FrameType, _event: str, _argument: object) -> TraceFunction:
        """Be a handler that runs at every line of whatever is executed."""
        sys.settrace(None)
        inbox.put(LoopEvent.RELOAD)
        sys.settrace(interrupt)
        return interrupt

    def take() -> None:
        inbox.put(LoopEvent.HOST_CHANGED)
        sys.settrace(interrupt)
        taken.append(inbox.take(0.0))
        taken.append(inbox.take(0.0))
        sys.settrace(None)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(120.0)
    assert taken[0] == LoopEvent.HOST_CHANGED | LoopEvent.RELOAD
    assert taken[1] is LoopEvent.RELOAD


def test_no_signal_is_lost_wherever_it_interrupts() -> None:
    """Not even between two instructions of a line: what a handler says is taken, be it with the next look."""
    places: list[bool] = []

    def look_everywhere() -> None:
        while not places or places[-1]:
            places.append(interrupted_at(len(places)))

    thread = threading.Thread(target=look_everywhere, daemon=True)
    thread.start()
    thread.join(20.0)
    assert len(places) > 20
    assert not places[-1]


def interrupted_at(place: int) -> bool:
    """Have a handler run before one instruction of a look; return whether there are so many instructions."""
    inbox, instructions = Inbox(), 0
    inbox.put(LoopEvent.HOST_CHANGED)

    def interrupt(frame: FrameType, event: str, _argument: object) -> TraceFunction:
        nonlocal instructions
        frame.f_trace_opcodes = True
        if event == "opcode":
            if instructions == place:
                sys.settrace(None)
                inbox.put(LoopEvent.RELOAD)
            instructions += 1
        return interrupt

    sys.settrace(interrupt)
    first = inbox.take(0.0)
    sys.settrace(None)
    second = inbox.take(0.0)
    was_interrupted = instructions > place
    assert LoopEvent.HOST_CHANGED in first
    assert (LoopEvent.RELOAD in first | second) == was_interrupted
    return was_interrupted


def waiting(*, fetch: bool = False) -> Step:
    """Do a step that finds nothing to do."""
    del fetch
    return Step(outcome=StepEnd.WAITING)


def test_a_job_is_done_by_the_loop_and_its_result_goes_back(inbox: Inbox) -> None:
    """It is given what does a step, and what it raises is raised where it is waited for."""

    def fail(_step: Callable[[], Step]) -> None:
        raise LookupError("lost")

    results: list[object] = []

    def ask() -> None:
        results.append(inbox.have_done(lambda step: step().outcome, 5.0))
        with pytest.raises(LookupError, match="lost"):
            inbox.have_done(fail, 5.0)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(2):
        while not inbox.do_jobs(waiting):
            inbox.take(5.0)
    thread.join()
    assert results == [StepEnd.WAITING]
    assert not inbox.do_jobs(waiting)


def test_a_job_that_the_loop_does_not_come_to_is_never_done(inbox: Inbox) -> None:
    """Whoever gave up may rely on that."""
    done: list[object] = []
    with pytest.raises(NotBegunError):
        inbox.have_done(lambda step: done.append(step()), 0.0)
    assert inbox.do_jobs(waiting)
    assert done == []


def test_a_job_that_lasts_is_done_all_the_same(inbox: Inbox) -> None:
    """Whoever waits for it is told that it is not done yet."""
    gave_up, done = threading.Event(), list[object]()

    def last(step: Callable[[], Step]) -> None:
        gave_up.wait(20.0)
        done.append(step())

    loop = threading.Thread(target=lambda: [inbox.take(5.0), inbox.do_jobs(waiting)])
    loop.start()
    with pytest.raises(NotDoneError):
        inbox.have_done(last, 1.0)
    gave_up.set()
    loop.join()
    assert len(done) == 1


def test_a_job_that_nobody_wants_any_more_is_never_done(inbox: Inbox) -> None:
    """The loop asks before it begins, and not after."""
    done, wanted = list[object](), iter((False, True))
    for expected in (0, 1):
        results: list[object] = []

        def ask(results: list[object] = results) -> None:
            try:
                results.append(inbox.have_done(lambda step: done.append(step()), 5.0, lambda: next(wanted)))
            except NotBegunError as error:
                results.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not inbox.do_jobs(waiting):
            inbox.take(5.0)
        thread.join()
        assert len(done) == expected
        assert isinstance(results[0], NotBegunError) is not bool(expected)
