"""The state directory: the last good definitions over restarts and reboots (§9.2), whole after a crash.

The files hold the documents as the source delivered them; they are parsed again when they are loaded. Each
file is replaced atomically. A file whose checksum does not agree is reported and left, and the one before is
used. The newest undamaged file holds what is enforced, now and after a boot: a rollback adds a file with the
earlier definitions. So each change is one rename.

A file has three lines: its format with a checksum, a short head that is enough for lists, and the documents.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sgagent.core.errors import NotPermittedError
from sgagent.core.expected_links import ExpectedLink
from sgagent.documents import DocumentFile
from sgagent.json_model import UNREADABLE, checksum, from_json, seal, to_json, unseal

_FORMAT = 3
_SEALED_FORMAT = 1


class DamagedStateError(Exception):
    """Report that a state file is damaged; its name and the reason are the message."""


class Trigger(enum.Enum):
    """The command or source that had documents enforced."""

    SOURCE = "source"
    APPLY = "apply"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How large the compiled table was."""

    interfaces: int
    rules: int
    """Of all interfaces; a group's rules count on each."""

    chains: int
    elements: int
    """Of all maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Until when documents on trial have to be confirmed. Seconds are of the boot's monotonic clock."""

    boot_id: str
    began: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How documents came to be enforced, and the version that the source holds back meanwhile."""

    origin: Trigger = Trigger.SOURCE
    enforced_at: float | None = None
    """When they were enforced first, in seconds since the epoch; None in files that do not have it."""

    held_back: str | None = None
    """The source's version that is not enforced as long as the source has no other, if there is one."""

    extent: Extent | None = None
    terms: Terms | None = None
    """Only of documents that are or were on trial."""


@dataclass(frozen=True, slots=True)
class KeptDocuments:
    """Documents that were enforced."""

    version: str
    documents: tuple[DocumentFile, ...]
    links: tuple[ExpectedLink, ...] = ()
    """Where network interfaces were found: their rules apply to these links until they are found again."""

    record: Record = field(default_factory=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHead:
    """A summary of kept documents, which is read without them."""

    version: str
    record: Record
    documents: int
    bytes: int
    """Of all documents."""


@dataclass(frozen=True, slots=True)
class _FirstLine:
    """The first line of a file."""

    format: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Body:
    """The last line of a file."""

    documents: tuple[DocumentFile, ...]
    links: tuple[ExpectedLink, ...] = ()


def encode_kept(kept: KeptDocuments) -> bytes:
    """Return the content of a file."""
    count, size = len(kept.documents), sum(len(file.content) for file in kept.documents)
    summary = SnapshotHead(version=kept.version, record=kept.record, documents=count, bytes=size)
    head = json.dumps(to_json(summary))
    # In ASCII, as a file's name need not be text.
    body = json.dumps(to_json(_Body(kept.documents, kept.links)))
    rest = f"{head}\n{body}\n".encode()
    first = json.dumps({"format": _FORMAT, "sha256": checksum(rest)})
    return first.encode() + b"\n" + rest


def decode_head(content: bytes, place: str) -> SnapshotHead:
    """Return the head of a file whose content is whole.

    Args:
        content: of the file.
        place: its name, for the message.

    Raises:
        DamagedStateError: it is not.
    """
    with _damage_named(place):
        return from_json(SnapshotHead, json.loads(_lines(content, place)[0]))


def decode_kept(content: bytes, place: str) -> KeptDocuments:
    """Return the documents of a file.

    Raises:
        DamagedStateError: its content is not whole, or none of ours.
    """
    with _damage_named(place):
        head, body = map(json.loads, _lines(content, place))
        summary, rest = from_json(SnapshotHead, head), from_json(_Body, body)
        return KeptDocuments(summary.version, rest.documents, rest.links, summary.record)


def _lines(content: bytes, place: str) -> list[bytes]:
    """Return head and body."""
    first, _, rest = content.partition(b"\n")
    line = from_json(_FirstLine, json.loads(first))
    if line.format != _FORMAT:
        raise DamagedStateError(f"{place}: of format {line.format!r}, which this version does not read")
    if line.sha256 != checksum(rest):
        raise DamagedStateError(f"{place}: damaged: the checksum does not agree")
    lines = rest.split(b"\n", 2)[:2]
    if len(lines) != 2:
        raise ValueError("a line is missing")
    return lines


@contextlib.contextmanager
def _damage_named(place: str) -> Iterator[None]:
    """Name the file whose content turns out to be unreadable."""
    try:
        yield
    except UNREADABLE as error:
        raise DamagedStateError(f"{place}: damaged: not a file of kept documents: {error}") from error


def fault_of(write: Callable[[], object], complaint: str) -> str | None:
    """Write something, and return the complaint with the reason if that failed."""
    try:
        write()
    except OSError as error:
        return f"{complaint}: {error}"
    return None


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file by new content, all of it or nothing, safe from a power cut; its directory is made.

    Raises:
        OSError: nothing was changed; or the new content is there, and may not outlast a power cut.
    """
    rename_durably(write_draft(path, content, is_synced=True), path)


def write_draft(path: Path, content: bytes, *, is_synced: bool) -> Path:
    """Write a file's new content beside it, and return where; the directory is made.

    Args:
        path: of the file.
        content: the new one.
        is_synced: whether to wait until the disk has it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())
    return draft


def rename_durably(path: Path, target: Path) -> None:
    """Give a file another name in the same file system, in place of the file of that name."""
    path.replace(target)
    _sync_rename(path, target)


def _sync_rename(path: Path, target: Path) -> None:
    _sync_directory(target.parent)
    if path.parent != target.parent:
        _sync_directory(path.parent)


def remove_durably(*paths: Path) -> None:
    """Remove files, as far as they are there."""
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_renamed(path: Path, target: Path) -> bool:
    """Rename a file, and return whether that was possible."""
    try:
        path.replace(target)
    except OSError:
        return False
    return True


_Content = TypeVar("_Content")


class SealedFile:
    """A small file of the state directory, with a checksum; it is replaced whole, safe from a power cut."""

    def __init__(self, path: Path, purpose: str) -> None:
        """Take the path, and the file's name in a fault, like ``file of modes``."""
        self._path = path
        self._purpose = purpose

    def load(self, decode: Callable[[Any], _Content]) -> tuple[_Content | None, str | None]:
        """Return the file's content, and its fault; both are None where there is no file.

        Args:
            decode: takes the values of JSON that were saved, and raises ValueError for others.
        """
        try:
            return decode(unseal(self._path.read_bytes(), _SEALED_FORMAT)[0]), None
        except FileNotFoundError:
            return None, None
        except OSError as error:
            return None, f"{self._path}: {error.strerror}"
        except UNREADABLE as error:
            return None, f"{self._path}: not a {self._purpose}: {error}"

    def save(self, body: object) -> None:
        """Replace the content by values of JSON.

        Raises:
            OSError: nothing was changed.
        """
        write_durably(self._path, seal(body, _SEALED_FORMAT))

    def remove(self) -> None:
        """Remove the file, if it is there."""
        remove_durably(self._path)


MOST_ENTRIES = 10
MOST_BYTES = 256 * 1024 * 1024
"""All files together; the two newest are kept, however large they are."""

_FEWEST_ENTRIES = 2
_NAME = re.compile(r"([0-9]{8})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFile:
    """One file of the history."""

    number: int
    head: SnapshotHead | None
    """None where the file is damaged."""

    fault: str | None = None
    """Why the file is damaged."""


class History:
    """A directory of numbered files; the highest number is the newest."""

    def __init__(self, directory: Path, *, most_bytes: int = MOST_BYTES) -> None:
        """Take the directory, which is made when something is kept, and how large it may become."""
        self._directory = directory
        self._most_bytes = most_bytes

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers that are there, damaged ones included, the oldest first."""
        try:
            names = [path.name for path in self._directory.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name))))

    def path(self, number: int) -> Path:
        """Return where a number has its file."""
        return self._directory / f"{number:08d}.json"

    def entries(self) -> Iterator[HistoryFile]:
        """Yield the kept files, the newest first; damaged files are named."""
        for number, head, fault in self.newest_first(decode_head):
            yield HistoryFile(number=number, head=head, fault=fault)

    def newest_first(
        self, decode: Callable[[bytes, str], _Content]
    ) -> Iterator[tuple[int, _Content | None, str | None]]:
        """Yield the number of each file, and its content or its fault."""
        for number in reversed(self.numbers()):
            path = self.path(number)
            try:
                yield number, decode(path.read_bytes(), str(path)), None
            except FileNotFoundError:
                continue  # it was the oldest, and gave way to a new one
            except (OSError, DamagedStateError) as error:
                yield number, None, str(error)

    def read(self, number: int) -> KeptDocuments:
        """Return the documents of a number.

        Raises:
            OSError: there is no such file, or it can't be read.
            DamagedStateError: it is damaged.
        """
        path = self.path(number)
        return decode_kept(path.read_bytes(), str(path))

    def keep(self, kept: KeptDocuments) -> int:
        """Keep documents as the newest, and return their number.

        Where the newest has their version already, it is replaced; when that was enforced first stays.

        Raises:
            OSError: nothing was changed.
        """
        newest, number = next(self.entries(), None), self.next_number()
        if newest is not None and newest.head is not None and newest.head.version == kept.version:
            number, first = newest.number, newest.head.record.enforced_at
            if first is not None:
                kept = replace(kept, record=replace(kept.record, enforced_at=first))
        write_durably(self.path(number), encode_kept(kept))
        self.prune()
        return number

    def take(self, path: Path) -> int:
        """Make a file the newest, by giving it its name, and return its number.

        Raises:
            OSError: nothing was changed. A name that the disk does not keep is taken back, if that can be.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self.next_number()
        target = self.path(number)
        path.replace(target)
        try:
            _sync_rename(path, target)
        except OSError:
            if not _is_renamed(target, path):  # by now the file system may be read-only
                return number
            raise
        return number

    def next_number(self) -> int:
        """Return the number of the next file."""
        return max(self.numbers(), default=0) + 1

    def prune(self) -> None:
        """Remove the oldest files while there are too many, or they are too large, as far as possible."""
        newest_first = self.numbers()[::-1]
        room = self._most_bytes
        for place, number in enumerate(newest_first):
            path = self.path(number)
            with contextlib.suppress(OSError):
                room -= path.stat().st_size
                if place >= MOST_ENTRIES or (room < 0 and place >= _FEWEST_ENTRIES):
                    remove_durably(path)


_CONFIGURATION = "last-good.toml"
_HISTORY = "history"


class StateDirectory:
    """The directory that outlives the agent."""

    is_changed = True
    """Whether this process writes there."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is made when something is kept."""
        self.directory = directory
        self.history = History(directory / _HISTORY)

    def refuse_unreadable(self) -> None:
        """Make sure that this process may read the state that an earlier one kept.

        Raises:
            NotPermittedError: it may not, since that was another user.
        """
        for directory in (self.directory, self.directory / _HISTORY):
            if directory.is_dir() and not os.access(directory, os.R_OK | os.X_OK):
                raise NotPermittedError(
                    f"{directory}: user {directory.stat().st_uid} keeps the state there, and an agent of user"
                    f" {os.geteuid()}, without privilege as it is, may not read it: run it as that user, or"
                    " have the directory belong to this one"
                )

    def has_enforced(self) -> bool:
        """Return whether this host ever enforced a snapshot: whether anything was kept, readable or not.

        Where the directory can't be read, something may be there, and so the answer is yes.
        """
        try:
            return bool(self.history.numbers())
        except OSError:
            return True

    def keep(self, kept: KeptDocuments) -> None:
        """Keep these documents as those that are enforced; those before are the fallback.

        Raises:
            OSError: nothing was changed.
        """
        self.history.keep(kept)

    def load(self) -> tuple[KeptDocuments | None, tuple[str, ...]]:
        """Return the newest documents that can be read, and the faults of those that can't."""
        faults: list[str] = []
        try:
            for _, kept, fault in self.history.newest_first(decode_kept):
                if kept is not None:
                    return kept, tuple(faults)
                faults.append(str(fault))
        except OSError as error:
            faults.append(str(error))
        return None, tuple(faults)

    def keep_configuration(self, text: str) -> None:
        """Keep the configuration that an agent started with, should it be broken at the next boot.

        Raises:
            OSError: nothing was changed.
        """
        if text != self.configuration():
            write_durably(self.directory / _CONFIGURATION, text.encode())

    def configuration(self) -> str | None:
        """Return the configuration that was kept; None where there is none that can be read."""
        try:
            return (self.directory / _CONFIGURATION).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return None
