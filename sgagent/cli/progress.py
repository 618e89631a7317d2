"""Say on a terminal how far long work has come; nothing elsewhere, and nothing of what is soon done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

PATIENCE_SECONDS = 0.5
"""What takes less is not spoken of."""

_INTERVAL_SECONDS = 0.1
_BACK, _END_OF_LINE = "\r", "\x1b[K"


class Progress:
    """One line on standard error that counts, and is gone when the work is done."""

    def __init__(
        self,
        doing: str,
        total: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin the work.

        Args:
            doing: what is done, like ``judging packets``.
            total: how many steps it has.
            stream: where to tell; standard error if not given.
            clock: in seconds.
        """
        self._doing = doing
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._done = 0
        self._first = self._next = clock() + PATIENCE_SECONDS

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away, also where it was written by another process that has done the work."""
        if self._clock() >= self._first and self._stream.isatty():
            self._write(_BACK + _END_OF_LINE)

    def advance(self) -> None:
        """Count a step, and tell if it is time to."""
        self._done += 1
        now = self._clock()
        if now >= self._next and self._stream.isatty():
            self._next = now + _INTERVAL_SECONDS
            self._write(f"{_BACK}{self._doing}: {self._done} of {self._total}{_END_OF_LINE}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
