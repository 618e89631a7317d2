"""Replace, rename and remove files so that a crash leaves the old file or the new one, whole."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file by new content, all of it or nothing, safe from a power cut.

    Raises:
        OSError: nothing was changed.
    """
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(draft, path)


def rename_durably(path: Path, target: Path) -> None:
    """Give a file another name in the same file system, in place of what has that name."""
    path.replace(target)
    _sync_directory(target.parent)
    if path.parent != target.parent:
        _sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
