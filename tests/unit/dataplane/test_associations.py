"""What the kernel tells of SCTP's sockets, and what conntrack is told of their associations."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from sgagent.core.model import Direction, Family
from sgagent.dataplane.associations import Association, associations_in, entry_of
from sgagent.netlink import attribute, attributes

ESTABLISHED, COOKIE_WAIT, SHUTDOWN_SENT, LISTEN = 3, 1, 5, 10
OWN_TAG, PEER_TAG = 0x11223344, 0x55667788


def answer(
    ports: tuple[int, int],
    locals_: tuple[str, ...],
    peers: tuple[str, ...] = (),
    *,
    state: int = ESTABLISHED,
    is_listening: bool = False,
) -> memoryview:
    """Return what the kernel answers about an association, or without peers about a socket."""
    head = struct.pack(">xBxxHH64x", LISTEN if is_listening else 1, *ports)
    parts = attribute(12, b"".join(map(written, locals_)))
    if peers:
        parts += attribute(13, b"".join(map(written, peers)))
        parts += attribute(2, struct.pack("=II40xI", OWN_TAG, state, PEER_TAG) + bytes(80))
    return memoryview(head + parts)


def written(address: str) -> bytes:
    """Return an address as the kernel writes it, in 128 bytes."""
    found = ip_address(address)
    family, gap = (socket.AF_INET, b"") if found.version == 4 else (socket.AF_INET6, bytes(4))
    return (struct.pack("=H2x", family) + gap + found.packed).ljust(128, b"\0")


def association(
    local: str, peer: str, opened: Direction, ports: tuple[int, int] = (2905, 40000)
) -> Association:
    """Return a pair of addresses of one."""
    near, far = ip_address(local), ip_address(peer)
    return Association(
        family=Family.IPV4 if near.version == 4 else Family.IPV6,
        local_address=int(near),
        local_port=ports[0],
        peer_address=int(far),
        peer_port=ports[1],
        local_tag=OWN_TAG,
        peer_tag=PEER_TAG,
        opened=opened,
    )


@pytest.mark.parametrize("waits_at", ("10.0.0.1", "0.0.0.0", "::"))  # noqa: S104 - nothing is bound
def test_a_local_port_that_listens_shows_that_the_far_end_opened_it(waits_at: str) -> None:
    """At its address or at all, wherever in the answers it is; this host opened every other one."""
    at_listener = answer((2905, 40000), ("10.0.0.1",), ("192.0.2.9",))
    own = answer((40001, 2905), ("10.0.0.1",), ("192.0.2.9",))
    elsewhere = answer((40001, 0), ("127.0.0.1",), is_listening=True)
    listener = answer((2905, 0), (waits_at,), is_listening=True)
    assert list(associations_in([at_listener, own, elsewhere, listener])) == [
        association("10.0.0.1", "192.0.2.9", Direction.INGRESS),
        association("10.0.0.1", "192.0.2.9", Direction.EGRESS, (40001, 2905)),
    ]


def test_each_pair_of_addresses_of_a_family_counts() -> None:
    """An association may have several addresses at each end, of both families."""
    one = answer((2905, 40000), ("10.0.0.1", "10.0.1.1", "2001:db8::1"), ("192.0.2.9", "2001:db8:9::9"))
    assert list(associations_in([one])) == [
        association("10.0.0.1", "192.0.2.9", Direction.EGRESS),
        association("10.0.1.1", "192.0.2.9", Direction.EGRESS),
        association("2001:db8::1", "2001:db8:9::9", Direction.EGRESS),
    ]


@pytest.mark.parametrize(
    ("state", "is_told"), ((COOKIE_WAIT, False), (ESTABLISHED, True), (SHUTDOWN_SENT, True))
)
def test_what_is_still_opening_is_left(state: int, is_told: bool) -> None:  # noqa: FBT001 - a column of the table
    """Conntrack meets the rest of its opening."""
    one = answer((2905, 40000), ("10.0.0.1",), ("192.0.2.9",), state=state)
    assert bool(list(associations_in([one]))) is is_told


def test_a_socket_without_a_peer_is_no_association() -> None:
    """The kernel answers for the socket of each association, too."""
    assert list(associations_in([answer((2905, 40000), ("10.0.0.1",))])) == []


@pytest.mark.parametrize(("local", "peer"), (("10.0.0.1", "192.0.2.9"), ("2001:db8::1", "2001:db8:9::9")))
@pytest.mark.parametrize("opened", Direction)
def test_the_entry_is_as_if_conntrack_had_seen_the_opening(local: str, peer: str, opened: Direction) -> None:
    """Its original tuple is of who opened; what each way carries is the tag of whom it goes to."""
    entry = attributes(memoryview(entry_of(association(local, peer, opened)))[4:])
    original = attributes(attributes(entry[1])[1])
    source, destination = map(bytes, original.values())
    ends = (ip_address(peer).packed, ip_address(local).packed)
    assert (source, destination) == (ends if opened is Direction.INGRESS else ends[::-1])
    back = tuple(map(bytes, attributes(attributes(entry[2])[1]).values()))
    assert back == (destination, source)
    of_sctp = attributes(attributes(entry[4])[3])
    tags = tuple(int.from_bytes(of_sctp[kind]) for kind in (2, 3))
    assert tags == ((OWN_TAG, PEER_TAG) if opened is Direction.INGRESS else (PEER_TAG, OWN_TAG))
    ports = attributes(attributes(entry[1])[2])
    numbers = tuple(int.from_bytes(ports[kind]) for kind in (2, 3))
    assert numbers == ((40000, 2905) if opened is Direction.INGRESS else (2905, 40000))
