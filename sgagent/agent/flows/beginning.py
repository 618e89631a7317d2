"""Begin the flow log as the configuration says, if the kernel can do what that takes."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol, assert_never

from sgagent.agent.flows.flowlog import FlowLog
from sgagent.agent.flows.writing import FileWriter, FlowWriter, JournalWriter, NoWriter, StreamWriter
from sgagent.agent.telling.steplog import EventLog
from sgagent.ports import Clock
from sgagent.settings import FlowLogSettings, FlowOutput, Settings

_LACKING = "the kernel takes no rules that log to a group (nfnetlink_log)"


class LogKeeper(Protocol):
    """What can say whether the kernel has a packet log."""

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group, and tell whether the kernel can do that."""
        ...


class LogOpener(LogKeeper, Protocol):
    """What can open it, too."""

    def open_log(self) -> socket.socket:
        """Listen to the group that plans may log to, and return the socket to read."""
        ...


def begin_flow_log(
    settings: Settings, dataplane: LogOpener, clock: Clock, log: EventLog
) -> tuple[Settings, FlowLog, socket.socket | None]:
    """Return the configuration in effect, the flow log, and where the kernel is heard.

    Where the kernel can't tell of judgements, or another program listens, nothing is told, and what is
    enforced is enforced all the same.

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
    """Return the configuration with nothing to be told of judgements."""
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
