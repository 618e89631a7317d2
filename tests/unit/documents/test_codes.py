"""The codes of problems."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NOTED = re.compile(
    r'(?:\.(?:error|warn)|MalformedError|invalid|Fault)\(\s*"([a-z_0-9]+)"|(?:code=|_FIELD = )"([a-z_0-9]+)"'
)


def test_every_code_is_documented() -> None:
    """People script against the codes, so docs/documents.md names each of them."""
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "sgagent/documents").glob("*.py"))
    codes = {first or second for first, second in NOTED.findall(texts)}
    documented = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs/documents.md").read_text(encoding="utf-8")))
    assert "unknown_field" in codes
    assert codes <= documented


PLACES = ("core", "documents", "importers", "policy_test", "settings", "signatures.py", "sources")
REMEDY_AT = {"error": 2, "warn": 2, "invalid": 2, "Fault": 2, "MalformedError": 4, "Problem": 7}
"""What makes a problem, and the place of its remedy among the arguments."""


def test_every_problem_says_what_to_do() -> None:
    """Each place that makes a problem gives it a remedy; what only counts others needs none."""
    calls = {
        f"{path.relative_to(ROOT)}:{call.lineno}": call
        for place in PLACES
        for path in ([ROOT / "sgagent" / place] if "." in place else (ROOT / "sgagent" / place).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and makes_problem(call)
    }
    assert len(calls) > 100
    assert [place for place, call in calls.items() if not has_remedy(call)] == []


def name_of(call: ast.Call) -> str:
    """Return the name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def makes_problem(call: ast.Call) -> bool:
    """Return whether a call makes a problem with a code; the log's methods have an event first."""
    codes = [value.value for value in call.args[:1] if isinstance(value, ast.Constant)]
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    is_count = keywords.get("code") == "'more_problems'"
    is_event = isinstance(call.func, ast.Attribute) and "log" in ast.unparse(call.func.value)
    return (
        name_of(call) in REMEDY_AT and not is_count and not is_event and (bool(codes) or "code" in keywords)
    )


def has_remedy(call: ast.Call) -> bool:
    """Return whether a call has an argument for the remedy, which is not empty."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "remedy"]
    given = [*named, *call.args[REMEDY_AT[name_of(call)] :]]
    is_spread = any(isinstance(one, ast.Starred) for one in call.args)
    return is_spread or any(not (isinstance(one, ast.Constant) and not one.value) for one in given)
