"""Define what values the keys of the configuration take, each with the message for a wrong one.

A constraint is metadata of a type (``Annotated[int, Number(1, 60)]``): pydantic makes its validator from it.
This module does not import pydantic, so that commands with an empty configuration do not wait for it.
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from sgagent.documents.scalars import (
    MISSING_FIELD,
    UNKNOWN_FIELD,
    Fault,
    InvalidValueError,
    parse_boolean,
    parse_integer,
    parse_text,
    wrong_type,
)
from sgagent.documents.tree import Listing, Mapping as MappingNode, Node, Scalar, ScalarKind
from sgagent.documents.values import parse_id

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_LARGE = 1 << 1024


Written = Mapping[str, object]
"""A table as it is written."""


class SettingsTable:
    """A table of the configuration: pydantic refuses keys that the class does not declare."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    examples: ClassVar[Mapping[str, str]] = {}
    """The remedy where a key is missing, if there is more to say than to add it."""

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield what is wrong between the keys, as they are written: whatever else is wrong with them."""
        del written
        yield from ()


def half_pair(written: Written, key: str, other: str) -> Iterator[Fault]:
    """Yield the fault of a table that has one key and lacks the one that it belongs to."""
    if other in written and key not in written:
        what = "the certificate that client_key" if key == "client_certificate" else f"what {other}"
        yield Fault(MISSING_FIELD, "missing", f"{what} belongs to", (key,))


class Constraint(ABC):
    """What a key takes: :meth:`check` returns the value that a written one stands for."""

    @abstractmethod
    def check(self, value: object) -> object:
        """Return what a value from TOML stands for.

        Raises:
            InvalidValueError: the key does not take it.
        """

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic calls :meth:`check`."""
        from pydantic_core import core_schema  # noqa: PLC0415 - pydantic takes longer than all else

        return core_schema.no_info_plain_validator_function(self.check)


class Flag(Constraint):
    """True or false, nothing that stands for them."""

    def check(self, value: object) -> bool:
        """Return the value."""
        return parse_boolean(_node(value))


class Number(Constraint):
    """A whole number of a range, both ends included."""

    def __init__(
        self,
        least: int,
        most: int | None = None,
        *,
        code: str = "out_of_range",
        message: str = "the number is out of range",
    ) -> None:
        """Set the range, which has no end where ``most`` is None, and the message for other numbers."""
        self._least, self._most = least, most
        self._code, self._message = code, message

    def check(self, value: object) -> int:
        """Return the number."""
        number = whole_number(value)
        if self._least <= number and (self._most is None or number <= self._most):
            return number
        right = f"at least {self._least}" if self._most is None else f"from {self._least} to {self._most}"
        raise InvalidValueError(Fault(self._code, self._message, right))


class Text(Constraint):
    """A text that a pattern matches as a whole."""

    def __init__(
        self,
        pattern: str,
        right: str,
        *,
        code: str = "bad_form",
        message: str = "the text has a wrong form",
    ) -> None:
        """Set the pattern, its meaning in words, and the message for other texts."""
        self._pattern = re.compile(pattern)
        self._fault = Fault(code, message, right)

    def check(self, value: object) -> str:
        """Return the text."""
        found = text(value)
        if self._pattern.fullmatch(found):
            return found
        raise InvalidValueError(self._fault)


class Word(Constraint):
    """One of a few words in any letter case."""

    def __init__(self, words: type[enum.Enum]) -> None:
        """Take the words and their meanings."""
        self._words = {str(word.value): word for word in words}

    def check(self, value: object) -> enum.Enum:
        """Return what the word stands for."""
        word = self._words.get(text(value).lower())
        if word is None:
            right = "one of " + ", ".join(self._words)
            raise InvalidValueError(Fault("bad_value", "not one of the allowed words", right))
        return word


class FilePath(Constraint):
    """A path."""

    def __init__(self, example: str) -> None:
        """Take an example for the message."""
        self._example = example

    def check(self, value: object) -> Path:
        """Return the path."""
        found = text(value)
        if not found or "\0" in found:
            raise InvalidValueError(Fault("bad_path", "not a path", self._example))
        return Path(found)


class Parsed(Constraint):
    """What a function makes of a value."""

    def __init__(self, parse: Callable[[object], object]) -> None:
        """Take the function; it raises InvalidValueError."""
        self._parse = parse

    def check(self, value: object) -> object:
        """Return what the function returns."""
        return self._parse(value)


class DocumentValue(Constraint):
    """A value that documents have as well, read by the parser that reads it there."""

    def __init__(self, parse: Callable[[Node], object]) -> None:
        """Take the parser."""
        self._parse = parse

    def check(self, value: object) -> object:
        """Return what the parser makes of the value."""
        return self._parse(_node(value))


class NoKey(Constraint):
    """A field of the settings that the configuration can't set."""

    def check(self, value: object) -> object:
        """Refuse every value."""
        del value
        raise InvalidValueError(Fault(UNKNOWN_FIELD, "unknown field", ""))


class Distinct:
    """Drop repeated items of a list."""

    def __init__(self, *, in_order: bool = False, empty: Fault | None = None) -> None:
        """Sort the items if ``in_order``; refuse an empty list with ``empty``, if there is one."""
        self._in_order = in_order
        self._empty = empty

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the list's schema with this behind it."""
        from pydantic_core import core_schema  # noqa: PLC0415 - as above

        return core_schema.no_info_after_validator_function(self._once, handler(source))

    def _once(self, items: Iterable[Any]) -> tuple[Hashable, ...]:
        found = tuple(dict.fromkeys(items))
        if not found and self._empty:
            raise InvalidValueError(self._empty)
        return tuple(sorted(found)) if self._in_order else found


Switch = Annotated[bool, Flag()]
Id = Annotated[str, DocumentValue(parse_id)]


def text(value: object) -> str:
    """Return a text.

    Raises:
        InvalidValueError: the value is none.
    """
    return parse_text(_node(value))


def whole_number(value: object) -> int:
    """Return a whole number.

    Raises:
        InvalidValueError: the value is none, or has more digits than makes sense anywhere.
    """
    return parse_integer(_node(value))


def wrong_type_of(value: object, expected: str) -> Fault:
    """Return the fault of a value of another type than the key takes."""
    return wrong_type(_node(value), expected)


def written(value: object) -> str | None:
    """Return a single value as messages show it; None for a list or table."""
    match _node(value):
        case str(found) | Scalar(text=found):
            return found
        case _:
            return None


def _node(value: object) -> Node:
    """Return a value of TOML as the readers of documents take it."""
    match value:
        case dict():
            return MappingNode(0, {name: _node(item) for name, item in value.items()})
        case list():
            return Listing(0, [_node(item) for item in value])
        case bool():
            return Scalar(ScalarKind.BOOLEAN, str(value).lower())
        case int():
            # Python refuses to write very large ones in decimal digits.
            return Scalar(ScalarKind.INTEGER, str(value) if abs(value) < _LARGE else hex(value))
        case str():
            return value
        case _:
            return Scalar(ScalarKind.NUMBER, str(value))
