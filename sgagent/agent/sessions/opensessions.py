"""List this host's open TCP sessions, and say of each what it is for: who would be locked out without it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sgagent.core.lockout import LiveSession, SessionKind
from sgagent.core.model import Direction
from sgagent.dataplane.sockets import TcpSession, TcpSockets, list_sockets
from sgagent.host.processes import own_sockets, sockets_of_agents, sockets_of_ssh_servers

SSH_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Which sockets are whose, by their inodes."""

    ssh_servers: Collection[int] = frozenset()
    """Empty for an agent that may not look into other processes."""

    ourselves: Collection[int] = frozenset()


def open_sessions() -> tuple[LiveSession, ...]:
    """Return the sessions at this host's listeners, and those that this process has opened to others.

    Where there are none, nobody looks for who holds them, in all processes.

    Raises:
        OSError: the kernel can't tell.
    """
    sockets = list_sockets()
    if not sockets.sessions:
        return ()
    return classified(sockets, Holders(ssh_servers=sockets_of_ssh_servers(), ourselves=own_sockets()))


def open_sessions_of_agents_too() -> tuple[LiveSession, ...]:
    """Return the sessions as a command sees them: also those that a running agent has opened to others.

    Raises:
        OSError: the kernel can't tell.
    """
    holders = Holders(ssh_servers=sockets_of_ssh_servers(), ourselves=own_sockets() | sockets_of_agents())
    return classified(list_sockets(), holders)


def classified(sockets: TcpSockets, holders: Holders) -> tuple[LiveSession, ...]:
    """Return the sessions at listeners and our own, with what they are for.

    A login is a session at port 22, at a port where an SSH server listens, or one that such a server holds.
    """
    ports = {SSH_PORT, *(s.local_port for s in sockets.listeners if s.inode in holders.ssh_servers)}

    def kind(session: TcpSession) -> SessionKind:
        is_login = session.local_port in ports or session.inode in holders.ssh_servers
        return SessionKind.MANAGEMENT if is_login else SessionKind.OTHER

    incoming = sockets.at_listeners
    known = {session.inode for session in incoming}
    ours = (s for s in sockets.sessions if s.inode in holders.ourselves and s.inode not in known)
    return (
        *(as_live_session(session, kind(session)) for session in incoming),
        *(as_live_session(session, SessionKind.SOURCE, Direction.EGRESS) for session in ours),
    )


def as_live_session(
    session: TcpSession, kind: SessionKind | None = None, opened: Direction = Direction.INGRESS
) -> LiveSession:
    """Return what the core needs to know of a session; unless said, its port tells what it is for."""
    by_port = SessionKind.MANAGEMENT if session.local_port == SSH_PORT else SessionKind.OTHER
    return LiveSession(
        family=session.family,
        local_address=session.local_address,
        local_port=session.local_port,
        peer_address=session.peer_address,
        peer_port=session.peer_port,
        opened=opened,
        kind=kind or by_port,
    )


ListSessions = Callable[[], Collection[LiveSession]]
"""Lists sessions, or raises OSError where the kernel can't tell."""
