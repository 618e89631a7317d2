"""Say what is asked for over HTTP, and what is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a reader asks for, as it was sent: nothing of it is to be believed."""

    query: str = ""
    """What stands behind the question mark of the target."""

    host: str | None = None
    """Whom the reader believes to speak to, with a port; None where it did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a reader gets."""

    status: HTTPStatus
    content_type: str
    content: bytes
    headers: tuple[tuple[str, str], ...] = ()
    """Beside those that every answer has."""


Page = Callable[[Request], Response]
"""Makes a page anew at each request; called from several threads."""


def plain(status: HTTPStatus, text: str) -> Response:
    """Return plain text."""
    return Response(status=status, content_type="text/plain; charset=utf-8", content=text.encode())
