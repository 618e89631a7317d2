"""The thread that reads the kernel's packet log and feeds the flow log."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, assert_never

from sgagent.agent.flowlog.flowlog import FlowLog
from sgagent.agent.flowlog.outputs import FileWriter, FlowWriter, JournalWriter, NoWriter, StreamWriter
from sgagent.agent.step import EventLog
from sgagent.dataplane.nflog import RECEIVE_BYTES, LoggedPacket, read_packets
from sgagent.ports import Clock
from sgagent.settings import FlowLogSettings, FlowOutput, Settings

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
    """Read the kernel's packet log in a thread until the context is left; then close the socket.

    Args:
        opened: a socket bound to a group of the kernel's packet log.
        flow_log: receives the packets, in that thread.
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


_LACKING = "the kernel takes no rules that log to a group (nfnetlink_log)"


class LogKeeper(Protocol):
    """What can say whether the kernel has a packet log."""

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group, and return whether the kernel can do that."""
        ...


class LogOpener(LogKeeper, Protocol):
    """What can open it, too."""

    def open_log(self) -> socket.socket:
        """Listen to the group that plans may log to, and return the socket to read."""
        ...


def begin_flow_log(
    settings: Settings, dataplane: LogOpener, clock: Clock, log: EventLog
) -> tuple[Settings, FlowLog, socket.socket | None]:
    """Return the configuration in effect, the flow log, and the socket of the kernel's packet log.

    If the kernel has no packet log, or another program listens to the group, the flow log stays empty. The
    policy is enforced in any case.

    Args:
        settings: the configuration.
        dataplane: opens the kernel's packet log.
        clock: the time.
        log: hears why there is none.
    """
    wanted = settings.flow_log.logging
    if not wanted.verdicts:
        return settings, FlowLog(clock, log), None
    try:
        opened, reason = (dataplane.open_log(), "") if dataplane.allow_log(wanted.group) else (None, _LACKING)
    except OSError as error:
        opened, reason = None, f"group {wanted.group} of the kernel's packet log: {error.strerror}"
    if opened is None:
        log.warning("flow_log_unavailable", reason=reason)
        missed = FlowLog(clock, log, unavailable=reason, is_asked_for=settings.flow_log.is_asked_for)
        return without_flow_log(settings), missed, None
    flow_log = FlowLog(
        clock,
        log,
        logging=wanted,
        writer=make_writer(settings.flow_log),
        is_asked_for=settings.flow_log.is_asked_for,
    )
    return settings, flow_log, opened


def in_effect(settings: Settings, dataplane: LogKeeper) -> Settings:
    """Return the configuration as an agent will find it in effect, without listening."""
    logging = settings.flow_log.logging
    if not logging.verdicts or dataplane.allow_log(logging.group):
        return settings
    return without_flow_log(settings)


def without_flow_log(settings: Settings) -> Settings:
    """Return the configuration with the flow log switched off."""
    return replace(settings, flow_log=replace(settings.flow_log, dropped=False, accepted=False))


def make_writer(settings: FlowLogSettings) -> FlowWriter:
    """Return what writes flows down."""
    match settings.output:
        case FlowOutput.NONE:
            return NoWriter()
        case FlowOutput.JOURNAL:
            return JournalWriter()
        case FlowOutput.STDOUT:
            return StreamWriter(sys.stdout)
        case Path() as path:
            return FileWriter(path, rotate_bytes=settings.rotate_bytes, keep_files=settings.keep_files)
        case _:
            assert_never(settings.output)
