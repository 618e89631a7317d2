"""Build the packets that are sent, and send many of them with one system call.

A frame that leaves the peer by a packet socket is received by the host on the same processor before the next
one is sent, so the time of the call is what its packets took: from the socket to where the host drops them.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Sequence

from integration.namespaces import Namespace
from sgagent.policy_test.packet_bytes import WirePacket

HOST_MAC = "02:00:00:00:01:00"
PEER_MAC = "02:00:00:00:02:00"
MOST_PER_CALL = 64
"""Frames that are sent with one system call: many against its own cost, few against a cache's lines."""

_SOL_PACKET = 263
_PACKET_QDISC_BYPASS = 20
_HEADER = bytes.fromhex(HOST_MAC.replace(":", "") + PEER_MAC.replace(":", "") + "0800")
_LAST_IDENTITY = 60_000
_LENGTH = 60
"""Of every frame, padded as the shortest on an Ethernet are."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """The kernel's ``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """The kernel's ``struct mmsghdr``."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


_LIBC = ctypes.CDLL(None, use_errno=True)


class Frames:
    """Packets as frames from the peer to the host, in a row."""

    def __init__(self, packets: Sequence[WirePacket]) -> None:
        """Lay the packets out."""
        self.count = len(packets)
        self._row = b"".join(_frame(packet, number) for number, packet in enumerate(packets))
        self._stage = _Stage()

    def send(self, wire: socket.socket, first: int, count: int) -> int:
        """Send some of the frames and return the nanoseconds that it took.

        Args:
            wire: a socket of :func:`open_wire`.
            first: the place of the first frame.
            count: at most :data:`MOST_PER_CALL`, and not beyond the last frame.

        Raises:
            OSError: not all were sent.
        """
        self._stage.put(self._row[first * _LENGTH : (first + count) * _LENGTH])
        return self._stage.send(wire, count)


class _Stage:
    """Memory that the kernel takes frames from: little, so that the sender costs the same in every call."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(MOST_PER_CALL * _LENGTH)
        self._vectors = (_Vector * MOST_PER_CALL)()
        self._messages = (_Message * MOST_PER_CALL)()
        for number in range(MOST_PER_CALL):
            place = ctypes.addressof(self._bytes) + number * _LENGTH
            self._vectors[number] = _Vector(place, _LENGTH)
            self._messages[number].header.vectors = ctypes.addressof(self._vectors[number])
            self._messages[number].header.vector_count = 1

    def put(self, frames: bytes) -> None:
        ctypes.memmove(self._bytes, frames, len(frames))

    def send(self, wire: socket.socket, count: int) -> int:
        descriptor = wire.fileno()
        began = time.perf_counter_ns()
        sent = _LIBC.sendmmsg(descriptor, self._messages, count, 0)
        took = time.perf_counter_ns() - began
        if sent != count:
            number = ctypes.get_errno()
            raise OSError(number, f"sendmmsg sent {sent} of {count} frames: {os.strerror(number)}")
        return took


def open_wire(peer: Namespace, interface: str) -> socket.socket:
    """Return a socket that puts frames on the wire at once, past the queueing discipline."""
    wire = peer.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((interface, 0))
    wire.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    return wire


def _frame(packet: WirePacket, number: int) -> bytes:
    (datagram,) = packet.datagrams(1 + number % _LAST_IDENTITY)
    return (_HEADER + datagram).ljust(_LENGTH, b"\0")
