"""Parse single documents and say what was wrong with them, briefly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import dedent

import pytest

from sgagent.core.errors import DocumentError, Problem
from sgagent.core.model import SecurityGroup, SecurityGroupRule, Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents

RULE: dict[str, object] = {
    "direction": "ingress",
    "policy": "accept",
    "protocol": "tcp",
    "port_range": "80/80",
    "authorization_object": "192.0.2.0/24",
}


def parse(
    *texts: str | bytes, name: str = "a.yaml", limits: Limits | None = None
) -> tuple[Snapshot, Sequence[Problem]]:
    """Return the snapshot that texts make together, and the warnings."""
    contents = [dedent(text).encode() if isinstance(text, str) else text for text in texts]
    files = [DocumentFile(name if at == 0 else f"{at}-{name}", text) for at, text in enumerate(contents)]
    return parse_documents(files, limits or Limits())


def snapshot(*texts: str | bytes, name: str = "a.yaml") -> Snapshot:
    """Return the snapshot of texts without warnings."""
    found, warnings = parse(*texts, name=name)
    assert warnings == ()
    return found


def refused(*texts: str | bytes, name: str = "a.yaml", limits: Limits | None = None) -> tuple[Problem, ...]:
    """Return all problems of texts that must be refused."""
    with pytest.raises(DocumentError) as caught:
        parse(*texts, name=name, limits=limits)
    return caught.value.problems


def codes(problems: Sequence[Problem]) -> list[str]:
    """Return the codes of problems in their order."""
    return [problem.code for problem in problems]


def document(**fields: object) -> str:
    """Return a native document as JSON, which is YAML too."""
    return json.dumps({"version": 1, **fields}, indent=1)


def rule_document(**fields: object) -> str:
    """Return a document of one rule that differs from :data:`RULE`; None takes a field away."""
    rule = {name: value for name, value in {**RULE, **fields}.items() if value is not None}
    return document(security_groups=[{"security_group_id": "sg-1", "rules": [rule]}])


def rule_text(more: str, direction: str = "ingress", policy: str = "accept") -> str:
    """Return a document of one rule, with more fields as YAML."""
    return (
        "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    rules:\n"
        f"      - {{direction: {direction}, policy: {policy}, protocol: tcp, port_range: 22,"
        f" authorization_object: any, {more}}}\n"
    )


def the_group(found: Snapshot) -> SecurityGroup:
    """Return the only group."""
    (group,) = found.security_groups
    return group


def the_rule(found: Snapshot) -> SecurityGroupRule:
    """Return the only rule of the only group."""
    (rule,) = the_group(found).rules
    return rule
