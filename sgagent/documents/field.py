"""Values of a document with their path, so that each problem names its file, line and path.

A passage is the source text of a list or mapping that contains no other. Its value depends only on its text,
except for its place. So after a change of a file, values are made only of the changed passages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping as MappingOf, Sequence
from dataclasses import dataclass, field, replace
from typing import Concatenate, ParamSpec, TypeVar, cast, final

from sgagent.core.errors import Origin, Problem, Severity, nearest
from sgagent.documents import scalars
from sgagent.documents.problems import Budget, Findings, OverBudgetError
from sgagent.documents.tree import Container, Listing, Mapping, Node, Scalar

T = TypeVar("T")
P = ParamSpec("P")

_LONGEST_NAME = 64
"""Characters of an unknown name that are compared with known names; bounds the work on hostile input."""


@dataclass(frozen=True, slots=True)
class ParsedPassage:
    """The value of a passage without problems, and the budget that it used."""

    value: object
    rules: int
    addresses: int


class ParseCache:
    """The cached passages of one file."""

    def __init__(self, before: ParseCache | None = None) -> None:
        """Start a reading; ``before`` is the cache of the previous one."""
        self._before = before.passages if before else {}
        self.passages: dict[tuple[Hashable, str], ParsedPassage] = {}
        """By what makes the value, and the passage."""

    def recall(
        self, place: Field, make: Callable[[Field], T], move: Callable[[T, Field], T] | None = None
    ) -> T:
        """Return ``make`` of a value, from the cache if the file held the same text before, at any place.

        A value with problems is not cached, because they name a place.

        Args:
            place: the value.
            make: parses it, adds problems and uses up the budget. The result must be frozen and depend on the
                value alone.
            move: returns a cached result with another place; the identical object if it has that place.
        """
        node, findings, budget = place.node, place.reading.findings, place.reading.budget
        if not isinstance(node, Container) or not node.written:
            return make(place)
        key = make, node.written
        found = self._before.get(key)
        if found is not None and budget.has_room_for(found.rules, found.addresses):
            budget.use_up(found.rules, found.addresses)
            value = move(cast("T", found.value), place) if move else cast("T", found.value)
            self.passages[key] = found if value is found.value else replace(found, value=value)
            return value
        mark, rules, addresses = findings.mark(), budget.rules, budget.addresses
        value = make(place)
        if findings.warnings_since(mark) == ():
            used = budget.rules - rules, budget.addresses - addresses
            self.passages[key] = ParsedPassage(value, *used)
        return value

    def end(self) -> None:
        """Drop the cache of the previous reading."""
        self._before = {}


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
        if isinstance(self.node, Container):
            return self.node.line
        if self._parent is None:
            return int(self._step)
        assert isinstance(self._parent.node, Container)  # noqa: S101 - nothing else holds values
        return self._parent.node.line_of(self._step)

    @property
    def path(self) -> str:
        """Return the path of the value, like ``security_groups[0].rules[2].port_range``."""
        if self._path is None:
            way = self._parent.path if self._parent else ""
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
    def entries(self) -> MappingOf[str, Node]:
        """Return the entries of a mapping; none of any other value."""
        return self.node.entries if isinstance(self.node, Mapping) else {}

    def id_in_file_name(self, prefix: str) -> str | None:
        """Return the id with a prefix in the file's name; None unless the value is the whole document."""
        found = re.search(f"{prefix}[A-Za-z0-9]+", self.reading.file.rpartition("/")[2])
        return found.group() if found and self._parent is None else None

    def child(self, step: str | int, node: Node) -> Field:
        """Return an item or member of this value."""
        return Field(node, self.reading, self, step)

    def at(self, *path: str | int) -> Field:
        """Return the value at a path below this one, or the last one on the path that there is."""
        found = self
        for step in path:
            match found.node, step:
                case Mapping(entries=entries), str(name) if name in entries:
                    found = found.child(name, entries[name])
                case Listing(items=items), int(index) if index < len(items):
                    found = found.child(index, items[index])
        return found

    def belonging_to(self, subject: str) -> Field:
        """Return the value as part of a subject, which problems below it name."""
        return self.of_reading(replace(self.reading, subject=subject))

    def of_reading(self, reading: Reading) -> Field:
        """Return the value as part of another reading of the file."""
        return Field(self.node, reading, self._parent, self._step)

    def error(self, code: str, message: str, remedy: str = "") -> None:
        """Add an error at this value; it refuses all documents."""
        self._note(Severity.ERROR, code, message, remedy)

    def warn(self, code: str, message: str, remedy: str = "") -> None:
        """Add a warning at this value; the agent still enforces it."""
        self._note(Severity.WARNING, code, message, remedy)

    def refuse(self, faults: Iterable[scalars.Fault]) -> None:
        """Add an error for each fault of the value."""
        for fault in faults:
            place = self.at(*fault.path)
            if fault.code == scalars.MISSING_FIELD:
                place.refuse_missing(str(fault.path[-1]), fault.remedy)
            else:
                place.error(fault.code, fault.message, fault.remedy)

    def refuse_name(self, name: str, known: Collection[str]) -> None:
        """Add the error that the field that holds the value is unknown, with the one that is meant (§8.1)."""
        is_listed = not self.reading.findings.is_full(Severity.ERROR)
        self.error(scalars.UNKNOWN_FIELD, "unknown field", nearest_name(name, known) if is_listed else "")

    def refuse_missing(self, name: str, remedy: str = "add the field") -> None:
        """Add the error that the mapping lacks a field."""
        origin, message = self.origin.at(name), self.reading.about("missing")
        self.reading.findings.add(Problem.error(origin, scalars.MISSING_FIELD, None, message, remedy))

    def read(self, parse: Callable[[Node], T]) -> T | None:
        """Return a parser's result for the value; None, with errors added, if it refuses the value."""
        try:
            return parse(self.node)
        except scalars.InvalidValueError as error:
            self.refuse(error.faults)
            return None

    def attempt(
        self, parse: Callable[Concatenate[Field, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """Do as :meth:`read` with a parser that needs the place of the value."""
        try:
            return parse(self, *args, **kwargs)
        except scalars.InvalidValueError as error:
            self.refuse(error.faults)
            return None

    def text(self) -> str | None:
        """Return the text; None, with an error added, for any other type."""
        return self.read(scalars.parse_text)

    def nodes(self) -> Sequence[Node]:
        """Return the items of a list; nothing, with an error added, for any other type."""
        listing = self.read(scalars.parse_list)
        return listing.items if listing else ()

    def items(self) -> Iterator[Field]:
        """Yield the items of a list; nothing, with an error added, for any other type."""
        for index, node in enumerate(self.nodes()):
            yield self.child(index, node)

    def parts(self) -> Iterator[Field]:
        """Yield the items of a list, or the members of a mapping."""
        steps = self.entries or (range(len(self.node.items)) if isinstance(self.node, Listing) else ())
        return (self.at(step) for step in steps)

    def recall(self, make: Callable[[Field], T], move: Callable[[T, Field], T] | None = None) -> T:
        """Return ``make`` of this value, as :meth:`ParseCache.recall` does."""
        return self.reading.passages.recall(self, make, move)

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
        remedy = f"raise limits.{what} in the configuration"
        self.error(f"too_many_{what}", f"more than {limit} {what}", remedy)
        raise OverBudgetError

    def _note(self, severity: Severity, code: str, message: str, remedy: str) -> None:
        """Add a problem, or only count it once the findings are full."""
        findings, message = self.reading.findings, self.reading.about(message)
        if findings.is_full(severity):
            findings.count(severity)
            return
        problem = Problem.error(self.origin, code, self.written, message, remedy)
        findings.add(problem if severity is Severity.ERROR else problem.as_warning())


_OTHER_WORDS = {
    "action": ("policy",),
    "allow": ("policy",),
    "cidr": ("authorization_object",),
    "cidr_blocks": ("authorization_object",),
    "comment": ("description",),
    "dest_cidr_ip": ("authorization_object", "local_address"),
    "destination": ("authorization_object", "local_address"),
    "dport": ("port_range", "ports"),
    "from": ("authorization_object",),
    "id": ("security_group_id", "rule_id", "prefix_list_id", "port_list_id", "network_interface_id"),
    "authorization_object": ("from", "to"),
    "permission": ("rules",),
    "permissions": ("rules",),
    "permit": ("policy",),
    "port": ("port_range", "ports"),
    "port_range": ("ports",),
    "ports": ("port_range",),
    "remote": ("authorization_object",),
    "security_group_rule_id": ("rule_id",),
    "source": ("authorization_object",),
    "source_cidr_ip": ("authorization_object",),
    "source_group_id": ("authorization_object",),
    "source_ip": ("authorization_object",),
    "source_prefix_list_id": ("authorization_object",),
    "source_port": ("source_port_range",),
    "sport": ("source_port_range",),
    "to": ("authorization_object",),
    "verdict": ("policy",),
}
"""Fields that other firewalls call by the name; their letters would hint at other ones."""


_API_RULES = "the API's rules, below Permissions; documents of sgagent have them in security_groups[].rules"
_OTHER_FORMATS = {
    "api_version": "a field of Kubernetes objects; documents of sgagent begin with version: 1",
    "permission": _API_RULES,
    "permissions": _API_RULES,
}
"""Fields of other formats' documents."""


def nearest_name(name: str, known: Collection[str]) -> str:
    """Return a hint with the known name that was probably meant, or with all known names."""
    cut = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:_LONGEST_NAME]).lower()
    if cut in _OTHER_FORMATS and "security_groups" in known:
        return _OTHER_FORMATS[cut]
    meant = [other for other in _OTHER_WORDS.get(cut, ()) if other in known]
    near = meant or nearest(cut, known)
    return f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
