"""etcd source: reads a publication, and watches for the next."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sgagent.core.binding import HandBinding
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError
from sgagent.core.memo import Memo
from sgagent.core.retry import RetryDelay
from sgagent.documents import Limits
from sgagent.ports import Delivery, Host, Wake
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.documents import Everything, HostInterest, Interest
from sgagent.sources.etcd.grpc import EtcdError
from sgagent.sources.etcd.http2 import WakeSignal
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.publication import SignedInterest, signature_place, verify_content
from sgagent.sources.etcd.replica import NothingPublishedError, Replica
from sgagent.sources.etcd.watcher import StoreWatcher
from sgagent.sources.factory import SourceContext
from sgagent.sources.poller import Asked, Poller
from sgagent.sources.verified_parse import Failure, SignaturePolicy, VerifiedParser


@dataclass(slots=True)
class OutageTimer:
    """Timer of an outage; it reports the outage in time, even during a slow connection attempt."""

    grace_seconds: float
    """The length of an outage that is not reported."""

    report: Callable[[Failure], None]
    """Called with the newest failure, once in each outage and from another thread; not after :meth:`end`."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _timer: threading.Timer | None = None
    _newest: Failure | None = None
    _has_lasted: bool = False

    def go_on(self, failure: Failure) -> bool:
        """Record a failed attempt; return whether the outage has exceeded the grace period."""
        with self._lock:
            self._newest = failure
            if self._timer is None:
                timer = threading.Timer(self.grace_seconds, self._last)
                timer.daemon = True
                timer.start()
                self._timer = timer
            return self._has_lasted

    def end(self) -> None:
        """Record that the store is reachable."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._newest, self._has_lasted = None, None, False

    def _last(self) -> None:
        with self._lock:
            if self._newest is None or threading.current_thread() is not self._timer:
                return
            self._has_lasted = True
            self.report(self._newest)


GRACE_SECONDS = 9.0
"""Unreported length of an outage; the report comes within 10 seconds. A leader election takes one or two."""

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 8.0
"""Initial and maximum wait of the exponential backoff between connection attempts, with jitter."""

UNPUBLISHED_AGAIN_SECONDS = 1.0
"""Wait before the next read of a store without a publication."""

REFUSED_AGAIN_SECONDS = 5.0
"""Wait before the next read of a store that was restored to an older state or has lost keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPublication:
    """The publication that a host has fetched."""

    serial: int
    revision: int
    """The store's revision at which it was complete, as ``sgagent publish`` prints it."""

    version: str
    """Of this host's part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The state of the store that other threads may read; the watch's thread replaces it as a whole."""

    delivery: Delivery | None = None
    """The newest one that was not refused."""

    publication: FetchedPublication | None = None
    """The publication of that delivery."""

    failure: Failure | None = None
    """Why :meth:`EtcdSource.fetch` raises; None where it returns the delivery."""


def make_source(settings: EtcdSourceSettings, context: SourceContext) -> EtcdSource:
    """Return the source of a configuration."""
    return EtcdSource(
        settings,
        context.settings.limits,
        by_hand=context.settings.interfaces,
        host=context.host,
        signature_policy=context.signature_policy,
        memory=context.settings.state.directory,
        parsed=context.memo,
    )


class EtcdSource:
    """Read definitions from an etcd cluster; implements :class:`Source`."""

    def __init__(
        self,
        settings: EtcdSourceSettings,
        limits: Limits,
        *,
        by_hand: tuple[HandBinding, ...] = (),
        host: Host | None = None,
        signature_policy: SignaturePolicy | None = None,
        memory: Path | None = None,
        parsed: Memo | None = None,
    ) -> None:
        """Store the settings without connecting.

        Args:
            settings: the cluster and the prefix of keys.
            limits: the largest accepted documents.
            by_hand: configured bindings, which name groups and interfaces of this host.
            host: the links, which identify the host's interfaces; None reads everything.
            signature_policy: the signature policy; None requires no signature.
            memory: the directory with the cached addresses of the endpoints; None for no cache file.
            parsed: the documents parsed before; None for a memo that only this source uses.
        """
        self._settings = settings
        self._limits = limits
        self._by_hand = by_hand
        self._host = host
        self._signature_policy = signature_policy or SignaturePolicy()
        self._layout = KeyLayout(settings.prefix)
        self._client = Client(settings, memory, limits)
        self._wake_signal = WakeSignal()
        self._watcher = StoreWatcher(self._client, self._layout, self._interest(), self._wake_signal)
        self._poller = Poller(self._ask, self._wake_signal.wake)
        self._is_connected = False
        self._has_host_changed = False
        self._backoff = RetryDelay(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        self._outage = OutageTimer(GRACE_SECONDS, self._report_absence)
        self._parser = VerifiedParser(limits, memo=parsed or Memo())
        self._outcome = _Outcome()

    def fetch(self) -> Delivery:
        """Return this host's part of the newest publication.

        During a watch, this waits only for the first answer, with a timeout.

        Raises:
            DocumentError: the publication has errors or no valid signature, or the store was restored to an
                older state or has lost keys.
            SourceUnavailableError: the grace period of an outage is over, or nothing was published.
        """
        if self._poller.is_asking:
            self._poller.wait_for_first(self._settings.timeout_seconds + 1.0)
        else:
            self._ask_once()
        outcome = self._outcome
        if outcome.failure is not None or outcome.delivery is None:
            raise (outcome.failure or Failure("etcd: no answer yet")).exception()
        if outcome.delivery.signed is not None:  # it may have expired since
            self._signature_policy.check_age(outcome.delivery.signed, signature_place(self._layout))
        return outcome.delivery

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached addresses of the cluster's members."""
        return self._client.endpoints()

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Check now, not at the next heartbeat, whether the watch is up to date; return whether it is.

        An outage ends the wait when it is reported.
        """
        number = self._poller.order_refresh()
        self._wake_signal.wake()
        return self._poller.wait_for_refresh(number, wait_seconds)

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when the result of :meth:`fetch` changes, until the context ends."""
        with ExitStack() as stack:
            if self._host is not None:
                stack.enter_context(self._host.watch(self._host_changed))
                self._has_host_changed = True  # maybe, since the links were listed for the first time
            stack.callback(self._leave)
            stack.enter_context(self._poller.watch(wake))
            yield

    def _leave(self) -> None:
        """Close the connection after the last watch."""
        if not self._poller.is_asking:
            self._outage.end()
            self._lose_connection()

    @property
    def publication(self) -> FetchedPublication | None:
        """Return the newest complete publication on this host; None before the first."""
        return self._outcome.publication

    @property
    def bytes_received(self) -> int:
        """Return the number of bytes received from the network."""
        return self._client.bytes_received

    def _interest(self) -> Interest:
        interest: Interest = Everything(self._layout)
        if self._host is not None:
            interest = HostInterest(self._layout, self._host.facts(), self._by_hand, self._limits)
        return SignedInterest(interest, self._layout) if self._signature_policy.wants_signature else interest

    def _host_changed(self) -> None:
        self._has_host_changed = True
        self._wake_signal.wake()
        self._poller.hurry()

    def _ask_once(self) -> None:
        """Resync over a temporary connection."""
        self._watcher.forget()
        self._watcher.interest = self._interest()
        seconds = float(self._settings.timeout_seconds)
        try:
            self._deliver(self._client.persistently(self._watcher.connect, seconds))
        except (DocumentError, EtcdError) as error:
            self._fail_with(_failure(error))
        finally:
            self._client.close()

    def _ask(self) -> Asked:
        """Connect, or wait for changes."""
        before, endpoints, has_looked = self._outcome, self.endpoints(), True
        try:
            replica = self._next()
        except DocumentError as error:
            self._outage.end()
            self._lose_connection()
            self._watcher.forget()
            self._fail_with(_failure(error))
            wait = REFUSED_AGAIN_SECONDS
        except NothingPublishedError as error:
            self._outage.end()
            self._fail_with(_failure(error))
            wait = UNPUBLISHED_AGAIN_SECONDS
        except EtcdError as error:
            self._lose_connection()
            wait = self._fail(error)
            has_looked = self._outcome.failure is not None
        else:
            self._outage.end()
            self._backoff.after_success()
            wait = 0.0
            has_looked = self._watcher.is_current
            if replica is not None:
                self._deliver(replica)
        outcome = self._outcome
        is_same = outcome.delivery is before.delivery and outcome.failure == before.failure
        return Asked(not is_same or self.endpoints() != endpoints, wait, has_looked)

    def _next(self) -> Replica | None:
        """Return the replica after a change; None without one.

        Raises:
            DocumentError: the store was restored to an older state or has lost keys.
            EtcdError: the connection is lost, or can't be made.
        """
        self._wake_signal.clear()
        if self._has_host_changed:
            self._has_host_changed = False
            try:
                self._watcher.interest = self._interest()
            except BaseException:
                self._has_host_changed = True
                raise
            if self._is_connected:
                return self._watcher.read_added()
        if self._poller.take_refresh():
            self._watcher.check_soon()
        replica = self._watcher.wait() if self._is_connected else self._watcher.connect()
        self._is_connected = True
        return replica

    def _deliver(self, replica: Replica) -> None:
        """Verify and parse the replica, and store the result for :meth:`fetch`."""
        try:
            verified = verify_content(replica.values, replica.covers, self._layout, self._signature_policy)
            if verified.signed is not None:
                self._signature_policy.check_age(verified.signed, signature_place(self._layout))
            composed, place = self._watcher.interest.documents(verified.values), self._settings.place
            warnings, signed = (*verified.problems, *composed.problems), verified.signed
            delivery = self._parser.take(composed.documents, None, place, warnings=warnings, signed=signed)
        except DocumentError as error:
            self._fail_with(_failure(error))
            return
        serial, revision, version = replica.marker.serial, replica.marker_revision, delivery.snapshot.version
        publication = FetchedPublication(serial=serial, revision=revision, version=version)
        self._outcome = _Outcome(delivery=delivery, publication=publication)

    def _fail_with(self, failure: Failure) -> None:
        """Make :meth:`fetch` raise; the last publication stays known."""
        self._outcome = replace(self._outcome, failure=failure)

    def _lose_connection(self) -> None:
        self._is_connected = False
        self._client.close()

    def _fail(self, error: EtcdError) -> float:
        """Record a failed attempt and return the backoff; expose the error after the grace period."""
        failure = _failure(error)
        if self._outage.go_on(failure) or self._outcome.delivery is None:
            self._fail_with(failure)
        return self._backoff.after_failure() * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, and guards no secret

    def _report_absence(self, failure: Failure) -> None:
        """Expose an outage, possibly during a connection attempt."""
        self._fail_with(failure)
        self._poller.wake_watchers()


def _failure(error: DocumentError | EtcdError) -> Failure:
    return Failure.of(error) if isinstance(error, DocumentError) else Failure(f"etcd: {error}")
