"""Connect to an end point of etcd: names, TCP, TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.endpoints import Endpoint
from sgagent.settings import EtcdEndpoint, EtcdSourceSettings
from sgagent.sources.etcd.channel import Channel
from sgagent.sources.etcd.failures import ConnectionLostError


@dataclass(frozen=True, slots=True)
class Connected:
    """A channel, and where the other end is."""

    channel: Channel
    endpoint: Endpoint | None
    """None where the address is none of an end point, as in a tunnel of the tests."""


def connect(endpoint: EtcdEndpoint, settings: EtcdSourceSettings) -> Connected:
    """Return a channel to an end point.

    Raises:
        ConnectionLostError: it can't be reached, is not who it should be, or speaks no HTTP/2.
    """
    seconds = settings.timeout_seconds
    try:
        opened = socket.create_connection((endpoint.host, endpoint.port), seconds)
    except OSError as error:
        raise ConnectionLostError((error.strerror or str(error)).lower()) from error
    try:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = opened.getpeername()[0]
        connected = _encrypted(opened, endpoint, settings) if endpoint.is_encrypted else opened
        return Connected(Channel(connected, endpoint.authority), _endpoint(address, endpoint.port))
    except (OSError, ConnectionLostError) as error:
        opened.close()
        raise ConnectionLostError(_tls_reason(error)) from error


def _endpoint(address: str, port: int) -> Endpoint | None:
    with contextlib.suppress(ValueError):
        return Endpoint.at(address, port)
    return None


def _encrypted(opened: socket.socket, endpoint: EtcdEndpoint, settings: EtcdSourceSettings) -> ssl.SSLSocket:
    """Return the socket with TLS on it, the server's certificate verified.

    Raises:
        OSError: files can't be read, or the two don't come together.
        ConnectionLostError: the server speaks no HTTP/2.
    """
    context = ssl.create_default_context(cafile=_name(settings.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if settings.client_certificate is not None:
        context.load_cert_chain(settings.client_certificate, _name(settings.client_key))
    encrypted = context.wrap_socket(opened, server_hostname=endpoint.host)
    if encrypted.selected_alpn_protocol() != "h2":
        encrypted.close()
        raise ConnectionLostError("the server speaks no HTTP/2: not an end point of etcd")
    return encrypted


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _tls_reason(error: Exception) -> str:
    """Return in words why the two don't come together."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".lower().replace("tls", "TLS")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{(error.strerror or str(error)).lower()}"
    return str(error)
