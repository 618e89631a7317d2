"""``sgagent lint --sarif``: a log that code hosts read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel
from sarif_pydantic import Sarif

from sgagent.analysis.lint.findings import CODES, Finding, FindingSeverity
from sgagent.analysis.lint.registry import CHECKS
from sgagent.cli.lint import as_sarif
from sgagent.cli.main import main
from sgagent.core.errors import Origin
from tests.corpus import EXAMPLES

FINDING = Finding(
    code="redundant_rule",
    severity=FindingSeverity.NOTICE,
    message="it changes nothing",
    remedy="remove it",
    security_group_id="sg-web",
    rule_ids=("sgr-1",),
    origin=Origin(file="groups.d/web.yaml", line=7),
)


def logged(findings: list[Finding], root: Path = Path("/srv/policy")) -> Sarif:
    """Return a log as its model, which has no unknown field."""
    log = Sarif.model_validate_json(json.dumps(as_sarif(findings, CHECKS, root)))
    assert list(unknown_fields(log)) == []
    return log


def unknown_fields(model: BaseModel) -> Iterator[str]:
    """Yield the fields that the standard does not have."""
    yield from model.model_extra or ()
    for name in type(model).model_fields:
        value = getattr(model, name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                yield from unknown_fields(one)


@pytest.mark.parametrize(
    "code", ("deny_before_accepts", "redundant_rule", "unknown_object", "mixed_services")
)
def test_what_lint_finds_is_a_valid_log(
    code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a result for each finding, with text and line, named relative to the working directory."""
    folder = EXAMPLES / "lint" / code
    monkeypatch.chdir(folder)
    assert main(["lint", "--json", "bad.yaml"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert main(["lint", "--sarif", str(folder / "bad.yaml")]) == 0
    text = capsys.readouterr().out
    log = Sarif.model_validate_json(text)
    assert list(unknown_fields(log)) == []
    (run,) = log.runs
    assert [rule.id for rule in run.tool.driver.rules or ()] == list(CODES)
    results = run.results or []
    assert [result.rule_id for result in results] == [finding["code"] for finding in findings]
    for result, finding in zip(json.loads(text)["runs"][0]["results"], findings, strict=True):
        assert CODES[result["ruleIndex"]] == finding["code"]
        assert finding["message"] in result["message"]["text"]
        assert finding["remedy"] in result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] == "bad.yaml"
        assert location["physicalLocation"]["region"]["startLine"] == finding["line"]


@pytest.mark.parametrize(
    ("file", "uri"),
    (
        ("not\udcffutf8.yaml", "not%FFutf8.yaml"),
        ("groups.d/web.yaml", "groups.d/web.yaml"),
        ("/srv/policy/groups.d/web.yaml", "groups.d/web.yaml"),
        ("/etc/sgagent/a b.yaml", "file:///etc/sgagent/a%20b.yaml"),
        ("a b#c.yaml", "a%20b%23c.yaml"),
    ),
)
def test_files_are_named_by_uris(file: str, uri: str) -> None:
    """Relative where they are below the root, with unusual characters encoded."""
    log = as_sarif([replace(FINDING, origin=Origin(file=file, line=3))], CHECKS, Path("/srv/policy"))
    result = log["runs"][0]["results"][0]  # type: ignore[index]  # JSON
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_a_finding_without_a_place_has_no_location() -> None:
    """A line below 1 would be no line."""
    nowhere = replace(FINDING, origin=Origin(file="", line=0))
    unlined = replace(FINDING, origin=Origin(file="a.yaml", line=0))
    results = logged([nowhere, unlined]).runs[0].results or []
    assert results[0].locations is None
    assert results[1].locations is not None


def test_a_fingerprint_does_not_depend_on_the_line() -> None:
    """It tells findings apart all the same."""
    moved = replace(FINDING, origin=Origin(file="groups.d/web.yaml", line=70))
    other = replace(FINDING, rule_ids=("sgr-2",))
    prints = [
        json.dumps(result["partialFingerprints"])
        for result in as_sarif([FINDING, moved, other], CHECKS, Path("/"))["runs"][0]["results"]  # type: ignore[index]  # JSON
    ]
    assert prints[0] == prints[1] != prints[2]


def test_json_and_sarif_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """One output at a time."""
    assert main(["lint", "--json", "--sarif", str(EXAMPLES / "1-web" / "groups.d")]) == 2
    assert "not allowed with" in capsys.readouterr().err
