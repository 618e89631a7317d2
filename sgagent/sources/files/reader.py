"""Reader of document files, safe against concurrent writers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.errors import (
    DocumentError,
    NoDocumentError,
    Origin,
    Problem,
    Severity,
    SourceUnavailableError,
)

_SUFFIXES = (".yaml", ".yml", ".json")
_TRIES = 5
"""Readings of a file that keeps changing while it is read."""

_MOST_FILES = 10_000
"""Documents in one directory."""


def is_document_name(name: str) -> bool:
    """Return whether a name in a directory of definitions is a document's.

    Dot files are not, nor is what editors leave behind: ``web.yaml~``, ``#web.yaml#``, ``.web.yaml.swp``.
    """
    return name.endswith(_SUFFIXES) and not name.startswith((".", "#"))


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
        raise DocumentError([_too_many(path, len(found))])
    return tuple(path / name for name in found)


Appearance = tuple[str, int, int, int, int, int]
"""The path of a file, which file it is (device and inode), its size, and its times in nanoseconds."""


@dataclass(frozen=True, slots=True)
class FileReading:
    """What was read from a file."""

    content: bytes
    appearance: Appearance
    """Of the very file that was read, before and after."""


def appearance(path: Path) -> tuple[Appearance, ...] | str:
    """Return a value that changes with the documents at a path; where there are none, why."""
    try:
        return tuple(_appearance(document, document.stat()) for document in document_paths(path))
    except (OSError, DocumentError, SourceUnavailableError) as error:
        return str(error)


def read_document(path: Path, limit: int) -> FileReading:
    """Return what stands in a regular file, at one moment.

    A file that changes while it is read is read again.

    Args:
        path: the file; symbolic links are followed.
        limit: one byte more than these is read of a longer file, for the parser to refuse it.

    Raises:
        SourceUnavailableError: it can't be read, or never stops changing.
        DocumentError: it is no regular file.
    """
    try:
        for reading, after in _readings(path, limit):
            if reading.appearance == after:
                return reading
    except OSError as error:
        raise _unavailable(path, error) from error
    raise SourceUnavailableError(f"{path}: the file keeps changing while it is read")


def _readings(path: Path, limit: int) -> Iterator[tuple[FileReading, Appearance]]:
    """Return the content again and again, and how the file looked afterwards."""
    for _ in range(_TRIES):
        _require_regular(path, path.stat())  # opening a device may do something, so it is not even opened
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            _require_regular(path, status)
            content = _content(descriptor, min(status.st_size, limit) + 1)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        yield FileReading(content, _appearance(path, status)), _appearance(path, after)


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
    """Refuse what could block or never end: pipes, devices, sockets; and directories."""
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError([_not_a_file(path)])


_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def _unavailable(path: Path, error: OSError) -> SourceUnavailableError:
    """Return the error with the path and the reason in plain words."""
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        reason = "the symbolic link leads nowhere"
    return SourceUnavailableError(f"{path}: {reason}")


def _not_a_file(path: Path) -> Problem:
    return Problem(
        severity=Severity.ERROR,
        code="not_a_file",
        origin=Origin(file=str(path)),
        message="it is a pipe, a device, a socket or a directory, and so is not read",
        remedy="put a regular file there, or a symbolic link to one",
    )


def _too_many(path: Path, count: int) -> Problem:
    return Problem(
        severity=Severity.ERROR,
        code="too_many_documents",
        origin=Origin(file=str(path)),
        message="the directory holds too many documents",
        value=str(count),
        remedy=f"at most {_MOST_FILES}",
    )
