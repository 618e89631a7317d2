"""Parser of document files, native and API mixed, into one snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import Snapshot
from sgagent.documents.api_pages import ANSWER_FIELDS, settle_answers
from sgagent.documents.assembly import Collected, assemble
from sgagent.documents.field import Field, ParseCache, Reading
from sgagent.documents.json_text import parse_json
from sgagent.documents.problems import Budget, Findings, Limits, OverBudgetError
from sgagent.documents.scalars import refuse_bidirectional
from sgagent.documents.tree import Listing, MalformedError, Scalar, TreeBuilder
from sgagent.documents.values import canonical_name


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file as a source read it."""

    name: str
    """As the user should see it in messages."""

    content: bytes


class RefusedDocumentsError(DocumentError):
    """Documents with syntax or schema errors; semantic checks can still use the readable part."""

    def __init__(
        self,
        problems: Iterable[Problem],
        readable: Snapshot,
        documents: tuple[DocumentFile, ...],
        *,
        has_left_out: bool,
    ) -> None:
        """Store the problems and the readable part.

        Args:
            problems: every problem found.
            readable: the objects without errors; the agent must not enforce them.
            documents: what was read.
            has_left_out: whether ``readable`` lacks objects, so that valid references look dangling.
        """
        super().__init__(problems)
        self.readable = readable
        self.documents = documents
        self.has_left_out = has_left_out


_NO_GROUPS = "write version: 1, which defines no groups"


def read_tree(file: DocumentFile, reading: Reading, when_empty: str = _NO_GROUPS) -> Field | None:
    """Return the document of a file; None, with errors added, if it can't be parsed.

    Args:
        file: text of YAML or JSON.
        reading: takes the errors.
        when_empty: what to do where the file has no value.
    """
    try:
        builder = _build(_decode(file.content, reading), file.name, reading)
    except MalformedError as error:
        _note(reading, error)
        return None
    for duplicate in builder.duplicates:
        origin = Origin(file=reading.file, line=duplicate.line, path=duplicate.path)
        name, message = duplicate.path.rpartition(".")[2], "the field is given twice in one mapping"
        reading.findings.add(Problem.error(origin, "duplicate_key", name, message, "one of the two"))
    root = builder.root
    if root is None or (isinstance(root, Scalar) and not root.text):
        _note(reading, MalformedError("empty_document", "the file is empty", 0, remedy=when_empty))
        return None
    return Field(root, reading, step=builder.root_line)


def _decode(content: bytes, reading: Reading) -> str:
    """Return the text of a file, without a byte order mark."""
    limit = reading.budget.limits.document_bytes
    if len(content) > limit:
        raise MalformedError(
            "too_large", f"more than {limit} bytes", 0, remedy="split it, or raise limits.document_bytes"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedError("not_utf8", "not UTF-8", line, remedy="save the file as UTF-8") from error
    refuse_bidirectional(text)
    return text


def _build(text: str, name: str, reading: Reading) -> TreeBuilder:
    """Return the text's values.

    A name in ``.json`` says JSON. Anything else that begins as JSON does is read as JSON if it is, since
    YAML would read some of its texts otherwise; else as YAML.
    """
    limits = reading.budget.limits
    if is_json_name(name) or text.lstrip()[:1] in ("{", "["):
        builder = TreeBuilder(limits)
        try:
            parse_json(text, builder)
        except MalformedError as error:
            if is_json_name(name) or error.code != "syntax":
                raise
        else:
            return builder
    from sgagent.documents.yaml_text import parse_yaml  # noqa: PLC0415 - the library takes as long as small documents

    builder = TreeBuilder(limits)
    parse_yaml(text, builder)
    return builder


def is_json_name(name: str) -> bool:
    """Return whether the name of a file says that it is JSON."""
    return name.lower().endswith(".json")


def _note(reading: Reading, error: MalformedError) -> None:
    """Note why a file can't be read."""
    origin = Origin(file=reading.file, line=error.line)
    reading.findings.add(Problem.error(origin, error.code, error.value, error.message, error.remedy))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRead:
    """The parsed objects of a file, and the budget that reading it used."""

    content: bytes
    collected: Collected
    """Complete; later code must not change it."""

    warnings: tuple[Problem, ...] | None
    """Of this file; None if it has errors, or more problems than the findings list one by one."""

    rules: int
    addresses: int
    passages: ParseCache
    """Its parse cache, for the next version of the file."""

    def is_repeatable(self, file: DocumentFile, findings: Findings, budget: Budget) -> bool:
        """Return whether the file is unchanged and fits into the remaining limits."""
        return (
            self.content == file.content
            and budget.has_room_for(self.rules, self.addresses)
            and findings.has_room_for(len(self.warnings or ()), Severity.WARNING)
        )


def parse_documents(
    files: Sequence[DocumentFile],
    limits: Limits,
    version: str | None = None,
    memo: Memo | None = None,
) -> tuple[Snapshot, tuple[Problem, ...]]:
    """Return the snapshot of all files, and the warnings.

    An empty set of files, and an empty file, are errors: an emptied directory must not silently remove the
    policy. ``version: 1`` alone is a legal empty document.

    Args:
        files: all documents; their order decides only the order of problems.
        limits: the largest accepted documents.
        version: the source's version of this content; None derives it from the content.
        memo: of the files read before under the same limits; it never changes the result.

    Raises:
        DocumentError: at least one syntax or schema error (§8.1); it holds all errors and warnings.
    """
    memo = memo or Memo()
    memo.turn()
    findings = Findings(limits.problems)
    collected = Collected()
    if not files:
        origin, remedy = Origin(file="<documents>"), "write one; version: 1 alone defines no groups"
        findings.add(Problem.error(origin, "no_documents", None, "no document was found", remedy))
    budget = Budget(limits=limits)
    try:
        for file in sorted(files, key=lambda file: file.name):
            reading = partial(_read_again, file, findings, budget)
            collected.take(memo.part(Seam.PARSE_CACHE, file.name).update("file", reading).collected)
    except OverBudgetError:
        raise DocumentError(findings.all()) from None
    settle_answers(collected)
    snapshot = assemble(collected, findings, version, memo, limits.names)
    if findings.has_errors:
        has_left_out = collected.has_left_out or collected.has_answers
        problems = with_key_lines(findings.all(), files, limits)
        raise RefusedDocumentsError(problems, snapshot, tuple(files), has_left_out=has_left_out)
    return snapshot, findings.all()


def with_key_lines(
    problems: Iterable[Problem], files: Iterable[DocumentFile], limits: Limits
) -> tuple[Problem, ...]:
    """Return problems with the key that each is about, and its line.

    What is found after parsing has the line of the whole rule, the native name of a field, and no place in a
    list; so the file is parsed once more.
    """
    problems, by_name = tuple(problems), {file.name: file for file in files}
    known = frozenset(chain.from_iterable(map(_spellings, problems)))

    @cache
    def root(name: str) -> Field | None:
        file = by_name.get(name)
        budget = Budget(limits=limits)
        reading = Reading(file=name, findings=Findings(0), budget=budget)
        return None if file is None else read_tree(file, reading)

    @cache
    def found_at(name: str, path: str) -> dict[str | None, Field]:
        """Return the first value of each known spelling in a place, and under None the place itself."""
        document = root(name)
        if document is None:
            return {}
        place = document.at(*(int(index) if index else step for index, step in _STEP.findall(path)))
        found: dict[str | None, Field] = {None: place}
        for part in _parts(place):
            spelling = _spelling(part)
            if spelling in known:
                found.setdefault(spelling, part)
        return found

    def key(problem: Problem) -> Origin:
        found = found_at(problem.origin.file, problem.origin.path)
        return next(
            (found[one].origin for one in (*_spellings(problem), None) if one in found), problem.origin
        )

    return tuple(
        replace(problem, origin=key(problem))
        if problem.code in _FOUND_AFTER_PARSING and problem.origin.line
        else problem
        for problem in problems
    )


def _spellings(problem: Problem) -> tuple[str, ...]:
    """Return a document's spellings of a problem's value: also a group's id without its account."""
    value = problem.value or ""
    return tuple(filter(None, (value, value.rpartition("/")[2])))


def _parts(place: Field) -> Iterator[Field]:
    """Yield the values in a value, at any depth."""
    for part in place.parts():
        yield part
        yield from _parts(part)


def _spelling(place: Field) -> str | None:
    """Return a single value as problems show it, which have names in one spelling."""
    prefix, colon, name = (place.written or "").partition(":")
    return f"dns:{canonical_name(name)}" if colon and prefix.lower() == "dns" else place.written


_FOUND_AFTER_PARSING = frozenset(
    {
        "advanced_group_object",
        "bad_address",
        "dangling_attachment",
        "family_of_protocol",
        "group_object_in_advanced",
        "mixed_families",
        "other_vpc",
        "own_group",
        "too_many_names",
        "unknown_object",
        "unknown_object_in_drop",
        "unknown_object_of_ended",
        "unknown_unit",
        "unknown_unit_in_drop",
        "unknown_user",
        "unknown_user_in_drop",
        "unresolved_name",
    }
)
"""The codes of problems with a field that depend on other objects."""

_STEP = re.compile(r"\[([0-9]+)\]|([^.\[\]]+)")
"""An index or a name of a path."""


def parse_other_version(
    files: Sequence[DocumentFile],
    parsed: Sequence[DocumentFile],
    limits: Limits,
    version: str,
    memo: Memo,
) -> Snapshot:
    """Return the snapshot of other versions of documents that were parsed with the same memo.

    A passage that both versions have is parsed once, and both snapshots hold the same objects for its rules.
    So the origins in this snapshot may name a file of the other version.

    Args:
        files: the documents.
        parsed: the version of them that was parsed last.
        limits: what they may cost; the same as for that version.
        version: what the source calls the content of the files.
        memo: of the documents that were parsed.

    Raises:
        DocumentError: as :func:`parse_documents` does; it names the files by their own names.
    """
    paired = _named_as(files, parsed)
    try:
        return parse_documents(paired, limits, version, memo)[0]
    except DocumentError:
        if paired == files:
            raise
    return parse_documents(files, limits, version)[0]


def _named_as(files: Sequence[DocumentFile], others: Sequence[DocumentFile]) -> Sequence[DocumentFile]:
    """Return files under the names of their other versions; as they are where the names decide anything.

    A name decides whether a file is JSON, and names order the files.
    """
    by_own_name = {other.name: other.name for other in others}
    by_base_name = {_base_name(other.name): other.name for other in others}
    names = [by_own_name.get(one.name) or by_base_name.get(_base_name(one.name), one.name) for one in files]
    if len(files) == len(others) == 1:
        names = [others[0].name]
    renamed = [replace(file, name=name) for file, name in zip(files, names, strict=True)]
    in_order, in_new_order = (
        sorted(range(len(files)), key=lambda n: one[n].name) for one in (files, renamed)
    )
    are_json, are_still = ([is_json_name(file.name) for file in some] for some in (files, renamed))
    decides = in_order != in_new_order or len(set(names)) < len(names) or are_json != are_still
    return files if decides else renamed


def _base_name(name: str) -> str:
    return name.rpartition("/")[2]


def _read_again(file: DocumentFile, findings: Findings, budget: Budget, before: FileRead | None) -> FileRead:
    """Return the result for a file: the last one if its content has not changed.

    A file with errors is read again, which reports its errors in order with those of other files. The meaning
    of an API answer depends on other answers, so it is read again too.
    """
    if before is None or before.warnings is None or before.collected.has_answers:
        return _read_file(file, findings, budget, None)
    if not before.is_repeatable(file, findings, budget):
        return _read_file(file, findings, budget, before.passages)
    budget.use_up(before.rules, before.addresses)
    for problem in before.warnings:
        findings.add(problem)
    return before


def _read_file(file: DocumentFile, findings: Findings, budget: Budget, before: ParseCache | None) -> FileRead:
    """Parse a file; ``before`` is the parse cache of its previous content."""
    mark, rules, addresses = findings.mark(), budget.rules, budget.addresses
    collected, passages = Collected(), ParseCache(before)
    root = read_tree(file, Reading(file=file.name, findings=findings, budget=budget, passages=passages))
    if root is None:
        collected.has_left_out = collected.has_unread_file = True
    else:
        _read_document(root, collected)
    passages.end()
    return FileRead(
        content=file.content,
        collected=collected,
        warnings=findings.warnings_since(mark),
        rules=budget.rules - rules,
        addresses=budget.addresses - addresses,
        passages=passages,
    )


def _read_document(root: Field, collected: Collected) -> None:
    """Collect an API answer or a native document, or each of a list."""
    if isinstance(root.node, Listing) and not root.node.items:
        root.error("empty_document", "the document is an empty list", _NO_GROUPS)
    for document in root.items() if isinstance(root.node, Listing) else (root,):
        if "version" not in document.entries and document.entries.keys() & ANSWER_FIELDS:
            from sgagent.documents.api import read_answer  # noqa: PLC0415 - most documents are native

            read_answer(document, collected)
        else:
            from sgagent.documents.native import read_native  # noqa: PLC0415 - who reads none imports this module, too

            read_native(document, collected)
