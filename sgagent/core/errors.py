"""Describe problems of documents, suggest spellings, and raise the errors behind exit codes.

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
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace


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
        """Return ``file:line: path``, without unknown parts."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}" if self.path else place


NOWHERE = Origin(file="<unknown>")
"""The origin of what no document wrote: values made by tests and by the agent itself."""

_VALUE_SHOWN = 80
"""Characters of an offending value that are shown; the rest is cut, as it may be hostile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error or warning, with the facts that a person needs to fix it."""

    severity: Severity
    code: str
    """A stable word for scripts and metrics, like ``unknown_field``."""

    origin: Origin
    message: str
    """The fault, as a clause without a full stop."""

    value: str | None = None
    """The offending value as it was written; None where there is none, as for a missing field."""

    remedy: str = ""
    """The remedy, as a clause without a full stop."""

    @classmethod
    def error(cls, origin: Origin, code: str, value: str | None, message: str, remedy: str = "") -> Problem:
        """Return a problem for which the snapshot is refused."""
        return cls(
            severity=Severity.ERROR, code=code, origin=origin, message=message, value=value, remedy=remedy
        )

    @classmethod
    def warning(cls, origin: Origin, code: str, value: str | None, message: str, remedy: str = "") -> Problem:
        """Return a problem that refuses nothing."""
        return cls.error(origin, code, value, message, remedy).as_warning()

    def as_warning(self) -> Problem:
        """Return the problem as one that refuses nothing."""
        return replace(self, severity=Severity.WARNING)

    def __str__(self) -> str:
        """Return the problem on one line, safe to print on a terminal."""
        text = f"{self.severity.value}: {self.origin}: {self.message}"
        if self.value is not None:
            text += f": {shown(self.value)}"
        if self.remedy:
            text += f" ({self.remedy})"
        return printable(text)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems by file and line, each once; those of one line stay as they are."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda one: (one.origin.file, one.origin.line)))


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that were probably meant, the nearest first."""
    import difflib  # noqa: PLC0415 - saves every command the import; few documents have errors

    by_letters = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name[:_LONGEST_NAME].lower(), by_letters, n=most)
    return [by_letters[letters] for letters in found]


_LONGEST_NAME = 64
"""Characters of an unknown name that are compared with known names; bounds the work on hostile input."""


class Slips:
    """Finds, of many ids, those that another id is one slip away from.

    A slip is a letter too many, too few, wrong, or two swapped. Ids that differ in a digit, or in a part of
    one or two letters, belong to different things: ``sg-web-1`` and ``sg-web-2``, ``sg-a`` and ``sg-b``.
    """

    def __init__(self, known: Iterable[str]) -> None:
        """Take the ids. One slip apart, two of them are alike once each lacks at most one letter."""
        self._by_shorter: dict[str, list[str]] = {}
        for one in known:
            for shorter in _at_most_one_less(one):
                self._by_shorter.setdefault(shorter, []).append(one)

    def of(self, name: str) -> list[str]:
        """Return the ids, sorted, of which a name is a slip."""
        near = {one for shorter in _at_most_one_less(name) for one in self._by_shorter.get(shorter, ())}
        return sorted(one for one in near if _is_slip(name, one))


def _at_most_one_less(name: str) -> set[str]:
    return {name, *(name[:place] + name[place + 1 :] for place in range(len(name)))}


def _is_slip(name: str, meant: str) -> bool:
    """Return whether a small difference between two names has no digit, and is in no short part."""
    first = _common(name, meant)
    same_end = _common(name[first:][::-1], meant[first:][::-1])
    wrong, right = name[first : len(name) - same_end], meant[first : len(meant) - same_end]
    is_small = (len(wrong) < 2 and len(right) < 2) or (len(right) == 2 and wrong == right[::-1])
    part = next(found for found in _PART.finditer(meant) if found.end() >= first)
    return is_small and not any(map(str.isdigit, wrong + right)) and len(part[0]) > _SHORT_PART


def _common(one: str, other: str) -> int:
    """Return how many characters two texts have in common from their start."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


_PART = re.compile(r"[^-_.:/]*")
_SHORT_PART = 2


def count(number: int, word: str) -> str:
    """Return a number and its noun, in the singular or plural."""
    return f"{number} {word}{'s' * (number != 1)}"


def shown(value: str) -> str:
    """Return a value quoted, escaped and cut to a length that a line can hold."""
    cut = value if len(value) <= _VALUE_SHOWN else value[: _VALUE_SHOWN - 1] + "…"
    return repr(cut)


def reason_at(place: str, reason: str) -> str:
    """Return the reason of a fault without the path that the place, like ``file groups.d``, has already."""
    return reason.removeprefix(f"{place.partition(' ')[2]}: ")


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

    def __reduce__(self) -> tuple[type[DocumentError], tuple[tuple[Problem, ...]]]:
        """Have pickle call the constructor with the problems; it would with the message."""
        return type(self), (self.problems,)


def refusal(code: str, place: str, message: str, remedy: str = "", value: str | None = None) -> DocumentError:
    """Return the refusal of the documents at a place, for one problem."""
    return DocumentError([Problem.error(Origin(file=place), code, value, message, remedy)])


class KernelRefusedError(SgagentError):
    """Say that the kernel refused a transaction; the rules that were in force still are."""

    def __init__(self, reason: str, subject: str | None = None) -> None:
        """Keep the kernel's reason and, where it could be found out, the object that it refused."""
        self.reason = reason
        self.subject = subject
        super().__init__(f"{subject}: {reason}" if subject else reason)


class SourceUnavailableError(SgagentError):
    """Say that the definitions can't be reached; the policy in force stays in force."""


class NoDocumentError(SourceUnavailableError):
    """Say that the source was reached and holds no document, which is no empty policy."""


class NotPermittedError(SgagentError):
    """Say that a privilege is missing and which one."""


class LinksUnreadableError(SgagentError):
    """Say that the kernel gave no complete listing of links and addresses, as they kept changing."""


class OutputError(SgagentError):
    """Say that standard output can't be written: its disk is full, for example."""


class ApplierLostError(SgagentError):
    """Say that the process that holds the privilege is gone or hangs; the rules stay in force."""


class RehearsalError(SgagentError):
    """Say that a rehearsal in a private network went wrong, so that it says nothing about the policy."""
