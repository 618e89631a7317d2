"""Put sections into a page: its head, its landmarks, its style, and what a browser may do with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from sgagent import __version__
from sgagent.agent.web.markup import Element, Node, document, tag
from sgagent.agent.web.messages import Response

STYLE_PATH = "/page.css"
ICON_PATH = "/icon.svg"

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a browser may load and run: our style sheet and pictures, and nothing else."""

PRIVATE = (
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)
"""Headers that keep what is shown from whoever is not meant to see it."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading of its own."""

    name: str
    """To which links lead."""

    heading: str
    content: tuple[Node | None, ...]

    def element(self) -> Element:
        """Return the part as a landmark."""
        heading = f"{self.name}-heading"
        title = tag("h2", self.heading, id=heading)
        return tag("section", title, *self.content, id=self.name, aria_labelledby=heading)


@dataclass(frozen=True, slots=True)
class Place:
    """Something that the navigation leads to."""

    target: str
    words: str


def page(title: str, places: Sequence[Place], lead: Node, sections: Sequence[Section]) -> Response:
    """Return a page.

    Args:
        title: of the page, in the window and above everything.
        places: what the navigation leads to, beside the sections.
        lead: what is said first.
        sections: the parts.
    """
    inside = (Place(f"#{section.name}", section.heading) for section in sections)
    root = tag("html", _head(title), _body(title, (*places, *inside), lead, sections), lang="en")
    return Response(
        status=HTTPStatus.OK,
        content_type="text/html; charset=utf-8",
        content=document(root),
        headers=(("Content-Security-Policy", POLICY), *PRIVATE),
    )


def _head(title: str) -> Element:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", f"{title} – sgagent"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href=ICON_PATH[1:], type="image/svg+xml"),
        tag("link", rel="stylesheet", href=STYLE_PATH[1:]),
    )


def _body(title: str, places: Sequence[Place], lead: Node, sections: Iterable[Section]) -> Element:
    links = (tag("li", tag("a", place.words, href=place.target)) for place in places)
    return tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("header", tag("h1", title), lead),
        tag("nav", tag("ul", *links), aria_label="Parts of this page"),
        tag("main", *(section.element() for section in sections), id="content", tabindex="-1"),
        tag("footer", tag("p", f"sgagent {__version__}. This page only shows: nothing can be changed here.")),
    )
