"""The process that reads documents, as the agent sees it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import sgagent
from sgagent.sources.files.collector import CollectedDocuments, CollectorTask
from sgagent.sources.files.isolated_reader import ReadAnswer, ReaderMessage, ReadRequest
from sgagent.sources.own_program import start_program

_PROGRAM = (
    "import sys; sys.path.append({folder!r});"
    " from sgagent.sources.files.isolated_reader import main; main(int(sys.argv[1]))"
)
"""Needs nothing but the standard library and this package, so that ``-S`` saves what a site adds."""


class ReaderProcess:
    """The process as the agent sees it. It ends with the agent, or as soon as its pending read returns."""

    def __init__(self, task: CollectorTask) -> None:
        """Start the process; it watches from then on.

        Raises:
            OSError: it can't be started.
        """
        folder = str(Path(sgagent.__file__).parent.parent)
        channel, self._process = start_program(_PROGRAM.format(folder=folder), "-S")
        self._connection = Connection(channel.detach())
        self._sent: dict[str, bytes] = {}
        with contextlib.suppress(OSError):  # a process that has ended is noticed at the next message
            self._connection.send(task)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a message."""
        return self._connection.fileno()

    def send(self, request: ReadRequest) -> None:
        """Have the process read; may be called from any thread, if one at a time."""
        with contextlib.suppress(OSError):  # as above
            self._connection.send(request)

    def receive(self) -> ReaderMessage:
        """Return the next message.

        Raises:
            EOFError, OSError: the process has ended.
        """
        message: ReaderMessage = self._connection.recv()
        if isinstance(message, ReadAnswer) and isinstance(message.outcome, CollectedDocuments):
            return replace(message, outcome=self._whole(message.outcome, message.names))
        return message

    def _whole(self, found: CollectedDocuments, names: tuple[str, ...]) -> CollectedDocuments:
        """Return all documents; the content of an unchanged one is the same object as before."""
        known = {**self._sent, **found.documents}
        self._sent = {name: known[name] for name in names}
        return replace(found, documents=self._sent)

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
