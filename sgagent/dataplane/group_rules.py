"""Rules that ask for the control group of a socket, which libnftables can't write (ADR 0016).

The kernel's own expression for it, ``socket cgroupv2``, is refused at ``postrouting``; iptables' match
``cgroup`` is allowed there, and compares without an identity: a rule holds the group that had the path when
the rule was made. So these rules are sent as netlink messages, through the socket that owns the table.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sgagent.core.conditions import GroupPath
from sgagent.netlink import ACK, NESTED, NETLINK_NETFILTER, REQUEST, NetlinkSocket, attribute, messages_in
from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import TABLE
from sgagent.nft.transactions import AddRule

_MESSAGE = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")
_INET, _IPV4, _UNSPECIFIED = 1, 2, 0
_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE, _DELETE_TABLE = (_NFTABLES << 8 | number for number in (0, 3, 6, 2))
_CREATE, _APPEND = 0x400, 0x800
_ERROR = 2
_GOTO = -4
_RECEIVED_BYTES = 1 << 16
_ANSWERED_SECONDS = 10.0
_NO_SUCH_PATH = (errno.EINVAL, errno.ENOENT)

_PATH_BYTES = 512
_REVISION = 2
_TRIED = "sgagent-tried"


_MOST_AT_ONCE = 64
"""Rules of a transaction: their messages, and an error with a copy of each, fit into 212,992 bytes, the
kernel's default for the buffers of a socket."""


def append_rules(own: socket.socket, rules: Sequence[AddRule]) -> int:
    """Append rules to chains of ours; one whose group is gone is left out.

    Args:
        own: the socket that owns the table.
        rules: each of one match and a way on. No packet is meant to see only some of them.

    Returns:
        The number of transactions that took.

    Raises:
        OSError: the kernel refused for another reason.
    """
    parts = (rules[start : start + _MOST_AT_ONCE] for start in range(0, len(rules), _MOST_AT_ONCE))
    return sum(_appends(own, part) for part in parts)


def _appends(own: socket.socket, rules: Sequence[AddRule]) -> bool:
    """Append rules in one transaction, and return whether any was left to append."""
    while rules:
        errors = _transact(own, [(_NEW_RULE, _rule(one, TABLE)) for one in rules], _INET)
        if not any(errors):
            return True
        wrong = next((number for number in errors if number and number not in _NO_SUCH_PATH), None)
        if wrong is not None:
            raise OSError(wrong, os.strerror(wrong))
        rules = [one for one, number in zip(rules, errors, strict=True) if not number]
    return False


def refusal(own: socket.socket) -> str | None:
    """Return why the kernel takes no such rules, or None if it does; nothing is done.

    It loads what it needs. The last message is refused, and with it the transaction. The kernel finds the
    module of the match by the name of the family of IPv4; with it there, ours can use it.
    """
    named = attribute(1, _text(_TRIED))
    tried = AddRule("tried", nft.Rule((nft.Match(nft.SOCKET_GROUP, (GroupPath("/"),)), nft.Accept())))
    requests = (
        (_NEW_TABLE, named),
        (_NEW_CHAIN, named + attribute(3, _text(tried.chain))),
        (_NEW_RULE, _rule(tried, _TRIED)),
        (_DELETE_TABLE, attribute(1, _text(f"{_TRIED}-not"))),
    )
    error = _transact(own, requests, _IPV4)[2]
    return os.strerror(error) if error else None


def main() -> None:
    """Fail where the kernel takes no such rules in this network namespace, of which nobody else knows."""
    with NetlinkSocket(NETLINK_NETFILTER) as own:
        sys.exit(refusal(own))


_NOISE = b"libxtables: "


@contextmanager
def without_noise() -> Iterator[None]:
    """Keep libxtables' lines off the standard error of the process; other lines are printed afterwards.

    libnftables calls it for such rules when it lists a table, and it does not know our table's family.
    """
    with os.fdopen(os.memfd_create("errors"), "r+b") as held, os.fdopen(os.dup(2), "wb") as errors:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(errors.fileno(), 2)
            held.seek(0)
            errors.writelines(line for line in held if not line.startswith(_NOISE))


def _transact(own: socket.socket, requests: Sequence[tuple[int, bytes]], family: int) -> list[int]:
    """Send a transaction, and return the error of each request; 0 for none. One error undoes all.

    Raises:
        OSError: the kernel did not look at the requests, or does not answer.
    """
    batch = _FAMILY.pack(_UNSPECIFIED, 0, _NFTABLES)
    head = _FAMILY.pack(family, 0, 0)
    messages = [
        _message(_BATCH_BEGIN, REQUEST, 0, batch),
        *(
            _message(
                kind, REQUEST | ACK | (_CREATE | _APPEND) * (kind != _DELETE_TABLE), place, head + request
            )
            for place, (kind, request) in enumerate(requests, 1)
        ),
        _message(_BATCH_END, REQUEST, len(requests) + 1, batch),
    ]
    own.send(b"".join(messages))
    errors: dict[int, int] = {}
    while len(errors) < len(requests):
        if not select.select([own], [], [], _ANSWERED_SECONDS)[0]:  # the library's own reading has to block
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        for one in messages_in(own.recv(_RECEIVED_BYTES)):
            if one.kind == _ERROR:
                errors[one.sequence] = -int(struct.unpack_from("=i", one.payload)[0])
        if errors.get(0):
            raise OSError(errors[0], os.strerror(errors[0]))
    return [errors[place] for place in range(1, len(requests) + 1)]


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return _MESSAGE.pack(_MESSAGE.size + len(payload), kind, flags, sequence, 0) + payload


def _rule(added: AddRule, table: str) -> bytes:
    asked, verdict = added.rule.statements
    if not isinstance(asked, nft.Match) or not isinstance(asked.values[0], GroupPath):
        raise TypeError("not a rule that asks for a control group")
    statements = _asking(asked.values[0].path) + _leading(verdict)
    place = attribute(1, _text(table)) + attribute(2, _text(added.chain))
    return place + attribute(4 | NESTED, statements)


def _asking(path: str) -> bytes:
    """Return the match on sockets of a group and those below, as ``struct xt_cgroup_info_v2`` says it."""
    encoded = os.fsencode(path)
    if len(encoded) >= _PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    has_path = struct.pack("=4B", 1, 0, 0, 0)
    wanted = (has_path + encoded.ljust(_PATH_BYTES, b"\0")).ljust(_ARGUMENT_BYTES, b"\0")
    number = struct.pack("!I", _REVISION)
    return _expression("match", attribute(1, _text("cgroup")) + attribute(2, number) + attribute(3, wanted))


_ARGUMENT_BYTES = 528
"""With a pointer of the kernel's at the end, aligned to 8 bytes."""


def _leading(verdict: nft.Statement) -> bytes:
    """Return the way on: to another chain, or out."""
    code = struct.pack("!i", _GOTO if isinstance(verdict, nft.Goto) else 1)
    to = attribute(2, _text(verdict.chain)) if isinstance(verdict, nft.Goto) else b""
    data = attribute(2 | NESTED, attribute(1, code) + to)
    return _expression("immediate", attribute(1, struct.pack("!I", 0)) + attribute(2 | NESTED, data))


def _expression(name: str, data: bytes) -> bytes:
    return attribute(1 | NESTED, attribute(1, _text(name)) + attribute(2 | NESTED, data))


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
