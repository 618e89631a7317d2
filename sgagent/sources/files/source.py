"""File source: parses a document, or a directory of documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgagent.core.endpoints import Endpoint
from sgagent.documents import DocumentFile, Limits
from sgagent.ports import Delivery, Source, Wake
from sgagent.settings.sources import FileSourceSettings
from sgagent.sources.factory import SourceContext
from sgagent.sources.files.collector import CollectedDocuments, CollectorTask, FileCollector
from sgagent.sources.verified_parse import VerifiedParser


def make_source(settings: FileSourceSettings, context: SourceContext) -> Source:
    """Return the source of a configuration."""
    from sgagent.sources.files.background import BackgroundFileSource  # noqa: PLC0415 - it imports this module

    return BackgroundFileSource(settings.path, context.settings.limits, context.parser)


class FileSource:
    """Reads documents from a path; implements :class:`Source`."""

    def __init__(self, path: Path, limits: Limits, parser: VerifiedParser | None = None) -> None:
        """Store the path of a document or of a directory of documents; it need not exist yet.

        Args:
            path: the path.
            limits: the largest accepted documents.
            parser: verifies and parses the documents; None requires no signature.
        """
        self._parser = parser or VerifiedParser(limits)
        self._collector = FileCollector(collector_task(path, limits, self._parser), log_warning)

    def fetch(self) -> Delivery:
        """Return the snapshot of the documents, as :meth:`FileCollector.collect` reads them.

        Raises:
            DocumentError: the documents have errors, are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        return parsed(self._parser, self.collect())

    def collect(self) -> CollectedDocuments:
        """Return the documents at one moment, neither verified nor parsed; raises as :meth:`fetch`."""
        return self._collector.collect()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return no endpoints: the documents are on this host."""
        return ()

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Make the next fetch read all documents at once, including those that are open for writing."""
        del wait_seconds  # the fetch waits
        self._collector.refresh()
        return True

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` when the documents or their signature have changed, until the context ends."""
        with self._collector.watch(wake):
            yield

    def read_documents(self) -> tuple[DocumentFile, ...]:
        """Return the content of all documents at one moment, not parsed.

        Raises:
            DocumentError: documents are not regular files, or are too large.
            SourceUnavailableError: there is no document, one can't be read, or they keep changing.
        """
        return tuple(DocumentFile(*one) for one in self._collector.read_documents().items())


def collector_task(path: Path, limits: Limits, parser: VerifiedParser) -> CollectorTask:
    """Return the reading task for a parser."""
    return CollectorTask(
        path=path,
        document_bytes=limits.document_bytes,
        all_bytes=limits.all_bytes,
        wants_signature=parser.wants_signature,
    )


def parsed(parser: VerifiedParser, found: CollectedDocuments) -> Delivery:
    """Return the snapshot of collected documents; raise DocumentError if they have errors."""
    documents = tuple(DocumentFile(*one) for one in found.documents.items())
    return parser.take(documents, found.signature, found.place, warnings=found.skipped)


def log_warning(event: str, **values: object) -> None:
    """Log a watch's warning."""
    import structlog  # noqa: PLC0415 - most commands log nothing, and it takes longer than small documents

    structlog.get_logger(__name__).warning(event, **values)
