"""Measure the floor: the rest of a change without any work but the kernel's.

``python -m bench.floor``, as root; ``--write`` keeps it. The same change is made by a netlink message that is
ready, by libnftables in a process that has begun long ago, and by ``nft``, in turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from bench.daemon import transactions
from bench.definition_writers import FIRST_NEWCOMER, Change
from bench.packetcost import compiled_text
from bench.policies import INTERFACE, BenchPolicy, invent
from bench.section import COSTS_PAGE, Section, begin, finish, milliseconds, parser_of, table
from bench.sizes import SIZES, Size
from integration.namespaces import network_namespace
from sgagent.core.model import Direction, Family
from sgagent.dataplane.libnftables import Context
from sgagent.netlink import ACK, NESTED, NETLINK_NETFILTER, REQUEST, attribute
from sgagent.nft.names import class_chain, peers_chain
from sgagent.nft.ruleset import TABLE

NAME = "floor"
REPEATS = {SIZES[1]: 40, SIZES[2]: 40, SIZES[3]: 10}
LOADS = 3
WAYS = MESSAGE, IN_PROCESS, BY_NFT = "a ready message", "libnftables", "`nft`"
LOAD = "everything"

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("!BBH")
_BEGIN, _END = 16, 17
_SUBSYSTEM = 10
_NEW_ELEMENT, _DELETE_ELEMENT = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_CREATE = 0x400
_INET = 1
_GOTO = struct.pack("!i", -4)
_TABLE_OF, _MAP_OF, _ELEMENTS = 1, 2, 3
_KEY, _DATA = 1, 2
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_ELEMENT = 1
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """The duration of one way of making one change, in seconds, on average."""

    size: Size
    change: str
    way: str
    seconds: float
    user: float
    """Of the processor, outside the kernel."""

    system: float
    """Of the processor, in the kernel."""


@dataclass(frozen=True, slots=True)
class _Times:
    """The durations of one run."""

    seconds: float
    user: float
    system: float


def measure_floor(policy: BenchPolicy, repeats: int, loads: int) -> Iterator[Took]:
    """Measure all changes at one size."""
    with (
        network_namespace("floor") as host,
        host.entered(),
        contextlib.closing(_Batches()) as batches,
    ):
        context = Context()
        context.load(compiled_text(policy))
        yield from _mean(policy.size, Change.MEMBER.value, _member(policy, context, batches, repeats))
        yield from _mean(policy.size, Change.RULE.value, _rule(policy, context, repeats))
    yield from _mean(policy.size, LOAD, _loads(policy, loads))


def _mean(size: Size, change: str, found: dict[str, list[_Times]]) -> Iterator[Took]:
    for way, times in found.items():
        yield Took(
            size=size,
            change=change,
            way=way,
            seconds=sum(one.seconds for one in times) / len(times),
            user=sum(one.user for one in times) / len(times),
            system=sum(one.system for one in times) / len(times),
        )


def _member(
    policy: BenchPolicy, context: Context, batches: _Batches, repeats: int
) -> dict[str, list[_Times]]:
    """Add a member and delete it again, each way in turns."""
    found: dict[str, list[_Times]] = {MESSAGE: [], IN_PROCESS: [], BY_NFT: []}
    place = (Direction.INGRESS, INTERFACE, Family.IPV4)
    rule = next(rule for rule in policy.rules if rule.authorization_object in policy.groups)
    target = class_chain(*place, (str(rule.authorization_object),))
    there_and_back = (
        batches.element(_NEW_ELEMENT, peers_chain(*place), FIRST_NEWCOMER, target),
        batches.element(_DELETE_ELEMENT, peers_chain(*place), FIRST_NEWCOMER, target),
    )
    commands = transactions(policy, Change.MEMBER)
    for _ in range(repeats):
        found[MESSAGE].extend(_here(partial(batches.send, batch)) for batch in there_and_back)
        found[IN_PROCESS].extend(_here(partial(context.load, argv[1])) for argv, _ in commands)
        found[BY_NFT].extend(_process(*command) for command in commands)
    return found


def _rule(policy: BenchPolicy, context: Context, repeats: int) -> dict[str, list[_Times]]:
    """Move a rule to another port and back, each way in turns."""
    found: dict[str, list[_Times]] = {IN_PROCESS: [], BY_NFT: []}
    commands = transactions(policy, Change.RULE)
    for _ in range(repeats):
        found[IN_PROCESS].extend(_here(partial(context.run, json.loads(text))) for _, text in commands)
        found[BY_NFT].extend(_process(*command) for command in commands)
    return found


def _loads(policy: BenchPolicy, loads: int) -> dict[str, list[_Times]]:
    """Load the finished text into namespaces that have nothing yet."""
    found: dict[str, list[_Times]] = {IN_PROCESS: [], BY_NFT: []}
    text = compiled_text(policy)
    for _ in range(loads):
        with network_namespace("floor") as empty, empty.entered():
            context = Context()
            found[IN_PROCESS].append(_here(partial(context.load, text)))
        with network_namespace("floor") as empty, empty.entered():
            found[BY_NFT].append(_process(("nft", "-f", "-"), text))
    return found


def _here(work: Callable[[], object]) -> _Times:
    """Do something in this thread."""
    before, began = resource.getrusage(resource.RUSAGE_THREAD), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_THREAD)
    return _Times(seconds, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)


def _process(argv: tuple[str, ...], stdin: str) -> _Times:
    """Run a command.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, input=stdin, text=True, capture_output=True, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Times(seconds, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)


class _Batches:
    """Transactions as bytes, and the socket that takes them, in the namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_SECONDS)

    def close(self) -> None:
        self._socket.close()

    def element(self, kind: int, name: str, address: IPv4Address, target: str) -> bytes:
        """Return the transaction that puts an address into a map of verdicts, or takes it out."""
        verdict = attribute(_CODE, _GOTO) + attribute(_CHAIN, target.encode() + b"\0")
        key = attribute(_KEY | NESTED, attribute(_VALUE, address.packed))
        data = attribute(_DATA | NESTED, attribute(_VERDICT | NESTED, verdict))
        elements = attribute(_ELEMENT | NESTED, key + data)
        place = attribute(_TABLE_OF, TABLE.encode() + b"\0") + attribute(_MAP_OF, name.encode() + b"\0")
        flags = REQUEST | ACK | (_CREATE if kind == _NEW_ELEMENT else 0)
        return (
            _message(_BEGIN, REQUEST, 0, _SUBSYSTEM, b"")
            + _message(kind, flags, _INET, 0, place + attribute(_ELEMENTS | NESTED, elements))
            + _message(_END, REQUEST, 0, _SUBSYSTEM, b"")
        )

    def send(self, batch: bytes) -> None:
        """Have the kernel carry a transaction out.

        Raises:
            OSError: it refused.
        """
        self._socket.send(batch)
        answer = self._socket.recv(65_536)
        (error,) = struct.unpack_from("=i", answer, _HEADER.size)
        if error:
            raise OSError(-error, f"the kernel refused the transaction: {os.strerror(-error)}")


def _message(kind: int, flags: int, family: int, resource_id: int, payload: bytes) -> bytes:
    body = _FAMILY.pack(family, 0, resource_id) + payload
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def lines(found: Sequence[Took]) -> Iterator[str]:
    """Yield the table."""
    took_by = {(took.size, took.change, took.way): took for took in found}
    yield from table(
        ("rules/members", "change", *WAYS),
        (
            (str(size), change, *(_cell(took_by.get((size, change, way))) for way in WAYS))
            for size, change in dict.fromkeys((took.size, took.change) for took in found)
        ),
    )


def _cell(took: Took | None) -> str:
    """Return the time, and how much of it the processor spent in the kernel."""
    return f"{milliseconds(took.seconds)} ({milliseconds(took.system)})" if took else ""


def main(argv: Sequence[str]) -> int:
    """Measure, and print a table."""
    parser = parser_of(NAME, "Measure what of a change is the kernel's.")
    options = parser.parse_args(argv)
    begin()
    sizes = SIZES[1:2] if options.quick else SIZES[1:]
    found = [took for size in sizes for took in measure_floor(invent(size), REPEATS[size], LOADS)]
    return finish(Section(NAME, list(lines(found)), found, COSTS_PAGE), [], writes=options.write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
