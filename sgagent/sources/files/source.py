"""File source: parses a document, or a directory of documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sgagent.core.endpoints import Endpoint
from sgagent.documents import DocumentFile, Limits
from sgagent.ports import Delivery, Wake
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources.factory import SourceContext
from sgagent.sources.files.collector import CollectedDocuments, CollectorTask, FileCollector
from sgagent.sources.verified_parse import Failure, VerifiedParser

if TYPE_CHECKING:  # what only a watch needs
    from sgagent.sources.files.background import BackgroundReading, Patience


def make_source(settings: FileSourceSettings, context: SourceContext) -> FileSource:
    """Return the source of a configuration."""
    return FileSource(settings.path, context.settings.limits, context.parser)


class FileSource:
    """Reads documents from a path; implements :class:`Source`.

    During a watch, as of the agent, another process reads. Without one, as of a command, a fetch reads by
    itself and takes as long as that takes.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        parser: VerifiedParser | None = None,
        *,
        patience: Patience | None = None,
    ) -> None:
        """Store the path of a document or of a directory of documents; it need not exist yet.

        Args:
            path: the path.
            limits: the largest accepted documents.
            parser: verifies and parses the documents; None requires no signature.
            patience: how long a reading may take during a watch; None is the usual one.
        """
        self._parser = parser or VerifiedParser(limits)
        self._task = CollectorTask(
            path=path,
            document_bytes=limits.document_bytes,
            all_bytes=limits.all_bytes,
            wants_signature=self._parser.wants_signature,
        )
        self._collector = FileCollector(self._task)
        self._patience = patience
        self._readings: list[BackgroundReading] = []
        """One for each watch; the newest one is asked."""

        self._is_asked = False

    def fetch(self) -> Delivery:
        """Return the snapshot of the documents.

        During a watch, it is what the other process read last. That reads again at each fetch that finds
        nothing newer, and wakes the watch if there is; only a fetch after :meth:`refresh` waits for it.

        Raises:
            DocumentError: the documents have errors, are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read (in time), or they keep changing.
        """
        found = self.collect()
        documents = tuple(DocumentFile(*one) for one in found.documents.items())
        return self._parser.take(documents, found.signature, found.place, warnings=found.skipped)

    def collect(self) -> CollectedDocuments:
        """Return the newest documents, neither verified nor parsed; raises as :meth:`fetch`."""
        is_asked, self._is_asked = self._is_asked, False
        if not self._readings:
            return self._collector.collect()
        found = self._readings[-1].newest(is_asked=is_asked)
        if isinstance(found, Failure):
            raise found.exception()
        return found

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return no endpoints: the documents are on this host."""
        return ()

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Make the next fetch read all documents at once, including those that are open for writing."""
        del wait_seconds  # the fetch waits
        self._is_asked = True
        return True

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when the documents or their signature have changed, until the context ends."""
        from sgagent.sources.files.background import BackgroundReading  # noqa: PLC0415 - commands do without

        task = replace(self._task, path=self._task.path.absolute())
        with closing(BackgroundReading(task, wake, self._patience)) as reading:
            self._readings.append(reading)
            try:
                yield
            finally:
                self._readings.remove(reading)

    def read_documents(self) -> tuple[DocumentFile, ...]:
        """Return the content of all documents at one moment, not parsed.

        Raises:
            DocumentError: documents are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        return tuple(DocumentFile(*one) for one in self._collector.read_documents().items())
