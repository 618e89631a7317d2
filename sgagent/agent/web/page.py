"""Requests and responses of pages, the probes, and the HTML page that shows sections, made with Jinja2.

Every value is escaped: autoescape is on, and the filters that avoid it are removed, so that no template which
uses one can be rendered. Jinja2 is imported when the first page is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from sgagent import __version__
from sgagent.agent.clock import clock_time, short_age
from sgagent.agent.posture import InterfaceState, InterfaceStatus, state_in_words
from sgagent.agent.published_status import PublishedStatus
from sgagent.core.errors import printable
from sgagent.core.rule_values import few_objects


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


STATUS_PATHS = (
    "/",
    "/rules",
    "/explain",
    "/rule",
    "/graph",
    "/graph.svg",
    "/events",
    "/page.js",
    "/page.css",
    "/icon.svg",
)
"""Of the pages that show the present state: those of :meth:`sgagent.agent.web.routes.StatusPages.by_path`."""


def health_pages(published: PublishedStatus) -> Mapping[str, Page]:
    """Return the probes by their paths: whether the agent is alive, and enforces the newest definitions."""
    return {
        "/healthz": lambda _: _probe(published.reasons_not_alive()),
        "/readyz": lambda _: _probe(published.reasons_not_ready()),
    }


def _probe(reasons: tuple[str, ...]) -> Response:
    if not reasons:
        return plain(HTTPStatus.OK, "ok\n")
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{reason}\n" for reason in reasons))


def made_when_asked(paths: Iterable[str], make: Callable[[], Mapping[str, Page]]) -> Mapping[str, Page]:
    """Return the pages of some paths, which are made when the first of them is asked for.

    Many an agent is never asked for any, and they need modules that nothing else does.
    """
    made = functools.cache(make)

    def answer(path: str, request: Request) -> Response:
        return made()[path](request)

    return {path: functools.partial(answer, path) for path in paths}


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


CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The browser loads our style sheet, pictures and script and nothing else; no text becomes markup or code."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with its own heading."""

    name: str
    """The id of its element."""

    heading: str
    template: str
    """The file that lays out the view."""

    view: object
    """The template's variable ``view``: a mapping where it is several values."""


@dataclass(frozen=True, slots=True)
class PageLink:
    """A link to a page or to a part of one."""

    target: str
    words: str
    is_current: bool = False
    """Whether it leads to the page that it is on."""


PAGES = (
    PageLink("./", "Overview"),
    PageLink("rules", "Rules"),
    PageLink("graph", "Graph"),
    PageLink("explain", "Explain"),
)
"""In the navigation of each page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """The content of a page."""

    title: str
    """In the window's title and in the heading."""

    is_healthy: bool
    headline: str
    reasons: Sequence[str] = ()
    """Why it needs attention, as clauses."""

    alert: Sequence[str] = ()
    """Lines that stand out on every page; none for no alert."""

    path: str = ""
    """The page's own link in the navigation; empty where it has none."""

    tiles: Sequence[object] = ()
    """Figures of the first screen; see ``sections``."""

    sections: Sequence[Section]
    now: float
    """Seconds since the epoch."""


def render_page(content: PageContent) -> Response:
    """Return the response with a page."""
    text = _renderer()(
        page=content,
        links=[replace(link, is_current=link.target == content.path) for link in PAGES],
        now=content.now,
        version=__version__,
    )
    return Response(
        status=HTTPStatus.OK,
        content_type="text/html; charset=utf-8",
        content=text.encode(),
        headers=(("Content-Security-Policy", CONTENT_SECURITY_POLICY), *PRIVATE),
    )


UNSAFE_FILTERS = frozenset({"e", "escape", "forceescape", "safe", "tojson", "urlize", "xmlattr"})
"""They return markup that Jinja2 does not escape again, and some do not escape at all."""


@functools.cache
def _renderer() -> Callable[..., str]:
    """Return the function that renders the template of a page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - the daemon starts without it

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in UNSAFE_FILTERS:
        del environment.filters[name]
    environment.filters |= {
        "ago": _ago,
        "clock_time": clock_time,
        "few_objects": few_objects,
        "sessions_in_words": _sessions_in_words,
        "state_in_words": state_in_words,
    }
    return environment.get_template("page.html").render


def _printable(value: object) -> object:
    """Return a value as text without control characters; a text could reverse the direction of writing.

    Jinja2 applies it to each value before it escapes it. What a macro returned was treated there.
    """
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else printable(str(value))


def _ago(seconds: float, now: float) -> str:
    """Return how long ago a time was."""
    passed = max(0.0, now - seconds)
    return "just now" if passed < 1 else f"{short_age(passed)} ago"


def _sessions_in_words(interface: InterfaceStatus) -> str:
    """Return whether verdicts on sessions of a link are remembered."""
    if interface.state in (InterfaceState.UNBOUND, InterfaceState.PORT):
        return "–"
    return "checked at every packet" if interface.is_judged_at_every_packet else "cached"
