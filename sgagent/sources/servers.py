"""Connections to the servers of sources: addresses, name servers, TLS and secret files.

A policy may block the host's resolver. Traffic to the source stays admitted (§7.4), but the agent needs the
addresses for that, also after a restart. Without a cache of them in a file, such a policy would be the last
one that the host fetches.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import SourceUnavailableError
from sgagent.core.model import TCP, UDP
from sgagent.json_model import UNREADABLE, checksum, from_json
from sgagent.settings import Settings
from sgagent.settings.sources import AnySource, TlsTable

if TYPE_CHECKING:
    import ssl

ResolveHost = Callable[[str, int], list[str]]
"""Returns the addresses of a host for TCP, or raises OSError."""

_NAME = "source-addresses"
_MOST_ADDRESSES = 64


def addresses_file(state_directory: Path, host: str, port: int) -> Path:
    """Return the path of a server's cache file, whose name is safe and short for any host."""
    return state_directory / f"{_NAME}-{checksum(f'{host} {port}'.encode())[:16]}.json"


def look_up(host: str, port: int) -> list[str]:
    """Resolve a host by the system's resolver.

    Raises:
        OSError: the host has no addresses, or the resolver can't be reached.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # of Python, before it asks: a label is empty or too long
        raise OSError(errno.EINVAL, f"no host name: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    """Return whether a host is an address, which needs no resolver."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _CacheFile:
    """The file's content."""

    host: str
    port: int
    addresses: tuple[str, ...]


class EndpointCache:
    """The cached addresses of one server."""

    def __init__(
        self, host: str, port: int, look_up: ResolveHost = look_up, memory: Path | None = None
    ) -> None:
        """Load the addresses from the file; resolve nothing yet.

        Args:
            host: the server's name, or its address.
            port: its port.
            look_up: resolves a name.
            memory: the cache file, whose directory need not exist yet; None for no file.
        """
        self._host, self._port, self._look_up, self._memory = host, port, look_up, memory
        self.addresses = (host,) if _is_address(host) else self._recalled()
        """The cached addresses, in the order in which to try them."""

        self._remembered: tuple[str, ...] | None = None

    def find(self) -> tuple[str, ...]:
        """Resolve the name and return the addresses; return the cached ones if that fails.

        Raises:
            OSError: the resolver fails and the cache is empty.
        """
        try:
            self.addresses = tuple(self._look_up(self._host, self._port))[:_MOST_ADDRESSES]
        except OSError:
            if not self.addresses:
                raise
        else:
            self._remember()
        return self.addresses

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached addresses as sorted endpoints."""
        found = {Endpoint.at(address, self._port) for address in self.addresses}
        return tuple(sorted(found, key=lambda endpoint: (str(endpoint.address), endpoint.port)))

    def _remember(self) -> None:
        """Write changed addresses to the file, safe from a power cut; retry after the next look-up."""
        if self._memory is None or self.addresses == self._remembered:
            return
        content = json.dumps({"host": self._host, "port": self._port, "addresses": self.addresses})
        draft = self._memory.with_name(f".{self._memory.name}.new")
        with contextlib.suppress(OSError), draft.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            draft.replace(self._memory)
            self._remembered = self.addresses

    def _recalled(self) -> tuple[str, ...]:
        """Return the addresses in the file; none if it is damaged or belongs to another server."""
        if self._memory is None:
            return ()
        try:
            kept = from_json(_CacheFile, json.loads(self._memory.read_bytes()))
            for address in kept.addresses[:_MOST_ADDRESSES]:
                Endpoint.at(address, self._port)
            is_same = (kept.host, kept.port) == (self._host, self._port)
            return kept.addresses[:_MOST_ADDRESSES] if is_same else ()
        except (OSError, *UNREADABLE):
            return ()


def known_endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Return the cached endpoints of the configured source; of a union, those of all its sources."""
    found: list[Endpoint] = []
    for host, port in settings.source.servers:
        memory = addresses_file(settings.state.directory, host, port)
        found += EndpointCache(host, port, memory=memory).endpoints()
    return tuple(dict.fromkeys(found))


RESOLV_CONF = Path("/etc/resolv.conf")
BEHIND_A_STUB = Path("/run/systemd/resolve/resolv.conf")
"""The upstream servers of systemd-resolved; with it, the other file names a stub on loopback."""

_RESOLVER_FILES = (RESOLV_CONF, BEHIND_A_STUB)
DNS_PORT = 53
_MOST_SERVERS = 8
_LONGEST_FILE = 65_536


def name_servers(source: AnySource, files: tuple[Path, ...] = _RESOLVER_FILES) -> tuple[Endpoint, ...]:
    """Return the endpoints of the host's name servers; none if the source needs no resolver.

    Args:
        source: the configured source.
        files: as of :func:`host_name_servers`.
    """
    if all(_is_address(host) for host, _ in source.servers):
        return ()
    return dns_endpoints(host_name_servers(files))


def host_name_servers(files: tuple[Path, ...] = _RESOLVER_FILES) -> tuple[str, ...]:
    """Return the addresses of the host's name servers, in the order in which to ask them.

    Link-local ones have their zone: ``fe80::1%eth0``.

    Args:
        files: in the format of resolv.conf(5); an unreadable file names no servers.
    """
    return tuple(dict.fromkeys(address for file in files for address in _named_in(file)))[:_MOST_SERVERS]


def dns_endpoints(addresses: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return where name servers are asked over the network; the host itself is asked over loopback."""
    plain = dict.fromkeys(address.partition("%")[0] for address in addresses)
    remote = (address for address in plain if not ip_address(address).is_loopback)
    return tuple(Endpoint.at(address, DNS_PORT, protocol) for address in remote for protocol in (UDP, TCP))


def _named_in(file: Path) -> list[str]:
    """Return the addresses of the name servers in a file."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            lines = opened.read(_LONGEST_FILE).splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    named = (found[1] for found in words if len(found) > 1 and found[0] == "nameserver")
    return [address for address in named if _is_address(address)]


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
            raise TimeoutError("timed out")
        return left


def connect_to_first(addresses: Sequence[str], port: int, deadline: ConnectionDeadline) -> socket.socket:
    """Return a TCP connection to the first address that answers; they share the remaining time equally.

    Raises:
        OSError: no address answered in time, or there is none.
    """
    fault = OSError(0, "its address is not known")
    for index, address in enumerate(addresses):
        share = deadline.remaining() / (len(addresses) - index)
        try:
            connected = socket.create_connection((address, port), timeout=share)
        except OSError as error:
            fault = error
        else:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
    raise fault


def make_context(settings: TlsTable, application_protocol: str) -> ssl.SSLContext:
    """Return a TLS context with the configured authorities and client certificate, read from their files.

    Raises:
        SourceUnavailableError: a file can't be read, or has no valid certificate or key.
    """
    import ssl  # noqa: PLC0415 - sources that read files do without

    if settings.ca_file is not None:
        require_regular(settings.ca_file)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as error:
        raise SourceUnavailableError(f"{settings.ca_file}: no certificates: {_reason(error)}") from error
    context.set_alpn_protocols([application_protocol])
    certificate = settings.client_certificate
    if certificate is not None:
        key = settings.client_key or certificate
        require_private(key)
        require_regular(certificate)
        try:
            # The empty password keeps OpenSSL from asking on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            raise SourceUnavailableError(
                f"{certificate}: no certificate with its key: {_reason(error)}"
            ) from error
    return context


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def tls_reason(error: ssl.SSLError) -> str:
    """Return why TLS failed, in the library's words."""
    untrusted: str | None = getattr(error, "verify_message", None)
    if untrusted is not None:
        return f"TLS failed: the server's certificate is not trusted: {untrusted}"
    return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"


_LONGEST_TOKEN = 16 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1; other characters could have a meaning in a header."""


def require_regular(path: Path) -> os.stat_result:
    """Return the kernel's status of a regular file, and refuse one that could block or never end.

    Raises:
        SourceUnavailableError: it is a pipe, a device, a socket or a directory, or does not exist.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SourceUnavailableError(f"{path}: can't be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        message = "a pipe, a device, a socket or a directory, and so not read"
        raise SourceUnavailableError(f"{path}: {message} (put a regular file there, or a link to one)")
    return status


def require_private(path: Path) -> None:
    """Refuse anything but a regular file that only its owner and group can read.

    Raises:
        SourceUnavailableError: it is no regular file, others can read it, or it does not exist.
    """
    if require_regular(path).st_mode & stat.S_IRWXO:
        raise SourceUnavailableError(f"{path}: everybody can read this secret (chmod o= {path})")


def read_secret(path: Path, most: int) -> str:
    """Return the first characters of a file, at most so many.

    Raises:
        SourceUnavailableError: the file can't be read, is no regular file, or everybody can read it. The
            message never includes the content.
    """
    require_private(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read(most)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SourceUnavailableError(f"{path}: can't be read: {reason}") from error


def read_token(path: Path) -> str:
    """Return the bearer token in a file, without surrounding white space.

    Raises:
        SourceUnavailableError: as for :func:`read_secret`, or the file has no token.
    """
    token = read_secret(path, _LONGEST_TOKEN + 1).strip()
    if len(token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
        expected = "one line of letters, digits and - . _ ~ + / ="
        raise SourceUnavailableError(f"{path}: not a bearer token ({expected})")
    return token
