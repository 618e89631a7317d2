"""Read documents from the file system as if someone else were writing there, because someone may be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sgagent.core.errors import DocumentError, Origin, Problem, Severity, SourceUnavailableError

_SUFFIXES = (".yaml", ".yml", ".json")
_TRIES = 5
"""Readings of a file that keeps changing while it is read."""

_MOST_FILES = 10_000
"""Documents in one directory."""


def is_document_name(name: str) -> bool:
    """Tell whether a name in a directory of definitions is a document's.

    Dot files are not, nor is what editors leave behind: ``web.yaml~``, ``#web.yaml#``, ``.web.yaml.swp``.
    """
    return name.endswith(_SUFFIXES) and not name.startswith((".", "#"))


def document_paths(path: Path) -> tuple[Path, ...]:
    """Return the files that a path stands for: itself, or the documents of a directory in the order of names.

    A directory that was emptied is an error, not a policy without groups: that is written ``version: 1``.

    Raises:
        SourceUnavailableError: there is no such path, it can't be listed, or no document is in it.
        DocumentError: there are too many documents.
    """
    try:
        if not path.is_dir():
            return (path,)
        found = sorted(entry for entry in path.iterdir() if is_document_name(entry.name))
    except OSError as error:
        raise _unavailable(path, error) from error
    if not found:
        raise SourceUnavailableError(f"{path}: the directory holds no document (*.yaml, *.yml, *.json)")
    if len(found) > _MOST_FILES:
        raise DocumentError([_too_many(path, len(found))])
    return tuple(found)


def read_document(path: Path, limit: int) -> bytes:
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
        for content, before, after in _readings(path, limit):
            if before == after:
                return content
    except OSError as error:
        raise _unavailable(path, error) from error
    raise SourceUnavailableError(f"{path}: the file keeps changing while it is read")


_Stamp = tuple[int, int, int]
"""Size and times of a file, in nanoseconds."""


def _readings(path: Path, limit: int) -> Iterator[tuple[bytes, _Stamp, _Stamp]]:
    """Return the content again and again, with the file's stamp before and after."""
    for _ in range(_TRIES):
        _require_regular(path, path.stat())  # opening a device may do something, so it is not even opened
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            _require_regular(path, status)
            content = file.read(min(status.st_size, limit) + 1)
            yield content, _stamp(status), _stamp(os.fstat(file.fileno()))


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


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
