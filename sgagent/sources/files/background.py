"""The source of files as the agent has it: another process reads, and no read has the loop wait for long."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.core.retry import RetryDelay
from sgagent.documents import Limits
from sgagent.ports import Delivery, Wake
from sgagent.sources.files.collector import CollectedDocuments, CollectorTask
from sgagent.sources.files.isolated_reader import (
    DocumentsChanged,
    LogLine,
    ReadAnswer,
    ReaderMessage,
    ReaderStarted,
    ReadRequest,
)
from sgagent.sources.files.reader_client import ReaderProcess
from sgagent.sources.files.source import FileSource, collector_task, parsed
from sgagent.sources.files.watcher import MOUNTINFO, SIGNAL, mount_point
from sgagent.sources.verified_parse import Failure, VerifiedParser


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a read may take, in seconds."""

    first: float = 5.0
    """That the first fetch waits, once the process runs."""

    asked: float = 2.0
    """That a fetch waits that somebody asked for."""

    reading: float = 5.0
    """Until the source counts as down."""

    process: float = 30.0
    """Until another process tries, doubled each time: the file system may be another one by then."""


_START_SECONDS = 60.0
"""For the process to start, which on a busy machine takes longer than any reading."""

MOST_LEFT = 4
"""Processes that hang and were left behind; while there are so many, nobody else tries."""

_LONGEST_PATIENCE = 600.0
_LOOK_SECONDS = 0.5
"""Between looks whether a process that was left behind has ended."""

_END_SECONDS = 2.0
"""That the end of a watch waits for its thread and process."""

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.5, 30.0
"""Until another process is started in the place of one that ended by itself."""


class BackgroundFileSource:
    """Reads documents from a path; implements :class:`Source`.

    Without a watch, as of a command, a fetch reads by itself and takes as long as that takes.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        parser: VerifiedParser | None = None,
        *,
        patience: Patience | None = None,
    ) -> None:
        """Store the parameters, as of :class:`FileSource`; ``patience`` is for tests."""
        self._parser = parser or VerifiedParser(limits)
        self._source = FileSource(path, limits, self._parser)
        self._task = collector_task(path.absolute(), limits, self._parser)
        self._patience = patience or Patience()
        self._readings: list[_Reading] = []
        """One for each watch; the newest one is asked."""

        self._is_asked = False

    def fetch(self) -> Delivery:
        """Return the newest snapshot of the documents.

        During a watch, it is what the other process read last. That reads again at each fetch that finds
        nothing newer, and wakes the watch if there is; only a fetch after :meth:`refresh` waits for it.

        Raises:
            DocumentError: the documents have errors, are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read in time, or they keep changing.
        """
        return parsed(self._parser, self.collect())

    def collect(self) -> CollectedDocuments:
        """Return the newest documents, neither verified nor parsed; raises as :meth:`fetch`."""
        is_asked, self._is_asked = self._is_asked, False
        if not self._readings:
            return self._source.collect()
        found = self._readings[-1].newest(is_asked=is_asked)
        if isinstance(found, Failure):
            raise found.exception()
        return found

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return no endpoints: the documents are on this host."""
        return ()

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Make the next fetch wait for a reading of all documents, including those open for writing."""
        self._is_asked = True
        return self._source.refresh(wait_seconds)

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when the documents or their signature have changed, until the context ends."""
        reading = _Reading(self._task, self._patience, wake)
        self._readings.append(reading)
        try:
            yield
        finally:
            self._readings.remove(reading)
            reading.end()


class _Reading:
    """Keep a process that reads, and its newest result."""

    def __init__(self, task: CollectorTask, patience: Patience, wake: Wake) -> None:
        self._task = task
        self._patience = patience
        self._wake = wake
        self._noted = threading.Condition()
        self._outcome: CollectedDocuments | Failure = Failure(f"{task.path}: not read yet")
        self._requested = self._answered = self._taken = 0
        """The numbers of the newest request and answer, and of the newest answer that was handed out."""

        self._requested_at: float | None = None
        """When the oldest request was sent that has no answer, by the monotonic clock."""

        self._is_for_all = False
        """Whether one of these was for all documents."""

        self._is_again = False
        """Whether something changed since such a request."""

        self._is_waited_for = False
        """Whether a fetch waits for the next answer."""

        self._is_started = False
        """Whether the process runs, and may be in a reading."""

        self._is_awaited = False
        """Whether a fetch did not wait for the next answer to the end."""

        self._is_hung = self._is_over = False
        self._has_mounted = False
        """Whether other file systems are on the way to the documents since the newest answer."""

        self._process: ReaderProcess | None = None
        self._left: list[ReaderProcess] = []
        """Killed, and not ended yet."""

        self._process_seconds = patience.process
        self._restart = RetryDelay(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="documents", daemon=True)
        self._thread.start()

    def newest(self, *, is_asked: bool) -> CollectedDocuments | Failure:
        """Return the newest result, and have it read again if it was handed out before.

        Args:
            is_asked: whether to wait for a reading that begins now.
        """
        with self._noted:
            is_first, number = self._answered == 0, 1
            if is_asked or (self._answered == self._taken and not is_first):
                number = self._order(is_for_all=is_asked)
            seconds = self._patience.first if is_first else self._patience.asked
            if is_asked or is_first:
                self._is_waited_for = True
                if is_first:
                    self._noted.wait_for(lambda: self._is_started or self._is_hung, _START_SECONDS)
                self._noted.wait_for(lambda: self._is_hung or self._answered >= number, seconds)
                self._is_waited_for = False
                self._is_awaited = self._answered < number
            if self._is_awaited and not self._is_hung:
                return self._too_slow(seconds)
            self._taken = self._answered
            return self._outcome

    def end(self) -> None:
        """End the watch, and leave a hanging process behind."""
        self._is_over = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(_END_SECONDS)

    def _order(self, *, is_for_all: bool) -> int:
        """Have the process read, unless it is at it; return the number of that reading.

        Called with the lock.
        """
        if self._requested_at is not None and (self._is_hung or not is_for_all):
            return self._requested
        if self._requested_at is None:
            self._requested_at = time.monotonic()
            os.eventfd_write(self._bell, 1)  # the thread has a deadline from now on
        self._requested += 1
        self._is_for_all |= is_for_all
        if self._process is not None:
            self._process.send(ReadRequest(self._requested, is_for_all))
        return self._requested

    def _too_slow(self, seconds: float) -> Failure:
        return Failure(
            f"{self._task.path}: reading takes longer than {seconds:g} seconds: does a file system hang?"
        )

    def _run(self) -> None:
        """Keep a process until the watch ends."""
        with MountChanges(self._task.path) as mounts:
            while not self._is_over:
                try:
                    process = ReaderProcess(self._task)
                except OSError as error:
                    self._fail(f"the process that reads documents can't be started: {error}")
                    self._pause()
                    continue
                self._begin(process)
                self._serve(process, mounts)
                with self._noted:
                    self._process = None
                process.kill()
                self._left.append(process)
        self._left[-1:] = [one for one in self._left[-1:] if not one.has_ended(_END_SECONDS / 2)]
        for one in self._left:
            one.leave()
        os.close(self._bell)

    def _begin(self, process: ReaderProcess) -> None:
        """Give a new process the request that has no answer; the first one comes without being asked for."""
        with self._noted:
            self._process, self._is_started = process, False
            self._requested += 1
            self._requested_at = time.monotonic()
            process.send(ReadRequest(self._requested, self._is_for_all))

    def _serve(self, process: ReaderProcess, mounts: MountChanges) -> None:
        """Receive a process's answers until it has to be replaced, or the watch ends."""
        poll = select.poll()
        for descriptor in (process.fileno(), self._bell):
            poll.register(descriptor, select.POLLIN)
        poll.register(mounts.fileno(), SIGNAL)
        while not self._is_over:
            ready = [descriptor for descriptor, _ in poll.poll(self._milliseconds())]
            if self._bell in ready:
                os.eventfd_read(self._bell)
            if process.fileno() in ready:
                try:
                    self._take(process.receive())
                except (EOFError, OSError):
                    self._lose()
                    return
            self._left = [one for one in self._left if not one.has_ended()]
            self._has_mounted |= mounts.fileno() in ready and mounts.have_changed()
            if self._is_overdue():
                return

    def _milliseconds(self) -> float | None:
        """Return until when nothing has to be looked at."""
        with self._noted:
            if self._is_hung or self._left:
                return _LOOK_SECONDS * 1000
            if self._requested_at is None:
                return None
            return max(0.0, self._requested_at + self._reading_seconds - time.monotonic()) * 1000 + 1

    @property
    def _reading_seconds(self) -> float:
        """Return how long a reading may take until it counts as hung."""
        return self._patience.reading if self._is_started else _START_SECONDS

    def _take(self, message: ReaderMessage) -> None:
        match message:
            case LogLine(event, values):
                _LOG.warning(event, **values)
            case ReaderStarted():
                with self._noted:
                    self._is_started, self._requested_at = True, time.monotonic()
                    self._noted.notify_all()
            case DocumentsChanged():
                with self._noted:
                    self._is_again = self._requested_at is not None
                    self._order(is_for_all=False)
            case ReadAnswer(number, CollectedDocuments() as found):
                self._note(number, found)
            case ReadAnswer(number, DocumentError() | SourceUnavailableError() as error):
                self._note(number, Failure.of(error))

    def _note(self, number: int, outcome: CollectedDocuments | Failure) -> None:
        with self._noted:
            is_handed_over = self._is_waited_for and number == self._requested
            is_news = self._is_hung or self._is_awaited or (outcome != self._outcome and not is_handed_over)
            self._is_awaited = False
            if outcome != self._outcome:
                self._outcome = outcome
            self._answered, self._is_hung, self._has_mounted = number, False, False
            self._process_seconds = self._patience.process
            self._restart.after_success()
            if number == self._requested:
                self._requested_at, self._is_for_all = None, False
                if self._is_again:
                    self._is_again = False
                    self._order(is_for_all=False)
            self._noted.notify_all()
        if is_news:
            self._wake()

    def _is_overdue(self) -> bool:
        """Note that a reading hangs, and return whether another process has to try."""
        with self._noted:
            if self._requested_at is None:
                return False
            seconds = time.monotonic() - self._requested_at
        if seconds < self._reading_seconds:
            return False
        if not self._is_hung:
            self._is_hung = True
            self._fail(self._too_slow(self._patience.reading).message)
        if len(self._left) >= MOST_LEFT or not (self._has_mounted or seconds >= self._process_seconds):
            return False
        self._has_mounted = False
        self._process_seconds = min(2 * self._process_seconds, _LONGEST_PATIENCE)
        return True

    def _lose(self) -> None:
        """Note that the process has ended by itself."""
        _LOG.warning("reader_ended", path=str(self._task.path))
        self._fail(f"{self._task.path}: the process that reads documents has ended")
        self._pause()

    def _fail(self, message: str) -> None:
        """Note that nothing can be read, and notify the watch."""
        with self._noted:
            self._outcome = Failure(message)
            self._noted.notify_all()
        self._wake()

    def _pause(self) -> None:
        """Wait before another process is started; the end of the watch ends it."""
        end = select.poll()
        end.register(self._bell, select.POLLIN)
        deadline = time.monotonic() + self._restart.after_failure()
        while not self._is_over and (left := deadline - time.monotonic()) > 0:
            if end.poll(left * 1000):
                os.eventfd_read(self._bell)


class MountChanges:
    """The mounts on the way to a path, to notice when there are others."""

    def __init__(self, path: Path) -> None:
        """Open the list, for documents at a path; without one, no change is noticed."""
        self._ways = frozenset((path, *path.parents))
        try:
            self._file = MOUNTINFO.open("rb", buffering=0)
        except OSError:
            self._file = Path(os.devnull).open("rb", buffering=0)  # noqa: SIM115 - closed below
        self._known = self._read()

    def __enter__(self) -> Self:
        """Return the changes from now on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the list."""
        self._file.close()

    def fileno(self) -> int:
        """Return the descriptor to poll for :data:`sgagent.sources.files.watcher.SIGNAL`."""
        return self._file.fileno()

    def have_changed(self) -> bool:
        """Return whether mounts have changed since the last call; this clears the signal."""
        self._file.seek(0)
        before, self._known = self._known, self._read()
        return self._known != before

    def _read(self) -> list[bytes]:
        return [line for line in self._file.readall().splitlines() if mount_point(line) in self._ways]


_LOG = structlog.get_logger(__name__)
