"""Let an agent die at any of its operations on files, as by ``kill -9``.

The interpreter tells of each operation before it is done. Where it is told to, nothing more happens: what was
not done stays undone, and nobody cleans up. What the kernel was told in between stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir")


class Crash(BaseException):
    """The agent is dead; nothing of it may catch that."""


class _Watch:
    """Count the operations below a directory, and die at one of them."""

    def __init__(self) -> None:
        self.directory: str | None = None
        self.left = 0

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Take in that something is about to be done."""
        if self.directory is None or event not in _OPERATIONS:
            return
        if not isinstance(arguments[0], str | Path) or not str(arguments[0]).startswith(self.directory):
            return
        if self.left == 0:
            self.directory = None
            raise Crash
        self.left -= 1


_WATCH = _Watch()
sys.addaudithook(_WATCH.hear)


def crashes_at(directory: Path, number: int, act: Callable[[], object]) -> bool:
    """Do something, and die before an operation on files; tell whether it came to that.

    Args:
        directory: below which operations count.
        number: of the operation, from 0.
        act: what to do.
    """
    _WATCH.directory, _WATCH.left = str(directory), number
    try:
        act()
    except Crash:
        return True
    finally:
        _WATCH.directory = None
    return False
