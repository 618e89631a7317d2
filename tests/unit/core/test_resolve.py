"""Resolve definitions: what is refused, what is only warned of, and for whom (§5, §8)."""

from __future__ import annotations

import weakref
from dataclasses import fields, replace

import pytest

from sgagent.core.addresses import AddressSet
from sgagent.core.binding import HandBinding, HostFacts, Link, bind
from sgagent.core.errors import Problem
from sgagent.core.members import members_by_group
from sgagent.core.memo import Memo
from sgagent.core.model import (
    ALL_PROTOCOLS,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Cloud,
    Direction,
    Family,
    Mode,
    Policy,
    PortList,
    PortSet,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
    SourceCheck,
)
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from tests.words import (
    ACCEPT,
    ADVANCED,
    BASIC,
    DROP,
    IN,
    METADATA,
    OUT,
    PLATFORM,
    blocks,
    by_hand,
    group,
    interface,
    packet,
    policy_of,
    ports,
    resolution,
    rule,
    snapshot,
    verdict,
)

EVERYONE = "0.0.0.0/0"
ON_SG_1 = {"eth0": "sg-1"}


def codes(found: Resolution) -> list[tuple[str, str]]:
    """Return severity and code of every problem, in order."""
    return [(problem.severity.value, problem.code) for problem in found.problems]


def errors(found: Resolution) -> list[str]:
    """Return the codes of the errors."""
    return [problem.code for problem in found.errors]


def only(found: Resolution) -> Problem:
    """Return the one problem there is."""
    (problem,) = found.problems
    return problem


class TestUnknown:
    """Empty is not unknown (§5.3)."""

    @pytest.mark.parametrize(
        ("policy", "code"),
        ((ACCEPT, ("warning", "unknown_object")), (DROP, ("error", "unknown_object_in_drop"))),
    )
    @pytest.mark.parametrize(
        ("port", "far_end", "named"),
        (*(("80", text, text) for text in ("sg-2", "1/sg-2", "pl-2")), ("prl-1", EVERYONE, "prl-1")),
    )
    def test_an_unknown_object(
        self, policy: Policy, code: tuple[str, str], port: str, far_end: str, named: str
    ) -> None:
        """An accept rule matches nothing, with a warning; to ignore a drop rule would open something."""
        found = resolution(snapshot(group("sg-1", rule("r1", policy, TCP, port, far_end))))
        assert (codes(found), only(found).value) == ([code], named)
        assert found.unknown_objects == 1
        assert verdict(found.policy, packet(IN, "8.8.8.8", TCP, 80)) is DROP

    def test_an_unknown_port_list_holds_no_port(self) -> None:
        """A rule without ports matches nothing, not everything."""
        found = resolution(snapshot(group("sg-1", rule("r1", DROP, TCP, "prl-1", EVERYONE))))
        assert found.policy.interfaces[0].ingress.rules[0].ports == PortSet()

    @pytest.mark.parametrize("policy", tuple(Policy))
    @pytest.mark.parametrize(("port", "other_end"), (("80", "sg-2"), ("80", "pl-2"), ("prl-2", EVERYONE)))
    def test_an_empty_object_is_known(self, policy: Policy, port: str, other_end: str) -> None:
        """A group or list without members matches nothing, and nothing is said about it."""
        found = resolution(
            snapshot(
                group("sg-1", rule("r1", policy, TCP, port, other_end, direction=OUT)),
                group("sg-2"),
                PrefixList(prefix_list_id="pl-2", family=Family.IPV4),
                PortList(port_list_id="prl-2"),
            ),
            on=ON_SG_1,
        )
        assert codes(found) == []
        assert found.unknown_objects == 0
        assert verdict(found.policy, packet(OUT, "8.8.8.8", TCP, 80)) is ACCEPT

    def test_unknown_objects_are_counted_once(self) -> None:
        """Two rules that miss the same object miss one; what no bound interface depends on is not counted."""
        twice = [rule(name, ACCEPT, TCP, "80", "sg-9") for name in ("r1", "r2")]
        elsewhere = group("sg-2", rule("r3", ACCEPT, TCP, "prl-9", "pl-9"))
        definitions = snapshot(group("sg-1", *twice), elsewhere)
        assert resolution(definitions, on=ON_SG_1).unknown_objects == 1
        assert resolution(definitions, on=ON_SG_1, scope=Scope.EVERYTHING).unknown_objects == 3

    def test_losing_an_object_never_admits_a_packet(self) -> None:
        """Without the list that an accept rule names, what the list let in stays out."""
        rules = group("sg-1", rule("r1", ACCEPT, TCP, "80", "pl-1"))
        listed = PrefixList(prefix_list_id="pl-1", family=Family.IPV4, entries=blocks("10.0.0.0/8"))
        judged = packet(IN, "10.0.0.2", TCP, 80)
        assert verdict(resolution(snapshot(rules, listed)).policy, judged) is ACCEPT
        assert verdict(resolution(snapshot(rules)).policy, judged) is DROP


class TestAccounts:
    """Whose group a reference means (§5.2)."""

    @pytest.mark.parametrize(
        ("own", "written", "owner", "is_known"),
        (
            ("1", "sg-2", "1", True),
            ("1", "sg-2", "2", False),
            ("1", "sg-2", None, True),
            (None, "sg-2", None, True),
            (None, "sg-2", "2", False),
            ("1", "2/sg-2", "2", True),
            ("1", "2/sg-2", "1", False),
            ("1", "1/sg-2", "1", True),
            ("1", "2/sg-2", None, True),
            (None, "2/sg-2", "2", True),
        ),
    )
    def test_a_reference(self, own: str | None, written: str, owner: str | None, *, is_known: bool) -> None:
        """A plain id means the own account's group, or one of no account; ``account/id`` that account's."""
        found = resolution(
            snapshot(
                group("sg-1", rule("r1", ACCEPT, TCP, "80", written), account=own),
                group("sg-2", members=["10.0.0.2"], account=owner),
            ),
            on=ON_SG_1,
        )
        assert codes(found) == ([] if is_known else [("warning", "unknown_object")])
        expected = ACCEPT if is_known else DROP
        assert verdict(found.policy, packet(IN, "10.0.0.2", TCP, 80)) is expected

    def test_one_name_of_two_accounts_on_one_interface(self) -> None:
        """A plain id may be known to one group and unknown to another; neither takes from the other."""
        found = resolution(
            snapshot(
                group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-3"), account="1"),
                group("sg-2", rule("r2", ACCEPT, TCP, "81", "sg-3"), account="2"),
                group("sg-3", members=["10.0.0.2"], account="1"),
            ),
            on={"eth0": "sg-1,sg-2"},
        )
        assert codes(found) == [("warning", "unknown_object")]
        assert verdict(found.policy, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT
        assert verdict(found.policy, packet(IN, "10.0.0.2", TCP, 81)) is DROP


class TestVpc:
    """Groups reach only members of their own VPC (§5.2, §8.1)."""

    @pytest.mark.parametrize(
        ("own", "other", "expected"),
        (("vpc-1", "vpc-1", []), ("vpc-1", "vpc-2", ["other_vpc"]), ("vpc-1", None, []), (None, "vpc-2", [])),
    )
    @pytest.mark.parametrize("policy", tuple(Policy))
    def test_a_group_object(
        self, own: str | None, other: str | None, expected: list[str], policy: Policy
    ) -> None:
        """VPCs are compared where both are known; a group of another one is an error, and nobody."""
        found = resolution(
            snapshot(
                group("sg-1", rule("r1", policy, TCP, "80", "sg-2"), vpc=own),
                group("sg-2", members=["10.0.0.2"], vpc=other),
            ),
            on=ON_SG_1,
        )
        assert errors(found) == expected
        peer = found.policy.interfaces[0].ingress.rules[0].peer
        assert bool(peer.addresses) is not bool(expected)

    def test_an_attachment(self) -> None:
        """An interface has groups of its own VPC only."""
        definitions = snapshot(
            group("sg-1", vpc="vpc-2"), interface("eni-1", ["sg-1"], mac="00:16:3e:00:00:01", vpc="vpc-1")
        )
        hand = HandBinding(interface="eth0", network_interface_id="eni-1")
        bound = bind(definitions, [hand], HostFacts(), automatically=False)
        assert errors(resolve(definitions, bound, PLATFORM)) == ["other_vpc"]


class TestAttachments:
    """Groups on one interface."""

    def test_both_types(self) -> None:
        """Basic and advanced groups on one interface are an error (§3)."""
        found = resolution(snapshot(group("sg-1"), group("sg-2", group_type=ADVANCED)))
        assert errors(found) == ["mixed_group_types"]
        assert only(found).value == "sg-1 (basic), sg-2 (advanced)"

    def test_a_group_that_is_not_there(self) -> None:
        """A dangling attachment of a bound interface is an error (§8.1)."""
        found = resolution(snapshot(group("sg-1")), on={"eth0": "sg-1,sg-9"})
        assert errors(found) == ["dangling_attachment"]
        assert only(found).value == "sg-9"

    def test_elsewhere_they_are_warnings(self) -> None:
        """What is wrong on other hosts refuses nothing here; ``check`` calls it errors (§8.3)."""
        definitions = snapshot(
            group("sg-1"),
            group("sg-2", group_type=ADVANCED),
            interface("eni-1", ["sg-1", "sg-9"]),
            interface("eni-2", ["sg-1", "sg-2"]),
        )
        here = resolution(definitions, on=ON_SG_1)
        assert codes(here) == [("warning", "dangling_attachment"), ("warning", "mixed_group_types")]
        everywhere = resolution(definitions, on=ON_SG_1, scope=Scope.EVERYTHING)
        assert errors(everywhere) == ["dangling_attachment", "mixed_group_types"]

    def test_no_group_is_no_error(self) -> None:
        """An interface without groups is closed, which is said elsewhere (§3)."""
        found = resolution(snapshot(), on={"eth0": ""})
        assert codes(found) == []
        assert found.policy.interfaces[0].group_type is None
        assert found.policy.interfaces[0].egress.default is DROP
        assert found.policy.interfaces[0].egress.platform == (METADATA,)

    def test_a_group_that_is_named_twice(self) -> None:
        """Attached twice is attached once."""
        once = resolution(snapshot(group("sg-1", rule("r1", ACCEPT, TCP, "80", EVERYONE))), on=ON_SG_1)
        twice = resolution(
            snapshot(group("sg-1", rule("r1", ACCEPT, TCP, "80", EVERYONE))), on={"eth0": "sg-1,sg-1"}
        )
        assert once.policy == twice.policy


class TestScope:
    """Whose errors of meaning refuse the snapshot (§8.3)."""

    bad_rules = (
        (rule("r1", DROP, TCP, "80", "sg-9"), "unknown_object_in_drop"),
        (rule("r1", DROP, TCP, "prl-9", EVERYONE), "unknown_object_in_drop"),
        (rule("r1", ACCEPT, TCP, "80", "sg-other"), "other_vpc"),
        (rule("r1", ACCEPT, ICMPV6, "", "pl-1"), "family_of_protocol"),
    )

    @pytest.mark.parametrize(("bad", "code"), bad_rules)
    def test_a_group_that_nothing_here_depends_on(self, bad: SecurityGroupRule, code: str) -> None:
        """One mistake does not freeze a fleet: a warning here, an error for ``check`` and on its host."""
        definitions = snapshot(
            group("sg-1", rule("r0", ACCEPT, TCP, "80", "sg-2")),
            group("sg-2", bad, vpc="vpc-1"),
            group("sg-other", vpc="vpc-2"),
            PrefixList(prefix_list_id="pl-1", family=Family.IPV4),
        )
        assert codes(resolution(definitions, on=ON_SG_1)) == [("warning", code)]
        assert errors(resolution(definitions, on=ON_SG_1, scope=Scope.EVERYTHING)) == [code]
        assert errors(resolution(definitions, on={"eth0": "sg-2"})) == [code]

    def test_a_problem_is_said_once(self) -> None:
        """However many interfaces a group is on."""
        definitions = snapshot(group("sg-1", rule("r1", DROP, TCP, "80", "sg-9")))
        assert errors(resolution(definitions, on={"eth0": "sg-1", "eth1": "sg-1"})) == [
            "unknown_object_in_drop"
        ]

    def test_problems_of_binding_are_kept(self) -> None:
        """What could not be bound is among the problems."""
        definitions = snapshot(group("sg-1"))
        hand = HandBinding(interface="eth0", network_interface_id="eni-9")
        bound = bind(definitions, [hand], HostFacts(), automatically=False)
        assert errors(resolve(definitions, bound, PLATFORM)) == ["unknown_network_interface"]


class TestWarnings:
    """What the cloud would refuse but a host can do (§8.2)."""

    def test_a_group_object_in_an_advanced_group(self) -> None:
        """It works here all the same."""
        found = resolution(
            snapshot(
                group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-2"), group_type=ADVANCED),
                group("sg-2", members=["10.0.0.2"]),
            ),
            on=ON_SG_1,
        )
        assert codes(found) == [("warning", "group_object_in_advanced")]
        assert verdict(found.policy, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT

    def test_a_group_that_names_itself(self) -> None:
        """Its own members are meant; the cloud would refuse it."""
        own = group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-1"), inner=DROP, members=["10.0.0.2"])
        found = resolution(snapshot(own))
        assert codes(found) == [("warning", "own_group")]
        assert verdict(found.policy, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT
        assert verdict(found.policy, packet(IN, "10.0.0.2", TCP, 81)) is DROP

    @pytest.mark.parametrize(
        ("policy", "inner", "remedy"),
        (
            (ACCEPT, DROP, "set inner_access_policy to accept and remove the rule"),
            (ACCEPT, ACCEPT, "remove the rule: inner_access_policy is accept and comes before all rules"),
            (DROP, ACCEPT, "set inner_access_policy to drop and remove the rule"),
            (DROP, DROP, "use a CIDR or a prefix list"),
        ),
    )
    def test_a_rule_that_could_be_the_inner_policy(self, policy: Policy, inner: Policy, remedy: str) -> None:
        """All traffic from members is what that policy decides; where both drop, the rule precedes others."""
        found = resolution(snapshot(group("sg-1", rule("r", policy, ALL_PROTOCOLS, "", "sg-1"), inner=inner)))
        assert [(problem.code, problem.remedy) for problem in found.problems] == [("own_group", remedy)]

    @pytest.mark.parametrize(
        "narrow",
        (
            rule("r1", ACCEPT, TCP, "7946", "sg-1"),
            rule("r1", ACCEPT, UDP, "1-65535", "sg-1"),
            rule("r1", ACCEPT, ICMP, "", "sg-1"),
            rule("r1", ACCEPT, ALL_PROTOCOLS, "", "sg-1", direction=OUT),
            rule("r1", ACCEPT, ALL_PROTOCOLS, "", "sg-1", local="10.0.0.1"),
        ),
    )
    def test_less_than_the_inner_policy_is_not_replaced_by_it(self, narrow: SecurityGroupRule) -> None:
        """A protocol, the way out, or one address of the near end: accepting all would open more."""
        (problem,) = resolution(snapshot(group("sg-1", narrow, inner=DROP))).problems
        assert (problem.code, problem.remedy) == ("own_group", "use a CIDR or a prefix list")

    def test_what_one_cloud_refuses_is_not_said_of_another(self) -> None:
        """AWS lets groups name each other, and has other limits."""
        rules = [rule(f"r{place}", ACCEPT, TCP, str(place + 1), "sg-1") for place in range(1001)]
        groups = [group(f"sg-{place}", group_type=ADVANCED) for place in range(11)]
        groups[1] = replace(groups[1], rules=tuple(rules))
        theirs = [replace(one, cloud=Cloud.AWS) for one in groups]
        ours = ["many_groups", "many_rules", "group_object_in_advanced", "many_group_objects"]
        assert codes(resolution(snapshot(*theirs))) == []
        assert sorted({code for _, code in codes(resolution(snapshot(*groups)))}) == sorted(ours)

    @pytest.mark.parametrize(("number", "expected"), ((10, []), (11, [("warning", "many_groups")])))
    def test_many_groups(self, number: int, expected: list[tuple[str, str]]) -> None:
        """Ten groups on an interface are the most."""
        assert codes(resolution(snapshot(*(group(f"sg-{place}") for place in range(number))))) == expected

    @pytest.mark.parametrize(("number", "expected"), ((1000, []), (1001, [("warning", "many_rules")])))
    def test_many_rules(self, number: int, expected: list[tuple[str, str]]) -> None:
        """A thousand rules on an interface are the most."""
        rules = [rule(f"r{place}", ACCEPT, TCP, str(place + 1), EVERYONE) for place in range(number)]
        assert codes(resolution(snapshot(group("sg-1", *rules)))) == expected

    @pytest.mark.parametrize(("number", "expected"), ((20, []), (21, [("warning", "many_group_objects")])))
    def test_many_group_objects(self, number: int, expected: list[tuple[str, str]]) -> None:
        """Twenty rules of a group whose object is a group are the most."""
        rules = [rule(f"r{place}", ACCEPT, TCP, str(place + 1), "sg-2") for place in range(number)]
        definitions = snapshot(group("sg-1", *rules), group("sg-2", members=["10.0.0.2"]))
        assert codes(resolution(definitions, on=ON_SG_1)) == expected


class TestFamilies:
    """Families that do not fit (§8.1)."""

    @pytest.mark.parametrize(
        ("judged", "family", "code"),
        (
            (rule("r1", ACCEPT, ICMPV6, "", "pl-1"), Family.IPV4, "family_of_protocol"),
            (rule("r1", ACCEPT, TCP, "80", "pl-1", local="10.0.0.0/8"), Family.IPV6, "mixed_families"),
            (rule("r1", ACCEPT, TCP, "80", "pl-1", local="2001:db8::/64"), Family.IPV4, "mixed_families"),
        ),
    )
    def test_lists_of_the_other_family(self, judged: SecurityGroupRule, family: Family, code: str) -> None:
        """It must be of the family that protocol and near end have."""
        listed = PrefixList(prefix_list_id="pl-1", family=family)
        assert errors(resolution(snapshot(group("sg-1", judged), listed))) == [code]


class TestResolved:
    """What comes out."""

    def test_exemptions_go_to_their_direction(self) -> None:
        """Each list of the configuration is split by direction, for bound and unbound links alike."""
        found = resolution(snapshot(group("sg-1")), unbound_closed=True)
        for one in (*found.policy.interfaces, found.policy.unbound):
            assert one is not None
            assert one.ingress.platform == ()
            assert one.egress.platform == (METADATA,)

    def test_the_mode_is_the_bindings_own_or_the_default(self) -> None:
        """A binding may name its mode (§9.1)."""
        definitions = snapshot(group("sg-1"))
        hands = [HandBinding(interface="eth0", mode=Mode.OBSERVE), HandBinding(interface="eth1")]
        bound = bind(definitions, hands, HostFacts(), automatically=False)
        for default in Mode:
            policy = resolve(definitions, bound, PLATFORM, default_mode=default).policy
            assert [one.mode for one in policy.interfaces] == [Mode.OBSERVE, default]

    @pytest.mark.parametrize("direction", tuple(Direction))
    def test_rules_are_in_order_of_precedence(self, direction: Direction) -> None:
        """Of all groups together, each direction for itself."""
        holder: list[SecurityGroup] = [
            group(
                f"sg-{place}",
                rule(f"b{place}", ACCEPT, TCP, "80", EVERYONE, priority=2, direction=direction),
                rule(f"a{place}", DROP, TCP, "80", EVERYONE, priority=2, direction=direction),
            )
            for place in (2, 1)
        ]
        toward = resolution(snapshot(*holder)).policy.interfaces[0].toward(direction)
        assert [one.rule_id for one in toward.rules] == ["a1", "a2", "b1", "b2"]

    def test_members_that_are_listed_and_attached_are_one_set(self) -> None:
        """An address that is in both counts once; an address inside a delegated prefix too (§5.4)."""
        found = resolution(
            snapshot(
                group("sg-1", members=["10.0.0.2", "10.0.8.3"]),
                interface("eni-1", ["sg-1"], ["10.0.0.2", "10.0.8.0/28"]),
            )
        )
        inner = found.policy.interfaces[0].ingress.inner.ipv4
        assert inner == ((0x0A000002, 0x0A000002), (0x0A000800, 0x0A00080F))

    def test_nothing_is_exempt_without_lists(self) -> None:
        """Empty lists of the configuration leave only what §7.1 always allows."""
        policy = resolution(snapshot(group("sg-1", group_type=ADVANCED)), exemptions=Exemptions()).policy
        assert verdict(policy, packet(OUT, "100.100.100.200", TCP, 80)) is DROP


@pytest.mark.parametrize(
    ("given", "merged"),
    (
        ("80", "80"),
        ("80-90,85-95", "80-95"),
        ("80-90,91-95", "80-95"),
        ("80-90,82-83", "80-90"),
        ("80,82", "80,82"),
    ),
)
def test_ports_are_merged(given: str, merged: str) -> None:
    """Ranges that overlap or touch are one."""
    web = rule("r1", ACCEPT, TCP, given, "10.0.0.0/8", source_ports=given)
    (found,) = policy_of(group("sg-1", web)).interfaces[0].ingress.rules
    assert (found.ports, found.source_ports) == (ports(merged), ports(merged))


def test_problems_are_counted_by_severity() -> None:
    """For metrics and summaries."""
    found = resolution(
        snapshot(
            group("sg-1", rule("r1", DROP, UDP, "80", "sg-9"), rule("r2", ACCEPT, ALL_PROTOCOLS, "", "sg-8"))
        )
    )
    assert sorted(problem.severity.value for problem in found.problems) == ["error", "warning"]


@pytest.mark.parametrize("rules", ((), (rule("sgr-1", ACCEPT, TCP, "80", "sg-1"),)))
def test_a_member_of_another_vpc_in_a_group_that_is_depended_on(rules: tuple[SecurityGroupRule, ...]) -> None:
    """An attachment elsewhere that would let another VPC's addresses in is an error here (§5.2, §8.3)."""
    definitions = snapshot(
        group("sg-0", *rules, vpc="vpc-1"),
        group("sg-1", vpc="vpc-1"),
        interface("eni-x", ["sg-1"], ["10.0.0.5"], vpc="vpc-2"),
    )
    found = resolution(definitions, on={"eth0": "sg-0" if rules else "sg-1"})
    assert [problem.code for problem in found.errors] == ["other_vpc"]
    assert not resolution(definitions, on={"eth0": ""}).errors


class Watched(SecurityGroup):
    """A group of which one can tell whether anybody still holds it."""


def watched(known: SecurityGroup) -> Watched:
    """Return the same group, to be watched."""
    return Watched(**{one.name: getattr(known, one.name) for one in fields(known)})


def test_nobody_holds_what_a_rule_named_before() -> None:
    """A group that is written anew with the members that it had takes its place, and changes no rule."""
    named, memory = group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-2")), Memo()
    hand = HandBinding(interface="eth0", security_group_ids=("sg-1",))
    bound = bind(snapshot(named), (hand,), HostFacts(), automatically=False)
    versions = [watched(group("sg-2", rule("r", ACCEPT, TCP, str(port), EVERYONE))) for port in range(80, 84)]
    held = list(map(weakref.ref, versions))
    found = []
    while versions:
        found.append(resolve(snapshot(named, versions.pop(0)), bound, Exemptions(), memo=memory).policy)
    assert found[1:] == found[:-1]
    assert [one() for one in held] == [None] * 4


class TestSourceCheck:
    """By which addresses sources are checked, and on which links (§12.6)."""

    definitions = snapshot(
        group("sg-1"), interface("eni-1", ["sg-1"], ["10.0.0.11", "10.0.8.0/28", "2001:db8::11"])
    )

    def own(
        self, hand: HandBinding, *carried: str, by_default: SourceCheck = SourceCheck.ON
    ) -> AddressSet | None:
        """Return the own addresses of a link that carries some."""
        links = (Link(name="eth0", index=2, addresses=blocks(*carried)),) if carried else ()
        bound = bind(self.definitions, (hand,), HostFacts(links=links), automatically=False)
        found = resolve(self.definitions, bound, Exemptions(), source_check=by_default)
        return found.policy.interfaces[0].own_addresses

    def test_addresses_of_link_and_network_interface(self) -> None:
        """Both are own, be they on one side only."""
        hand = HandBinding(interface="eth0", network_interface_id="eni-1")
        documented = blocks("10.0.0.11", "10.0.8.0/28", "2001:db8::11")
        assert self.own(hand, "10.0.0.11", "fe80::1") == AddressSet.of((*documented, *blocks("fe80::1")))
        assert self.own(hand) == AddressSet.of(documented), "also before the link exists"

    def test_a_link_bound_to_groups_has_its_own_addresses(self) -> None:
        """Where no network interface is known; without groups, too."""
        for groups in (("sg-1",), ()):
            hand = HandBinding(interface="eth0", security_group_ids=groups)
            assert self.own(hand, "10.0.0.7") == AddressSet.of(blocks("10.0.0.7"))

    def test_an_interface_wins_over_the_default(self) -> None:
        """Whichever way."""
        hand = HandBinding(interface="eth0", source_check=SourceCheck.OFF)
        assert self.own(hand, "10.0.0.7") is None
        on = replace(hand, source_check=SourceCheck.ON)
        assert self.own(on, "10.0.0.7", by_default=SourceCheck.OFF) is not None
        undecided = replace(hand, source_check=None)
        assert self.own(undecided, "10.0.0.7", by_default=SourceCheck.OFF) is None


def test_members_follow_interfaces_from_step_to_step() -> None:
    """What a memo holds of members is not taken once an interface has other addresses."""
    memo = Memo()
    for addresses in (["10.0.0.1"], ["10.0.0.2"], ["10.0.0.2", "10.0.0.3"], []):
        interfaces = (interface(f"eni-{one}", ["sg-1"], [one]) for one in addresses)
        found = members_by_group(snapshot(group("sg-1"), *interfaces), memo)
        assert found["sg-1"] == AddressSet.of(blocks(*addresses))


def test_a_group_that_changes_its_type_is_told_to_rules_that_refer_to_it() -> None:
    """What a memo holds of those rules is not taken then (§8.2)."""
    memo = Memo()
    refers = group("sg-1", rule("sgr-1", ACCEPT, TCP, "80", "sg-2"))
    for group_type in (BASIC, ADVANCED, BASIC):
        definitions = snapshot(refers, group("sg-2", members=("10.0.0.5",), group_type=group_type))
        bindings = by_hand(definitions, {"eth0": "sg-1"})
        found = resolve(definitions, bindings, Exemptions(), memo=memo).problems
        expected = [] if group_type is BASIC else ["advanced_group_object"]
        assert [one.code for one in found] == expected
