"""The field ``local`` of a rule (§13.3): its forms, errors, and what is derived from it."""

from __future__ import annotations

import pytest

from sgagent.core.conditions import LAST_USER, LocalUser
from sgagent.documents.writer import as_json, write_document
from tests.unit.documents.reading import codes, refused, rule_text, snapshot, the_rule


def for_local(local: str, direction: str = "egress") -> str:
    """Return a document with a rule that has such a field."""
    return rule_text(f"local: {local}", direction)


@pytest.mark.parametrize(
    ("written", "user"),
    (
        ("{user: deploy}", LocalUser(name="deploy")),
        ("{user: svc-web.1$}", LocalUser(name="svc-web.1$")),
        ("{user: 0}", LocalUser(name="0", number=0)),
        ("{user: '1000'}", LocalUser(name="1000", number=1000)),
        (f"{{user: {LAST_USER}}}", LocalUser(name=str(LAST_USER), number=LAST_USER)),
    ),
)
def test_forms(written: str, user: LocalUser) -> None:
    """A name, or an id; written anew they are the same."""
    found = snapshot(for_local(written))
    assert the_rule(found).conditions.local == user
    assert snapshot(as_json(write_document(found)), name="a.json") == found


@pytest.mark.parametrize(
    ("written", "code", "said"),
    (
        ("deploy", "wrong_type", "expected"),
        ("{}", "missing_field", "missing"),
        ("{user: }", "wrong_type", "expected"),
        ("{user: [deploy]}", "wrong_type", "expected"),
        ("{user: -1}", "bad_local", "not a user"),
        (f"{{user: {LAST_USER + 1}}}", "bad_local", "not a user"),
        (f"{{user: {'9' * 5000}}}", "bad_local", "not a user"),
        ("{user: 'a b'}", "bad_local", "not a user"),
        ('{user: "a\\nb"}', "bad_local", "not a user"),
        ("{user: deploy, group: www}", "unknown_field", "unknown field"),
        ("{unit: nginx}", "bad_local", "not a unit"),
        ("{unit: ../nginx.service}", "bad_local", "not a unit"),
        ("{user: www, unit: nginx.service}", "bad_local", "user: NAME"),
    ),
)
def test_what_is_wrong_is_said(written: str, code: str, said: str) -> None:
    """With the place of the field, and once."""
    (problem,) = refused(for_local(written))
    assert (problem.code, said in str(problem), ".local" in str(problem)) == (code, True, True)


def test_an_ingress_rule_has_none() -> None:
    """No socket is known where packets come in."""
    assert codes(refused(for_local("{user: deploy}", "ingress"))) == ["local_inwards"]
