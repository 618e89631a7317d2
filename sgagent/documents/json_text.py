"""JSON parser (RFC 8259) that records the line of every value, which the standard library does not.

Most of a large document consists of lists and mappings that contain no others. The standard library parses
each of them at once; its lines are counted on first use. If that finds anything unusual, the parser reads the
passage again token by token to report what and where.
"""

from __future__ import annotations

import json
import re
from functools import partial

from sgagent.documents import tree
from sgagent.documents.problems import Limits
from sgagent.documents.scalars import BYTE_ORDER_MARK, LINE_SEPARATORS, OUTSIDE_OF_QUOTES, bad_character

_BLANKS = r"[ \t\n\r]*+"
_BLANK = re.compile(_BLANKS)
_CHARACTERS = r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+'
"""Possessive, so that a string of many megabytes that does not end costs no more than reading it."""

_TEXT = f'"({_CHARACTERS})"'
_STRING = re.compile(_TEXT + _BLANKS)
_NAME = re.compile(_TEXT + _BLANKS + ":" + _BLANKS)
_NO_BLANKS = LINE_SEPARATORS + BYTE_ORDER_MARK
_COMMA = re.compile("," + _BLANKS)
_WHOLE = re.compile(rf'[\[{{](?:[-+0-9.eE:, \t\n\r]++|"{_CHARACTERS}")*+[\]}}]')
"""What may be a list or mapping of nothing but texts and numbers."""

_BAD_ESCAPE = re.compile(r"\\u(?:0000|[Dd][89A-Fa-f])")
"""Half a surrogate pair, maybe, or NUL."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"true": tree.ScalarKind.BOOLEAN, "false": tree.ScalarKind.BOOLEAN, "null": tree.ScalarKind.NULL}
_WORD = re.compile(r"[A-Za-z]+")
_CLOSING = {"{": "}", "[": "]"}
_BAD_STRING = "a string that does not end, or holds a raw control character or a wrong escape"


def parse_json(
    text: str, builder: tree.TreeBuilder, *, first_line: int = 1, word_by_word: bool = False
) -> None:
    """Feed the one value of a JSON text to the builder; nothing is fed from an empty text.

    Args:
        text: decoded from UTF-8.
        builder: what becomes of it.
        first_line: the number of the text's first line.
        word_by_word: whether to read nothing at once. It comes to the same, with all lines counted.

    Raises:
        MalformedError: not JSON; comments, trailing commas, NaN and the like are not.
    """
    scanner = _Scanner(text, builder, first_line, word_by_word=word_by_word)
    scanner.advance(0)
    if not scanner.at_end:
        scanner.value()
    while scanner.closings:
        scanner.part()
    if not scanner.at_end:
        raise scanner.malformed("there is text after the end of the document")


class _Scanner:
    """A place in the text; without recursion, so that no text can exhaust the stack."""

    def __init__(self, text: str, builder: tree.TreeBuilder, first_line: int, *, word_by_word: bool) -> None:
        """Start at the first character."""
        self._text = text
        self._builder = builder
        self._word_by_word = word_by_word
        self._place = 0
        self._line = first_line
        self._line_end = text.find("\n")
        """Of the line of the place; -1 in the last."""

        self.closings: list[str] = []
        """The end of each list and mapping that is open."""

        self._is_first = False
        """Whether the innermost of them was just opened."""

    @property
    def at_end(self) -> bool:
        """Return whether everything is consumed."""
        return self._place >= len(self._text)

    def _go_to(self, place: int) -> None:
        """Go on to a later place, and count the lines; they end nowhere in JSON but among blanks."""
        self._place = place
        while -1 < self._line_end < place:
            self._line += 1
            self._line_end = self._text.find("\n", self._line_end + 1)

    def part(self) -> None:
        """Consume the next value of the innermost list or mapping, with its name, or the end."""
        closing = self.closings[-1]
        if self._peek() == closing:
            self.closings.pop()
            self._builder.close()
            self.advance(1)
            self._is_first = False
            return
        if not self._is_first:
            match = _COMMA.match(self._text, self._place)
            if match is None:
                raise self.malformed(f"expected a comma or {closing}")
            self._go_to(match.end())
        if closing == "}":
            self._key()
        self.value()

    def value(self) -> None:
        """Consume a single value, or the beginning of a list or mapping."""
        character, self._is_first = self._peek(), False
        if character in _CLOSING and self._took_whole():
            return
        match = _STRING.match(self._text, self._place)
        if match is not None:
            self._builder.scalar(_meant(match), self._line)
            self._go_to(match.end())
        elif character in _CLOSING:
            is_list = character == "["
            self._builder.open(tree.Listing(self._line, []) if is_list else tree.Mapping(self._line, {}))
            self.closings.append(_CLOSING[character])
            self.advance(1)
            self._is_first = True
        elif character == '"':
            raise self.malformed(_BAD_STRING)
        else:
            self._number_or_word(character)

    def _took_whole(self) -> bool:
        """Consume a list or mapping at once, if it holds no other and nothing odd."""
        match = None if self._word_by_word else _WHOLE.match(self._text, self._place)
        if match is None:
            return False
        written = match.group()
        most = 2 + written.count(",")  # values, itself included; more than there are where texts hold commas
        node = _read_whole(written, self._line) if self._builder.has_room_for(most) else None
        if node is None:
            return False
        self._builder.whole(node)
        self._line += written.count("\n")
        self._place = match.end()
        # A search at each value would read a text of one line once for each value.
        if -1 < self._line_end < self._place:
            self._line_end = self._text.find("\n", self._place)
        self.advance(0)
        return True

    def malformed(self, reason: str) -> tree.MalformedError:
        """Return a complaint about the place reached."""
        if self._peek() and self._peek() in _NO_BLANKS:
            return bad_character(self._text, self._place, OUTSIDE_OF_QUOTES)
        rest = self._text[self._place : self._place + 20].split("\n", 1)[0]
        message, remedy = f"not JSON: {reason}", "check commas, quotes and brackets up to here"
        return tree.MalformedError("syntax", message, self._line, value=rest or None, remedy=remedy)

    def _key(self) -> None:
        """Consume a name and its colon."""
        match = _NAME.match(self._text, self._place)
        if match is None:
            raise self._malformed_name()
        self._builder.key(_meant(match), self._line)
        self._go_to(match.end())

    def _malformed_name(self) -> tree.MalformedError:
        """Return a complaint about a text that is no name with a colon."""
        if self._peek() != '"':
            return self.malformed("expected a name in quotes")
        match = _STRING.match(self._text, self._place)
        if match is None:
            return self.malformed(_BAD_STRING)
        self._go_to(match.end())
        return self.malformed("expected a colon")

    def _number_or_word(self, character: str) -> None:
        """Consume a number, whose digits are kept so that no precision is lost; or true, false or null."""
        if character == "-" or character.isdigit():
            match = _NUMBER.match(self._text, self._place)
            if match is None:
                raise self.malformed("not a number")
            kind = tree.ScalarKind.NUMBER if match.group(1) or match.group(2) else tree.ScalarKind.INTEGER
        else:
            match = _WORD.match(self._text, self._place)
            if match is None or match.group(0) not in _WORDS:
                raise self.malformed("expected a value")
            kind = _WORDS[match.group(0)]
        self._builder.scalar(tree.Scalar(kind, match.group(0)), self._line)
        self.advance(match.end() - self._place)

    def _peek(self) -> str:
        """Return the next character; empty at the end of the text."""
        return self._text[self._place : self._place + 1]

    def advance(self, characters: int) -> None:
        """Go on behind a token and the blanks after it."""
        match = _BLANK.match(self._text, self._place + characters)
        if match is not None:
            self._go_to(match.end())


def _read_whole(written: str, line: int) -> tree.Listing | tree.Mapping | None:
    """Return a list or mapping of texts and numbers; None if it is none, or odd in any way.

    On one line, all values have its line, also where its name stands on an earlier one.
    """
    if "\\u" in written and _BAD_ESCAPE.search(written):
        return None
    try:
        value: list[tree.Node] | dict[str, tree.Node]
        value, end = _AT_ONCE.raw_decode(written)
    except ValueError:
        return None
    if end < len(written):
        return None
    lines = partial(_count_lines, written, line) if "\n" in written else line
    if isinstance(value, dict):
        return tree.Mapping(line, value, lines=lines, size=len(value) + 1, written=written)
    return tree.Listing(line, value, lines=lines, size=len(value) + 1, written=written)


def _entries(pairs: list[tuple[str, tree.Node]]) -> dict[str, tree.Node]:
    """Return values by their names.

    Raises:
        ValueError: a name stands twice.
    """
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError
    return entries


_AT_ONCE = json.JSONDecoder(
    object_pairs_hook=_entries,
    parse_int=partial(tree.Scalar, tree.ScalarKind.INTEGER),
    parse_float=partial(tree.Scalar, tree.ScalarKind.NUMBER),
)


def _count_lines(written: str, line: int) -> tree.Lines:
    """Return the lines of a text that was read at once: read it again, word by word."""
    builder = tree.TreeBuilder(Limits(rules=len(written)))
    parse_json(written, builder, first_line=line, word_by_word=True)
    lines = builder.root.lines if isinstance(builder.root, tree.Container) else ()
    return () if callable(lines) or isinstance(lines, int) else lines


def _meant(match: re.Match[str]) -> str:
    """Return the value of a string."""
    written = match.group(1)
    return str(json.loads(f'"{written}"')) if "\\" in written else written
