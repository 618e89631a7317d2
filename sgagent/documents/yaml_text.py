"""YAML 1.2 parser that records the line of every value.

The YAML library only produces events; this module determines the types of scalars. So no tag constructs an
object, ``22:22`` and ``no`` are text, and an account number keeps its leading zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

import yaml

from sgagent.documents import scalars
from sgagent.documents.tree import Listing, MalformedError, Mapping, Node, Scalar, ScalarKind, TreeBuilder

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it: ten times faster, the same events."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE", "false", "False", "FALSE"), ScalarKind.BOOLEAN),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), ScalarKind.NULL),
}
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = ("!", _TAG + "str")
_SHAPE_TAGS = (None, "!", _TAG + "seq", _TAG + "map")


def parse_yaml(text: str, builder: TreeBuilder) -> None:
    """Feed the one document of a YAML text to the builder; nothing is fed from an empty text.

    Raises:
        MalformedError: not YAML, more than one document, a tag, a merge key, or an alias within itself.
    """
    _refuse_control_characters(text)
    stand_ins = _stand_ins(text)
    masked = text.translate(stand_ins) if stand_ins else text
    reading = _Reading(builder, {ord(stand_in): chr(meant) for meant, stand_in in stand_ins.items()})
    if stand_ins or scalars.BYTE_ORDER_MARK in text:
        _refuse_outside_of_quotes(text, masked)
    try:
        for event in yaml.parse(masked, Loader=LOADER):
            reading.take(event)
    except yaml.YAMLError as error:
        raise _malformed(error, masked) from error
    except ValueError as error:  # PyYAML's own parser, for "\\UFFFFFFFF"
        raise MalformedError("syntax", f"not YAML: {error}", 0, remedy="correct the escape") from error


class _Reading:
    """The events of one text, taken one by one."""

    def __init__(self, builder: TreeBuilder, stood_for: dict[int, str]) -> None:
        """Start before the first event.

        Args:
            builder: what becomes of them.
            stood_for: what characters in the values stand for.
        """
        self._builder = builder
        self._stood_for = stood_for
        self._anchors: dict[str, tuple[Node, int]] = {}
        """With the line that each counts as standing on."""

        self._open_anchors: list[str | None] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        if isinstance(event, yaml.ScalarEvent):
            self._take_scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            node = self._builder.close()
            self._remember(self._open_anchors.pop(), node, node.line)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._begin_document(event)

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        """Take a scalar, as a name or as a value."""
        line = _line(event)
        is_plain = event.style in (None, "")
        value: str = event.value.translate(self._stood_for) if self._stood_for else event.value
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            _refuse_tag(event.tag, line)
        if self._builder.awaits_key:
            if value == "<<" and is_plain and event.tag is None:
                message = "merge keys are not part of YAML 1.2"
                raise MalformedError("merge_key", message, line, value="<<", remedy="copy the fields")
            self._builder.key(value, line)
            self._remember(event.anchor, value, line)
            return
        kind = _kind(value) if is_plain and event.tag is None else ScalarKind.TEXT
        node = value if kind is ScalarKind.TEXT else Scalar(kind, value)
        self._remember(event.anchor, node, self._builder.scalar(node, line))

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        """Begin a list or mapping."""
        line = _line(event)
        if event.tag not in _SHAPE_TAGS:
            _refuse_tag(event.tag, line)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        self._builder.open(Listing(line, []) if is_list else Mapping(line, {}))
        self._open_anchors.append(event.anchor)

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        """Take a value by the name of its anchor; one that is still open would be within itself."""
        line = _line(event)
        found = self._anchors.get(event.anchor or "")
        if found is None:
            message = "the alias refers to itself, or to no anchor before it"
            remedy = "define the anchor before, or copy the value"
            raise MalformedError("bad_alias", message, line, value=event.anchor, remedy=remedy)
        self._builder.alias(*found, line)

    def _remember(self, anchor: str | None, node: Node, line: int) -> None:
        """Keep a complete value for aliases."""
        if anchor is not None:
            self._anchors[anchor] = node, line

    def _begin_document(self, event: yaml.Event) -> None:
        """Refuse a second document: the first would seem to be all there is."""
        self._documents += 1
        if self._documents > 1:
            message = "more than one YAML document in a file"
            raise MalformedError("several_documents", message, _line(event), remedy="one file each")


_CONTROL = re.compile("\r(?!\n)|[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2 forbids (c-printable), and a carriage return alone, where YAML ends a line."""


def _refuse_control_characters(text: str) -> None:
    """Refuse characters that could end a line for some programs only, wherever they stand."""
    match = _CONTROL.search(text)
    if match is None:
        return
    if match.group() == "\r":
        raise scalars.bad_character(text, match.start(), "a line ends with a line feed, or with both")
    line, column = scalars.position(text, match.start())
    message = f"not YAML: column {column}: control character U+{ord(match.group()):04X}"
    raise MalformedError("syntax", message, line, value=match.group(), remedy="remove it")


def _stand_ins(text: str) -> dict[int, str]:
    """Return for each line separator in the text a private-use character that is not in it.

    PyYAML takes these separators for ends of lines, as YAML 1.1 did. In YAML 1.2 they are characters like any
    other, and so are the stand-ins.
    """
    found = [] if text.isascii() else [one for one in scalars.LINE_SEPARATORS if one in text]
    unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in text)
    stand_ins = {ord(separator): stand_in for separator, stand_in in zip(found, unused, strict=False)}
    if len(stand_ins) < len(found):
        reason = "it can't be read beside every private-use character that there is"
        raise scalars.bad_character(text, text.index(found[-1]), reason)
    return stand_ins


_PRIVATE_USE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
_SEPARATING = re.compile(f"[{scalars.LINE_SEPARATORS}{scalars.BYTE_ORDER_MARK}]")


def _refuse_outside_of_quotes(text: str, masked: str) -> None:
    """Refuse line separators and byte order marks in comments, in plain and block scalars and between values.

    Args:
        text: as it was given.
        masked: the same with a stand-in for each line separator.

    Raises:
        MalformedError: there is one.
    """
    quoted = _quoted_texts(masked)
    start = end = 0
    for match in _SEPARATING.finditer(text):
        place = match.start()
        while end <= place:
            start, end = next(quoted, (len(text), len(text)))
        # libyaml does not count a byte order mark at the start of a text, so that all places are one less.
        if place < start or text.startswith(scalars.BYTE_ORDER_MARK):
            raise scalars.bad_character(text, place, scalars.OUTSIDE_OF_QUOTES)


def _quoted_texts(text: str) -> Iterator[tuple[int, int]]:
    """Go through the places where quoted texts begin and end, up to the first that is not YAML."""
    with suppress(yaml.YAMLError, ValueError):  # the latter of PyYAML's own parser
        for token in yaml.scan(text, Loader=LOADER):
            if isinstance(token, yaml.ScalarToken) and token.style in ("'", '"'):
                yield token.start_mark.index, token.end_mark.index


def _kind(text: str) -> ScalarKind:
    """Return a plain scalar's kind."""
    return _WORDS.get(text) or (ScalarKind.INTEGER if _INTEGER.fullmatch(text) else ScalarKind.TEXT)


def _line(event: yaml.Event) -> int:
    """Return the line that an event starts on, from 1."""
    return event.start_mark.line + 1 if event.start_mark else 0


def _refuse_tag(tag: str, line: int) -> None:
    """Refuse a tag: nothing is ever constructed from a document."""
    raise MalformedError("tag", "tags are not allowed", line, value=tag, remedy="remove the tag")


def _malformed(error: yaml.YAMLError, text: str) -> MalformedError:
    """Return the parser's complaint on one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = "".join(text.split("\n")[mark.line : mark.line + 1]) if mark else ""
    before = line[: mark.column + 1] if mark else ""
    if mark and before.endswith("\t") and not before.strip("- \t"):
        message = f"column {mark.column + 1}: YAML allows no tab for indentation"
        return MalformedError("syntax", message, mark.line + 1, remedy="indent with spaces")
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    begun = getattr(error, "context_mark", None)
    message, remedy = _MISPLACED.get(reason, (reason, "check indentation, colons and quotes up to here"))
    if begun and reason in _UNFINISHED:
        mark, (message, remedy) = begun, _UNFINISHED[reason]
    place = f"column {mark.column + 1}: " if mark else ""
    line_number = mark.line + 1 if mark else 0
    return MalformedError("syntax", f"not YAML: {place}{message}", line_number, remedy=remedy)


_UNFINISHED = {
    "did not find expected ',' or ']'": ("this list is not closed", "add the missing comma or ]"),
    "did not find expected ',' or '}'": ("this mapping is not closed", "add the missing comma or }"),
    "found unexpected end of stream": ("this quoted text does not end", "add the closing quote"),
    "could not find expected ':'": ("expected a colon and a blank behind this name", "write name: value"),
}
"""What libyaml says of something that has begun, and what the message and the remedy are in plain words."""

_MISPLACED = {
    "mapping values are not allowed in this context": (
        "a second colon with a blank, or another indentation than the lines before",
        "put the value in quotes, or correct the indentation",
    ),
    "did not find expected key": (
        "expected a field of the mapping that is open here",
        "indent it as the other fields, and write name: value",
    ),
    "did not find expected '-' indicator": (
        "expected an item of the list that is open here",
        "indent it as the other items, and begin it with -",
    ),
    "did not find expected <document start>": (
        "text after the end of the document",
        "correct the indentation",
    ),
    "block sequence entries are not allowed in this context": (
        "an item of a list can't begin here",
        "put it on a line of its own",
    ),
    "did not find expected node content": (
        "expected a value, found the end of the text or one of ] } ,",
        "write the value, in quotes if it begins so, or close the brackets before",
    ),
    "found character that cannot start any token": (
        "a value can't begin with this character",
        "put the value in quotes",
    ),
    "found unknown escape character": (
        "unknown escape in a text between double quotes",
        "write two backslashes for one, or use single quotes",
    ),
}
"""The same for what stands in a wrong place."""
