"""Policies of IPsec (xfrm), by netlink."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from sgagent.analysis.doctor.facts import TransformPolicy
from sgagent.core.model import CidrBlock, Family
from sgagent.netlink import NETLINK_XFRM, Message, NetlinkSocket, attributes

_GET_POLICY = 21
_ASKED = bytes(64)
_SELECTOR = struct.Struct("=16s16s8xHBBB3xiI")
"""Destination, source, ports; family, lengths of both prefixes, protocol; link, user."""

_DIRECTION_AND_ACTION = struct.Struct("=BB")
_DIRECTION_AT, _POLICY_OCTETS = 160, 168
_DIRECTIONS = {0: "in", 1: "out", 2: "fwd"}
"""Those of sockets have greater numbers."""

_BLOCK = 1
_TEMPLATES, _INTERFACE = 5, 31
_TEMPLATE = struct.Struct("=16s8xH2x16s20x")
"""Destination, family, source."""

_FAMILIES = {socket.AF_INET: Family.IPV4, socket.AF_INET6: Family.IPV6}


def read_transform_policies() -> tuple[TransformPolicy, ...]:
    """Return the policies that transform or block packets, in the calling thread's network namespace.

    Those of an interface (xfrm, vti) are left out: its packets have its name.

    Raises:
        OSError: the kernel refused; without CAP_NET_ADMIN it does.
    """
    if not _is_loaded():
        return ()
    with NetlinkSocket(NETLINK_XFRM) as netlink:
        return tuple(one for message in netlink.dump(_GET_POLICY, _ASKED) for one in _policy(message))


def _is_loaded() -> bool:
    """Return whether the kernel has policies that it can list; to open a socket would load the module."""
    sockets = Path("/proc/thread-self/net/netlink").read_text(encoding="ascii").splitlines()
    return any(line.split()[1:2] == [str(NETLINK_XFRM)] for line in sockets)


def _policy(message: Message) -> Iterator[TransformPolicy]:
    """Yield a policy, unless it lets packets pass as they are, or belongs to a socket or an interface."""
    destination, source, number, to_length, from_length, *_ = _SELECTOR.unpack_from(message.payload)
    direction, action = _DIRECTION_AND_ACTION.unpack_from(message.payload, _DIRECTION_AT)
    about = attributes(message.payload[_POLICY_OCTETS:])
    templates = about.get(_TEMPLATES, b"")
    is_plain = action != _BLOCK and not templates
    if is_plain or direction not in _DIRECTIONS or number not in _FAMILIES or any(about.get(_INTERFACE, b"")):
        return
    family = _FAMILIES[number]
    ends = _block(family, source, from_length), _block(family, destination, to_length)
    is_out = _DIRECTIONS[direction] == "out"
    yield TransformPolicy(
        text=f"{_DIRECTIONS[direction]} {ends[0]} to {ends[1]}",
        near=(action != _BLOCK and _gateway(bytes(templates), is_out=is_out)) or ends[0 if is_out else 1],
        blocks=action == _BLOCK,
    )


def _gateway(templates: bytes, *, is_out: bool) -> CidrBlock | None:
    """Return this host's end of the tunnel, by the first template that has one."""
    whole = templates[: len(templates) // _TEMPLATE.size * _TEMPLATE.size]
    for destination, number, source in _TEMPLATE.iter_unpack(whole):
        address = source if is_out else destination
        if any(address) and number in _FAMILIES:
            return _block(_FAMILIES[number], address, _FAMILIES[number].bits)
    return None


def _block(family: Family, address: bytes, length: int) -> CidrBlock:
    return CidrBlock.around(family, int.from_bytes(address[: family.bits // 8]), length)
