"""Tracking of documents that are open for writing, so that the source does not read incomplete ones.

A file that was changed in place and not closed may be incomplete, however long its writer pauses. inotify
reports when the writer closes it. It does not report a pausing writer that opened the file before the watch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from sgagent.sources.files.inotify import FileChange

LONGEST_OPEN_SECONDS = 60.0
"""After which an open file is read anyway, because some writers never close."""

_ENDING = frozenset({FileChange.CLOSED, FileChange.REPLACED, FileChange.UNSETTLED})
"""Changes that end a write: the writer closed the file, or the name has another file or none."""


class Writers:
    """The files that are open for writing; watches record changes, and the source queries them."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without open files.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._noted = threading.Condition()
        self._since: dict[Path, float] = {}
        """By path, absolute and free of symbolic links."""

    def note(self, path: Path, change: FileChange) -> None:
        """Record a change of a file."""
        with self._noted:
            if change is FileChange.WRITTEN:
                self._since.setdefault(path, self._monotonic())
                self._noted.notify_all()
            elif change in _ENDING:
                self._since.pop(path, None)

    def forget(self, directory: Path | None = None) -> None:
        """Drop the open files, because no watch would report when they are closed.

        Args:
            directory: the directory whose watch has ended; None for all.
        """
        with self._noted:
            kept = () if directory is None else self._since.items()
            self._since = {path: since for path, since in kept if path.parent != directory}

    def hear(self, seconds: float) -> bool:
        """Wait until a file is open for writing or the timeout ends; return whether one is."""
        with self._noted:
            return self._noted.wait_for(lambda: bool(self._since), seconds)

    def open_files(self) -> frozenset[Path]:
        """Return the files that are open for writing; log and drop those open for too long."""
        now = self._monotonic()
        with self._noted:
            overdue = [path for path, since in self._since.items() if now - since >= LONGEST_OPEN_SECONDS]
            for path in overdue:
                del self._since[path]
            found = frozenset(self._since)
        for path in overdue:
            _tell_kept_open(path)
        return found


def _tell_kept_open(path: Path) -> None:
    import structlog  # noqa: PLC0415 - every command would pay for importing what only this needs

    structlog.get_logger(__name__).warning(
        "document_kept_open", path=str(path), seconds=LONGEST_OPEN_SECONDS, action="read as it is"
    )
