"""Reading of files in the background: another process reads, and no read has the loop wait for long."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import structlog

import sgagent
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.core.retry import RetryDelay
from sgagent.ports import Wake
from sgagent.sources.files.collector import CollectedDocuments, CollectorTask
from sgagent.sources.files.isolated_reader import (
    DocumentsChanged,
    LogLine,
    ReadAnswer,
    ReaderMessage,
    ReaderStarted,
    ReadRequest,
)
from sgagent.sources.files.watcher import SIGNAL, Mounts
from sgagent.sources.own_program import start_program
from sgagent.sources.verified_parse import Failure


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


class BackgroundReading:
    """Keep a process that reads, and its newest result."""

    def __init__(self, task: CollectorTask, wake: Wake, patience: Patience | None = None) -> None:
        """Start the thread that keeps the process.

        Args:
            task: of the process; its path is absolute.
            wake: called when there may be another result, from that thread.
            patience: how long a reading may take; None is the usual one.
        """
        self._task = task
        self._patience = patience or Patience()
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

        self._process_seconds = self._patience.process
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

    def close(self) -> None:
        """End the process, and leave a hanging process behind."""
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
        ways = frozenset((self._task.path, *self._task.path.parents))
        with contextlib.closing(Mounts(ways.__contains__)) as mounts:
            mounts.have_changed()  # from those of now on
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

    def _serve(self, process: ReaderProcess, mounts: Mounts) -> None:
        """Receive a process's answers until it has to be replaced, or the watch ends."""
        poll = select.poll()
        for descriptor in (process.fileno(), self._bell):
            poll.register(descriptor, select.POLLIN)
        poll.register(mounts, SIGNAL)
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
            if mounts.fileno() in ready:
                mounts.signalled()
            self._has_mounted |= mounts.have_changed()
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


_PROGRAM = (
    "import sys; sys.path.append({folder!r});"
    " from sgagent.sources.files.isolated_reader import main; main(int(sys.argv[1]))"
)
"""Needs nothing but the standard library and this package, so that ``-S`` saves what a site adds."""


class ReaderProcess:
    """The process as the agent sees it. It ends with the agent, or as soon as its pending read returns."""

    def __init__(self, task: CollectorTask) -> None:
        """Start the process; it watches from then on.

        Raises:
            OSError: it can't be started.
        """
        folder = str(Path(sgagent.__file__).parent.parent)
        channel, self._process = start_program(_PROGRAM.format(folder=folder), "-S")
        self._connection = Connection(channel.detach())
        self._sent: dict[str, bytes] = {}
        with contextlib.suppress(OSError):  # a process that has ended is noticed at the next message
            self._connection.send(task)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a message."""
        return self._connection.fileno()

    def send(self, request: ReadRequest) -> None:
        """Have the process read; may be called from any thread, if one at a time."""
        with contextlib.suppress(OSError):  # as above
            self._connection.send(request)

    def receive(self) -> ReaderMessage:
        """Return the next message.

        Raises:
            EOFError, OSError: the process has ended.
        """
        message: ReaderMessage = self._connection.recv()
        if isinstance(message, ReadAnswer) and isinstance(message.outcome, CollectedDocuments):
            return replace(message, outcome=self._whole(message.outcome, message.names))
        return message

    def _whole(self, found: CollectedDocuments, names: tuple[str, ...]) -> CollectedDocuments:
        """Return all documents; the content of an unchanged one is the same object as before."""
        known = {**self._sent, **found.documents}
        self._sent = {name: known[name] for name in names}
        return replace(found, documents=self._sent)

    def kill(self) -> None:
        """End the process; one that hangs ends when its file system answers."""
        self._process.kill()
        self._connection.close()

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Wait for the end of a killed process; return whether it came."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def leave(self) -> None:
        """Wait no more for a killed process; the kernel ends it in its time."""
        if self._process.returncode is None:
            self._process.returncode = -signal.SIGKILL


_LOG = structlog.get_logger(__name__)
