"""Read the fields of a mapping one by one, and keep every problem instead of stopping at the first."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.documents.tree import Kind, Listing, Mapping, Node, Scalar, kind_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Word = TypeVar("_Word", bound=Enum)


@dataclass(frozen=True, slots=True)
class Place:
    """A value and where it stands; problems found there go to a list that all places of a file share."""

    node: Node
    path: str
    file: str
    problems: list[Problem]

    def refuse(self, code: str, message: str, *, value: str | None = None, remedy: str = "") -> None:
        """Keep a problem with this value."""
        origin = Origin(file=self.file, line=self.node.line, path=self.path)
        self.problems.append(
            Problem(
                severity=Severity.ERROR, code=code, origin=origin, message=message, value=value, remedy=remedy
            )
        )

    def refuse_type(self, remedy: str) -> None:
        """Keep the problem that this value is of another type."""
        self.refuse("wrong_type", f"is {kind_of(self.node)}", remedy=remedy)

    def text(self) -> str | None:
        """Return a text that is not empty."""
        if isinstance(self.node, Scalar) and self.node.kind is Kind.TEXT and self.node.text:
            return self.node.text
        self.refuse_type("a text")
        return None

    def items(self) -> Iterator[Place]:
        """Return the values of a list in order."""
        if not isinstance(self.node, Listing):
            self.refuse_type("a list")
            return
        for number, item in enumerate(self.node.items):
            yield Place(item, f"{self.path}[{number}]", self.file, self.problems)

    def fields(self) -> Iterator[tuple[str, Place]]:
        """Return the values of a mapping with their names, sorted."""
        if not isinstance(self.node, Mapping):
            self.refuse_type("a mapping")
            return
        for name, value in sorted(self.node.entries.items()):
            path = f"{self.path}.{name}" if self.path else name
            yield name, Place(value, path, self.file, self.problems)


class Fields:
    """The fields of a mapping, by name.

    A reading returns None where the field is absent, and where it kept a problem.
    """

    def __init__(self, place: Place, known: tuple[str, ...]) -> None:
        """Take the mapping, and refuse the fields that are not known."""
        self.place = place
        self._places = dict(place.fields())
        for name, found in self._places.items():
            if name not in known:
                found.refuse(
                    "unknown_field", "no such field", value=name, remedy=f"one of {', '.join(known)}"
                )

    def __contains__(self, name: str) -> bool:
        """Tell whether the field is there."""
        return name in self._places

    def get(self, name: str) -> Place | None:
        """Return a field that may be absent."""
        return self._places.get(name)

    def require(self, name: str) -> Place | None:
        """Return a field that must be there."""
        if name not in self._places and isinstance(self.place.node, Mapping):
            self.place.refuse("missing_field", f"has no {name}", remedy=f"add {name}")
        return self._places.get(name)

    def text(self, name: str, *, required: bool = False) -> str | None:
        """Read a text that is not empty."""
        place = self.require(name) if required else self.get(name)
        return place.text() if place else None

    def word(self, name: str, words: type[_Word], *, required: bool = False) -> _Word | None:
        """Read one of the words of an enumeration."""
        place = self.require(name) if required else self.get(name)
        text = place.text() if place else None
        if place is None or text is None:
            return None
        found = next((word for word in words if word.value == text), None)
        if found is None:
            remedy = "one of " + ", ".join(str(word.value) for word in words)
            place.refuse("bad_word", "not a word of this field", value=text, remedy=remedy)
        return found

    def address(self, name: str) -> Address | None:
        """Read a single address, which must be there."""
        place = self.require(name)
        text = place.text() if place else None
        if place is None or text is None:
            return None
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            address = None
        if address is None or "%" in text:
            place.refuse(
                "bad_address", "not an address", value=text, remedy="one address, no network or zone"
            )
            return None
        return address

    def number(self, name: str, last: int, default: int | None) -> int | None:
        """Read a whole number from 0 to the last one."""
        place = self.get(name)
        if place is None:
            return default
        node = place.node
        if not isinstance(node, Scalar) or node.kind is not Kind.INTEGER:
            place.refuse_type(f"a whole number from 0 to {last}")
            return None
        if len(node.text) > len(str(last)) or not 0 <= int(node.text) <= last:
            place.refuse("bad_number", "out of range", value=node.text, remedy=f"from 0 to {last}")
            return None
        return int(node.text)
