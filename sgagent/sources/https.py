"""Fetch definitions from one document of an HTTPS server."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import unquote

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, Origin, Problem, Severity, SourceUnavailableError, printable
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import Delivery, Wake
from sgagent.settings import HttpsSourceSettings, HttpsUrl
from sgagent.sources.body import NoAnswerError, TooLargeError
from sgagent.sources.connecting import LookUp, Whereabouts, look_up
from sgagent.sources.exchange import Answer, Exchange, NotModified, Question, Validators
from sgagent.sources.pace import Pace
from sgagent.sources.polling import Poller

FIRST_ANSWER_SECONDS = 10.0
"""How long the first fetch waits for an answer while a watch asks in its thread; later ones do not wait."""

ASK_WHOLE_SECONDS = 600.0
"""After which the document is asked for without condition, should a server call new content as the old."""


class HttpsSource:
    """Follow a document of a server; implements :class:`Source`.

    While somebody watches, only the thread of the watch speaks with the server, and a fetch hands over the
    newest that it has. Without a watch, a fetch asks the server itself.
    """

    def __init__(
        self,
        settings: HttpsSourceSettings,
        limits: Limits,
        *,
        look_up: LookUp = look_up,
        random: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the settings; nothing is asked yet.

        Args:
            settings: where the document is and how it is asked for.
            limits: what it may cost.
            look_up: finds the addresses of a host.
            random: spreads the questions of many hosts; from 0, included, to 1.
            monotonic: tells seconds that never go back.
        """
        self._settings = settings
        self._limits = limits
        self._monotonic = monotonic
        self._whereabouts = Whereabouts(settings.url.host, settings.url.port, look_up)
        self._exchange = Exchange(settings, self._whereabouts, limits.document_bytes)
        self._pace = Pace(settings.poll_seconds, random)
        self._poller = Poller(self._poll, self._exchange.cutting.cut)
        self._asking = threading.Lock()
        self._kept: _Kept | None = None
        self._outcome: _Outcome = _NOT_ASKED

    def fetch(self) -> Delivery:
        """Return the newest complete snapshot that the server delivered.

        Raises:
            DocumentError: the document has errors of form, or is too large.
            SourceUnavailableError: the server can't be reached, or did not answer with a whole document.
        """
        if self._poller.is_asking:
            self._poller.wait_for_first(FIRST_ANSWER_SECONDS)
        else:
            self._exchange.cutting.mend()
            self._poll()
        outcome = self._outcome
        if isinstance(outcome, Delivery):
            return outcome
        raise outcome.with_traceback(None)  # it is raised again and again, and would remember each time

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where the server was found last."""
        return self._whereabouts.endpoints()

    def refresh(self) -> None:
        """Ask the server now, whenever the next question is due."""
        self._poller.hurry()

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` when the server delivers something else, until the context is left."""
        self._exchange.cutting.mend()
        return self._poller.watch(wake)

    def _poll(self) -> tuple[bool, float]:
        """Ask once; return whether anything changed, and how many seconds there are to the next question."""
        with self._asking:
            before = (_comparable(self._outcome), self.endpoints())
            began = self._monotonic()
            wait = self._long_poll_seconds()
            put_off: float | None = None
            try:
                self._outcome = self._ask(wait)
            except DocumentError as error:
                self._outcome, put_off = error, 0.0
            except SourceUnavailableError as error:
                self._outcome = error
                put_off = error.put_off if isinstance(error, NoAnswerError) else 0.0
            is_changed = before != (_comparable(self._outcome), self.endpoints())
            if put_off is not None:
                return is_changed, self._pace.after_failure(put_off)
            if not wait:
                return is_changed, self._pace.after_answer()
            took = self._monotonic() - began
            return is_changed, self._pace.after_long_poll(took=took, wait=wait, is_changed=is_changed)

    def _long_poll_seconds(self) -> int:
        """Return for how long the server should wait: only if there is something to compare with."""
        is_known = self._kept is not None and isinstance(self._outcome, Delivery | DocumentError)
        return self._settings.long_poll_seconds if is_known else 0

    def _ask(self, wait: int) -> Delivery | DocumentError:
        """Ask the server, and return what its newest document comes to.

        Raises:
            SourceUnavailableError: it gave no document.
            DocumentError: it gave one that is too large.
        """
        now = self._monotonic()
        kept = self._kept if self._kept is not None and now < self._kept.ask_whole_at else None
        known = kept.answer.validators if kept else Validators()
        try:
            answer = self._exchange.ask(
                Question(url=self._settings.url, known=known, wait_seconds=wait if known else 0)
            )
        except TooLargeError:
            raise DocumentError([self._too_large()]) from None
        if isinstance(answer, NotModified):
            if kept is None or not known:
                raise NoAnswerError(f"{self._settings.url}: answered 304 to a question without condition")
            return kept.outcome
        self._kept = self._take(answer, now + ASK_WHOLE_SECONDS)
        return self._kept.outcome

    def _take(self, answer: Answer, ask_whole_at: float) -> _Kept:
        """Return what an answer comes to; the same content is not read again."""
        before = self._kept
        if before is not None and before.answer.content == answer.content:
            return _Kept(answer, before.outcome, ask_whole_at)
        document = DocumentFile(name_of(self._settings.url), answer.content)
        try:
            snapshot, problems = parse_documents((document,), self._limits)
        except DocumentError as error:
            return _Kept(answer, error, ask_whole_at)
        delivery = Delivery(snapshot=snapshot, problems=problems, documents=(document,))
        return _Kept(answer, delivery, ask_whole_at)

    def _too_large(self) -> Problem:
        return Problem(
            severity=Severity.ERROR,
            code="too_large",
            origin=Origin(file=str(self._settings.url)),
            message=f"more than {self._limits.document_bytes} bytes",
            remedy="split it, or raise limits.document_bytes",
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """The newest whole answer, and what it came to."""

    answer: Answer
    outcome: Delivery | DocumentError
    ask_whole_at: float


_Outcome = Delivery | DocumentError | SourceUnavailableError
_NOT_ASKED = SourceUnavailableError("the server has not answered yet")


def _comparable(outcome: _Outcome) -> object:
    """Return a value that is the same only for outcomes that mean the same."""
    return outcome if isinstance(outcome, Delivery) else (type(outcome), str(outcome))


def name_of(url: HttpsUrl) -> str:
    """Return how messages call the document: the last part of the path, or the host where there is none."""
    return printable(unquote(url.target.partition("?")[0].rpartition("/")[2])) or url.host
