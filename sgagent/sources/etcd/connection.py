"""Connections to an etcd endpoint: name resolution, TCP, TLS, and the password of a user."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from sgagent.core.errors import SourceUnavailableError
from sgagent.core.policy import Endpoint
from sgagent.settings import EtcdEndpoint, EtcdSourceSettings
from sgagent.sources.endpoint_cache import EndpointCache, look_up
from sgagent.sources.etcd.grpc import ConnectionLostError
from sgagent.sources.etcd.http2 import Channel
from sgagent.sources.secret_file import require_private

_LONGEST_PASSWORD = 1024


class EndpointAccess:
    """Reach one end point."""

    def __init__(
        self,
        endpoint: EtcdEndpoint,
        settings: EtcdSourceSettings,
        largest_message: int,
        memory: Path | None = None,
    ) -> None:
        """Take where it is.

        Args:
            endpoint: where.
            settings: how to talk to it.
            largest_message: that is taken from it, in bytes.
            memory: the file in which its addresses are remembered; None forgets them.
        """
        self.endpoint = endpoint
        self._settings = settings
        self._largest_message = largest_message
        self._endpoint_cache = EndpointCache(endpoint.host, endpoint.port, look_up, memory)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return at which addresses it was found last."""
        return self._endpoint_cache.endpoints()

    def connect(self) -> Channel:
        """Return a channel to it.

        Raises:
            ConnectionLostError: it can't be reached, is not who it should be, or speaks no HTTP/2.
        """
        try:
            opened = self._reached()
        except OSError as error:
            raise ConnectionLostError(_reason(error)) from error
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected = self._encrypted(opened) if self.endpoint.is_encrypted else opened
            return Channel(connected, self.endpoint.authority, self._largest_message)
        except (OSError, ValueError, SourceUnavailableError) as error:
            opened.close()
            raise ConnectionLostError(_reason(error)) from error
        except ConnectionLostError:
            opened.close()
            raise

    def _reached(self) -> socket.socket:
        """Return a connection to the first address that answers; together they have the time-out."""
        fault: OSError = TimeoutError("timed out")
        addresses = self._endpoint_cache.find()
        for address in addresses:
            try:
                share = self._settings.timeout_seconds / len(addresses)
                return socket.create_connection((address, self.endpoint.port), share)
            except OSError as error:
                fault = error
        raise fault

    def _encrypted(self, opened: socket.socket) -> ssl.SSLSocket:
        """Return the connection with TLS on it, the server's certificate verified.

        Raises:
            OSError: files can't be read, or the two don't come together.
            ConnectionLostError: the server speaks no HTTP/2.
        """
        context = ssl.create_default_context(cafile=self._settings.ca_file)
        context.set_alpn_protocols(["h2"])
        self._show_certificate(context, self._settings.client_certificate)
        encrypted = context.wrap_socket(opened, server_hostname=self.endpoint.host)
        if encrypted.selected_alpn_protocol() != "h2":
            encrypted.close()
            raise ConnectionLostError("the server speaks no HTTP/2, so is no end point of etcd")
        return encrypted

    def _show_certificate(self, context: ssl.SSLContext, certificate: Path | None) -> None:
        if certificate is not None:
            key = self._settings.client_key or certificate
            require_private(key)
            # A password is never asked for: there is nobody at the terminal.
            context.load_cert_chain(certificate, key, password="")


def read_password(settings: EtcdSourceSettings) -> str:
    """Return the password of the configured user; white space around it is no part of it.

    Raises:
        ConnectionLostError: it can't be read, or everybody can read it. The message never says what it holds.
    """
    path = settings.password_file
    if path is None:
        return ""
    try:
        require_private(path)
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST_PASSWORD).strip()
    except SourceUnavailableError as error:
        raise ConnectionLostError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectionLostError(f"{path}: can't be read") from error


def _reason(error: Exception) -> str:
    """Return in words why the two don't come together."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or str(error)).lower()}"
    return str(error)
