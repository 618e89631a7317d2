"""Changes of live sessions through netlink: clearing marks, and ending TCP sessions at listeners."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace
from sgagent.core.errors import NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.dataplane.conntrack import clear_marks, find_sessions
from sgagent.dataplane.live_sessions import Ending, destroy, link_towards, sessions_at_listeners
from sgagent.netlink import NETLINK_NETFILTER, NetlinkSocket, attributes
from sgagent.nft.marks import MarkTest
from tests.patience import PATIENCE

_GET_SESSION = 0x101
_MARK = 8
_MANY = 5000
_MPTCP_TIMEOUT = Path("/proc/sys/net/mptcp/close_timeout")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Make a namespace in which sessions are followed and marked by their port, and move into it."""
    with network_namespace() as made, made.entered():
        made.nft(
            "-f",
            "-",
            stdin="""
            table inet marking {
                map marks { type inet_service : mark; elements = { 1000 : 0x00010007, 2000 : 0x00020007 } }
                chain out {
                    type filter hook output priority 0; policy accept;
                    meta l4proto . th dport { udp . 1000, udp . 2000 } ct mark set udp dport map @marks
                }
            }""",
        )
        yield made


def marks() -> list[int]:
    """Return the marks of all sessions, sorted."""
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        answers = list(netlink.dump(_GET_SESSION, bytes(4)))
    found = (attributes(answer.payload[4:]).get(_MARK) for answer in answers)
    return sorted(struct.unpack(">I", mark)[0] for mark in found if mark is not None)


def send(address: str, port: int, count: int = 1) -> None:
    """Open UDP sessions to a port, each from another one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(count):
        with socket.socket(family, socket.SOCK_DGRAM) as sender, contextlib.suppress(ConnectionRefusedError):
            sender.sendto(b"x", (address, port))


@pytest.mark.usefixtures("namespace")
def test_only_the_bits_of_the_mask_are_cleared() -> None:
    """Sessions of both families lose our bits, and keep those of others."""
    for address in ("127.0.0.1", "::1"):
        send(address, 1000)
        send(address, 2000)
    assert marks() == [0x10007, 0x10007, 0x20007, 0x20007]
    assert clear_marks(0xFFFF0000, [MarkTest(0xFFFF0000, 0x20000)]) == 2
    assert marks() == [0x7, 0x7, 0x10007, 0x10007]
    assert clear_marks(0xFFFF0000) == 2
    assert marks() == [0x7] * 4
    assert clear_marks(0xFFFF0000) == 0


@pytest.mark.usefixtures("namespace")
def test_marks_that_meet_any_test_are_cleared() -> None:
    """Tests look at bits beside those that are cleared; a mark that meets several is cleared once."""
    for port in (1000, 2000):
        send("127.0.0.1", port)
        send("::1", port)
    tests = [MarkTest(0x20001, 0x20001), MarkTest(0x20000, 0x20000), MarkTest(0x5, 0x1)]
    assert clear_marks(0xFFFF0000, tests) == 2
    assert marks() == [0x7, 0x7, 0x10007, 0x10007]


@pytest.mark.usefixtures("namespace")
def test_clearing_nothing_changes_nothing() -> None:
    """A mark that is clear already needs no change, whether asked for by value or not."""
    send("127.0.0.1", 3000)
    assert clear_marks(0xFFFF0000, [MarkTest(0xFFFF0000, 0)]) == 0
    assert clear_marks(0xFFFF0000) == 0


@pytest.mark.usefixtures("namespace")
def test_thousands_of_sessions_are_cleared_at_once() -> None:
    """Clearing takes microseconds a session."""
    send("127.0.0.1", 1000, _MANY)
    before = len([mark for mark in marks() if mark & 0xFFFF0000])
    started = time.monotonic()
    assert clear_marks(0xFFFF0000) == before
    assert time.monotonic() - started < 2 * PATIENCE
    assert before > _MANY / 2
    assert not any(mark & 0xFFFF0000 for mark in marks())


def test_sessions_in_zones_are_cleared(namespace: Namespace) -> None:
    """A session in a conntrack zone is found again by its zone."""
    namespace.nft(
        "-f",
        "-",
        stdin="""
        table inet zones {
            chain out { type filter hook output priority -300; udp dport 1000 ct zone set 7; }
            chain in { type filter hook prerouting priority -300; udp dport 1000 ct zone set 7; }
        }""",
    )
    send("127.0.0.1", 1000)
    assert 0x10007 in marks()
    assert clear_marks(0xFFFF0000, [MarkTest(0xFFFF0000, 0x10000)]) == marks().count(0x7) > 0


@pytest.mark.usefixtures("namespace")
def test_clearing_needs_a_privilege() -> None:
    """An ordinary user is told so."""
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            clear_marks(0xFFFF0000)
        except NotPermittedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("listening", "address", "family"),
    (("127.0.0.1", "127.0.0.1", Family.IPV4), ("::1", "::1", Family.IPV6), ("::", "127.0.0.1", Family.IPV4)),
)
def test_sessions_at_listeners_can_be_ended(listening: str, address: str, family: Family) -> None:
    """The session at the listener is listed by its addresses on the wire, and ends at both ends."""
    kind = socket.AF_INET6 if ":" in listening else socket.AF_INET
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            socket.create_server((listening, 0), family=kind, dualstack_ipv6=listening == "::")
        )
        client = stack.enter_context(socket.create_connection((address, server.getsockname()[1]), timeout=5))
        accepted = stack.enter_context(server.accept()[0])
        [session] = sessions_at_listeners()
        assert session.family is family
        assert session.local_port == server.getsockname()[1]
        assert session.peer_port == client.getsockname()[1]
        assert session.inode == os.fstat(accepted.fileno()).st_ino
        assert link_towards(session) == socket.if_nametoindex("lo")
        assert destroy(session) is Ending.ENDED
        assert destroy(session) is Ending.GONE
        with pytest.raises(ConnectionError):
            client.recv(1)
        assert sessions_at_listeners() == ()


@pytest.mark.usefixtures("namespace")
@pytest.mark.skipif(
    not _MPTCP_TIMEOUT.exists(), reason="the kernel has no MPTCP, or none whose end takes less than a minute"
)
def test_an_mptcp_socket_is_said_to_end_later() -> None:
    """The kernel lets nobody end one, but does so, at both ends, when it has no TCP connection any more."""
    _MPTCP_TIMEOUT.write_text("1", encoding="ascii")
    with (
        socket.socket(proto=socket.IPPROTO_MPTCP) as server,
        socket.socket(proto=socket.IPPROTO_MPTCP) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            client.send(b"established at both ends")
            accepted.recv(64)
            accepted.send(b"so is the other one")
            client.recv(64)
            (session,) = sessions_at_listeners()
            assert destroy(session) is Ending.SUBFLOW_ENDED
            for end in (client, accepted):
                wait_for(lambda end=end: is_closed(end), "the end of an MPTCP socket")  # type: ignore[misc]  # a default binds the loop's value


def is_closed(end: socket.socket) -> bool:
    """Return whether a socket says that nothing is connected to it any more."""
    try:
        end.send(b"x", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


_ZONES = """
table inet zones {
    chain out {
        type filter hook output priority raw; policy accept;
        udp dport 1000 ct zone set 7
        udp dport 1001 ct original zone set 8
        udp dport 1002 ct reply zone set 9
    }
}
"""


@pytest.mark.parametrize("address", ("127.0.0.1", "::1"))
@pytest.mark.parametrize("last", (1004, 1020), ids=("few", "many"))
def test_sessions_are_found_in_any_zone(namespace: Namespace, address: str, last: int) -> None:
    """By either tuple, whether the zone is of one direction or of both; a session in none is not found."""
    namespace.nft("-f", "-", stdin=_ZONES)
    with socket.socket(socket.AF_INET if "." in address else socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 900))
        for port in _OPENED:
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(b"x", (address, port))
        requests = [request_to(address, port) for port in range(1000, last + 1)]
        answers = [replace(one, source_port=one.destination_port, destination_port=900) for one in requests]
        for packets, opened in ((requests, Direction.INGRESS), (answers, Direction.EGRESS)):
            found = [session and session.opened for session in find_sessions(packets)]
            assert found == [opened] * len(_OPENED) + [None] * (last - _OPENED[-1])


_OPENED = range(1000, 1004)


def request_to(address: str, port: int) -> Packet:
    """Return a datagram that comes in from port 900."""
    return Packet(
        interface="",
        direction=Direction.INGRESS,
        family=Family.IPV4 if "." in address else Family.IPV6,
        source=int(ip_address(address)),
        destination=int(ip_address(address)),
        protocol=socket.IPPROTO_UDP,
        source_port=900,
        destination_port=port,
    )


@pytest.mark.usefixtures("namespace")
def test_another_users_listener_makes_no_session_one_that_came_in() -> None:
    """Nobody may listen at all addresses, at the port of a session that the host has opened."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.connect(server.getsockname())
        with made_by_nobody() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", client.getsockname()[1]))  # noqa: S104 - in a namespace of its own
            listener.listen()
            assert [session.local_port for session in sessions_at_listeners()] == [server.getsockname()[1]]


def made_by_nobody() -> socket.socket:
    """Return a socket of TCP that another user has made."""
    os.seteuid(65534)
    try:
        return socket.socket()
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("namespace")
def test_what_this_host_opened_is_not_listed() -> None:
    """The near end of a session that this host opened has no listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=5)
        accepted, _ = server.accept()
        accepted.close()
    assert sessions_at_listeners() == ()
    client.close()
