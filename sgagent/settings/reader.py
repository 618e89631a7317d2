"""Read ``sgagent.toml``.

Every key has a default, and an empty text is a valid configuration. A wrong one is refused with
every fault at once, each with its line, its key, what was found and what is right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from sgagent.core.errors import Origin, Problem, Severity, UsageError, printable, shown
from sgagent.documents.characters import refuse_ambiguous
from sgagent.documents.findings import Findings, Limits
from sgagent.documents.tree import MalformedError
from sgagent.settings.constraints import UNKNOWN_KEY, Fault, InvalidValueError, written
from sgagent.settings.key_lines import find_key_lines, line_of
from sgagent.settings.tables import INTERFACE_NAME, Settings

_END_OF_TABLE = re.compile(r"[.\[]")


class RefusedSettingsError(UsageError):
    """Report that a configuration has errors; documents may be looked at by what could be read."""

    def __init__(self, problems: Iterable[Problem], readable: Settings) -> None:
        """Keep all the problems, and what could be read, with defaults in the place of the rest."""
        self.problems = tuple(problems)
        self.readable = readable
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def spares(self, tables: Collection[str]) -> bool:
        """Return whether these tables were read as they are meant."""
        return not any(_may_concern(problem, tables) for problem in self.problems)


def _may_concern(problem: Problem, tables: Collection[str]) -> bool:
    """Return whether a problem is in one of the tables, or in one whose name may be mistyped."""
    path = problem.origin.path
    table = _END_OF_TABLE.split(path)[0]
    is_unknown_table = problem.code == UNKNOWN_KEY and path == table and problem.value is None
    return is_unknown_table or table in tables


def parse_settings(content: str, file: str) -> Settings:
    """Return the configuration that a TOML text holds.

    Args:
        content: the text; an empty one is all defaults.
        file: its name, for messages.

    Raises:
        RefusedSettingsError: with every fault, one a line.
        UsageError: it is not TOML.
    """
    table = _parse_toml(content, file)
    if not table:
        return Settings()
    from sgagent.settings.validation import read_tables  # noqa: PLC0415 - pydantic takes longer than all else

    values, faults = read_tables(table)
    settings = _settings(values, file)
    if faults:
        raise RefusedSettingsError(_problems(faults, table, content, file), settings)
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
        return INTERFACE_NAME.check(name)
    except InvalidValueError as error:
        (fault,) = error.faults
        raise UsageError(printable(f"{origin}: {fault.message}: {shown(name)} ({fault.remedy})")) from None


def _parse_toml(content: str, file: str) -> dict[str, Any]:
    """Return what the text says, unchecked."""
    try:
        refuse_ambiguous(content)
        return tomllib.loads(content)
    except MalformedError as error:
        place = f"{file}:{error.line}"
        raise UsageError(printable(f"{place}: {error.message} ({error.remedy})")) from error
    except (ValueError, RecursionError) as error:  # ValueError also of numbers with very many digits
        raise UsageError(printable(f"{file}: not TOML: {error}")) from error


def _settings(values: dict[str, Any], file: str) -> Settings:
    """Return the settings with defaults for what is not there."""
    values = dict(values)
    interfaces = [entry.binding(f"{file}: interface[{at}]") for at, entry in values.pop("interface", ())]
    first = {binding.interface: binding for binding in reversed(interfaces)}
    for name in ("failsafe", "platform"):
        if name in values:
            values[name] = tuple(entry.exemption for _, entry in values[name])
    if "limits" in values:
        values["limits"] = values["limits"].limits
    if "flow_log" in values:
        values["flow_log"] = replace(values["flow_log"], is_asked_for=True)
    return Settings(**values, interfaces=tuple(first[name] for name in sorted(first)))


def _problems(faults: Iterable[Fault], table: dict[str, Any], content: str, file: str) -> tuple[Problem, ...]:
    """Return the faults with their lines and what was written, in the order of the text."""
    lines = find_key_lines(content)
    findings = Findings(Limits().problems)
    for fault in sorted(faults, key=lambda fault: line_of(lines, fault.path)):
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.path)
        problem = Problem(
            severity=Severity.ERROR,
            code=fault.code,
            origin=Origin(file=file, line=line_of(lines, fault.path), path=path.removeprefix(".")),
            message=fault.message,
            value=_written_at(table, fault.path),
            remedy=fault.remedy,
        )
        findings.add(problem)
    return findings.all()


def _written_at(table: dict[str, Any], path: Iterable[str | int]) -> str | None:
    """Return the single value at a path as it is shown; None for a list or table, or where nothing is."""
    value: Any = table
    try:
        for step in path:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return None
    return written(value)
