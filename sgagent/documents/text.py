"""Decoding of a file's bytes into a syntax tree: JSON or YAML in UTF-8, within the limits."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.documents.characters import refuse_bidirectional
from sgagent.documents.field import Field, Reading
from sgagent.documents.json_text import parse_json
from sgagent.documents.tree import MalformedError, TreeBuilder


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file as a source read it."""

    name: str
    """As the user should see it in messages."""

    content: bytes


def read_tree(file: DocumentFile, reading: Reading) -> Field | None:
    """Return the document of a file; None, with errors added, if it can't be parsed."""
    try:
        builder = _build(_decode(file.content, reading), file.name, reading)
    except MalformedError as error:
        _note(reading, error)
        return None
    for duplicate in builder.duplicates:
        _note_duplicate_key(reading, duplicate.path, duplicate.line)
    if builder.root is None:
        _note(reading, MalformedError("empty_document", "nothing in the file", 0, remedy="version: 1"))
        return None
    return Field(builder.root, reading, step=builder.root_line)


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
    """Return what the text holds.

    A name in ``.json`` says JSON. Anything else that begins as JSON does is read as JSON if it is, since
    YAML would read some of its texts otherwise; else as YAML.
    """
    limits, passages = reading.budget.limits, reading.passages
    if is_json_name(name) or text.lstrip()[:1] in ("{", "["):
        builder = TreeBuilder(limits)
        try:
            passages.rows = parse_json(text, builder, earlier=passages.earlier_rows)
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
    problem = Problem(
        severity=Severity.ERROR,
        code=error.code,
        origin=Origin(file=reading.file, line=error.line),
        message=error.message,
        value=error.value,
        remedy=error.remedy,
    )
    reading.findings.add(problem)


def _note_duplicate_key(reading: Reading, path: str, line: int) -> None:
    """Add the error that a mapping has a duplicate name."""
    problem = Problem(
        severity=Severity.ERROR,
        code="duplicate_key",
        origin=Origin(file=reading.file, line=line, path=path),
        message="duplicate name in one mapping",
        value=path.rpartition(".")[2],
        remedy="one of the two",
    )
    reading.findings.add(problem)
