"""Source of definitions that come from several places: their union."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, Origin, Problem, SourceUnavailableError, reason_at
from sgagent.documents import DocumentFile
from sgagent.ports import SOURCE_AWAY, DeliveredPart, Delivery, Source, Wake
from sgagent.sources.verified_parse import VerifiedParser


class UnionSource:
    """Delivers the documents of several sources as one snapshot; an id that two define is an error.

    A source that can't be reached, or whose documents are refused, keeps the part that it delivered last. One
    that never delivered makes the whole unavailable, since its groups would be unknown to the others. Each
    verifies its own signature.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, Source]],
        parser: VerifiedParser,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take the sources.

        Args:
            sources: each with the place that it is called by; no two places are the same.
            parser: of all documents together.
            now: returns seconds since the epoch.
        """
        self._sources = tuple(sources)
        self._parser = parser
        self._now = now
        self._parts: dict[str, Delivery] = {}
        self._states: dict[str, DeliveredPart] = {}
        self._whole: Delivery | None = None
        self._newest: Delivery | None = None

    def fetch(self) -> Delivery:
        """Return the newest snapshot of all sources.

        Raises:
            DocumentError: all together have errors, or the documents of a source that has not delivered yet.
            SourceUnavailableError: a source can't be reached that has not delivered yet.
        """
        away: dict[str, str] = {}
        refused: list[Problem] = []
        for place, source in self._sources:
            try:
                self._take(place, source.fetch())
            except SourceUnavailableError as error:
                if place not in self._parts:
                    raise
                self._states[place] = replace(self._states[place], fault=str(error))
                away[place] = reason_at(place, str(error))
            except DocumentError as error:
                if place not in self._parts:
                    raise
                self._states[place] = replace(self._states[place], fault=f"refused: {error.problems[0]}")
                refused += error.problems
        documents = tuple(self._documents())
        place = ", ".join(place for place, _ in self._sources)
        own = (warning for place, _ in self._sources for warning in self._parts[place].warnings)
        absences = (_away(place, reason) for place, reason in away.items())
        whole = self._parser.take(documents, None, place, warnings=(*own, *absences))
        states = tuple(self._states[place] for place, _ in self._sources)
        reasons = "; ".join(f"{place}: {reason}" for place, reason in away.items())
        newest = replace(whole, parts=states, refused=tuple(refused), away=reasons or None)
        is_same = self._newest is not None and whole is self._whole and states == self._newest.parts
        if self._newest is None or not is_same or newest.refused != self._newest.refused:
            self._whole, self._newest = whole, newest
        return self._newest

    def _take(self, place: str, delivery: Delivery) -> None:
        """Take a source's delivery, and note when, if it is a new one."""
        before = self._parts.get(place)
        is_new = before is None or (before.documents, before.signed) != (delivery.documents, delivery.signed)
        since = self._now() if is_new else self._states[place].delivered_at
        self._parts[place] = delivery
        self._states[place] = DeliveredPart(place=place, delivered_at=since, signed=delivery.signed)

    def _documents(self) -> Iterator[DocumentFile]:
        """Yield all documents; one whose name another source's has is named by its source, too."""
        taken: set[str] = set()
        for place, _ in self._sources:
            for document in self._parts[place].documents:
                name = document.name if document.name not in taken else f"{place}: {document.name}"
                taken.add(name)
                yield DocumentFile(name, document.content)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where the sources are reached over the network."""
        found = (one for _, source in self._sources for one in source.endpoints())
        return tuple(dict.fromkeys(found))

    def refresh(self, wait_seconds: float = 0.0) -> bool:
        """Have each source look now, one after the other if that is waited for."""
        deadline = time.monotonic() + wait_seconds
        looks = [source.refresh(max(0.0, deadline - time.monotonic())) for _, source in self._sources]
        return all(looks)

    @contextmanager
    def watch(self, wake: Wake) -> Iterator[None]:
        """Call ``wake`` whenever a fetch may deliver something else, until the context is left."""
        with ExitStack() as watches:
            for _, source in self._sources:
                watches.enter_context(source.watch(wake))
            yield


def _away(place: str, reason: str) -> Problem:
    message = f"the source can't be reached; what it delivered last stays in force: {reason}"
    return Problem.warning(Origin(file=place), SOURCE_AWAY, None, message, "see that it can be reached")
