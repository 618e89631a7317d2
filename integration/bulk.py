"""Send packets that were made before, hundreds by one system call.

The interpreter's lock is free while the kernel sends, so a storm goes on while another thread compiles and
applies a policy.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

_MOST_OF_A_CALL = 512
_REFUSED = frozenset({errno.EPERM, errno.ENOBUFS, errno.EAGAIN, errno.ENETDOWN})
"""What a raw socket answers when the packet was dropped on its way out, and what a full queue answers."""


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVector)),
        ("vectors_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint32))


_LIBC = ctypes.CDLL(None, use_errno=True)


class Batch:
    """Packets that are sent together, in order."""

    def __init__(self, opened: socket.socket, packets: Sequence[bytes], addresses: Sequence[bytes]) -> None:
        """Lay the packets out as the kernel reads them.

        Args:
            opened: the socket to send them by.
            packets: frames or datagrams.
            addresses: for each packet where it goes, as the kernel reads a socket's address.
        """
        self.socket = opened
        self._kept = (tuple(packets), tuple(addresses))
        self._vectors = (_IoVector * len(packets))()
        self._messages = (_Message * len(packets))()
        for place, packet in enumerate(packets):
            self._vectors[place].base = packet
            self._vectors[place].length = len(packet)
            message = self._messages[place].header
            message.vectors = ctypes.pointer(self._vectors[place])
            message.vectors_length = 1
            message.name = addresses[place]
            message.name_length = len(addresses[place])

    def __len__(self) -> int:
        """Return the number of packets."""
        return len(self._messages)

    def send(self) -> None:
        """Send all packets; those behind one that a rule drops on its way out are sent as well.

        Raises:
            OSError: the kernel refused a packet for another reason.
        """
        descriptor, place = self.socket.fileno(), 0
        while place < len(self):
            count = min(_MOST_OF_A_CALL, len(self) - place)
            sent = _LIBC.sendmmsg(descriptor, ctypes.byref(self._messages[place]), count, 0)
            if sent > 0:
                place += sent
            elif ctypes.get_errno() in _REFUSED:
                place += 1
            else:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))


def socket_address(address: str) -> bytes:
    """Return an address as the kernel reads the target of a raw socket."""
    parsed = ip_address(address)
    if parsed.version == 4:
        return struct.pack("=HH4s8x", socket.AF_INET, 0, parsed.packed)
    return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, parsed.packed, 0)


class Sender:
    """A thread that sends batches in turn while it is told to."""

    def __init__(self, name: str, processors: Iterable[int]) -> None:
        """Start the thread; it sends nothing yet.

        Args:
            name: of the thread.
            processors: on which it runs.
        """
        self._processors = frozenset(processors)
        self._batches: tuple[Batch, ...] = ()
        self._condition = threading.Condition()
        self._is_wanted = self._is_ending = False
        self._is_idle = True
        self._pause = 0.0
        self._fault: OSError | None = None
        self.rounds = 0
        """How often all batches have been sent."""

        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, batches: Iterable[Batch], pause: float = 0.0) -> None:
        """Send batches over and over again from now on.

        Args:
            batches: what to send.
            pause: seconds between two rounds.
        """
        with self._condition:
            self._pause = pause
            self._batches = tuple(batch for batch in batches if len(batch))
            self._is_wanted = bool(self._batches)
            self._is_idle = not self._is_wanted
            self.rounds = 0
            self._condition.notify_all()

    def end(self) -> None:
        """Stop behind the batch that is under way, and return when that is sent.

        Raises:
            OSError: the kernel refused a packet.
        """
        with self._condition:
            self._is_wanted = False
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._is_idle)
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def wait_for_round(self) -> None:
        """Return when all batches have been sent once since they were given."""
        with self._condition:
            self._condition.wait_for(lambda: self.rounds > 0 or self._is_idle)

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._is_wanted, self._is_ending = False, True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        os.sched_setaffinity(0, self._processors)
        while self._wait_for_work():
            try:
                for batch in self._batches:
                    if not self._is_wanted:
                        break
                    batch.send()
            except OSError as fault:
                self._fault, self._is_wanted = fault, False
            with self._condition:
                self.rounds += 1
                self._condition.notify_all()
                if self._pause:
                    self._condition.wait_for(lambda: not self._is_wanted, self._pause)

    def _wait_for_work(self) -> bool:
        """Wait until there is something to send; return False at the end."""
        with self._condition:
            if not self._is_wanted:
                self._is_idle = True
                self._condition.notify_all()
            self._condition.wait_for(lambda: self._is_wanted or self._is_ending)
            return not self._is_ending
