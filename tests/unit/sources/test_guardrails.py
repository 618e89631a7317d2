"""Guardrails are read from files, and need a signature of their own key where one is configured (§13.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings import SignatureSettings, parse_settings
from sgagent.signatures import Signed
from sgagent.sources.files.collector import signature_path
from sgagent.sources.guardrails import GuardrailFiles
from sgagent.sources.verified_parse import SignaturePolicy
from tests.signing import KEY, OTHER_KEY, signature_of

TEXT = "never: [{id: a, reason: r}]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of one statement."""
    path = tmp_path / "guardrails.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def signed_source(file: Path, enforced: Signed | None = None) -> GuardrailFiles:
    """Return a source that requires a signature by :data:`KEY`."""
    settings = SignatureSettings(public_keys=(KEY.public,))
    return GuardrailFiles(file, Limits(), SignaturePolicy(settings, lambda: enforced))


def code_of(source: GuardrailFiles) -> str:
    """Return why statements are refused."""
    with pytest.raises(DocumentError) as caught:
        source.fetch()
    return caught.value.problems[0].code


def test_what_has_not_changed_is_the_same(file: Path) -> None:
    """A step compares it by identity."""
    source = GuardrailFiles(file, Limits())
    first = source.fetch()
    assert [one.guardrail_id for one in first.guardrails] == ["a"]
    assert source.fetch() is first
    file.write_text(TEXT.replace("id: a", "id: b"), encoding="utf-8")
    assert [one.guardrail_id for one in source.fetch().guardrails] == ["b"]


def test_a_directory_is_all_its_files(file: Path) -> None:
    """Sorted by id; none is no file."""
    (file.parent / "more.yaml").write_text("guardrails: []", encoding="utf-8")
    assert len(GuardrailFiles(file.parent, Limits()).fetch().guardrails) == 1
    with pytest.raises(SourceUnavailableError):
        GuardrailFiles(file.parent / "missing", Limits()).fetch()


def test_a_signature_is_checked_before_anything_is_read(file: Path) -> None:
    """It has to be there, by the key, of these bytes, and no older one."""
    source = signed_source(file)
    assert code_of(source) == "signature_missing"
    contents = {file.name: file.read_bytes()}
    signature_path(file).write_bytes(signature_of(contents, OTHER_KEY))
    assert code_of(source) == "signature_unknown_key"
    signature_path(file).write_bytes(signature_of(contents, serial=3))
    read = source.fetch()
    assert read.signed is not None
    assert read.signed.serial == 3
    file.write_text("guardrails: []", encoding="utf-8")
    assert code_of(source) == "signature_mismatch"
    file.write_text(TEXT, encoding="utf-8")
    newer = Signed(serial=4, digest="", key_id=KEY.public.key_id, expires_at=None)
    assert code_of(signed_source(file, newer)) == "serial_older"


def test_the_configuration_says_where_they_are_and_whose(file: Path) -> None:
    """Without the table there are none; keys without a path are an error of the configuration."""
    assert GuardrailFiles.configured(parse_settings("", "x")) is None
    text = f'[guardrails]\npath = "{file}"\nkeys = ["{KEY.public}"]\n'
    source = GuardrailFiles.configured(parse_settings(text, "x"), lambda: None)
    assert source is not None
    assert code_of(source) == "signature_missing"
