"""What lint finds: for each check a bad example and a good one, and in the examples that are shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sgagent.analysis.lint.edits import SearchBudget
from sgagent.analysis.lint.findings import CODES, Finding, FindingSeverity
from sgagent.analysis.lint.registry import CHECKS, lint, steps
from sgagent.analysis.lint.subject import LiveHost, make_subject
from sgagent.core.binding import HostListener
from sgagent.core.counter_keys import HitTimes, RuleCounter
from sgagent.core.model import (
    ALL_PROTOCOLS,
    ICMP,
    ICMPV6,
    TCP,
    Direction,
    Family,
    Policy,
    PortSet,
    PrefixList,
    Protocol,
    Snapshot,
)
from sgagent.core.resolve import Exemptions
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings import Settings
from tests.corpus import EXAMPLES
from tests.words import (
    ACCEPT,
    DROP,
    IN,
    OUT,
    by_hand,
    group,
    interface,
    policy_of,
    rule,
    rule_counter,
    snapshot,
)

LINT = EXAMPLES / "lint"
EXEMPTIONS = Exemptions(platform=Settings().platform)
DAY = 86_400.0
NOW = 100 * DAY
AT = datetime(2026, 1, 1, tzinfo=UTC)


def read(*paths: Path) -> Snapshot:
    """Return the definitions of files, which have no errors of form."""
    files = [DocumentFile(str(path), path.read_bytes()) for path in paths]
    return parse_documents(files, Limits())[0]


def usage(rule_id: str, days: float) -> tuple[RuleCounter, HitTimes]:
    """Return that a rule of the web group was counted for long, and hit so many days ago."""
    key = rule_counter(rule_id, group_id="sg-web")
    return key, HitTimes(counted_since=0.0, last_hit_at=NOW - days * DAY)


def live_host_of(definitions: Snapshot) -> LiveHost:
    """Return a live host with the web group on its one link, where something listens at port 443."""
    bound = {"eth0": "sg-web"} if "sg-web" in definitions.group_by_id else {}
    judges = policy_of(*definitions.security_groups, on=bound).interfaces if bound else ()
    return LiveHost(
        bound=judges,
        usage=dict((usage("sgr-web", 0.5), usage("sgr-old-site", 60))),
        now=NOW,
        listeners=(HostListener(family=Family.IPV6, address=0, protocol=TCP.wire_number, port=443),),
        forwarded=(Family.IPV4,),
        unused_seconds=30 * DAY,
    )


OF_LIVE_HOST = ("admits_behind", "unused_rule", "nothing_listens", "unreached_listener")


def found_in(path: Path, code: str) -> tuple[Finding, ...]:
    """Return all that is found in an example of a check."""
    definitions = read(path)
    host = live_host_of(definitions) if code in OF_LIVE_HOST else LiveHost()
    return lint(make_subject(definitions, EXEMPTIONS, host=host, at=AT))


def test_the_codes_are_those_of_the_checks() -> None:
    """Who only needs the names has all of them, in the same order; each check says what it finds."""
    assert tuple(CHECKS) == CODES
    assert all(check.summary for check in CHECKS.values())


def test_every_check_has_examples() -> None:
    """And no other has."""
    assert {path.name for path in LINT.iterdir() if path.is_dir()} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_the_bad_example_is_found_fault_with(code: str) -> None:
    """The check finds it, with a reason, a remedy and something that it is about."""
    findings = [one for one in found_in(LINT / code / "bad.yaml", code) if one.code == code]
    assert findings
    for one in findings:
        assert one.message
        assert one.remedy
        assert one.rule_ids or one.object_id or one.interfaces


@pytest.mark.parametrize("code", CODES)
def test_the_good_example_is_not(code: str) -> None:
    """The check finds nothing in it."""
    assert [one for one in found_in(LINT / code / "good.yaml", code) if one.code == code] == []


@pytest.mark.parametrize("code", CODES)
def test_a_check_that_is_disabled_finds_nothing(code: str) -> None:
    """The others find what they found."""
    definitions = read(LINT / code / "bad.yaml")
    host = live_host_of(definitions) if code in OF_LIVE_HOST else LiveHost()
    subject = make_subject(definitions, EXEMPTIONS, host=host, at=AT)
    everything = lint(subject)
    assert lint(subject, {code}) == tuple(one for one in everything if one.code != code)


def test_who_waits_is_told_of_every_step() -> None:
    """As many as were announced, whatever is disabled."""
    subject = make_subject(read(LINT / "never_reached" / "bad.yaml"), EXEMPTIONS)
    told: list[None] = []
    lint(subject, {"never_reached"}, lambda: told.append(None))
    assert len(told) == steps(subject) > len(CODES)


@pytest.mark.parametrize("policy", (ACCEPT, DROP))
@pytest.mark.parametrize(
    ("members", "protocol", "local", "family"),
    (
        (["2001:db8::1"], ICMP, None, "IPv4"),
        (["192.0.2.1"], ICMPV6, None, "IPv6"),
        (["2001:db8::1"], TCP, "10.0.0.0/24", "IPv4"),
        (["192.0.2.1"], ALL_PROTOCOLS, "2001:db8::/64", "IPv6"),
        (["192.0.2.1"], ICMP, None, None),
        (["2001:db8::1"], TCP, None, None),
        (["192.0.2.1", "2001:db8::1"], ICMPV6, "2001:db8::/64", None),
    ),
)
def test_a_rule_whose_group_has_nobody_of_its_family(
    policy: Policy, members: list[str], protocol: Protocol, local: str | None, family: str | None
) -> None:
    """It matches no packet, whatever it does; accept or drop."""
    one = rule("one", policy, protocol, "80" if protocol is TCP else "", "sg-app", local=local)
    definitions = snapshot(
        group("sg-web", one), group("sg-app", members=members), interface("eni-1", ["sg-web"], ["10.0.0.1"])
    )
    found = [found for found in lint(make_subject(definitions, EXEMPTIONS)) if found.code == "empty_object"]
    assert [f.message for f in found] == (
        [f"sg-app has no {family} address, and the rule is for {family} only: no packet matches"]
        if family
        else []
    )


def test_every_rule_about_an_empty_object_is_named() -> None:
    """Who reads the text alone must not find the others one by one."""
    rules = [rule(f"r{number}", Policy.ACCEPT, ICMP, "", "sg-app") for number in range(6)]
    definitions = snapshot(
        group("sg-web", *rules),
        group("sg-app", members=["2001:db8::1"]),
        interface("eni-1", ["sg-web"], ["10.0.0.1"]),
    )
    (found,) = [one for one in lint(make_subject(definitions, EXEMPTIONS)) if one.code == "empty_object"]
    assert found.subject == "r0 of sg-web"
    assert found.message == (
        "sg-app has no IPv4 address, and the rule is for IPv4 only: no packet matches;"
        " likewise r1 of sg-web, r2 of sg-web, r3 of sg-web and 2 more"
    )


@pytest.mark.parametrize(
    ("empty", "protocol", "message"),
    (
        ("sg-none", TCP, "sg-none is empty, so that no packet matches this object"),
        ("pl-none", TCP, "pl-none is empty, so that no packet matches this object"),
        (
            "sg-six",
            ICMP,
            "sg-six has no IPv4 address, and the rule is for IPv4 only: no packet matches this object",
        ),
    ),
)
def test_an_empty_object_beside_others_spares_the_rule(empty: str, protocol: Protocol, message: str) -> None:
    """Whoever removed the rule would lose what the other objects open (§12.1)."""
    one = rule("one", ACCEPT, protocol, "80" if protocol is TCP else "", f"{empty},10.0.0.0/8")
    definitions = snapshot(
        group("sg-web", one),
        group("sg-none"),
        group("sg-six", members=["2001:db8::1"]),
        PrefixList(prefix_list_id="pl-none", family=Family.IPV4, entries=()),
        interface("eni-1", ["sg-web"], ["10.0.0.1"]),
    )
    (found,) = (one for one in lint(make_subject(definitions, EXEMPTIONS)) if one.code == "empty_object")
    assert found.message == message
    assert found.remedy.endswith("or remove it from the rule")


SHOWN: Mapping[str, set[tuple[str, str]]] = {
    # The guide's own broad accept, closed for MySQL alone, on a host that serves everything.
    "3-databases": {
        ("open_to_everyone", "sgr-everything"),
        ("database_without_closing_drop", "sgr-everything"),
        ("mixed_services", "sgr-mssql"),
    },
    # The trap is what it is there for.
    "6t-the-trap": {("deny_before_accepts", "sgr-out-nothing")},
    # The guide's own: names and time are for the reader to add.
    "6-egress-allow-list": {("dns_ntp_shut", "sgr-out-nothing")},
    "10-names": {("dns_ntp_shut", "")},
    "5-internal": {("ftp_without_passive", "sgr-files-own"), ("ftp_without_passive", "sgr-files-partner")},
    # That is what it shows; the ended accept is looked for at a time only.
    "8-expiry": {("expiring_drop", "sgr-migration")},
    # Entries that nest are normal input (§5.4); the way to the application is written down, though a basic
    # group lets everything out.
    "three-tier": {
        ("idle_prefix_list", ""),
        ("redundant_rule", "sgr-web-to-app"),
        ("dns_ntp_shut", "sgr-database-sealed"),
    },
    # The vectors show one point each, with as few rules as that takes.
    "vectors/ipv4-opens-no-ipv6": {("open_to_everyone", "sgr-1")},
    "vectors/unknown-protocol": {("open_to_everyone", "sgr-1")},
    "vectors/legacy-priority": {("never_reached", "sgr-old"), ("redundant_rule", "sgr-new")},
    "vectors/drop-wins-over-groups": {("redundant_rule", "sgr-2")},
    "vectors/inner-accept-before-drop": {("redundant_rule", "sgr-1")},
    "vectors/membership-is-not-transitive": {("needless_inner_accept", "")},
}
"""What is found in the examples, each by the rule that it is about: what they deliberately show."""


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("**/groups.d")), ids=lambda path: str(path.parent.relative_to(EXAMPLES))
)
def test_the_shipped_examples(path: Path) -> None:
    """Nothing is found in them but what they show on purpose."""
    findings = lint(make_subject(read(*sorted(path.iterdir())), EXEMPTIONS))
    found = {(one.code, one.rule_ids[0] if one.rule_ids else "") for one in findings}
    assert found == SHOWN.get(str(path.parent.relative_to(EXAMPLES)), set())


def findings_of(*objects: object, on: Mapping[str, str] | None = None) -> dict[str, Finding]:
    """Return what is found in definitions, by code; the first of each."""
    definitions = snapshot(*objects)  # type: ignore[arg-type]  # passed through
    hands = by_hand(definitions, on).bindings if on else ()
    subject = make_subject(definitions, EXEMPTIONS, by_hand=hands, only_by_hand=bool(hands))
    found: dict[str, Finding] = {}
    for one in lint(subject):
        found.setdefault(one.code, one)
    return found


def test_a_drop_that_the_inner_policy_voids() -> None:
    """Fellow members pass before the rules (§3.4), so the remedy is another."""
    drop = rule("shut", DROP, TCP, "22", "10.0.0.1")
    found = findings_of(group("sg-1", drop), interface("eni-1", ["sg-1"], ["10.0.0.1"]))
    assert "inner access policy" in found["void_drop"].message
    assert "inner access policy" in found["void_drop"].remedy


def test_a_drop_is_void_only_where_another_group_accepts() -> None:
    """Where it stands alone it works; the finding names the interface where it does not."""
    shut = group("sg-shut", rule("shut", DROP, TCP, "3306", "0.0.0.0/0", priority=50), inner=DROP)
    wide = group("sg-wide", rule("wide", ACCEPT, TCP, "3300-3310", "0.0.0.0/0"), inner=DROP)
    found = findings_of(
        shut, wide, interface("eni-1", ["sg-shut"]), interface("eni-2", ["sg-shut", "sg-wide"])
    )
    assert found["void_drop"].interfaces == ("eni-2",)
    assert "never_reached" not in found


def test_lint_says_where_it_stopped() -> None:
    """It names the list and how far it got, and calls none of its rules needless; with more cells it does."""
    definitions = read(LINT / "never_reached" / "bad.yaml")
    stopped, whole = (make_subject(definitions, EXEMPTIONS, most_cells=most) for most in (0, None))
    codes = [{finding.code for finding in lint(subject)} for subject in (stopped, whole)]
    assert "never_reached" not in codes[0]
    assert "never_reached" in codes[1]
    (text, _) = stopped.unfinished
    assert "looked at 0 of " in text
    assert not whole.unfinished


@pytest.mark.parametrize("code", ("deny_before_accepts", "void_drop", "contradicting_tie"))
def test_lint_says_that_it_tried_no_more_edits(code: str) -> None:
    """All searches share one bound; a finding for which nothing was tried names the option that tries."""
    definitions = read(LINT / code / "bad.yaml")
    stopped, whole = (make_subject(definitions, EXEMPTIONS, most_cells=most) for most in (1_000, None))
    stopped.search.left = 0.0
    (without, *_), (having, *_) = (
        [one for one in lint(subject) if one.code == code] for subject in (stopped, whole)
    )
    assert having.fix is not None
    assert without.fix is None
    assert without.remedy == "decide which of them is meant; --exhaustive looks for priorities"
    assert [text.partition(":")[0] for text in stopped.unfinished] == ["edits"]
    assert not whole.unfinished


def test_the_bound_of_edits_counts_rules() -> None:
    """One that is over is told once, and what is left serves what is smaller."""
    search = SearchBudget(left=5.0)
    found = [(search.allows(rules), search.is_cut) for rules in (3, 4, 2)]
    assert found == [(True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("narrow", "rules"), ((0, 4), (1, 4), (3, 12)))
def test_rules_that_cut_packets_further_count_more(narrow: int, rules: int) -> None:
    """Each rule is compared in every part that source ports make."""
    plain = [rule(f"r-{number}", ACCEPT, TCP, "80", "192.0.2.1") for number in range(4)]
    cut = [replace(one, source_ports=PortSet.of((1, 9))) for one in plain[:narrow]]
    subject = make_subject(snapshot(group("sg-1", *cut, *plain[narrow:], inner=DROP)), EXEMPTIONS)
    assert subject.rules_of_a_try == rules


def test_a_rule_is_never_reached_only_if_it_is_nowhere() -> None:
    """A group on several interfaces, with other groups or without."""
    base = group("sg-base", rule("ssh", ACCEPT, TCP, "22", "192.0.2.10", priority=2), inner=DROP)
    wide = group("sg-wide", rule("wide", ACCEPT, TCP, "20-25", "192.0.2.0/24"), inner=DROP)
    alone, beside = interface("eni-1", ["sg-base"]), interface("eni-2", ["sg-base", "sg-wide"])
    assert "never_reached" not in findings_of(base, wide, alone, beside)
    assert findings_of(base, wide, beside)["never_reached"].rule_ids == ("ssh", "wide")


@pytest.mark.parametrize(("ports", "is_tie"), (("", False), ("80", True)))
def test_a_tie_that_an_earlier_rule_decides_is_none(ports: str, is_tie: bool) -> None:  # noqa: FBT001 - as said
    """Two rules of one priority contradict each other only where nothing before them decides."""
    first = rule("r-first", ACCEPT, TCP, ports, "0.0.0.0/0")
    pair = (rule(f"r-{one.value}", one, TCP, "22", "0.0.0.0/0", priority=2) for one in (ACCEPT, DROP))
    found = findings_of(group("sg-1", first, *pair), on={"eth0": "sg-1"})
    assert ("contradicting_tie" in found) is is_tie


def test_each_combination_of_groups_has_its_own_judge() -> None:
    """Also where there are more than ten, named in another order than they are attached."""
    groups = [group(f"sg-{number}") for number in range(12)]
    attached = [interface(f"eni-{12 - number}", groups=(f"sg-{number}",)) for number in range(12)]
    subject = make_subject(snapshot(*groups, *attached), EXEMPTIONS)
    found = {one.interfaces: one.judge.security_group_ids for one in subject.attachments}
    assert found == {(f"eni-{12 - number}",): (f"sg-{number}",) for number in range(12)}


def test_only_what_is_bound_by_hand_is_looked_at_where_that_is_asked() -> None:
    """As everywhere, ``--interface`` leaves all else alone."""
    wide = group("sg-wide", rule("all", ACCEPT, TCP, "", "0.0.0.0/0"), inner=DROP)
    found = findings_of(group("sg-1", inner=DROP), wide, on={"eth0": "sg-1"})
    assert found == {}


def test_open_in_parts_is_open() -> None:
    """Two halves of all addresses are everyone, though no rule says 0.0.0.0/0."""
    halves = [rule(f"half-{n}", ACCEPT, TCP, "22", f"{n}.0.0.0/1") for n in (0, 128)]
    assert (
        findings_of(group("sg-1", *halves, inner=DROP))["sensitive_port_open"].severity
        is FindingSeverity.ERROR
    )


def test_open_to_everyone_but_some_is_open() -> None:
    """A drop for some addresses before it narrows nothing much."""
    rules = (
        rule("wide", ACCEPT, TCP, "3389", "0.0.0.0/0", priority=2),
        rule("no", DROP, TCP, "", "10.0.0.0/8"),
    )
    assert findings_of(group("sg-1", *rules, inner=DROP))["sensitive_port_open"].rule_ids == ("wide",)


def test_a_sensitive_port_that_is_closed_again_is_not_found() -> None:
    """What a drop of the same priority shuts is not open."""
    rules = rule("wide", ACCEPT, TCP, "20-30", "0.0.0.0/0"), rule("no", DROP, TCP, "21-23", "0.0.0.0/0")
    assert "sensitive_port_open" not in findings_of(group("sg-1", *rules, inner=DROP))


def test_workbench_may_log_in() -> None:
    """The networks that the guide itself names are not too wide (case 2b)."""
    rules = [
        rule(f"r{n}", ACCEPT, TCP, "22", net) for n, net in enumerate(("161.117.0.0/16", "100.104.0.0/16"))
    ]
    assert findings_of(group("sg-1", *rules, inner=DROP)) == {}


def test_production_and_test_in_a_shared_group() -> None:
    """The inner policy of a group that both are in lets them reach each other."""
    shared = group("sg-shared")
    production, testing = (group(name, inner=DROP) for name in ("sg-a-production", "sg-b-test"))
    found = findings_of(
        shared,
        replace(production, tags=(("environment", "prod"),)),
        replace(testing, tags=(("Environment", "QA"),)),
        interface("eni-1", ["sg-a-production", "sg-shared"], ["10.0.0.1"]),
        interface("eni-2", ["sg-b-test", "sg-shared"], ["10.0.0.2"]),
    )
    assert "inner access policy" in found["mixed_environments"].message


def test_unused_needs_time_and_silence() -> None:
    """A rule that is counted only since yesterday, or was hit on another link, is not called unused."""
    definitions = read(LINT / "unused_rule" / "bad.yaml")
    key, old = usage("sgr-old-site", 60)
    elsewhere = rule_counter("sgr-old-site", group_id="sg-web", link="eth1")
    young = HitTimes(counted_since=NOW - DAY, last_hit_at=None)
    for usages in ({key: young}, {key: old, elsewhere: HitTimes(counted_since=0.0, last_hit_at=NOW)}):
        host = LiveHost(usage=usages, now=NOW, unused_seconds=30 * DAY)
        found = lint(make_subject(definitions, EXEMPTIONS, host=host))
        assert [one for one in found if one.code == "unused_rule"] == []


def test_egress_is_not_what_a_listener_hears() -> None:
    """A rule outwards opens no port of this host."""
    out = rule("out", ACCEPT, TCP, "443", "0.0.0.0/0", direction=OUT)
    definitions = snapshot(group("sg-web", out, inner=DROP))
    found = lint(make_subject(definitions, EXEMPTIONS, host=live_host_of(definitions)))
    assert "unreached_listener" in {one.code for one in found}


def test_fellow_members_who_never_come() -> None:
    """Where the agent counts them and none came for long, nothing needs the inner policy."""
    definitions = snapshot(group("sg-1"), interface("eni-1", ["sg-1"], ["10.0.0.1"]))
    judges = policy_of(*definitions.security_groups, on={"eth0": "sg-1"}).interfaces
    for days, expected in ((60, {"needless_inner_accept"}), (1, set())):
        inner = {"eth0": HitTimes(counted_since=0.0, last_hit_at=NOW - days * DAY)}
        host = LiveHost(bound=judges, inner_usage=inner, now=NOW, unused_seconds=30 * DAY)
        assert {one.code for one in lint(make_subject(definitions, EXEMPTIONS, host=host))} == expected


def changed(example: str, *changes: tuple[str, str]) -> tuple[Finding, ...]:
    """Return what is found in an example once texts in it are others."""
    files = []
    for path in sorted((EXAMPLES / example / "groups.d").iterdir()):
        text = path.read_text(encoding="utf-8")
        for before, after in changes:
            text = text.replace(before, after)
        files.append(DocumentFile(path.name, text.encode()))
    return lint(make_subject(parse_documents(files, Limits())[0], EXEMPTIONS))


def test_case_3_with_a_broad_accept_that_decides_first() -> None:
    """At any priority from 1 to 99 it makes the closing drop void (§10)."""
    for priority in (1, 50, 99):
        found = changed(
            "3-databases",
            (
                "priority: 100\n        protocol: tcp\n        port_range: 1/65535",
                f"priority: {priority}\n        protocol: tcp\n        port_range: 1/65535",
            ),
        )
        (void,) = (one for one in found if one.code == "void_drop")
        assert void.rule_ids[:2] == ("sgr-mysql-shut", "sgr-everything")
        assert f"priority {priority}" in void.remedy


def test_case_6_without_the_drop_for_ipv6() -> None:
    """What is shut over IPv4 leaves over IPv6 by the default of basic groups (§10)."""
    found = changed(
        "6-egress-allow-list", ("authorization_object: ::/0", 'authorization_object: "2001:db8::/32"')
    )
    assert {one.code for one in found} == {"one_family_shut", "dns_ntp_shut"}
    assert {one.rule_ids for one in found} == {("sgr-out-nothing",)}


def test_case_6_trap_with_a_drop_before_the_accepts() -> None:
    """A drop that comes even before them is the same trap."""
    found = changed(
        "6-egress-allow-list",
        (
            "priority: 1\n        protocol: tcp\n        port_range: 80",
            "priority: 3\n        protocol: tcp\n        port_range: 80",
        ),
    )
    (trap,) = (one for one in found if one.code == "deny_before_accepts")
    assert trap.rule_ids == ("sgr-out-nothing", "sgr-out-http")
    assert "greater than 3" in trap.remedy


def one_sided(*rules: str, database: str = "") -> set[tuple[str, str]]:
    """Return what is found one-sided between the application and the database."""
    text = f"""
version: 1
security_groups:
  - {{security_group_id: sg-app, type: advanced, rules: [{", ".join(rules)}]}}
  - {{security_group_id: sg-database, type: basic, inner_access_policy: drop, rules: [{database}]}}
network_interfaces:
  - {{network_interface_id: eni-a, addresses: [10.0.0.1], security_group_ids: [sg-app]}}
  - {{network_interface_id: eni-d, addresses: [10.0.0.2], security_group_ids: [sg-database]}}
"""
    return {
        (finding.rule_ids[0], finding.message.partition(" from ")[0].partition(" to ")[0])
        for finding in lint(make_subject(parsed(text), EXEMPTIONS))
        if finding.code == "one_sided_rule"
    }


def parsed(text: str) -> Snapshot:
    """Return the definitions of a text."""
    return parse_documents([DocumentFile("a.yaml", text.encode())], Limits())[0]


def sending(ports: str, rule_id: str = "r-out", protocol: str = "tcp", to: str = "sg-database") -> str:
    """Return an egress rule of the application."""
    return (
        f"{{rule_id: {rule_id}, direction: egress, policy: accept, protocol: {protocol},"
        f" port_range: {ports}, authorization_object: {to}}}"
    )


def admitting(ports: str, of: str = "sg-app", protocol: str = "tcp", policy: str = "accept") -> str:
    """Return an ingress rule of the database."""
    return (
        f"{{rule_id: r-in-{policy}, direction: ingress, policy: {policy}, protocol: {protocol},"
        f" port_range: {ports}, authorization_object: {of}}}"
    )


def test_a_port_that_only_one_end_lets_pass() -> None:
    """Either end; of a list of ports just the ones that do not pass, and of a range nothing if any does."""
    send = "it lets members of sg-app send"
    assert one_sided(sending("5432")) == {("r-out", f"{send} tcp 5432")}
    assert one_sided(sending("5432"), database=admitting("5432")) == set()
    assert one_sided(sending("[80, 443]"), database=admitting("80")) == {("r-out", f"{send} tcp 443")}
    assert one_sided(sending("5000-6000"), database=admitting("5432")) == set()
    assert one_sided(sending("-1/-1", protocol="all"), database=admitting("5432")) == set()
    assert one_sided(sending("-1/-1", protocol="all")) == {("r-out", f"{send} anything")}
    assert one_sided(sending("-1/-1", protocol="gre")) == {("r-out", f"{send} gre")}
    # Also where it is admitted from elsewhere only, or dropped before.
    elsewhere = admitting("5432", of="192.0.2.0/24")
    assert one_sided(sending("5432"), database=elsewhere) == {("r-out", f"{send} tcp 5432")}
    shut = f"{admitting('5432')}, {admitting('5432', policy='drop')}"
    assert ("r-out", f"{send} tcp 5432") in one_sided(sending("5432"), database=shut)
    # An advanced group lets nothing out by default.
    assert one_sided(database=admitting("5432")) == {("r-in-accept", "it admits tcp 5432")}


def test_what_is_not_known_is_not_one_sided() -> None:
    """Members without an interface may admit what they like, and so may who is no group, or unknown."""
    assert one_sided(sending("1", to="192.0.2.1")) == set()
    assert one_sided(sending("1", to="sg-nobody")) == set()
    bad = (LINT / "one_sided_rule" / "bad.yaml").read_text()
    listed = bad.replace("sg-database\n    type", "sg-database\n    member_addresses: [10.9.9.9]\n    type")
    found = [
        one.rule_ids for one in lint(make_subject(parsed(listed), EXEMPTIONS)) if one.code == "one_sided_rule"
    ]
    assert found == [("sgr-database-app",)]


def test_an_interface_that_no_packet_is_for_admits_none() -> None:
    """One in the same group that has no address of the family, and a second group that would admit it."""
    bad = (LINT / "one_sided_rule" / "bad.yaml").read_text()
    opened = (
        "  - {security_group_id: sg-open, rules: [{rule_id: r-open, direction: ingress, policy: accept,"
        " protocol: tcp, port_range: 5432, authorization_object: sg-app}]}\n"
    )
    other = "  - {network_interface_id: eni-2, addresses: [%s], security_group_ids: [sg-database, sg-open]}\n"

    def found(addresses: str) -> bool:
        text = bad.replace("network_interfaces:\n", opened + "network_interfaces:\n") + other % addresses
        rules = [one.rule_ids for one in lint(make_subject(parsed(text), EXEMPTIONS))]
        return ("sgr-app-database",) in rules

    assert found("")
    assert found('"2001:db8::2"')
    assert not found("10.0.2.32")


def test_by_hand_no_other_host_is_known() -> None:
    """With --interface the hosts of the documents are not looked at, so nothing is said of them."""
    definitions = read(LINT / "one_sided_rule" / "bad.yaml")
    hands = by_hand(definitions, {"eth0": "sg-app"}).bindings
    subject = make_subject(definitions, EXEMPTIONS, by_hand=hands, only_by_hand=True)
    assert "one_sided_rule" not in {one.code for one in lint(subject)}
    both = make_subject(definitions, EXEMPTIONS, by_hand=hands)
    assert "one_sided_rule" in {one.code for one in lint(both)}


def test_a_mistyped_group_is_suggested() -> None:
    """The remedy names the id that is one letter away."""
    text = (LINT / "one_sided_rule" / "good.yaml").read_text()
    mistyped = parsed(text.replace("authorization_object: sg-app", "authorization_object: sg-ap"))
    (finding,) = [one for one in lint(make_subject(mistyped, EXEMPTIONS)) if one.code == "unknown_object"]
    assert finding.remedy == "did you mean sg-app?"


@pytest.mark.parametrize(
    ("direction", "policy", "other"),
    (pytest.param(OUT, ACCEPT, DROP, id="accepts"), pytest.param(IN, DROP, ACCEPT, id="drops")),
)
def test_what_unreached_rules_would_change_stays(direction: Direction, policy: Policy, other: Policy) -> None:
    """Of two rules that replace each other before one that differs, what goes leaves nothing more to go."""
    rules = [
        rule("sgr-narrow", policy, TCP, "1-65535", "10.0.0.0/8", direction=direction),
        rule("sgr-wide", policy, TCP, "1-65535", "0.0.0.0/0", direction=direction),
        rule("sgr-behind", other, TCP, "53", "10.0.0.0/8", direction=direction, priority=50),
    ]
    found = lint(make_subject(snapshot(group("sg-a", *rules)), Exemptions()))
    gone = {edit.rule_id for one in found if one.fix for edit in one.fix.edits}
    kept = [one for one in rules if one.rule_id not in gone]
    again = lint(make_subject(snapshot(group("sg-a", *kept)), Exemptions()))
    assert [one for one in again if one.fix and not one.fix.changes_verdicts] == []


@pytest.mark.parametrize("most_cells", (None, 7))
def test_groups_that_are_together_on_this_host_only_are_looked_at_as_others(most_cells: int | None) -> None:
    """At the same time, and as exhaustively."""
    groups = [group(name, rule("sgr-1", ACCEPT, TCP, "443", "0.0.0.0/0")) for name in ("sg-a", "sg-b")]
    judges = policy_of(*groups, on={"eth0": "sg-a,sg-b"}).interfaces
    subject = make_subject(
        snapshot(*groups), EXEMPTIONS, host=LiveHost(bound=judges), at=AT, most_cells=most_cells
    )
    (attachment,) = subject.host_attachments
    assert attachment not in subject.attachments
    assert (attachment.interfaces, attachment.at, attachment.most) == (("eth0",), AT, most_cells)


@pytest.mark.parametrize(
    ("forwarded", "source", "local", "is_found"),
    (
        ((Family.IPV4,), "0.0.0.0/0", None, True),
        ((Family.IPV6,), "0.0.0.0/0", None, False),
        ((Family.IPV6,), "::/0", None, True),
        ((), "0.0.0.0/0", None, False),
        ((Family.IPV4, Family.IPV6), "0.0.0.0/0", "10.0.0.11", False),
        ((Family.IPV4,), "203.0.113.7", None, True),
    ),
)
def test_what_a_gateway_admits_to_those_behind_it(
    forwarded: tuple[Family, ...], source: str, local: str | None, *, is_found: bool
) -> None:
    """In the families that it forwards, whoever is admitted, unless the rule names the near end."""
    only = group("sg-web", rule("sgr-web", ACCEPT, TCP, "443", source, local=local))
    judges = policy_of(only, on={"wg0": "sg-web"}).interfaces
    subject = make_subject(snapshot(only), EXEMPTIONS, host=LiveHost(bound=judges, forwarded=forwarded))
    found = [one for one in lint(subject) if one.code == "admits_behind"]
    assert [one.interfaces for one in found] == [("wg0",)] * is_found
