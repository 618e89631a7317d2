"""Find the line of each key in a TOML text: Python's reader does not report lines.

The text must have been read by ``tomllib`` before, so that this does not check its form.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]
"""Keys and indices from the root to a value."""

_TOKEN = re.compile(
    r"""
    (?P<end>\n)
    | (?P<skipped>[ \t\r]+|\#[^\n]*)
    | (?P<quoted>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|\"(?:\\.|[^"\\\n])*\"|'[^'\n]*')
    | (?P<sign>[][{}=,.])
    | (?P<bare>[^][{}=,.\s"'#]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def find_key_lines(text: str) -> Mapping[Path, int]:
    """Return the line, from 1, of each key, table and item of a list; of a repeated table, of its header."""
    return _Scanner(text).lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of a key; of what holds it where the key is missing; 0 where nothing does."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


class _Scanner:
    """Walk through the tokens of a text once."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._tokens: list[tuple[str, int]] = []
        self._at = 0
        self._lengths: dict[Path, int] = {}
        """Of each list of tables so far."""
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skipped":
                self._tokens.append((match[0], line))
            line += match[0].count("\n")
        self._read_text()

    @property
    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self) -> tuple[str, int]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip_ends(self) -> None:
        while self._next == "\n":
            self._at += 1

    def _read_text(self) -> None:
        table: Path = ()
        while self._at < len(self._tokens):
            if self._next == "[":
                table = self._read_header()
            elif self._next != "\n":
                self._read_pair(table)
            else:
                self._at += 1

    def _read_header(self) -> Path:
        """Return the path of the table that a header opens."""
        _, line = self._take()
        is_list = self._next == "["
        if is_list:
            self._at += 1
        table: Path = ()
        *outer, last = self._read_key("]")
        for key in outer:
            table = self._newest((*table, key))
            self.lines.setdefault(table, line)
        table = (*table, last)
        if is_list:
            self._at += 1
            self.lines.setdefault(table, line)
            self._lengths[table] = self._lengths.get(table, 0) + 1
        table = self._newest(table)
        self.lines[table] = line
        return table

    def _newest(self, path: Path) -> Path:
        """Return the path of the newest table of a list of tables, or the path itself."""
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _read_pair(self, table: Path) -> None:
        """Read a key with its value."""
        line = self._tokens[self._at][1]
        for key in self._read_key("="):
            table = (*table, key)
            self.lines.setdefault(table, line)
        self._read_value(table)

    def _read_key(self, end: str) -> list[str]:
        """Return the parts of a dotted key, and go behind the sign that ends it."""
        parts = []
        while self._next != end:
            part, _ = self._take()
            if part != ".":
                parts.append(_unquoted(part))
        self._at += 1
        return parts

    def _read_value(self, path: Path) -> None:
        """Go behind a value, and note the lines of what is in it."""
        match self._next:
            case "[":
                self._at += 1
                self._read_items(path)
            case "{":
                self._at += 1
                self._read_inline(path)
            case _:
                while self._next not in {"", "\n", ",", "]", "}"}:
                    self._at += 1

    def _read_items(self, path: Path) -> None:
        index = 0
        while self._next != "]":
            if self._next in {"\n", ","}:
                self._at += 1
                continue
            self.lines[(*path, index)] = self._tokens[self._at][1]
            self._read_value((*path, index))
            index += 1
        self._at += 1

    def _read_inline(self, path: Path) -> None:
        while self._next != "}":
            if self._next in {"\n", ","}:
                self._at += 1
                continue
            self._read_pair(path)
        self._at += 1


def _unquoted(token: str) -> str:
    """Return the key that a token of a key stands for."""
    return str(tomllib.loads(f"key = {token}")["key"]) if token[0] in "\"'" else token
