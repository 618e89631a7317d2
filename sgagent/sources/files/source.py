"""Fetch definitions from a file or a directory of this host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, Origin, Problem, Severity, SourceUnavailableError
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.limits import FULL_DOCUMENTS
from sgagent.ports import Delivery, Wake
from sgagent.sources.acceptance import Acceptance
from sgagent.sources.files.bursts import Bursts
from sgagent.sources.files.reading import Appearance, Reading, appearance, document_paths, read_document

_TRIES = 20
"""Readings of files that change meanwhile; after the first, only those are read again that changed."""

SIGNATURE_NAME = "sgagent.sig"
"""Of the signature file in a directory; that of a single document has the document's name and ``.sig``."""


def signature_path(path: Path) -> Path:
    """Return where the signature of a document or of a directory of documents is."""
    return path / SIGNATURE_NAME if path.is_dir() else path.with_name(f"{path.name}.sig")


class FileSource:
    """Read documents from a path; implements :class:`Source`."""

    def __init__(self, path: Path, limits: Limits, acceptance: Acceptance | None = None) -> None:
        """Take the path of a document or of a directory of documents; it need not exist yet.

        Args:
            path: the path.
            limits: what documents may cost.
            acceptance: decides what becomes of them; None asks for no signature.
        """
        self._path = path
        self._limits = limits
        self._acceptance = acceptance or Acceptance(limits)
        self._bursts = Bursts()

    def fetch(self) -> Delivery:
        """Return what the documents say now; those that are what they were are not parsed again.

        The documents are read as they were at one moment: if any of them changes meanwhile, or a directory or
        link is swapped for another, all are read again.

        Raises:
            DocumentError: the documents have errors of form, or are no regular files, or too large.
            SourceUnavailableError: there is no document, one can't be read, or they never stop changing.
        """
        self._bursts.begin_reading()
        if not self._acceptance.wants_signature:
            return self._acceptance.take(self.read_documents(), None, str(self._path))
        place = signature_path(self._path)
        for _ in range(_TRIES):
            signature = self._read_signature(place)
            documents = self.read_documents()
            if self._read_signature(place) == signature:
                return self._acceptance.take(documents, signature, str(place))
        raise SourceUnavailableError(f"{place}: the signature keeps changing while it is read")

    def _read_signature(self, place: Path) -> bytes | None:
        """Return the content of the signature file; None where there is none."""
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            pass  # the reading says what is wrong with it
        return read_document(place, self._limits.document_bytes).content

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return nothing: the documents are on this host."""
        return ()

    def has_settled(self) -> bool:
        """Wait until it is known whether what was read is half of what is under way; return whether not."""
        return self._bursts.has_settled()

    def refresh(self) -> None:
        """Do nothing: each fetch looks."""

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when the documents or their signature have changed, until the context is left."""
        from sgagent.sources.files.watching import watch_path  # noqa: PLC0415 - only the daemon watches

        path = Path.cwd() / self._path
        signatures = (path / SIGNATURE_NAME, signature_path(path)) if self._acceptance.wants_signature else ()
        with ExitStack() as watches:
            for one in dict.fromkeys((path, *signatures)):
                watches.enter_context(watch_path(one, wake, self._bursts))
            yield

    def read_documents(self) -> tuple[DocumentFile, ...]:
        """Return the documents unread, none of which changed while any other was taken.

        Raises:
            DocumentError: they are no regular files, or too large.
            SourceUnavailableError: there is no document, one can't be read, or they never stop changing.
        """
        known: Mapping[str, Reading] = {}
        after = appearance(self._path)
        for _ in range(_TRIES):
            before = after
            try:
                readings = self._read_all(_still(known, before))
            except (DocumentError, SourceUnavailableError):
                after = appearance(self._path)
                if after == before:
                    raise
            else:
                seen, after = tuple(reading.appearance for reading in readings), appearance(self._path)
                if after == seen == before:
                    return tuple(DocumentFile(r.appearance[0], r.content) for r in readings)
                known = {reading.appearance[0]: reading for reading in readings}
        raise SourceUnavailableError(f"{self._path}: documents keep changing while they are read")

    def _read_all(self, known: Mapping[str, Reading]) -> tuple[Reading, ...]:
        """Read the documents in the order of their names; all that can't be are told at once.

        Args:
            known: of some, by their paths, what stands there as it was read a moment ago.
        """
        readings: list[Reading] = []
        problems: list[Problem] = []
        room = self._limits.all_bytes
        for path in document_paths(self._path):
            try:
                reading = known.get(str(path))
                readings.append(reading or read_document(path, self._limits.document_bytes))
            except DocumentError as error:
                problems.extend(error.problems)
                continue
            room -= len(readings[-1].content)
            if room < 0:
                raise DocumentError([*problems, self._too_large()])
        if problems:
            raise DocumentError(problems)
        return tuple(readings)

    def _too_large(self) -> Problem:
        return Problem(
            severity=Severity.ERROR,
            code="too_large",
            origin=Origin(file=str(self._path)),
            message=f"the documents together hold more than {FULL_DOCUMENTS} times limits.document_bytes",
            remedy="remove some, or raise limits.document_bytes",
        )


def _still(known: Mapping[str, Reading], seen: tuple[Appearance, ...] | str) -> Mapping[str, Reading]:
    """Return the readings of files that look as they did when they were read."""
    there = frozenset(() if isinstance(seen, str) else seen)
    return {path: reading for path, reading in known.items() if reading.appearance in there}
