"""Watches of directories by inotify, and the directories that the resolution of a path visits.

The binding wraps three functions of the C library, on one descriptor. Unlike common file watching libraries,
it reports lost events, distinguishes an open file from a closed one, and needs neither a delay nor a thread.
A watch on a path must cover exactly its look-ups, because somebody may replace symbolic links, and rename,
remove or create directories along the path.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class FileChange(enum.Enum):
    """The kind of change of a name."""

    REPLACED = "replaced"
    """A file was moved to the name; its content is complete."""

    CLOSED = "closed"
    """The writer closed the file; its content is complete."""

    ATTRIBUTES = "attributes"
    """The attributes changed; the file may have become readable."""

    WRITTEN = "written"
    """The file was written or truncated, and its writer has not closed it."""

    UNSETTLED = "unsettled"
    """The file was created, or removed and possibly about to be replaced."""

    WATCH_ENDED = "watch_ended"
    """The directory was removed, which ends its watch."""

    OVERFLOW = "overflow"
    """The kernel's event queue overflowed: anything may have changed."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """One change in a watched directory."""

    watch: int
    """As :meth:`Inotify.add` returned it; -1 for an overflow."""

    name: str
    """In the directory; empty where the directory itself changed."""

    change: FileChange


class Inotify:
    """Hold one inotify descriptor and the watches on it."""

    def __init__(self) -> None:
        """Open the descriptor.

        Raises:
            OSError: EMFILE where the user has too many, ENOSYS where the kernel has none.
        """
        self._descriptor = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there are events."""
        return self._descriptor

    def add(self, directory: Path) -> int:
        """Watch a directory and return the watch's number; the same directory has the same number.

        Raises:
            OSError: ENOSPC where the user has too many watches; ENOENT, EACCES, ENOTDIR as usual.
        """
        path = os.fsencode(directory)
        return _checked(_LIBC.inotify_add_watch(self._descriptor, path, _WATCHED | _ONLYDIR), str(directory))

    def remove(self, watch: int) -> None:
        """End a watch; does nothing if it ended by itself."""
        _LIBC.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> tuple[FileEvent, ...]:
        """Return all events that came since the last reading, however many, without waiting for any."""
        (size,) = _SIZE.unpack(fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(_SIZE.size)))
        return tuple(decode(os.read(self._descriptor, size))) if size else ()

    def close(self) -> None:
        """Close the descriptor and all watches."""
        os.close(self._descriptor)


def _checked(result: int, subject: str) -> int:
    """Return a call's result, or raise its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return result


def decode(events: bytes) -> Iterator[FileEvent]:
    """Return the events of a buffer as the kernel filled it (inotify(7))."""
    offset = 0
    while offset < len(events):
        watch, mask, _cookie, length = _HEADER.unpack_from(events, offset)
        offset += _HEADER.size
        name = os.fsdecode(events[offset : offset + length].rstrip(b"\0"))
        offset += length
        change = next((change for bits, change in _CHANGES if mask & bits), FileChange.ATTRIBUTES)
        yield FileEvent(watch, name, change)


_LIBC = ctypes.CDLL(None, use_errno=True)
_HEADER = struct.Struct("iIII")
_SIZE = struct.Struct("i")

_MODIFY = 0x0000_0002
_ATTRIB = 0x0000_0004
_CLOSE_WRITE = 0x0000_0008
_MOVED_FROM = 0x0000_0040
_MOVED_TO = 0x0000_0080
_CREATE = 0x0000_0100
_DELETE = 0x0000_0200
_DELETE_SELF = 0x0000_0400
_MOVE_SELF = 0x0000_0800
_UNMOUNT = 0x0000_2000
_Q_OVERFLOW = 0x0000_4000
_IGNORED = 0x0000_8000
_ONLYDIR = 0x0100_0000
_WATCHED = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
)
_CHANGES = (
    (_Q_OVERFLOW, FileChange.OVERFLOW),
    (_IGNORED | _UNMOUNT | _DELETE_SELF | _MOVE_SELF, FileChange.WATCH_ENDED),
    (_CREATE | _DELETE | _MOVED_FROM, FileChange.UNSETTLED),
    (_MODIFY, FileChange.WRITTEN),
    (_MOVED_TO, FileChange.REPLACED),
    (_CLOSE_WRITE, FileChange.CLOSED),
)
"""The first of these that an event has bits of is its change."""


_MOST_LINKS = 40
"""Symbolic links that are followed; the kernel's own limit."""


@dataclass(frozen=True, slots=True, order=True)
class PathStep:
    """The look-up of one name in a directory."""

    directory: Path
    """Absolute and free of symbolic links."""

    name: str


@dataclass(frozen=True, slots=True)
class PathWalk:
    """The resolution of a path, as far as it succeeds."""

    look_ups: tuple[PathStep, ...]
    """In order; without a target, the last look-up failed."""

    target: Path | None
    """The resolved path, absolute and free of symbolic links; None if it does not exist."""


def follow(path: Path) -> PathWalk:
    """Resolve an absolute path as the kernel does.

    An incomplete path is not an error: its look-ups are the ones to watch for its completion.
    """
    found: list[PathStep] = []
    current, names, links = Path("/"), list(path.parts[1:]), 0
    while names:
        name = names.pop(0)
        if name == "..":
            current = current.parent  # correct because `current` is free of symbolic links
            continue
        found.append(PathStep(current, name))
        try:
            target = (current / name).readlink()
        except OSError as error:
            if error.errno != errno.EINVAL:
                return PathWalk(tuple(found), None)
            current /= name  # EINVAL: the name exists and is not a link
            continue
        links += 1
        if links > _MOST_LINKS:
            return PathWalk(tuple(found), None)
        current /= target.anchor  # "/" for an absolute target, "" for a relative one
        names = [*target.relative_to(target.anchor).parts, *names]
    return PathWalk(tuple(found), current)
