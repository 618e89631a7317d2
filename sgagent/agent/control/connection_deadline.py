"""A deadline for a connection, which ends it whatever the other side does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class SocketDeadline:
    """Shut a connection down at a time that can be changed."""

    def __init__(self, connection: socket.socket) -> None:
        """Set no deadline yet."""
        self._connection = connection
        self._timer: threading.Timer | None = None

    def set(self, seconds: float) -> None:
        """Shut the connection down in so many seconds, instead of at the deadline before."""
        self.cancel()
        self._timer = threading.Timer(seconds, _shut_down, [self._connection])
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Remove the deadline."""
        if self._timer is not None:
            self._timer.cancel()


@contextlib.contextmanager
def deadline(connection: socket.socket, seconds: float) -> Iterator[SocketDeadline]:
    """Shut the connection down if the context is not left in time; reads and writes then fail.

    The context's value can change the deadline.
    """
    running = SocketDeadline(connection)
    running.set(seconds)
    try:
        yield running
    finally:
        running.cancel()


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
