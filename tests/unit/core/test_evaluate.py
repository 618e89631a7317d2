"""The specification: every step of §3, every way to match of §4 and §5, what is always allowed of §7."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.addresses import AddressSet
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Packet, Tracking, is_always_allowed
from sgagent.core.model import (
    ALL_PROTOCOLS,
    GRE,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Direction,
    Family,
    GroupType,
    Mode,
    Policy,
    PortList,
    PrefixList,
    Protocol,
)
from sgagent.core.policy import Exemption, ResolvedDirection, ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import Exemptions
from tests.words import (
    ACCEPT,
    ADVANCED,
    BASIC,
    DROP,
    IN,
    METADATA,
    OUT,
    block,
    blocks,
    decision,
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
ONLY_SG_1 = {"eth0": "sg-1"}


OWN = AddressSet.of(blocks("10.0.0.1", "10.0.8.0/28", "2001:db8::1", "fe80::1"))


class TestSourceCheck:
    """Whose packets may leave and enter where sources are checked (§12.6)."""

    policy = ResolvedPolicy(
        interfaces=tuple(
            replace(one, own_addresses=OWN)
            for one in policy_of(
                group(
                    "sg-1",
                    *(
                        rule(f"r{n}", ACCEPT, ALL_PROTOCOLS, "", of)
                        for n, of in enumerate((EVERYONE, "::/0"))
                    ),
                )
            ).interfaces
        )
    )

    @pytest.mark.parametrize("source", ("10.0.0.1", "10.0.8.15", "2001:db8::1", "fe80::1"))
    def test_an_own_address_leaves_and_does_not_enter(self, source: str) -> None:
        """It is of the link, or of the network interface: secondary, delegated or link-local."""
        far = "192.0.2.9" if "." in source else "2001:db8:9::9"
        assert verdict(self.policy, packet(OUT, far, TCP, 443, near_end=source)) is ACCEPT
        found = decision(self.policy, packet(IN, source, TCP, 80))
        assert (found.verdict, found.decided_by, found.rule) == (DROP, DecidedBy.SPOOFED, None)

    @pytest.mark.parametrize("source", ("10.0.0.2", "10.0.8.16", "2001:db8::2", "::"))
    def test_another_address_enters_and_does_not_leave(self, source: str) -> None:
        """Also where a rule accepts it; the rule is named among those that match."""
        far = "192.0.2.9" if "." in source else "2001:db8:9::9"
        found = decision(self.policy, packet(OUT, far, TCP, 443, near_end=source))
        assert (found.verdict, found.decided_by) == (DROP, DecidedBy.SPOOFED)
        entered = decision(self.policy, packet(IN, source, TCP, 80))
        assert entered.decided_by is DecidedBy.RULE
        shadowed = decision(self.policy, packet(IN, "10.0.0.1", TCP, 80)).shadowed
        assert [one.rule_id for one in shadowed] == ["r0"]

    def test_known_sessions_and_invalid_packets_are_not_asked(self) -> None:
        """The check is for what no current session covers; what conntrack calls invalid is that first."""
        judged = packet(OUT, "192.0.2.9", TCP, 443, near_end="10.0.0.2")
        for tracking, step in (
            (Tracking.ALLOWED, DecidedBy.SESSION),
            (Tracking.INVALID, DecidedBy.INVALID),
            (Tracking.UNTRACKED, DecidedBy.SPOOFED),
        ):
            assert decision(self.policy, replace(judged, tracking=tracking)).decided_by is step

    def test_what_is_always_allowed_needs_no_source(self) -> None:
        """DHCP and neighbour discovery pass from any address; the platform and fail-safe lists need one."""
        dhcp = packet(OUT, "255.255.255.255", UDP, 67, near_end="10.0.0.2", source_port=68)
        solicitation = packet(OUT, "ff02::1:ff00:1", ICMPV6, near_end="::", icmp_type=135, hop_limit=255)
        for judged in (dhcp, solicitation):
            assert decision(self.policy, judged).decided_by is DecidedBy.ALWAYS
        far = replace(solicitation, hop_limit=254)
        metadata = packet(OUT, "100.100.100.200", TCP, 80, near_end="10.0.0.2")
        for judged in (far, metadata):
            assert decision(self.policy, judged).decided_by is DecidedBy.SPOOFED


class TestSteps:
    """Which step of §3 decides."""

    drops_all = group("sg-1", rule("r1", DROP, ALL_PROTOCOLS, "", EVERYONE), members=["10.0.0.2"])

    def test_an_invalid_packet_is_dropped_before_all(self) -> None:
        """Not even what no group can block passes if conntrack calls it invalid (§3, §6.6)."""
        policy = policy_of(self.drops_all)
        judged = packet(OUT, "100.100.100.200", TCP, 80, tracking=Tracking.INVALID)
        assert decision(policy, judged).decided_by is DecidedBy.INVALID
        assert verdict(policy, judged) is DROP

    def test_an_allowed_session_goes_first(self) -> None:
        """Step 1: what the current policy allowed is accepted whatever stands behind (§3.1, §6.1)."""
        judged = packet(IN, "10.0.0.9", TCP, 80, tracking=Tracking.ALLOWED)
        assert decision(policy_of(self.drops_all), judged).decided_by is DecidedBy.SESSION

    def test_an_untracked_packet_has_no_session(self) -> None:
        """An untracked packet skips step 1 and is judged by its own header (§6.6)."""
        judged = packet(IN, "10.0.0.9", TCP, 80, tracking=Tracking.UNTRACKED)
        assert decision(policy_of(self.drops_all), judged).decided_by is DecidedBy.RULE

    def test_the_platform_goes_before_groups(self) -> None:
        """Step 2: no egress drop cuts the metadata service off (§3.2, §7.3)."""
        policy = policy_of(group("sg-1", rule("r1", DROP, ALL_PROTOCOLS, "", EVERYONE, direction=OUT)))
        found = decision(policy, packet(OUT, "100.100.100.200", GRE))
        assert (found.verdict, found.decided_by) == (ACCEPT, DecidedBy.ALWAYS)

    def test_the_fail_safe_list_goes_before_members_and_rules(self) -> None:
        """Step 3: what the agent's own configuration saves, no group can block (§3.3, §7.4)."""
        ssh = Exemption(direction=IN, peer=block("10.0.0.2"), protocol=TCP, ports=ports("22"))
        found = resolution(snapshot(self.drops_all), exemptions=Exemptions(failsafe=(ssh,)))
        assert decision(found.policy, packet(IN, "10.0.0.2", TCP, 22)).decided_by is DecidedBy.FAILSAFE
        assert decision(found.policy, packet(IN, "10.0.0.2", TCP, 23)).decided_by is DecidedBy.INNER

    def test_members_go_before_rules(self) -> None:
        """Step 4: a drop rule of priority 1 does not cut fellow members (§3.4)."""
        found = decision(policy_of(self.drops_all), packet(IN, "10.0.0.2", TCP, 80))
        assert (found.verdict, found.decided_by) == (ACCEPT, DecidedBy.INNER)
        assert [shadowed.rule_id for shadowed in found.shadowed] == ["r1"]

    def test_a_rule_goes_before_the_default(self) -> None:
        """Step 5 decides if a rule matches, step 6 if none does."""
        policy = policy_of(group("sg-1", rule("r1", ACCEPT, TCP, "80", "10.0.0.2")))
        assert decision(policy, packet(IN, "10.0.0.2", TCP, 80)).decided_by is DecidedBy.RULE
        assert decision(policy, packet(IN, "10.0.0.2", TCP, 81)).decided_by is DecidedBy.DEFAULT

    def test_shadowed_rules_come_in_order_of_precedence(self) -> None:
        """Every other rule that matches is named, whatever step decided."""
        policy = policy_of(
            group(
                "sg-1",
                rule("z", DROP, TCP, "80", EVERYONE, priority=2),
                rule("b", ACCEPT, TCP, "80", EVERYONE),
                rule("a", ACCEPT, ALL_PROTOCOLS, "", EVERYONE),
                rule("other", ACCEPT, TCP, "81", EVERYONE),
            )
        )
        found = decision(policy, packet(IN, "8.8.8.8", TCP, 80))
        assert found.rule is not None
        assert [found.rule.rule_id, *(one.rule_id for one in found.shadowed)] == ["a", "b", "z"]


class TestInner:
    """Step 4: members of basic groups whose inner access policy is accept."""

    def test_egress_has_no_such_step(self) -> None:
        """A custom egress drop does hit a fellow member (§3)."""
        policy = policy_of(
            group("sg-1", rule("r1", DROP, TCP, "", "10.0.0.2", direction=OUT), members=["10.0.0.2"])
        )
        assert verdict(policy, packet(OUT, "10.0.0.2", TCP, 80)) is DROP

    def test_inner_drop_only_takes_the_step_away(self) -> None:
        """With the inner policy drop, accept rules still work between members (§3)."""
        web = rule("r1", ACCEPT, TCP, "80", "10.0.0.2")
        policy = policy_of(group("sg-1", web, inner=DROP, members=["10.0.0.2"]))
        assert verdict(policy, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT
        assert verdict(policy, packet(IN, "10.0.0.2", TCP, 81)) is DROP

    @pytest.mark.parametrize("inner", tuple(Policy))
    def test_an_advanced_group_never_has_it(self, inner: Policy) -> None:
        """Whatever its field says (§3)."""
        policy = policy_of(group("sg-1", group_type=ADVANCED, inner=inner, members=["10.0.0.2"]))
        assert verdict(policy, packet(IN, "10.0.0.2", TCP, 80)) is DROP

    def test_any_one_shared_group_suffices(self) -> None:
        """A shared group with drop takes nothing away from one with accept (§3.4)."""
        policy = policy_of(
            group("sg-1", inner=DROP, members=["10.0.0.2"]),
            group("sg-2", members=["10.0.0.2", "2001:db8::2"]),
        )
        assert verdict(policy, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT
        assert verdict(policy, packet(IN, "2001:db8::2", TCP, 80)) is ACCEPT

    def test_it_is_not_transitive(self) -> None:
        """That B is in both groups does not let A of one reach C of the other (§3.4)."""
        objects = (
            group("sg-1"),
            group("sg-2"),
            interface("eni-a", ["sg-1"], ["10.0.0.1"]),
            interface("eni-b", ["sg-1", "sg-2"], ["10.0.0.2"]),
            interface("eni-c", ["sg-2"], ["10.0.0.3"]),
        )
        at_c = policy_of(*objects, on={"eth0": "sg-2"})
        assert verdict(at_c, packet(IN, "10.0.0.1", TCP, 80)) is DROP
        assert verdict(at_c, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT


class TestOrder:
    """Step 5: priority, then drop, and nothing else."""

    @pytest.mark.parametrize(
        ("accept", "drop", "expected"),
        (
            (1, 2, ACCEPT),
            (2, 1, DROP),
            (1, 1, DROP),
            (100, 100, DROP),
            (99, 100, ACCEPT),
            (110, 100, DROP),
            (9, 10, ACCEPT),
            (110, 1000, ACCEPT),
        ),
    )
    def test_the_smaller_number_then_drop(self, accept: int, drop: int, expected: Policy) -> None:
        """Priorities are ordered as numbers, beyond 100 too (§4.6); among equals drop wins (§3.5)."""
        policy = policy_of(
            group(
                "sg-1",
                rule("a", ACCEPT, TCP, "80", EVERYONE, priority=accept),
                rule("b", DROP, TCP, "80", EVERYONE, priority=drop),
            )
        )
        assert verdict(policy, packet(IN, "8.8.8.8", TCP, 80)) is expected

    def test_rules_of_all_groups_are_one_list(self) -> None:
        """Neither the group nor the length of a prefix orders rules (§3.5)."""
        policy = policy_of(
            group("sg-1", rule("a", ACCEPT, TCP, "80", "10.1.1.1", priority=2)),
            group("sg-2", rule("b", DROP, TCP, "80", "10.0.0.0/8", priority=2)),
            group("sg-3", rule("c", ACCEPT, TCP, "80", EVERYONE, priority=1)),
        )
        found = decision(policy, packet(IN, "10.1.1.1", TCP, 80))
        assert found.rule is not None
        assert found.rule.rule_id == "c"
        assert [one.rule_id for one in found.shadowed] == ["b", "a"]

    def test_the_smallest_id_gets_the_hit(self) -> None:
        """Among rules that agree in priority and policy the smallest rule id is named (§3.5)."""
        policy = policy_of(
            group("sg-2", rule("a", DROP, TCP, "80", EVERYONE)),
            group("sg-1", rule("b", DROP, TCP, "80", EVERYONE)),
        )
        found = decision(policy, packet(IN, "8.8.8.8", TCP, 80))
        assert found.rule is not None
        assert (found.rule.rule_id, found.rule.security_group_id) == ("a", "sg-2")


class TestDefaults:
    """Step 6, and interfaces without groups or without enforcement."""

    @pytest.mark.parametrize(
        ("group_type", "direction", "expected"),
        ((BASIC, IN, DROP), (BASIC, OUT, ACCEPT), (ADVANCED, IN, DROP), (ADVANCED, OUT, DROP)),
    )
    def test_each_type_has_one(self, group_type: GroupType, direction: Direction, expected: Policy) -> None:
        """Ingress is dropped by both types, egress by the advanced one (§3.6); in both families."""
        policy = policy_of(group("sg-1", group_type=group_type))
        for far_end in ("8.8.8.8", "2001:db8::9"):
            found = decision(policy, packet(direction, far_end, TCP, 22))
            assert (found.verdict, found.decided_by) == (expected, DecidedBy.DEFAULT)

    def test_no_group_is_no_default_of_either_type(self) -> None:
        """An interface without groups is closed both ways, steps 1 to 3 apart (§3)."""
        policy = policy_of(on={"eth0": ""})
        for direction in Direction:
            found = decision(policy, packet(direction, "8.8.8.8", TCP, 22))
            assert (found.verdict, found.decided_by) == (DROP, DecidedBy.DEFAULT)
        assert verdict(policy, packet(OUT, "100.100.100.200", TCP, 80)) is ACCEPT
        assert verdict(policy, packet(IN, "10.0.0.3", UDP, 68, source_port=67)) is ACCEPT

    def test_an_unbound_link_is_not_judged(self) -> None:
        """A link that nothing is bound to passes everything (§2.3)."""
        found = decision(policy_of(group("sg-1")), packet(IN, "8.8.8.8", TCP, 22, link="eth7"))
        assert (found.verdict, found.decided_by) == (ACCEPT, DecidedBy.UNBOUND)

    def test_an_unbound_link_may_be_closed(self) -> None:
        """``unbound_interfaces = "closed"`` closes it, but never loopback (§9.3, §2.3)."""
        policy = resolution(snapshot(group("sg-1")), unbound_closed=True).policy
        assert verdict(policy, packet(OUT, "8.8.8.8", TCP, 22, link="eth7")) is DROP
        assert verdict(policy, packet(OUT, "8.8.8.8", TCP, 22, link="lo")) is ACCEPT
        assert verdict(policy, packet(OUT, "8.8.8.8", TCP, 22, link="eth0")) is ACCEPT

    def test_observing_says_what_enforcing_would_do(self) -> None:
        """In observe mode the verdict is the one that enforcing would bring (§9.1)."""
        policy = resolution(snapshot(group("sg-1")), mode=Mode.OBSERVE).policy
        assert verdict(policy, packet(IN, "8.8.8.8", TCP, 22)) is DROP


class TestProtocols:
    """What a rule's protocol matches (§4.1)."""

    @pytest.mark.parametrize(
        ("named", "sent", "expected"),
        (
            (TCP, 6, ACCEPT),
            (TCP, 17, DROP),
            (UDP, 17, ACCEPT),
            (GRE, 47, ACCEPT),
            (GRE, 6, DROP),
            (ICMP, 1, ACCEPT),
            (ICMP, 58, DROP),
            (Protocol(0), 0, ACCEPT),
            (Protocol(255), 255, ACCEPT),
            (Protocol(253), 254, DROP),
            (Protocol(6), 6, ACCEPT),
            *((ALL_PROTOCOLS, number, ACCEPT) for number in (0, 1, 6, 17, 47, 58, 132, 253, 255)),
        ),
    )
    def test_over_ipv4(self, named: Protocol, sent: int, expected: Policy) -> None:
        """A number equals its name; ``all`` is every protocol, unknown ones and those without ports too."""
        policy = policy_of(group("sg-1", rule("r1", ACCEPT, named, "", EVERYONE)))
        assert verdict(policy, packet(IN, "8.8.8.8", sent, 9 if sent in (6, 17) else None)) is expected

    @pytest.mark.parametrize(
        ("named", "sent", "expected"),
        ((ICMPV6, 58, ACCEPT), (ALL_PROTOCOLS, 58, ACCEPT), (GRE, 47, ACCEPT), (TCP, 58, DROP)),
    )
    def test_over_ipv6(self, named: Protocol, sent: int, expected: Policy) -> None:
        """ICMPv6 is a protocol of its own."""
        policy = policy_of(group("sg-1", rule("r1", ACCEPT, named, "", "::/0")))
        assert verdict(policy, packet(IN, "2001:db8::9", sent)) is expected

    def test_icmp_is_of_one_family(self) -> None:
        """With a group as object, icmp still speaks of IPv4 and icmpv6 of IPv6 alone."""
        members = group("sg-2", members=["10.0.0.2", "2001:db8::2"])
        for named, ping, other in (
            (ICMP, packet(IN, "10.0.0.2", 1), packet(IN, "2001:db8::2", 58)),
            (ICMPV6, packet(IN, "2001:db8::2", 58), packet(IN, "10.0.0.2", 1)),
        ):
            policy = policy_of(group("sg-1", rule("r1", ACCEPT, named, "", "sg-2")), members, on=ONLY_SG_1)
            assert verdict(policy, ping) is ACCEPT
            assert verdict(policy, other) is DROP

    def test_icmp_over_ipv6_is_not_icmp(self) -> None:
        """Protocol 1 in an IPv6 packet is not IPv4's ICMP, and 58 in an IPv4 packet not ICMPv6."""
        policy = policy_of(
            group("sg-1", rule("r1", ACCEPT, ICMP, "", "sg-2"), rule("r2", ACCEPT, Protocol(58), "", "sg-2")),
            group("sg-2", members=["10.0.0.2", "2001:db8::2"]),
            on=ONLY_SG_1,
        )
        assert verdict(policy, packet(IN, "2001:db8::2", 1)) is DROP
        assert verdict(policy, packet(IN, "10.0.0.2", 58)) is DROP


class TestPorts:
    """What a rule's ports match (§4.2 to §4.4)."""

    @pytest.mark.parametrize(
        ("written", "port", "expected"),
        (
            ("80", 79, DROP),
            ("80", 80, ACCEPT),
            ("80", 81, DROP),
            ("80-90", 80, ACCEPT),
            ("80-90", 90, ACCEPT),
            ("80-90", 91, DROP),
            ("1-65535", 0, DROP),
            ("1-65535", 1, ACCEPT),
            ("1-65535", 65535, ACCEPT),
            ("", 0, ACCEPT),
            ("", 65535, ACCEPT),
            ("22,80-81,443", 81, ACCEPT),
            ("22,80-81,443", 442, DROP),
            ("80-85,83-90", 88, ACCEPT),
        ),
    )
    @pytest.mark.parametrize("direction", tuple(Direction))
    def test_it_is_the_destination_port(
        self, written: str, port: int, expected: Policy, direction: Direction
    ) -> None:
        """In both directions; ``-1/-1`` holds port 0 too, ``1/65535`` does not."""
        allowing = rule("r1", ACCEPT, TCP, written, EVERYONE, direction=direction)
        policy = policy_of(group("sg-1", allowing, group_type=ADVANCED))
        assert verdict(policy, packet(direction, "8.8.8.8", TCP, port, source_port=40_000)) is expected

    def test_a_port_list(self) -> None:
        """A port list stands for its entries; an empty one matches nothing (§4.3, §5.3)."""
        policy = policy_of(
            group(
                "sg-1", rule("r1", ACCEPT, UDP, "prl-1", EVERYONE), rule("r2", ACCEPT, TCP, "prl-2", EVERYONE)
            ),
            PortList(port_list_id="prl-1", entries=ports("53,5353")),
            PortList(port_list_id="prl-2"),
        )
        assert verdict(policy, packet(IN, "8.8.8.8", UDP, 5353)) is ACCEPT
        assert verdict(policy, packet(IN, "8.8.8.8", UDP, 54)) is DROP
        assert verdict(policy, packet(IN, "8.8.8.8", TCP, 53)) is DROP

    def test_source_ports(self) -> None:
        """Both ends must match where both are given (§4.4)."""
        policy = policy_of(group("sg-1", rule("r1", ACCEPT, TCP, "80", EVERYONE, source_ports="1024-65535")))
        for source_port, port, expected in (
            (1023, 80, DROP),
            (1024, 80, ACCEPT),
            (65535, 80, ACCEPT),
            (2000, 81, DROP),
        ):
            judged = packet(IN, "8.8.8.8", TCP, port, source_port=source_port)
            assert verdict(policy, judged) is expected

    @pytest.mark.parametrize(("written", "expected"), (("", ACCEPT), ("1-65535", DROP)))
    def test_a_packet_too_short_for_ports(self, written: str, expected: Policy) -> None:
        """A packet without ports is in no range of them, only in all."""
        policy = policy_of(group("sg-1", rule("r1", ACCEPT, TCP, written, EVERYONE)))
        assert verdict(policy, packet(IN, "8.8.8.8", TCP, tracking=Tracking.UNTRACKED)) is expected


class TestEnds:
    """Whom a rule speaks of (§4.5, §5)."""

    @pytest.mark.parametrize("direction", tuple(Direction))
    def test_the_object_is_the_far_end(self, direction: Direction) -> None:
        """The source of what comes in, the destination of what goes out (§1.2)."""
        allowing = rule("r1", ACCEPT, TCP, "80", "10.1.0.0/16", direction=direction)
        policy = policy_of(group("sg-1", allowing, group_type=ADVANCED))
        assert verdict(policy, packet(direction, "10.1.255.255", TCP, 80, near_end="10.2.0.1")) is ACCEPT
        assert verdict(policy, packet(direction, "10.2.0.0", TCP, 80, near_end="10.1.0.1")) is DROP

    @pytest.mark.parametrize("direction", tuple(Direction))
    def test_the_local_address_is_the_near_end(self, direction: Direction) -> None:
        """A rule may hold for some of the interface's own addresses only (§4.5)."""
        allowing = rule("r1", ACCEPT, TCP, "80", EVERYONE, direction=direction, local="10.0.0.0/30")
        policy = policy_of(group("sg-1", allowing, group_type=ADVANCED))
        assert verdict(policy, packet(direction, "8.8.8.8", TCP, 80, near_end="10.0.0.3")) is ACCEPT
        assert verdict(policy, packet(direction, "8.8.8.8", TCP, 80, near_end="10.0.0.4")) is DROP

    def test_a_local_address_settles_the_family(self) -> None:
        """With a group as object, a local address of one family leaves the other out."""
        policy = policy_of(
            group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-2", local=EVERYONE)),
            group("sg-2", members=["10.0.0.2", "2001:db8::2"]),
            on=ONLY_SG_1,
        )
        assert verdict(policy, packet(IN, "10.0.0.2", TCP, 80)) is ACCEPT
        assert verdict(policy, packet(IN, "2001:db8::2", TCP, 80)) is DROP

    def test_families_are_independent(self) -> None:
        """``0.0.0.0/0`` never opens IPv6, ``::/0`` never IPv4 (§2.4)."""
        for whole, opened, other in (
            (EVERYONE, "8.8.8.8", "2001:db8::9"),
            ("::/0", "2001:db8::9", "8.8.8.8"),
        ):
            policy = policy_of(group("sg-1", rule("r1", ACCEPT, ALL_PROTOCOLS, "", whole)))
            assert verdict(policy, packet(IN, opened, TCP, 80)) is ACCEPT
            assert verdict(policy, packet(IN, other, TCP, 80)) is DROP

    def test_a_group_is_all_addresses_of_its_members(self) -> None:
        """Secondary addresses, IPv6, delegated prefixes and listed members; nothing else (§5.2)."""
        policy = policy_of(
            group("sg-1", rule("r1", ACCEPT, TCP, "80", "sg-2")),
            group("sg-2", members=["10.0.0.5"]),
            interface("eni-1", ["sg-2"], ["10.0.0.2", "10.0.0.3", "2001:db8::2", "10.0.8.0/28"]),
            interface("eni-2", ["sg-1"], ["10.0.0.4"]),
            on=ONLY_SG_1,
        )
        for member in ("10.0.0.2", "10.0.0.3", "10.0.0.5", "2001:db8::2", "10.0.8.0", "10.0.8.15"):
            assert verdict(policy, packet(IN, member, TCP, 80)) is ACCEPT, member
        for stranger in ("10.0.8.16", "10.0.7.255", "2001:db8::3", "203.0.113.2"):
            assert verdict(policy, packet(IN, stranger, TCP, 80)) is DROP, stranger

    def test_a_prefix_list(self) -> None:
        """A prefix list is its entries, which may nest (§5.4); an empty one is nobody (§5.3)."""
        nested = blocks("203.0.113.0/24", "203.0.113.7/32", "198.51.100.7/32")
        policy = policy_of(
            group("sg-1", rule("r1", ACCEPT, TCP, "80", "pl-1"), rule("r2", ACCEPT, TCP, "81", "pl-2")),
            PrefixList(prefix_list_id="pl-1", family=Family.IPV4, entries=nested),
            PrefixList(prefix_list_id="pl-2", family=Family.IPV4),
        )
        assert verdict(policy, packet(IN, "203.0.113.255", TCP, 80)) is ACCEPT
        assert verdict(policy, packet(IN, "198.51.100.7", TCP, 80)) is ACCEPT
        assert verdict(policy, packet(IN, "198.51.100.8", TCP, 80)) is DROP
        assert verdict(policy, packet(IN, "203.0.113.7", TCP, 81)) is DROP


def advanced() -> ResolvedPolicy:
    """Return a policy that allows nothing by itself, in either direction."""
    return policy_of(group("sg-1", group_type=ADVANCED))


class TestAlwaysAllowed:
    """What a host needs to have an address at all (§7.1)."""

    @pytest.mark.parametrize(
        ("direction", "server", "protocol", "ports", "expected"),
        (
            (IN, "10.0.0.3", UDP, (67, 68), ACCEPT),
            (OUT, "10.0.0.3", UDP, (68, 67), ACCEPT),
            (IN, "10.0.0.3", UDP, (68, 67), DROP),
            (OUT, "10.0.0.3", UDP, (67, 68), DROP),
            (IN, "10.0.0.3", UDP, (67, 67), DROP),
            (IN, "10.0.0.3", UDP, (547, 546), DROP),
            (IN, "10.0.0.3", TCP, (67, 68), DROP),
            (IN, "fe80::3", UDP, (547, 546), ACCEPT),
            (OUT, "fe80::3", UDP, (546, 547), ACCEPT),
            (IN, "fe80::3", UDP, (546, 547), DROP),
            (IN, "fe80::3", UDP, (67, 68), DROP),
        ),
    )
    def test_dhcp(
        self, direction: Direction, server: str, protocol: Protocol, ports: tuple[int, int], expected: Policy
    ) -> None:
        """Requests leave and answers come, over UDP, by each family's ports; the host is not a server."""
        judged = packet(direction, server, protocol, ports[1], source_port=ports[0])
        assert verdict(advanced(), judged) is expected

    @pytest.mark.parametrize(
        ("icmp_type", "hop_limit", "expected"),
        (
            *((number, 255, ACCEPT) for number in (133, 134, 135, 136)),
            *((number, 254, DROP) for number in (133, 134, 135, 136)),
            (137, 255, DROP),
            (128, 255, DROP),
            (132, 255, DROP),
        ),
    )
    @pytest.mark.parametrize("direction", tuple(Direction))
    def test_neighbour_discovery(
        self, direction: Direction, icmp_type: int, hop_limit: int, expected: Policy
    ) -> None:
        """Hop limit 255 proves that it comes from this link; addresses may be global ones."""
        judged = packet(
            direction,
            "2001:db8::9",
            ICMPV6,
            icmp_type=icmp_type,
            hop_limit=hop_limit,
            tracking=Tracking.UNTRACKED,
        )
        assert verdict(advanced(), judged) is expected

    @pytest.mark.parametrize(
        ("icmp_type", "source", "hop_limit", "expected"),
        (
            *((number, "fe80::9", 1, ACCEPT) for number in (130, 131, 132, 143)),
            (130, "::", 1, ACCEPT),
            (130, "febf:ffff::1", 1, ACCEPT),
            (130, "fec0::1", 1, DROP),
            (130, "2001:db8::9", 1, DROP),
            (143, "fe80::9", 2, DROP),
            (143, "fe80::9", 255, DROP),
            (129, "fe80::9", 1, DROP),
        ),
    )
    def test_multicast_listeners(self, icmp_type: int, source: str, hop_limit: int, expected: Policy) -> None:
        """Reports and queries come from a link-local address or none, with hop limit 1."""
        judged = packet(
            IN, source, ICMPV6, icmp_type=icmp_type, hop_limit=hop_limit, tracking=Tracking.UNTRACKED
        )
        assert verdict(advanced(), judged) is expected

    def test_the_source_counts_outwards_too(self) -> None:
        """A report that leaves is judged by its own source, the near end."""
        near = packet(OUT, "ff02::16", ICMPV6, near_end="fe80::1", icmp_type=143, hop_limit=1)
        assert is_always_allowed(near)
        assert not is_always_allowed(replace(near, source=0x20010DB8 << 96 | 1))

    def test_ipv4_has_no_neighbour_discovery(self) -> None:
        """ICMPv6's number in an IPv4 packet is nothing that is always allowed."""
        judged = packet(IN, "10.0.0.9", 58, icmp_type=135, hop_limit=255)
        assert verdict(advanced(), judged) is DROP

    def test_the_load_balancers_health_checks_are_not(self) -> None:
        """100.64.0.0/10 is let in by nobody but a rule, as in the cloud (§7.3)."""
        assert verdict(advanced(), packet(IN, "100.64.0.1", TCP, 80)) is DROP

    @pytest.mark.parametrize("protocol", (6, 17, 1, 47, 253))
    def test_the_metadata_service_outwards(self, protocol: int) -> None:
        """All protocols and ports, only that address, only outwards (§7.3)."""
        port = 80 if protocol in (6, 17) else None
        assert verdict(advanced(), packet(OUT, "100.100.100.200", protocol, port)) is ACCEPT
        assert verdict(advanced(), packet(OUT, "100.100.100.201", protocol, port)) is DROP
        assert verdict(advanced(), packet(IN, "100.100.100.200", protocol, port)) is DROP


class TestExemptions:
    """What an entry of the configuration's lists speaks of (§7.4)."""

    ssh = Exemption(direction=IN, peer=block("192.0.2.10"), protocol=TCP, ports=ports("22"))

    @pytest.mark.parametrize(
        ("judged", "expected"),
        (
            (packet(IN, "192.0.2.10", TCP, 22), ACCEPT),
            (packet(IN, "192.0.2.11", TCP, 22), DROP),
            (packet(IN, "192.0.2.10", TCP, 23), DROP),
            (packet(IN, "192.0.2.10", UDP, 22), DROP),
            (packet(OUT, "192.0.2.10", TCP, 22), DROP),
            (packet(IN, "192.0.2.10", TCP), DROP),
            (packet(IN, "::c000:20a", TCP, 22), DROP),
        ),
    )
    def test_everything_must_fit(self, judged: Packet, expected: Policy) -> None:
        """Direction, family, address, protocol and port."""
        exemptions = Exemptions(platform=(METADATA,), failsafe=(self.ssh,))
        definitions = snapshot(group("sg-1", group_type=ADVANCED))
        policy = resolution(definitions, exemptions=exemptions).policy
        assert verdict(policy, judged) is expected

    @pytest.mark.parametrize("judged", (IN, OUT))
    @pytest.mark.parametrize("spoken_of", (IN, OUT))
    def test_an_entry_speaks_of_one_direction(self, spoken_of: Direction, judged: Direction) -> None:
        """An entry of the other direction exempts nothing, wherever it stands."""
        entry = replace(METADATA, direction=spoken_of)
        there = ResolvedDirection(platform=(entry,))
        policy = ResolvedPolicy(interfaces=(ResolvedInterface(name="eth0", ingress=there, egress=there),))
        expected = ACCEPT if judged is spoken_of else DROP
        assert verdict(policy, packet(judged, "100.100.100.200", TCP, 80)) is expected
