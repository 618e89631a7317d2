"""The published schema."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgagent.documents.native import NativeModel, RuleModel, json_schema

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "docs" / "schema.json"
RULES = ROOT / "debian" / "rules"


def test_the_shipped_schema_is_the_generated_one() -> None:
    """docs/schema.json is what ``sgagent schema`` prints."""
    assert (
        SHIPPED.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    )


def test_the_schema_knows_every_field() -> None:
    """No field of the reader is missing, and unknown ones are refused as the reader does."""
    schema = json_schema()
    assert list(schema["properties"]) == list(NativeModel.fields())
    assert list(schema["$defs"]["rule"]["properties"]) == list(RuleModel.fields())
    objects = [schema, *(part for part in schema["$defs"].values() if part.get("type") == "object")]
    assert len(objects) == 11
    assert all(part["additionalProperties"] is False for part in objects)


@pytest.mark.parametrize(
    ("name", "field", "text"),
    (
        ("hours", "days", "Mon-FRI, sun"),
        ("limit", "rate", "10 / minute"),
        ("local", "user", "1000"),
        ("local", "user", "deploy"),
    ),
)
def test_the_schema_takes_texts_that_the_reader_takes(name: str, field: str, text: str) -> None:
    """Letter case of days, blanks in a rate, an id in quotes."""
    schema = json_schema()["$defs"][name]["properties"][field]
    patterns = [one["pattern"] for one in schema.get("anyOf", [schema]) if "pattern" in one]
    assert any(re.search(pattern, text) for pattern in patterns)


def test_the_schema_has_an_id() -> None:
    """Editors and validators cache a schema by its id, which names the version of the format."""
    assert json_schema()["$id"] == "urn:sgagent:definitions:1"


def test_the_package_holds_the_schema_uncompressed() -> None:
    """No editor reads a compressed schema, which the packaging tools make of every larger document."""
    assert "dh_compress --exclude=schema.json" in RULES.read_text(encoding="utf-8")


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    """A schema with a dangling reference is no use to an editor."""
    schema = json_schema()
    text = json.dumps(schema)
    names = {piece.split('"')[0] for piece in text.split("#/$defs/")[1:]}
    assert names == set(schema["$defs"])


def test_only_what_is_read_imports_its_models() -> None:
    """Only answers need the models of answers, and no document needs pydantic."""
    code = (
        "import sys, sgagent.documents as d;"
        " d.parse_documents([d.DocumentFile('a', b'version: 1')], d.Limits());"
        " found = ('sgagent.documents.native', 'sgagent.documents.api', 'pydantic');"
        " print(*(name in sys.modules for name in found))"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stdout.split() == ["True", "False", "False"]


def test_errors_are_found_after_the_program_was_replaced_on_disk(tmp_path: Path) -> None:
    """Descriptions come from the source, which an upgrade replaces while the old agent still runs."""
    shutil.copytree(ROOT / "sgagent", tmp_path / "sgagent", ignore=shutil.ignore_patterns("__pycache__"))
    code = """if True:
        import pathlib, sgagent.documents.native
        from sgagent.documents import DocumentFile, Limits, RefusedDocumentsError, models, parse_documents
        assert models.__file__.startswith(%r), models.__file__
        pathlib.Path(models.__file__).write_text("(\\n" * 1000)
        try:
            parse_documents([DocumentFile("a", b"version: 1\\nprefix_lists: [{entries: []}]")], Limits())
        except RefusedDocumentsError as error:
            print(len(error.problems))
    """
    ours = [sys.executable, "-c", code % str(tmp_path)]
    done = subprocess.run(ours, capture_output=True, text=True, check=True, cwd=tmp_path)  # noqa: S603 - as above
    assert done.stdout == "2\n"
