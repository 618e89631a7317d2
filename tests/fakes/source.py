"""A source in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import NoDocumentError, SourceUnavailableError
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import Delivery, Wake
from sgagent.signatures import Signed


class FakeSource:
    """Deliver what a test writes."""

    def __init__(self, content: str | None = None) -> None:
        """Start with one document, or out of reach."""
        self.fetches = 0
        """How often it was asked."""

        self.reached_at: tuple[Endpoint, ...] = ()
        """Its end points; set by tests."""

        self.signed: Signed | None = None
        """Who vouches for what it delivers; set by tests."""

        self.is_empty = False
        """Whether it can be reached and holds nothing, where nothing is written; set by tests."""

        self.is_slow = False
        """Whether it does not look in time; set by tests."""

        self.waits: list[float] = []
        """How long each refresh was allowed to wait, in seconds."""

        self._content = content
        self._watchers: list[Wake] = []

    def write(self, content: str, *, is_told: bool = True) -> None:
        """Make this the one document, and tell who watches, unless the watch misses it."""
        self._content = content
        if is_told:
            self._wake()

    def remove(self) -> None:
        """Be out of reach from now on, and tell who watches."""
        self._content = None
        self._wake()

    def fetch(self) -> Delivery:
        """Return what was written last."""
        self.fetches += 1
        if self._content is None and self.is_empty:
            raise NoDocumentError("the fake source: the directory holds no document")
        if self._content is None:
            raise SourceUnavailableError("the fake source: nothing was written")
        documents = (DocumentFile("fake.yaml", self._content.encode()),)
        snapshot, problems = parse_documents(documents, Limits())
        return Delivery(snapshot=snapshot, problems=problems, documents=documents, signed=self.signed)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what a test set."""
        return self.reached_at

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Do nothing: each fetch looks."""
        self.waits.append(wait_seconds)
        return not self.is_slow

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` whenever something is written or removed, until the context is left."""
        self._watchers.append(wake)
        try:
            yield
        finally:
            self._watchers.remove(wake)

    def _wake(self) -> None:
        for wake in tuple(self._watchers):
            wake()
