"""Syntax tree of a YAML or JSON text, with the line of every value.

The classes are not frozen, because a large document creates very many of them. After parsing, nothing changes
them except that lines are counted on first use.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping as MappingOf, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgagent.documents.problems import Limits


class ScalarKind(enum.Enum):
    """The type of a scalar, by its syntax."""

    TEXT = "text"
    INTEGER = "a whole number"
    """Decimal digits without leading zeros, maybe after a minus; anything else of digits is text in YAML."""

    NUMBER = "a number with a fraction or an exponent"
    """In JSON only; in YAML it is text."""

    BOOLEAN = "true or false"
    NULL = "null"


@dataclass(slots=True)
class Scalar:
    """A single value that is no text."""

    kind: ScalarKind
    text: str
    """As it was written; numbers keep every digit."""


Lines = Sequence[int] | MappingOf[Any, int]
"""Of the items of a list, or of the names in a mapping."""


@dataclass(slots=True)
class Container:
    """A list or mapping."""

    line: int
    lines: Lines | int | Callable[[], Lines] = field(default=(), kw_only=True)
    """Those that its values stand on, the one of all of them, or what counts them once somebody asks."""

    size: int = field(default=1, kw_only=True)
    """Values in it, itself and all expanded aliases included."""

    height: int = field(default=1, kw_only=True)
    """Lists and mappings inside each other, itself included."""

    written: str = field(default="", kw_only=True)
    """How it was written, if it holds no other and somebody knows."""

    def line_of(self, step: str | int) -> int:
        """Return the line that a single value in it stands on; its own where nobody recorded any."""
        if callable(self.lines):
            self.lines = self.lines()
        if isinstance(self.lines, int):
            return self.lines
        return self.lines[step] if self.lines else self.line  # type: ignore[index] # indices or names


@dataclass(slots=True)
class Listing(Container):
    """Values in order."""

    items: list[Node]


@dataclass(slots=True)
class Mapping(Container):
    """Values by name."""

    entries: dict[str, Node]


Node = str | Scalar | Listing | Mapping
"""A text is its own node. The line of a value in a mapping is the one that its name stands on."""


def kind_of(node: Node) -> str:
    """Return a value's kind, for messages."""
    match node:
        case str():
            return ScalarKind.TEXT.value
        case Scalar(kind):
            return kind.value
        case Listing():
            return "a list"
        case Mapping():
            return "a mapping"


class MalformedError(Exception):
    """Say why a text can't be read in the format that it claims, and where."""

    def __init__(self, code: str, message: str, line: int, *, value: str | None = None, remedy: str) -> None:
        """Keep the parts of a problem."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line
        self.value = value
        self.remedy = remedy


@dataclass(slots=True)
class DuplicateKey:
    """A duplicate name in a mapping; the tree keeps its first value."""

    path: str
    line: int


_MOST_DUPLICATES = 1000
"""Names that stand twice before the text is given up."""


@dataclass(slots=True)
class _Open:
    """A list or mapping that is not yet closed."""

    node: Listing | Mapping
    key: str | None = None
    key_line: int = 0
    item_lines: list[int] = field(default_factory=list)
    name_lines: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class TreeBuilder:
    """Collects values from outside in, without recursion, so that no text can exhaust the stack."""

    limits: Limits
    root: Node | None = None
    root_line: int = 0
    duplicates: list[DuplicateKey] = field(default_factory=list)
    _open: list[_Open] = field(default_factory=list)
    _room: int = field(init=False)
    """How many more values the text may hold."""

    _container_room: int = field(init=False)
    """How many more lists and mappings the text may hold."""

    def __post_init__(self) -> None:
        """Start with all the room that there is."""
        self._room, self._container_room = self.limits.nodes, self.limits.containers

    @property
    def awaits_key(self) -> bool:
        """Return whether the next scalar is a name in a mapping."""
        return bool(self._open) and isinstance(self._open[-1].node, Mapping) and self._open[-1].key is None

    def open(self, node: Listing | Mapping) -> None:
        """Begin a list or mapping."""
        if self.awaits_key:
            self._refuse_key("a list or mapping", node.line)
        if len(self._open) >= self.limits.depth:
            self._refuse_depth(node.line)
        self._container_room -= 1
        if self._container_room < 0:
            self._refuse_more(f"{self.limits.containers} lists and mappings", node.line)
        self._open.append(_Open(node))

    def close(self) -> Listing | Mapping:
        """End the innermost list or mapping and return it."""
        closed = self._open.pop()
        node = closed.node
        node.lines = closed.item_lines or closed.name_lines
        self._count(1, node.line)
        self._place(node, node.line, fresh=True)
        return node

    def has_room_for(self, nodes: int) -> bool:
        """Return whether a list or mapping with this many nodes, its own included, fits the limits."""
        return nodes <= self._room and self._container_room >= 1 and len(self._open) < self.limits.depth

    def whole(self, node: Listing | Mapping) -> None:
        """Take a list or mapping of nothing but single values, for which there is room."""
        self._room -= node.size
        self._container_room -= 1
        self._place(node, node.line, fresh=True)

    def key(self, key: str, line: int) -> None:
        """Take the name of the next value."""
        _refuse_bad_characters(key, line)
        self._open[-1].key, self._open[-1].key_line = key, line

    def scalar(self, node: str | Scalar, line: int) -> int:
        """Take a single value; return the line that it counts as standing on."""
        _refuse_bad_characters(node if isinstance(node, str) else node.text, line)
        self._count(1, line)
        return self._place(node, line, fresh=True)

    def alias(self, node: Node, node_line: int, line: int) -> None:
        """Take a value that stands elsewhere in the text; it costs as much as if it stood here.

        Args:
            node: the value.
            node_line: where it stands.
            line: where the alias stands.
        """
        if self.awaits_key:
            self._refuse_key("an alias", line)
        if isinstance(node, Container) and len(self._open) + node.height > self.limits.depth:
            self._refuse_depth(line)
        self._count(node.size if isinstance(node, Container) else 1, line)
        self._place(node, node_line, fresh=False)

    def _count(self, nodes: int, line: int) -> None:
        """Refuse to hold more than the limits allow."""
        self._room -= nodes
        if self._room < 0:
            self._refuse_more(f"{self.limits.nodes} values, aliases expanded", line)

    def _refuse_key(self, what: str, line: int) -> None:
        """Say that the name of a field is no text."""
        message = f"a field name is {what}"
        raise MalformedError("complex_key", message, line, remedy="write it as plain text")

    def _refuse_more(self, limit: str, line: int) -> None:
        """Say that the text holds more than the limits allow."""
        remedy = "split the document, or raise limits.rules and limits.addresses in the configuration"
        raise MalformedError("too_many_values", f"more than {limit}", line, remedy=remedy)

    def _refuse_depth(self, line: int) -> None:
        """Say that lists and mappings are nested too deep."""
        message = f"nested deeper than {self.limits.depth} levels"
        raise MalformedError("too_deep", message, line, remedy="nest fewer lists and mappings")

    def _place(self, node: Node, line: int, *, fresh: bool) -> int:
        """Put a complete value where it belongs; return the line that it counts as standing on."""
        if not self._open:
            self.root, self.root_line = node, line
            return line
        parent = self._open[-1]
        if parent.key is not None and fresh:
            line = parent.key_line
        if isinstance(parent.node, Listing):
            parent.node.items.append(node)
            parent.item_lines.append(line)
        else:
            key, parent.key = parent.key or "", None
            if key in parent.node.entries:
                self._note_duplicate(key, parent.key_line)
            else:
                parent.node.entries[key] = node
                parent.name_lines[key] = line
        if isinstance(node, Container):
            if fresh:
                node.line = line
            parent.node.size += node.size
            parent.node.height = max(parent.node.height, node.height + 1)
        else:
            parent.node.size += 1
        return line

    def _note_duplicate(self, key: str, line: int) -> None:
        """Remember a name that stands twice, and where."""
        if len(self.duplicates) >= _MOST_DUPLICATES:
            message = f"more than {_MOST_DUPLICATES} fields are given twice"
            raise MalformedError("duplicate_key", message, line, remedy="keep one of each")
        steps = [
            f"[{len(level.node.items)}]" if isinstance(level.node, Listing) else f".{level.key}"
            for level in self._open[:-1]
        ]
        self.duplicates.append(DuplicateKey("".join([*steps, f".{key}"]).removeprefix("."), line))


_BAD_CHARACTER = re.compile("[\0\ud800-\udfff]")
"""What no text can hold: NUL, and halves of surrogate pairs, which only escapes can smuggle in."""


def _refuse_bad_characters(text: str, line: int) -> None:
    if (not text.isascii() or "\0" in text) and _BAD_CHARACTER.search(text):
        message = "the text has NUL or half a surrogate pair"
        raise MalformedError("bad_character", message, line, value=text, remedy="remove it")


def is_set(node: Node) -> bool:
    """Return whether the API set a field."""
    return node != "" and not (isinstance(node, Scalar) and node.kind is ScalarKind.NULL)
