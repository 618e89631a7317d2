"""Polling of a server in a thread of its own, with jitter and exponential backoff.

No other thread waits for a slow or malicious server.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import structlog

from sgagent.core.endpoints import Endpoint
from sgagent.core.retry import RetryDelay
from sgagent.ports import Delivery, Wake
from sgagent.sources.servers import EndpointCache
from sgagent.sources.verified_parse import Failure

STOP_SECONDS = 2.0
"""How long the end of the last watch waits for a request that can't be cancelled: resolving a name."""


class Asked(NamedTuple):
    """The result of one request."""

    is_changed: bool
    wait_seconds: float
    """Until the next one."""

    has_looked: bool = True
    """Whether it is known now what the server has, or that it can't be reached; a refresh ends with that."""


@dataclass(slots=True)
class Poller:
    """Repeats a request while there is a watch, in one thread for all watches."""

    ask: Callable[[], Asked]
    """Sends one request, for a refresh if :meth:`take_refresh` says so; never raises."""

    break_off: Callable[[], None]
    """Cancels the request in progress, from another thread."""

    _lock: threading.Condition = field(default_factory=threading.Condition)
    """Notified when a refresh or the last watch has ended."""

    _watchers: list[Wake] = field(default_factory=list)
    _round: _Round | None = None
    _ordered: int = 0
    _taken: int = 0
    _done: int = 0
    """The numbers of the newest refresh that was ordered, that a request was sent for, and that has ended."""

    @contextlib.contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` after each answer with a change, until the context ends."""
        with self._lock:
            self._watchers.append(wake)
            if self._round is None:
                self._round = _Round(self._run)
                self._round.start()
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

    def order_refresh(self) -> int:
        """Have the thread look now, and return the number to wait for."""
        with self._lock:
            self._ordered += 1
            number = self._ordered
        self.hurry()
        return number

    def wait_for_refresh(self, number: int, seconds: float) -> bool:
        """Return whether a refresh has ended, after so many seconds; without a watch, each fetch is one."""
        with self._lock:
            return self._lock.wait_for(lambda: self._done >= number or self._round is None, seconds)

    def take_refresh(self) -> bool:
        """Return whether a refresh is ordered; the next request is for it."""
        self._taken = self._ordered
        return self._taken > self._done

    def wake_watchers(self) -> None:
        """Call every watch's ``wake`` for a change, also one that no request returned."""
        with self._lock:
            watchers = () if self._round is None else tuple(self._watchers)
        for wake in watchers:
            wake()

    def _end(self, wake: Wake) -> None:
        with self._lock:
            self._watchers.remove(wake)
            current = self._round
            if self._watchers or current is None:
                return
            self._round = None
            self._lock.notify_all()
        current.is_over = True
        current.bell.set()
        self.break_off()
        if current is not threading.current_thread():
            current.join(STOP_SECONDS)

    def _run(self, current: _Round) -> None:
        """Send requests until the last watch ends."""
        while not current.is_over:
            current.bell.clear()
            try:
                asked = self.ask()
            except Exception:  # noqa: BLE001 - the thread's outermost loop must survive any fault
                _LOG.exception("source_thread_failed")
                asked = Asked(is_changed=False, wait_seconds=_AFTER_FAULT_SECONDS, has_looked=False)
            current.has_asked.set()
            if asked.has_looked:
                with self._lock:
                    self._done = self._taken
                    self._lock.notify_all()
            if asked.is_changed and not current.is_over:
                self.wake_watchers()
            if not current.is_over:
                current.bell.wait(asked.wait_seconds)


class _Round(threading.Thread):
    """One run of the thread."""

    def __init__(self, run: Callable[[_Round], None]) -> None:
        super().__init__(target=run, args=(self,), name="definitions", daemon=True)
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


@dataclass(slots=True)
class PollInterval:
    """Polling interval with jitter, and exponential backoff after consecutive failures."""

    poll_seconds: float
    """The interval without failures."""

    random: Callable[[], float]
    """Returns numbers from 0 (inclusive) to 1 (exclusive)."""

    _backoff: RetryDelay = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the first wait."""
        self._backoff = RetryDelay(FIRST_RETRY_SECONDS, max(LONGEST_RETRY_SECONDS, self.poll_seconds))

    def after_answer(self) -> float:
        """Return how long to wait after an answer: the interval with 10 % jitter."""
        self._backoff.after_success()
        return self.poll_seconds * (0.9 + 0.2 * self.random())

    def after_long_poll(self, *, took: float, wait: float, is_changed: bool) -> float:
        """Return how long to wait after a long poll.

        Args:
            took: the seconds until the answer.
            wait: the seconds that the request allowed the server to wait.
            is_changed: whether the answer had a change.
        """
        if is_changed:
            self._backoff.after_success()
            return min(CHANGED_SECONDS, self.poll_seconds)
        if took >= wait / 2:
            self._backoff.after_success()
            return 0.0
        return self.after_answer()  # the server does not support long polls

    def after_failure(self, put_off: float = 0.0) -> float:
        """Return how long to wait after a failure.

        Args:
            put_off: the seconds that the server asked for.
        """
        wait = max(SHORTEST_SECONDS, self._backoff.after_failure() * self.random())
        return max(wait, min(put_off, LONGEST_PUT_OFF_SECONDS))


class Cancellable(Protocol):
    """Requests that another thread can cancel."""

    def break_off(self) -> None:
        """Cancel the request in progress, and later ones until :meth:`resume`."""

    def resume(self) -> None:
        """Allow requests again."""


class PolledSource(ABC):
    """The common part of all sources that poll a server; implements :class:`Source` by :meth:`_ask`.

    During a watch, only the watch's thread sends requests, and a fetch returns its newest result. Without a
    watch, a fetch sends the requests.
    """

    first_answer_seconds: ClassVar[float]
    """How long the first fetch waits for the watch's thread; later fetches do not wait."""

    def __init__(
        self,
        endpoint_cache: EndpointCache,
        requests: Cancellable,
        interval: PollInterval,
        unanswered: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the parameters without sending a request.

        Args:
            endpoint_cache: the cached addresses of the server.
            requests: the requests in progress.
            interval: the waits between them.
            unanswered: what a fetch says before the first answer.
            monotonic: the monotonic clock, in seconds.
        """
        self._endpoint_cache = endpoint_cache
        self._requests = requests
        self._interval = interval
        self._monotonic = monotonic
        self._poller = Poller(self._poll, requests.break_off)
        self._asking = threading.Lock()
        self._beginning = threading.Lock()
        """Held while a request decides whether it is a long poll, and while a refresh breaks one off."""

        self._is_long_poll = False
        self._outcome: Delivery | Failure = Failure(unanswered)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached endpoints of the server."""
        return self._endpoint_cache.endpoints()

    def fetch(self) -> Delivery:
        """Return the newest complete snapshot of the server.

        Raises:
            DocumentError: the documents have errors, no valid signature, or are too large.
            SourceUnavailableError: the server can't be reached, or did not send complete documents.
        """
        if self._poller.is_asking:
            self._poller.wait_for_first(self.first_answer_seconds)
        else:
            self._requests.resume()
            self._poll()
        if isinstance(self._outcome, Failure):
            raise self._outcome.exception()
        return self._outcome

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Send a request now, also during a long poll; return whether it was answered in time, or failed."""
        with self._beginning:
            number = self._poller.order_refresh()
            if self._is_long_poll:
                self._requests.break_off()
        return self._poller.wait_for_refresh(number, wait_seconds)

    def watch(self, wake: Wake) -> contextlib.AbstractContextManager[None]:
        """Call ``wake`` when the result of :meth:`fetch` changes, until the context ends."""
        self._requests.resume()
        return self._poller.watch(wake)

    def _long_poll_seconds(self) -> int:
        """Return how long the server may delay its next answer until there is a change; 0 for no delay."""
        return 0

    @abstractmethod
    def _ask(self, wait: int) -> tuple[Delivery | Failure, float | None]:
        """Ask the server; return the outcome, and None or after a failure how long it asks to wait."""

    def _poll(self) -> Asked:
        """Ask the server, and store the outcome unless a refresh has broken off a long poll."""
        with self._asking:
            before = (self._outcome, self.endpoints())
            with self._beginning:
                is_refresh = self._poller.take_refresh()
                wait = 0 if is_refresh else self._long_poll_seconds()
                self._is_long_poll = wait > 0
            began = self._monotonic()
            outcome, put_off = self._ask(wait)
            took = self._monotonic() - began
            with self._beginning:
                self._is_long_poll = False
                if wait and self._poller.take_refresh():
                    self._requests.resume()
                    return Asked(is_changed=False, wait_seconds=0.0, has_looked=False)
            self._outcome = outcome
            is_changed = before != (self._outcome, self.endpoints())
        if put_off is not None:
            return Asked(is_changed, self._interval.after_failure(put_off))
        if wait:
            pause = self._interval.after_long_poll(took=took, wait=wait, is_changed=is_changed)
            return Asked(is_changed, pause)
        pause = self._interval.after_answer()
        return Asked(is_changed, 0.0 if is_refresh and self._long_poll_seconds() else pause)
