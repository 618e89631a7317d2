"""Server of stream sockets: a thread accepts, each connection has a thread, a slot and a deadline.

The control socket and the HTTP server differ in who gets a slot, and in what is said.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(slots=True, eq=False, kw_only=True)
class Connection:
    """A connection that was accepted; its thread may change the deadline."""

    socket: socket.socket
    ends_at: float
    """When the server cuts it at the latest, by the monotonic clock."""


C = TypeVar("C", bound=Connection)

_PAUSE_SECONDS = 0.1
"""Before the next connection is accepted, where there is no room for one."""


class ConnectionServer(ABC, Generic[C]):
    """Serve the clients that connect to a listener, until :meth:`close`."""

    def __init__(
        self, listener: socket.socket, *, name: str, most: float = math.inf, idle_seconds: float = math.inf
    ) -> None:
        """Start the thread that accepts.

        Args:
            listener: does not block; closed with the server. Another process may have it, too.
            name: of the threads.
            most: connections at the same time; the next waits, unless :meth:`make_room` ends one.
            idle_seconds: after which :meth:`on_idle` is called, where nothing connects.
        """
        self._listener = listener
        self._name = name
        self._most, self._idle_seconds = most, idle_seconds
        self._is_closed = threading.Event()
        self._ended = os.eventfd(0, os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, C] = {}
        """In the order in which they were accepted."""

        self._thread = threading.Thread(target=self._accept_all, name=name, daemon=True)
        self._thread.start()

    @abstractmethod
    def admit(self, accepted: socket.socket, address: Any) -> C | None:  # noqa: ANN401 - of the socket's family
        """Return a connection that has a slot, or None for one that gets none.

        Raises:
            OSError: the client has gone.
        """

    @abstractmethod
    def serve(self, connection: C) -> None:
        """Answer a client, in the thread of the connection.

        Raises:
            OSError: the client has gone, or was cut.
        """

    def leave(self, connection: C) -> None:
        """Free the slot of a connection that ends."""

    def make_room(self) -> bool:
        """End a connection in favour of the next; return False if none was."""
        return False

    def on_idle(self) -> None:
        """Do the due work while no client connects."""

    def close(self) -> None:
        """Accept no more; connections go on."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        os.eventfd_write(self._ended, 1)  # to shut the listener would shut it for the service manager, too
        self._thread.join()
        os.close(self._ended)
        self._listener.close()

    def cut(self, *connections: C) -> None:
        """End connections, whose threads then close them; called with the lock."""
        for connection in connections:
            del self._connections[connection.socket]
            with contextlib.suppress(OSError):  # the client has gone
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _accept_all(self) -> None:
        """Accept connections, and cut those whose time is over."""
        while not self._is_closed.is_set():
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(self._ended, select.POLLIN)
            ready = poll.poll(self._milliseconds_to_wait())
            if any(descriptor == self._listener.fileno() for descriptor, _ in ready):
                self._accept()
            elif not ready:
                self.on_idle()
            now = time.monotonic()
            with self._lock:
                self.cut(*(one for one in self._connections.values() if one.ends_at <= now))

    def _milliseconds_to_wait(self) -> float | None:
        with self._lock:
            ends_at = min((one.ends_at for one in self._connections.values()), default=math.inf)
        wait = min(self._idle_seconds, ends_at - time.monotonic())
        return None if math.isinf(wait) else max(0.0, wait) * 1000 + 1

    def _accept(self) -> None:
        if len(self._connections) >= self._most and not self.make_room():
            self._is_closed.wait(_PAUSE_SECONDS)
            return
        try:
            accepted, address = self._listener.accept()
        except OSError as error:  # the client has gone, or the system has no resources for one
            if error.errno in _EXHAUSTED and not self.make_room():
                self._is_closed.wait(_PAUSE_SECONDS)
            return
        try:
            connection = self.admit(accepted, address)
        except OSError:
            connection = None
        if connection is None:
            accepted.close()
            return
        with self._lock:
            self._connections[accepted] = connection
        try:
            threading.Thread(
                target=self._serve, args=[connection], name=f"{self._name} client", daemon=True
            ).start()
        except RuntimeError:  # the limit of threads is reached
            self._end(connection)

    def _serve(self, connection: C) -> None:
        try:
            with contextlib.suppress(OSError):
                self.serve(connection)
        finally:
            self._end(connection)

    def _end(self, connection: C) -> None:
        with self._lock:
            self._connections.pop(connection.socket, None)
        connection.socket.close()
        self.leave(connection)


_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of ``accept`` after which a later call may succeed."""
