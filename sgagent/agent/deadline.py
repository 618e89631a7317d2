"""Give a connection a time to end, whatever the other side does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def deadline(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Cut the connection if the context is not left in time; whoever reads or writes it then fails."""
    timer = threading.Timer(seconds, _cut, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
