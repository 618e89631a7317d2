"""Know at which addresses a server is, also when its name can't be looked up any more.

A policy may cut the host off its resolver. The way to the source stays open (§7.4), so what was found before
is remembered, over restarts too: else such a policy would be the last that this host ever got.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from sgagent.core.policy import Endpoint

LookUp = Callable[[str, int], list[str]]
"""Return the addresses of a host for TCP, or raise OSError."""

_NAME = "source-addresses"
_MOST_ADDRESSES = 64


def addresses_file(state_directory: Path, number: int = 0) -> Path:
    """Return where the addresses of a server are remembered; sources that have several number them from 0."""
    return state_directory / (f"{_NAME}-{number}.json" if number else f"{_NAME}.json")


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system's resolver finds them.

    Raises:
        OSError: there are none, or the resolver can't be reached.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _written_out(host: str) -> tuple[str, ...]:
    """Return the address that stands in the place of a name: nobody has to be asked for it."""
    try:
        ip_address(host)
    except ValueError:
        return ()
    return (host,)


class Whereabouts:
    """The addresses of one server."""

    def __init__(self, host: str, port: int, look_up: LookUp = look_up, memory: Path | None = None) -> None:
        """Start without having looked; an address is known without a look, and so is what was found before.

        Args:
            host: the server's name, or its address.
            port: its port.
            look_up: finds the addresses of a name.
            memory: the file in which they are remembered; its directory need not be there yet. None forgets.
        """
        self._host, self._port, self._look_up, self._memory = host, port, look_up, memory
        self._addresses = _written_out(host) or self._recalled()
        self._remembered: tuple[str, ...] | None = None

    def find(self) -> tuple[str, ...]:
        """Return the addresses: those found now, else those found last.

        Raises:
            OSError: none were ever found.
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
        """Return the addresses that were found last, in the order in which to try them."""
        return self._addresses

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where the server was found last, in a total order."""
        found = {Endpoint.at(address, self._port) for address in self._addresses}
        return tuple(sorted(found, key=lambda endpoint: (str(endpoint.address), endpoint.port)))

    def _remember(self) -> None:
        """Write the addresses down if they are new; a place that can't be written to is tried again."""
        if self._memory is None or self._addresses == self._remembered:
            return
        content = json.dumps({"host": self._host, "port": self._port, "addresses": self._addresses})
        draft = self._memory.with_name(f".{self._memory.name}.new")
        with contextlib.suppress(OSError):
            draft.write_text(content, encoding="utf-8")
            draft.replace(self._memory)
            self._remembered = self._addresses

    def _recalled(self) -> tuple[str, ...]:
        """Return the addresses that were written down; none if those are another server's, or damaged."""
        if self._memory is None:
            return ()
        try:
            kept = json.loads(self._memory.read_bytes())
            addresses = tuple(map(str, kept["addresses"]))[:_MOST_ADDRESSES]
            for address in addresses:
                Endpoint.at(address, self._port)
            return addresses if (kept["host"], kept["port"]) == (self._host, self._port) else ()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ()
