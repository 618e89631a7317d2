"""Rules changed by netlink itself: changes that no notation of nft makes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sgagent.netlink import ACK, NESTED, NETLINK_NETFILTER, REQUEST, NetlinkSocket, attribute, messages_in
from sgagent.nft.attributes import by_kind, messages, text
from tests.program_faults import Rule, split

_NFTABLES = 10
_NEW_RULE, _BATCH_BEGIN, _BATCH_END = _NFTABLES << 8 | 6, 16, 17
_REPLACE = 0x100
_INET = 1


@dataclass(frozen=True, slots=True)
class StandingRule:
    """A rule of our table in the kernel."""

    chain: str
    handle: bytes
    instructions: Rule


def rules_in(dump: bytes) -> Iterator[StandingRule]:
    """Yield the rules of a dump."""
    for kind, start, stop in messages(dump):
        if kind == _NEW_RULE:
            given = by_kind(dump, start + 4, stop)
            yield StandingRule(text(given[2]), given[3], split(given.get(4, b"")))


def replace_rule(rule: StandingRule, instructions: Iterable[bytes]) -> bool:
    """Put other instructions in the place of a rule; return whether the kernel takes them."""
    names = attribute(1, b"sgagent\0") + attribute(2, rule.chain.encode() + b"\0")
    body = names + attribute(3, rule.handle) + attribute(4 | NESTED, b"".join(instructions))
    batch = _message(_BATCH_BEGIN, REQUEST, 0, _NFTABLES)
    batch += _message(_NEW_RULE, REQUEST | ACK | _REPLACE, _INET, 0, body)
    batch += _message(_BATCH_END, REQUEST, 0, _NFTABLES)
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        netlink.send(batch)
        answers = list(messages_in(netlink.recv(1 << 16)))
    return all(answer.payload[:4] == bytes(4) for answer in answers)


def _message(kind: int, flags: int, family: int, resource: int, body: bytes = b"") -> bytes:
    content = struct.pack(">BBH", family, 0, resource) + body
    padded = content + bytes(-len(content) % 4)
    return struct.pack("=IHHII", 16 + len(content), kind, flags, 0, 0) + padded
