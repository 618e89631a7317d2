"""Hold what a YAML or JSON text says, with the line of every value, before it means anything.

The classes are not frozen only because a large document makes very many of them; nothing changes them once
the text is read, but that lines are counted when they are asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping as MappingOf, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType


class Kind(enum.Enum):
    """What a scalar was written as."""

    TEXT = "text"
    INTEGER = "a whole number"
    """Decimal digits without leading zeros, maybe after a minus; anything else of digits is text in YAML."""

    NUMBER = "a number with a fraction or an exponent"
    """In JSON only; in YAML it is text."""

    BOOLEAN = "true or false"
    NULL = "null"


NO_LINES: MappingOf[str, int] = MappingProxyType({})
"""Of a mapping that stands in no text with lines."""


@dataclass(slots=True)
class Scalar:
    """A single value that is no text."""

    kind: Kind
    text: str
    """As it was written; numbers keep every digit."""


@dataclass(slots=True)
class Listing:
    """Values in order."""

    line: int
    items: list[Node]
    lines: Sequence[int] | Callable[[], Sequence[int]] = ()
    """Those that the items stand on, or what counts them once somebody asks."""

    size: int = 1
    """Values in it, itself and all expanded aliases included."""

    height: int = 1
    """Lists and mappings inside each other, itself included."""

    written: str = ""
    """How it was written, if it holds no other and somebody knows."""

    def line_of(self, index: int) -> int:
        """Return the line that a single value in it stands on; its own where nobody recorded any."""
        if callable(self.lines):
            self.lines = self.lines()
        return self.lines[index] if index < len(self.lines) else self.line


@dataclass(slots=True)
class Mapping:
    """Values by name."""

    line: int
    entries: dict[str, Node]
    lines: MappingOf[str, int] | Callable[[], MappingOf[str, int]] = field(default_factory=lambda: NO_LINES)
    """Those that the names stand on, or what counts them once somebody asks."""

    size: int = 1
    height: int = 1
    written: str = ""

    def line_of(self, name: str) -> int:
        """Return the line that a single value in it stands on; its own where nobody recorded any."""
        if callable(self.lines):
            self.lines = self.lines()
        return self.lines.get(name, self.line)


Node = str | Scalar | Listing | Mapping
"""A text is its own node. The line of a value in a mapping is the one that its name stands on."""


def kind_of(node: Node) -> str:
    """Return what a value is, for messages."""
    match node:
        case str():
            return Kind.TEXT.value
        case Scalar(kind):
            return kind.value
        case Listing():
            return "a list"
        case Mapping():
            return "a mapping"


class MalformedError(Exception):
    """Say why a text can't be read as what it claims to be, and where."""

    def __init__(
        self, code: str, message: str, line: int, *, value: str | None = None, remedy: str = ""
    ) -> None:
        """Keep what a problem needs."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line
        self.value = value
        self.remedy = remedy
