"""Rules for units of a host: what they match, what is explained, and what a start takes away (§13.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.analysis.compare import compare_judges
from sgagent.analysis.flow_text import units_text
from sgagent.analysis.lint.rule_relations import is_part, may_meet
from sgagent.compiler.enforce import narrows
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.conditions import (
    LAST_UNIT,
    NO_UNIT,
    Conditions,
    ControlGroup,
    GroupPath,
    LocalFinder,
    LocalUnit,
    _numbers,
    groups_text,
    stand_in,
    stand_in_unit,
)
from sgagent.core.evaluate import evaluate
from sgagent.core.explanation import describe_packet, explain
from sgagent.core.model import ALL_PROTOCOLS, TCP, Direction, Policy, SecurityGroupRule
from sgagent.core.policy import ResolvedRule
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from tests.words import ACCEPT, DROP, OUT, group, packet, rule, snapshot

SLICE, WEB, MAIL = (
    ControlGroup(path, 7) for path in ("/app.slice", "/app.slice/web.service", "/mail.service")
)
RUNNING = {"app.slice": SLICE, "web.service": WEB, "mail.service": MAIL}
OPENER = packet(OUT, "198.51.100.7", TCP, 443)
REST = rule("r-rest", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", priority=2, direction=OUT)


def of_unit(name: str, policy: Policy = ACCEPT, rule_id: str = "r-unit") -> SecurityGroupRule:
    """Return a rule outwards for a unit."""
    conditions = Conditions(local=LocalUnit(name=name))
    return replace(rule(rule_id, policy, TCP, "443", "0.0.0.0/0", direction=OUT), conditions=conditions)


def resolved(*rules: SecurityGroupRule, running: dict[str, ControlGroup] | None = None) -> Resolution:
    """Return what the rules of a group come to on the host; ``gone.service`` it does not have."""
    groups = RUNNING if running is None else running

    def find(unit: LocalUnit) -> LocalUnit:
        absence = "this host has no such unit" if unit.name == "gone.service" else None
        return replace(unit, group=groups.get(unit.name), absence=absence)

    definitions = snapshot(group("sg-1", *rules))
    by_hand = [HandBinding(interface="eth0", security_group_ids=("sg-1",))]
    facts = HostFacts(find_local=LocalFinder(stand_in, find))
    return resolve(
        definitions,
        bind(definitions, by_hand, facts, automatically=False),
        Exemptions(),
        scope=Scope.EVERYTHING,
    )


@pytest.mark.parametrize(
    ("path", "by_web", "by_slice"),
    (
        ("/app.slice/web.service", ACCEPT, ACCEPT),
        ("/app.slice/web.service/worker/1", ACCEPT, ACCEPT),
        ("/app.slice/web.services", DROP, ACCEPT),
        ("/app.slice", DROP, ACCEPT),
        ("/web.service", DROP, DROP),
        (None, DROP, DROP),
    ),
)
def test_the_group_and_all_below_match(path: str | None, by_web: Policy, by_slice: Policy) -> None:
    """A packet without a socket is in no group."""
    unit = None if path is None else ControlGroup(path, 0).numbers[0]
    for name, verdict in (("web.service", by_web), ("app.slice", by_slice)):
        policy = resolved(of_unit(name), REST).policy
        assert evaluate(policy, replace(OPENER, unit=unit, user=0)).verdict is verdict


def test_numbers_are_those_of_a_tree() -> None:
    """Groups below are within, others beside; paths that are deeper than numbers reach share them."""
    (first, last), (inner, inner_last), (other, _) = (one.numbers for one in (SLICE, WEB, MAIL))
    assert first < inner <= inner_last < last <= LAST_UNIT
    assert not first <= other <= last
    deep = ControlGroup("/a" * 20, 0).numbers
    assert deep == ControlGroup("/a" * 16, 0).numbers
    assert stand_in_unit(LocalUnit(name="a.service")) != stand_in_unit(LocalUnit(name="b.service"))


@pytest.mark.parametrize(("policy", "code"), ((ACCEPT, "unknown_unit"), (DROP, "unknown_unit_in_drop")))
def test_an_unknown_unit_is_an_unknown_object(policy: Policy, code: str) -> None:
    """An accept rule for one matches nothing, a drop rule is an error (§5.3)."""
    found = resolved(of_unit("gone.service", policy))
    (problem,) = found.problems
    assert (problem.code, problem.value, found.unknown_objects) == (code, "gone.service", 1)
    assert problem.origin.path.endswith("local.unit")
    assert bool(found.errors) is (policy is DROP)


@pytest.mark.parametrize("policy", Policy)
def test_a_unit_that_does_not_run_matches_nothing(policy: Policy) -> None:
    """That is no problem."""
    found = resolved(of_unit("idle.service", policy), REST)
    assert not found.problems
    for answer in (False, True):
        sent = replace(OPENER, unit=WEB.numbers[0], is_of_unknown_user=answer)
        decision = evaluate(found.policy, sent)
        assert decision.rule is not None
        assert decision.rule.rule_id == "r-rest"


def test_explanations_name_rules_for_other_units() -> None:
    """With the unit that the packet is of, where it is said."""
    policy = resolved(of_unit("web.service"), REST).policy
    found = explain(policy, OPENER)
    assert (found.verdict, [one.rule_id for one in found.by_user]) == (DROP, ["r-unit"])
    assert found.by_user[0].local == "unit web.service"
    sent = replace(OPENER, unit=WEB.numbers[0])
    assert explain(policy, sent).verdict is ACCEPT
    assert "of unit web.service" in describe_packet(sent)


@pytest.mark.parametrize(("policy", "takes_away"), ((ACCEPT, False), (DROP, True)))
def test_a_new_start_takes_away_what_a_drop_rule_says(policy: Policy, *, takes_away: bool) -> None:
    """Sessions that opened before the new group was known are judged again; those of an accept rule stay."""
    before, after = (
        resolved(
            of_unit("web.service", policy), running={"web.service": WEB._replace(identity=identity)}
        ).policy
        for identity in (1, 2)
    )
    assert narrows(before, after) is takes_away
    assert narrows(before, resolved(of_unit("web.service", policy), running={}).policy)


def test_differences_are_of_units() -> None:
    """In words: what is below one is named by it."""
    before, after = (
        resolved(of_unit(name), REST).policy.interfaces[0] for name in ("web.service", "app.slice")
    )
    boxes = compare_judges(before, after, Direction.EGRESS)
    assert {(box.label.effect.value, units_text(box.units)) for box in boxes} == {
        ("opens", "of unit app.slice")
    }
    assert units_text((WEB.numbers,)) == "of unit web.service"
    first, last = WEB.numbers
    assert units_text(((0, first - 1), (last + 1, NO_UNIT))) == "of all but unit web.service"


def test_relations_of_rules_know_units() -> None:
    """A rule for a unit in a slice is a part of one for the slice; rules of two units do not meet."""

    def one(name: str) -> ResolvedRule:
        return resolved(of_unit(name)).policy.interfaces[0].egress.rules[0]

    app, web, mail = map(one, RUNNING)
    assert (is_part(web, app), is_part(app, web), is_part(web, mail)) == (True, False, False)
    assert (may_meet(web, app), may_meet(web, mail)) == (True, False)


@pytest.mark.parametrize("running", (RUNNING, {}), ids=("running", "stopped"))
@pytest.mark.parametrize(
    ("policy", "code"), ((ACCEPT, "unknown_object"), (DROP, "unknown_object_in_drop")), ids=str
)
def test_an_unknown_list_is_told_early(running: dict[str, ControlGroup], policy: Policy, code: str) -> None:
    """Else definitions that were taken could not be enforced any more once it starts."""
    conditions = Conditions(local=LocalUnit(name="web.service"))
    some = replace(rule("r-unit", policy, TCP, "prl-none", "0.0.0.0/0", direction=OUT), conditions=conditions)
    found = resolved(some, running=running)
    assert [(one.code, one.value) for one in found.problems] == [(code, "prl-none")]


def test_numbers_of_sockets_are_not_kept() -> None:
    """A host has any number of control groups in its life; only those of rules get a name in texts."""
    for number in range(5000):
        assert (
            ControlGroup(f"/session-{number}.scope", 7).number
            == GroupPath(f"/session-{number}.scope").numbers[0]
        )
    assert _numbers.cache_info().currsize < 5000
    strange = ControlGroup("/session-of-nobodys-rule.scope", 7).number
    assert groups_text([(strange, strange)]) == "other units"
