"""The host's routes: by which link packets to an address leave."""

from __future__ import annotations

import socket
import struct
import sys

from sgagent.core.model import Family
from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, attribute, attributes

_GET_ROUTE = 26
_ROUTE = struct.Struct("=BBB9x")
_DESTINATION, _SOURCE, _LINK = 1, 2, 4


class Routes:
    """Look routes up in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        """Open the socket to the kernel.

        Raises:
            OSError: the kernel can't be asked.
        """
        self._netlink = NetlinkSocket(NETLINK_ROUTE)

    def close(self) -> None:
        """Ask the kernel nothing more."""
        self._netlink.close()

    def link_towards(self, family: Family, peer: int, source: int | None = None) -> int | None:
        """Return the number of the link by which packets to an address leave; None if there is no route.

        Args:
            family: of both addresses.
            peer: where they go.
            source: an address of this host from which they come; None for the packets of others.
        """
        number, bits = (socket.AF_INET, 32) if family is Family.IPV4 else (socket.AF_INET6, 128)
        wanted = attribute(_DESTINATION, peer.to_bytes(bits // 8))
        if source is not None:
            wanted += attribute(_SOURCE, source.to_bytes(bits // 8))
        request = _ROUTE.pack(number, bits, bits if source is not None else 0) + wanted
        try:
            found = attributes(self._netlink.ask(_GET_ROUTE, request).payload[_ROUTE.size :])
        except OSError:
            return None
        return int.from_bytes(found[_LINK], sys.byteorder) if _LINK in found else None
