"""Give a connection a time to end, whatever the other side does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Deadline:
    """When a connection ends."""

    def __init__(self, connection: socket.socket) -> None:
        """Take the connection; it may last for ever yet."""
        self._connection = connection
        self._timer: threading.Timer | None = None

    def set(self, seconds: float) -> None:
        """Cut the connection in so many seconds, instead of earlier or later."""
        self.lift()
        self._timer = threading.Timer(seconds, _cut, [self._connection])
        self._timer.daemon = True
        self._timer.start()

    def lift(self) -> None:
        """Let the connection last."""
        if self._timer is not None:
            self._timer.cancel()


@contextlib.contextmanager
def deadline(connection: socket.socket, seconds: float) -> Iterator[Deadline]:
    """Cut the connection if the context is not left in time; whoever reads or writes it then fails.

    The one that is yielded can be set anew.
    """
    running = Deadline(connection)
    running.set(seconds)
    try:
        yield running
    finally:
        running.lift()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
