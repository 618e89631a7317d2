"""Read ``sgagent.toml``: the settings, or every problem with its line.

``tomllib`` reports no lines, so a scanner finds those of keys once it has read the text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sgagent.core.errors import Origin, Problem, UsageError, printable, shown
from sgagent.documents import scalars
from sgagent.documents.field import Field, Reading
from sgagent.documents.problems import Budget, Findings, Limits
from sgagent.documents.tree import MalformedError
from sgagent.settings.constraints import Path, tree
from sgagent.settings.table_validation import read_tables
from sgagent.settings.tables import INTERFACE_NAME, Settings

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
        """Go behind a value, and note the lines of its parts."""
        end = _CLOSING.get(self._next)
        if end is not None:
            self._at += 1
            self._read_parts(path, end)
        else:
            while self._next not in {"", "\n", ",", "]", "}"}:
                self._at += 1

    def _read_parts(self, path: Path, end: str) -> None:
        """Go behind the items of a list, or the pairs of an inline table."""
        index = 0
        while self._next != end:
            if self._next in {"\n", ","}:
                self._at += 1
            elif end == "}":
                self._read_pair(path)
            else:
                self.lines[(*path, index)] = self._tokens[self._at][1]
                self._read_value((*path, index))
                index += 1
        self._at += 1


_CLOSING = {"[": "]", "{": "}"}


def _unquoted(token: str) -> str:
    """Return the key that a token of a key stands for."""
    return str(tomllib.loads(f"key = {token}")["key"]) if token[0] in "\"'" else token


_END_OF_TABLE = re.compile(r"[.\[]")


class RefusedSettingsError(UsageError):
    """Report that a configuration has errors; documents may be checked by its readable part."""

    def __init__(self, problems: Iterable[Problem], readable: Settings) -> None:
        """Keep all the problems, and the readable settings, with defaults in the place of the rest."""
        self.problems = tuple(problems)
        self.readable = readable
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def spares(self, tables: Collection[str]) -> bool:
        """Return whether these tables were read as they are meant."""
        for problem in self.problems:
            path = problem.origin.path
            table = _END_OF_TABLE.split(path)[0]
            is_mistyped = problem.code == scalars.UNKNOWN_FIELD and path == table and problem.value is None
            if is_mistyped or table in tables or not path:
                return False
        return True


def parse_settings(content: str, file: str) -> Settings:
    """Return the configuration that a TOML text holds.

    Args:
        content: the text; an empty one is all defaults.
        file: its name, for messages.

    Raises:
        RefusedSettingsError: with every fault, one a line; with the first, where it is not TOML.
    """
    content = content.removeprefix(scalars.BYTE_ORDER_MARK)
    table = _parse_toml(content, file)
    if not table:
        return Settings()
    values, faults = read_tables(table)
    findings = Findings(Limits().problems)
    lines = find_key_lines(content) if faults or "interface" in values else {}
    root = Field(tree(table, lines), Reading(file=file, findings=findings, budget=Budget(limits=Limits())))
    settings = _settings(values, root)
    if faults:
        root.refuse(sorted(faults, key=lambda fault: root.at(*fault.path).line))
        raise RefusedSettingsError(findings.all(), settings)
    return settings


def parse_interface_name(name: str, origin: str) -> str:
    """Return a name that a link of this host can have and that is safe wherever names go.

    Args:
        name: what was written.
        origin: where, for the message.

    Raises:
        UsageError: the name is too long or holds other characters.
    """
    try:
        return str(INTERFACE_NAME.check(name))
    except scalars.InvalidValueError as error:
        (fault,) = error.faults
        raise UsageError(printable(f"{origin}: {fault.message}: {shown(name)} ({fault.remedy})")) from None


def _parse_toml(content: str, file: str) -> dict[str, Any]:
    """Return the text's values, unchecked."""
    try:
        scalars.refuse_ambiguous(content)
        table = tomllib.loads(content)
        tree(table)  # keys with a thousand dots nest deeper than can be walked
    except MalformedError as error:
        fault, line = error, error.line
    except (ValueError, RecursionError) as error:  # ValueError also of numbers with very many digits
        place = _PLACE_IN_TOML.search(str(error))
        line = int(place["line"]) if place and place["line"] else content.count("\n") + 1 if place else 0
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        fault = MalformedError("syntax", f"not TOML: {reason}", line, remedy="correct the text there")
    else:
        return table
    origin = Origin(file=file, line=line)
    problem = Problem.error(origin, fault.code, fault.value, fault.message, fault.remedy)
    raise RefusedSettingsError([problem], Settings())


_PLACE_IN_TOML = re.compile(r"\(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$")
"""How ``tomllib`` ends its messages; after the number of a line where it knows that."""


def _settings(values: dict[str, Any], root: Field) -> Settings:
    """Return the settings with defaults for missing values."""
    tables = values.pop("interface", ())
    interfaces = [entry.binding(root.at("interface", at).origin) for at, entry in tables]
    first = {binding.interface: binding for binding in reversed(interfaces)}
    for name in ("failsafe", "platform"):
        if name in values:
            values[name] = tuple(entry.exemption for _, entry in values[name])
    if "limits" in values:
        values["limits"] = values["limits"].limits
    if "flow_log" in values:
        values["flow_log"] = replace(values["flow_log"], is_asked_for=True)
    return Settings(**values, interfaces=tuple(first[name] for name in sorted(first)))
