"""Collect what happens around the daemon until its loop looks: many events, one step."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from sgagent.agent.step import Step

_Result = TypeVar("_Result")
Job: TypeAlias = Callable[[Callable[[], Step]], _Result]
"""What the loop is to do; it is given what does a step."""


class NotBegunError(Exception):
    """The loop did not come to a job in time; nothing was done, and nothing will be."""


class NotDoneError(Exception):
    """The loop is still at a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What happened since the loop looked last."""

    source_changed: bool = False
    host_changed: bool = False
    reload: bool = False
    stop: bool = False
    applier_lost: bool = False
    table_changed: bool = False


class Inbox:
    """Take events from any thread and from signal handlers; one loop takes them out."""

    def __init__(self) -> None:
        """Start with nothing happened."""
        # A signal handler may interrupt the very thread that takes, anywhere: both have to be re-entrant.
        self._lock = threading.RLock()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._happened = Happened()
        self._readers: list[threading.Event] = []
        self._jobs: list[tuple[Job[Any], Future[Any]]] = []

    def source_changed(self) -> None:
        """Say that a fetch may deliver something else."""
        self._note(source_changed=True)

    def host_changed(self) -> None:
        """Say that links or addresses changed."""
        self._note(host_changed=True)

    def reload(self) -> None:
        """Say that a reload was asked for."""
        self._note(reload=True)

    def stop(self) -> None:
        """Say that the daemon is to end."""
        self._note(stop=True)

    def applier_lost(self) -> None:
        """Say that the process that holds the privilege has ended."""
        self._note(applier_lost=True)

    def table_changed(self) -> None:
        """Say that somebody else may have changed our table."""
        self._note(table_changed=True)

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
        self._bell.put(None)
        return done.wait(timeout)

    def have_done(self, job: Job[_Result], timeout: float) -> _Result:
        """Have the loop do something, and wait until it has.

        A caller that goes away while the loop is at it takes nothing back.

        Args:
            job: what to do; may raise.
            timeout: in seconds.

        Raises:
            NotBegunError: the loop has not come to it in time, and never will.
            NotDoneError: it has begun, and will go on.
            BaseException: whatever the job raises.
        """
        future: Future[_Result] = Future()
        with self._lock:
            self._jobs.append((job, future))
        self._bell.put(None)
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            if future.cancel():
                raise NotBegunError from None
            raise NotDoneError from None

    def do_jobs(self, step: Callable[[], Step]) -> bool:
        """Do what others want done; only the loop calls this.

        Args:
            step: does a step.

        Returns:
            Whether there was anything.
        """
        with self._lock:
            jobs, self._jobs = self._jobs, []
        for job, future in jobs:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job(step))
            except Exception as error:  # noqa: BLE001 - whoever waits gets it, and the loop goes on
                future.set_exception(error)
        return bool(jobs)

    def take(self, timeout: float) -> Happened:
        """Wait until something happens, and return and forget it.

        Args:
            timeout: in seconds; after them, nothing happened.
        """
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=timeout)
            for _ in range(self._bell.qsize()):  # one turn answers all that rang so far
                self._bell.get_nowait()
        with self._lock:
            happened, self._happened = self._happened, Happened()
        return happened

    @property
    def has_readers(self) -> bool:
        """Tell whether somebody waits for a reading."""
        with self._lock:
            return bool(self._readers)

    def take_readers(self) -> list[threading.Event]:
        """Return and forget who waits for a reading that has yet to begin."""
        with self._lock:
            readers, self._readers = self._readers, []
        return readers

    def _note(
        self,
        *,
        source_changed: bool = False,
        host_changed: bool = False,
        reload: bool = False,
        stop: bool = False,
        applier_lost: bool = False,
        table_changed: bool = False,
    ) -> None:
        with self._lock:
            before = self._happened
            self._happened = Happened(
                source_changed=before.source_changed or source_changed,
                host_changed=before.host_changed or host_changed,
                reload=before.reload or reload,
                stop=before.stop or stop,
                applier_lost=before.applier_lost or applier_lost,
                table_changed=before.table_changed or table_changed,
            )
        self._bell.put(None)
