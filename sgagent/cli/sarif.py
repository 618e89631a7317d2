"""Findings as SARIF 2.1.0 (OASIS), which code hosts show beside the lines of documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from sgagent import __version__
from sgagent.analysis.lint.findings import Check, Finding, FindingSeverity
from sgagent.core.errors import Origin

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {
    FindingSeverity.ERROR: "error",
    FindingSeverity.WARNING: "warning",
    FindingSeverity.NOTICE: "note",
}


def as_sarif(findings: Iterable[Finding], checks: Mapping[str, Check], root: Path) -> dict[str, object]:
    """Return a SARIF log of one run.

    Args:
        findings: the results.
        checks: all checks by code, which are the rules of the log.
        root: files below it are named relative to it, as code hosts want them.
    """
    numbers = {code: number for number, code in enumerate(checks)}
    driver = {
        "name": "sgagent",
        "version": __version__,
        "rules": [_rule(check) for check in checks.values()],
    }
    run = {
        "tool": {"driver": driver},
        "results": [_result(finding, numbers[finding.code], root) for finding in findings],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(check: Check) -> dict[str, object]:
    return {
        "id": check.code,
        "shortDescription": {"text": f"{check.summary[:1].upper()}{check.summary[1:]}."},
        "defaultConfiguration": {"level": _LEVELS[check.severity]},
    }


def _result(finding: Finding, number: int, root: Path) -> dict[str, object]:
    where = f" on {', '.join(finding.interfaces)}" if finding.interfaces else ""
    result: dict[str, object] = {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.subject}{where}: {finding.message}. Remedy: {finding.remedy}."},
        "partialFingerprints": {"finding/v1": _fingerprint(finding)},
    }
    if finding.origin.file:
        result["locations"] = [_location(finding.origin, root)]
    return result


def _location(origin: Origin, root: Path) -> dict[str, object]:
    path = Path(origin.file)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    physical: dict[str, object] = {"artifactLocation": {"uri": uri}}
    if origin.line:
        physical["region"] = {"startLine": origin.line}
    return {"physicalLocation": physical}


def _fingerprint(finding: Finding) -> str:
    """Return what is the same for the same finding, whatever its line."""
    parts = (
        finding.code,
        finding.security_group_id or "",
        *finding.rule_ids,
        finding.object_id or "",
        *finding.interfaces,
    )
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
