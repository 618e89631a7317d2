"""What an open session is for is told by its port and by who holds it."""

from __future__ import annotations

from dataclasses import replace

from sgagent.agent.sessions import classified
from sgagent.core.lockout import LiveSession, SessionKind
from sgagent.core.model import Direction
from sgagent.dataplane.live_sessions import TcpSession, TcpSockets
from tests.unit.agent.test_forbidden_sessions import SESSION


def at(port: int, inode: int) -> TcpSession:
    """Return a session at a port of this host."""
    return replace(SESSION, local_port=port, inode=inode)


def kinds(sessions: tuple[LiveSession, ...]) -> dict[int, SessionKind]:
    """Return what the sessions are for, by their local ports."""
    return {session.local_port: session.kind for session in sessions}


def test_logins_are_told_by_port_and_by_server() -> None:
    """Port 22, the port of an SSH server, and what such a server holds."""
    sockets = TcpSockets(
        listeners=tuple(at(port, port) for port in (22, 80, 2222, 2200)),
        sessions=(at(22, 1), at(80, 2), at(2222, 3), at(2200, 4)),
    )
    found = classified(sockets, of_ssh_servers={2222, 4})
    assert kinds(found) == {
        22: SessionKind.MANAGEMENT,
        80: SessionKind.OTHER,
        2222: SessionKind.MANAGEMENT,
        2200: SessionKind.MANAGEMENT,
    }
    assert {session.opened for session in found} == {Direction.INGRESS}


def test_of_what_this_host_opened_only_our_own_counts() -> None:
    """The agent's session to its source is one; those of other programs are not looked at."""
    sockets = TcpSockets(listeners=(), sessions=(at(40_000, 1), at(40_001, 2)))
    (found,) = classified(sockets, of_ourselves={2})
    assert (found.local_port, found.kind, found.opened) == (40_001, SessionKind.SOURCE, Direction.EGRESS)


def test_who_reads_our_metrics_did_not_come_from_here() -> None:
    """A session at our own listener was opened by the far end, though we hold it."""
    sockets = TcpSockets(listeners=(at(9469, 1),), sessions=(at(9469, 2),))
    (found,) = classified(sockets, of_ourselves={1, 2})
    assert (found.kind, found.opened) == (SessionKind.OTHER, Direction.INGRESS)
