"""Send streams of packets at full rate from a process and a processor of their own, and time every call.

A frame is received on the sender's processor before its call returns, so no packet can have waited longer
than its call took. The sender goes before all that is not real-time; every now and then it steps aside for a
moment, since the kernel would make it.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import multiprocessing
import os
import socket
import threading
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.frames import Frames, open_wire
from bench.policies import INTERFACE
from bench.policy_changes import ACCEPTED, KNOWN, REFUSED, STREAMERS, UNSPOKEN
from bench.processor import one_processor
from bench.traffic import HOST_ADDRESS, Session
from integration.namespaces import Namespace
from sgagent.policy_test.packet_bytes import WirePacket, tcp

PER_CALL = 8
"""Frames of one stream that are sent with one system call."""

DIFFERENT = 512
"""Packets of a stream, sent in turns."""

_AT_A_STRETCH = 0.03
_ASIDE = 0.004
_END_SECONDS = 10.0


class Stream(enum.Enum):
    """The kind of the sent packets."""

    ACCEPTED = "accepted, new sessions"
    KNOWN = "accepted, known sessions"
    UNSPOKEN = "denied by default"
    REFUSED = "denied by a rule"


@dataclass(frozen=True, slots=True)
class Sent:
    """The packets sent in a while."""

    nanoseconds: Mapping[Stream, array[int]]
    """Of each call."""

    def packets(self, stream: Stream) -> int:
        """Return how many packets of a stream were sent."""
        return PER_CALL * len(self.nanoseconds[stream])


@dataclass(frozen=True, slots=True)
class Sender:
    """A process that sends on request."""

    _asked: Connection

    @contextlib.contextmanager
    def sending(self) -> Iterator[list[Sent]]:
        """Send until the context is left; then the list has the sent packets."""
        found: list[Sent] = []
        self._asked.send("begin")
        self._asked.recv()
        try:
            yield found
        finally:
            self._asked.send("end")
            answer = self._asked.recv()
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)


def known_sessions() -> list[Session]:
    """Return the sessions that a host has to know before anything is sent to it."""
    return [Session(STREAMERS[n % len(STREAMERS)], 1024 + n, KNOWN) for n in range(DIFFERENT)]


@contextlib.contextmanager
def sender_at(peer: Namespace, processor: int) -> Iterator[Sender]:
    """Start a process that sends from a peer on a processor, and end it."""
    ours, theirs = multiprocessing.Pipe()
    making = multiprocessing.get_context("spawn")
    process = making.Process(target=_work, args=(peer.name, processor, theirs), daemon=True)
    process.start()
    try:
        yield Sender(ours)
    finally:
        with contextlib.suppress(OSError):
            ours.send(None)
        process.join(_END_SECONDS)
        process.kill()


def _work(name: str, processor: int, asked: Connection) -> None:
    """Send whenever asked to, until there is nothing more to do."""
    os.sched_setaffinity(0, {processor})
    gc.disable()
    frames = {stream: Frames(_packets(stream)) for stream in Stream}
    with open_wire(Namespace(name), INTERFACE) as wire:
        while asked.recv():
            asked.send("begun")
            try:
                with one_processor():
                    sent = _send_until_asked(frames, wire, asked)
            except Exception as error:  # noqa: BLE001 - it is handed on to who asked
                asked.recv()
                asked.send(error)
            else:
                asked.recv()
                asked.send(sent)


def _packets(stream: Stream) -> list[WirePacket]:
    if stream is Stream.KNOWN:
        return [session.request for session in known_sessions()]
    port = {Stream.ACCEPTED: ACCEPTED, Stream.UNSPOKEN: UNSPOKEN, Stream.REFUSED: REFUSED}[stream]
    return [
        tcp(STREAMERS[number % len(STREAMERS)], HOST_ADDRESS, 1024 + number, port)
        for number in range(DIFFERENT)
    ]


def _send_until_asked(frames: Mapping[Stream, Frames], wire: socket.socket, asked: Connection) -> Sent:
    found = {stream: array("Q") for stream in Stream}
    rows = [(frames[stream], found[stream].append) for stream in Stream]
    aside, first = threading.Event(), 0
    while not asked.poll():
        until = time.monotonic() + _AT_A_STRETCH
        while time.monotonic() < until:
            for row, note in rows:
                note(row.send(wire, first, PER_CALL))
            first = (first + PER_CALL) % DIFFERENT
        aside.wait(_ASIDE)
    return Sent(found)
