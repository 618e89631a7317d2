"""Markup is made of elements and texts, and no text becomes an element."""

from __future__ import annotations

from sgagent.agent.web.markup import document, render, tag
from tests.webpage import read_page


def test_elements_and_attributes_are_written_as_they_are_meant() -> None:
    """An underscore stands for a dash, one at the end for nothing; what is absent is left out."""
    made = tag(
        "label", "Port", None, tag("br"), for_="port", aria_label="x", hidden=True, id=None, lang=False
    )
    assert render(made) == '<label for="port" aria-label="x" hidden>Port<br/></label>'


def test_texts_are_texts() -> None:
    """Neither between elements nor in an attribute does a text end what it stands in."""
    text = "</p><script>alert('1')</script>\" onload=\"x&amp;"
    part = read_page(render(tag("p", text, title=text)))
    assert [found.name for found in part.all()] == ["p"]
    assert part.text == text
    assert part.one("p").attributes == {"title": text}


def test_what_is_not_printable_is_shown_as_it_is_written() -> None:
    """A text can neither turn the direction of writing round nor hide in a null."""
    assert render("a\u202eb\x00c") == "a\\u202eb\\x00c"


def test_a_document_says_what_it_is() -> None:
    """A browser that is not told would fall back to the ways of old pages."""
    assert document(tag("html", "ä")) == "<!doctype html>\n<html>ä</html>\n".encode()
