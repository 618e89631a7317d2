"""TLS connections to an HTTPS server, with a deadline for each step."""

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
    """The time at which all waits end."""

    def __init__(self, seconds: float) -> None:
        """Set the deadline this many seconds from now."""
        self._at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds until the deadline.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class BoundedSocket(ssl.SSLSocket):
    """A TLS connection with one deadline for all reads together.

    With a timeout per read, a server that sends a byte now and then could hold the connection forever.
    """

    deadline: ConnectionDeadline | None = None

    def recv_into(self, *arguments: Any, **named: Any) -> int:  # noqa: ANN401 - the parameters of what is overridden, passed on
        """Receive until the deadline."""
        if self.deadline is not None:
            self.settimeout(self.deadline.remaining())
        return super().recv_into(*arguments, **named)

    def recv(self, *arguments: Any, **named: Any) -> bytes:  # noqa: ANN401 - likewise
        """Receive; only the standard library calls this, on a connection that ended before TLS."""
        try:
            return super().recv(*arguments, **named)
        except OSError:
            self.close()  # the caller has no reference to close it after this error
            raise


class Cancellation:
    """Cancellation from another thread: it shuts down the connection in use."""

    def __init__(self) -> None:
        """Start without a connection."""
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._lock = threading.Lock()

    def hold(self, connected: socket.socket | None) -> None:
        """Set the connection in use; shut it down at once if the request is cancelled already."""
        with self._lock:
            self._socket = connected
            if self._is_cut:
                self._shut()

    def cut(self) -> None:
        """Shut down the connection in use, and later ones until :meth:`resume`."""
        with self._lock:
            self._is_cut = True
            self._shut()

    def resume(self) -> None:
        """Allow connections again."""
        with self._lock:
            self._is_cut = False

    def _shut(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # the peer has closed the connection
            # SSLSocket.shutdown would drop the TLS session that the other thread is reading from.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class BoundedConnection(http.client.HTTPSConnection):
    """An HTTP connection over TLS to one of several addresses, each tried for a bounded time."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        addresses: tuple[str, ...],
        context: ssl.SSLContext,
        connecting: ConnectionDeadline,
        deadline: ConnectionDeadline,
        cancellation: Cancellation,
    ) -> None:
        """Store the parameters without connecting.

        Args:
            host: the name in the server's certificate.
            port: the port.
            addresses: the addresses, in the order in which to try them.
            context: the trusted authorities and the client certificate.
            connecting: the deadline of TCP and TLS.
            deadline: the deadline of the whole exchange.
            cancellation: receives the connection, to cancel it.
        """
        super().__init__(host, port, context=context)
        self._addresses, self._trust, self._cancellation = addresses, context, cancellation
        self._connecting, self._deadline = connecting, deadline

    def connect(self) -> None:
        """Connect to the first address that answers.

        Raises:
            OSError: no address answered in time, or TLS failed.
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
        self._cancellation.hold(secure)
        secure.settimeout(self._deadline.remaining())
        if isinstance(secure, BoundedSocket):
            secure.deadline = self._deadline
        self.sock = secure

    def _reach(self) -> socket.socket:
        """Return a TCP connection; the addresses share the remaining time equally."""
        fault: OSError = TimeoutError()
        for index, address in enumerate(self._addresses):
            share = self._connecting.remaining() / (len(self._addresses) - index)
            try:
                plain = socket.create_connection((address, self.port), timeout=share)
            except OSError as error:
                fault = error
            else:
                self._cancellation.hold(plain)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return plain
        raise fault


def make_context(settings: HttpsSourceSettings) -> ssl.SSLContext:
    """Return a TLS context with the configured authorities and client certificate, read from their files.

    Raises:
        SourceUnavailableError: a file can't be read, or has no valid certificate or key.
    """
    context = _trusting(settings)
    context.sslsocket_class = BoundedSocket
    context.set_alpn_protocols(["http/1.1"])
    if settings.client_certificate is not None:
        key = settings.client_key or settings.client_certificate
        require_private(key)
        try:
            # The empty password keeps OpenSSL from asking on the terminal.
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
