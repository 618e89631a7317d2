"""What lint would edit changes no verdict at other times either, nor by other answers of the DNS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sgagent.analysis.lint.edits import RuleEdit
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import make_subject
from sgagent.core.conditions import Conditions
from sgagent.core.hours import Hours
from sgagent.core.model import TCP, NameReference, SecurityGroupRule
from sgagent.core.resolve import Exemptions
from tests.words import ACCEPT, DROP, group, rule, snapshot

AT = datetime(2026, 1, 1, tzinfo=UTC)


def harmless_edits(*rules: SecurityGroupRule) -> set[RuleEdit]:
    """Return the edits of which lint says that they change no verdict."""
    found = lint(make_subject(snapshot(group("sg-a", *rules, inner=DROP)), Exemptions(), at=AT))
    return {edit for one in found if one.fix and not one.fix.changes_verdicts for edit in one.fix.edits}


def ending(rules: Iterable[SecurityGroupRule]) -> list[SecurityGroupRule]:
    """Return rules that end day after day."""
    return [replace(one, expires=AT + timedelta(days=day)) for day, one in enumerate(rules, 1)]


@pytest.mark.parametrize("others", (0, 20))
def test_ties_are_set_apart_only_if_that_changes_nothing_later(others: int) -> None:
    """A rule that ends hides what moving the accept behind a drop would shut; also beside many others."""
    rules = [
        *ending([rule("hides", ACCEPT, TCP, "81", "10.0.0.0/24", priority=1)]),
        *ending(rule(f"r-{n}", ACCEPT, TCP, "22", f"192.0.2.{n}", priority=1) for n in range(others)),
        rule("before", ACCEPT, TCP, "80", "10.0.0.64/27", priority=9),
        rule("accept", ACCEPT, TCP, "80-81", "10.0.0.0/25", priority=10),
        rule("drop", DROP, TCP, "80", "10.0.0.64/26", priority=10),
        rule("behind", DROP, TCP, "81", "10.0.0.0/24", priority=11),
    ]
    assert harmless_edits(*rules) == set()


@pytest.mark.parametrize(("zone", "is_needless"), (("UTC", True), ("Europe/Berlin", False)))
def test_hours_of_two_zones_hold_together_in_winter_alone(zone: str, *, is_needless: bool) -> None:
    """A rule whose hours lie in those of another one by a clock of another zone may not half a year later."""
    offset = 0 if is_needless else 60
    narrow, wide = (
        replace(one, conditions=Conditions(active=Hours(begins=begins, ends=ends, zone=ZoneInfo(name))))
        for one, begins, ends, name in (
            (rule("narrow", ACCEPT, TCP, "80", "10.0.0.1"), 0, 23 * 60, "UTC"),
            (rule("wide", ACCEPT, TCP, "80", "10.0.0.0/24"), offset, 23 * 60 + offset, zone),
        )
    )
    gone = {RuleEdit(security_group_id="sg-a", rule_id="narrow")}
    assert harmless_edits(narrow, wide) == (gone if is_needless else set())


@pytest.mark.parametrize(
    ("priority", "port", "stays"), ((5, "443", True), (5, "80", False), (1, "443", False))
)
def test_a_drop_before_a_name_stays(priority: int, port: str, *, stays: bool) -> None:
    """The default would drop as well, until the DNS gives the name one of its addresses."""
    drop = rule("drop", DROP, TCP, "443", "192.0.2.0/24", priority=2)
    name = replace(
        rule("name", ACCEPT, TCP, port, "0.0.0.0/0", priority=priority),
        authorization_objects=(NameReference("www.example.org"),),
    )
    gone = {RuleEdit(security_group_id="sg-a", rule_id="drop")}
    assert harmless_edits(drop, name) == (set() if stays else gone)


def test_a_tie_is_not_set_apart_past_a_name() -> None:
    """A drop that gets before an accept of a name shuts the addresses that the DNS may give it later."""
    rules = [
        rule("accept", ACCEPT, TCP, "80-81", "10.0.0.0/24", priority=10),
        rule("drop", DROP, TCP, "80", "10.0.0.64/26", priority=10),
        rule("behind", DROP, TCP, "81", "10.0.0.0/24", priority=11),
        rule("name", ACCEPT, TCP, "80", "0.0.0.0/0", priority=9),
    ]
    apart = {RuleEdit(security_group_id="sg-a", rule_id="drop", priority=9)}
    assert harmless_edits(*rules[:-1]) == apart
    rules[-1] = replace(rules[-1], authorization_objects=(NameReference("www.example.org"),))
    assert harmless_edits(*rules) == set()


def test_what_sets_a_tie_apart_changes_nothing_later_beside_other_edits() -> None:
    """The accept may get behind a drop of other hours only while a rule stays that lint takes out."""
    hours = Hours(begins=60, ends=120, zone=ZoneInfo("UTC"))
    rules = [
        rule("needless", ACCEPT, TCP, "81", "10.0.0.0/24", priority=1),
        rule("accept", ACCEPT, TCP, "80-81", "10.0.0.0/24", priority=10),
        rule("drop", DROP, TCP, "80", "10.0.0.64/26", priority=10),
        replace(
            rule("behind", DROP, TCP, "81", "10.0.0.0/16", priority=11), conditions=Conditions(active=hours)
        ),
        rule("wide", ACCEPT, TCP, "81", "10.0.0.0/16", priority=12),
    ]
    gone = RuleEdit(security_group_id="sg-a", rule_id="needless")
    apart = RuleEdit(security_group_id="sg-a", rule_id="drop", priority=9)
    assert harmless_edits(*rules) == {gone, apart}
