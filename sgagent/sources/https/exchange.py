"""One HTTP exchange with a server: TLS connection, request, redirects, validators and bounded answer.

One deadline ends all waits of an exchange, and another thread can cancel it.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

from sgagent import __version__
from sgagent.core.errors import SourceUnavailableError, printable
from sgagent.settings.sources import HttpsSourceSettings, ServerUrl
from sgagent.sources import servers
from sgagent.sources.servers import ConnectionDeadline, EndpointCache


class BoundedSocket(ssl.SSLSocket):
    """A TLS connection with one deadline for all reads together.

    With a timeout per read, a server that sends a byte now and then could hold the connection forever.
    """

    deadline: ConnectionDeadline | None = None

    def recv_into(self, *arguments: Any, **named: Any) -> int:  # noqa: ANN401 - the parameters of what is overridden, passed on
        """Receive until the deadline."""
        if self.deadline is not None:
            self.settimeout(self.deadline.remaining())
        return super().recv_into(*arguments, **named)

    def recv(self, *arguments: Any, **named: Any) -> bytes:  # noqa: ANN401 - likewise
        """Receive; only the standard library calls this, on a connection that ended before TLS."""
        try:
            return super().recv(*arguments, **named)
        except OSError:
            self.close()  # the caller has no reference to close it after this error
            raise


class Cancellation:
    """Cancellation from another thread: it shuts down the connection in use."""

    def __init__(self) -> None:
        """Start without a connection."""
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._lock = threading.Lock()

    def hold(self, connected: socket.socket | None) -> None:
        """Set the connection in use; shut it down at once if the request is cancelled already."""
        with self._lock:
            self._socket = connected
            if self._is_cut:
                self._shut()

    def break_off(self) -> None:
        """Shut down the connection in use, and later ones until :meth:`resume`."""
        with self._lock:
            self._is_cut = True
            self._shut()

    def resume(self) -> None:
        """Allow connections again."""
        with self._lock:
            self._is_cut = False

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the peer has closed the connection
                # SSLSocket.shutdown would drop the TLS session that the other thread is reading from.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_INFLATED_PIECE_BYTES = 256 * 1024
"""Bytes decompressed in one step; the memory use exceeds the limit by at most this."""

WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""The zlib window of each content coding (RFC 9110, section 8.4.1)."""


class InflationError(Exception):
    """A body that does not match its content coding."""


def inflate(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the decompressed body in pieces of bounded size.

    The generator decompresses only as many pieces as the caller takes.

    Raises:
        InflationError: the body is damaged or truncated, or has data after its end.
    """
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    for piece in pieces:
        if unpacker.eof:
            raise InflationError(f"data after the end of the {encoding} body")
        packed = piece
        while packed and not unpacker.eof:
            try:
                unpacked = unpacker.decompress(packed, _INFLATED_PIECE_BYTES)
            except zlib.error as error:
                raise InflationError(f"the body is no {encoding}: {error}") from error
            yield unpacked
            packed = unpacker.unconsumed_tail
        if unpacker.unused_data:
            raise InflationError(f"data after the end of the {encoding} body")
    if not unpacker.eof:
        raise InflationError(f"the {encoding} body is truncated")


_PIECE_BYTES = 64 * 1024


class NoAnswerError(SourceUnavailableError):
    """A server without a usable answer, with the time that it asks clients to wait."""

    def __init__(self, message: str, *, put_off: float = 0.0, status: int | None = None) -> None:
        """Store the message, the seconds that the server asks to wait, and the HTTP status, if any."""
        super().__init__(printable(message))
        self.put_off = put_off
        self.status = status


class BodyTooLargeError(Exception):
    """A body over the size limit."""


def read_body(response: http.client.HTTPResponse, url: ServerUrl, most_bytes: int) -> bytes:
    """Return the complete, decompressed body.

    Args:
        response: the response after its headers.
        url: for messages.
        most_bytes: the limit, both compressed and decompressed.

    Raises:
        NoAnswerError: the body is truncated, has two lengths, or a coding that the request did not accept.
        BodyTooLargeError: the body exceeds the limit; the rest is not read.
    """
    lengths = response.headers.get_all("Content-Length", [])
    has_length = response.length is not None and all(_is_decimal(length.strip()) for length in lengths)
    if not has_length and not response.chunked:
        raise NoAnswerError(f"{url}: the answer does not say where it ends (no Content-Length)")
    if len(set(lengths)) > 1:
        raise NoAnswerError(f"{url}: the answer gives two lengths (Content-Length: {', '.join(lengths)})")
    if (response.length or 0) > most_bytes:
        raise BodyTooLargeError
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    pieces = _bounded(_pieces(response, url), most_bytes)
    if encoding in WINDOWS:
        pieces = _bounded(inflate(pieces, encoding), most_bytes)
    elif encoding != "identity":
        raise NoAnswerError(f"{url}: the content coding {encoding!r} was not accepted in the request")
    try:
        return b"".join(pieces)
    except InflationError as error:
        raise NoAnswerError(f"{url}: {error}") from error


def _pieces(response: http.client.HTTPResponse, url: ServerUrl) -> Iterator[bytes]:
    """Yield the body as sent.

    Raises:
        NoAnswerError: the body is shorter than announced.
    """
    try:
        while piece := response.read(_PIECE_BYTES):
            yield piece
    except (http.client.IncompleteRead, ValueError) as error:  # ValueError: a chunk of negative length
        raise NoAnswerError(f"{url}: the answer was cut off") from error
    if response.length:
        raise NoAnswerError(f"{url}: the answer was cut off, {response.length} bytes before its end")


def _bounded(pieces: Iterator[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield pieces; raise BodyTooLargeError beyond the limit."""
    room = most_bytes
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise BodyTooLargeError
        yield piece


MOST_REDIRECTS = 3
_LONGEST_VALIDATOR = 1024
_LONGEST_REASON = 80


Validators = Mapping[str, str]
"""The headers of a conditional request for a document; empty if the server names no version of it."""

_NO_VALIDATORS: Validators = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete document."""

    content: bytes
    validators: Validators


@dataclass(frozen=True, slots=True)
class Exchange:
    """Exchanges with one server, each over a new connection."""

    settings: HttpsSourceSettings
    """Trust, credentials and timeouts."""

    endpoint_cache: EndpointCache
    """The addresses of the server."""

    most_bytes: int
    """Limit of a body, compressed and decompressed."""

    cancellation: Cancellation = field(default_factory=Cancellation)
    """Cancels a request in progress, from another thread."""

    def ask(self, url: ServerUrl, known: Validators = _NO_VALIDATORS, wait_seconds: int = 0) -> Answer | None:
        """Send a request and return the answer; None for 304 Not Modified.

        Args:
            url: the document.
            known: the validators of the cached content.
            wait_seconds: the seconds of a long poll; 0 for none.

        Raises:
            NoAnswerError: the server can't be reached, or sent no complete document in time.
            SourceUnavailableError: one of our own files can't be used.
            BodyTooLargeError: the document is larger than the limits allow.
        """
        seconds = self.settings.timeout_seconds
        deadline = ConnectionDeadline(seconds + wait_seconds)
        headers = self._headers(known, wait_seconds)
        target = url
        try:
            for _ in range(MOST_REDIRECTS + 1):
                answer = self._ask_once(target, headers, deadline)
                if not isinstance(answer, ServerUrl):
                    return answer
                target = answer
        except TimeoutError:
            waited = f" and {wait_seconds} s of long poll" if wait_seconds else ""
            raise NoAnswerError(f"{url}: no whole answer within {seconds} s{waited}") from None
        except ssl.SSLError as error:
            raise NoAnswerError(f"{url}: {servers.tls_reason(error)}") from error
        except http.client.RemoteDisconnected:
            raise NoAnswerError(f"{url}: the connection was closed without an answer") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NoAnswerError(f"{url}: can't be reached: {reason}") from error
        except http.client.HTTPException as error:
            raise NoAnswerError(f"{url}: what came is not HTTP: {str(error)[:_LONGEST_REASON]}") from error
        raise NoAnswerError(f"{target}: more than {MOST_REDIRECTS} redirects in a row")

    def _ask_once(
        self, url: ServerUrl, headers: Mapping[str, str], deadline: ConnectionDeadline
    ) -> Answer | ServerUrl | None:
        """Send one request; return its answer, or the URL of a redirect."""
        connection = http.client.HTTPConnection(url.host, url.port)
        try:
            connection.sock = secure = self._connected(url, deadline)
            secure.settimeout(deadline.remaining())
            connection.putrequest("GET", url.target, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": url.authority, **headers}.items():
                connection.putheader(name, value)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders()  # a server that refuses the rest has sent why, which is read next
            with connection.getresponse() as response:
                return self._take(response, url)
        finally:
            self.cancellation.hold(None)
            connection.close()

    def _connected(self, url: ServerUrl, deadline: ConnectionDeadline) -> BoundedSocket:
        """Return a TLS connection to the first address of the server that answers.

        Raises:
            NoAnswerError: no address answered in time.
            OSError: the server can't be reached, or TLS failed.
        """
        patience = self.settings.connect_timeout_seconds
        context = servers.make_context(self.settings, "http/1.1")
        context.sslsocket_class = BoundedSocket
        addresses = self.endpoint_cache.find()
        connecting = ConnectionDeadline(min(patience, deadline.remaining()))
        try:
            plain = servers.connect_to_first(addresses, url.port, connecting)
            self.cancellation.hold(plain)
            try:
                plain.settimeout(connecting.remaining())
                secure = context.wrap_socket(plain, server_hostname=url.host)
            except BaseException:
                plain.close()
                raise
        except TimeoutError:
            raise NoAnswerError(f"{url}: no connection within {patience} s") from None
        self.cancellation.hold(secure)
        if not isinstance(secure, BoundedSocket) or secure.version() is None:
            secure.close()
            raise ConnectionResetError(errno.ECONNRESET, "the connection ended before TLS began")
        secure.deadline = deadline
        return secure

    def _headers(self, known: Validators, wait_seconds: int) -> Mapping[str, str]:
        """Return the headers of a request, apart from the host."""
        token_file = self.settings.token_file
        headers = {
            "User-Agent": f"sgagent/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "close",
        }
        if token_file is not None:
            headers["Authorization"] = f"Bearer {servers.read_token(token_file)}"
        wait = {"Prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        return {**headers, **known, **wait}

    def _take(self, response: http.client.HTTPResponse, url: ServerUrl) -> Answer | ServerUrl | None:
        """Convert a response into an answer."""
        match response.status:
            case HTTPStatus.OK:
                content = read_body(response, url, self.most_bytes)
                return Answer(content=content, validators=_validators(response))
            case HTTPStatus.NOT_MODIFIED:
                return None
            case 301 | 302 | 303 | 307 | 308:
                return _redirected(url, response.getheader("Location") or "")
            case status:
                asked = response.getheader("Retry-After") or ""  # a date counts as none
                put_off = float(asked) if _is_decimal(asked) else 0.0
                message = f"{url}: answered {_status_in_words(status)}"
                raise NoAnswerError(message, put_off=put_off, status=status)


def _validators(response: http.client.HTTPResponse) -> Validators:
    """Return the server's validators of this content and no other, without those that can't be sent back.

    Servers make an ETag of the second in which a file was written and its size. Within that second, another
    file of that size has the same (RFC 9110, section 8.8.2, says so of dates).
    """
    last_modified = _header_value(response, "Last-Modified")
    if _is_of_this_second(last_modified, _header_value(response, "Date")):
        return _NO_VALIDATORS
    named = {"If-None-Match": _header_value(response, "ETag"), "If-Modified-Since": last_modified}
    return {name: value for name, value in named.items() if value is not None}


def _is_of_this_second(written: str | None, sent: str | None) -> bool:
    """Return whether the content sent may have been replaced since without its date having changed."""
    try:
        return written is not None and parsedate_to_datetime(written) >= parsedate_to_datetime(sent or "")
    except (ValueError, TypeError, OverflowError):
        return False  # a date that is none, or one without a zone beside one that has it


def _header_value(response: http.client.HTTPResponse, name: str) -> str | None:
    value = response.getheader(name)
    usable = value and len(value) <= _LONGEST_VALIDATOR and value.isascii() and value.isprintable()
    return value if usable else None


def _redirected(url: ServerUrl, location: str) -> ServerUrl:
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
    return ServerUrl(host=url.host, port=url.port, target=target)


def _is_decimal(text: str) -> bool:
    """Return whether this is a number of RFC 9110; Python's ``int`` takes ``4_5`` and ``+5`` as well."""
    return text.isascii() and text.isdigit()


def _status_in_words(status: int) -> str:
    """Return a status with its standard reason phrase; the server's own phrase is not trusted."""
    words = f"{status} {http.client.responses.get(status, '')}".rstrip()
    is_refused = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return f"{words} (see token_file, client_certificate)" if is_refused else words
