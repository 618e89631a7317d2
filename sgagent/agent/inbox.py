"""The inbox of the daemon's loop: it merges many events into one step."""

from __future__ import annotations

import contextlib
import enum
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from sgagent.agent.step import Step

_Result = TypeVar("_Result")


class Stepping(Protocol):
    """Does a step of the loop."""

    def __call__(self, *, fetch: bool = False) -> Step:
        """Do one.

        Args:
            fetch: whether to ask the source, whatever it said a moment ago.
        """


Job: TypeAlias = Callable[[Stepping], _Result]
"""A task for the loop; it takes the function that does a step."""


Wanted: TypeAlias = Callable[[], bool]
"""Returns whether somebody still waits for what was asked for; may be called from any thread."""


def always() -> bool:
    """Want it, even if the client has gone."""
    return True


class NotBegunError(Exception):
    """The loop did not come to a job in time, or nobody wanted it; nothing was done, and nothing will be."""


class NotDoneError(Exception):
    """The loop is still at a job."""


class LoopEvent(enum.Flag):
    """The events since the loop last ran."""

    NOTHING = 0
    SOURCE_CHANGED = enum.auto()
    """A fetch may deliver something else."""

    HOST_CHANGED = enum.auto()
    """Links or addresses changed."""

    TABLE_CHANGED = enum.auto()
    """Another process may have changed our table."""

    RELOAD = enum.auto()
    """A reload was asked for."""

    STOP = enum.auto()
    """The daemon is to end."""

    APPLIER_LOST = enum.auto()
    """The process that holds the privilege has ended."""


class Inbox:
    """Take events from any thread and from signal handlers; one loop takes them out."""

    def __init__(self) -> None:
        """Start with nothing happened."""
        # A signal handler may interrupt the very thread that takes, anywhere. So what happened is only put
        # into a queue, which is re-entrant: something that is read and written back could lose it meanwhile.
        self._bell: queue.SimpleQueue[LoopEvent] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._readers: list[threading.Event] = []
        self._jobs: list[tuple[Job[Any], Wanted, Future[Any]]] = []

    def put(self, event: LoopEvent) -> None:
        """Say that something happened."""
        self._bell.put(event)

    def wait_for_reading(self, timeout: float) -> bool:
        """Ask the loop to read the counters, and wait until it has.

        Args:
            timeout: in seconds.

        Returns:
            Whether it has in time.
        """
        done = threading.Event()
        with self._lock:
            self._readers.append(done)
        self._bell.put(LoopEvent.NOTHING)
        return done.wait(timeout)

    def have_done(self, job: Job[_Result], timeout: float, is_wanted: Wanted = always) -> _Result:
        """Have the loop do something, and wait until it has.

        A caller that goes away while the loop is at it takes nothing back.

        Args:
            job: what to do; may raise.
            timeout: in seconds.
            is_wanted: asked by the loop before it begins.

        Raises:
            NotBegunError: the loop has not come to it in time, or nobody wants it any more; it never will.
            NotDoneError: it has begun, and will go on.
            BaseException: whatever the job raises.
        """
        future: Future[_Result] = Future()
        with self._lock:
            self._jobs.append((job, is_wanted, future))
        self._bell.put(LoopEvent.NOTHING)
        try:
            return future.result(timeout)
        except CancelledError:
            raise NotBegunError from None
        except FutureTimeoutError:
            if future.cancel():
                raise NotBegunError from None
            raise NotDoneError from None

    def do_jobs(self, step: Stepping) -> bool:
        """Do the jobs of other threads; only the loop calls this.

        Args:
            step: does a step.

        Returns:
            Whether there was anything.
        """
        with self._lock:
            jobs, self._jobs = self._jobs, []
        for job, is_wanted, future in jobs:
            if not is_wanted():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job(step))
            except Exception as error:  # noqa: BLE001 - the waiting thread gets it, and the loop goes on
                future.set_exception(error)
        return bool(jobs)

    def take(self, timeout: float) -> LoopEvent:
        """Wait until something happens, and return and forget it.

        Args:
            timeout: in seconds; after them, nothing happened.
        """
        happened = LoopEvent.NOTHING
        with contextlib.suppress(queue.Empty):
            happened = self._bell.get(timeout=timeout)
            for _ in range(self._bell.qsize()):  # one turn answers all that rang so far
                happened |= self._bell.get_nowait()
        return happened

    @property
    def has_readers(self) -> bool:
        """Return whether a thread waits for a reading."""
        with self._lock:
            return bool(self._readers)

    def take_readers(self) -> list[threading.Event]:
        """Return and forget who waits for a reading that has yet to begin."""
        with self._lock:
            readers, self._readers = self._readers, []
        return readers


class StoppedError(BaseException):
    """End a wait of the main thread at a signal; no fault that a source could handle."""


@dataclass(slots=True)
class StopRequest:
    """Whether a signal asked to stop; its handler runs in the main thread, between any two instructions."""

    _is_made: bool = False
    _is_in_wait: bool = False

    def make(self) -> None:
        """Ask to stop, and end the wait in which the main thread is, if it is in one.

        Raises:
            StoppedError: it is.
        """
        is_in_wait, self._is_made, self._is_in_wait = self._is_in_wait, True, False
        if is_in_wait:
            raise StoppedError

    @contextlib.contextmanager
    def ends_wait(self) -> Iterator[None]:
        """Have the request, also an earlier one, end the context by a :class:`StoppedError`."""
        self._is_in_wait = True
        try:
            if self._is_made:
                raise StoppedError
            yield
        finally:
            self._is_in_wait = False
