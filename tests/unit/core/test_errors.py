"""Problems are said so that a person can mend them, and so that no document can drive a terminal."""

from __future__ import annotations

import pytest

from sgagent.core.errors import (
    NOWHERE,
    DocumentError,
    KernelRefusedError,
    Origin,
    Problem,
    Severity,
    SgagentError,
    printable,
    shown,
)

ORIGIN = Origin(file="web.yaml", line=7, path="security_groups[0]")


def problem(**fields: str | None) -> Problem:
    """Return an error with these fields beside what every problem has."""
    return Problem(severity=Severity.ERROR, code="bad", origin=ORIGIN, message="not a port", **fields)  # type: ignore[arg-type]  # fields are texts


@pytest.mark.parametrize(
    ("origin", "text"),
    (
        (ORIGIN, "web.yaml:7: security_groups[0]"),
        (Origin(file="web.yaml"), "web.yaml"),
        (Origin(file="web.json", path="a"), "web.json: a"),
        (NOWHERE, "<unknown>"),
    ),
)
def test_an_origin_is_file_line_and_path(origin: Origin, text: str) -> None:
    """What is not known is left out."""
    assert str(origin) == text


@pytest.mark.parametrize(
    ("above", "below", "joined"),
    (("", "a", "a"), ("a", "b", "a.b"), ("a", "[0]", "a[0]"), ("", "[0]", "[0]")),
)
def test_a_field_below(above: str, below: str, joined: str) -> None:
    """The path of a field below goes on behind a dot, that of an item in brackets; file and line stay."""
    found = Origin(file="f", line=3, path=above).at(below)
    assert (found.file, found.line, found.path) == ("f", 3, joined)


def test_a_problem_is_one_line() -> None:
    """Severity, place, what is wrong, the value, what would be right; what is missing is left out."""
    place = "error: web.yaml:7: security_groups[0]: not a port"
    assert str(problem()) == place
    assert str(problem(value="70000")) == f"{place}: '70000'"
    assert str(problem(value="70000", remedy="1 to 65535")) == f"{place}: '70000' (1 to 65535)"


def test_hostile_values_are_shown_harmless() -> None:
    """Control characters are escaped, and what is long is cut."""
    text = str(problem(value="\x1b[2Jgone\n" + "a" * 500, remedy="\x07"))
    assert text.isprintable()
    assert "…" in text
    assert len(text) < 250
    assert shown("a" * 80) == repr("a" * 80)
    assert printable("ä\tb\x9b") == "ä\\tb\\x9b"


def test_a_document_error_carries_every_problem() -> None:
    """Warnings too, one line each."""
    found = DocumentError([problem(), problem(value="1")])
    assert len(found.problems) == 2
    assert str(found) == "\n".join(map(str, found.problems))
    assert isinstance(found, SgagentError)


def test_a_refusal_names_the_object() -> None:
    """Where it could be found out."""
    assert str(KernelRefusedError("File exists", "chain a")) == "chain a: File exists"
    assert str(KernelRefusedError("File exists")) == "File exists"
