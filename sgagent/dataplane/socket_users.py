"""This host's TCP and UDP sockets by their sessions, and who made them (§13.3)."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Collection

from sgagent.core.model import Family
from sgagent.core.tracked_sessions import ConntrackEntry
from sgagent.dataplane.live_sessions import LISTEN, TcpSession, list_in_states
from sgagent.netlink import NETLINK_SOCK_DIAG, NetlinkSocket

_ALL_BUT_LISTENING = sum(1 << state for state in range(1, 12) if state != LISTEN)
_PROTOCOLS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)

_Ends = tuple[int, Family, int, int, int, int]
"""Protocol and family, then address and port of either end; 0 where a socket leaves them open."""


class HostSockets:
    """The sockets of the calling thread's network namespace at one moment."""

    def __init__(self) -> None:
        """List them.

        Raises:
            OSError: the kernel can't tell.
        """
        self._by_ends: defaultdict[_Ends, list[TcpSession]] = defaultdict(list)
        with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
            for protocol in _PROTOCOLS:
                for one in list_in_states(netlink, _ALL_BUT_LISTENING, protocol, with_groups=True):
                    ends = one.local_address, one.local_port, one.peer_address, one.peer_port
                    self._by_ends[protocol, one.family, *ends].append(one)

    def of(self, entry: ConntrackEntry) -> tuple[TcpSession, ...]:
        """Return the sockets that a session of this host may be of."""
        ends = entry.original
        port, far = ends.source_port or 0, (ends.destination, ends.destination_port or 0)
        places = [(entry.family, near, peer) for near in (ends.source, 0) for peer in (far, (0, 0))]
        places += [(Family.IPV6, 0, (0, 0))] * (entry.family is Family.IPV4)
        found = (
            self._by_ends.get((entry.protocol, family, near, port, *peer)) for family, near, peer in places
        )
        return tuple(one for some in found for one in some or ())

    def makers_of(self, entry: ConntrackEntry) -> Collection[tuple[int | None, int | None]]:
        """Return who may have made the socket of a session of this host, and in which control group.

        A socket that no process holds any more is nobody's, as it is to nftables. Of other protocols nothing
        is returned: nothing tells their sockets apart.
        """
        found = {(one.user, one.group) if one.inode else NOBODY for one in self.of(entry)}
        return found or {NOBODY} if entry.protocol in _PROTOCOLS else ()


NOBODY = (None, None)
"""Without a socket."""
