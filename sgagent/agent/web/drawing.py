"""Show who may talk to whom: drawn for who sees it, and in words for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from sgagent.agent.web.inspection import Found, Inspected, NotFound
from sgagent.agent.web.markup import Element, tag
from sgagent.agent.web.messages import Response, plain
from sgagent.agent.web.shell import PRIVATE, Section
from sgagent.analysis.graph.labels import sentence

DRAWING_PATH = "/graph.svg"

MOST_SENTENCES = 500

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""The drawing has its style in it, and is none of the page's: it is shown as a picture."""


def graph_section(inspected: Inspected) -> Section:
    """Return the drawing, and what it says in words."""
    return Section("graph", "Who may talk to whom", tuple(_content(inspected)))


def _content(inspected: Inspected) -> Iterator[Element]:
    match inspected:
        case NotFound(reason):
            yield tag("p", reason)
        case Found(graph=graph, drawing=drawing):
            said = [f"{sentence(edge)}." for edge in graph.edges]
            if drawing is None:
                yield tag("p", f"There is too much to draw here ({len(said)} arrows): sgagent graph does.")
            else:
                yield _drawing()
            yield tag("details", tag("summary", "The same in words"), *_words(said))


def _drawing() -> Element:
    """Return the picture in a frame of its own, in which it can be moved by keys where it is too wide."""
    alternative = "A drawing of who may talk to whom; what it says stands in words below it"
    picture = tag("img", src=DRAWING_PATH[1:], alt=alternative)
    return tag(
        "div",
        tag("a", picture, href=DRAWING_PATH[1:]),
        class_="drawing",
        role="group",
        aria_label="Drawing",
    )


def _words(said: list[str]) -> Iterator[Element]:
    yield tag("ul", *(tag("li", text) for text in said[:MOST_SENTENCES]))
    if not said:
        yield tag("p", "Nobody may talk to anybody, as far as groups say it.")
    if len(said) > MOST_SENTENCES:
        yield tag("p", f"… and {len(said) - MOST_SENTENCES} more, which sgagent graph prints.")


def drawing_response(inspected: Inspected) -> Response:
    """Return the drawing as a picture, if there is one."""
    if not isinstance(inspected, Found) or inspected.drawing is None:
        return plain(HTTPStatus.NOT_FOUND, "there is no drawing\n")
    return Response(
        status=HTTPStatus.OK,
        content_type="image/svg+xml",
        content=inspected.drawing,
        headers=(("Content-Security-Policy", _POLICY), *PRIVATE),
    )
