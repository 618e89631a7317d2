"""Compare policies in meaning."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sgagent.analysis.compare import UNBOUND_LINKS, Effect, Fate, FlowChange, compare, links
from sgagent.analysis.flow_text import ObjectNames, traffic_text
from sgagent.core.addresses import AddressSet, holds
from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import Conditions, SourceLimit
from sgagent.core.hours import Hours
from sgagent.core.model import ALL_PROTOCOLS, TCP, CidrBlock, Family, Mode
from sgagent.core.policy import ResolvedPolicy
from tests.words import ACCEPT, DROP, OUT, blocks, group, interface, policy_of, resolution, rule, snapshot

WEB = rule("web", ACCEPT, TCP, "80", "0.0.0.0/0")
SSH = rule("ssh", ACCEPT, TCP, "22", "192.0.2.10")


def words(policies: tuple[ResolvedPolicy, ResolvedPolicy], flow: FlowChange) -> str:
    """Return a change of flows in words."""
    change = flow.box.label
    peers = [clause.rule.peer for clause in (change.after, change.before) if clause.rule]
    names = ObjectNames.of(*policies)
    text = traffic_text(
        flow.box, flow.direction, names.text(flow.box.peers, flow.box.family, peers, flow.interfaces)
    )
    return f"{flow.effect.value} {text}"


def differences(old: ResolvedPolicy, new: ResolvedPolicy) -> list[str]:
    """Return what opens and closes in words."""
    return [words((old, new), flow) for flow in compare(old, new).flows]


def test_an_accept_that_comes_opens_what_nothing_accepted() -> None:
    """What another rule accepted already is not opened."""
    old = policy_of(group("sg-1", rule("inside", ACCEPT, TCP, "80", "10.0.0.0/8")))
    new = policy_of(group("sg-1", rule("inside", ACCEPT, TCP, "80", "10.0.0.0/8"), WEB))
    assert differences(old, new) == ["opens tcp 80 from 0.0.0.0/0 but 10.0.0.0/8"]
    (change,) = compare(old, new).rules
    assert (change.fate, change.rule.rule_id, change.has_effect) == (Fate.APPEARS, "web", True)


def test_an_accept_that_goes_closes_what_it_alone_accepted() -> None:
    """The default is named as what decides then."""
    comparison = compare(policy_of(group("sg-1", WEB, SSH)), policy_of(group("sg-1", SSH)))
    (flow,) = comparison.flows
    assert flow.effect is Effect.CLOSES
    assert flow.box.label.after.decided_by is DecidedBy.DEFAULT
    assert [change.fate for change in comparison.rules] == [Fate.GOES]


def test_a_change_without_effect_is_told_as_such() -> None:
    """Another priority among rules that agree changes no verdict."""
    comparison = compare(
        policy_of(group("sg-1", WEB)), policy_of(group("sg-1", replace(WEB, priority=7, description="x")))
    )
    (change,) = comparison.rules
    assert (comparison.flows, change.fate, change.has_effect) == ((), Fate.CHANGES, False)


def test_a_rule_outside_its_hours_is_told_as_one_without_effect() -> None:
    """It changes what will be open, and so is no plan in which nothing changes."""
    night = Conditions(active=Hours(begins=22 * 60, ends=23 * 60))
    before, after = (
        policy_of(
            group("sg-1", replace(rule("night", ACCEPT, TCP, port, "10.0.0.0/8"), conditions=night))
        ).at(datetime(2026, 1, 1, 12, tzinfo=UTC))
        for port in ("22", "")
    )
    found = compare(before, after)
    assert [(one.fate, one.rule.rule_id, one.has_effect) for one in found.rules] == [
        (Fate.CHANGES, "night", False)
    ]
    assert not found.is_nothing
    assert not found.flows


def test_a_tie_that_a_drop_wins_closes() -> None:
    """The drop that comes at the priority of the accept is what decides."""
    shut = rule("shut", DROP, TCP, "80", "10.0.0.0/8")
    assert differences(policy_of(group("sg-1", WEB)), policy_of(group("sg-1", WEB, shut))) == [
        "closes tcp 80 from 10.0.0.0/8"
    ]


def test_a_member_that_joins_opens_for_itself() -> None:
    """The rule is as before; what its object stands for is not."""
    accept = rule("app", ACCEPT, TCP, "5432", "sg-app")
    policies = [
        policy_of(group("sg-1", accept), group("sg-app", members=members), on={"eth0": "sg-1"})
        for members in (["10.0.0.1", "2001:db8::1"], ["10.0.0.1", "10.0.0.2", "2001:db8::1"])
    ]
    comparison = compare(*policies)
    assert differences(*policies) == ["opens tcp 5432 from 10.0.0.2 (in sg-app)"]
    assert [change.fate for change in comparison.rules] == [Fate.OBJECT_CHANGES]


def test_a_group_is_called_by_its_name_where_that_is_exact() -> None:
    """In each family by itself, and at the near end that the rule asks for."""
    members = group("sg-app", members=["10.0.0.1", "10.0.0.7", "2001:db8::1"])
    accept = rule("app", ACCEPT, TCP, "5432", "sg-app", source_ports="1024-65535")
    old = policy_of(group("sg-1"), members, on={"eth0": "sg-1"})
    new = policy_of(group("sg-1", accept), members, on={"eth0": "sg-1"})
    assert differences(old, new) == ["opens tcp 5432 from sg-app with source port 1024-65535"] * 2
    assert [flow.box.family for flow in compare(old, new).flows] == [Family.IPV4, Family.IPV6]


def test_near_ends_are_told() -> None:
    """A rule for one local address opens there only."""
    here = rule("here", ACCEPT, TCP, "80", "0.0.0.0/0", local="10.0.0.8/31")
    old, new = policy_of(group("sg-1")), policy_of(group("sg-1", here))
    assert differences(old, new) == ["opens tcp 80 from 0.0.0.0/0 at 10.0.0.8/31"]


def test_egress_in_one_family() -> None:
    """A drop for 0.0.0.0/0 closes nothing over IPv6 (§2.4)."""
    drop = rule("out", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", direction=OUT)
    old, new = policy_of(group("sg-1")), policy_of(group("sg-1", drop))
    assert differences(old, new) == ["closes all to 0.0.0.0/0 but 100.100.100.200"]


def test_a_link_that_is_judged_for_the_first_time() -> None:
    """All closes but what its groups accept; that rules accept it changes no verdict."""
    comparison = compare(ResolvedPolicy(), policy_of(group("sg-1", WEB, inner=DROP), on={"eth0": "sg-1"}))
    assert comparison.bound == ("eth0",)
    assert comparison.count(Effect.OPENS) == 0
    assert {flow.box.label.before.decided_by for flow in comparison.flows} == {DecidedBy.UNBOUND}
    assert [change.has_effect for change in comparison.rules] == [False]


def test_which_rules_have_an_effect_on_a_link_that_one_side_judges() -> None:
    """Those that decide about what is dropped there; what is accepted passes on the other side, too."""
    never = rule("never", DROP, TCP, "80", "192.0.2.0/24", priority=2)
    drop = rule("drop", DROP, TCP, "22", "192.0.2.0/24")
    empty = rule("empty", DROP, TCP, "25", "sg-2")
    judged = policy_of(group("sg-1", WEB, never, drop, empty), group("sg-2"), on={"eth0": "sg-1"})
    for sides in ((ResolvedPolicy(), judged), (judged, ResolvedPolicy())):
        effects = {change.rule.rule_id: change.has_effect for change in compare(*sides).rules}
        assert effects == {"web": False, "never": False, "drop": True, "empty": False}


def test_a_limit_in_the_place_of_a_rule_without_one_has_an_effect() -> None:
    """Sources that have used it up are dropped now (§13.1); under another id the same limit is the same."""
    few, many = (Conditions(limit=SourceLimit(rate=rate, seconds=60, burst=rate)) for rate in (5, 50))
    limited = replace(WEB, rule_id="limited", conditions=few)
    unreached = replace(limited, rule_id="late", priority=5)
    cases = (
        ((WEB,), (limited,), {"web": True, "limited": True}),
        ((limited,), (replace(WEB, conditions=few),), {"web": False, "limited": False}),
        ((limited,), (replace(WEB, conditions=many),), {"web": True, "limited": True}),
        ((limited,), (replace(limited, conditions=many),), {"limited": True}),
        ((WEB,), (WEB, unreached), {"late": False}),
        ((WEB, unreached), (replace(WEB, priority=9), unreached), {"web": True}),
    )
    for before, after, effects in cases:
        found = compare(policy_of(group("sg-1", *before)), policy_of(group("sg-1", *after)))
        assert not found.flows
        assert {change.rule.rule_id: change.has_effect for change in found.rules} == effects


def test_a_link_that_is_judged_no_longer() -> None:
    """All opens that was closed."""
    comparison = compare(policy_of(group("sg-1", WEB), on={"eth0": "sg-1"}), ResolvedPolicy())
    assert comparison.unbound == ("eth0",)
    assert {flow.effect for flow in comparison.flows} == {Effect.OPENS}


def test_unbound_links_that_are_to_be_closed() -> None:
    """They are told under one name (§9.3)."""
    definitions = snapshot(group("sg-1"))
    old, new = (
        resolution(definitions, on={"eth0": "sg-1"}, unbound_closed=closed).policy for closed in (False, True)
    )
    assert {name for flow in compare(old, new).flows for name in flow.interfaces} == {UNBOUND_LINKS}


def test_links_that_are_judged_alike_are_told_once() -> None:
    """One change names them all."""
    on = {"eth0": "sg-1", "eth1": "sg-1", "eth2": "sg-1,sg-2"}
    old = policy_of(group("sg-1", SSH), group("sg-2"), on=on)
    new = policy_of(group("sg-1", SSH, WEB), group("sg-2"), on=on)
    (flow,) = compare(old, new).flows
    assert flow.interfaces == ("eth0", "eth1", "eth2")


def test_modes() -> None:
    """A link that is only observed from now on is named, though no verdict changes."""
    definitions = snapshot(group("sg-1", WEB))
    old, new = (resolution(definitions, mode=mode).policy for mode in Mode)
    comparison = compare(old, new)
    assert (comparison.flows, comparison.modes) == ((), ("eth0",))
    assert not comparison.is_nothing


def test_inner_access_comes_before_the_rules() -> None:
    """Fellow members are let in by the inner policy, whatever drops them (§3.4)."""
    drop = rule("shut", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0")
    definitions = [
        (group("sg-1", drop, inner=inner), interface("eni-1", ["sg-1"], ["10.0.0.1", "10.0.0.2"]))
        for inner in (DROP, ACCEPT)
    ]
    old, new = (policy_of(*objects) for objects in definitions)
    assert differences(old, new) == ["opens all from fellow members"]


def test_a_name_means_what_it_means_in_the_candidate() -> None:
    """What a changed group stood for before is the former one, and no object for programs."""
    accept = rule("http", ACCEPT, TCP, "80", "10.0.0.0/24")
    drop = rule("not-those", DROP, ALL_PROTOCOLS, "", "sg-2")
    old, new = (
        policy_of(group("sg-1", accept, drop), group("sg-2", members=[member]), on={"eth0": "sg-1"})
        for member in ("10.0.0.66", "10.0.0.99")
    )
    assert differences(old, new) == ["opens tcp 80 from the former sg-2", "closes tcp 80 from sg-2"]
    names = ObjectNames.of(old, new)
    objects = [names.exact(flow.box.peers, Family.IPV4) for flow in compare(old, new).flows]
    assert objects == [None, "sg-2"]


def test_a_name_means_what_the_candidate_defines_where_no_rule_has_it() -> None:
    """A group may lose a member when the rule that names it goes; the candidate's rules do not say so."""
    accept = rule("app", ACCEPT, TCP, "80", "sg-app")
    definitions = [
        snapshot(group("sg-1", *rules), group("sg-app", members=members))
        for rules, members in (([accept], ["10.0.0.1", "10.0.0.4"]), ([], ["10.0.0.1"]))
    ]
    old, new = (resolution(each, on={"eth0": "sg-1"}).policy for each in definitions)
    (flow,) = compare(old, new).flows
    found = []
    objects = [accepting.peer for accepting in old.interfaces[0].ingress.rules]
    for candidate in reversed(definitions):
        names = ObjectNames.of(old, new, definitions=candidate)
        found += [
            (names.exact(flow.box.peers, Family.IPV4, some), names.text(flow.box.peers, Family.IPV4, some))
            for some in (objects, [])
        ]
    assert found == [
        (None, "the former sg-app"),
        (None, "10.0.0.1, 10.0.0.4"),
        ("sg-app", "sg-app"),
        ("sg-app", "sg-app"),
    ]
    names = ObjectNames.of(old, new, definitions=definitions[1])
    assert names.text(flow.box.peers[1:], Family.IPV4, objects) == "10.0.0.4 (in the former sg-app)"


def test_fellow_members_are_those_of_the_link() -> None:
    """Another link's are other addresses; what they were before is the former ones."""
    objects = [
        (group("sg-1", members=["10.0.0.1"], inner=inner), group("sg-2", members=["10.0.0.2"]))
        for inner in (ACCEPT, DROP)
    ]
    old, new = (policy_of(*each, on={"eth0": "sg-1", "eth1": "sg-2"}) for each in objects)
    assert differences(old, new) == ["closes all from the former fellow members"]
    assert differences(new, old) == ["opens all from fellow members"]
    names = ObjectNames.of(old, new)
    second = ((CidrBlock.parse("10.0.0.2").first,) * 2,)
    assert names.exact(second, Family.IPV4, links=["eth0"]) is None
    assert names.exact(second, Family.IPV4, links=["eth1"]) == "fellow members"
    assert names.exact(second, Family.IPV4, links=["eth0", "eth1"]) is None


def test_many_pieces_are_counted() -> None:
    """Where no name and no short list is exact, the first CIDRs are shown and the others counted."""
    names = ObjectNames.of(policy_of(group("sg-1", WEB)))
    ranges = tuple((number, number) for number in range(1, 21, 2))
    assert names.text(ranges, Family.IPV4) == "0.0.0.1, 0.0.0.3, 0.0.0.5, 0.0.0.7 and 6 more blocks"


def test_objects_together() -> None:
    """Several objects that are just these addresses together are named."""
    rules = [rule(name, ACCEPT, TCP, "80", name) for name in ("sg-a", "sg-b")]
    groups = [group(f"sg-{name}", members=[f"10.0.{name == 'b':d}.{n}" for n in (1, 3, 5)]) for name in "ab"]
    policy = policy_of(group("sg-1", *rules), *groups, on={"eth0": "sg-1"})
    base = CidrBlock.parse("10.0.0.0/16").first
    ranges = tuple((base + n, base + n) for n in (1, 3, 5, 257, 259, 261))
    assert ObjectNames.of(policy).text(ranges, Family.IPV4) == "sg-a, sg-b"


def test_who_waits_is_told_of_every_link() -> None:
    """Also of those that are judged alike, and compared once."""
    old = policy_of(group("sg-1", WEB), on={"eth0": "sg-1", "eth1": "sg-1"})
    new = policy_of(group("sg-1", SSH), on={"eth1": "sg-1", "eth2": "sg-1"})
    told: list[None] = []
    compare(old, new, tick=lambda: told.append(None))
    assert len(told) == links(old, new) == 3


def test_a_source_check_closes_what_is_spoofed() -> None:
    """Outwards all other sources, inwards the own ones; DHCP, which it spares, is not closed (§12.6)."""
    before = policy_of(group("sg-1", WEB))
    (judge,) = before.interfaces
    own = AddressSet.of(blocks("10.0.0.11", "2001:db8::/64"))
    after = ResolvedPolicy(interfaces=(replace(judge, own_addresses=own),))
    comparison = compare(before, after)
    assert {flow.effect for flow in comparison.flows} == {Effect.CLOSES}
    assert {flow.box.label.after.decided_by for flow in comparison.flows} == {DecidedBy.SPOOFED}
    assert "closes tcp 80 from 10.0.0.11" in differences(before, after)
    outwards = [flow for flow in comparison.flows if flow.direction is OUT]
    assert not any(holds(flow.box.locals, 0x0A00000B) for flow in outwards if flow.box.family is Family.IPV4)
    dhcp = [
        flow
        for flow in outwards
        if holds(flow.box.protocols, 17) and holds(flow.box.source_ports, 68) and holds(flow.box.ports, 67)
    ]
    assert not [flow for flow in dhcp if flow.box.family is Family.IPV4]
    assert not compare(after, after).flows
