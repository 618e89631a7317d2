"""Know who is at the other end of a Unix socket, and what they may do."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("=iII")
_SO_PEERGROUPS = 59
"""Of Linux on most machines; the socket module has no name for it."""

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
    return Peer(pid=pid, uid=uid, group_ids=frozenset({gid, *_supplementary_groups(connection)}))


def may_ask(peer: Peer, *, own_uid: int, group_id: int) -> bool:
    """Tell whether a peer may ask: root, the agent's own user, and members of the socket's group."""
    return peer.uid in (_ROOT, own_uid) or group_id in peer.group_ids


def may_change(peer: Peer, *, own_uid: int) -> bool:
    """Tell whether a peer may change anything: root and the agent's own user."""
    return peer.uid in (_ROOT, own_uid)


def _supplementary_groups(connection: socket.socket) -> Sequence[int]:
    """Return the peer's supplementary groups; none where the kernel can't list them, as before Linux 4.13.

    ``socket.getsockopt`` takes buffers of at most 1,024 bytes: 256 groups of 65,536 possible ones.
    """
    import ctypes  # noqa: PLC0415 - commands that only need the socket's name would load it too

    library = ctypes.CDLL(None)
    size = ctypes.c_uint(0)

    def read(buffer: ctypes.Array[ctypes.c_uint32] | None) -> bool:
        arguments = (connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size))
        return bool(library.getsockopt(*arguments) == 0)

    if read(None):
        return ()
    groups = (ctypes.c_uint32 * (size.value // 4))()  # the kernel refused, and said how much room it needs
    return tuple(groups) if read(groups) else ()
