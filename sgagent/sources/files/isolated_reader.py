"""The program that reads documents: a read that hangs in a file system hangs there, not in the agent.

Nothing can end a read that waits for a server of NFS or FUSE, and no process ends that has a thread in one.
So the agent asks another process, which has no privilege, and can leave it behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.sources.files.collector import CollectedDocuments, CollectorTask, FileCollector


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Read now."""

    number: int
    is_for_all: bool
    """Whether to take documents that are open for writing, and to wait for no quiet moment."""


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """The result of a request."""

    number: int
    outcome: CollectedDocuments | DocumentError | SourceUnavailableError
    """The process leaves out the content of documents that it sent before and that did not change."""

    names: tuple[str, ...] = ()
    """Of all documents, in their order."""


@dataclass(frozen=True, slots=True)
class ReaderStarted:
    """The process touches the path from now on."""


@dataclass(frozen=True, slots=True)
class DocumentsChanged:
    """Something changed at the path."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A warning for the agent's log."""

    event: str
    values: Mapping[str, object]


ReaderMessage = ReadAnswer | ReaderStarted | DocumentsChanged | LogLine


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
        with lock, contextlib.suppress(ConnectionError):  # the agent is gone: the next request tells
            connection.send(message)

    def log_warning(event: str, **values: object) -> None:
        send(LogLine(event, values))

    task: CollectorTask = connection.recv()
    collector = FileCollector(task)
    send(ReaderStarted())
    with collector.watch(lambda: send(DocumentsChanged()), log_warning):
        while True:
            request: ReadRequest = connection.recv()
            if request.is_for_all:
                collector.refresh()
            answer = _answer(collector, request.number, sent)
            send(answer)


def _answer(collector: FileCollector, number: int, sent: dict[str, bytes]) -> ReadAnswer:
    """Read, and return the answer to send; note the content sent."""
    try:
        found = collector.collect()
    except (DocumentError, SourceUnavailableError) as error:
        return ReadAnswer(number, error)
    changed = {name: content for name, content in found.documents.items() if sent.get(name) != content}
    sent.clear()
    sent.update(found.documents)
    return ReadAnswer(number, replace(found, documents=changed), tuple(found.documents))
