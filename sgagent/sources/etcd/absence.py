"""Report that a store is away once that has lasted, also while somebody still waits for an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sgagent.core.errors import SourceUnavailableError


class Absence:
    """Keep since when a store is away; its report comes in time, however long a try to reach it takes."""

    def __init__(self, grace_seconds: float, report: Callable[[SourceUnavailableError], None]) -> None:
        """Start with a store that is there.

        Args:
            grace_seconds: for which it may be away without a report.
            report: is given the newest error, once in each absence and from another thread. It is not called
                after :meth:`end` has returned.
        """
        self._grace_seconds = grace_seconds
        self._report = report
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._error: SourceUnavailableError | None = None
        self._has_lasted = False

    def go_on(self, error: SourceUnavailableError) -> bool:
        """Take in that a try to reach the store failed; tell whether it has been away for long enough."""
        with self._lock:
            self._error = error
            if self._timer is None:
                self._timer = threading.Timer(self._grace_seconds, self._last)
                self._timer.daemon = True
                self._timer.start()
            return self._has_lasted

    def end(self) -> None:
        """Take in that the store is there."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._error, self._has_lasted = None, None, False

    def _last(self) -> None:
        with self._lock:
            if self._error is None or threading.current_thread() is not self._timer:
                return
            self._has_lasted = True
            self._report(self._error)
