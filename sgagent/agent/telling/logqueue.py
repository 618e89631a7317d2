"""Write standard error in a thread of its own: a reader that stalls blocks this thread and nothing else.

What waits for the reader is bounded. Lines that find no room are dropped and counted, and the reader gets
their number where they would have stood.
"""

from __future__ import annotations

import collections
import io
import os
import select
import threading
import time
from collections.abc import Callable
from typing import TextIO

MOST_WAITING_BYTES = 256 * 1024
"""About a thousand lines. Once they are full, nothing is taken until half of them are written."""

STALLED_SECONDS = 2.0
"""After which, at the end, a reader that takes nothing is given up."""

LONGEST_END_SECONDS = 10.0
"""The same for a reader that takes something, but not all."""


class LogQueue(io.TextIOBase):
    """A stream that never blocks who writes to it; may be written to from any thread."""

    def __init__(
        self,
        stream: TextIO,
        notice: Callable[[int], str],
        *,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        """Start the thread.

        Args:
            stream: where lines go. Only its descriptor is used, which stays open.
            notice: returns the line that says how many lines were dropped.
            most_waiting_bytes: that are kept for the reader.
            stalled_seconds: how long :meth:`close` waits for a reader that takes nothing.
        """
        self._stream = stream
        self._descriptor = os.dup(stream.fileno())
        self._notice = notice
        self._most_waiting_bytes = most_waiting_bytes
        self._stalled_seconds = stalled_seconds
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
        self._dropped_lines = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped_lines(self) -> int:
        """Return how many lines were never written, for want of a reader or of room where they go."""
        return self._dropped_lines

    @property
    def fault(self) -> str | None:
        """Return what is wrong with the log, as long as it is."""
        if not self._is_full and not self._unreported:
            return None
        return f"the log is not read or can't be written; {self._dropped_lines} lines were dropped so far"

    def isatty(self) -> bool:
        """Tell whether the lines go to a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Return that this can be written to."""
        return True

    def write(self, text: str, /) -> int:
        """Take a text; what ends with a line's end is passed on."""
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
            self._dropped_lines += dropped
            last = self._waiting.pop() if self._waiting else 0
            self._waiting.extend((last + dropped,) if isinstance(last, int) else (last, dropped))
        else:
            self._waiting.append(lines)
            self._waiting_bytes += len(lines)
        self._changed.notify()

    def _write_all(self) -> None:
        """Write what waits until the queue is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    os.close(self._descriptor)
                    return
                entry = self._waiting.popleft()
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
            self._dropped_lines += lost

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
