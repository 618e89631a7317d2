"""The agent's requests to the applier about sessions, and this host's sockets by their sessions (§13.3)."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from sgagent.core.evaluate import Packet
from sgagent.core.model import Family
from sgagent.core.tracked_sessions import ConntrackEntry
from sgagent.dataplane.applier_protocol import Verb
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.conntrack_entries import Piece
from sgagent.dataplane.flow_tables import FlowTable
from sgagent.dataplane.live_sessions import LISTEN, Ending, TcpSession, list_in_states
from sgagent.dataplane.request_validation import MOST_PACKETS
from sgagent.netlink import NETLINK_SOCK_DIAG, NetlinkSocket
from sgagent.nft.marks import MarkTest


class ApplierSessions:
    """The sessions of the host, behind the boundary; may be used from any thread.

    Every method raises :class:`ApplierLostError` where the applier does not answer any more.
    """

    def __init__(self, call: Callable[..., tuple[Any, ...]]) -> None:
        """Take a function that sends a verb and values to the applier, and returns those of the answer."""
        self._call = call

    def find_sessions(self, packets: Sequence[Packet]) -> list[TrackedSession | None]:
        """Return the sessions that packets belong to, as ``conntrack.find_sessions`` does.

        Raises:
            OSError: the kernel can't be asked.
        """
        found = dict[Packet, TrackedSession | None]()
        asked = [packet for packet in packets if None not in (packet.source_port, packet.destination_port)]
        for start in range(0, len(asked), MOST_PACKETS):
            some = asked[start : start + MOST_PACKETS]
            found |= zip(some, self._call(Verb.FIND_SESSIONS, *map(_as_values, some)), strict=True)
        return [found.get(packet) for packet in packets]

    def destroy(self, session: TcpSession) -> Ending:
        """End a session at once, as :func:`sgagent.dataplane.live_sessions.destroy`.

        Raises:
            NotPermittedError: the applier lacks CAP_NET_ADMIN.
            OSError: the kernel refused for another reason.
        """
        ending: Ending
        (ending,) = self._call(Verb.END_SESSION, session.socket_family, session.identity.hex())
        return ending

    def begin_entries(self, tests: Sequence[MarkTest], *, all_protocols: bool) -> None:
        """Begin to list conntrack's entries, as ``conntrack_entries.EntryListing`` does.

        Raises:
            OSError: the kernel can't be asked.
        """
        self._call(Verb.BEGIN_ENTRIES, all_protocols, *tests)

    def next_entries(self) -> Piece:
        """Return the next piece of the listing that was begun.

        Raises:
            OSError: the kernel can't tell.
        """
        return Piece(*self._call(Verb.NEXT_ENTRIES))

    def end_entries(self, entries: Sequence[ConntrackEntry]) -> int:
        """End entries that were listed, as ``conntrack_entries.end_entries`` does, and return how many.

        Raises:
            OSError: the kernel refused.
        """
        (count,) = self._call(Verb.END_ENTRIES, *entries) if entries else (0,)
        return int(count)

    def restore(self, session: TcpSession, known: TrackedSession) -> bool:
        """Restore the entry of a session in its zones, as ``conntrack_entries.restore_entry`` does.

        Raises:
            OSError: the kernel refused.
        """
        zones = known.original_zone, known.reply_zone
        asked = session.socket_family, session.identity.hex(), *zones
        (is_made,) = self._call(Verb.RESTORE_ENTRY, *asked)
        return bool(is_made)

    def list_flow_tables(self) -> tuple[FlowTable, ...]:
        """Return the host's flow tables, as ``flow_tables.list_flow_tables`` does.

        Raises:
            OSError: the kernel can't tell.
        """
        return tuple(replace(one, links=tuple(one.links)) for one in self._call(Verb.LIST_FLOW_TABLES))

    def list_sockets(self) -> HostSockets:
        """Return the host's sockets as they are now; that takes no privilege.

        Raises:
            OSError: the kernel can't tell.
        """
        return HostSockets()


def _as_values(packet: Packet) -> list[object]:
    ends = packet.source, packet.destination, packet.source_port, packet.destination_port
    return [packet.direction, packet.family, packet.protocol, *ends]


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
