"""Requests and responses of the HTTP server, and the protection of those that browsers get."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The parts of a request that pages use, as the client sent them: untrusted."""

    query: str = ""
    """The part of the target after the question mark."""

    host: str | None = None
    """The header ``Host``; None if the client sent none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response."""

    status: HTTPStatus
    content_type: str
    content: bytes
    headers: tuple[tuple[str, str], ...] = ()
    """In addition to those that the server sends with each response."""

    make_event: Callable[[], bytes] | None = None
    """Returns the next server-sent event at once; None where the response ends with its content."""


Page = Callable[[Request], Response]
"""Answers a request. Several threads call it."""


def plain(status: HTTPStatus, text: str) -> Response:
    """Return a response with plain text."""
    return Response(status=status, content_type="text/plain; charset=utf-8", content=text.encode())


PRIVATE = (
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
"""Headers that keep a page out of caches, frames, referrers and other origins."""


def is_own_host(host: str | None, own_names: frozenset[str]) -> bool:
    """Return whether a ``Host`` header names this server, to prevent DNS rebinding.

    In DNS rebinding, another site's name resolves to 127.0.0.1, so that its scripts read this server's pages
    as their own. The browser still sends that name: an address, ``localhost`` or a name of this host proves
    that the user asked for this server.

    Args:
        host: the header; None is accepted, since every browser sends one.
        own_names: names of this host in lower case.
    """
    if host is None:
        return True
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return False
    name = (match["ipv6"] or match["name"]).lower().removesuffix(".")
    is_local = name == "localhost" or name.endswith(".localhost")
    return is_local or name in own_names or _is_address(name)


_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
