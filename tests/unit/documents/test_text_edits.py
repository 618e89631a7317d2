"""Edits of the text of documents."""

from __future__ import annotations

import json

import pytest

from sgagent.documents.text_edits import Fields, NotEditableError, apply_replacements, replacements

TEXT = """\
# hé 😀
version: 1
security_groups:
  - security_group_id: sg-ä😀
    rules:   # rules
      # first
      - rule_id: a  # x
        policy: accept # p
        port_range:
          - 80/80   # http
      # second
      - {rule_id: b, policy: drop, priority: 2}   # bb
      - rule_id: c
        policy: accept
        description: |
          many
          lines

      # third
      - rule_id: d
        policy: drop
        description:
    tags: {a: b}
"""
JSON = '{"security_groups": [{"rules": [{"policy": "drop"},\n {"policy": "drop", "priority": 1}, {"a": 1}]}]}'


def edited(text: str, **edits: Fields | None) -> str:
    """Return a text with rules edited, named as r0, r1 and so on."""
    by_path = {f"security_groups[0].rules[{name[1:]}]": fields for name, fields in edits.items()}
    return apply_replacements(text, replacements(text, by_path))


@pytest.mark.parametrize(
    ("edits", "gone", "come"),
    (
        pytest.param({"r1": {"priority": 3}}, "priority: 2", "priority: 3", id="replaced"),
        pytest.param(
            {"r0": {"priority": 3}},
            "        policy: accept # p\n",
            "        policy: accept # p\n        priority: 3\n",
            id="added behind the policy",
        ),
        pytest.param(
            {"r0": {"port_range": ["1/2", "4/5"]}},
            "port_range:\n          - 80/80 ",
            'port_range: ["1/2", "4/5"] ',
            id="a list in block style",
        ),
        pytest.param(
            {"r1": None}, "      - {rule_id: b, policy: drop, priority: 2}   # bb\n", "", id="removed"
        ),
        pytest.param(
            {"r0": None},
            TEXT[TEXT.index("      - rule_id: a") : TEXT.index("      # second")],
            "",
            id="removed with the comments of its lines",
        ),
        pytest.param(
            {"r2": None},
            TEXT[TEXT.index("      - rule_id: c") : TEXT.index("\n      # third")],
            "",
            id="removed with a block scalar",
        ),
        pytest.param(
            {"r3": None},
            "      - rule_id: d\n        policy: drop\n        description:\n",
            "",
            id="removed last",
        ),
    ),
)
def test_only_what_is_edited_changes(edits: dict[str, Fields | None], gone: str, come: str) -> None:
    """Comments, blank lines and order stay, also behind characters beyond ASCII."""
    assert gone in TEXT
    assert edited(TEXT, **edits).replace("\n\n", "\n") == TEXT.replace(gone, come).replace("\n\n", "\n")


def test_a_list_without_rules_stays_a_list() -> None:
    """It would be no value at all without brackets."""
    text = edited(TEXT, r0=None, r1=None, r2=None, r3=None)
    assert "    rules: []   # rules\n" in text
    assert "rule_id" not in text


@pytest.mark.parametrize("gone", ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)))
def test_json_stays_json(gone: tuple[int, ...]) -> None:
    """Whichever items go, their commas go with them."""
    rules = json.loads(JSON)["security_groups"][0]["rules"]
    found = json.loads(edited(JSON, **{f"r{number}": None for number in gone}))
    assert found["security_groups"][0]["rules"] == [one for n, one in enumerate(rules) if n not in gone]


def test_a_field_of_json_is_quoted() -> None:
    """A new one as those beside it."""
    assert json.loads(edited(JSON, r0={"priority": 2}))["security_groups"][0]["rules"][0]["priority"] == 2


@pytest.mark.parametrize(
    ("text", "edits"),
    (
        ("security_groups: []", {"r0": None}),
        ("security_groups:\n- rules: [{a: 1}]", {"r1": None}),
        ("security_groups:\n- rules: [{a: 1}]", {"r0": {"priority": 1}}),
        ("security_groups: [{rules: [", {"r0": None}),
        ('security_groups: ["\u2028"]', {"r0": None}),
    ),
)
def test_what_can_not_be_edited(text: str, edits: dict[str, Fields | None]) -> None:
    """Nothing is guessed."""
    with pytest.raises(NotEditableError):
        edited(text, **edits)
