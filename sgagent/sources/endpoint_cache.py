"""Cache of a server's addresses, in a file, for when the name can't be resolved.

A policy may block the host's resolver. Traffic to the source stays admitted (§7.4), but the agent needs the
addresses for that, also after a restart. Without the cache, such a policy would be the last one that the host
fetches.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from sgagent.core.policy import Endpoint
from sgagent.json_model import UNREADABLE, from_json

LookUp = Callable[[str, int], list[str]]
"""Returns the addresses of a host for TCP, or raises OSError."""

_NAME = "source-addresses"
_MOST_ADDRESSES = 64


def addresses_file(state_directory: Path, number: int = 0) -> Path:
    """Return the path of a server's cache file; a source with several servers numbers them from 0."""
    return state_directory / (f"{_NAME}-{number}.json" if number else f"{_NAME}.json")


def look_up(host: str, port: int) -> list[str]:
    """Resolve a host by the system's resolver.

    Raises:
        OSError: the host has no addresses, or the resolver can't be reached.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _written_out(host: str) -> tuple[str, ...]:
    """Return the host if it is an address, which needs no resolver."""
    try:
        ip_address(host)
    except ValueError:
        return ()
    return (host,)


@dataclass(frozen=True, slots=True)
class _CacheFile:
    """What the file holds."""

    host: str
    port: int
    addresses: tuple[str, ...]


class EndpointCache:
    """The cached addresses of one server."""

    def __init__(self, host: str, port: int, look_up: LookUp = look_up, memory: Path | None = None) -> None:
        """Load the addresses from the file; resolve nothing yet.

        Args:
            host: the server's name, or its address.
            port: its port.
            look_up: resolves a name.
            memory: the cache file, whose directory need not exist yet; None for no file.
        """
        self._host, self._port, self._look_up, self._memory = host, port, look_up, memory
        self._addresses = _written_out(host) or self._recalled()
        self._remembered: tuple[str, ...] | None = None

    def find(self) -> tuple[str, ...]:
        """Resolve the name and return the addresses; return the cached ones if that fails.

        Raises:
            OSError: the resolver fails and the cache is empty.
        """
        try:
            self._addresses = tuple(self._look_up(self._host, self._port))[:_MOST_ADDRESSES]
        except OSError:
            if not self._addresses:
                raise
        else:
            self._remember()
        return self._addresses

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the cached addresses, in the order in which to try them."""
        return self._addresses

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached addresses as sorted endpoints."""
        found = {Endpoint.at(address, self._port) for address in self._addresses}
        return tuple(sorted(found, key=lambda endpoint: (str(endpoint.address), endpoint.port)))

    def _remember(self) -> None:
        """Write changed addresses to the file; a failed write is retried after the next look-up."""
        if self._memory is None or self._addresses == self._remembered:
            return
        content = json.dumps({"host": self._host, "port": self._port, "addresses": self._addresses})
        draft = self._memory.with_name(f".{self._memory.name}.new")
        with contextlib.suppress(OSError):
            draft.write_text(content, encoding="utf-8")
            draft.replace(self._memory)
            self._remembered = self._addresses

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
