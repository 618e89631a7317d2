"""Write the log: for people on a terminal, as a JSON object per line anywhere else.

Events are static words in the past tense, and what was different this time stands beside them as keys;
``docs/logging.md`` lists them. Values may come from documents, so none reaches a terminal unescaped.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from sgagent.agent.telling.logqueue import LogQueue
from sgagent.core.errors import printable


def configure_log(
    stream: TextIO | None = None, *, level: int = logging.INFO, environment: Mapping[str, str] | None = None
) -> None:
    """Send the log of this process to a stream.

    Args:
        stream: standard error by default.
        level: of :mod:`logging`; what is below is not written.
        environment: the process's own by default; ``NO_COLOR`` with any value switches colours off.
    """
    target = sys.stderr if stream is None else stream
    structlog.configure(
        processors=_processors(target, os.environ if environment is None else environment),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(target),
        cache_logger_on_first_use=False,
    )


def log_in_background() -> LogQueue:
    """Send all that this process writes to standard error through a queue, its log and traces alike.

    For a process that enforces: nothing it does waits for who reads its log. What still waits when the
    process ends is written then, if there is a reader.
    """
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=_processors(sys.stderr, os.environ),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    queue = LogQueue(sys.stderr, lambda lines: f"{log.warning('log_lines_dropped', lines=lines)}\n")
    sys.stderr = cast("TextIO", queue)
    configure_log()
    atexit.register(queue.close)
    return queue


def _processors(target: TextIO, environment: Mapping[str, str]) -> list[Processor]:
    """Return what turns an event into a line, in turn."""
    rendering = _for_people(environment) if target.isatty() else _for_machines()
    return [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *rendering]


def _for_people(environment: Mapping[str, str]) -> list[Processor]:
    """Return what turns an event into a line for a terminal."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        exception_formatter=structlog.dev.plain_traceback,  # others show the values of local variables
    )
    return [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), _escaped, renderer]


def _for_machines() -> list[Processor]:
    """Return what turns an event into a line of JSON; encoding escapes all that is not plain ASCII."""
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
    ]


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in all values."""
    return {key: _printable(value) for key, value in event.items()}


def _printable(value: object) -> object:
    """Return the value if it is harmless by its type, else as text without control characters."""
    if value is None or isinstance(value, bool | int | float | BaseException):
        return value
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], BaseException):
        return value  # what sys.exc_info() returns; the renderer needs it whole
    return printable(value if isinstance(value, str) else repr(value))


class _LineLogger:
    """Write lines to a stream; a log that can't be written is no reason to stop enforcing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        """Write a line, whole, whichever thread says it."""
        with _WRITING, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg


_WRITING = threading.Lock()
