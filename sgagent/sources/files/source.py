"""File source: reads a document, or a directory of documents, consistently."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.errors import DocumentError, Problem, SourceUnavailableError
from sgagent.core.policy import Endpoint
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.problems import FULL_DOCUMENTS
from sgagent.ports import Delivery, Source, Wake
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources import SourceContext
from sgagent.sources.files import reader
from sgagent.sources.files.reader import Debounce, FileReading, Writers
from sgagent.sources.verified_parse import VerifiedParser, refusal

_TRIES = 20
"""Tries of a consistent read; after the first, the source rereads only changed files."""

START_SECONDS = 2.0
"""How long a start waits at most until no document has changed for a moment."""

SIGNATURE_NAME = "sgagent.sig"
"""The signature file in a directory; that of a single document has its name with ``.sig`` appended."""


def signature_path(path: Path) -> Path:
    """Return the path of the signature of a document or of a directory of documents."""
    is_directory = os.path.isdir(path)  # noqa: PTH112 - pathlib raises where the agent may not look
    return path / SIGNATURE_NAME if is_directory else path.parent / f"{path.name}.sig"


@dataclass(frozen=True, slots=True)
class CollectedDocuments:
    """What stands at a path at one moment, not parsed."""

    documents: tuple[DocumentFile, ...]
    signature: bytes | None
    """None if there is none, or none is wanted."""

    place: str
    """Of the signature."""

    skipped: tuple[Problem, ...]
    """A warning for each directory that is not read."""


def make_source(settings: FileSourceSettings, context: SourceContext) -> Source:
    """Return the source of a configuration."""
    from sgagent.sources.files.background import BackgroundFileSource  # noqa: PLC0415 - it imports this module

    return BackgroundFileSource(settings.path, context.settings.limits, context.parser)


class FileSource:
    """Reads documents from a path; implements :class:`Source`."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        parser: VerifiedParser | None = None,
        *,
        wants_signature: bool | None = None,
    ) -> None:
        """Store the path of a document or of a directory of documents; it need not exist yet.

        Args:
            path: the path.
            limits: the largest accepted documents.
            parser: verifies and parses the documents; None requires no signature.
            wants_signature: whether to read the signature; None: if the parser verifies it.
        """
        self._path = path
        self._limits = limits
        self._parser = parser or VerifiedParser(limits)
        self._wants_signature = self._parser.wants_signature if wants_signature is None else wants_signature
        self._debounce = Debounce()
        self._catch_ups: tuple[Callable[[], None], ...] = ()
        """Functions that process the pending changes of each watch; empty without a watch."""

        self._writers: Writers | None = None
        """The documents that are open for writing; None without a watch."""

        self._taken: Mapping[str, FileReading] | None = None
        """The last readings during a watch, by path."""

        self._is_asked_for_all = False

    def fetch(self) -> Delivery:
        """Return the snapshot of the documents, as :meth:`collect` reads them.

        Raises:
            DocumentError: the documents have errors, are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        found = self.collect()
        return self._parser.take(found.documents, found.signature, found.place, warnings=found.skipped)

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
            self._await_quiet()
            return self._collect()
        finally:
            self._is_asked_for_all = False

    def _catch_up(self) -> None:
        """Process all pending changes, because the watch's thread may be late."""
        for catch_up in self._catch_ups:
            catch_up()

    def _await_quiet(self) -> None:
        """Wait until nothing has changed for a moment, while the documents are watched.

        At a start, that is judged by the files' times. Somebody who asked for all does not wait.
        """
        self._catch_up()
        if self._writers is None or self._is_asked_for_all:
            return
        if self._taken is None:
            self._await_writer(self._writers)
        pause = threading.Event()
        while seconds := self._debounce.remaining():
            pause.wait(seconds)
            self._catch_up()

    def _is_changing(self, deadline: float) -> bool:
        """Return whether something changed since the reading began: more changes may follow.

        Args:
            deadline: from when on that does not matter, by the monotonic clock.
        """
        if self._writers is None or self._is_asked_for_all or time.monotonic() >= deadline:
            return False
        self._catch_up()
        return self._debounce.remaining() > 0

    def _collect(self) -> CollectedDocuments:
        place = signature_path(self._path)
        for _ in range(_TRIES):
            signature = self._read_signature(place)
            documents, skipped = self.read_documents(), reader.skipped_directories(self._path)
            if self._read_signature(place) == signature:
                return CollectedDocuments(documents, signature, str(place), skipped)
        raise SourceUnavailableError(f"{place}: the signature keeps changing while it is read")

    def _read_signature(self, place: Path) -> bytes | None:
        """Return the content of the signature file; None if there is none, or none is wanted."""
        if not self._wants_signature:
            return None
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            pass  # reading the file raises the error with a message
        return reader.read_document(place, self._limits.document_bytes).content

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return no endpoints: the documents are on this host."""
        return ()

    def refresh(self) -> None:
        """Make the next fetch read all documents at once, including those that are open for writing."""
        self._is_asked_for_all = True

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when the documents or their signature have changed, until the context ends."""
        from sgagent.sources.files.watcher import watch_path  # noqa: PLC0415 - only the daemon watches

        path, self._writers = self._path.absolute(), Writers()
        signatures = (path / SIGNATURE_NAME, signature_path(path)) if self._wants_signature else ()
        with ExitStack() as watches:
            self._catch_ups = tuple(
                watches.enter_context(watch_path(one, wake, self._debounce, writers=self._writers))
                for one in dict.fromkeys((path, *signatures))
            )
            watches.callback(setattr, self, "_catch_ups", ())
            yield

    def read_documents(self) -> tuple[DocumentFile, ...]:
        """Return the content of all documents at one moment, not parsed.

        Raises:
            DocumentError: documents are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        known: dict[str, FileReading] = {}
        deadline = time.monotonic() + reader.LONGEST_SECONDS
        for attempt in range(_TRIES):
            if attempt:  # what changed during the reading may be the first of several changes
                self._await_quiet()
            before, being_written = reader.appearance(self._path), self._being_written()
            unchanged = frozenset(before)
            known = {path: reading for path, reading in known.items() if reading.appearance in unchanged}
            try:
                readings = self._read_all(known, being_written)
            except (DocumentError, SourceUnavailableError):
                if reader.appearance(self._path) == before and not self._is_changing(deadline):
                    raise
            else:
                looks = (before, (reading.appearance for reading in readings), reader.appearance(self._path))
                closed = {tuple(one for one in look if one[0] not in being_written) for look in looks}
                if len(closed) == 1 and not self._is_changing(deadline):
                    return self._keep(readings)
                known = {reading.appearance[0]: reading for reading in readings}
        raise SourceUnavailableError(f"{self._path}: documents keep changing while they are read")

    def _keep(self, readings: Iterable[FileReading]) -> tuple[DocumentFile, ...]:
        """Return the documents; during a watch, keep them for the next read."""
        known = {reading.appearance[0]: reading for reading in readings}
        if self._writers is not None:
            self._taken = known
        return tuple(DocumentFile(path, reading.content) for path, reading in known.items())

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
        """Wait for a writer who is at it as the agent starts: what it did before was not watched."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ages = [time.time() - max(c[-2:]) / 1e9 for c in reader.appearance(self._path)]
            youngest = min((age for age in ages if age >= 0), default=reader.MISSING_SECONDS)
            if youngest >= reader.MISSING_SECONDS or writers.hear(reader.MISSING_SECONDS - youngest):
                break

    def _read_all(
        self, known: Mapping[str, FileReading], being_written: frozenset[str]
    ) -> tuple[FileReading, ...]:
        """Read the documents in the order of their names; collect the errors of all.

        Args:
            known: readings of unchanged files by path, from a try a moment ago.
            being_written: paths that a writer has open; their previous content is used, if there is any.

        Raises:
            DocumentError: documents are not regular files, or all together are too large.
            SourceUnavailableError: there is no document, one can't be read, or all are being written.
        """
        readings: list[FileReading] = []
        problems: list[Problem] = []
        room = self._limits.all_bytes
        for path in reader.document_paths(self._path):
            try:
                reading = known.get(str(path))
                if str(path) in being_written:
                    if self._taken is None:
                        raise _still_written(str(path))
                    if (reading := self._taken.get(str(path))) is None:  # new
                        continue
                readings.append(reading or reader.read_document(path, self._limits.document_bytes))
            except DocumentError as error:
                problems.extend(error.problems)
                continue
            room -= len(readings[-1].content)
            if room < 0:
                limit = f"{FULL_DOCUMENTS} times limits.document_bytes"
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
