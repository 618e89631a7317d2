"""Tell whether a policy takes something away: yes where it may, no where it surely does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.compiler.enforce import may_cut, narrows
from sgagent.core.model import ALL_PROTOCOLS, GRE, TCP, UDP, Mode, Protocols, SecurityGroupRule
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from tests.words import ACCEPT, ADVANCED, DROP, IN, OUT, PLATFORM, block, group, resolution, rule, snapshot

WEB = rule("web", ACCEPT, TCP, "80", "sg-2", priority=5)
BAN = rule("ban", DROP, TCP, "80", "sg-3", priority=5)
SSH = Exemption(direction=IN, peer=block("192.0.2.10"), protocol=TCP)


def policy(
    *rules: SecurityGroupRule,
    allowed: tuple[str, ...] = ("10.0.0.2", "10.0.0.3"),
    banned: tuple[str, ...] = ("10.0.0.3",),
    exemptions: Exemptions = PLATFORM,
    mode: Mode = Mode.ENFORCE,
    **attributes: object,
) -> ResolvedPolicy:
    """Return the policy of sg-1 with these rules on eth0; sg-2 may come in, sg-3 may not."""
    own = replace(group("sg-1", *rules), **attributes)  # type: ignore[arg-type]  # fields of any type
    definitions = snapshot(own, group("sg-2", members=allowed), group("sg-3", members=banned))
    found = resolution(definitions, on={"eth0": "sg-1"}, exemptions=exemptions, mode=mode)
    assert not found.errors
    return found.policy


BEFORE = policy(WEB, BAN)


@pytest.mark.parametrize(
    "after",
    (
        pytest.param(BEFORE, id="nothing changed"),
        pytest.param(policy(WEB), id="a drop rule less"),
        pytest.param(policy(WEB, BAN, rule("r", ACCEPT, TCP, "1", "10.0.0.9")), id="an accept rule more"),
        pytest.param(policy(WEB, BAN, allowed=("10.0.0.0/24",)), id="members more to accept"),
        pytest.param(policy(WEB, BAN, banned=()), id="members fewer to drop"),
        pytest.param(policy(replace(WEB, rule_id="new"), BAN), id="another id"),
        pytest.param(policy(WEB, BAN, mode=Mode.OBSERVE), id="only observed from now on"),
        pytest.param(
            policy(WEB, BAN, exemptions=Exemptions(platform=PLATFORM.platform, failsafe=(SSH,))),
            id="more is exempt",
        ),
        pytest.param(
            policy(
                replace(WEB, authorization_objects=(block("10.0.0.2"),)),
                replace(WEB, rule_id="web2", authorization_objects=(block("10.0.0.3"),)),
                BAN,
            ),
            id="one rule cut in two",
        ),
        pytest.param(ResolvedPolicy(), id="the interface is no longer bound"),
    ),
)
def test_what_takes_nothing_away(after: ResolvedPolicy) -> None:
    """Live sessions need no second judgement."""
    assert not narrows(BEFORE, after)


@pytest.mark.parametrize(
    "after",
    (
        pytest.param(policy(BAN), id="an accept rule less"),
        pytest.param(policy(WEB, BAN, rule("r", DROP, TCP, "1", "10.0.0.9")), id="a drop rule more"),
        pytest.param(policy(WEB, BAN, allowed=("10.0.0.2",)), id="a member fewer to accept"),
        pytest.param(policy(WEB, BAN, allowed=("10.0.0.2", "10.0.0.4")), id="a member for another"),
        pytest.param(policy(WEB, BAN, banned=("10.0.0.2", "10.0.0.3")), id="a member more to drop"),
        pytest.param(policy(replace(WEB, priority=6), BAN), id="an accept rule is less urgent"),
        pytest.param(policy(WEB, replace(BAN, priority=4)), id="a drop rule is more urgent"),
        pytest.param(policy(replace(WEB, policy=DROP), BAN), id="accept became drop"),
        pytest.param(policy(replace(WEB, local_address=block("10.0.0.1")), BAN), id="not at every near end"),
        pytest.param(policy(WEB, BAN, group_type=ADVANCED), id="the egress default became drop"),
        pytest.param(policy(WEB, BAN, exemptions=Exemptions()), id="less is exempt"),
    ),
)
def test_what_may_take_something_away(after: ResolvedPolicy) -> None:
    """Live sessions are judged again."""
    assert narrows(BEFORE, after)


def test_fellow_members() -> None:
    """A member that leaves an accepting group, or a group that stops accepting, takes away."""
    both = policy(member_addresses=(block("10.0.0.2"), block("10.0.0.3")))
    one = policy(member_addresses=(block("10.0.0.2"),))
    shut = policy(member_addresses=(block("10.0.0.2"),), inner_access_policy=DROP)
    assert narrows(both, one)
    assert not narrows(one, both)
    assert narrows(one, shut)
    assert not narrows(shut, one)


def test_leaving_observe() -> None:
    """What was only observed was remembered as allowed, so enforcing judges it again (§9.1)."""
    observed = policy(WEB, BAN, mode=Mode.OBSERVE)
    assert narrows(observed, BEFORE)
    assert not narrows(observed, observed)


def test_a_newly_bound_interface() -> None:
    """It takes nothing from sessions that an agent allowed: none was, there."""
    assert not narrows(ResolvedPolicy(), BEFORE)


def test_each_direction_counts() -> None:
    """A rule for the other direction is no stand-in."""
    outwards = rule("r1", ACCEPT, ALL_PROTOCOLS, "", "10.0.0.9", direction=OUT)
    assert narrows(policy(outwards), policy(replace(outwards, direction=IN)))


CLOSED_LINKS = ResolvedPolicy(unbound=closed_interface("*", PLATFORM, Mode.ENFORCE))


@pytest.mark.parametrize(
    ("before", "after", "may"),
    (
        pytest.param(BEFORE, BEFORE, False, id="nothing changed"),
        pytest.param(policy(BAN), BEFORE, False, id="only more is allowed"),
        pytest.param(BEFORE, policy(BAN), True, id="something is taken away"),
        pytest.param(ResolvedPolicy(), BEFORE, True, id="newly bound"),
        pytest.param(BEFORE, ResolvedPolicy(), False, id="no longer bound"),
        pytest.param(ResolvedPolicy(), CLOSED_LINKS, True, id="closed until bound"),
        pytest.param(CLOSED_LINKS, CLOSED_LINKS, False, id="closed as before"),
        pytest.param(CLOSED_LINKS, ResolvedPolicy(), False, id="no longer closed"),
    ),
)
def test_what_may_cut_a_session(before: ResolvedPolicy, after: ResolvedPolicy, *, may: bool) -> None:
    """On links that are judged for the first time, any that nobody judged before."""
    assert may_cut(before, after) is may


BOTH = policy(replace(WEB, protocols=(TCP, UDP)), BAN)


@pytest.mark.parametrize(
    ("protocols", "expected"), (((TCP, UDP), False), ((TCP,), True), ((UDP,), True), ((TCP, GRE), True))
)
def test_a_protocol_fewer_takes_something_away(protocols: Protocols, expected: bool) -> None:  # noqa: FBT001 - a parameter
    """Each protocol of an accept counts, whatever its place in the list."""
    assert narrows(BOTH, policy(replace(WEB, protocols=protocols), BAN)) is expected
    two = (replace(WEB, protocols=(protocol,), rule_id=f"web{protocol}") for protocol in (TCP, UDP))
    assert not narrows(BOTH, policy(*two, BAN))


def test_a_protocol_more_to_drop_takes_something_away() -> None:
    """And one fewer does not."""
    wider = policy(WEB, replace(BAN, protocols=(TCP, UDP)))
    assert narrows(BEFORE, wider)
    assert not narrows(wider, BEFORE)
