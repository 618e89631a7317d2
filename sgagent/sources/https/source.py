"""HTTPS source: polls one document and its signature."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

from sgagent.core.errors import DocumentError, SourceUnavailableError, printable, refusal
from sgagent.documents import DocumentFile, Limits
from sgagent.ports import Delivery
from sgagent.settings.sources import HttpsSourceSettings, ServerUrl
from sgagent.sources.factory import SourceContext
from sgagent.sources.https.exchange import Answer, BodyTooLargeError, Exchange, NoAnswerError
from sgagent.sources.poller import PolledSource, PollInterval
from sgagent.sources.servers import EndpointCache, ResolveHost, addresses_file, look_up
from sgagent.sources.verified_parse import Failure, MismatchError, VerifiedParser

ASK_WHOLE_SECONDS = 600.0
"""Interval of unconditional requests, in case a server reuses a validator for new content."""

MOST_MISMATCHES = 4
"""Consecutive mismatches of document and signature before the source reports one: a publisher replaces the
two files one after the other."""


def make_source(settings: HttpsSourceSettings, context: SourceContext) -> HttpsSource:
    """Return the source of a configuration."""
    memory = addresses_file(context.settings.state.directory, settings.url.host, settings.url.port)
    return HttpsSource(settings, context.settings.limits, context.parser, memory=memory)


class HttpsSource(PolledSource):
    """Polls a document of a server; implements :class:`Source`."""

    first_answer_seconds = 10.0

    def __init__(
        self,
        settings: HttpsSourceSettings,
        limits: Limits,
        parser: VerifiedParser | None = None,
        *,
        memory: Path | None = None,
        look_up: ResolveHost = look_up,
        random: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the settings without sending a request.

        Args:
            settings: the document's URL and the request parameters.
            limits: the largest accepted document.
            parser: verifies and parses the document; None requires no signature.
            memory: the file that caches the server's addresses; None for no file.
            look_up: resolves a host.
            random: returns jitter from 0 (inclusive) to 1 (exclusive).
            monotonic: the monotonic clock, in seconds.
        """
        self._settings = settings
        self._limits = limits
        endpoint_cache = EndpointCache(settings.url.host, settings.url.port, look_up, memory)
        self._exchange = Exchange(settings, endpoint_cache, limits.document_bytes)
        self._parser = parser or VerifiedParser(limits)
        self._document: _Copy | None = None
        self._signature: _Copy | None = None
        self._mismatches = 0
        interval, unanswered = PollInterval(settings.poll_seconds, random), "no answer of the server yet"
        super().__init__(endpoint_cache, self._exchange.cancellation, interval, unanswered, monotonic)

    def _long_poll_seconds(self) -> int:
        """Return the seconds of a long poll; 0 unless the last request succeeded, without a mismatch."""
        is_well = isinstance(self._outcome, Delivery) and not self._mismatches
        return self._settings.long_poll_seconds if is_well else 0

    def _ask(self, wait: int) -> tuple[Delivery | Failure, float | None]:
        outcome: Delivery | Failure
        try:
            outcome = self._fetched(wait)
        except MismatchError as error:
            self._mismatches += 1
            is_reported = self._mismatches >= MOST_MISMATCHES or not isinstance(self._outcome, Delivery)
            return (Failure.of(error) if is_reported else self._outcome), 0.0
        except BodyTooLargeError:
            message = f"more than {self._limits.document_bytes} bytes"
            remedy = "split it, or raise limits.document_bytes"
            refused = refusal("too_large", str(self._settings.url), message, remedy)
            return Failure.of(refused), 0.0
        except DocumentError as error:
            outcome = Failure.of(error)
        except SourceUnavailableError as error:
            return Failure.of(error), error.put_off if isinstance(error, NoAnswerError) else 0.0
        self._mismatches = 0
        return outcome, None

    def _fetched(self, wait: int) -> Delivery:
        """Fetch the document, and its signature if keys are pinned; verify and parse them.

        Raises:
            SourceUnavailableError: the server sent no document.
            BodyTooLargeError: the document is too large.
            DocumentError: the document is refused.
        """
        url = self._settings.url
        self._document = self._copy(url, self._document, wait)
        document = DocumentFile(name_of(url), self._document.answer.content)
        if not self._parser.wants_signature:
            return self._parser.take((document,), None, str(url))
        path, query, rest = url.target.partition("?")
        signature = replace(url, target=f"{path}.sig{query}{rest}")
        try:
            self._signature = self._copy(signature, self._signature, 0)
        except NoAnswerError as error:
            if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                raise
            self._signature = None
        content = self._signature.answer.content if self._signature else None
        return self._parser.take((document,), content, str(signature))

    def _copy(self, url: ServerUrl, known: _Copy | None, wait: int) -> _Copy:
        """Return the newest copy of a resource; ``known`` itself if the server has not changed it.

        Raises:
            SourceUnavailableError: the server sent none.
            BodyTooLargeError: the resource is too large.
        """
        now = self._monotonic()
        if known is None or not known.answer.validators or now >= known.ask_whole_at:
            answer = self._exchange.ask(url)
            if answer is None:
                raise NoAnswerError(f"{url}: answered 304 to an unconditional request")
        else:
            answer = self._exchange.ask(url, known.answer.validators, wait)
            if answer is None:
                return known
        return _Copy(answer, now + ASK_WHOLE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Copy:
    """An answer of the server, and when to request it unconditionally."""

    answer: Answer
    ask_whole_at: float


def name_of(url: ServerUrl) -> str:
    """Return the document's name for messages: the last part of the path, or else the host."""
    return printable(unquote(url.target.partition("?")[0].rpartition("/")[2])) or url.host
