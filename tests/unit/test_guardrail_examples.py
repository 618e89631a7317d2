"""The guide's advice as guardrails: each has a policy that keeps it, and one that breaks just it (§13.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.analysis.guardrails import with_violations
from sgagent.core.binding import bind_everywhere
from sgagent.core.guardrails import Violation
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.guardrails import parse_guardrails

EXAMPLES = Path(__file__).parents[2] / "examples" / "guardrails"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def violations(name: str, policy: str) -> tuple[Violation, ...]:
    """Return what a policy of an example breaks."""
    file, rails = (EXAMPLES / name / one for one in (policy, "guardrails.yaml"))
    snapshot, warnings = parse_documents([DocumentFile(str(file), file.read_bytes())], Limits())
    statements, others = parse_guardrails([DocumentFile(str(rails), rails.read_bytes())], Limits())
    assert not (*warnings, *others)
    resolution = resolve(snapshot, bind_everywhere(snapshot), Exemptions())
    assert not resolution.problems
    return with_violations(resolution, statements, snapshot).violations


def test_there_is_some_advice() -> None:
    """No management port and no database from everywhere, and listed ways out."""
    assert len(NAMES) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_one_policy_keeps_it(name: str) -> None:
    """It does something all the same."""
    assert violations(name, "kept.yaml") == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_other_policy_breaks_it(name: str) -> None:
    """The statement has the name of its directory."""
    (found,) = violations(name, "broken.yaml")
    assert found.guardrail.guardrail_id == name
