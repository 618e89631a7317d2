"""Hear the kernel's packet log in a thread of its own, and take its words to the flow log."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
from collections.abc import Iterator

from sgagent.agent.flows.flowlog import FlowLog
from sgagent.dataplane.nflog import RECEIVE_BYTES, LoggedPacket, read_packets

_LONGEST_WAIT_MILLISECONDS = 1000
"""For news, before what waits to be written is written without any."""

_LONGEST_END_SECONDS = 5.0
"""For the thread to write what it has taken in; more than its writers wait for a reader."""

_MOST_MESSAGES = 16
"""That are taken in at once: some hundred packets."""

_KERNEL = 0
"""The port of who sends what is read."""


@contextlib.contextmanager
def flows_heard(opened: socket.socket, flow_log: FlowLog) -> Iterator[None]:
    """Take in what the kernel tells until the context is left; the socket is closed then.

    Args:
        opened: listens to a group of the kernel's packet log.
        flow_log: is told, in one thread.
    """
    bell, rope = socket.socketpair()
    thread = threading.Thread(target=_hear, args=(opened, bell, flow_log), name="flows", daemon=True)
    with bell, rope, opened:
        thread.start()
        try:
            yield
        finally:
            rope.shutdown(socket.SHUT_RDWR)
            flow_log.ready.set()
            thread.join(_LONGEST_END_SECONDS)


def _hear(opened: socket.socket, bell: socket.socket, flow_log: FlowLog) -> None:
    """Take in until the bell is rung; a fault of ours ends the flow log and nothing else."""
    try:
        _take_in(opened, bell, flow_log)
    except Exception as fault:  # noqa: BLE001 - the outermost frame of a thread: the agent enforces all the same
        flow_log.fail(fault)


def _take_in(opened: socket.socket, bell: socket.socket, flow_log: FlowLog) -> None:
    flow_log.ready.wait()
    poll = select.poll()
    for one in (opened, bell):
        poll.register(one, select.POLLIN)
    while True:
        ready = {number for number, _ in poll.poll(_LONGEST_WAIT_MILLISECONDS)}
        flow_log.take_in(_waiting(opened))
        if bell.fileno() in ready:
            return


def _waiting(opened: socket.socket) -> Iterator[LoggedPacket]:
    """Yield what can be read without waiting; what the kernel had no room for shows in the numbers."""
    for _ in range(_MOST_MESSAGES):
        try:
            received, (sender, _) = opened.recvfrom(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        else:
            if sender == _KERNEL:
                yield from read_packets(received)
