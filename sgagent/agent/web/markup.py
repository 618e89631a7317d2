"""Build HTML and SVG from values, so that no text can become markup.

There is no way to put a text into a page unescaped: a string among the children is text, and whatever an id
or a description holds, it is shown as it is written. Names of elements and attributes are those of the code.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from sgagent.core.errors import printable

_WITHOUT_CONTENT = frozenset({"br", "img", "input", "link", "meta", "path"})
"""Elements that have no end tag; those of SVG are written as closing themselves, which both allow."""

Attribute: TypeAlias = str | int | bool | None
"""True stands for itself; False and None leave the attribute out."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element with its attributes and what is in it."""

    name: str
    attributes: tuple[tuple[str, str | None], ...]
    """None is an attribute without a value."""

    children: tuple[Node, ...]


Node: TypeAlias = Element | str
"""A string is text, never markup."""


def tag(name: str, /, *children: Node | None, **attributes: Attribute) -> Element:
    """Return an element.

    Args:
        name: of the element.
        children: what is in it; None is nothing.
        attributes: ``_`` stands for ``-``, and one at the end keeps a word from being Python's.
    """
    return Element(
        name,
        tuple(_attributes(attributes)),
        tuple(child for child in children if child is not None),
    )


def _attributes(given: dict[str, Attribute]) -> Iterator[tuple[str, str | None]]:
    for name, value in given.items():
        if value is None or value is False:
            continue
        yield name.rstrip("_").replace("_", "-"), None if value is True else str(value)


def document(root: Element) -> bytes:
    """Return the bytes of a whole page."""
    return f"<!doctype html>\n{render(root)}\n".encode()


def render(node: Node) -> str:
    """Return the markup of a node."""
    return "".join(_pieces(node))


def _pieces(node: Node) -> Iterator[str]:
    if isinstance(node, str):
        yield _escaped(node)
        return
    yield f"<{node.name}"
    for name, value in node.attributes:
        yield f" {name}" if value is None else f' {name}="{_escaped(value)}"'
    if node.name in _WITHOUT_CONTENT:
        yield "/>"
        return
    yield ">"
    for child in node.children:
        yield from _pieces(child)
    yield f"</{node.name}>"


def _escaped(text: str) -> str:
    """Return a text that is only text, also where it tries to turn the direction of writing round."""
    return html.escape(printable(text))
