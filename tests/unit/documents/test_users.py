"""The field ``local`` of a rule (§13.3): its forms, errors, and what is derived from it."""

from __future__ import annotations

import pytest

from sgagent.core.conditions import LAST_USER, LocalUser
from sgagent.core.errors import DocumentError
from sgagent.core.model import Snapshot
from sgagent.documents.writer import as_json, write_document
from tests.unit.documents.reading import snapshot

RULE = """
version: 1
security_groups:
  - security_group_id: sg-1
    rules:
      - {{direction: {direction}, policy: accept, protocol: tcp, port_range: 22,
         authorization_object: any{local}}}
"""


def parse(local: str, direction: str = "egress") -> Snapshot:
    """Return a document with a rule that has such a field."""
    return snapshot(RULE.format(direction=direction, local=f", local: {local}" if local else ""))


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
    found = parse(written)
    assert found.security_groups[0].rules[0].conditions.local == user
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
    with pytest.raises(DocumentError) as caught:
        parse(written)
    assert [(one.code, said in str(one), ".local" in str(one)) for one in caught.value.problems] == [
        (code, True, True)
    ]


def test_an_ingress_rule_has_none() -> None:
    """No socket is known where packets come in."""
    with pytest.raises(DocumentError) as caught:
        parse("{user: deploy}", "ingress")
    assert [one.code for one in caught.value.problems] == ["local_inwards"]


def test_the_field_is_part_of_the_derived_id() -> None:
    """As it is written: an id as its number (§4.7)."""
    texts = ("", "{user: deploy}", "{user: root}", "{user: 0}", "{user: '0'}")
    ids = [parse(text).security_groups[0].rules[0].rule_id for text in texts]
    assert len({*ids}) == 4
    assert ids[3] == ids[4]
