"""Conntrack's entries through netlink: listing, ending and restoring them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace
from sgagent.core.model import Family
from sgagent.core.tracked_sessions import ConntrackEntry
from sgagent.dataplane.conntrack_entries import PIECE, EntryListing, end_entries, restore_entry
from sgagent.dataplane.live_sessions import sessions_at_listeners
from sgagent.nft.marks import MarkTest

MASK = 0xFFFF0000
FOLLOWED = """
table inet followed {
    chain zones {
        type filter hook output priority raw; policy accept;
        th dport 1000 ct zone set 7
        th dport 1001 ct original zone set 8
        th dport 1002 ct reply zone set 9
    }
    chain out {
        type filter hook output priority 0; policy accept;
        ct state new ct mark set 0x00010007
        th dport 1003 ct mark set 0x00020007
    }
}
"""
PORTS = range(1000, 1004)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Make a namespace in which sessions are followed, in zones by their port, and move into it."""
    with network_namespace() as made, made.entered():
        made.nft("-f", "-", stdin=FOLLOWED)
        yield made


def entries(*tests: MarkTest, all_protocols: bool = True) -> list[ConntrackEntry]:
    """Return the listed entries, of all pieces."""
    listing, found = EntryListing(tests, all_protocols=all_protocols), list[ConntrackEntry]()
    while True:
        piece = listing.next_piece()
        found += piece.entries
        if piece.is_last:
            return found


def send(address: str, ports: range) -> None:
    """Open UDP sessions to ports, from port 900."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 900))
        for port in ports:
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(b"x", (address, port))


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("address", ("127.0.0.1", "::1"))
def test_listed_entries_are_ended_each_in_its_zone(address: str) -> None:
    """In one zone, in one for a direction, or in the default one; the others stay."""
    for some in ("127.0.0.1", "::1"):
        send(some, PORTS)
    family = Family.IPV6 if ":" in address else Family.IPV4
    listed = [entry for entry in entries() if entry.family is family and entry.protocol == 17]
    assert sorted(entry.original.destination_port or 0 for entry in listed) == list(PORTS)
    zones = {entry.original.destination_port: (entry.original_zone, entry.reply_zone) for entry in listed}
    assert zones == {1000: (7, 7), 1001: (8, 0), 1002: (0, 9), 1003: (0, 0)}
    assert end_entries(listed, MASK) == len(PORTS)
    assert end_entries(listed, MASK) == 0
    assert {entry.family for entry in entries(all_protocols=False)} == {*Family} - {family}


@pytest.mark.usefixtures("namespace")
def test_entries_whose_mark_meets_a_test_are_not_listed() -> None:
    """Nor are those of protocols that are not asked for."""
    send("127.0.0.1", PORTS)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        marks = [entry.mark for entry in entries(MarkTest(MASK, 0x10000), all_protocols=False)]
        assert marks == [0x20007]
        assert {entry.protocol for entry in entries()} >= {6, 17}


@pytest.mark.usefixtures("namespace")
def test_a_listing_comes_in_pieces() -> None:
    """One that is given up, and one that goes on."""
    for first in range(2000, 2000 + 2 * PIECE, 500):
        send("127.0.0.1", range(first, first + 500))
    listing = EntryListing((), all_protocols=False)
    assert not listing.next_piece().is_last
    listing.close()
    assert len(entries(all_protocols=False)) == 2 * PIECE


@contextlib.contextmanager
def connection(address: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends of a TCP session: of who opened it, and of who accepted it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2], timeout=5)
        accepted, _ = server.accept()
        with client, accepted:
            yield client, accepted


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("address", ("127.0.0.1", "::1"))
def test_in_the_place_of_a_tcp_session_stands_one_that_is_closing(address: str) -> None:
    """The next packet of either end is part of it and opens nothing; bits of others stay in its mark."""
    with connection(address) as (client, accepted):
        (listed,) = (entry for entry in entries() if entry.protocol == 6)
        assert end_entries([listed], MASK) == 1
        accepted.send(b"goes on")
        assert client.recv(64) == b"goes on"
        (found,) = (entry for entry in entries() if entry.protocol == 6)
    assert (found.original, found.reply, found.mark) == (listed.original, listed.reply, listed.mark & ~MASK)


def test_a_tcp_entry_that_has_ended_meanwhile_is_left(namespace: Namespace) -> None:
    """Nothing is made in its place; nor is one replaced that began there since."""
    with connection() as (client, accepted):
        (listed,) = (entry for entry in entries() if entry.protocol == 6)
        namespace.run("conntrack", "-F")
        assert end_entries([listed], MASK) == 0
        assert not [entry for entry in entries() if entry.protocol == 6]
        accepted.send(b"begins anew")
        assert client.recv(64) == b"begins anew"
        begun = [entry for entry in entries() if entry.protocol == 6]
        assert end_entries([listed], MASK) == 0
        assert [entry for entry in entries() if entry.protocol == 6] == begun != []


@pytest.mark.parametrize("address", ("127.0.0.1", "::1"))
def test_a_socket_entry_is_restored_as_opened_by_the_far_end(namespace: Namespace, address: str) -> None:
    """Whoever sends next; where there is one, it stays."""
    with connection(address) as (client, accepted):
        (session,) = sessions_at_listeners()
        assert not restore_entry(session.socket_family, session.identity)
        namespace.run("conntrack", "-F")
        assert restore_entry(session.socket_family, session.identity)
        accepted.send(b"goes on")
        assert client.recv(64) == b"goes on"
        (found,) = (entry for entry in entries() if entry.protocol == 6)
        assert found.original.source_port == client.getsockname()[1]
        assert found.original.destination_port == accepted.getsockname()[1]
    wait_for(lambda: not sessions_at_listeners(), "the end of the session")
    assert not restore_entry(session.socket_family, session.identity)
