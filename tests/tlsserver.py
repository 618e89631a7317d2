"""A TLS server that answers with whatever bytes a test wants, on loopback."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import Issued

_LONGEST_REQUEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for."""

    target: str
    headers: Mapping[str, str]
    """By name, in lower case."""


@dataclass(slots=True)
class Wire:
    """The connection to a client, in a script's hands."""

    socket: ssl.SSLSocket | socket.socket
    is_over: threading.Event
    """Set when the server ends."""

    def send(self, *pieces: bytes | str) -> None:
        """Send bytes; a client that has gone takes none."""
        for piece in pieces:
            with contextlib.suppress(OSError):
                self.socket.sendall(piece if isinstance(piece, bytes) else piece.encode())

    def answer(self, body: bytes | str, *headers: str, status: str = "200 OK") -> None:
        """Send a whole answer."""
        content = body if isinstance(body, bytes) else body.encode()
        head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers))
        self.send(f"{head}\r\n\r\n", content)

    def drip(self, piece: bytes, seconds: float) -> None:
        """Send the same bytes again and again, until the client or the server has gone."""
        with contextlib.suppress(OSError):
            while not self.is_over.wait(seconds):
                self.socket.sendall(piece)

    def pour(self, piece: bytes) -> None:
        """Send the same bytes for ever, as fast as the client takes them."""
        self.drip(piece, 0)

    def hang(self) -> None:
        """Do nothing, until the client or the server has gone."""
        self.socket.settimeout(0.05)
        while not self.is_over.is_set():
            try:
                if not self.socket.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


Script = Callable[[Wire, Request], None]


@dataclass(slots=True)
class TlsServer:
    """A server that runs."""

    port: int
    script: Script
    """What it does with each request; may be changed at any time."""

    requests: list[Request] = field(default_factory=list)
    """All that came, oldest first."""


@contextlib.contextmanager
def tls_server(
    script: Script, issued: Issued | None, *, clients_of: Path | None = None, address: str = "127.0.0.1"
) -> Iterator[TlsServer]:
    """Run a server until the context is left.

    Args:
        script: what it does with each request.
        issued: its certificate; None speaks no TLS at all.
        clients_of: the authority whose certificates clients must show.
        address: where it listens.
    """
    context = _context(issued, clients_of) if issued else None
    is_over = threading.Event()
    threads: list[threading.Thread] = []
    with socket.create_server((address, 0)) as listener:
        listener.settimeout(0.05)
        server = TlsServer(port=listener.getsockname()[1], script=script)

        def accept() -> None:
            while not is_over.is_set():
                try:
                    accepted, _ = listener.accept()
                except TimeoutError:
                    continue
                thread = threading.Thread(target=_serve, args=(accepted, context, server, is_over))
                threads.append(thread)
                thread.start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield server
        finally:
            is_over.set()
            for thread in (acceptor, *threads):
                thread.join()


def _context(issued: Issued, clients_of: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of)
    return context


def _serve(
    accepted: socket.socket, context: ssl.SSLContext | None, server: TlsServer, is_over: threading.Event
) -> None:
    """Serve one connection."""
    accepted.settimeout(5)
    with (
        contextlib.suppress(OSError),
        accepted,
        _secure(accepted, context) if context else accepted as connection,
    ):
        request = _read_request(connection) if context else _read_something(connection)
        if request is not None:
            server.requests.append(request)
            server.script(Wire(connection, is_over), request)
            connection.shutdown(socket.SHUT_WR)


def _read_something(connection: socket.socket) -> Request | None:
    """Return a request for nothing, once the client has said something, whatever that is."""
    return Request("", {}) if connection.recv(4096) else None


def _secure(accepted: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return the connection with TLS on it; where that fails, the client has the time to read why."""
    secure = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    try:
        secure.do_handshake()
    except OSError:
        with contextlib.suppress(OSError), secure:
            socket.socket.shutdown(secure, socket.SHUT_WR)
            while socket.socket.recv(secure, 4096):
                pass
        raise
    return secure


def _read_request(connection: socket.socket) -> Request | None:
    """Return the head of a request; None if none came whole."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(4096)
        if not piece or len(text) > _LONGEST_REQUEST:
            return None
        text += piece
    first, *lines = text.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Request(first.split(" ")[1], {name.lower(): value for name, value in headers.items()})
