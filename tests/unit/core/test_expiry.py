"""Rules that expire, resolved at a time (§12.4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sgagent.compiler.enforce import narrows
from sgagent.core.errors import Severity
from sgagent.core.memo import Memo
from sgagent.core.model import TCP, Policy, SecurityGroupRule, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from tests.words import ACCEPT, DROP, IN, by_hand, group, packet, rule, snapshot, verdict

END = datetime(2026, 12, 31, 17, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
ON = {"eth0": "sg-1"}


def ending(policy: Policy, other_end: str = "10.0.0.0/8", end: datetime = END) -> SecurityGroupRule:
    """Return a rule that ends."""
    return replace(rule(f"r-{policy.value}", policy, TCP, "22", other_end), expires=end)


def at(time: datetime | None, *rules: SecurityGroupRule, memo: Memo | None = None) -> Resolution:
    """Return what rules come to at a time."""
    definitions = snapshot(group("sg-1", *rules))
    return resolve(definitions, by_hand(definitions, ON), Exemptions(), at=time, memo=memo)


def admits(policy: ResolvedPolicy) -> bool:
    """Return whether an inward session to port 22 is let in."""
    return verdict(policy, packet(IN, "10.0.0.9", TCP, 22)) is ACCEPT


def test_a_rule_exists_until_its_end_and_not_at_it() -> None:
    """From the instant on it does not."""
    assert admits(at(END - INSTANT, ending(ACCEPT)).policy)
    assert not admits(at(END, ending(ACCEPT)).policy)
    assert not admits(at(END + timedelta(days=9_999), ending(ACCEPT)).policy)


def test_without_a_time_nothing_has_ended() -> None:
    """As where only documents are looked at."""
    assert admits(at(None, ending(ACCEPT)).policy)


def test_a_drop_may_end_too() -> None:
    """Then what stands behind it decides."""
    behind = rule("r-behind", ACCEPT, TCP, "22", "any")
    assert not admits(at(END - INSTANT, ending(DROP), behind).policy)
    assert admits(at(END, ending(DROP), behind).policy)


def test_the_end_of_an_accept_takes_something_away() -> None:
    """So that live sessions are judged again (§6.3); the end of a drop takes nothing away."""
    behind = rule("r-behind", ACCEPT, TCP, "22", "any")
    before, after = (at(time, ending(ACCEPT)).policy for time in (END - INSTANT, END))
    assert narrows(before, after)
    before, after = (at(time, ending(DROP), behind).policy for time in (END - INSTANT, END))
    assert not narrows(before, after)


@pytest.mark.parametrize("policy", (ACCEPT, DROP))
@pytest.mark.parametrize("scope", tuple(Scope))
def test_unknown_objects_in_an_ended_rule_are_warnings(policy: Policy, scope: Scope) -> None:
    """What does not exist can lose nothing; they count for no metric either."""
    definitions = snapshot(group("sg-1", ending(policy, "sg-no,10.0.0.0/8")))
    bound = by_hand(definitions, ON)
    found = resolve(definitions, bound, Exemptions(), scope=scope, at=END)
    assert [problem.severity for problem in found.problems] == [Severity.WARNING]
    assert found.unknown_objects == 0
    before = resolve(definitions, bound, Exemptions(), scope=scope, at=END - INSTANT)
    assert before.unknown_objects == 1
    assert bool(before.errors) is (policy is DROP)


def test_the_next_end_is_that_of_the_rule_that_ends_first() -> None:
    """Rules that never end are none of them."""
    rules = (
        ending(ACCEPT, end=END + timedelta(days=1)),
        ending(DROP),
        rule("r-ever", ACCEPT, TCP, "22", "any"),
    )
    policy = at(None, *rules).policy
    assert [one.rule_id for one in policy.expiring] == ["r-drop", "r-accept"]
    assert [one.rule_id for one in policy.at(END).expiring] == ["r-accept"]
    assert policy.at(END - INSTANT) is policy
    assert policy.at(END) == at(END, *rules).policy


def test_a_policy_says_whether_time_matters_to_it() -> None:
    """Also once all of its rules have ended: the time must be kept then."""
    assert at(END, ending(ACCEPT)).depends_on_time
    assert at(END - INSTANT, ending(ACCEPT)).depends_on_time
    assert not at(END, rule("r", ACCEPT, TCP, "22", "any")).depends_on_time
    both = snapshot(group("sg-1", ending(ACCEPT)), group("sg-2", replace(ending(ACCEPT), rule_id="other")))
    assert resolve(both, by_hand(both, ON), Exemptions(), at=END).depends_on_time
    definitions = snapshot(group("sg-1"), group("sg-2", ending(ACCEPT)))
    assert not resolve(definitions, by_hand(definitions, ON), Exemptions(), at=END).depends_on_time


def test_what_was_resolved_before_is_taken_again() -> None:
    """A rule that stays is the very same object when another ends."""
    memo, stays = Memo(), rule("r-ever", ACCEPT, TCP, "80", "any")
    definitions = snapshot(group("sg-1", ending(ACCEPT), stays))

    def first_rule(time: datetime) -> object:
        bound = by_hand(definitions, ON)
        rules = (
            resolve(definitions, bound, Exemptions(), at=time, memo=memo).policy.interfaces[0].ingress.rules
        )
        return next(one for one in rules if one.rule_id == "r-ever")

    assert first_rule(END - INSTANT) is first_rule(END)


def test_a_group_that_names_itself_is_still_itself_when_a_rule_ends() -> None:
    """The warning about it does not hang on another rule (§8.2)."""
    own = rule("r-own", ACCEPT, TCP, "80", "sg-1")
    definitions: Snapshot = snapshot(group("sg-1", ending(ACCEPT), own))
    bound = by_hand(definitions, ON)
    found = [resolve(definitions, bound, Exemptions(), at=time).problems for time in (None, END)]
    assert found[0] == found[1]
