"""Collector of document files: reads a document, or a directory of documents, consistently.

Nothing here needs more than the standard library and :mod:`sgagent.core.errors`: the process that reads for
the agent imports this.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.errors import DocumentError, Problem, SourceUnavailableError, refusal
from sgagent.sources.files import reader
from sgagent.sources.files.reader import Debounce, FileReading, LogWarning, Writers

CHANGING_SECONDS = 4.0
"""How long to try to read documents that keep changing; the agent waits 5 seconds for a reading."""

_SIGNATURE_TRIES = 20
"""Tries to read documents and their signature together."""

START_SECONDS = 2.0
"""How long a start waits at most until no document has changed for a moment."""

SIGNATURE_NAME = "sgagent.sig"
"""The signature file in a directory; that of a single document has its name with ``.sig`` appended."""


def signature_path(path: Path) -> Path:
    """Return the path of the signature of a document or of a directory of documents."""
    is_directory = os.path.isdir(path)  # noqa: PTH112 - pathlib raises where the agent may not look
    return path / SIGNATURE_NAME if is_directory else path.parent / f"{path.name}.sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorTask:
    """The path and limits of a reading."""

    path: Path
    """Of a document or of a directory of documents."""

    document_bytes: int
    """The largest document; of a larger one, a byte more is read, for the parser to refuse it."""

    all_bytes: int
    """That all together may have."""

    wants_signature: bool


@dataclass(frozen=True, slots=True)
class CollectedDocuments:
    """The documents at a path at one moment, not parsed."""

    documents: Mapping[str, bytes]
    """The content of each, by its name in messages, in the order of names."""

    signature: bytes | None
    """None if there is none, or none is wanted."""

    place: str
    """Of the signature."""

    skipped: tuple[Problem, ...]
    """A warning for each directory that is not read."""


class FileCollector:
    """Collects documents at a path, and watches them."""

    def __init__(self, task: CollectorTask) -> None:
        """Store the task; the path need not exist yet."""
        self._path = task.path
        self._task = task
        self._debounce = Debounce()
        self._catch_ups: tuple[Callable[[], None], ...] = ()
        """Functions that process the pending changes of each watch; empty without a watch."""

        self._writers: Writers | None = None
        """The documents that are open for writing; None without a watch."""

        self._taken: Mapping[str, FileReading] | None = None
        """The last readings during a watch, by path."""

        self._is_asked_for_all = False

    def collect(self) -> CollectedDocuments:
        """Return the documents at one moment.

        The read is consistent: if a document, directory or link changes meanwhile, the source retries. During
        a watch, the source debounces changes. Until its writer closes it, or for a bounded time, a document
        that is open for writing keeps its previous content, and a new one is left out.

        Raises:
            DocumentError: documents are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        try:
            self._catch_up()
            if self._writers is not None and self._taken is None and not self._is_asked_for_all:
                self._await_writer(self._writers)
            deadline = time.monotonic() + reader.LONGEST_SECONDS
            self._await_quiet(deadline)
            return self._collect(deadline)
        finally:
            self._is_asked_for_all = False

    def _catch_up(self) -> None:
        """Process all pending changes, because the watch's thread may be late."""
        for catch_up in self._catch_ups:
            catch_up()

    def _await_quiet(self, deadline: float) -> None:
        """Wait until nothing has changed for a moment.

        Args:
            deadline: of the wait, by the monotonic clock.
        """
        pause = threading.Event()
        while seconds := self._debounce_seconds(deadline):
            pause.wait(seconds)

    def _debounce_seconds(self, deadline: float) -> float:
        """Return how long to wait for further changes; 0 without a watch, or where all was asked for.

        Args:
            deadline: of the wait, by the monotonic clock.
        """
        self._catch_up()
        if self._writers is None or self._is_asked_for_all:
            return 0.0
        return min(self._debounce.remaining(), max(0.0, deadline - time.monotonic()))

    def _collect(self, deadline: float) -> CollectedDocuments:
        place = signature_path(self._path)
        for _ in range(_SIGNATURE_TRIES):
            signature = self._read_signature(place)
            documents, skipped = self.read_documents(deadline), reader.skipped_directories(self._path)
            if self._read_signature(place) == signature:
                return CollectedDocuments(documents, signature, str(place), skipped)
        raise SourceUnavailableError(f"{place}: the signature keeps changing while it is read")

    def _read_signature(self, place: Path) -> bytes | None:
        """Return the content of the signature file; None if there is none, or none is wanted."""
        if not self._task.wants_signature:
            return None
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            pass  # reading the file raises the error with a message
        return reader.read_document(place, self._task.document_bytes).content

    def refresh(self) -> None:
        """Make the next reading take all documents at once, including those that are open for writing."""
        self._is_asked_for_all = True

    @contextmanager
    def watch(self, wake: Callable[[], None], log_warning: LogWarning) -> Iterator[None]:
        """Call ``wake`` when the documents or their signature have changed, until the context ends."""
        from sgagent.sources.files.watcher import watch_path  # noqa: PLC0415 - only the daemon watches

        path, self._writers = self._path.absolute(), Writers(log_warning)
        signatures = (path / SIGNATURE_NAME, signature_path(path)) if self._task.wants_signature else ()
        with ExitStack() as watches:
            self._catch_ups = tuple(
                watches.enter_context(
                    watch_path(one, wake, self._debounce, log_warning, writers=self._writers)
                )
                for one in dict.fromkeys((path, *signatures))
            )
            watches.callback(setattr, self, "_catch_ups", ())
            yield

    def read_documents(self, deadline: float = 0.0) -> Mapping[str, bytes]:
        """Return the content of all documents at one moment, not parsed.

        Args:
            deadline: until when a consistent reading is refused while changes go on, by the monotonic clock.

        Raises:
            DocumentError: documents are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        known: dict[str, FileReading] = {}
        last_try = time.monotonic() + CHANGING_SECONDS
        while True:
            before, being_written = reader.appearance(self._path), self._being_written()
            unchanged = frozenset(before)
            known = {path: reading for path, reading in known.items() if reading.appearance in unchanged}
            try:
                readings = self._read_all(known, being_written)
            except (DocumentError, SourceUnavailableError):
                if reader.appearance(self._path) == before and not self._debounce_seconds(deadline):
                    raise
            else:
                looks = (before, (reading.appearance for reading in readings), reader.appearance(self._path))
                closed = {tuple(one for one in look if one[0] not in being_written) for look in looks}
                if len(closed) == 1 and not self._debounce_seconds(deadline):
                    return self._keep(readings)
                known = {reading.appearance[0]: reading for reading in readings}
            if time.monotonic() >= last_try:
                raise SourceUnavailableError(f"{self._path}: documents keep changing while they are read")
            self._await_quiet(deadline)  # what changed during the reading may be the first of several changes

    def _keep(self, readings: Iterable[FileReading]) -> Mapping[str, bytes]:
        """Return the documents; during a watch, keep them for the next read."""
        known = {reading.appearance[0]: reading for reading in readings}
        if self._writers is not None:
            self._taken = known
        return {path: reading.content for path, reading in known.items()}

    def _being_written(self) -> frozenset[str]:
        """Return the documents whose writers have not closed them."""
        files = self._writers.open_files() if self._writers and not self._is_asked_for_all else None
        if not files:
            return frozenset()
        names = {file.name for file in files}
        paths = reader.document_paths(self._path)
        candidates = (p for p in paths if p.name in names or os.path.islink(p))  # noqa: PTH114 - as above
        return frozenset(str(path) for path in candidates if Path(os.path.realpath(path)) in files)

    def _await_writer(self, writers: Writers) -> None:
        """Wait for a writer who is at work as the agent starts: its earlier writes were not watched."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ages = [time.time() - max(c[-2:]) / 1e9 for c in reader.appearance(self._path)]
            youngest = min((age for age in ages if age >= 0), default=reader.MISSING_SECONDS)
            if youngest >= reader.MISSING_SECONDS or writers.wait(reader.MISSING_SECONDS - youngest):
                break

    def _read_all(
        self, known: Mapping[str, FileReading], being_written: frozenset[str]
    ) -> tuple[FileReading, ...]:
        """Read the documents in the order of their names; collect the errors of all.

        Args:
            known: readings of unchanged files by path, from a try a moment ago.
            being_written: paths that a writer has open; their previous content is used, if there is any.

        Raises:
            DocumentError: documents are not regular files or links to one, or all together are too large.
            SourceUnavailableError: there is no document, one can't be read, or all are being written.
        """
        readings: list[FileReading] = []
        problems: list[Problem] = []
        room = self._task.all_bytes
        for path in reader.document_paths(self._path):
            try:
                reading = known.get(str(path))
                if str(path) in being_written:
                    if self._taken is None:
                        raise _still_written(str(path))
                    if (reading := self._taken.get(str(path))) is None:  # new
                        continue
                readings.append(reading or reader.read_document(path, self._task.document_bytes))
            except DocumentError as error:
                problems.extend(error.problems)
                continue
            except reader.BrokenLinkError:
                if path == self._path:
                    raise
                remedy = "make its target, or remove the link"
                problems += refusal("broken_link", str(path), reader.BROKEN_LINK, remedy).problems
                continue
            room -= len(readings[-1].content)
            if room < 0:
                limit = f"{self._task.all_bytes // self._task.document_bytes} times limits.document_bytes"
                message = f"the documents together hold more than {limit}"
                remedy = "remove some, or raise limits.document_bytes"
                problems += refusal("too_large", str(self._path), message, remedy).problems
                raise DocumentError(problems)
        if problems:
            raise DocumentError(problems)
        if not readings:
            raise _still_written(min(being_written))
        return tuple(readings)


def _still_written(path: str) -> SourceUnavailableError:
    return SourceUnavailableError(f"{path}: its writer has not closed it, so it may be half written")
