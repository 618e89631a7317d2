"""This host's SCTP associations that are older than conntrack's hooks.

Conntrack follows an association from its first chunk on. Of one that is older, it calls every packet invalid
until an end sends a heartbeat, and then takes that end for the one that opened it. The sockets know the tags
that conntrack compares, and a local port that listens shows that the far end opened it. So the agent adds
their entries to conntrack, and the kernel evaluates them like any other session (§6.3, §6.6).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sgagent.core.model import Direction, Family
from sgagent.core.tracked_sessions import FlowTuple
from sgagent.dataplane import conntrack_messages as messages
from sgagent.dataplane.conntrack_messages import ConntrackTuple, family_number
from sgagent.netlink import NESTED, NETLINK_NETFILTER, NETLINK_SOCK_DIAG, NetlinkSocket, attribute, attributes

_ASSOCIATIONS = Path("/proc/thread-self/net/sctp/assocs")
"""There only where the kernel's SCTP is loaded: asking for sockets would load it."""

_DIAGNOSE_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBxI48s")
_ANSWER = struct.Struct(">xBxxHH64x")
"""State and ports, of 72 bytes; attributes follow."""

_INFO, _LOCALS, _PEERS = 2, 12, 13
_WITH_INFO = 1 << (_INFO - 1)
_TAGS = struct.Struct("=II40xI")
"""Of the sockets' information: own tag, state, the peer's tag."""

_ESTABLISHED = 3
"""Of the kernel's states; those after it are of associations that shut down."""

_LISTEN = 10
_ANY = 0
"""Where a socket listens that waits at all addresses."""

_EVERY_STATE = 0xFFFFFFFF
_ADDRESS_BYTES = 128
"""Of each address in a list of an association's ends."""

_ADDRESSES = {socket.AF_INET: (Family.IPV4, slice(4, 8)), socket.AF_INET6: (Family.IPV6, slice(8, 24))}

_MOST = 10_000
"""Pairs of addresses that are added to conntrack; its table is limited."""

_TIMEOUT_SECONDS = 210
"""Of an established association, by default, in seconds; the next packet sets it anew."""

_SCTP_STATE_PART = 3
_SCTP_ESTABLISHED = 4
"""Of conntrack's states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """A pair of addresses of an association: it may have several at each end."""

    family: Family
    local_address: int
    local_port: int
    peer_address: int
    peer_port: int
    local_tag: int
    """In what comes in."""

    peer_tag: int
    opened: Direction


def follow_associations() -> int:
    """Let conntrack follow the associations of the calling thread's network namespace that it does not know.

    Returns:
        How many pairs of addresses were added.

    Raises:
        OSError: the kernel can't tell or refused.
    """
    if not _ASSOCIATIONS.exists():
        return 0
    orders = [(messages.NEW, entry_of(one)) for one in islice(associations_in(_list_sockets()), _MOST)]
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        errors = netlink.order(orders, is_creating=True)
    for number in errors:
        if number != errno.EEXIST:
            raise OSError(number, errno.errorcode.get(number, str(number)))
    return len(orders) - len(errors)


def _list_sockets() -> Iterator[memoryview]:
    """Yield the kernel's answer about each socket and association."""
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        for family in _ADDRESSES:
            every = _REQUEST.pack(family, socket.IPPROTO_SCTP, _WITH_INFO, _EVERY_STATE, bytes(48))
            yield from (message.payload for message in netlink.dump(_DIAGNOSE_BY_FAMILY, every))


def associations_in(answers: Iterable[memoryview]) -> Iterator[Association]:
    """Yield each pair of addresses of the open associations in the kernel's answers."""
    sockets = [(*_ANSWER.unpack_from(one), attributes(one[_ANSWER.size :])) for one in answers]
    listening = dict[int, set[int]]()
    for state, port, _, found in sockets:
        if state == _LISTEN and _PEERS not in found:
            listening.setdefault(port, set()).update(one for _, one in _addresses(found[_LOCALS]))
    for _, local_port, peer_port, found in sockets:
        if _PEERS in found and _INFO in found:
            local = {_ANY, *(one for _, one in _addresses(found[_LOCALS]))}
            is_listening = not local.isdisjoint(listening.get(local_port, ()))
            yield from _pairs(found, local_port, peer_port, is_listening=is_listening)


def _pairs(
    found: dict[int, memoryview], local_port: int, peer_port: int, *, is_listening: bool
) -> Iterator[Association]:
    """Yield the pairs of addresses of one association."""
    local_tag, state, peer_tag = _TAGS.unpack_from(found[_INFO])
    if state < _ESTABLISHED:
        return
    for family, local in _addresses(found[_LOCALS]):
        for other, peer in _addresses(found[_PEERS]):
            if other is family:
                yield Association(
                    family=family,
                    local_address=local,
                    local_port=local_port,
                    peer_address=peer,
                    peer_port=peer_port,
                    local_tag=local_tag,
                    peer_tag=peer_tag,
                    opened=Direction.INGRESS if is_listening else Direction.EGRESS,
                )


def _addresses(ends: memoryview) -> Iterator[tuple[Family, int]]:
    """Yield the addresses in a list of them."""
    for start in range(0, len(ends) - _ADDRESS_BYTES + 1, _ADDRESS_BYTES):
        number = int.from_bytes(ends[start : start + 2], sys.byteorder)
        family, place = _ADDRESSES[socket.AddressFamily(number)]
        yield family, int.from_bytes(ends[start : start + _ADDRESS_BYTES][place])


def entry_of(one: Association) -> bytes:
    """Return the request for the entry that conntrack would have made."""
    far_to_near = FlowTuple(one.peer_address, one.peer_port, one.local_address, one.local_port)
    tuples, tags = (far_to_near, far_to_near.turned), (one.local_tag, one.peer_tag)
    if one.opened is Direction.EGRESS:
        tuples, tags = tuples[::-1], tags[::-1]
    number, family = messages.NUMBER.pack, family_number(one.family)
    kinds = messages.TUPLE_ORIGINAL, messages.TUPLE_REPLY
    encoded = (ConntrackTuple(family, socket.IPPROTO_SCTP, ends).encoded() for ends in tuples)
    state = (
        attribute(1, bytes([_SCTP_ESTABLISHED]))
        + attribute(2, number(tags[0]))
        + attribute(3, number(tags[1]))
    )
    seen = messages.SEEN_REPLY | messages.ASSURED | messages.CONFIRMED
    return b"".join(
        (
            messages.HEADER.pack(family, 0, 0),
            *(attribute(kind | NESTED, one) for kind, one in zip(kinds, encoded, strict=True)),
            attribute(messages.STATUS, number(seen)),
            attribute(messages.PROTOCOL_STATE | NESTED, attribute(_SCTP_STATE_PART | NESTED, state)),
            attribute(messages.TIMEOUT, number(_TIMEOUT_SECONDS)),
        )
    )
