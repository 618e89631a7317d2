"""Checks against characters that make a document look different from what the parser reads.

Programs disagree whether U+0085, U+2028 and U+2029 end a line, so a part of a comment could become a rule.
Bidirectional controls (Unicode Technical Report 36) change the displayed order of characters. Escapes of
these characters in quoted texts are visible, so the checks allow them.
"""

from __future__ import annotations

import re
import unicodedata

from sgagent.documents.tree import MalformedError

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
    message = f"column {column}: U+{ord(character):04X} ({_name(character)}): {reason}"
    return MalformedError("bad_character", message, line, value=character, remedy=remedy)


def position(text: str, place: int) -> tuple[int, int]:
    """Return line and column of a place, from 1; lines end at a line feed and at nothing else."""
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)


def escape_bidirectional(quoted: str) -> str:
    """Return a text with escapes for bidirectional controls, all of which stand between double quotes."""
    return quoted if quoted.isascii() else quoted.translate(_ESCAPES)


def _name(character: str) -> str:
    return _NAMES.get(character) or unicodedata.name(character, "unnamed").lower()
