"""CONNECT proxy on loopback between the cloud's SDK and its endpoint, with bounds of time and size.

The SDK has no such bounds: it needs a resolver for every connection, a server that sends a byte now and then
holds it forever, and an endless answer fills the memory. But the SDK accepts a proxy. This proxy connects
only to the configured endpoint, at its cached addresses if its name can't be resolved. It closes a connection
whose answer takes too long or is too large. TLS stays end to end.
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
"""Interval of checks of the time limit while no data arrives."""

Addresses = Callable[[], tuple[str, ...]]
"""Returns the known addresses of the endpoint."""


class SdkTransport:
    """A proxy for one endpoint."""

    def __init__(
        self,
        endpoint: ApiEndpoint,
        addresses: Addresses,
        *,
        connect_seconds: float,
        answer_seconds: float,
        most_bytes: int,
    ) -> None:
        """Store the bounds; :meth:`url` starts the proxy.

        Args:
            endpoint: the only endpoint that the proxy connects to.
            addresses: returns the addresses of the endpoint.
            connect_seconds: limit for connecting, to all addresses together.
            answer_seconds: limit for a complete answer.
            most_bytes: limit for the size of an answer, as sent.
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
        """Why the last connection failed; empty after a successful one."""

    def url(self) -> str:
        """Return the proxy's URL; the first call starts it, and it runs until the program ends."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", 0))
                threading.Thread(
                    target=self._serve, args=(self._listener,), name="passage", daemon=True
                ).start()
            return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Shut down all open connections."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):  # the peer has closed the connection
                    end.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            near, _ = listener.accept()
            threading.Thread(target=self._lead, args=(near,), name="passage", daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        """Serve one connection until it ends."""
        with self._held(near):
            near.settimeout(self._connect_seconds)
            try:
                target = _read_target(near)
            except OSError:
                return
            if target != f"{self._host}:{self._endpoint.port}":
                self._refuse(near, 403, f"the SDK connects to {target!r}, not the endpoint")
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
        """Register a connection for :meth:`cut`, and close it at the end."""
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
            near.sendall(f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n".encode())

    def _connect(self) -> socket.socket:
        """Return a connection to the first address that answers.

        Raises:
            OSError: no address answered in time, or none is known.
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
        """Copy bytes in both directions; each request resets the bounds of its answer."""
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
    """The remaining time and size of an answer."""

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._seconds, self._most_bytes = seconds, most_bytes
        self._ends_at = time.monotonic() + seconds
        self._heard_at = 0.0
        self._room = most_bytes

    def take(self, size: int) -> None:
        """Count a piece of the answer."""
        self._room -= size
        self._heard_at = time.monotonic()

    @property
    def are_passed(self) -> bool:
        """Return whether the answer took too long or is too large."""
        return self._room < 0 or time.monotonic() > self._ends_at

    @property
    def fault(self) -> str:
        """Return the exceeded bound; empty if only an idle connection timed out."""
        if self._room < 0:
            return f"the answer has more than {self._most_bytes} bytes"
        is_being_sent = self._ends_at - self._heard_at < self._seconds / 2
        return f"no whole answer within {self._seconds:g} s" if is_being_sent else ""


def _read_target(near: socket.socket) -> str:
    """Return the target of a CONNECT request.

    Raises:
        OSError: the request does not arrive in time, or is malformed.
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
