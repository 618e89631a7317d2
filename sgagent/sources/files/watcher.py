"""Watch on the documents at a path: by inotify, or by polling without it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from sgagent.sources.files import reader
from sgagent.sources.files.inotify import FileChange, FileEvent, Inotify, PathStep, follow
from sgagent.sources.files.reader import Debounce, LogWarning, Writers

MOUNTINFO = Path("/proc/self/mountinfo")
SIGNAL = select.POLLPRI | select.POLLERR
"""The events of poll(2) after a change of the mounts."""

LOOK_SECONDS = 0.2
"""Rate limit of reading the mounts: a container host changes them many times a second."""

_MOUNT_POINT = 4
"""The field of a line with the mount point."""


class Mounts:
    """The mounts of this process that concern the documents."""

    def __init__(
        self, concern: Callable[[Path], bool], note_fault: Callable[[OSError], None] = lambda _: None
    ) -> None:
        """Open the list of mounts; changes from now on are signalled.

        Args:
            concern: returns whether a mount point concerns the documents.
            note_fault: called where the list can't be opened, and so no change is noticed.
        """
        self._concern = concern
        try:
            self._file = MOUNTINFO.open("rb", buffering=0)
        except OSError as error:
            note_fault(error)
            # It lists no mounts, and never signals.
            self._file = Path(os.devnull).open("rb", buffering=0)  # noqa: SIM115 - closed below
        self._looked_at = -LOOK_SECONDS
        self.due_at: float | None = 0.0
        """When to read the mounts; None without a change."""

        self._known: Collection[bytes] = ()

    def fileno(self) -> int:
        """Return the descriptor to poll for :data:`SIGNAL`."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the list."""
        self._file.close()

    def signalled(self) -> None:
        """Record a change that the kernel signalled."""
        if self.due_at is None:
            self.due_at = max(time.monotonic(), self._looked_at + LOOK_SECONDS)

    def have_changed(self) -> bool:
        """Read the mounts if that is due; return whether those at points of concern have changed."""
        if self.due_at is None or time.monotonic() < self.due_at:
            return False
        self._looked_at, self.due_at = time.monotonic(), None
        self._file.seek(0)
        lines = self._file.readall().splitlines()
        before, self._known = self._known, [line for line in lines if self._concern(_mount_point(line))]
        return self._known != before


def _mount_point(line: bytes) -> Path:
    """Return the mount point in a line; the kernel escapes white space and backslashes in octal."""
    field = line.split(b" ", _MOUNT_POINT + 1)[_MOUNT_POINT]
    first, *others = field.split(b"\\")
    return Path(os.fsdecode(first + b"".join(bytes([int(one[:3], 8)]) + one[3:] for one in others)))


POLL_SECONDS = 0.5
"""Polling interval without inotify. The second poll that shows a change reports it."""


@contextlib.contextmanager
def watch_path(
    path: Path,
    wake: Callable[[], None],
    debounce: Debounce,
    log_warning: LogWarning,
    *,
    open_inotify: Callable[[], Inotify] = Inotify,
    poll_seconds: float = POLL_SECONDS,
    writers: Writers | None = None,
) -> Iterator[Callable[[], None]]:
    """Call ``wake`` when the documents at a path may have changed, until the context ends.

    The path need not exist, and its directories may be created and removed. Without inotify, the watch polls
    the files every ``poll_seconds`` and logs a warning.

    Args:
        path: the absolute path of a document or of a directory of documents.
        wake: called from the watch's thread at each change, except a write before its file is closed.
        debounce: records each change.
        log_warning: logs that it polls.
        open_inotify: opens inotify; tests pass one that fails.
        poll_seconds: the polling interval without inotify.
        writers: records the files that are open for writing; None for no record.

    Yields:
        A function that processes all pending changes, so that a read considers every earlier change.
    """
    writers, watches = writers or Writers(log_warning), None
    try:
        watches = _Watches(path, open_inotify(), debounce, writers, log_warning)
    except OSError as error:
        _log_polling(log_warning, path, error)
    seen, ended = reader.appearance(path), os.eventfd(0, os.EFD_CLOEXEC)

    def watch() -> None:
        reported: object = seen
        if watches is not None:
            fault = watches.listen_until(ended, wake)
            if fault is None:
                return
            _log_polling(log_warning, path, fault)
            writers.forget()
            reported = None
        _poll(path, wake, ended, reported, poll_seconds)

    thread = threading.Thread(target=watch, name="documents", daemon=True)
    thread.start()
    try:
        yield (lambda: None) if watches is None else watches.catch_up
    finally:
        os.eventfd_write(ended, 1)
        thread.join()
        os.close(ended)


def _log_polling(log_warning: LogWarning, path: Path, error: OSError) -> None:
    log_warning("file_watch_degraded", path=str(path), reason=str(error))


class _Watches:
    """inotify watches on every directory in which a change may change the documents.

    The watch's thread processes changes as they arrive, any other thread on demand.
    """

    def __init__(
        self, path: Path, inotify: Inotify, debounce: Debounce, writers: Writers, log_warning: LogWarning
    ) -> None:
        """Watch the present resolution of the path; raise OSError if the kernel refuses a watch."""
        self._path = path
        self._inotify = inotify
        self._debounce = debounce
        self._writers = writers
        self._directories: dict[int, set[Path]] = {}
        self._look_ups: frozenset[PathStep] = frozenset()
        self._documents: Path | None = None
        self._lock = threading.Lock()
        self._fault: OSError | None = None
        with contextlib.ExitStack() as opened:
            opened.callback(inotify.close)
            self._mounts = Mounts(self._concern_mounts, partial(_log_polling, log_warning, path))
            opened.callback(self._mounts.close)
            self._failed = os.eventfd(0, os.EFD_CLOEXEC)
            opened.callback(os.close, self._failed)
            self._arm()
            self._mounts.have_changed()
            self._opened = opened.pop_all()

    def catch_up(self) -> None:
        """Process all pending changes; a failure ends the watch's thread."""
        with self._lock:
            if self._fault is None:
                self._take()

    def listen_until(self, ended: int, wake: Callable[[], None]) -> OSError | None:
        """Call ``wake`` at changes until ``ended`` is readable; return the error if inotify fails first."""
        poll, mounts = select.poll(), self._mounts
        for descriptor in (self._inotify.fileno(), ended, self._failed):
            poll.register(descriptor, select.POLLIN)
        poll.register(mounts, SIGNAL)
        while ended not in (ready := [readable for readable, _ in poll.poll(self._milliseconds())]):
            with self._lock:
                if self._fault is not None:
                    break
                if mounts.fileno() in ready:
                    mounts.signalled()
                is_changed = self._take()
            if is_changed:
                wake()
        with self._lock:
            self._fault = self._fault or _ENDED
            self._opened.close()
        return None if self._fault is _ENDED else self._fault

    def _milliseconds(self) -> float | None:
        """Return the poll timeout, rounded up to avoid a busy loop."""
        due_at = self._mounts.due_at
        return None if due_at is None else max(0.0, due_at - time.monotonic()) * 1000 + 1

    def _take(self) -> bool:
        """Process the events of inotify, and return whether the documents may have changed."""
        try:
            events = [event for event in self._inotify.read() if self._concern_documents(event)]
            for event in events:
                self._note_writer(event)
            is_mounted = self._mounts.have_changed()
            is_more_watched = (is_mounted or any(map(self._concern_ways, events))) and self._arm()
        except OSError as error:
            self._fault = error
            os.eventfd_write(self._failed, 1)
            return False
        settled = [event for event in events if event.change is not FileChange.WRITTEN]
        for event in settled:
            seconds = reader.MISSING_SECONDS if event.change in _MAY_RETURN else reader.DEBOUNCE_SECONDS
            self._debounce.note((event.watch, event.name), seconds)
        if is_mounted:
            self._debounce.note(MOUNTINFO, reader.DEBOUNCE_SECONDS)
        return is_mounted or is_more_watched or bool(settled)

    def _concern_mounts(self, mount_point: Path) -> bool:
        """Return whether a mount point is a document, or on the path to the documents."""
        if mount_point.parent in (mount_point, self._documents):
            return True
        return PathStep(mount_point.parent, mount_point.name) in self._look_ups

    def _concern_documents(self, event: FileEvent) -> bool:
        """Return whether an event may change the documents."""
        in_documents = self._documents in self._directories.get(event.watch, ())
        is_document = in_documents and (not event.name or reader.is_document_name(event.name))
        return is_document or self._concern_ways(event)

    def _concern_ways(self, event: FileEvent) -> bool:
        """Return whether an event may change the resolution of the path, and so the needed watches."""
        directories = self._directories.get(event.watch, set())
        if event.change is FileChange.OVERFLOW or (event.change is FileChange.WATCH_ENDED and directories):
            return True
        if any(PathStep(directory, event.name) in self._look_ups for directory in directories):
            return True
        documents = self._documents
        if documents is None or documents not in directories or not reader.is_document_name(event.name):
            return False
        return (documents / event.name).is_symlink()  # a new link

    def _note_writer(self, event: FileEvent) -> None:
        if event.change is FileChange.OVERFLOW:
            self._writers.forget()
        for directory in self._directories.get(event.watch, ()):
            if event.change is FileChange.WATCH_ENDED:
                self._writers.forget(directory)
            else:
                self._writers.note(directory / event.name, event.change)

    def _arm(self) -> bool:
        """Update the watches to the resolution of the path; return whether some are new."""
        armed: dict[int, set[Path]] = {}
        known, before = self._look_ups, -1
        while sum(map(len, armed.values())) != before:  # until stable: names may be created meanwhile
            before = sum(map(len, armed.values()))
            self._look()
            directories = {look_up.directory for look_up in self._look_ups}
            for directory in directories | ({self._documents} if self._documents else set()):
                # A directory that was removed meanwhile is reported by the watch on its parent.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    armed.setdefault(self._inotify.add(directory), set()).add(directory)
        for watch in self._directories.keys() - armed.keys():
            self._inotify.remove(watch)
        is_new = not (armed.keys() <= self._directories.keys() and self._look_ups <= known)
        self._directories = armed
        return is_new

    def _look(self) -> None:
        """Resolve the path and the links in a directory of documents, and record the look-ups."""
        way = follow(self._path)
        look_ups = set(way.look_ups)
        self._documents = way.target if way.target is not None and way.target.is_dir() else None
        if self._documents is not None:
            with contextlib.suppress(OSError), os.scandir(self._documents) as entries:
                for entry in entries:
                    if reader.is_document_name(entry.name) and entry.is_symlink():
                        look_ups.update(follow(self._documents / entry.name).look_ups)
        self._look_ups = frozenset(look_ups)


_ENDED = OSError("the watch has ended")

_MAY_RETURN = (FileChange.UNSETTLED, FileChange.WATCH_ENDED)
"""The changes that may be followed by new content."""


def _poll(path: Path, wake: Callable[[], None], ended: int, reported: object, seconds: float) -> None:
    """Call ``wake`` after changes, once two polls in a row see the same state: no writer is active then."""
    before = reported
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    while not poll.poll(seconds * 1000):
        now = reader.appearance(path)
        if now == before and now != reported:
            reported = now
            wake()
        before = now
