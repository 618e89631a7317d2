"""Plant iptables-nft's rules, without it: matches and targets of xtables in rules of nftables."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from integration.namespaces import Namespace
from sgagent.netlink import ACK, NESTED, NETLINK_NETFILTER, REQUEST, attribute, messages_in

_NFTABLES = 10 << 8
_BEGIN, _END, _NEW_RULE = 16, 17, _NFTABLES | 6
_HEADER = struct.Struct("=IHHII")
_ABOUT = struct.Struct(">BBH")
_NUMBER = struct.Struct(">I")
_APPEND, _CREATE = 0x800, 0x400
_ERROR = 2


@dataclass(frozen=True, slots=True)
class Extension:
    """A match or target as a module of the kernel declares it."""

    kind: str
    """``match`` or ``target``."""

    name: str
    revision: int
    argument: bytes

    def encoded(self) -> bytes:
        """Return the expression."""
        name = attribute(1, self.name.encode() + b"\0")
        revision = attribute(2, _NUMBER.pack(self.revision))
        data = name + revision + attribute(3, self.argument)
        return attribute(1 | NESTED, attribute(1, self.kind.encode() + b"\0") + attribute(2 | NESTED, data))


def connmark(*, mode: int, mark: int = 0, mask: int = 0xFFFFFFFF, of_packet: int = 0xFFFFFFFF) -> Extension:
    """Return CONNMARK: mode 0 sets, 1 saves, 2 restores."""
    return Extension("target", "CONNMARK", 1, struct.pack("=IIIBxxx", mark, mask, of_packet, mode))


def matches_connmark(mark: int, mask: int) -> Extension:
    """Return ``-m connmark --mark MARK/MASK``."""
    return Extension("match", "connmark", 1, struct.pack("=IIBxxx", mark, mask, 0))


def ct(*, zone: int = 0, is_notrack: bool = False) -> Extension:
    """Return ``-j CT --zone ZONE`` or ``--notrack``."""
    argument = struct.pack("=HHII16s32s12x", int(is_notrack), zone, 0, 0, b"", b"")
    return Extension("target", "CT", 2, argument)


def add_rule(
    host: Namespace, table: str, chain: str, extensions: Sequence[Extension], family: int = socket.AF_INET
) -> None:
    """Add a rule to a chain of a table that stands.

    Raises:
        OSError: the kernel refused.
    """
    expressions = b"".join(one.encoded() for one in extensions)
    rule = b"".join(
        (
            attribute(1, table.encode() + b"\0"),
            attribute(2, chain.encode() + b"\0"),
            attribute(4 | NESTED, expressions),
        )
    )
    whose = 2 if family == socket.AF_INET else family
    requests = (
        (_BEGIN, 0, _ABOUT.pack(0, 0, 10)),
        (_NEW_RULE, ACK | _APPEND | _CREATE, _ABOUT.pack(whose, 0, 0) + rule),
        (_END, 0, _ABOUT.pack(0, 0, 10)),
    )
    text = b""
    for number, (kind, flags, payload) in enumerate(requests, start=1):
        text += _HEADER.pack(_HEADER.size + len(payload), kind, REQUEST | flags, number, 0) + payload
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10)
        netlink.send(text)
        for message in messages_in(netlink.recv(1 << 16)):
            error = -struct.unpack_from("=i", message.payload)[0] if message.kind == _ERROR else 0
            if error:
                raise OSError(error, f"the kernel refused a rule of {table} {chain}")
