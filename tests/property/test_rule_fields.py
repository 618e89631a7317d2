"""A field of a rule is declared, read and written; who compares, names and shows rules knows it by that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sgagent.analysis.definition_diff import Edit, edits
from sgagent.cli.main import main
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.model import SecurityGroupRule, Snapshot
from sgagent.core.policy import ResolvedDirection
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents.native import RuleModel, json_schema
from sgagent.documents.writer import write_rule
from tests.patched_tree import copy_patched, run_tests
from tests.unit.documents.reading import rule_document, snapshot, the_rule

THEN = datetime(2025, 11, 29, 12, tzinfo=UTC)
"""When a rule with any of the values below exists: a Saturday."""

PATCH = {
    "sgagent/core/conditions.py": (
        (
            "    active: Hours | None = None\n",
            "    begins: datetime | None = None\n    active: Hours | None = None\n",
        ),
        ("return self.active is not None\n", "return self.active is not None or self.begins is not None\n"),
        (
            "return self.active is None or time",
            """return (not self.begins or not time or self.begins <= time) and self._are_in_hours(time)

    def _are_in_hours(self, time: datetime | None) -> bool:
        return self.active is None or time""",
        ),
        ("_in_words(active=self.active)", "_in_words(begins=self.begins, active=self.active)"),
    ),
    "sgagent/documents/native.py": (
        (
            "    active: Annotated[Hours,",
            """    begins: Annotated[datetime, FieldType(values.parse_instant, ref("instant"))] | None = None
    'From when on the rule exists. Missing: always.'

    active: Annotated[Hours,""",
        ),
        ("Conditions(active=model.active,", "Conditions(begins=model.begins, active=model.active,"),
    ),
    "sgagent/documents/writer.py": (
        ("EVERYTHING, end_text\n", "EVERYTHING, end_text, instant_text\n"),
        (
            '        "active": None',
            """        "begins": conditions.begins and instant_text(conditions.begins),
        "active": None""",
        ),
    ),
}
"""What gives rules a field from when on they exist."""

MOST_FILES = 4

NEW = "begins"
OPTIONAL: Mapping[str, object] = {
    **({NEW: "2025-01-01T00:00:00Z"} if NEW in RuleModel.names() else {}),
    "source_port_range": "1024/65535",
    "local_address": "192.0.2.1",
    "expires": "2026-01-01T00:00:00Z",
    "active": {"zone": "UTC", "days": "sat-sun", "from": "00:00", "to": "24:00"},
    "limit_per_source": {"rate": "5/minute", "burst": 5},
    "local": {"user": 1000},
}
"""The fields that a rule may have, but for ids and words for people, with a value as it is written."""

WITHOUT = {NEW: "2024-11-30", "expires": "2026-01-03", "active": "2025-12-01"}
"""Days on which there is no such rule."""

optional = pytest.mark.parametrize("name", OPTIONAL)


def read(name: str | None = None) -> Snapshot:
    """Return a group with a rule that has one of the fields; None is a rule with none."""
    more = {name: OPTIONAL[name]} if name else {}
    return snapshot(rule_document(direction="egress", **more))


def ids(found: Snapshot) -> tuple[str, str]:
    """Return the version, and the id of the rule, which are both of the content."""
    return found.version, the_rule(found).rule_id


def side(found: Snapshot, at: datetime | None) -> ResolvedDirection:
    """Return what a link's egress is at a time."""
    binding = HandBinding(interface="eth0", security_group_ids=("sg-1",))
    bound = bind(found, (binding,), HostFacts(), automatically=False)
    (judge,) = resolve(found, bound, Exemptions(), at=at).policy.interfaces
    return judge.egress


def named(found: Snapshot) -> Snapshot:
    """Return it with an id of the rule that its content does not say."""
    (group,) = found.security_groups
    rules = tuple(replace(rule, rule_id="sgr-1") for rule in group.rules)
    return replace(found, security_groups=(replace(group, rules=rules),))


def values(rule: SecurityGroupRule) -> dict[str, object]:
    """Return what is compared of a rule."""
    return {field.name: getattr(rule, field.name) for field in fields(SecurityGroupRule) if field.compare}


def test_a_field_takes_few_files(tmp_path: Path) -> None:
    """In a copy of the tree where rules have one more, the tests below pass for it, too."""
    assert len(PATCH) <= MOST_FILES
    copy_patched(tmp_path, PATCH)
    printed = run_tests(tmp_path, "-k", f"[{NEW}]", "tests/property/test_rule_fields.py")
    assert "7 passed" in printed


def test_there_is_no_other_field() -> None:
    """The table above has a value of each field that a rule may have."""
    may_miss = set(RuleModel.fields()) - set(json_schema()["$defs"]["rule"]["required"])
    known = {"rule_id", "priority", "port_range", "port_list_id", "description", *OPTIONAL}
    assert may_miss == known


@optional
def test_it_is_written_as_it_is_read(name: str) -> None:
    """A rule that is written and read again is the same, and another than one without the field."""
    rule = the_rule(read(name))
    assert write_rule(rule)[name] == OPTIONAL[name]
    assert the_rule(snapshot(rule_document(**write_rule(rule)))) == rule
    assert rule != the_rule(read())


@optional
def test_digest_and_derived_id_are_of_it(name: str) -> None:
    """A rule with the field has another version and another derived id than one without."""
    assert not set(ids(read(name))) & set(ids(read()))


@optional
def test_a_difference_in_it_is_named(name: str) -> None:
    """The difference of two documents has the value before and after."""
    (edited,) = edits(named(read()), named(read(name)))
    assert (edited.edit, edited.name) == (Edit.CHANGED, "sg-1/sgr-1")
    (detail,) = edited.details
    assert " -> " in detail


@optional
def test_a_plan_names_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan has the name of the field among the differences of the rule."""
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text(f'[source]\npath = "{tmp_path}"\n[state]\ndirectory = "{tmp_path}"\n')
    for file, more in (("old", {}), ("new", {name: OPTIONAL[name]})):
        text = rule_document(rule_id="sgr-1", direction="egress", **more)
        (tmp_path / f"{file}.yaml").write_text(text)
    given = ("--config", configuration, "--interface", "eth0=sg-1", "--at", THEN.isoformat(), "--json")
    main(["plan", *map(str, given), "--against", f"{tmp_path}/old.yaml", f"{tmp_path}/new.yaml"])
    (rule,) = json.loads(capsys.readouterr().out)["rules"]
    assert name.removesuffix("_range").replace("_", " ") in rule["differences"][0].replace("_", " ")


@optional
def test_resolved_rules_have_it(name: str) -> None:
    """A resolved rule has the values of the document's rule."""
    rule, (resolved,) = the_rule(read(name)), side(read(name), None).rules
    assert values(rule) == values(resolved)


@pytest.mark.parametrize("name", [name for name in OPTIONAL if name in WITHOUT])
def test_time_says_whether_a_rule_exists(name: str) -> None:
    """A rule exists without a time, at one of its times, and not at others."""
    never = datetime.fromisoformat(f"{WITHOUT[name]}T12:00:00Z")
    assert [len(side(read(name), at).rules) for at in (None, THEN, never)] == [1, 1, 0]


@optional
def test_the_schema_says_what_it_is(name: str) -> None:
    """The schema describes the field, for editors."""
    assert json_schema()["$defs"]["rule"]["properties"][name]["description"]
