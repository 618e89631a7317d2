"""Notice that a file system was mounted or unmounted where documents are; inotify does not tell of that.

Watches hold on to the directories that they were put on, and a path may lead to others from one moment to the
next. The kernel signals each change of this process's mounts on ``/proc/self/mountinfo`` (see
proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
SIGNAL = select.POLLPRI | select.POLLERR
"""What poll(2) returns once after mounts have changed."""

LOOK_SECONDS = 0.2
"""Between two looks: a host that runs containers changes its mounts many times a second."""

_MOUNT_POINT = 4
"""The field of a line that holds the mount point."""

Concerns = Callable[[Path], bool]
"""Tells whether something mounted there may change what the documents are."""


class Mounts:
    """Keep the mounts of this process that concern somebody."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open the list of mounts; changes from now on are signalled.

        Args:
            monotonic: the clock, in seconds.

        Raises:
            OSError: there is no ``/proc``, or not for this process.
        """
        self._monotonic = monotonic
        self._descriptor = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._looked_at = -LOOK_SECONDS
        self._due: float | None = None
        self._known: Collection[bytes] = ()

    def fileno(self) -> int:
        """Return the descriptor to poll for :data:`SIGNAL`."""
        return self._descriptor

    def close(self) -> None:
        """Close the list."""
        os.close(self._descriptor)

    def signalled(self) -> None:
        """Take in that the kernel signalled a change."""
        if self._due is None:
            self._due = max(self._monotonic(), self._looked_at + LOOK_SECONDS)

    def due(self) -> float | None:
        """Return when to look at the mounts; None if nothing has changed."""
        return self._due

    def have_changed(self, concerns: Concerns) -> bool:
        """Look, if that is due, and tell whether the mounts that concern somebody are others than before."""
        if self._due is None or self._monotonic() < self._due:
            return False
        return self.look(concerns)

    def look(self, concerns: Concerns) -> bool:
        """Look now, and tell whether the mounts that concern somebody are others than before."""
        self._looked_at, self._due = self._monotonic(), None
        before, self._known = self._known, [line for line in self._lines() if concerns(_mount_point(line))]
        return self._known != before

    def _lines(self) -> list[bytes]:
        pieces: list[bytes] = []
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while piece := os.read(self._descriptor, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).splitlines()


def _mount_point(line: bytes) -> Path:
    """Return where a line says that something is mounted; space, tab, newline and backslash are in octal."""
    field = line.split(b" ", _MOUNT_POINT + 1)[_MOUNT_POINT]
    first, *others = field.split(b"\\")
    return Path(os.fsdecode(first + b"".join(bytes([int(one[:3], 8)]) + one[3:] for one in others)))
