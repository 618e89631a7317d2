"""Connections to an etcd endpoint, and the watch stream over one."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.errors import SourceUnavailableError
from sgagent.core.policy import Endpoint
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources.etcd.grpc import (
    AnswerTooLargeError,
    CallRefusedError,
    CompactedError,
    ConnectionLostError,
    GrpcMessages,
    GrpcStatus,
    MalformedGrpcError,
    StoreTooLargeError,
    as_compacted,
)
from sgagent.sources.etcd.http2 import Channel, Interrupt
from sgagent.sources.etcd.messages import KeyRange, SizeBudget, WatchAnswer, read_watch, watch_request
from sgagent.sources.servers import (
    ConnectionDeadline,
    EndpointCache,
    connect_to_first,
    look_up,
    make_context,
    require_private,
    tls_reason,
)

_LONGEST_PASSWORD = 1024


class EndpointAccess:
    """Reach one end point."""

    def __init__(
        self,
        endpoint: ServerUrl,
        settings: EtcdSourceSettings,
        largest_message: int,
        memory: Path | None = None,
    ) -> None:
        """Take where it is.

        Args:
            endpoint: where.
            settings: how to talk to it.
            largest_message: that is taken from it, in bytes.
            memory: the file in which its addresses are remembered; None forgets them.
        """
        self.endpoint = endpoint
        self._settings = settings
        self._largest_message = largest_message
        self._endpoint_cache = EndpointCache(endpoint.host, endpoint.port, look_up, memory)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return at which addresses it was found last."""
        return self._endpoint_cache.endpoints()

    def connect(self) -> Channel:
        """Return a channel to it.

        Raises:
            ConnectionLostError: it can't be reached, is not who it should be, or speaks no HTTP/2.
        """
        try:
            deadline = ConnectionDeadline(self._settings.timeout_seconds)
            opened = connect_to_first(self._endpoint_cache.find(), self.endpoint.port, deadline)
        except OSError as error:
            raise ConnectionLostError(_reason(error)) from error
        try:
            connected = self._encrypted(opened) if self.endpoint.is_encrypted else opened
            return Channel(connected, self.endpoint.authority, self._largest_message)
        except (OSError, ValueError, SourceUnavailableError) as error:
            opened.close()
            raise ConnectionLostError(_reason(error)) from error
        except ConnectionLostError:
            opened.close()
            raise

    def _encrypted(self, opened: socket.socket) -> ssl.SSLSocket:
        """Return the connection with TLS on it, the server's certificate verified.

        Raises:
            OSError: the two don't come together.
            SourceUnavailableError: files can't be read.
            ConnectionLostError: the server speaks no HTTP/2.
        """
        encrypted = make_context(self._settings, "h2").wrap_socket(opened, server_hostname=self.endpoint.host)
        if encrypted.selected_alpn_protocol() != "h2":
            encrypted.close()
            raise ConnectionLostError("the server speaks no HTTP/2, so is no end point of etcd")
        return encrypted


def read_password(settings: EtcdSourceSettings) -> str:
    """Return the password of the configured user; white space around it is no part of it.

    Raises:
        ConnectionLostError: it can't be read, or everybody can read it. The message never says what it holds.
    """
    path = settings.password_file
    if path is None:
        return ""
    try:
        require_private(path)
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST_PASSWORD).strip()
    except SourceUnavailableError as error:
        raise ConnectionLostError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectionLostError(f"{path}: can't be read") from error


def _reason(error: Exception) -> str:
    """Return in words why the two don't come together."""
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


@dataclass(frozen=True, slots=True)
class Watch:
    """An open watch on several ranges."""

    channel: Channel
    call: GrpcMessages
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
        try:
            self.channel.send(self.call, watch_request(followed, revision, len(self.followed)))
        except ConnectionLostError as error:
            raise type(error)(f"{self.place}: {error}") from error
        self.followed.append(followed)

    def receive(self, seconds: float, interrupt: Interrupt | None = None) -> WatchAnswer | None:
        """Return the next answer; None after the timeout or an interrupt.

        Raises:
            CompactedError: the store has compacted the first revision of the watch.
            AnswerTooLargeError: the answer exceeds the size limit.
            EtcdError: the watch has ended.
        """
        room = SizeBudget(self.most_bytes)
        try:
            message = self.channel.receive(self.call, seconds, interrupt)
            answer = None if message is None else read_watch(message, lambda item: room.take((item,)))
        except CallRefusedError as error:
            raise as_compacted(error) from error
        except StoreTooLargeError as error:
            raise AnswerTooLargeError(f"{self.place}: {error}") from error
        except ConnectionLostError as error:
            raise type(error)(f"{self.place}: {error}") from error
        except MalformedGrpcError as error:
            raise ConnectionLostError(f"{self.place}: an answer that can't be read: {error}") from error
        if answer is not None and answer.is_canceled:
            if answer.compact_revision:
                raise CompactedError(f"before revision {answer.compact_revision}")
            raise CallRefusedError(GrpcStatus.CANCELLED, answer.reason or "the watch was canceled")
        return answer

    def end(self) -> None:
        """Cancel the watch and keep the connection."""
        self.channel.cancel(self.call)

    def range_of(self, answer: WatchAnswer) -> KeyRange | None:
        """Return the range of an answer; None for an unknown watch id."""
        if 0 <= answer.watch_id < len(self.followed):
            return self.followed[answer.watch_id]
        return None


class WakeSignal:
    """A descriptor that any thread can make readable."""

    def __init__(self) -> None:
        """Open the descriptor."""
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._descriptor

    def wake(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Make the descriptor no longer readable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
