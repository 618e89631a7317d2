"""Know who is at the other end of a Unix socket, and what they may do."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("=iII")
_SO_PEERGROUPS = 59
"""Of Linux on most machines; the socket module has no name for it."""

_MOST_GROUPS = 65536
_ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that connected, as the kernel vouches for it."""

    pid: int
    uid: int
    group_ids: frozenset[int]
    """Its own group and the supplementary ones."""


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError:
        groups = b""  # a kernel that can't tell: the group that the peer acts for has to do
    supplementary = struct.unpack(f"={len(groups) // 4}I", groups)
    return Peer(pid=pid, uid=uid, group_ids=frozenset({gid, *supplementary}))


def may_ask(peer: Peer, *, own_uid: int, group_id: int) -> bool:
    """Tell whether a peer may ask: root, the agent's own user, and members of the socket's group."""
    return peer.uid in (_ROOT, own_uid) or group_id in peer.group_ids


def may_change(peer: Peer, *, own_uid: int) -> bool:
    """Tell whether a peer may change anything: root and the agent's own user."""
    return peer.uid in (_ROOT, own_uid)
