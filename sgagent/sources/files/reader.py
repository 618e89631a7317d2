"""Reader of document files, safe against concurrent writers.

A ``git checkout`` writes many files, and an editor renames the old file before it writes the new one: a read
between two such changes would return a policy that nobody wrote, so changes are debounced. A file that was
changed in place and not closed may be incomplete, however long its writer pauses. inotify reports when the
writer closes it. It does not report a pausing writer that opened the file before the watch.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.errors import (
    DocumentError,
    NoDocumentError,
    Origin,
    Problem,
    SourceUnavailableError,
    refusal,
)
from sgagent.sources.files.inotify import FileChange

LogWarning = Callable[..., None]
"""Logs a warning: an event, and values by name. The process that reads has no logger of its own."""

_SUFFIXES = (".yaml", ".yml", ".json")
_TRIES = 5
"""Readings of a file that keeps changing while it is read."""

_MOST_FILES = 10_000
"""Documents in one directory."""


def is_document_name(name: str) -> bool:
    """Return whether a name in a directory of definitions is a document's.

    Dot files are not, nor is what editors leave behind: ``web.yaml~``, ``#web.yaml#``, ``.web.yaml.swp``.
    """
    return name.lower().endswith(_SUFFIXES) and not name.startswith((".", "#"))


def document_paths(path: Path) -> tuple[Path, ...]:
    """Return the files that a path stands for: itself, or the documents of a directory in the order of names.

    A directory that was emptied is an error, not a policy without groups: that is written ``version: 1``.

    Raises:
        NoDocumentError: no document is in it.
        SourceUnavailableError: there is no such path, or it can't be listed.
        DocumentError: there are too many documents.
    """
    try:
        if not path.is_dir():
            return (path,)
        found = sorted(filter(is_document_name, os.listdir(path)))  # noqa: PTH208 - paths sort ten times as slow
    except OSError as error:
        raise _unavailable(path, error) from error
    if not found:
        raise NoDocumentError(f"{path}: the directory holds no document (*.yaml, *.yml, *.json)")
    if len(found) > _MOST_FILES:
        message, remedy = "the directory holds too many documents", f"at most {_MOST_FILES}"
        raise refusal("too_many_documents", str(path), message, remedy, str(len(found)))
    return tuple(path / name for name in found)


def skipped_directories(path: Path) -> tuple[Problem, ...]:
    """Return a warning for each directory among documents that holds documents which are not read.

    Hidden ones give none, as those of version control, nor do those whose documents are read through links.
    """
    try:
        with os.scandir(path) as found:
            entries = [one for one in found if not one.name.startswith(".")]
            directories = sorted(one.path for one in entries if os.path.isdir(one.path))  # noqa: PTH112 - as above
    except OSError:  # a document's path, or a path that is gone
        return ()
    if not directories:
        return ()
    read = {os.path.realpath(one) for one in entries if is_document_name(one.name)}
    message = "documents in this directory are not read"
    remedy = f"move them to {path}, or hide the directory by a dot in front of its name"
    places = (Origin(file=one) for one in directories if not read.issuperset(_documents_in(one)))
    return tuple(Problem.warning(place, "directory_skipped", None, message, remedy) for place in places)


def _documents_in(directory: str) -> set[str]:
    try:
        names = filter(is_document_name, os.listdir(directory))  # noqa: PTH208 - as above
        return {os.path.realpath(os.path.join(directory, name)) for name in names}  # noqa: PTH118 - as above
    except OSError:  # the agent may not list it
        return set()


BROKEN_LINK = "the symbolic link leads nowhere"


class BrokenLinkError(SourceUnavailableError):
    """Say that a symbolic link has no target."""


class UnreadableFileError(SourceUnavailableError):
    """Say that a path is there and can't be read: its arguments are the path and the reason."""

    def __str__(self) -> str:
        """Return both."""
        return ": ".join(self.args)

    def refusal(self) -> DocumentError:
        """Return the same as a refusal of what is there."""
        place, reason = self.args
        return refusal("unreadable", place, f"it can't be read: {reason}", "make it readable, or remove it")


Appearance = tuple[str, int, int, int, int, int]
"""The path of a file, which file it is (device and inode), its size, and its times in nanoseconds."""


@dataclass(frozen=True, slots=True)
class FileReading:
    """The content read from a file."""

    content: bytes
    appearance: Appearance
    """Of the very file that was read, before and after."""


def appearance(path: Path) -> tuple[Appearance, ...]:
    """Return a value that changes with the documents at a path; where there are none, one with the reason."""
    try:
        return tuple(_appearance(document, document.stat()) for document in document_paths(path))
    except (OSError, DocumentError, SourceUnavailableError) as error:
        return ((str(error), 0, 0, 0, 0, 0),)


def read_document(path: Path, limit: int) -> FileReading:
    """Return the content of a regular file, at one moment.

    A file that changes while it is read is read again.

    Args:
        path: the file; symbolic links are followed.
        limit: one byte more than these is read of a longer file, for the parser to refuse it.

    Raises:
        BrokenLinkError: it is a symbolic link without a target.
        SourceUnavailableError: it can't be read for another reason, or never stops changing.
        DocumentError: it is no regular file.
    """
    try:
        for _ in range(_TRIES):
            _require_regular(path, path.stat())  # opening a device may do something, so it is not even opened
            descriptor = os.open(path, _FLAGS)
            try:
                status = os.fstat(descriptor)
                _require_regular(path, status)
                content = _content(descriptor, min(status.st_size, limit) + 1)
                before, after = _appearance(path, status), _appearance(path, os.fstat(descriptor))
            finally:
                os.close(descriptor)
            if before == after:
                return FileReading(content, before)
    except OSError as error:
        raise _unavailable(path, error) from error
    raise SourceUnavailableError(f"{path}: the file keeps changing while it is read")


def _content(descriptor: int, most: int) -> bytes:
    """Return so many bytes of a file, or all that there are; a file object would ask four times as much."""
    pieces: list[bytes] = []
    while most > 0 and (piece := os.read(descriptor, most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _appearance(path: Path, status: os.stat_result) -> Appearance:
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (str(path), status.st_dev, status.st_ino, status.st_size, *times)


def _require_regular(path: Path, status: os.stat_result) -> None:
    """Refuse files that could block or never end: pipes, devices, sockets; and directories."""
    if not stat.S_ISREG(status.st_mode):
        message = "it is a pipe, a device, a socket or a directory, and so is not read"
        remedy = "put a regular file there, or a symbolic link to one"
        raise refusal("not_a_file", str(path), message, remedy)


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def _unavailable(path: Path, error: OSError) -> SourceUnavailableError:
    """Return the error with the path and the reason in plain words."""
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return BrokenLinkError(f"{path}: {BROKEN_LINK}")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SourceUnavailableError(f"{path}: {reason}")
    return UnreadableFileError(str(path), reason)


DEBOUNCE_SECONDS = 0.02
"""Quiet time after a complete change."""

MISSING_SECONDS = 0.3
"""Quiet time after the creation or removal of a file, whose content may follow."""

LONGEST_SECONDS = 0.5
"""Maximum delay of a change by debouncing; the agent enforces changes within 2 seconds."""


class Debounce:
    """The changed names, each with the end of its quiet time; watches write it, and the source reads it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without changes.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._quiet_at: dict[Hashable, float] = {}
        self._began = 0.0

    def note(self, name: Hashable, seconds: float) -> None:
        """Record a change; it replaces an earlier one of the same name.

        Args:
            name: identifies the changed file.
            seconds: the quiet time before a read.
        """
        with self._lock:
            now = self._monotonic()
            if not self._quiet_at or max(self._quiet_at.values()) <= now:
                self._quiet_at.clear()
                self._began = now
            self._quiet_at[name] = now + seconds

    def remaining(self) -> float:
        """Return the remaining quiet time in seconds; at 0, clear all changes for the caller to read."""
        with self._lock:
            if not self._quiet_at:
                return 0.0
            due = min(self._began + LONGEST_SECONDS, max(self._quiet_at.values()))
            seconds = max(0.0, due - self._monotonic())
            if not seconds:
                self._quiet_at.clear()
            return seconds


LONGEST_OPEN_SECONDS = 60.0
"""After which an open file is read anyway, because some writers never close."""

_ENDING = frozenset({FileChange.CLOSED, FileChange.REPLACED, FileChange.UNSETTLED})
"""Changes that end a write: the writer closed the file, or the name has another file or none."""


class Writers:
    """The files that are open for writing; watches record changes, and the source queries them."""

    def __init__(self, log_warning: LogWarning, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without open files.

        Args:
            log_warning: logs that a file is open for too long.
            monotonic: the clock, in seconds.
        """
        self._log_warning = log_warning
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

    def wait(self, seconds: float) -> bool:
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
            seconds = LONGEST_OPEN_SECONDS
            self._log_warning("document_kept_open", path=str(path), seconds=seconds, action="read as it is")
        return found
