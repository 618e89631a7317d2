"""Server-sent events: a few clients hear every two seconds how often what the pages show has changed.

An event is a few bytes, and a socket's buffer holds hundreds of them. A client whose socket does not take one
at once has stopped reading long ago and is closed, so nothing waits for it and nothing is stored for it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

MOST_STREAMS = 8
"""At the same time. The next client gets 503 and shows the page without a stream."""

EVENT_SECONDS = 2.0
"""Between two events."""

STREAM_SECONDS = 900.0
"""After which the server ends a stream, so that none is held for ever; browsers open another."""


@dataclass(slots=True)
class _Stream:
    make_event: Callable[[], bytes]
    ends_at: float
    """By the monotonic clock."""


class EventStreams:
    """The open streams. Only the thread of the server uses them."""

    def __init__(
        self, selector: selectors.BaseSelector, event_seconds: float, stream_seconds: float = STREAM_SECONDS
    ) -> None:
        """Start without a stream.

        Args:
            selector: tells the server when a client has closed its stream.
            event_seconds: between two events.
            stream_seconds: after which a stream ends.
        """
        self._stream_seconds = stream_seconds
        self._selector = selector
        self._event_seconds = event_seconds
        self._streams: dict[socket.socket, _Stream] = {}
        self._next_at = 0.0

    def __contains__(self, client: object) -> bool:
        """Return whether a socket is a stream."""
        return client in self._streams

    @property
    def is_full(self) -> bool:
        """Return whether the next client has to be refused."""
        return len(self._streams) >= MOST_STREAMS

    @property
    def seconds_to_event(self) -> float | None:
        """Return the seconds until the next event; None where there is no stream."""
        return max(0.0, self._next_at - time.monotonic()) if self._streams else None

    def add(self, client: socket.socket, make_event: Callable[[], bytes]) -> None:
        """Take a client that has the head of the response; its first event is due at once.

        Args:
            client: a socket that never blocks.
            make_event: returns the next event at once.
        """
        self._streams[client] = _Stream(make_event, time.monotonic() + self._stream_seconds)
        self._selector.register(client, selectors.EVENT_READ, client)
        self._next_at = 0.0

    def send_due(self) -> None:
        """Send each client an event if it is time, and close those that are slow or have had their time."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + self._event_seconds
        for client, stream in list(self._streams.items()):
            event = stream.make_event()
            try:
                is_taken = client.send(event) == len(event)
            except OSError:
                is_taken = False
            if not is_taken or now >= stream.ends_at:
                self.end(client)

    def close(self) -> None:
        """Close all streams."""
        for client in list(self._streams):
            self.end(client)

    def end(self, client: socket.socket) -> None:
        """Close a stream. A client that can be read has closed it, or sends what no browser sends."""
        del self._streams[client]
        self._selector.unregister(client)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        client.close()
