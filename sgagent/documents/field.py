"""Values of a document with their path, so that each problem names its file, line and path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping as MappingOf, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, final

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.model import Snapshot
from sgagent.documents.findings import Budget, Findings, OverBudgetError
from sgagent.documents.parse_cache import ParseCache
from sgagent.documents.tree import Listing, Mapping, Node, Scalar, ScalarKind, kind_of

T = TypeVar("T")

_LONGEST_NAME = 64
"""Characters of an unknown name that are compared with known names; bounds the work on hostile input."""

_LONGEST_NUMBER = 18
"""Digits of a number that can make sense anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The state of reading one file."""

    file: str
    findings: Findings
    budget: Budget
    passages: ParseCache = field(default_factory=ParseCache)
    subject: str = ""
    """The resource or group that problems name in addition to the place; empty for none."""

    def about(self, message: str) -> str:
        """Return a message that begins with the subject."""
        return f"{self.subject}: {message}" if self.subject else message


@final
class Field:
    """A value of a document with its path; the path is built only when a problem needs it."""

    __slots__ = ("_parent", "_path", "_step", "node", "reading")

    def __init__(
        self, node: Node, reading: Reading, parent: Field | None = None, step: str | int = 0
    ) -> None:
        """Wrap a value.

        Args:
            node: the value.
            reading: the reading of the file that contains it.
            parent: the list or mapping that contains it; None for the whole document.
            step: its index or name in the parent; for the whole document its line.
        """
        self.node = node
        self.reading = reading
        self._parent = parent
        self._step = step
        self._path: str | None = None

    @property
    def origin(self) -> Origin:
        """Return the file, line and path of the value."""
        return Origin(file=self.reading.file, line=self.line, path=self.path)

    @property
    def line(self) -> int:
        """Return the line of the value."""
        if isinstance(self.node, (Listing, Mapping)):
            return self.node.line
        match self._parent.node if self._parent else None, self._step:
            case (Listing() as listing, int(index)):
                return listing.line_of(index)
            case (Mapping() as mapping, str(name)):
                return mapping.line_of(name)
            case (None, int(line)):
                return line
            case _:
                raise AssertionError("a value stands in a list, in a mapping or alone")

    @property
    def path(self) -> str:
        """Return the path of the value, like ``security_groups[0].rules[2].port_range``."""
        if self._path is None:
            way = "" if self._parent is None else self._parent.path
            if self._parent is None:
                self._path = ""
            elif isinstance(self._step, int):
                self._path = f"{way}[{self._step}]"
            else:
                self._path = f"{way}.{self._step}" if way else self._step
        return self._path

    @property
    def written(self) -> str | None:
        """Return the source text of a scalar; None for a list or mapping."""
        match self.node:
            case str(text) | Scalar(text=text):
                return text
            case _:
                return None

    @property
    def is_null(self) -> bool:
        """Return whether the value is null."""
        return isinstance(self.node, Scalar) and self.node.kind is ScalarKind.NULL

    def child(self, step: str | int, node: Node) -> Field:
        """Return an item or member of this value."""
        return Field(node, self.reading, self, step)

    def belonging_to(self, subject: str) -> Field:
        """Return the value as part of a subject, which problems below it name."""
        return Field(self.node, replace(self.reading, subject=subject), self._parent, self._step)

    def error(self, code: str, message: str, remedy: str = "") -> None:
        """Add an error at this value; it refuses all documents."""
        self._note(Severity.ERROR, code, message, remedy)

    def warn(self, code: str, message: str, remedy: str = "") -> None:
        """Add a warning at this value; the agent still enforces it."""
        self._note(Severity.WARNING, code, message, remedy)

    def refuse_type(self, expected: str) -> None:
        """Add the error that the value has the wrong type."""
        remedy = f"{expected}, or leave the field out" if self.is_null else expected
        self.error("wrong_type", f"{kind_of(self.node)} where {expected} is expected", remedy)

    def text(self) -> str | None:
        """Return the text; None, with an error added, for any other type."""
        if isinstance(self.node, str):
            return self.node
        self.refuse_type("a text")
        return None

    def text_or_digits(self) -> str | None:
        """Return the text, or the digits of a whole number as written."""
        if isinstance(self.node, Scalar) and self.node.kind is ScalarKind.INTEGER:
            return self.node.text
        return self.text()

    def integer(self) -> int | None:
        """Return a whole number."""
        if not isinstance(self.node, Scalar) or self.node.kind is not ScalarKind.INTEGER:
            self.refuse_type("a whole number")
            return None
        if len(self.node.text) > _LONGEST_NUMBER:
            self.error("out_of_range", "a number far out of any range", "a smaller one")
            return None
        return int(self.node.text)

    def boolean(self) -> bool | None:
        """Return true or false."""
        if isinstance(self.node, Scalar) and self.node.kind is ScalarKind.BOOLEAN:
            return self.node.text.lower() == "true"
        self.refuse_type("true or false")
        return None

    def word(self, words: MappingOf[str, T]) -> T | None:
        """Return the value of a keyword, ignoring case; None, with an error added, for an unknown one."""
        text = self.text()
        if text is None:
            return None
        meaning = words.get(text.lower())
        if meaning is None:
            self.error("bad_value", "not one of the known words", "one of " + ", ".join(words))
        return meaning

    def nodes(self) -> Sequence[Node]:
        """Return the items of a list; nothing, with an error added, for any other type."""
        if isinstance(self.node, Listing):
            return self.node.items
        self.refuse_type("a list")
        return ()

    def items(self) -> Iterator[Field]:
        """Yield the items of a list; nothing, with an error added, for any other type."""
        for index, node in enumerate(self.nodes()):
            yield self.child(index, node)

    def recall(self, make: Callable[[Field], T]) -> T:
        """Return ``make`` of this value, from the parse cache if the file held the same text before.

        The cached text may have had another place. The result must depend on the value alone, and be frozen.
        """
        node, reading = self.node, self.reading
        if not isinstance(node, (Listing, Mapping)) or not node.written:
            return make(self)
        return reading.passages.recall(
            make, node.written, lambda: make(self), reading.findings, reading.budget
        )

    def recall_each(self, make: Callable[[Field], T], move: Callable[[T, Field], T]) -> list[T]:
        """Return ``make`` of each item of a list; nothing, with an error added, for any other type.

        Args:
            make: as for :meth:`recall`.
            move: returns a result with the place of an item; the identical object if it has that place.
        """
        nodes, passages = self.nodes(), self.reading.passages

        def made_at(index: int) -> T:
            item = self.child(index, nodes[index])
            recalled = item.recall(make)
            moved = move(recalled, item)
            if moved is not recalled and isinstance(item.node, (Listing, Mapping)):
                passages.replace(make, item.node.written, moved)
            return moved

        return passages.recall_each(make, self.path, nodes, made_at, self.reading.budget)

    def fields(self) -> Fields | None:
        """Return the fields of a mapping."""
        if isinstance(self.node, Mapping):
            return Fields(self, self.node.entries)
        self.refuse_type("a mapping")
        return None

    def count_rule(self) -> None:
        """Subtract one rule from the budget."""
        budget = self.reading.budget
        budget.rules += 1
        if budget.rules > budget.limits.rules:
            self._give_up("rules", budget.limits.rules)

    def count_address(self) -> None:
        """Subtract one address from the budget."""
        budget = self.reading.budget
        budget.addresses += 1
        if budget.addresses > budget.limits.addresses:
            self._give_up("addresses", budget.limits.addresses)

    def _give_up(self, what: str, limit: int) -> None:
        """Add the error of an exceeded limit and stop reading."""
        self.error(
            f"too_many_{what}", f"more than {limit} {what}", f"raise limits.{what} in the configuration"
        )
        raise OverBudgetError

    def _note(self, severity: Severity, code: str, message: str, remedy: str) -> None:
        """Add a problem, or only count it once the findings are full."""
        if self.reading.findings.is_full(severity):
            self.reading.findings.count(severity)
            return
        problem = Problem(
            severity=severity,
            code=code,
            origin=self.origin,
            message=self.reading.about(message),
            value=self.written,
            remedy=remedy,
        )
        self.reading.findings.add(problem)


class Fields:
    """The members of a mapping."""

    __slots__ = ("_entries", "field")

    def __init__(self, field: Field, entries: MappingOf[str, Node]) -> None:
        """Wrap a mapping."""
        self.field = field
        self._entries = entries

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Add an error for each unknown field, with the most similar known one (§8.1)."""
        findings = self.field.reading.findings
        for name, node in self._entries.items():
            if name not in known:
                remedy = "" if findings.is_full(Severity.ERROR) else _nearest(name, known)
                self.field.child(name, node).error("unknown_field", "unknown field", remedy)

    def names(self) -> Collection[str]:
        """Return the names of all fields."""
        return self._entries.keys()

    def get(self, name: str) -> Field | None:
        """Return a field; None if the mapping lacks it."""
        node = self._entries.get(name)
        return None if node is None else self.field.child(name, node)

    def filled(self, name: str) -> Field | None:
        """Return a field; None if it is missing, null or empty, which all mean unset in API answers."""
        node = self._entries.get(name)
        if not node or (isinstance(node, Scalar) and node.kind is ScalarKind.NULL):
            return None
        return self.field.child(name, node)

    def require(self, name: str) -> Field | None:
        """Return a required field; None, with an error added, if the mapping lacks it."""
        found = self.get(name)
        if found is None:
            self.refuse_missing(name)
        return found

    def refuse_missing(self, name: str, remedy: str = "add the field") -> None:
        """Add the error that a field is missing."""
        origin = self.field.origin.at(name)
        problem = Problem(
            severity=Severity.ERROR,
            code="missing_field",
            origin=origin,
            message=self.field.reading.about("missing"),
            remedy=remedy,
        )
        self.field.reading.findings.add(problem)

    def items(self, name: str) -> Iterator[Field]:
        """Yield the items of a list; nothing if the mapping lacks the field."""
        found = self.get(name)
        if found is not None:
            yield from found.items()


def _nearest(name: str, known: Collection[str]) -> str:
    """Return a hint with the most similar known name, or with all known names."""
    import difflib  # noqa: PLC0415 - saves every command the import; few documents have errors

    cut = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:_LONGEST_NAME]).lower()
    near = difflib.get_close_matches(cut, known, n=1)
    return f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)


class RefusedDocumentsError(DocumentError):
    """Documents with syntax or schema errors; semantic checks can still use the readable part."""

    def __init__(self, problems: Iterable[Problem], readable: Snapshot, *, has_left_out: bool) -> None:
        """Store the problems and the readable part.

        Args:
            problems: every problem found.
            readable: the objects without errors; the agent must not enforce them.
            has_left_out: whether ``readable`` lacks objects, so that valid references look dangling.
        """
        super().__init__(problems)
        self.readable = readable
        self.has_left_out = has_left_out
