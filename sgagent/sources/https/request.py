"""One HTTP exchange with a server: request, redirects, validators and bounded answer."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

from sgagent import __version__
from sgagent.settings import HttpsSourceSettings, HttpsUrl
from sgagent.sources.endpoint_cache import EndpointCache
from sgagent.sources.https.connection import BoundedConnection, Cancellation, ConnectionDeadline, make_context
from sgagent.sources.https.response import NoAnswerError, read_body
from sgagent.sources.secret_file import read_token

MOST_REDIRECTS = 3
_LONGEST_VALIDATOR = 1024
_LONGEST_REASON = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Validators:
    """The validators of an answer: ETag and Last-Modified."""

    etag: str | None = None
    last_modified: str | None = None

    def __bool__(self) -> bool:
        """Return whether there is any validator for a conditional request."""
        return self.etag is not None or self.last_modified is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request for a document."""

    url: HttpsUrl
    known: Validators = Validators()
    """The validators of the cached content, for a conditional request."""

    wait_seconds: int = 0
    """Seconds of a long poll; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete document."""

    content: bytes
    validators: Validators


@dataclass(frozen=True, slots=True)
class NotModified:
    """The answer 304 Not Modified; invalid after an unconditional request."""


class Exchange:
    """Exchanges with one server, each over a new connection."""

    def __init__(self, settings: HttpsSourceSettings, endpoint_cache: EndpointCache, most_bytes: int) -> None:
        """Store the parameters of all requests.

        Args:
            settings: trust, credentials and times.
            endpoint_cache: where the server is.
            most_bytes: the largest body, packed or unpacked.
        """
        self._settings = settings
        self._endpoint_cache = endpoint_cache
        self._most_bytes = most_bytes
        self.cancellation = Cancellation()
        """Cancels a request in progress, from another thread."""

    def ask(self, question: Question) -> Answer | NotModified:
        """Send a request and return the answer.

        Raises:
            NoAnswerError: it can't be reached, or what it answers is no document that came whole and in time.
            SourceUnavailableError: our own files are not as they should be.
            TooLargeError: the document is larger than the limits allow.
        """
        deadline = ConnectionDeadline(self._settings.timeout_seconds + question.wait_seconds)
        try:
            return self._follow(question, deadline)
        except TimeoutError:
            raise NoAnswerError(
                f"{question.url}: no whole answer within {self._patience(question)}"
            ) from None
        except ssl.SSLError as error:
            raise NoAnswerError(f"{question.url}: TLS failed: {_reason_of_tls(error)}") from error
        except http.client.RemoteDisconnected:
            raise NoAnswerError(f"{question.url}: the connection was closed without an answer") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NoAnswerError(f"{question.url}: can't be reached: {reason}") from error
        except http.client.HTTPException as error:
            reason = str(error)[:_LONGEST_REASON]
            raise NoAnswerError(f"{question.url}: what came is not HTTP: {reason}") from error

    def _patience(self, question: Question) -> str:
        waited = f" and {question.wait_seconds} s of long poll" if question.wait_seconds else ""
        return f"{self._settings.timeout_seconds} s{waited}"

    def _follow(self, question: Question, deadline: ConnectionDeadline) -> Answer | NotModified:
        """Send a request, and follow redirects to the same server."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._ask_once(question, deadline)
            if not isinstance(answer, HttpsUrl):
                return answer
            question = replace(question, url=answer)
        raise NoAnswerError(f"{question.url}: more than {MOST_REDIRECTS} redirects in a row")

    def _ask_once(self, question: Question, deadline: ConnectionDeadline) -> Answer | NotModified | HttpsUrl:
        """Send one request; return its answer, or the URL of a redirect."""
        connection = BoundedConnection(
            question.url.host,
            question.url.port,
            addresses=self._endpoint_cache.find(),
            context=make_context(self._settings),
            connecting=ConnectionDeadline(min(self._settings.connect_timeout_seconds, deadline.remaining())),
            deadline=deadline,
            cancellation=self.cancellation,
        )
        try:
            self._connect(connection, question.url)
            self._send(connection, question)
            with connection.getresponse() as response:
                return self._take(response, question)
        finally:
            self.cancellation.hold(None)
            connection.close()

    def _connect(self, connection: BoundedConnection, url: HttpsUrl) -> None:
        try:
            connection.connect()
        except TimeoutError:
            patience = self._settings.connect_timeout_seconds
            raise NoAnswerError(f"{url}: no connection within {patience} s") from None

    def _send(self, connection: BoundedConnection, question: Question) -> None:
        connection.putrequest("GET", question.url.target, skip_host=True, skip_accept_encoding=True)
        for name, value in self._headers(question).items():
            connection.putheader(name, value)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders()  # a server that would not hear us out has said why, which is read next

    def _headers(self, question: Question) -> Mapping[str, str]:
        headers = {
            "Host": question.url.authority,
            "User-Agent": f"sgagent/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "close",
        }
        if self._settings.token_file is not None:
            headers["Authorization"] = f"Bearer {read_token(self._settings.token_file)}"
        if question.known.etag is not None:
            headers["If-None-Match"] = question.known.etag
        if question.known.last_modified is not None:
            headers["If-Modified-Since"] = question.known.last_modified
        if question.wait_seconds:
            headers["Prefer"] = f"wait={question.wait_seconds}"
        return headers

    def _take(
        self, response: http.client.HTTPResponse, question: Question
    ) -> Answer | NotModified | HttpsUrl:
        """Convert a response into an answer."""
        match response.status:
            case HTTPStatus.OK:
                content = read_body(response, question.url, self._most_bytes)
                return Answer(content=content, validators=_validators(response))
            case HTTPStatus.NOT_MODIFIED:
                return NotModified()
            case (
                HTTPStatus.MOVED_PERMANENTLY
                | HTTPStatus.FOUND
                | HTTPStatus.SEE_OTHER
                | HTTPStatus.TEMPORARY_REDIRECT
                | HTTPStatus.PERMANENT_REDIRECT
            ):
                return _redirected(question.url, response.getheader("Location") or "")
            case status:
                raise NoAnswerError(
                    f"{question.url}: answered {_status_in_words(status)}",
                    put_off=_put_off(response.getheader("Retry-After") or ""),
                    status=status,
                )


def _validators(response: http.client.HTTPResponse) -> Validators:
    """Return what the server calls this content and no other; what can't be sent back does not count.

    Servers make an ETag of the second in which a file was written and its size. Within that second, another
    file of that size has the same (RFC 9110, section 8.8.2, says so of dates).
    """
    last_modified = _header_value(response, "Last-Modified")
    if _is_of_this_second(last_modified, _header_value(response, "Date")):
        return Validators()
    return Validators(etag=_header_value(response, "ETag"), last_modified=last_modified)


def _is_of_this_second(written: str | None, sent: str | None) -> bool:
    """Return whether what was sent may have been replaced since without its date having changed."""
    try:
        return written is not None and parsedate_to_datetime(written) >= parsedate_to_datetime(sent or "")
    except (ValueError, TypeError):  # a date that is none, or one without a zone beside one that has it
        return False


def _header_value(response: http.client.HTTPResponse, name: str) -> str | None:
    value = response.getheader(name)
    usable = value and len(value) <= _LONGEST_VALIDATOR and value.isascii() and value.isprintable()
    return value if usable else None


def _redirected(url: HttpsUrl, location: str) -> HttpsUrl:
    """Return where a redirect leads.

    Raises:
        NoAnswerError: it leads to another server, which the configuration does not name, or is invalid.
    """
    try:
        parts = urlsplit(urljoin(str(url), location))
        origin = (parts.scheme, parts.hostname, parts.port or 443)
    except ValueError:
        origin, parts = None, urlsplit("")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if (
        not location
        or origin != ("https", url.host, url.port)
        or not (target.isascii() and target.isprintable())
    ):
        raise NoAnswerError(f"{url}: redirected to {location[:200]!r}, which is not the same server")
    return HttpsUrl(host=url.host, port=url.port, target=target)


def _status_in_words(status: int) -> str:
    """Return a status with its standard reason phrase; the server's own phrase is not trusted."""
    try:
        words = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f"{words} (see token_file, client_certificate)"
    return words


def _put_off(text: str) -> float:
    """Return the seconds of a ``Retry-After`` header; a date counts as none."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _reason_of_tls(error: ssl.SSLError) -> str:
    """Return the TLS library's reason."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
