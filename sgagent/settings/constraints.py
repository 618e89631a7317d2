"""Define the values that the configuration's keys take, each with the message for a wrong one.

A constraint is the metadata of a key's type, like ``Annotated[int, number(1, 60)]``.
"""

from __future__ import annotations

import enum
import pathlib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar

from sgagent.documents import scalars
from sgagent.documents.tree import Listing, Mapping as MappingNode, Node, Scalar, ScalarKind
from sgagent.documents.values import BLOCK_FORMS, parse_id, parse_network

_LARGE = 1 << 1024


Written = Mapping[str, object]
"""A table as it is written."""


class SettingsTable:
    """A table of the configuration; each field's type is annotated with the constraint of its key."""

    __slots__ = ()

    examples: ClassVar[Mapping[str, str]] = {}
    """The remedy where a key is missing, if there is more to say than to add it."""

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[scalars.Fault]:
        """Yield the conflicts between the keys, as they are written: whatever other errors they have."""
        del written
        yield from ()


def half_pair(written: Written, key: str, other: str) -> Iterator[scalars.Fault]:
    """Yield the fault of a table that has one key and lacks the one that it belongs to."""
    if other in written and key not in written:
        what = "the certificate that client_key" if key == "client_certificate" else f"what {other}"
        yield scalars.Fault(scalars.MISSING_FIELD, "missing", f"{what} belongs to", (key,))


class Constraint:
    """The values that a key takes: the parser of the written value."""

    def __init__(self, parse: Callable[[Node], Hashable]) -> None:
        """Take the parser, which raises InvalidValueError for a value that the key does not take."""
        self.parse = parse

    def check(self, value: object) -> Any:  # noqa: ANN401 - of the parser's type
        """Return the parsed value of a value from TOML.

        Raises:
            InvalidValueError: the key does not take it.
        """
        return self.parse(tree(value))


def number(
    least: int,
    most: int | None = None,
    *,
    code: str = "out_of_range",
    message: str = "the number is out of range",
) -> Constraint:
    """Return the constraint of a whole number of a range, both ends included; None is no end."""

    def parse(node: Node) -> int:
        found = scalars.parse_integer(node)
        if least <= found and (most is None or found <= most):
            return found
        right = f"at least {least}" if most is None else f"from {least} to {most}"
        raise scalars.invalid(code, message, right)

    return Constraint(parse)


def pattern(
    known: str, right: str, *, code: str = "bad_form", message: str = "the text has a wrong form"
) -> Constraint:
    """Return the constraint of a text that a pattern matches as a whole; ``right`` says so in words."""
    compiled = re.compile(known)

    def parse(node: Node) -> str:
        found = scalars.parse_text(node)
        if compiled.fullmatch(found):
            return found
        raise scalars.invalid(code, message, right)

    return Constraint(parse)


def word_of(words: type[enum.Enum]) -> Constraint:
    """Return the constraint of one of a few words in any letter case."""
    return Constraint(partial(scalars.parse_word, words={str(word.value): word for word in words}))


def file_path(example: str) -> Constraint:
    """Return the constraint of a path."""

    def parse(node: Node) -> pathlib.Path:
        found = scalars.parse_text(node)
        if found and "\0" not in found:
            return pathlib.Path(found)
        raise scalars.invalid("bad_path", "not a path", example)

    return Constraint(parse)


def distinct(item: Constraint, *, in_order: bool = False, empty: scalars.Fault | None = None) -> Constraint:
    """Return the constraint of a list, of which repeated items are dropped.

    Args:
        item: of each.
        in_order: whether to sort them.
        empty: the fault of an empty list; None where it is none.
    """

    def parse(node: Node) -> tuple[Hashable, ...]:
        if not isinstance(node, Listing):
            raise scalars.InvalidValueError(scalars.wrong_type(node, "a list"))
        items: dict[Hashable, None] = {}
        faults: list[scalars.Fault] = []
        for index, one in enumerate(node.items):
            try:
                items[item.parse(one)] = None
            except scalars.InvalidValueError as error:
                faults += error.within(index)
        if not node.items and empty:
            faults.append(empty)
        if faults:
            raise scalars.InvalidValueError(*faults)
        return tuple(sorted(items) if in_order else items)  # type: ignore[type-var] # who sorts has such items

    return Constraint(parse)


Switch = Annotated[bool, Constraint(scalars.parse_boolean)]
ID = Constraint(parse_id)


def wrong_type_of(value: object, expected: str, remedy: str = "") -> scalars.Fault:
    """Return the fault of a value of another type than the key takes."""
    return scalars.wrong_type(tree(value), expected, remedy)


Path = tuple[str | int, ...]
"""Keys and indices from the root to a value."""

_NO_LINES: Mapping[Path, int] = {}


def tree(value: object, lines: Mapping[Path, int] = _NO_LINES, path: Path = (), line: int = 0) -> Node:
    """Return a value of TOML as the readers of documents take it.

    Args:
        value: of TOML.
        lines: of keys and items, by their paths.
        path: of the value.
        line: of what holds it.
    """
    line = lines.get(path, line)
    match value:
        case dict():
            entries = {key: tree(item, lines, (*path, key), line) for key, item in value.items()}
            return MappingNode(line, entries, lines={key: lines.get((*path, key), line) for key in entries})
        case list():
            items = [tree(item, lines, (*path, index), line) for index, item in enumerate(value)]
            return Listing(line, items, lines=[lines.get((*path, n), line) for n in range(len(items))])
        case bool():
            return Scalar(ScalarKind.BOOLEAN, str(value).lower())
        case int():
            # Python refuses to write very large ones in decimal digits.
            return Scalar(ScalarKind.INTEGER, str(value) if abs(value) < _LARGE else hex(value))
        case str():
            return value
        case _:
            return Scalar(ScalarKind.NUMBER, str(value))


def _name_server(node: Node) -> str:
    try:
        found = parse_network(node)
    except scalars.InvalidValueError as error:
        fault = error.faults[0]
        remedy = _ON_LINK if fault.code == "zone_id" else fault.remedy
        remedy = _OF_SERVER if remedy == BLOCK_FORMS else remedy
        raise scalars.InvalidValueError(replace(fault, remedy=remedy)) from None
    address = found.network.network_address
    if found.first != found.last:
        raise scalars.invalid("bad_address", "not a single address", _OF_SERVER)
    if address.is_unspecified or address.is_multicast:
        raise scalars.invalid("bad_address", "no server has this address", _OF_SERVER)
    if address.version == 6 and address.is_link_local:
        raise scalars.invalid("bad_address", "a link-local address needs a zone", _ON_LINK)
    return str(found)


_OF_SERVER = "the address of a name server"
_ON_LINK = "another address of the server; one with a zone can stand in /etc/resolv.conf alone"
NAME_SERVER = Constraint(_name_server)
