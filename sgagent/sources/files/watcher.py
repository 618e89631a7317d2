"""Watch on the documents at a path: by inotify, or by polling without it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from sgagent.ports import Wake
from sgagent.sources.files.inotify import FileChange, FileEvent, Inotify, PathStep, follow
from sgagent.sources.files.reader import (
    DEBOUNCE_SECONDS,
    MISSING_SECONDS,
    Debounce,
    Writers,
    appearance,
    is_document_name,
)

MOUNTINFO = Path("/proc/self/mountinfo")
SIGNAL = select.POLLPRI | select.POLLERR
"""The events of poll(2) after a change of the mounts."""

LOOK_SECONDS = 0.2
"""Rate limit of reading the mounts: a container host changes them many times a second."""

_MOUNT_POINT = 4
"""The field of a line with the mount point."""

Concerns = Callable[[Path], bool]
"""Returns whether a mount at a path may change the documents."""


class Mounts:
    """The mounts of this process that concern the documents."""

    def __init__(self) -> None:
        """Open the list of mounts; changes from now on are signalled.

        Raises:
            OSError: there is no ``/proc``, or not for this process.
        """
        self.file = MOUNTINFO.open("rb", buffering=0)
        """The list; poll it for :data:`SIGNAL`."""

        self._looked_at = -LOOK_SECONDS
        self.due_at: float | None = None
        """When to read the mounts; None without a change."""

        self._known: Collection[bytes] = ()

    def signalled(self) -> None:
        """Record a change that the kernel signalled."""
        if self.due_at is None:
            self.due_at = max(time.monotonic(), self._looked_at + LOOK_SECONDS)

    def have_changed(self, concerns: Concerns) -> bool:
        """Look, if that is due, and return whether mounts that matter have changed."""
        if self.due_at is None or time.monotonic() < self.due_at:
            return False
        return self.look(concerns)

    def look(self, concerns: Concerns) -> bool:
        """Look now, and return whether mounts that matter have changed."""
        self._looked_at, self.due_at = time.monotonic(), None
        self.file.seek(0)
        lines = self.file.readall().splitlines()
        before, self._known = self._known, [line for line in lines if concerns(_mount_point(line))]
        return self._known != before


def _mount_point(line: bytes) -> Path:
    """Return the mount point in a line; the kernel escapes white space and backslashes in octal."""
    field = line.split(b" ", _MOUNT_POINT + 1)[_MOUNT_POINT]
    first, *others = field.split(b"\\")
    return Path(os.fsdecode(first + b"".join(bytes([int(one[:3], 8)]) + one[3:] for one in others)))


POLL_SECONDS = 0.5
"""Polling interval without inotify. The second poll that shows a change reports it."""


CatchUp = Callable[[], None]
"""Processes all pending changes, in the calling thread."""


@contextlib.contextmanager
def watch_path(
    path: Path,
    wake: Wake,
    debounce: Debounce,
    open_inotify: Callable[[], Inotify] = Inotify,
    poll_seconds: float = POLL_SECONDS,
    *,
    writers: Writers | None = None,
) -> Iterator[CatchUp]:
    """Call ``wake`` when the documents at a path may have changed, until the context ends.

    The path need not exist, and its directories may be created and removed. Without inotify, the watch polls
    the files every ``poll_seconds`` and logs a warning.

    Args:
        path: the absolute path of a document or of a directory of documents.
        wake: called from the watch's thread at each change, except a write before its file is closed.
        debounce: records each change.
        open_inotify: opens inotify; tests pass one that fails.
        poll_seconds: the polling interval without inotify.
        writers: records the files that are open for writing; None for no record.

    Yields:
        A function that processes all pending changes, so that a read considers every earlier change.
    """
    writers = writers or Writers()
    watches, seen = _armed(path, open_inotify, debounce, writers), appearance(path)
    ended = os.eventfd(0, os.EFD_CLOEXEC)
    listening = None if watches is None else _Listening(watches, wake)

    def watch() -> None:
        if listening is None:
            _poll(path, wake, ended, seen, poll_seconds)
        elif (fault := listening.listen_until(ended)) is not None:
            _tell_degraded(path, fault)
            writers.forget()
            _poll(path, wake, ended, None, poll_seconds)

    thread = threading.Thread(target=watch, name="documents", daemon=True)
    thread.start()
    try:
        yield (lambda: None) if listening is None else listening.catch_up
    finally:
        os.eventfd_write(ended, 1)
        thread.join()
        os.close(ended)


class _Watches:
    """inotify watches on every directory in which a change may change the documents."""

    def __init__(
        self, path: Path, inotify: Inotify, mounts: Mounts | None, debounce: Debounce, writers: Writers
    ) -> None:
        self.inotify = inotify
        self.mounts = mounts
        self._debounce = debounce
        self._writers = writers
        self._path = path
        self._directories: dict[int, set[Path]] = {}
        self._look_ups: frozenset[PathStep] = frozenset()
        self._documents: Path | None = None

    def take(self) -> bool:
        """Process the events of inotify, and return whether the documents may have changed.

        If the resolution of a path may have changed, this updates the watches first.

        Raises:
            OSError: the kernel refuses a watch.
        """
        events = [event for event in self.inotify.read() if self.concern_documents(event)]
        for event in events:
            self._note_writer(event)
        is_mounted = self.mounts is not None and self.mounts.have_changed(self._concern_mounts)
        is_more_watched = (is_mounted or any(map(self.concern_ways, events))) and self.arm()
        for event in events:
            if event.change is not FileChange.WRITTEN:
                self._debounce.note((event.watch, event.name), _SECONDS[event.change])
        if is_mounted:
            self._debounce.note(MOUNTINFO, DEBOUNCE_SECONDS)
        is_written = all(event.change is FileChange.WRITTEN for event in events)
        return is_mounted or is_more_watched or not is_written

    def _concern_mounts(self, mount_point: Path) -> bool:
        """Return whether a mount point is a document, or on the path to the documents."""
        if mount_point.parent in (mount_point, self._documents):
            return True
        return PathStep(mount_point.parent, mount_point.name) in self._look_ups

    def _note_writer(self, event: FileEvent) -> None:
        if event.change is FileChange.OVERFLOW:
            self._writers.forget()
        for directory in self._directories.get(event.watch, ()):
            if event.change is FileChange.WATCH_ENDED:
                self._writers.forget(directory)
            else:
                self._writers.note(directory / event.name, event.change)

    def arm(self) -> bool:
        """Update the watches to the present resolution of the path; return whether some are new.

        The resolution repeats until it is stable, which finds names that are created meanwhile.

        Raises:
            OSError: the kernel refuses a watch.
        """
        armed: dict[int, set[Path]] = {}
        known = self._look_ups
        while True:
            self._look()
            before = sum(map(len, armed.values()))
            for directory in self._wanted():
                with contextlib.suppress(
                    FileNotFoundError, NotADirectoryError
                ):  # removed meanwhile; the watch on the parent reports it
                    armed.setdefault(self.inotify.add(directory), set()).add(directory)
            if sum(map(len, armed.values())) == before:
                break
        for watch in self._directories.keys() - armed.keys():
            self.inotify.remove(watch)
        is_new = not (armed.keys() <= self._directories.keys() and self._look_ups <= known)
        self._directories = armed
        return is_new

    def look_at_mounts(self) -> None:
        """Read the present mounts."""
        if self.mounts is not None:
            self.mounts.look(self._concern_mounts)

    def close(self) -> None:
        """Close all watches."""
        self.inotify.close()
        if self.mounts is not None:
            self.mounts.file.close()

    def _look(self) -> None:
        """Resolve the path, and record the look-ups."""
        way = follow(self._path)
        look_ups = set(way.look_ups)
        self._documents = way.target if way.target is not None and way.target.is_dir() else None
        if self._documents is not None:
            for entry in _links(self._documents):
                look_ups.update(follow(entry).look_ups)
        self._look_ups = frozenset(look_ups)

    def _wanted(self) -> set[Path]:
        """Return the directories to watch."""
        documents = set() if self._documents is None else {self._documents}
        return documents | {look_up.directory for look_up in self._look_ups}

    def concern_documents(self, event: FileEvent) -> bool:
        """Return whether an event may change the documents."""
        if event.change is FileChange.OVERFLOW or self.concern_ways(event):
            return True
        in_documents = self._documents in self._directories.get(event.watch, set())
        return in_documents and (not event.name or is_document_name(event.name))

    def concern_ways(self, event: FileEvent) -> bool:
        """Return whether an event may change the resolution of the path, and so the needed watches."""
        directories = self._directories.get(event.watch, set())
        if event.change is FileChange.OVERFLOW or (event.change is FileChange.WATCH_ENDED and directories):
            return True
        if any(PathStep(directory, event.name) in self._look_ups for directory in directories):
            return True
        documents = self._documents
        if documents is None or documents not in directories or not is_document_name(event.name):
            return False
        return (documents / event.name).is_symlink()  # a new link


def _links(directory: Path) -> Iterator[Path]:
    """Return the documents of a directory that are symbolic links."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if is_document_name(entry.name) and entry.is_symlink():
                yield directory / entry.name


def _armed(
    path: Path, open_inotify: Callable[[], Inotify], debounce: Debounce, writers: Writers
) -> _Watches | None:
    """Return active watches; None without inotify."""
    try:
        inotify = open_inotify()
    except OSError as error:
        _tell_degraded(path, error)
        return None
    watches = _Watches(path, inotify, _mounts(path), debounce, writers)
    try:
        watches.arm()
        watches.look_at_mounts()
    except OSError as error:
        watches.close()
        _tell_degraded(path, error)
        return None
    return watches


def _mounts(path: Path) -> Mounts | None:
    """Return the watch on mounts; None if the kernel does not report changes of mounts."""
    try:
        return Mounts()
    except OSError as error:
        _tell_degraded(path, error)
        return None


def _tell_degraded(path: Path, error: OSError) -> None:
    import structlog  # noqa: PLC0415 - every command would pay for importing what only this needs

    structlog.get_logger(__name__).warning("file_watch_degraded", path=str(path), reason=str(error))


class _Listening:
    """Processing of changes, in the watch's thread as they arrive, and in any other thread on demand."""

    def __init__(self, watches: _Watches, wake: Wake) -> None:
        self._watches = watches
        self._wake = wake
        self._lock = threading.Lock()
        self._fault: OSError | None = None
        self._failed = os.eventfd(0, os.EFD_CLOEXEC)

    def catch_up(self) -> None:
        """Process all pending changes; a failure ends the watch's thread."""
        with self._lock:
            if self._fault is None:
                self._take()

    def _take(self) -> bool:
        try:
            return self._watches.take()
        except OSError as error:
            self._fault = error
            os.eventfd_write(self._failed, 1)
            return False

    def listen_until(self, ended: int) -> OSError | None:
        """Call ``wake`` at changes until ``ended`` is readable; return the error if inotify fails first."""
        poll, mounts = select.poll(), self._watches.mounts
        for descriptor in (self._watches.inotify.fileno(), ended, self._failed):
            poll.register(descriptor, select.POLLIN)
        if mounts is not None:
            poll.register(mounts.file, SIGNAL)
        while ended not in (ready := [readable for readable, _ in poll.poll(self._milliseconds())]):
            with self._lock:
                if self._fault is not None:
                    break
                if mounts is not None and mounts.file.fileno() in ready:
                    mounts.signalled()
                is_changed = self._take()
            if is_changed:
                self._wake()
        with self._lock:
            self._fault = self._fault or _ENDED
            self._watches.close()
            os.close(self._failed)
        return None if self._fault is _ENDED else self._fault

    def _milliseconds(self) -> float | None:
        """Return the poll timeout, rounded up to avoid a busy loop."""
        mounts = self._watches.mounts
        if mounts is None or mounts.due_at is None:
            return None
        return max(0.0, mounts.due_at - time.monotonic()) * 1000 + 1


_ENDED = OSError("the watch has ended")

_SECONDS: Mapping[FileChange, float] = {
    FileChange.REPLACED: DEBOUNCE_SECONDS,
    FileChange.CLOSED: DEBOUNCE_SECONDS,
    FileChange.ATTRIBUTES: DEBOUNCE_SECONDS,
    FileChange.OVERFLOW: DEBOUNCE_SECONDS,
    FileChange.UNSETTLED: MISSING_SECONDS,
    FileChange.WATCH_ENDED: MISSING_SECONDS,
}
"""The quiet time after each kind of change."""


def _poll(path: Path, wake: Wake, ended: int, reported: object, seconds: float) -> None:
    """Call ``wake`` after changes, once two polls in a row see the same state: no writer is active then."""
    before = reported
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    while not poll.poll(seconds * 1000):
        now = appearance(path)
        if now == before and now != reported:
            reported = now
            wake()
        before = now
