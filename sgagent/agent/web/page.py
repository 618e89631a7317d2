"""Render sections as an HTML page with Jinja2.

Every value is escaped: autoescape is on, and the filters that avoid it are removed, so that no template which
uses one can be rendered. Jinja2 is imported when the first page is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from sgagent import __version__
from sgagent.agent.flowlog.flow import FlowEnd
from sgagent.agent.status import InterfaceState, InterfaceStatus, state_in_words
from sgagent.agent.time_text import age, clock_time
from sgagent.agent.web.responses import PRIVATE, Response
from sgagent.core.errors import printable

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The browser loads our style sheet and pictures, and nothing else."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with its own heading."""

    name: str
    """The id of its element."""

    heading: str
    template: str
    """The file that lays out the view."""

    view: object
    """What the template shows; see the functions that make sections."""


@dataclass(frozen=True, slots=True)
class PageLink:
    """A link to a page or to a part of one."""

    target: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """What a page shows."""

    title: str
    """In the window's title and in the heading."""

    is_healthy: bool
    headline: str
    links: Sequence[PageLink] = ()
    """In the navigation, before the links to the sections."""

    sections: Sequence[Section]
    now: float
    """Seconds since the epoch."""


def render_page(content: PageContent) -> Response:
    """Return the response with a page."""
    links = (*content.links, *(PageLink(f"#{section.name}", section.heading) for section in content.sections))
    text = _renderer()(
        title=content.title,
        is_healthy=content.is_healthy,
        headline=content.headline,
        links=links,
        sections=content.sections,
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
        "machine_time": _machine_time,
        "names": _names,
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
    return "just now" if passed < 1 else f"{age(passed)} ago"


def _machine_time(seconds: float) -> str:
    """Return a time as the attribute ``datetime`` has it."""
    return clock_time(seconds).replace(" ", "T", 1)


def _names(end: FlowEnd) -> str:
    """Return what the definitions call an end of a flow; empty where they do not know it."""
    names = (end.network_interface_id, ", ".join(end.security_group_ids))
    return ", ".join(name for name in names if name)


def _sessions_in_words(interface: InterfaceStatus) -> str:
    """Return whether verdicts on sessions of a link are remembered."""
    if interface.state in (InterfaceState.UNBOUND, InterfaceState.PORT):
        return "–"
    return "checked at every packet" if interface.is_judged_at_every_packet else "cached"
