"""Know which documents are open for writing, so that half of what somebody writes is not enforced.

A file that was changed in place and not closed since may be half of what it will be, however long its writer
pauses. inotify says when a writer closes it; of a writer that began before the file was watched, and pauses,
nothing is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from sgagent.sources.files.inotify import FileChange

LONGEST_OPEN_SECONDS = 60.0
"""After which a file is read as it is, though its writer has not closed it: some never do."""

_ENDING = frozenset({FileChange.CLOSED, FileChange.REPLACED, FileChange.UNSETTLED})
"""After which nobody writes at that name: the writer closed it, or another file or none is there now."""


class Writers:
    """Keep the files that are being written; the watches note, and the one who reads asks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing being written.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._noted = threading.Condition()
        self._since: dict[Path, float] = {}
        """By path, absolute and free of symbolic links."""

    def note(self, path: Path, change: FileChange) -> None:
        """Take in a change of a file."""
        with self._noted:
            if change is FileChange.WRITTEN:
                self._since.setdefault(path, self._monotonic())
                self._noted.notify_all()
            elif change in _ENDING:
                self._since.pop(path, None)

    def forget(self, directory: Path | None = None) -> None:
        """Take nothing for being written any more, as nobody would hear of its writer closing it.

        Args:
            directory: in which that is so; None for everywhere.
        """
        with self._noted:
            kept = () if directory is None else self._since.items()
            self._since = {path: since for path, since in kept if path.parent != directory}

    def hear(self, seconds: float) -> bool:
        """Wait for so long until a file is being written; tell whether one is."""
        with self._noted:
            return self._noted.wait_for(lambda: bool(self._since), seconds)

    def open_files(self) -> frozenset[Path]:
        """Return the files that are being written; one that has been for too long is logged, and left out."""
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
