"""Netlink as bytes, with the links of this machine, which anybody may list."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from sgagent.netlink import NETLINK_ROUTE, NetlinkSocket, payloads_in

NEW_LINK = 16
GET_LINK = 18
EVERY_LINK = bytes(16)
INDEX = slice(4, 8)


@pytest.fixture
def netlink() -> Iterator[NetlinkSocket]:
    """Open a socket."""
    with NetlinkSocket(NETLINK_ROUTE) as opened:
        yield opened


def read(netlink: NetlinkSocket) -> list[bytes]:
    """Return the index of each link."""
    return [bytes(message.payload[INDEX]) for message in netlink.dump(GET_LINK, EVERY_LINK)]


def read_later(netlink: NetlinkSocket) -> list[bytes]:
    """Return the same from answers that are read when all have come."""
    received = netlink.dump_unread(GET_LINK, EVERY_LINK)
    return [received[start:stop][INDEX] for start, stop in payloads_in(received, NEW_LINK)]


def test_both_ways_of_reading_find_the_same(netlink: NetlinkSocket) -> None:
    """There is always a loopback."""
    assert read(netlink) == read_later(netlink) != []


def test_what_is_left_of_a_dump_that_was_given_up_answers_no_other(netlink: NetlinkSocket) -> None:
    """Its end is not the end of the next, which would seem to hold less than it does."""
    whole = read(netlink)
    next(netlink.dump(GET_LINK, EVERY_LINK))
    assert read(netlink) == whole
    next(netlink.dump(GET_LINK, EVERY_LINK))
    assert read_later(netlink) == whole


def test_a_refusal_is_told(netlink: NetlinkSocket) -> None:
    """As what the kernel calls it, whichever way answers are read."""
    unknown = 0x7FFF
    with pytest.raises(OSError, match="not supported"):
        list(netlink.dump(unknown, EVERY_LINK))
    with pytest.raises(OSError, match="not supported"):
        netlink.dump_unread(unknown, EVERY_LINK)


def test_more_requests_than_a_socket_sends_at_once(netlink: NetlinkSocket) -> None:
    """Each of them is answered: 3,000 of 200 bytes are about links that nobody has."""
    wrong = (GET_LINK, bytes(4) + (0x7FFF0000).to_bytes(4, "little") + bytes(200))
    assert netlink.order([wrong] * 3000) == [errno.ENODEV] * 3000
