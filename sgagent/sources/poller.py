"""Polling of a server in a thread of its own, with jitter and exponential backoff.

No other thread waits for a slow or malicious server.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import structlog

from sgagent.ports import Wake

STOP_SECONDS = 2.0
"""How long the end of the last watch waits for a request that can't be cancelled: resolving a name."""


class Poller:
    """Repeats a request while there is a watch, in one thread for all watches."""

    def __init__(self, ask: Callable[[], tuple[bool, float]], break_off: Callable[[], None]) -> None:
        """Store the callbacks; the first watch starts the thread.

        Args:
            ask: sends one request; returns whether anything changed and the seconds to wait; never raises.
            break_off: cancels the request in progress, from another thread.
        """
        self._ask = ask
        self._break_off = break_off
        self._lock = threading.Lock()
        self._watchers: list[Wake] = []
        self._round: _Round | None = None

    @contextlib.contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` after each answer with a change, until the context ends."""
        self._begin(wake)
        try:
            yield
        finally:
            self._end(wake)

    @property
    def is_asking(self) -> bool:
        """Return whether the thread runs, so that a fetch need not send a request."""
        return self._round is not None

    def wait_for_first(self, seconds: float) -> None:
        """Wait for the thread's first answer; after a timeout, later calls do not wait."""
        current = self._round
        if current is not None:
            current.has_asked.wait(seconds)
            current.has_asked.set()

    def hurry(self) -> None:
        """End the thread's wait between requests."""
        current = self._round
        if current is not None:
            current.bell.set()

    def wake_watchers(self) -> None:
        """Call every watch's ``wake`` for a change that no request returned."""
        current = self._round
        if current is not None:
            self._wake(current)

    def _begin(self, wake: Wake) -> None:
        with self._lock:
            self._watchers.append(wake)
            if self._round is None:
                self._round = _Round()
                thread = threading.Thread(
                    target=self._run, args=(self._round,), name="definitions", daemon=True
                )
                self._round.thread = thread
                thread.start()

    def _end(self, wake: Wake) -> None:
        with self._lock:
            self._watchers.remove(wake)
            current = self._round
            if self._watchers or current is None:
                return
            self._round = None
        current.is_over = True
        current.bell.set()
        self._break_off()
        if current.thread is not None and current.thread is not threading.current_thread():
            current.thread.join(STOP_SECONDS)

    def _run(self, current: _Round) -> None:
        """Send requests until the last watch ends."""
        while not current.is_over:
            current.bell.clear()
            try:
                is_changed, wait = self._ask()
            except Exception:  # noqa: BLE001 - the thread's outermost loop must survive any fault
                _LOG.exception("source_thread_failed")
                is_changed, wait = False, _AFTER_FAULT_SECONDS
            current.has_asked.set()
            if is_changed:
                self._wake(current)
            if not current.is_over:
                current.bell.wait(wait)

    def _wake(self, current: _Round) -> None:
        with self._lock:
            watchers = () if current.is_over else tuple(self._watchers)
        for wake in watchers:
            wake()


class _Round:
    """The state of one run of the thread."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.bell = threading.Event()
        """Ends a wait between requests."""

        self.has_asked = threading.Event()
        self.is_over = False


_AFTER_FAULT_SECONDS = 30.0
_LOG = structlog.get_logger(__name__)


FIRST_RETRY_SECONDS = 1.0
"""Initial backoff, doubled with each failure. The wait is a random part of it (full jitter), so that the
hosts of a fleet do not all return at once after an outage."""

LONGEST_RETRY_SECONDS = 60.0
"""Maximum backoff; the polling interval, if that is longer."""

SHORTEST_SECONDS = 0.1
"""Minimum wait after a failure."""

LONGEST_PUT_OFF_SECONDS = 600.0
"""The longest ``Retry-After`` that the poller obeys."""

CHANGED_SECONDS = 1.0
"""Wait between two long polls after one that returned a change."""


class PollInterval:
    """Polling interval with jitter, and exponential backoff after consecutive failures."""

    def __init__(self, poll_seconds: float, random: Callable[[], float]) -> None:
        """Start without a failure.

        Args:
            poll_seconds: the interval without failures.
            random: returns numbers from 0 (inclusive) to 1 (exclusive).
        """
        self._poll_seconds = poll_seconds
        self._random = random
        self._failures = 0

    def after_answer(self) -> float:
        """Return how long to wait after an answer: the interval with 10 % jitter."""
        self._failures = 0
        return self._poll_seconds * (0.9 + 0.2 * self._random())

    def after_long_poll(self, *, took: float, wait: float, is_changed: bool) -> float:
        """Return how long to wait after a long poll.

        Args:
            took: the seconds until the answer.
            wait: the seconds that the request allowed the server to wait.
            is_changed: whether the answer had a change.
        """
        if is_changed:
            self._failures = 0
            return min(CHANGED_SECONDS, self._poll_seconds)
        if took >= wait / 2:
            self._failures = 0
            return 0.0
        return self.after_answer()  # the server does not support long polls

    def after_failure(self, put_off: float = 0.0) -> float:
        """Return how long to wait after a failure.

        Args:
            put_off: the seconds that the server asked for.
        """
        longest = max(LONGEST_RETRY_SECONDS, self._poll_seconds)
        limit = min(longest, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 32))
        self._failures += 1
        wait = max(SHORTEST_SECONDS, limit * self._random())
        return max(wait, min(put_off, LONGEST_PUT_OFF_SECONDS))
