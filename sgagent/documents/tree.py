"""Hold what a YAML or JSON text says, with the line of every value, before it means anything.

The classes are not frozen only because a large document makes millions of them; nothing changes them once the
text is read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What a scalar was written as."""

    TEXT = "text"
    INTEGER = "a whole number"
    """Decimal digits without leading zeros, maybe after a minus; anything else of digits is text in YAML."""

    NUMBER = "a number with a fraction or an exponent"
    """In JSON only; in YAML it is text."""

    BOOLEAN = "true or false"
    NULL = "null"


@dataclass(slots=True)
class Scalar:
    """A single value."""

    line: int
    kind: Kind
    text: str
    """As it was written, without quotes; numbers keep every digit."""


@dataclass(slots=True)
class Listing:
    """Values in order."""

    line: int
    items: list[Node]
    size: int = 1
    """Values in it, itself and all expanded aliases included."""

    height: int = 1
    """Lists and mappings inside each other, itself included."""


@dataclass(slots=True)
class Mapping:
    """Values by name."""

    line: int
    entries: dict[str, Node]
    size: int = 1
    height: int = 1


Node = Scalar | Listing | Mapping
"""The line of a value in a mapping is the one that its name stands on."""


def kind_of(node: Node) -> str:
    """Return what a value is, for messages."""
    if isinstance(node, Scalar):
        return node.kind.value
    return "a list" if isinstance(node, Listing) else "a mapping"


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
