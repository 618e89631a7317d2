"""Ask an etcd cluster, whichever of its end points answers."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from sgagent.core.policy import Endpoint
from sgagent.documents import Limits
from sgagent.settings import EtcdSourceSettings
from sgagent.sources.endpoint_cache import addresses_file
from sgagent.sources.etcd.connection import EndpointAccess, read_password
from sgagent.sources.etcd.deadline import AnswerDeadline
from sgagent.sources.etcd.grpc import (
    AnswerTooLargeError,
    CallRefusedError,
    ConnectionLostError,
    EtcdError,
    GrpcMessages,
    GrpcStatus,
    MalformedMessageError,
    StoreTooLargeError,
    TooSlowError,
    as_compacted,
)
from sgagent.sources.etcd.http2 import Channel
from sgagent.sources.etcd.messages import (
    Header,
    KeyRange,
    KeyValue,
    Lease,
    Range,
    Unchanged,
    Write,
    authenticate_request,
    lease_grant_request,
    lease_request,
    range_request,
    read_lease,
    read_range,
    read_token,
    read_transaction,
    transaction_request,
    watch_request,
)
from sgagent.sources.etcd.replica import Room, largest_message
from sgagent.sources.etcd.watch_stream import Watch

Answer = TypeVar("Answer")

_PAGE = 1000
"""Keys that are asked for at once."""

_AT_ONCE = 32
"""Ranges at most that are asked for before the first is answered."""

_TIMEOUTS_AT_ONCE = 4
"""For which all answers are waited for at most that were asked for at once."""

_PAUSE_SECONDS = 0.2
"""Between tries, while a cluster chooses a leader."""

_SERVICE = "/etcdserverpb."
_WITH_LEADER = {"hasleader": "true"}
"""Has a member that lost the others end a watch, instead of telling nothing for ever."""


class Client:
    """Hold a connection to one of a cluster's end points. Belongs to one thread but for :meth:`endpoints`."""

    def __init__(
        self, settings: EtcdSourceSettings, memory: Path | None = None, limits: Limits | None = None
    ) -> None:
        """Take where the cluster is; nothing is connected yet.

        Hosts begin with different end points, so that these share the load.

        Args:
            settings: the end points, and how to talk to them.
            memory: the directory in which their addresses are remembered; None forgets them.
            limits: what documents may cost, and so keys; None for the usual.
        """
        self.limits = limits or Limits()
        self._settings = settings
        largest = largest_message(self.limits)
        self._access = [
            EndpointAccess(
                endpoint, settings, largest, None if memory is None else addresses_file(memory, number)
            )
            for number, endpoint in enumerate(settings.endpoints)
        ]
        random.shuffle(self._access)
        self._all = tuple(self._access)
        self._channel: Channel | None = None
        self._place = ""
        self._token: str | None = None
        self._bytes_before = 0
        self._at_once = _AT_ONCE

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where the end points were found last; may be called from any thread."""
        return tuple(endpoint for access in self._all for endpoint in access.endpoints())

    @property
    def bytes_received(self) -> int:
        """Return how many bytes arrived, over all connections; may be asked from any thread."""
        channel = self._channel
        return self._bytes_before + (0 if channel is None else channel.bytes_received)

    def persistently(self, ask: Callable[[], Answer], seconds: float) -> Answer:
        """Ask again, of other end points too, until there is an answer or time is up.

        For questions that may be asked twice.

        Raises:
            EtcdError: the last try's.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except EtcdError as error:
                self.close()
                if not _is_passing(error) or time.monotonic() >= deadline:
                    raise
            threading.Event().wait(_PAUSE_SECONDS)

    def read_page(self, asked: KeyRange, *, revision: int = 0) -> Range:
        """Return keys from the first of a range on: many, or as few as are not too large together.

        Raises:
            CompactedError: the revision is gone.
            EtcdError: there was no answer, or a refusal.
        """
        limit = _PAGE
        while True:
            try:
                request = range_request(asked, revision=revision, limit=limit)
                return self._ask("KV/Range", request, partial(read_range, limit=limit))
            except AnswerTooLargeError:
                if limit == 1:
                    raise
                limit //= 2

    def count(self, asked: KeyRange, *, revision: int = 0) -> int:
        """Return how many keys a range has."""
        request = range_request(asked, revision=revision, count_only=True)
        return self._ask("KV/Range", request, partial(read_range, limit=0)).count

    def room(self) -> Room:
        """Return how much may be read of a store that is read once."""
        return Room(self.limits.all_bytes)

    def read(
        self, asked: KeyRange, *, revision: int = 0, room: Room | None = None
    ) -> tuple[Header, tuple[KeyValue, ...]]:
        """Return all keys of a range as they stood at one revision, and what was said of the store.

        Args:
            asked: the range.
            revision: the store's; 0 is now.
            room: of all that is read together; None where nothing else is.

        Raises:
            TooLargeError: there is no room for so much.
            CompactedError: the revision is gone, maybe while pages were read.
            EtcdError: there was no answer, or a refusal.
        """
        page = self.read_page(asked, revision=revision)
        at = revision or page.header.revision
        return page.header, self._whole(asked, page, at, self.room() if room is None else room)

    def _whole(self, asked: KeyRange, page: Range, revision: int, room: Room) -> tuple[KeyValue, ...]:
        """Return the keys of a range's first page, and of those behind it."""
        items: list[KeyValue] = []
        while True:
            if (page.has_more and not page.items) or any(item.key not in asked for item in page.items):
                message = f"an answer that does not fit the question for keys from {asked.first!r} on"
                raise ConnectionLostError(f"{self._place}: {message}")
            with self._placed():
                room.take(page.items)
            items.extend(page.items)
            if not page.has_more:
                return tuple(items)
            asked = KeyRange(f"{items[-1].key}\0", asked.end)
            page = self.read_page(asked, revision=revision)

    def read_each(
        self, asked: Sequence[KeyRange], *, revision: int, room: Room | None = None
    ) -> Generator[tuple[KeyRange, tuple[KeyValue, ...]], None, None]:
        """Go through ranges, each with all its keys as they stood at a revision.

        Some are asked for before the first is answered: a host may read thousands, and nobody wants to wait
        for each. Where that was too much for a slow line, half as many are the next time. What was asked
        is broken off with the generator.

        Args:
            asked: the ranges.
            revision: the store's.
            room: of all that is read together; None where nothing else is.

        Raises:
            TooLargeError: there is no room for so much.
            CompactedError: the revision is gone, maybe while others were read.
            EtcdError: there was no answer, or a refusal.
        """
        room = self.room() if room is None else room
        at_once = self._at_once
        for first in range(0, len(asked), at_once):
            some = asked[first : first + at_once]
            requests = [range_request(one, revision=revision, limit=_PAGE) for one in some]
            left = deque(some)
            try:
                for page in self._ask_each("KV/Range", requests, partial(read_range, limit=_PAGE)):
                    yield left[0], self._whole(left[0], page, revision, room)
                    left.popleft()
            except AnswerTooLargeError:  # by itself each may be read in smaller portions
                for one in left:
                    yield one, self.read(one, revision=revision, room=room)[1]
            except TooSlowError:
                self._at_once = max(1, len(some) // 2)
                raise
        if len(asked) > at_once:
            self._at_once = min(2 * at_once, _AT_ONCE)

    def commit(self, conditions: Iterable[Unchanged], writes: Iterable[Write]) -> tuple[Header, bool]:
        """Carry out writes all together if the conditions hold; return the store and whether they did.

        Raises:
            EtcdError: whether they were carried out is not known, or they were refused.
        """
        return self._ask("KV/Txn", transaction_request(conditions, writes), read_transaction)

    def watch(self, followed: Sequence[tuple[KeyRange, int]]) -> Watch:
        """Return a watch on ranges, each from a revision on.

        Raises:
            EtcdError: it can't be begun.
        """
        channel = self._connected()
        requests = [watch_request(one, revision, number) for number, (one, revision) in enumerate(followed)]
        method = f"{_SERVICE}Watch/Watch"
        metadata = {**self._metadata(), **_WITH_LEADER}
        with self._placed():
            call = channel.open(method, requests[0], metadata=metadata, is_last=False)
            for request in requests[1:]:
                channel.send(call, request)
        return Watch(channel, call, [one for one, _ in followed], self._place, self.limits.all_bytes)

    def grant_lease(self, seconds: int) -> Lease:
        """Return a new lease."""
        return self._ask("Lease/LeaseGrant", lease_grant_request(seconds), read_lease)

    def renew_lease(self, lease: int) -> Lease:
        """Return a lease after it was renewed; one that has ended has no seconds left."""
        return self._ask("Lease/LeaseKeepAlive", lease_request(lease), read_lease)

    def end_lease(self, lease: int) -> None:
        """End a lease; the keys under it go."""
        self._ask("Lease/LeaseRevoke", lease_request(lease), lambda _: None)

    def close(self) -> None:
        """Close the connection; the next question makes another, to the next end point."""
        if self._channel is not None:
            self._bytes_before += self._channel.bytes_received
            self._channel.close()
            self._channel = None
            self._access.append(self._access.pop(0))

    def _ask(self, method: str, request: bytes, read: Callable[[bytes], Answer]) -> Answer:
        (answer,) = self._ask_each(method, [request], read)
        return answer

    def _ask_each(
        self, method: str, requests: Sequence[bytes], read: Callable[[bytes], Answer]
    ) -> Iterator[Answer]:
        """Ask all at once, and go through the answers; what is still to come is cancelled with the iterator.

        A token that is no longer good is replaced by a fresh one.
        """
        channel, answered, is_token_fresh = self._connected(), 0, self._settings.user is None
        while True:
            try:
                for answer in self._call(channel, method, requests[answered:], read):
                    answered += 1
                    yield answer
            except CallRefusedError as error:
                if is_token_fresh or not _is_about_token(error):
                    raise as_compacted(error) from error
            else:
                return
            with self._placed():
                self._token, is_token_fresh = self._authenticated(channel), True

    def _call(
        self, channel: Channel, method: str, requests: Sequence[bytes], read: Callable[[bytes], Answer]
    ) -> Iterator[Answer]:
        """Go through the answers to questions that are asked at once, or as soon as the server takes them."""
        path, metadata, calls = f"{_SERVICE}{method}", self._metadata(), deque[GrpcMessages]()
        seconds = self._settings.timeout_seconds
        allowance = AnswerDeadline(seconds, _TIMEOUTS_AT_ONCE * seconds)
        try:
            with self._placed():
                for request in requests:
                    while calls and not channel.has_room:
                        yield _readable(channel.finish(calls[0], allowance), read)
                        calls.popleft()
                    calls.append(channel.open(path, request, metadata=metadata, is_last=True))
                while calls:
                    yield _readable(channel.finish(calls[0], allowance), read)
                    calls.popleft()
        finally:
            channel.cancel(*calls)

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Have errors of the connection, and what is too large, say at which end point."""
        try:
            yield
        except (ConnectionLostError, StoreTooLargeError) as error:
            raise type(error)(f"{self._place}: {error}") from error

    def _metadata(self) -> Mapping[str, str]:
        return {} if self._token is None else {"token": self._token}

    def _connected(self) -> Channel:
        """Return the channel; a new one, to the first end point that can be reached, if there is none.

        Raises:
            ConnectionLostError: none can be reached; says of each why.
        """
        if self._channel is not None:
            return self._channel
        reasons = []
        for _ in range(len(self._access)):
            access = self._access[0]
            try:
                self._channel = self._entered(access)
            except EtcdError as error:
                reasons.append(f"{access.endpoint}: {error}")
                self._access.append(self._access.pop(0))
            else:
                self._place = str(access.endpoint)
                return self._channel
        raise ConnectionLostError("; ".join(sorted(reasons)))

    def _entered(self, access: EndpointAccess) -> Channel:
        """Return a channel to an end point at which the configured user is known."""
        channel = access.connect()
        if self._settings.user is not None:
            try:
                self._token = self._authenticated(channel)
            except EtcdError:
                channel.close()
                raise
        return channel

    def _authenticated(self, channel: Channel) -> str:
        """Return a token for the configured user.

        Raises:
            EtcdError: there was no answer, or a refusal.
        """
        request = authenticate_request(self._settings.user or "", read_password(self._settings))
        answer = channel.call(
            f"{_SERVICE}Auth/Authenticate", request, metadata={}, seconds=self._settings.timeout_seconds
        )
        return _readable(answer, read_token)


def _readable(answer: bytes, read: Callable[[bytes], Answer]) -> Answer:
    """Return what an answer says.

    Raises:
        ConnectionLostError: it is no answer to the question.
    """
    try:
        return read(answer)
    except (MalformedMessageError, UnicodeDecodeError) as error:
        raise ConnectionLostError(f"an answer that can't be read: {error}") from error


def _is_passing(error: EtcdError) -> bool:
    return isinstance(error, ConnectionLostError) or (
        isinstance(error, CallRefusedError) and error.is_passing
    )


def _is_about_token(error: CallRefusedError) -> bool:
    return error.code == GrpcStatus.UNAUTHENTICATED or "auth store" in str(error)
