"""What an open session is for is told by its port and by who holds it."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from sgagent.agent.sessions import classified
from sgagent.core.lockout import LiveSession, SessionKind
from sgagent.core.model import Direction, Family
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


HOST6 = 0x20010DB8 << 96 | 0x11
SESSION6 = replace(
    SESSION, family=Family.IPV6, local_address=HOST6, peer_address=HOST6 + 1, socket_family=socket.AF_INET6
)
MAPPED = replace(SESSION, socket_family=socket.AF_INET6)
"""Over IPv4, at a socket of IPv6."""

ANY, ANY6 = replace(SESSION, local_address=0), replace(SESSION6, local_address=0)


def on_link(session: TcpSession, number: int) -> TcpSession:
    """Return a socket that is bound to a link."""
    return replace(session, identity=bytes(36) + struct.pack("=I", number) + bytes(8))


@pytest.mark.parametrize(
    ("listener", "session"),
    (
        *((SESSION, SESSION), (ANY, SESSION)),
        *((SESSION6, SESSION6), (ANY6, SESSION6), (ANY6, MAPPED), (MAPPED, MAPPED)),
        *((on_link(SESSION, 3), on_link(SESSION, 3)), (SESSION, on_link(SESSION, 3))),
        *((ANY, replace(SESSION, user=33)), (replace(ANY, user=33), replace(SESSION, user=33))),
        (replace(ANY, user=33), replace(SESSION, inode=0)),
    ),
)
def test_a_listener_accepts_sessions_of_its_address_family_and_link(
    listener: TcpSession, session: TcpSession
) -> None:
    """At each address, over both families at a socket of IPv6, and on each link, unless it says which."""
    assert TcpSockets(listeners=(listener,), sessions=(session,)).at_listeners == (session,)


@pytest.mark.parametrize(
    ("listener", "session"),
    (
        (replace(SESSION, local_address=0x7F000001), SESSION),
        (replace(SESSION, local_address=SESSION.local_address + 1), SESSION),
        (replace(ANY, local_port=23), SESSION),
        (replace(SESSION6, local_address=1), SESSION6),
        (replace(SESSION6, local_address=SESSION.local_address), MAPPED),
        *((ANY6, SESSION), (ANY, SESSION6), (ANY, MAPPED), (replace(MAPPED, local_address=0), SESSION6)),
        *((on_link(SESSION, 3), SESSION), (on_link(ANY, 3), on_link(SESSION, 2))),
        *((replace(ANY, user=65534), SESSION), (replace(ANY, user=65534), replace(SESSION, user=33))),
    ),
)
def test_a_port_alone_makes_no_listener(listener: TcpSession, session: TcpSession) -> None:
    """Anybody may listen at a loopback address, at the port of a session that the host has opened (§6.3)."""
    assert TcpSockets(listeners=(listener,), sessions=(session,)).at_listeners == ()
