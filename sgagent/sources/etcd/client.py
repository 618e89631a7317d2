"""Client of an etcd cluster: connections to its endpoints with failover, requests, and watches."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources import servers
from sgagent.sources.etcd import grpc, messages
from sgagent.sources.etcd.http2 import Channel, WakeSignal
from sgagent.sources.etcd.messages import Header, KeyRange, KeyValue, Range, SizeBudget

Answer = TypeVar("Answer")
Decode = Callable[[bytes], Answer]
"""Decodes an answer."""

_PAGE = 1000
"""Keys of one page."""

_AT_ONCE = 32
"""Maximum number of pipelined range requests."""

_TIMEOUTS_AT_ONCE = 4
"""Timeout of all pipelined requests together."""

_PAUSE_SECONDS = 0.2
"""Between tries during a leader election."""

_LEAST_SECONDS = 1.0
"""Timeout of a request when the deadline of all is near, or over."""

_LONGEST_PASSWORD = 1024
_SERVICE = "/etcdserverpb."
_RENEWAL = "Lease/LeaseKeepAlive"
"""A stream: `etcd grpc-proxy` cancels a renewal once its request has ended, maybe before the answer."""

_WITH_LEADER = {"hasleader": "true"}
"""Makes a partitioned member end the watch, instead of keeping it silent forever."""


class Client:
    """Client with a connection to one endpoint of a cluster; for one thread, except :meth:`endpoints`."""

    def __init__(
        self,
        settings: EtcdSourceSettings,
        memory: Path | None = None,
        limits: Limits | None = None,
        *,
        deadline: float = math.inf,
    ) -> None:
        """Store the settings without connecting.

        The order of endpoints is random, so that the hosts of a fleet spread the load.

        Args:
            settings: the endpoints and connection parameters.
            memory: the directory with their cached addresses; None for no cache file.
            limits: the limits of documents, and so of keys; None for the defaults.
            deadline: when the last request is to end, by the monotonic clock; one near it has a second.
        """
        self.limits = limits or Limits()
        self._deadline = deadline
        self._settings = settings
        access = []
        for endpoint in settings.endpoints:
            host, port = endpoint.host, endpoint.port
            file = None if memory is None else servers.addresses_file(memory, host, port)
            cache = servers.EndpointCache(host, port, memory=file)
            largest = messages.largest_message(self.limits)
            access.append(EndpointAccess(endpoint, settings, cache, largest))
        self._all = tuple(access)
        self._access = deque(random.sample(access, len(access)))
        """The endpoint in use, and the order in which to try the others."""

        self._channel: Channel | None = None
        self._place = ""
        self._metadata: Mapping[str, str] = {}
        """The token of the configured user."""

        self._bytes_before = 0
        self._at_once = _AT_ONCE

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached addresses of the endpoints; safe in any thread."""
        return tuple(endpoint for access in self._all for endpoint in access.cache.endpoints())

    @property
    def bytes_received(self) -> int:
        """Return the number of received bytes, over all connections; safe in any thread."""
        channel = self._channel
        return self._bytes_before + (0 if channel is None else channel.bytes_received)

    @property
    def _timeout_seconds(self) -> float:
        remaining = self._deadline - time.monotonic()
        return min(self._settings.timeout_seconds, max(_LEAST_SECONDS, remaining))

    def persistently(self, ask: Callable[[], Answer], seconds: float) -> Answer:
        """Retry an idempotent request, also at other endpoints, until it succeeds or the timeout ends.

        Raises:
            EtcdError: that of the last try.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except grpc.EtcdError as error:
                self.close()
                if not error.is_passing or time.monotonic() >= deadline:
                    raise
            threading.Event().wait(_PAUSE_SECONDS)

    def read_page(self, asked: KeyRange, *, revision: int = 0) -> Range:
        """Return the first page of a range, reduced to fit the size limit.

        Raises:
            CompactedError: the revision is gone.
            EtcdError: there was no answer, or a refusal.
        """
        limit = _PAGE
        while True:
            try:
                request = messages.range_request(asked, revision=revision, limit=limit)
                return self._ask("KV/Range", request, partial(messages.read_range, limit=limit))
            except grpc.AnswerTooLargeError:
                if limit == 1:
                    raise
                limit //= 2

    def count(self, asked: KeyRange, *, revision: int = 0) -> int:
        """Return the number of keys in a range."""
        request = messages.range_request(asked, revision=revision, count_only=True)
        return self._ask("KV/Range", request, partial(messages.read_range, limit=0)).count

    def room(self) -> SizeBudget:
        """Return the size budget of one read of the store."""
        return SizeBudget(self.limits.all_bytes)

    def read(
        self, asked: KeyRange, *, revision: int = 0, room: SizeBudget | None = None
    ) -> tuple[Header, tuple[KeyValue, ...]]:
        """Return the store's header, and all keys of a range at one revision.

        Args:
            asked: the range.
            revision: the store's; 0 is now.
            room: of all that is read together; None where nothing else is.

        Raises:
            StoreTooLargeError: the keys exceed the budget.
            CompactedError: the revision is gone, maybe while pages were read.
            EtcdError: there was no answer, or a refusal.
        """
        page = self.read_page(asked, revision=revision)
        at = revision or page.header.revision
        return page.header, self._whole(asked, page, at, self.room() if room is None else room)

    def _whole(self, asked: KeyRange, page: Range, revision: int, room: SizeBudget) -> tuple[KeyValue, ...]:
        """Return the keys of a range's first page and of all later pages."""
        items: list[KeyValue] = []
        while True:
            with errors_at(self._place):
                if (page.has_more and not page.items) or any(item.key not in asked for item in page.items):
                    message = f"an answer that does not fit the question for keys from {asked.first!r} on"
                    raise grpc.ConnectionLostError(message)
                room.take(page.items)
            items.extend(page.items)
            if not page.has_more:
                return tuple(items)
            asked = KeyRange(f"{items[-1].key}\0", asked.end)
            page = self.read_page(asked, revision=revision)

    def read_each(
        self, asked: Sequence[KeyRange], *, revision: int, room: SizeBudget | None = None
    ) -> Generator[tuple[KeyRange, tuple[KeyValue, ...]], None, None]:
        """Yield ranges, each with all its keys at one revision.

        The client pipelines the requests, because a host may read thousands of ranges. After a timeout it
        halves the number of pipelined requests. Closing the generator cancels pending requests.

        Args:
            asked: the ranges.
            revision: the store's revision.
            room: the size budget of all keys read together; None for a budget of this call alone.

        Raises:
            StoreTooLargeError: the keys exceed the budget.
            CompactedError: the store has compacted the revision, maybe between two requests.
            EtcdError: no answer, or a refusal.
        """
        room = self.room() if room is None else room
        at_once = self._at_once
        for first in range(0, len(asked), at_once):
            some = asked[first : first + at_once]
            requests = [messages.range_request(one, revision=revision, limit=_PAGE) for one in some]
            left = deque(some)
            try:
                for page in self._ask_each("KV/Range", requests, partial(messages.read_range, limit=_PAGE)):
                    yield left[0], self._whole(left[0], page, revision, room)
                    left.popleft()
            except grpc.AnswerTooLargeError:  # alone, each can be read in smaller pages
                for one in left:
                    yield one, self.read(one, revision=revision, room=room)[1]
            except grpc.TooSlowError:
                self._at_once = max(1, len(some) // 2)
                raise
        if len(asked) > at_once:
            self._at_once = min(2 * at_once, _AT_ONCE)

    def commit(
        self, conditions: Iterable[messages.Unchanged], writes: Iterable[messages.Write]
    ) -> tuple[Header, bool]:
        """Commit writes in one transaction if the conditions hold; return the header and whether they held.

        Raises:
            EtcdError: whether they were carried out is not known, or they were refused.
        """
        request = messages.transaction_request(conditions, writes)
        return self._ask("KV/Txn", request, messages.read_transaction)

    def watch(self, followed: Sequence[tuple[KeyRange, int]]) -> Watch:
        """Open a watch on ranges, each from a revision on.

        Raises:
            EtcdError: it can't be begun.
        """
        channel = self._connected()
        first, *others = (
            messages.watch_request(one, revision, number) for number, (one, revision) in enumerate(followed)
        )
        metadata = {**self._metadata, **_WITH_LEADER}
        with errors_at(self._place):
            call = channel.open(f"{_SERVICE}Watch/Watch", first, metadata=metadata, is_last=False)
            for request in others:
                channel.send(call, request)
        return Watch(channel, call, [one for one, _ in followed], self._place, self.limits.all_bytes)

    def grant_lease(self, seconds: int) -> messages.Lease:
        """Return a new lease."""
        request = messages.lease_grant_request(seconds)
        return self._ask("Lease/LeaseGrant", request, messages.read_lease)

    def renew_lease(self, lease: int) -> messages.Lease:
        """Renew a lease and return it; an expired lease has no seconds left."""
        request = messages.lease_keep_alive_request(lease)
        return self._ask(_RENEWAL, request, messages.read_lease)

    def close(self) -> None:
        """Close the connection; the next request connects to the next endpoint."""
        if self._channel is not None:
            self._bytes_before += self._channel.bytes_received
            self._channel.close()
            self._channel = None
            self._access.rotate(-1)

    def _ask(self, method: str, request: bytes, read: Decode[Answer]) -> Answer:
        (answer,) = self._ask_each(method, [request], read)
        return answer

    def _ask_each(self, method: str, requests: Sequence[bytes], read: Decode[Answer]) -> Iterator[Answer]:
        """Pipeline requests, and yield the answers; closing the iterator cancels pending requests.

        An expired token is renewed once.
        """
        channel, answered, is_token_fresh = self._connected(), 0, self._settings.user is None
        while True:
            try:
                for answer in self._call(channel, method, requests[answered:], read):
                    answered += 1
                    yield answer
            except grpc.CallRefusedError as error:
                is_about_token = error.code == grpc.GrpcStatus.UNAUTHENTICATED or "auth store" in str(error)
                if is_token_fresh or not is_about_token:
                    raise grpc.as_compacted(error) from error
            else:
                return
            with errors_at(self._place):
                self._metadata, is_token_fresh = self._authenticated(channel), True

    def _call(
        self, channel: Channel, method: str, requests: Sequence[bytes], read: Decode[Answer]
    ) -> Iterator[Answer]:
        """Yield the answers to pipelined requests, within the server's limit of concurrent calls."""
        path, metadata, calls = f"{_SERVICE}{method}", self._metadata, deque[grpc.GrpcMessages]()
        seconds = self._timeout_seconds
        allowance = grpc.AnswerDeadline(seconds, _TIMEOUTS_AT_ONCE * seconds)
        try:
            with errors_at(self._place):
                for request in requests:
                    while calls and not channel.has_room:
                        yield read(channel.finish(calls[0], allowance))
                        calls.popleft()
                    calls.append(channel.open(path, request, metadata=metadata, is_last=method != _RENEWAL))
                while calls:
                    yield read(channel.finish(calls[0], allowance))
                    calls.popleft()
        finally:
            channel.cancel(*calls)

    def _connected(self) -> Channel:
        """Return the channel; if there is none, connect to the first reachable endpoint.

        Raises:
            ConnectionLostError: no endpoint can be reached; the message has the reason for each.
        """
        if self._channel is not None:
            return self._channel
        reasons = []
        for access in tuple(self._access):
            try:
                self._channel = self._entered(access)
            except grpc.EtcdError as error:
                reasons.append(f"{access.endpoint}: {error}")
                self._access.rotate(-1)
            else:
                self._place = str(access.endpoint)
                return self._channel
        raise grpc.ConnectionLostError("; ".join(sorted(reasons)))

    def _entered(self, access: EndpointAccess) -> Channel:
        """Connect to an endpoint, and authenticate the configured user."""
        channel = access.connect(self._timeout_seconds)
        if self._settings.user is not None:
            try:
                self._metadata = self._authenticated(channel)
            except grpc.EtcdError:
                channel.close()
                raise
        return channel

    def _authenticated(self, channel: Channel) -> Mapping[str, str]:
        """Return metadata with a token for the configured user.

        Raises:
            EtcdError: no answer, or a refusal.
        """
        password = read_password(self._settings)
        request = messages.authenticate_request(self._settings.user or "", password)
        seconds = self._timeout_seconds
        answer = channel.call(f"{_SERVICE}Auth/Authenticate", request, metadata={}, seconds=seconds)
        return {"token": messages.read_token(answer)}


@dataclass(frozen=True, slots=True)
class EndpointAccess:
    """How to connect to one endpoint."""

    endpoint: ServerUrl
    settings: EtcdSourceSettings
    cache: servers.EndpointCache
    """The cached addresses of the endpoint."""

    largest_message: int
    """Size limit of a received message, in bytes."""

    def connect(self, seconds: float) -> Channel:
        """Return a channel to the endpoint, connected within so many seconds.

        Raises:
            ConnectionLostError: the endpoint can't be reached, is not trusted, or does not speak HTTP/2.
        """
        try:
            deadline = servers.ConnectionDeadline(seconds)
            plain = servers.connect_to_first(self.cache.find(), self.endpoint.port, deadline)
        except OSError as error:
            raise grpc.ConnectionLostError(_reason(error)) from error
        connected = plain
        try:
            if self.endpoint.is_encrypted:
                connected = self._encrypted(plain)
            return Channel(connected, self.endpoint.authority, self.largest_message)
        except (OSError, ValueError, SourceUnavailableError, grpc.ConnectionLostError) as error:
            connected.close()
            raise grpc.ConnectionLostError(_reason(error)) from error

    def _encrypted(self, plain: socket.socket) -> ssl.SSLSocket:
        context = servers.make_context(self.settings, "h2")
        encrypted = context.wrap_socket(plain, server_hostname=self.endpoint.host)
        if encrypted.selected_alpn_protocol() != "h2":
            encrypted.close()
            raise grpc.ConnectionLostError("the server speaks no HTTP/2, so is no end point of etcd")
        return encrypted


def read_password(settings: EtcdSourceSettings) -> str:
    """Return the password of the configured user, without surrounding white space.

    Raises:
        ConnectionLostError: everybody can read the file, or it can't be read. The message never includes the
            content.
    """
    if settings.password_file is None:
        return ""
    try:
        return servers.read_secret(settings.password_file, _LONGEST_PASSWORD).strip()
    except SourceUnavailableError as error:
        raise grpc.ConnectionLostError(str(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return servers.tls_reason(error)
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


@contextlib.contextmanager
def errors_at(place: object) -> Iterator[None]:
    """Prefix the messages of connection and size errors with the endpoint."""
    try:
        yield
    except (grpc.ConnectionLostError, grpc.StoreTooLargeError) as error:
        raise type(error)(f"{place}: {error}") from error


@dataclass(frozen=True, slots=True)
class Watch:
    """An open watch on several ranges."""

    channel: Channel
    call: grpc.GrpcMessages
    followed: list[KeyRange]
    """The ranges, by watch id."""

    place: str
    """The endpoint, for messages."""

    most_bytes: int
    """Size limit of one answer."""

    def add(self, followed: KeyRange, revision: int) -> None:
        """Watch another range from a revision on.

        Raises:
            ConnectionLostError: the connection broke.
        """
        with errors_at(self.place):
            self.channel.send(self.call, messages.watch_request(followed, revision, len(self.followed)))
        self.followed.append(followed)

    def receive(self, seconds: float, interrupt: WakeSignal | None = None) -> messages.WatchAnswer | None:
        """Return the next answer; None after the timeout or an interrupt.

        Raises:
            CompactedError: the store has compacted the first revision of the watch.
            StoreTooLargeError: the answer exceeds the size limit.
            EtcdError: the watch has ended.
        """
        room = SizeBudget(self.most_bytes)
        try:
            with errors_at(self.place):
                message = self.channel.receive(self.call, seconds, interrupt)
                answer = (
                    None if message is None else messages.read_watch(message, lambda item: room.take((item,)))
                )
        except grpc.CallRefusedError as error:
            raise grpc.as_compacted(error) from error
        if answer is not None and answer.is_canceled:
            if answer.compact_revision:
                raise grpc.CompactedError(f"before revision {answer.compact_revision}")
            raise grpc.CallRefusedError(grpc.GrpcStatus.CANCELLED, answer.reason or "the watch was canceled")
        return answer

    def end(self) -> None:
        """Cancel the watch and keep the connection."""
        self.channel.cancel(self.call)
