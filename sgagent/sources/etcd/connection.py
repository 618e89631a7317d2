"""Connections to an etcd endpoint, and the watch stream over one."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.errors import SourceUnavailableError
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources import servers
from sgagent.sources.etcd import grpc
from sgagent.sources.etcd.http2 import Channel, WakeSignal
from sgagent.sources.etcd.messages import KeyRange, SizeBudget, WatchAnswer, read_watch, watch_request

_LONGEST_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class EndpointAccess:
    """How to connect to one endpoint."""

    endpoint: ServerUrl
    settings: EtcdSourceSettings
    cache: servers.EndpointCache
    """The cached addresses of the endpoint."""

    largest_message: int
    """Size limit of a received message, in bytes."""

    def connect(self) -> Channel:
        """Return a channel to the endpoint.

        Raises:
            ConnectionLostError: the endpoint can't be reached, is not trusted, or does not speak HTTP/2.
        """
        try:
            deadline = servers.ConnectionDeadline(self.settings.timeout_seconds)
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
            self.channel.send(self.call, watch_request(followed, revision, len(self.followed)))
        self.followed.append(followed)

    def receive(self, seconds: float, interrupt: WakeSignal | None = None) -> WatchAnswer | None:
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
                answer = None if message is None else read_watch(message, lambda item: room.take((item,)))
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

    def range_of(self, answer: WatchAnswer) -> KeyRange | None:
        """Return the range of an answer; None for an unknown watch id."""
        if 0 <= answer.watch_id < len(self.followed):
            return self.followed[answer.watch_id]
        return None
