"""Lead the cloud's SDK to its end point, and nowhere else, within bounds that it does not know itself.

The SDK finds addresses, waits and reads by itself: without a resolver it gets nowhere, a server that sends a
byte now and then holds it for ever, and an answer without end fills the memory. But it goes through a proxy
if it is told to. This is one, on loopback. It connects to where the end point was found last, also when its
name can't be looked up any more, and it cuts what takes too long or is too large. What goes through is TLS
from end to end.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

from sgagent.settings import ApiEndpoint

_LONGEST_HEAD = 16 * 1024
_PIECE_BYTES = 64 * 1024
_LOOK_SECONDS = 0.25
"""Between looks at the clock while nothing comes."""

Addresses = Callable[[], tuple[str, ...]]
"""Return where the end point is, as far as that is known."""


class SdkTransport:
    """A proxy for one end point."""

    def __init__(
        self,
        endpoint: ApiEndpoint,
        addresses: Addresses,
        *,
        connect_seconds: float,
        answer_seconds: float,
        most_bytes: int,
    ) -> None:
        """Take where it leads; nothing is opened before somebody goes through.

        Args:
            endpoint: the only one that is let through to.
            addresses: tells where that is.
            connect_seconds: for a connection, to all addresses together.
            answer_seconds: for the whole of an answer.
            most_bytes: of an answer, as it is sent.
        """
        self._endpoint = endpoint
        self._addresses = addresses
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self.fault = ""
        """Why nobody got through last, in words; empty if somebody did."""

    def url(self) -> str:
        """Return how the SDK is told of it; from now on it listens, as long as the program lives."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", 0))
                threading.Thread(
                    target=self._serve, args=(self._listener,), name="passage", daemon=True
                ).start()
            return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """End whatever goes through at this moment."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):  # the other end was faster
                    end.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            near, _ = listener.accept()
            threading.Thread(target=self._lead, args=(near,), name="passage", daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        """Lead one connection through, to its end."""
        with self._held(near):
            near.settimeout(self._connect_seconds)
            try:
                target = _read_target(near)
            except OSError:
                return
            if target != f"{self._host}:{self._endpoint.port}":
                self._refuse(near, 403, f"led to {target!r}, which is not the end point")
                return
            try:
                far = self._connect()
            except OSError as error:
                self._refuse(near, 502, f"can't be reached: {_reason(error, self._connect_seconds)}")
                return
            with self._held(far), contextlib.suppress(OSError):
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self.fault = ""
                self._carry(near, far)

    @contextlib.contextmanager
    def _held(self, end: socket.socket) -> Iterator[None]:
        """Keep a connection among those that can be cut, and close it in the end."""
        with self._lock:
            self._open.add(end)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(end)
            end.close()

    @property
    def _host(self) -> str:
        return f"[{self._endpoint.host}]" if ":" in self._endpoint.host else self._endpoint.host

    def _refuse(self, near: socket.socket, status: int, fault: str) -> None:
        self.fault = fault
        with contextlib.suppress(OSError):
            near.sendall(f"HTTP/1.1 {status} No way\r\nContent-Length: 0\r\n\r\n".encode())

    def _connect(self) -> socket.socket:
        """Return a connection to the first address that answers.

        Raises:
            OSError: none did in time, or none is known.
        """
        addresses = self._addresses()
        fault: OSError = OSError(0, "its address is not known")
        ends_at = time.monotonic() + self._connect_seconds
        for index, address in enumerate(addresses):
            share = max(0.1, (ends_at - time.monotonic()) / (len(addresses) - index))
            try:
                return socket.create_connection((address, self._endpoint.port), timeout=share)
            except OSError as error:
                fault = error
        raise fault

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Carry bytes both ways; each question begins the time and the room of its answer anew."""
        bounds = _Bounds(self._answer_seconds, self._most_bytes)
        for end in (near, far):
            end.settimeout(self._answer_seconds)
        while not bounds.are_passed:
            ready, _, _ = select.select([near, far], [], [], _LOOK_SECONDS)
            for end in ready:
                piece = end.recv(_PIECE_BYTES)
                if not piece:
                    return
                if end is near:
                    bounds = _Bounds(self._answer_seconds, self._most_bytes)
                    far.sendall(piece)
                else:
                    bounds.take(len(piece))
                    near.sendall(piece)
        self.fault = bounds.fault


class _Bounds:
    """How long an answer may still take, and how large it may still be."""

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._seconds, self._most_bytes = seconds, most_bytes
        self._ends_at = time.monotonic() + seconds
        self._heard_at = 0.0
        self._room = most_bytes

    def take(self, size: int) -> None:
        """Take note of a piece of the answer."""
        self._room -= size
        self._heard_at = time.monotonic()

    @property
    def are_passed(self) -> bool:
        """Return whether it took too long, or is too large."""
        return self._room < 0 or time.monotonic() > self._ends_at

    @property
    def fault(self) -> str:
        """Return which; nothing where all was said long ago, and nobody asked again."""
        if self._room < 0:
            return f"the answer has more than {self._most_bytes} bytes"
        is_being_sent = self._ends_at - self._heard_at < self._seconds / 2
        return f"no whole answer within {self._seconds:g} s" if is_being_sent else ""


def _read_target(near: socket.socket) -> str:
    """Return where a client wants to be led.

    Raises:
        OSError: it does not say so in time, or says something else.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        piece = near.recv(_PIECE_BYTES)
        if not piece or len(head) > _LONGEST_HEAD:
            raise ConnectionAbortedError
        head += piece
    method, _, rest = head.partition(b" ")
    if method != b"CONNECT":
        raise ConnectionAbortedError
    return rest.partition(b" ")[0].decode("ascii", "replace").lower()


def _reason(error: OSError, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {seconds:g} s"
    return error.strerror or type(error).__name__
