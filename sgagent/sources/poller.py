"""Ask a slow or lying server in a thread of its own, so that nobody else ever waits for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import structlog

from sgagent.ports import Wake

STOP_SECONDS = 2.0
"""How long the end of the last watch waits for a question that can't be broken off: the look-up of a name."""


class Poller:
    """Repeat a question while anybody watches; one thread for all who do."""

    def __init__(self, ask: Callable[[], tuple[bool, float]], break_off: Callable[[], None]) -> None:
        """Take what to do; nothing is asked before somebody watches.

        Args:
            ask: asks once, and returns whether anything changed and how many seconds to wait; never raises.
            break_off: ends a question that is being asked, from another thread.
        """
        self._ask = ask
        self._break_off = break_off
        self._lock = threading.Lock()
        self._watchers: list[Wake] = []
        self._round: _Round | None = None

    @contextlib.contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when an answer differs from the one before, until the context is left."""
        self._begin(wake)
        try:
            yield
        finally:
            self._end(wake)

    @property
    def is_asking(self) -> bool:
        """Return whether the thread runs, so that others need not ask."""
        return self._round is not None

    def wait_for_first(self, seconds: float) -> None:
        """Wait until the thread has asked once, but not for longer; and not again if that was too long."""
        current = self._round
        if current is not None:
            current.has_asked.wait(seconds)
            current.has_asked.set()

    def hurry(self) -> None:
        """Have the thread ask again now, if it is not asking."""
        current = self._round
        if current is not None:
            current.bell.set()

    def wake_watchers(self) -> None:
        """Wake all who watch, as an answer differs for another reason than that somebody asked."""
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
        """Ask again and again."""
        while not current.is_over:
            current.bell.clear()
            try:
                is_changed, wait = self._ask()
            except Exception:  # noqa: BLE001 - this thread's outermost loop, which must go on whatever is wrong
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
    """The life of one thread."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.bell = threading.Event()
        """Ends a wait between questions."""

        self.has_asked = threading.Event()
        self.is_over = False


_AFTER_FAULT_SECONDS = 30.0
_LOG = structlog.get_logger(__name__)


FIRST_RETRY_SECONDS = 1.0
"""Doubled with each failure. What is waited is a random part of it, so that a fleet that lost its server does
not come back as one."""

LONGEST_RETRY_SECONDS = 60.0
"""Or the usual interval, if that is longer."""

SHORTEST_SECONDS = 0.1
"""Between questions that failed, whatever chance says."""

LONGEST_PUT_OFF_SECONDS = 600.0
"""For which a server can send us away."""

CHANGED_SECONDS = 1.0
"""Between two questions of a long poll when the first brought something new."""


class Pace:
    """Count failures in a row, and say how long to wait."""

    def __init__(self, poll_seconds: float, random: Callable[[], float]) -> None:
        """Start without a failure.

        Args:
            poll_seconds: between questions when all is well.
            random: returns numbers from 0, included, to 1.
        """
        self._poll_seconds = poll_seconds
        self._random = random
        self._failures = 0

    def after_answer(self) -> float:
        """Return how long to wait after an answer: the interval, a tenth more or less."""
        self._failures = 0
        return self._poll_seconds * (0.9 + 0.2 * self._random())

    def after_long_poll(self, *, took: float, wait: float, is_changed: bool) -> float:
        """Return how long to wait after a question that the server was asked to think over.

        Args:
            took: how long the server did.
            wait: how long it was asked to.
            is_changed: whether its answer was new.
        """
        if is_changed:
            self._failures = 0
            return min(CHANGED_SECONDS, self._poll_seconds)
        if took >= wait / 2:
            self._failures = 0
            return 0.0
        return self.after_answer()  # it does not wait for changes, so it is asked as any other

    def after_failure(self, put_off: float = 0.0) -> float:
        """Return how long to wait after a failure.

        Args:
            put_off: what the server asked for.
        """
        longest = max(LONGEST_RETRY_SECONDS, self._poll_seconds)
        limit = min(longest, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 32))
        self._failures += 1
        wait = max(SHORTEST_SECONDS, limit * self._random())
        return max(wait, min(put_off, LONGEST_PUT_OFF_SECONDS))
