"""The agent's log: readable lines on a terminal, one JSON object a line anywhere else.

An event is a static name in the past tense with variable values as keys; ``docs/logging.md`` lists them.
Values may come from documents, so the log escapes them before they reach a terminal.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import io
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from sgagent.core.errors import printable

MOST_WAITING_BYTES = 256 * 1024
"""About a thousand lines. Once they are full, nothing is taken until half of them are written."""

STALLED_SECONDS = 2.0
"""After which, at the end, a reader that takes nothing is given up."""

RETRY_SECONDS = 30.0
"""After which a disk that was full may have room again."""

LONGEST_END_SECONDS = 10.0
"""The same for a reader that takes something, but not all."""


class LogQueue(io.TextIOBase):
    """A stream that never blocks who writes to it; may be written to from any thread."""

    dropped_lines = 0
    """How many lines were never written, for want of a reader or of room where they go."""

    def __init__(
        self,
        stream: TextIO,
        notice: Callable[[int], str],
        *,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
        stalled_seconds: float = STALLED_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Start the thread.

        Args:
            stream: where lines go. Only its descriptor is used, which stays open.
            notice: returns the line that says how many lines were dropped.
            most_waiting_bytes: that are kept for the reader.
            stalled_seconds: how long :meth:`close` waits for a reader that takes nothing.
            retry_seconds: after which the notice of dropped lines is tried again, if no line comes before.
        """
        self._stream = stream
        self._descriptor = os.dup(stream.fileno())
        self._notice = notice
        self._most_waiting_bytes = most_waiting_bytes
        self._stalled_seconds = stalled_seconds
        self._retry_seconds = retry_seconds
        # Reentrant: an exception in a finalizer is printed by whichever thread happens to run it.
        self._changed = threading.Condition(threading.RLock())
        self._begun = ""
        self._waiting: collections.deque[bytes | int] = collections.deque()
        """Whole lines; a number stands for so many that were dropped there."""

        self._waiting_bytes = 0
        self._is_full = False
        self._is_closed = False
        self._unreported = 0
        """Lines that could not be written, or were dropped, and of which the reader does not know yet."""

        self._written_bytes = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str | None:
        """Return the log's fault, as long as it lasts."""
        if not self._is_full and not self._unreported:
            return None
        return f"the log is not read or can't be written; lines dropped so far: {self.dropped_lines}"

    def isatty(self) -> bool:
        """Return whether the lines go to a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Return that this can be written to."""
        return True

    def write(self, text: str, /) -> int:
        """Take a text; its whole lines are passed on."""
        with self._changed:
            whole, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._take((whole + end).encode("utf-8", "backslashreplace"))
        return len(text)

    def close(self) -> None:
        """Wait until all is written, unless the reader takes nothing or too long, and take nothing more."""
        with self._changed:
            if self._is_closed:
                return  # the interpreter closes every stream once more
            if self._begun:
                self.write("\n")
            self._is_closed = True
            self._changed.notify()
        until, written = time.monotonic() + LONGEST_END_SECONDS, -1
        while self._thread.is_alive() and written != self._written_bytes and time.monotonic() < until:
            written = self._written_bytes
            self._thread.join(self._stalled_seconds)

    def _take(self, lines: bytes) -> None:
        """Keep lines for the reader, or count them."""
        if self._is_closed:
            return
        if self._is_full or self._waiting_bytes + len(lines) > self._most_waiting_bytes:
            self._is_full = True
            dropped = lines.count(b"\n")
            self.dropped_lines += dropped
            last = self._waiting.pop() if self._waiting else 0
            self._waiting.extend((last + dropped,) if isinstance(last, int) else (last, dropped))
        else:
            self._waiting.append(lines)
            self._waiting_bytes += len(lines)
        self._changed.notify()

    def _write_all(self) -> None:
        """Write the waiting lines until the queue is closed and empty."""
        while True:
            with self._changed:
                seconds = self._retry_seconds if self._unreported else None
                self._changed.wait_for(lambda: self._waiting or self._is_closed, seconds)
                if self._is_closed and not self._waiting:
                    os.close(self._descriptor)
                    return
                entry = self._waiting.popleft() if self._waiting else 0
            self._write_entry(entry)
            with self._changed:
                self._waiting_bytes -= 0 if isinstance(entry, int) else len(entry)
                self._is_full = self._is_full and 2 * self._waiting_bytes > self._most_waiting_bytes

    def _write_entry(self, entry: bytes | int) -> None:
        """Write lines, after the number of those that were dropped before them.

        A disk may be full and have room later; a reader that has gone does not come back.
        """
        if isinstance(entry, int):
            self._unreported += entry
        try:
            if self._unreported:
                self._write_whole(self._notice(self._unreported).encode("utf-8", "backslashreplace"))
                self._unreported = 0
            if isinstance(entry, bytes):
                self._write_whole(entry)
        except OSError:
            lost = entry.count(b"\n") if isinstance(entry, bytes) else 0
            self._unreported += lost
            self.dropped_lines += lost

    def _write_whole(self, text: bytes) -> None:
        while text:
            try:
                written = os.write(self._descriptor, text)
            except BlockingIOError:  # another process has made the file that it shares with us non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
                continue
            text = text[written:]
            self._written_bytes += written


def configure_log(stream: TextIO | None = None, *, environment: Mapping[str, str] | None = None) -> None:
    """Send the log of this process to a stream.

    Args:
        stream: standard error by default.
        environment: the process's own by default; ``NO_COLOR`` with any value switches colours off.
    """
    target = sys.stderr if stream is None else stream
    structlog.configure(
        processors=_processors(target, os.environ if environment is None else environment),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _LineLogger(target),
        cache_logger_on_first_use=False,
    )


def log_in_background() -> LogQueue:
    """Send all that this process writes to standard error through a queue, its log and traces alike.

    For a process that enforces: nothing it does waits for who reads its log. What still waits when the
    process ends is written then, if there is a reader.
    """
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=_processors(sys.stderr, os.environ),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    queue = LogQueue(sys.stderr, lambda lines: f"{log.warning('log_lines_dropped', lines=lines)}\n")
    sys.stderr = cast("TextIO", queue)
    configure_log()
    atexit.register(queue.close)
    return queue


def _processors(target: TextIO, environment: Mapping[str, str]) -> list[Processor]:
    """Return the processors that turn an event into a line, in turn."""
    processors = structlog.processors
    before: list[Processor] = [structlog.contextvars.merge_contextvars, processors.add_log_level]
    if not target.isatty():  # JSON escapes all that is not plain ASCII
        iso, json = processors.TimeStamper(fmt="iso", utc=True), processors.JSONRenderer(default=str)
        return [*before, iso, processors.format_exc_info, json]
    renderer = structlog.dev.ConsoleRenderer(
        colors=not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        exception_formatter=structlog.dev.plain_traceback,  # others show the values of local variables
    )
    return [*before, processors.TimeStamper(fmt="%H:%M:%S", utc=False), _escaped, renderer]


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in all values."""
    return {key: _printable(value) for key, value in event.items()}


def _printable(value: object) -> object:
    """Return the value if it is harmless by its type, else as text without control characters."""
    if value is None or isinstance(value, bool | int | float | BaseException):
        return value
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], BaseException):
        return value  # what sys.exc_info() returns; the renderer needs it whole
    return printable(value if isinstance(value, str) else repr(value))


class _LineLogger(structlog.WriteLogger):
    """Write lines to a stream, each whole; a log that can't be written is no reason to stop enforcing."""

    def msg(self, message: str) -> None:
        """Write a line, whichever thread says it."""
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg
