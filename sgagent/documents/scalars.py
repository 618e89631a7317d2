"""Parsers of plain values, and the faults that they raise.

A parser takes a node and returns its value, or raises :class:`InvalidValueError`. Models name the parsers of
their fields; other code calls them through :meth:`~sgagent.documents.field.Field.read`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping as MappingOf
from dataclasses import dataclass, replace
from typing import TypeVar

from sgagent.documents.misspellings import Slip, console_word
from sgagent.documents.tree import Listing, MalformedError, Mapping, Node, Scalar, ScalarKind, kind_of

T = TypeVar("T")
V = TypeVar("V")

MOST_FAULTS = 20_000
"""Of the items of one value: bounds the memory that a hostile list takes."""

UNKNOWN_FIELD = "unknown_field"
MISSING_FIELD = "missing_field"

_LONGEST_NUMBER = 18
"""Digits of a number that can make sense anywhere."""

_REMEDIES = {
    "text": "put it in quotes",
    "whole number": "digits alone, without quotes",
    "list": "write the values in […]",
    "mapping": "an object: fields as name: value",
}
"""The remedy where a value of another type is expected."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a value."""

    code: str
    message: str
    remedy: str = ""
    path: tuple[str | int, ...] = ()
    """Names and indices from the value to what is wrong in it."""


class InvalidValueError(ValueError):
    """Report the faults of a value."""

    def __init__(self, *faults: Fault) -> None:
        """Store at least one fault."""
        super().__init__(*(fault.message for fault in faults))
        self.faults = faults

    def within(self, step: str | int) -> Iterator[Fault]:
        """Yield the faults as those of what holds the value under this name or index."""
        return (replace(fault, path=(step, *fault.path)) for fault in self.faults)


def invalid(code: str, message: str, remedy: str = "") -> InvalidValueError:
    """Return the error of a value with one fault."""
    return InvalidValueError(Fault(code, message, remedy))


def slipped(code: str, slip: Slip | None, message: str, remedy: str) -> Fault:
    """Return the fault of a value: a slip that is known, or else that it is wrong."""
    return Fault(code, *(slip or (message, remedy)))


def wrong_type(node: Node, expected: str, remedy: str = "") -> Fault:
    """Return the fault of a value of another type.

    Args:
        node: the value.
        expected: what is expected, with its article.
        remedy: its forms; empty for the usual ones.
    """
    _, _, noun = expected.partition(" ")
    remedy = remedy or _REMEDIES.get(noun, expected)
    if isinstance(node, Scalar) and node.kind is ScalarKind.NULL:
        remedy = "write a value, or remove the field"
    if isinstance(node, Listing) and noun not in _REMEDIES:
        expected = f"one {noun}"
    return Fault("wrong_type", f"expected {expected}, found {kind_of(node)}", remedy)


def parse_text(node: Node, expected: str = "a text", remedy: str = "") -> str:
    """Return a text.

    Raises:
        InvalidValueError: it is something else.
    """
    if isinstance(node, str):
        return node
    raise InvalidValueError(wrong_type(node, expected, remedy))


def parse_digits(node: Node, expected: str = "a text", remedy: str = "") -> str:
    """Return a text, or the digits of a whole number as written.

    Raises:
        InvalidValueError: it is something else.
    """
    if isinstance(node, Scalar) and node.kind is ScalarKind.INTEGER:
        return node.text
    return parse_text(node, expected, remedy)


def parse_integer(node: Node, expected: str = "a whole number") -> int:
    """Return a whole number.

    Raises:
        InvalidValueError: it is something else, or has more digits than makes sense anywhere.
    """
    if not isinstance(node, Scalar) or node.kind is not ScalarKind.INTEGER:
        raise InvalidValueError(wrong_type(node, expected, _REMEDIES["whole number"]))
    if len(node.text) > _LONGEST_NUMBER:
        raise invalid("out_of_range", "the number is too large", "at most 18 digits")
    return int(node.text)


def parse_boolean(node: Node) -> bool:
    """Return true or false.

    Raises:
        InvalidValueError: it is something else.
    """
    if isinstance(node, Scalar) and node.kind is ScalarKind.BOOLEAN:
        return node.text.lower() == "true"
    raise InvalidValueError(wrong_type(node, "true or false"))


def parse_word(node: Node, words: MappingOf[str, T]) -> T:
    """Return the meaning of a word in any letter case.

    Raises:
        InvalidValueError: it is none of the words.
    """
    if isinstance(node, str) and node in words:
        return words[node]
    forms = "one of " + ", ".join(words)
    text = parse_text(node, "a word", forms)
    meaning = words.get(text.lower())
    if meaning is None:
        slip = console_word(text)
        known = slip if slip and slip[1] in words else None
        raise InvalidValueError(slipped("bad_value", known, "not one of the allowed words", forms))
    return meaning


def parse_list(node: Node) -> Listing:
    """Return a list as it is, for a caller that reads its items.

    Raises:
        InvalidValueError: it is something else.
    """
    if isinstance(node, Listing):
        return node
    raise InvalidValueError(wrong_type(node, "a list"))


def parse_mapping(node: Node) -> Mapping:
    """Return a mapping as it is.

    Raises:
        InvalidValueError: it is something else.
    """
    if isinstance(node, Mapping):
        return node
    raise InvalidValueError(wrong_type(node, "a mapping"))


def parse_each(nodes: Iterable[tuple[str | int, V]], parse: Callable[[V], T]) -> list[T]:
    """Return the value of each node.

    Args:
        nodes: each with its name or index; or their places.
        parse: parses one.

    Raises:
        InvalidValueError: with the faults of all of them, up to :data:`MOST_FAULTS`.
    """
    values: list[T] = []
    faults: list[Fault] = []
    for step, node in nodes:
        if len(faults) >= MOST_FAULTS:
            break
        try:
            values.append(parse(node))
        except InvalidValueError as error:
            faults += (replace(fault, path=(step, *fault.path)) for fault in error.faults)
    if faults:
        raise InvalidValueError(*faults)
    return values


def parse_texts(node: Node) -> tuple[tuple[str, str], ...]:
    """Return a mapping of texts or whole numbers, sorted by name.

    Raises:
        InvalidValueError: it is something else.
    """
    entries = parse_mapping(node).entries
    return tuple(sorted(zip(entries, parse_each(entries.items(), parse_digits), strict=True)))


LINE_SEPARATORS = "\x85\u2028\u2029"
"""What Unicode calls the end of a line, and YAML 1.2, JSON and TOML do not."""

BYTE_ORDER_MARK = "\ufeff"
OUTSIDE_OF_QUOTES = "it is allowed in quoted texts only"

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ANY_BIDIRECTIONAL = re.compile(f"[{_BIDIRECTIONAL}]")
_ANY_SEPARATOR = re.compile(f"[{LINE_SEPARATORS}{BYTE_ORDER_MARK}]")
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in _BIDIRECTIONAL}
_NAMES = {"\x85": "next line", BYTE_ORDER_MARK: "byte order mark", "\r": "carriage return"}


def refuse_bidirectional(text: str) -> None:
    """Refuse bidirectional controls anywhere.

    Raises:
        MalformedError: there is one; with its line and column.
    """
    match = None if text.isascii() else _ANY_BIDIRECTIONAL.search(text)
    if match is not None:
        reason = "a bidirectional control shows the text in another order than it has"
        raise bad_character(text, match.start(), reason)


def refuse_ambiguous(text: str) -> None:
    """Refuse line separators, byte order marks and bidirectional controls anywhere, also in quoted texts.

    Raises:
        MalformedError: there is one; with its line and column.
    """
    match = None if text.isascii() else _ANY_SEPARATOR.search(text)
    if match is not None:
        raise bad_character(text, match.start(), "some programs end a line there, and others do not")
    refuse_bidirectional(text)


def is_ambiguous(text: str) -> bool:
    """Return whether a text holds a line separator, a byte order mark or a bidirectional control."""
    return not text.isascii() and bool(_ANY_SEPARATOR.search(text) or _ANY_BIDIRECTIONAL.search(text))


def bad_character(text: str, place: int, reason: str) -> MalformedError:
    """Return the error of a character that may not stand where it stands."""
    character = text[place]
    line, column = position(text, place)
    remedy = "remove it"
    if character != "\r":
        remedy += f', or write "\\u{ord(character):04x}" between double quotes'
    name = _NAMES.get(character) or unicodedata.name(character, "unnamed").lower()
    message = f"column {column}: U+{ord(character):04X} ({name}): {reason}"
    return MalformedError("bad_character", message, line, value=character, remedy=remedy)


def position(text: str, place: int) -> tuple[int, int]:
    """Return line and column of a place, from 1; lines end at a line feed and at nothing else."""
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)


def escape_bidirectional(quoted: str) -> str:
    """Return a text with escapes for bidirectional controls, all of which stand between double quotes."""
    return quoted if quoted.isascii() else quoted.translate(_ESCAPES)
