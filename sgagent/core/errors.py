"""Say what is wrong with a document, and raise what the commands turn into exit codes.

The exceptions::

    SgagentError
    ├── UsageError               wrong use of a command or a wrong configuration   (exit code 2)
    ├── DocumentError            the documents hold errors; carries every Problem   (exit code 2)
    ├── KernelRefusedError       the kernel refused a transaction                   (exit code 3)
    ├── SourceUnavailableError   the definitions can't be reached                   (exit code 4)
    │   └── NoDocumentError      the source was reached and holds no document       (exit code 4)
    ├── NotPermittedError        the caller lacks a privilege                       (exit code 5)
    ├── OutputError              standard output can't be written                   (exit code 74)
    ├── ApplierLostError         the process that holds the privilege is gone       (exit code 70)
    └── RehearsalError           a rehearsal in a private network went wrong        (exit code 70)
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Severity(enum.Enum):
    """How much a problem weighs (§8)."""

    ERROR = "error"
    """The snapshot is refused, the last good one stays."""

    WARNING = "warning"
    """The snapshot is enforced all the same."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Origin:
    """Where in the documents something stands."""

    file: str
    """The path as the user gave it, or a name like ``<stdin>``."""

    line: int = 0
    """From 1; 0 where the format knows no lines."""

    path: str = ""
    """The field, like ``security_groups[0].rules[2].port_range``."""

    def at(self, path: str) -> Origin:
        """Return the origin of a field below this one; the line stays."""
        joined = path if not self.path or path.startswith("[") else f".{path}"
        return Origin(file=self.file, line=self.line, path=self.path + joined)

    def __str__(self) -> str:
        """Return ``file:line: path``, without what is not known."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}" if self.path else place


NOWHERE = Origin(file="<unknown>")
"""The origin of what no document wrote: values made by tests and by the agent itself."""

_VALUE_SHOWN = 80
"""Characters of an offending value that are shown; the rest is cut, as it may be hostile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error or warning, with what a person needs to fix it."""

    severity: Severity
    code: str
    """A stable word for scripts and metrics, like ``unknown_field``."""

    origin: Origin
    message: str
    """What is wrong, as a clause without a full stop."""

    value: str | None = None
    """The offending value as it was written; None where there is none, as for a missing field."""

    remedy: str = ""
    """What would be right, as a clause without a full stop."""

    def __str__(self) -> str:
        """Return the problem on one line, safe to print on a terminal."""
        text = f"{self.severity.value}: {self.origin}: {self.message}"
        if self.value is not None:
            text += f": {shown(self.value)}"
        if self.remedy:
            text += f" ({self.remedy})"
        return printable(text)


def shown(value: str) -> str:
    """Return a value quoted, escaped and cut to a length that a line can hold."""
    cut = value if len(value) <= _VALUE_SHOWN else value[: _VALUE_SHOWN - 1] + "…"
    return repr(cut)


def printable(text: str) -> str:
    """Return the text with control characters escaped, so that no document can drive a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class SgagentError(Exception):
    """Be the root of all that sgagent raises on purpose."""


class UsageError(SgagentError):
    """Say that a command or the configuration was used wrongly."""


class DocumentError(SgagentError):
    """Say that documents are refused, with every problem found in them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep all the problems, warnings included; at least one should be an error."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class KernelRefusedError(SgagentError):
    """Say that the kernel refused a transaction; the rules that were in force still are."""

    def __init__(self, reason: str, subject: str | None = None) -> None:
        """Keep the kernel's reason and, where it could be found out, the object that it refused."""
        self.reason = reason
        self.subject = subject
        super().__init__(f"{subject}: {reason}" if subject else reason)


class SourceUnavailableError(SgagentError):
    """Say that the definitions can't be reached; what was enforced stays enforced."""


class NoDocumentError(SourceUnavailableError):
    """Say that the source was reached and holds no document, which is no empty policy."""


class NotPermittedError(SgagentError):
    """Say that a privilege is missing and which one."""


class OutputError(SgagentError):
    """Say that standard output can't be written: its disk is full, for example."""


class ApplierLostError(SgagentError):
    """Say that the process that holds the privilege is gone or hangs; the rules stay in force."""


class RehearsalError(SgagentError):
    """Say that a rehearsal in a private network went wrong, so that it says nothing about the policy."""
