"""The process that reads documents: what hangs in a file system hangs there, and not in the agent.

Nothing can end a read that waits for a server of NFS or FUSE, and no process ends that has a thread in one.
So the agent asks another process, which has no privilege, and can leave it behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import structlog
from structlog.typing import EventDict, WrappedLogger

from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.documents import DocumentFile, Limits
from sgagent.sources.files.source import CollectedDocuments, FileSource
from sgagent.sources.verified_parse import Failure

_PROGRAM = (
    "import sys; sys.path[:] = {path!r};"
    " from sgagent.sources.files.isolated_reader import main; main({channel})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderTask:
    """What to read and to watch."""

    path: Path
    limits: Limits
    wants_signature: bool


@dataclass(frozen=True, slots=True)
class ReadOrder:
    """Read now."""

    number: int
    is_for_all: bool
    """Whether to take documents that are open for writing, and to wait for no quiet moment."""


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What came of an order."""

    number: int
    outcome: CollectedDocuments | Failure


@dataclass(frozen=True, slots=True)
class ReaderStarted:
    """The process touches the path from now on."""


@dataclass(frozen=True, slots=True)
class DocumentsChanged:
    """Something changed at the path."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """An event for the agent's log."""

    level: str
    event: str
    values: Mapping[str, object]


Message = ReadAnswer | ReaderStarted | DocumentsChanged | LogLine


@dataclass(frozen=True, slots=True)
class _SentAnswer:
    """An answer whose documents were sent before, but for those that changed."""

    number: int
    outcome: CollectedDocuments | Failure
    unchanged: frozenset[str]
    """Names of the documents whose content is the one that was sent last, and is left out."""


class ReaderProcess:
    """The process as the agent sees it. It ends with the agent, or as soon as what it reads answers."""

    def __init__(self, task: ReaderTask) -> None:
        """Start the process; it watches from then on.

        Raises:
            OSError: it can't be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            program = _PROGRAM.format(path=sys.path, channel=theirs.fileno())
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this program's own interpreter and modules
                    [sys.executable, "-I", "-c", program],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                ours.close()
                raise
        self._connection = Connection(ours.detach())
        self._sent: dict[str, bytes] = {}
        with contextlib.suppress(OSError):  # a process that has ended is noticed at the next message
            self._connection.send(task)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a message."""
        return self._connection.fileno()

    def order(self, order: ReadOrder) -> None:
        """Have the process read; may be called from any thread, if one at a time."""
        with contextlib.suppress(OSError):  # as above
            self._connection.send(order)

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError, OSError: the process has ended.
        """
        message: Message | _SentAnswer = self._connection.recv()
        return self._whole(message) if isinstance(message, _SentAnswer) else message

    def _whole(self, answer: _SentAnswer) -> ReadAnswer:
        """Return an answer with all contents; an unchanged one is the same object as before."""
        if isinstance(answer.outcome, Failure):
            return ReadAnswer(answer.number, answer.outcome)
        documents = tuple(
            replace(one, content=self._sent[one.name]) if one.name in answer.unchanged else one
            for one in answer.outcome.documents
        )
        self._sent = {one.name: one.content for one in documents}
        return ReadAnswer(answer.number, replace(answer.outcome, documents=documents))

    def kill(self) -> None:
        """End the process; one that hangs ends when its file system answers."""
        self._process.kill()
        self._connection.close()

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Wait for the end of a killed process; return whether it came."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def leave(self) -> None:
        """Wait no more for a killed process; the kernel ends it in its time."""
        if self._process.returncode is None:
            self._process.returncode = -signal.SIGKILL


def main(channel: int) -> None:
    """Read until the agent is gone.

    Args:
        channel: the descriptor of a socket to the agent.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("sgagent-reader", encoding="ascii")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they reach the whole service, and the agent ends this process
    with contextlib.suppress(EOFError, ConnectionError):
        serve(Connection(channel))
    os._exit(0)  # a thread of the watch may hang


def serve(connection: Connection) -> None:
    """Watch, and read when asked.

    Raises:
        EOFError, ConnectionError: the agent is gone.
    """
    lock, sent = threading.Lock(), dict[str, bytes]()

    def send(message: object) -> None:
        with lock, contextlib.suppress(ConnectionError):  # the agent is gone: the next order tells
            connection.send(message)

    def forward(_logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
        send(LogLine(level, str(event.pop("event")), event))
        raise structlog.DropEvent

    structlog.configure(processors=[forward])
    task: ReaderTask = connection.recv()
    source = FileSource(task.path, task.limits, wants_signature=task.wants_signature)
    send(ReaderStarted())
    with source.watch(lambda: send(DocumentsChanged())):
        while True:
            order: ReadOrder = connection.recv()
            if order.is_for_all:
                source.refresh()
            answer = _answer(source, order.number, sent)
            send(answer)


def _answer(source: FileSource, number: int, sent: dict[str, bytes]) -> _SentAnswer:
    """Read, and return what to send; note what was sent."""
    try:
        found = source.collect()
    except (DocumentError, SourceUnavailableError) as error:
        return _SentAnswer(number, Failure.of(error), frozenset())
    unchanged = frozenset(one.name for one in found.documents if sent.get(one.name) == one.content)
    sent.clear()
    sent.update((one.name, one.content) for one in found.documents)
    short = (DocumentFile(one.name, b"") if one.name in unchanged else one for one in found.documents)
    return _SentAnswer(number, replace(found, documents=tuple(short)), unchanged)
