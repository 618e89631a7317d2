"""Connect to an HTTPS server within a time that nothing can stretch."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import threading
import time
from typing import Any

from sgagent.core.errors import SourceUnavailableError
from sgagent.settings import HttpsSourceSettings
from sgagent.sources.secret_file import require_private


class ConnectionDeadline:
    """A moment after which nothing is waited for any more."""

    def __init__(self, seconds: float) -> None:
        """Let it be so many seconds from now."""
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return how many seconds are left.

        Raises:
            TimeoutError: none.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class BoundedSocket(ssl.SSLSocket):
    """A TLS connection on which all receiving together ends at a deadline.

    A time-out for each single wait would let a server hold us for ever, a byte at a time.
    """

    deadline: ConnectionDeadline | None = None

    def recv_into(self, *arguments: Any, **named: Any) -> int:  # noqa: ANN401 - the parameters of what is overridden, passed on
        """Receive what comes before the deadline."""
        if self.deadline is not None:
            self.settimeout(self.deadline.remaining())
        return super().recv_into(*arguments, **named)

    def recv(self, *arguments: Any, **named: Any) -> bytes:  # noqa: ANN401 - likewise
        """Receive; only the standard library calls this, at a connection that ended before TLS began."""
        try:
            return super().recv(*arguments, **named)
        except OSError:
            self.close()  # it would be left open by an error here, and nobody else has it
            raise


class Cutting:
    """Let another thread cut the connection that is in use, to end a wait for a slow server."""

    def __init__(self) -> None:
        """Start without a connection."""
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._lock = threading.Lock()

    def hold(self, connected: socket.socket | None) -> None:
        """Say which connection is in use from now on; one that comes too late is cut at once."""
        with self._lock:
            self._socket = connected
            if self._is_cut:
                self._shut()

    def cut(self) -> None:
        """Cut the connection in use, and any that follows."""
        with self._lock:
            self._is_cut = True
            self._shut()

    def mend(self) -> None:
        """Allow connections again."""
        with self._lock:
            self._is_cut = False

    def _shut(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # the other end was faster
            # Not the TLS object's own, which forgets the session that the other thread is reading from.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class BoundedConnection(http.client.HTTPSConnection):
    """An HTTP connection over TLS to a server whose addresses are known; each try is bounded."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        addresses: tuple[str, ...],
        context: ssl.SSLContext,
        connecting: ConnectionDeadline,
        deadline: ConnectionDeadline,
        cutting: Cutting,
    ) -> None:
        """Take what is needed to connect; nothing is sent yet.

        Args:
            host: the name that the certificate must be for.
            port: the port.
            addresses: where to try, in this order.
            context: what is trusted, and what is shown.
            connecting: when connecting and TLS must be done.
            deadline: when all must be done.
            cutting: is told of the connection.
        """
        super().__init__(host, port, context=context)
        self._addresses, self._trust, self._cutting = addresses, context, cutting
        self._connecting, self._deadline = connecting, deadline

    def connect(self) -> None:
        """Connect to the first address that answers.

        Raises:
            OSError: none did in time, or TLS failed.
        """
        plain = self._reach()
        try:
            plain.settimeout(self._connecting.remaining())
            secure = self._trust.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        if secure.version() is None:
            secure.close()
            raise ConnectionResetError(errno.ECONNRESET, "the connection ended before TLS began")
        self._cutting.hold(secure)
        secure.settimeout(self._deadline.remaining())
        if isinstance(secure, BoundedSocket):
            secure.deadline = self._deadline
        self.sock = secure

    def _reach(self) -> socket.socket:
        """Return a TCP connection; an address that does not answer leaves time for the others."""
        fault: OSError = TimeoutError()
        for index, address in enumerate(self._addresses):
            share = self._connecting.remaining() / (len(self._addresses) - index)
            try:
                plain = socket.create_connection((address, self.port), timeout=share)
            except OSError as error:
                fault = error
            else:
                self._cutting.hold(plain)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return plain
        raise fault


def make_context(settings: HttpsSourceSettings) -> ssl.SSLContext:
    """Return what is trusted and what is shown, as the files say now.

    Raises:
        SourceUnavailableError: a file can't be read, or does not hold what it should.
    """
    context = _trusting(settings)
    context.sslsocket_class = BoundedSocket
    context.set_alpn_protocols(["http/1.1"])
    if settings.client_certificate is not None:
        key = settings.client_key or settings.client_certificate
        require_private(key)
        try:
            # A password is never asked for: there is nobody at the terminal.
            context.load_cert_chain(settings.client_certificate, key, password="")
        except (OSError, ValueError) as error:
            raise SourceUnavailableError(
                f"{settings.client_certificate}: no certificate with its key: {_reason(error)}"
            ) from error
    return context


def _trusting(settings: HttpsSourceSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as error:
        raise SourceUnavailableError(f"{settings.ca_file}: no certificates: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
