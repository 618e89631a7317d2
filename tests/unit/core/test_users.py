"""Rules for users of a host: how names are resolved, and what is decided and explained (§13.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.analysis.compare import compare_judges
from sgagent.analysis.flow_text import users_text
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import make_subject
from sgagent.compiler.enforce import narrows
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.conditions import LAST_USER, NO_USER, Conditions, LocalFinder, LocalUser, stand_in
from sgagent.core.evaluate import evaluate
from sgagent.core.explanation import explain
from sgagent.core.memo import Memo
from sgagent.core.model import ALL_PROTOCOLS, TCP, Direction, Policy, SecurityGroupRule
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from sgagent.nft import ruleset as nft
from sgagent.verify.foreign import compare_filters
from sgagent.verify.verified_table import table_of
from tests.words import ACCEPT, DROP, OUT, group, packet, policy_of, rule, snapshot

USERS = {"deploy": 1000, "backup": 1001}
"""Of the host."""

OPENER = packet(OUT, "198.51.100.7", TCP, 443)


def of_user(user: str | int, policy: Policy = ACCEPT, rule_id: str = "r-user") -> SecurityGroupRule:
    """Return a rule outwards for a user."""
    number = user if isinstance(user, int) else None
    conditions = Conditions(local=LocalUser(name=str(user), number=number))
    return replace(rule(rule_id, policy, TCP, "443", "0.0.0.0/0", direction=OUT), conditions=conditions)


REST = rule("r-rest", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", priority=2, direction=OUT)


def resolved(
    *rules: SecurityGroupRule,
    users: dict[str, int] | None = None,
    memo: Memo | None = None,
    bound: bool = True,
) -> Resolution:
    """Return what the rules of a group come to on the host."""
    known = USERS if users is None else users
    by_hand = [HandBinding(interface="eth0", security_group_ids=("sg-1",))] if bound else []
    definitions = snapshot(group("sg-1", *rules))
    found = bind(definitions, by_hand, HostFacts(find_local=LocalFinder(known.get)), automatically=False)
    return resolve(definitions, found, Exemptions(), scope=Scope.EVERYTHING, memo=memo)


def test_names_are_those_of_the_host() -> None:
    """At each look anew; ids are asked nobody."""
    memo = Memo()
    rules = of_user("deploy"), of_user(7, rule_id="r-id")

    def numbers(users: dict[str, int] | None = None) -> list[int | None]:
        return [
            one.user for one in resolved(*rules, users=users, memo=memo).policy.interfaces[0].egress.rules
        ]

    assert numbers() == [7, 1000]
    assert numbers({"deploy": 1002}) == [7, 1002]
    assert numbers() == [7, 1000]


@pytest.mark.parametrize(("policy", "code"), ((ACCEPT, "unknown_user"), (DROP, "unknown_user_in_drop")))
def test_an_unknown_user_is_an_unknown_object(policy: Policy, code: str) -> None:
    """An accept rule for one matches nothing, a drop rule is an error (§5.3), elsewhere it is no problem."""
    found = resolved(of_user("gone", policy))
    (problem,) = found.problems
    assert (problem.code, problem.value, found.unknown_objects) == (code, "gone", 1)
    assert problem.origin.path.endswith("local.user")
    assert bool(found.errors) is (policy is DROP)
    assert evaluate(found.policy, replace(OPENER, user=stand_in("gone"))).rule is None
    assert not resolved(of_user("gone", policy), bound=False).problems


def test_without_a_host_each_name_is_another_user() -> None:
    """None is an id that people give."""
    found = {stand_in(name) for name in ("deploy", "backup", "root")}
    assert len(found) == 3
    assert all(1 << 31 <= one <= LAST_USER for one in found)


@pytest.mark.parametrize(("user", "verdict"), ((1000, ACCEPT), (1001, DROP), (0, DROP), (None, DROP)))
def test_who_made_the_socket_decides(user: int | None, verdict: Policy) -> None:
    """A packet without a socket matches no rule for a user."""
    policy = resolved(of_user("deploy"), REST).policy
    assert evaluate(policy, replace(OPENER, user=user)).verdict is verdict


def test_answers_pass_if_a_user_may_have_opened_their_session() -> None:
    """A drop rule for a user says nothing of them."""
    answer = replace(OPENER, is_of_unknown_user=True)
    assert evaluate(resolved(of_user("deploy"), REST).policy, answer).verdict is ACCEPT
    assert evaluate(resolved(of_user("deploy", DROP)).policy, answer).verdict is ACCEPT
    assert evaluate(resolved(of_user("deploy", DROP), REST).policy, answer).verdict is DROP


def test_explanations_name_rules_that_would_decide_otherwise() -> None:
    """For the user that is not said; those that would not are left out."""
    policy = resolved(of_user("deploy"), of_user("backup", DROP, "r-other"), REST).policy
    found = explain(policy, OPENER)
    assert (found.verdict, [one.rule_id for one in found.by_user]) == (DROP, ["r-user"])
    assert found.by_user[0].local == "user deploy (1000)"
    found = explain(policy, replace(OPENER, user=1000))
    assert (found.verdict, [one.rule_id for one in found.by_user]) == (ACCEPT, ["r-other"])


def policy_for(user: int) -> ResolvedPolicy:
    """Return the policy by which a user may open sessions."""
    return policy_of(group("sg-1", of_user(user), REST), on={"eth0": "sg-1"})


def test_another_user_takes_sessions_away() -> None:
    """They are judged again; the same user keeps them."""
    assert narrows(policy_for(1000), policy_for(1001))
    assert not narrows(policy_for(1000), policy_for(1000))


def test_differences_are_of_users() -> None:
    """What opens is of one user, what closes of the other."""
    before, after = (policy_for(user).interfaces[0] for user in (1000, 1001))
    boxes = compare_judges(before, after, Direction.EGRESS)
    assert {(box.label.effect.value, box.users) for box in boxes} == {
        ("opens", ((1001, 1001),)),
        ("closes", ((1000, 1000),)),
    }
    texts = [users_text(ranges) for ranges in (((7, 7),), ((0, 6), (8, NO_USER)))]
    assert texts == ["of user 7", "of all but user 7"]


def test_lint_takes_no_two_users_for_one() -> None:
    """Neither to say that their rules contradict, nor that one is needless: two names may be one user."""
    same = of_user("deploy"), of_user("deploy", rule_id="r-too")
    apart = of_user("deploy", DROP), of_user("backup", rule_id="r-other")

    def codes(*rules: SecurityGroupRule) -> set[str]:
        found = lint(make_subject(snapshot(group("sg-1", *rules)), Exemptions()))
        return {one.code for one in found} - {"dns_ntp_shut"}

    assert codes(*apart) == set()
    assert codes(of_user("deploy", DROP), of_user("deploy", rule_id="r-other")) != set()
    assert codes(*same, REST) != set()


def test_filters_of_others_are_compared_by_user() -> None:
    """What they drop of one user alone is said to be that user's."""
    match = nft.Match(nft.META_SKUID, (nft.Interval.single(100_000),))
    hook = nft.Hook(name="postrouting", hook_priority=0)
    chain = nft.Chain(name="own", hook=hook, rules=(nft.Rule((match, nft.Drop())),))
    changes = compare_filters(
        table_of(nft.Ruleset(chains=(chain,))), policy_of(group("sg-1"), on={"eth0": "sg-1"})
    ).changes
    dropped = [one for one in changes if one.verdict is ACCEPT]
    assert dropped
    assert all(one.others["user"] == ((100_000, 100_000),) for one in dropped)
