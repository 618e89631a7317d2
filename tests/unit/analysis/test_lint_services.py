"""What lint finds of services: shut out, opened in part, or open to everyone where they amplify."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.analysis.lint.findings import Finding
from sgagent.core.model import ALL_PROTOCOLS, GRE, TCP, UDP, GroupType, Policy, SecurityGroup
from tests.unit.analysis.test_lint import findings_of
from tests.words import ACCEPT, DROP, OUT, group, interface, rule


def found(code: str, *objects: object) -> Finding | None:
    """Return the first finding of a check."""
    return findings_of(*objects).get(code)


def egress(*rules: tuple[Policy, object, str, str]) -> SecurityGroup:
    """Return a group that drops all egress over IPv4 but what rules accept before."""
    accepts = [
        rule(f"r{number}", policy, protocol, ports, other, direction=OUT)  # type: ignore[arg-type] # as given
        for number, (policy, protocol, ports, other) in enumerate(rules)
    ]
    last = rule("none", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", direction=OUT, priority=2)
    return group("sg-1", *accepts, last, inner=DROP)


IPV4 = ["10.0.0.1"]


def test_an_allow_list_without_names_and_time() -> None:
    """The guide's case 6 as it is written."""
    one = found("dns_ntp_shut", egress((ACCEPT, TCP, "443", "192.0.2.1")), interface("eni-1", ["sg-1"], IPV4))
    assert one is not None
    assert (one.rule_ids, one.interfaces) == (("none",), ("eni-1",))
    assert "DNS" in one.message
    assert "NTP" in one.message


@pytest.mark.parametrize(
    ("service", "left"),
    (
        ((ACCEPT, UDP, "53", "192.0.2.1"), "NTP"),
        ((ACCEPT, TCP, "853", "192.0.2.1"), "NTP"),
        ((ACCEPT, UDP, "123", "192.0.2.0/24"), "DNS"),
        ((ACCEPT, UDP, "53", "2001:db8::1"), "NTP"),
    ),
)
def test_what_is_accepted_is_not_missed(service: tuple[Policy, object, str, str], left: str) -> None:
    """One server of either family will do."""
    one = found("dns_ntp_shut", egress(service), interface("eni-1", ["sg-1"], [*IPV4, "2001:db8::9"]))
    assert one is not None
    assert one.message.startswith(f"members reach no {left} (")
    assert " and no " not in one.message


def test_a_broad_accept_lets_servers_be_asked() -> None:
    """Whatever its ports."""
    assert found("dns_ntp_shut", egress((ACCEPT, ALL_PROTOCOLS, "", "10.0.0.0/8"))) is None


def test_the_other_family_shut_is_none() -> None:
    """Hosts with IPv6 alone, whose IPv4 is shut."""
    assert found("dns_ntp_shut", egress(), interface("eni-1", ["sg-1"], ["2001:db8::1"])) is None


def test_an_advanced_group_shuts_them_by_default() -> None:
    """Where it is attached; one that leaves egress to the groups beside it is not asked alone."""
    advanced = replace(
        group("sg-1", rule("in", ACCEPT, TCP, "443", "10.0.0.0/8")), group_type=GroupType.ADVANCED
    )
    one = found("dns_ntp_shut", advanced, interface("eni-1", ["sg-1"], IPV4))
    assert one is not None
    assert (one.object_id, one.rule_ids) == ("sg-1", ())
    assert found("dns_ntp_shut", advanced) is None


@pytest.mark.parametrize(
    ("passive", "is_found"), (("", True), ("3306", True), ("40000-40099", False), ("1-65535", False))
)
def test_ftp_needs_a_passive_range(passive: str, is_found: bool) -> None:  # noqa: FBT001 - as said
    """From the same clients; a port of something else is none."""
    rules = [rule("ftp", ACCEPT, TCP, "21", "10.0.1.0/24")]
    rules += [rule("passive", ACCEPT, TCP, passive, "10.0.0.0/8")] if passive else []
    assert (found("ftp_without_passive", group("sg-1", *rules, inner=DROP)) is not None) is is_found


def test_a_passive_range_for_others_is_none() -> None:
    """Clients of which some may not open it are found."""
    rules = (
        rule("ftp", ACCEPT, TCP, "21", "10.0.0.0/8"),
        rule("passive", ACCEPT, TCP, "40000-40099", "10.1.0.0/16"),
    )
    one = found("ftp_without_passive", group("sg-1", *rules, inner=DROP))
    assert one is not None
    assert one.rule_ids == ("ftp",)


@pytest.mark.parametrize("port", ("161", "389", "1900", "11211"))
@pytest.mark.parametrize("everyone", ("0.0.0.0/0", "::/0"))
def test_amplifiers_for_everyone(port: str, everyone: str) -> None:
    """Over UDP; over TCP another check speaks, or none."""
    one = found("reflector_open", group("sg-1", rule("r", ACCEPT, UDP, port, everyone), inner=DROP))
    assert one is not None
    assert f"udp {port} " in one.message
    tcp = group("sg-1", rule("r", ACCEPT, TCP, port, everyone), inner=DROP)
    assert found("reflector_open", tcp) is None


@pytest.mark.parametrize(("protocol", "port"), ((UDP, "161"), (GRE, "")))
@pytest.mark.parametrize(("other", "is_found"), (("0.0.0.0/0", True), ("10.0.0.0/8", False)))
def test_everyone_alone_counts(protocol: object, port: str, other: str, is_found: bool) -> None:  # noqa: FBT001 - as given
    """A network is not everyone; GRE is found as UDP is."""
    one = group("sg-1", rule("r", ACCEPT, protocol, port, other), inner=DROP)  # type: ignore[arg-type] # as given
    assert (found("reflector_open", one) is not None) is is_found


def test_everything_open_is_said_once() -> None:
    """Where a rule opens all, that finding says it."""
    codes = findings_of(group("sg-1", rule("r", ACCEPT, ALL_PROTOCOLS, "", "0.0.0.0/0"), inner=DROP))
    assert "open_to_everyone" in codes
    assert "reflector_open" not in codes


@pytest.mark.parametrize(
    ("own", "other", "is_found"),
    (
        ("sg-web-prod", "sg-db-test", True),
        ("sg-web-prod", "sg-db-pre-prod", True),
        ("sg-web-test", "sg-db-dev", False),
        ("sg-web-prod", "sg-live-test-prod", False),
        ("sg-live", "sg-test", False),
    ),
)
@pytest.mark.parametrize("direction_is_out", (False, True))
def test_environments_by_name(own: str, other: str, is_found: bool, direction_is_out: bool) -> None:  # noqa: FBT001 - as given
    """A rule that names a group of the other environment is found, with members or without."""
    direction = {"direction": OUT} if direction_is_out else {}
    one = rule("r", ACCEPT, TCP, "443", other, **direction)  # type: ignore[arg-type] # as given
    assert (
        found("mixed_environments", group(own, one, inner=DROP), group(other, inner=DROP)) is not None
    ) is is_found


def test_a_tag_comes_before_a_name() -> None:
    """And a drop between the two is no contact."""
    own, other = group("sg-prod", inner=DROP), group("sg-test", inner=DROP)
    names = replace(own, rules=(rule("r", ACCEPT, TCP, "443", "sg-test"),))
    assert found("mixed_environments", names, replace(other, tags=(("env", "prod"),))) is None
    drops = replace(own, rules=(rule("r", DROP, TCP, "443", "sg-test"),))
    assert found("mixed_environments", drops, other) is None
