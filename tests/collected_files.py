"""Documents that are collected and watched in this process, as by the process that reads for an agent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import structlog

from sgagent.documents import DocumentFile, Limits
from sgagent.ports import Delivery
from sgagent.sources.files.collector import CollectorTask, FileCollector
from sgagent.sources.verified_parse import VerifiedParser


def log_warning(event: str, **values: object) -> None:
    """Log a watch's warning."""
    structlog.get_logger(__name__).warning(event, **values)


class CollectedFiles:
    """The documents at a path."""

    def __init__(self, path: Path) -> None:
        """Take the path of a document or of a directory."""
        limits = Limits()
        self._parser = VerifiedParser(limits)
        self._collector = FileCollector(
            CollectorTask(
                path=path,
                document_bytes=limits.document_bytes,
                all_bytes=limits.all_bytes,
                wants_signature=False,
            )
        )

    def fetch(self) -> Delivery:
        """Return the snapshot of what is collected now."""
        found = self._collector.collect()
        documents = tuple(DocumentFile(*one) for one in found.documents.items())
        return self._parser.take(documents, None, found.place)

    def refresh(self) -> None:
        """Have the next fetch take documents that are open for writing."""
        self._collector.refresh()

    def watch(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``wake`` when the documents have changed, until the context ends."""
        return self._collector.watch(wake, log_warning)
