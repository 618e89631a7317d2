"""The native format: every field and every error of form (§4, §5.1, §8.1)."""

from __future__ import annotations

import tracemalloc

import pytest

from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    TCP,
    UDP,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    Policy,
    PortListReference,
    PortSet,
    PrefixListReference,
    Protocol,
    SecurityGroup,
)
from sgagent.documents import Limits
from sgagent.documents.assembly import derive_rule_id
from sgagent.documents.writer import write_group
from tests.unit.documents.reading import (
    RULE,
    codes,
    document,
    parse,
    refused,
    rule_document,
    snapshot,
    the_group,
    the_rule,
)

EVERYTHING = """
    version: 1
    vpc_id: vpc-1
    account_id: 1609982529920000
    security_groups:
      - security_group_id: sg-web
        name: web tier
        type: enterprise
        inner_access_policy: deny
        tags: {tier: web, environment: production}
        member_addresses: [2001:db8::9, 10.9.0.1, 10.9.0.1]
        rules:
          - rule_id: sgr-2
            direction: ingress
            policy: allow
            priority: 7
            protocol: TCP
            port_range: [443, 80/80, 8000-8100]
            source_port_range: 1024/65535
            authorization_object: 0.0.0.0/0
            local_address: 10.0.0.0/8
            description: HTTPS for everyone
      - {security_group_id: sg-app, vpc_id: vpc-2, account_id: "42"}
    prefix_lists:
      - prefix_list_id: pl-office
        address_family: ipv4
        entries: [203.0.113.0/24, {cidr: 198.51.100.7/32, description: branch}]
    port_lists:
      - port_list_id: prl-dns
        entries: [53/53, 853, {port_range: 5353, description: multicast}]
    network_interfaces:
      - network_interface_id: eni-1
        mac_address: 00-16-3E-00-00-0A
        addresses: [10.0.0.11, 2001:db8::11, 10.0.8.0/28]
        security_group_ids: [sg-web, sg-app]
        instance_id: i-1
    """


def test_every_field_of_a_group_is_read() -> None:
    """A group has what was written, else the document's defaults (§1.1)."""
    app, web = snapshot(EVERYTHING).security_groups
    assert (web.security_group_id, web.name, web.group_type) == ("sg-web", "web tier", GroupType.ADVANCED)
    assert (web.vpc_id, web.account_id, web.inner_access_policy) == ("vpc-1", "1609982529920000", Policy.DROP)
    assert web.tags == (("environment", "production"), ("tier", "web"))
    assert web.member_addresses == (CidrBlock.parse("10.9.0.1"), CidrBlock.parse("2001:db8::9"))
    assert (app.vpc_id, app.account_id, app.group_type) == ("vpc-2", "42", GroupType.BASIC)


def test_every_field_of_a_rule_is_read() -> None:
    """A rule has what was written, its ports sorted."""
    (rule,) = snapshot(EVERYTHING).security_groups[1].rules
    assert (rule.rule_id, rule.priority, rule.protocols, rule.policy) == ("sgr-2", 7, (TCP,), Policy.ACCEPT)
    assert rule.ports == PortSet.of((80, 80), (443, 443), (8000, 8100))
    assert rule.source_ports == PortSet.of((1024, 65535))
    assert rule.authorization_objects == (CidrBlock.parse("0.0.0.0/0"),)
    assert rule.local_address == CidrBlock.parse("10.0.0.0/8")
    assert (rule.description, rule.origin.line) == ("HTTPS for everyone", 13)


def test_lists_and_interfaces_are_read() -> None:
    """Entries may stand alone or with a description; a MAC comes out in one form (§1.3, §1.4)."""
    found = snapshot(EVERYTHING)
    assert found.prefix_lists[0].entries == (
        CidrBlock.parse("198.51.100.7"),
        CidrBlock.parse("203.0.113.0/24"),
    )
    assert found.port_lists[0].entries == PortSet.of((53, 53), (853, 853), (5353, 5353))
    (eni,) = found.network_interfaces
    assert (eni.mac_address, eni.instance_id, eni.vpc_id) == ("00:16:3e:00:00:0a", "i-1", "vpc-1")
    assert [str(block) for block in eni.addresses] == ["10.0.0.11", "2001:db8::11", "10.0.8.0/28"]
    assert eni.security_group_ids == ("sg-app", "sg-web")


@pytest.mark.parametrize(
    ("written", "protocol"),
    (("TcP", TCP), (6, TCP), ("17", UDP), ("ALL", ALL_PROTOCOLS), (253, Protocol(253)), (0, Protocol(0))),
)
def test_protocols_by_name_and_number(written: object, protocol: Protocol) -> None:
    """Names in any letter case, numbers from 0 to 255 (§4.1)."""
    ports = "80" if protocol.has_ports else None
    assert the_rule(snapshot(rule_document(protocol=written, port_range=ports))).protocols == (protocol,)


@pytest.mark.parametrize(
    ("written", "ports"),
    (
        (443, ((443, 443),)),
        ("443", ((443, 443),)),
        ("8000-8100", ((8000, 8100),)),
        ("1/65535", ((1, 65535),)),
        ([443, "80/80", 80], ((80, 80), (443, 443))),
    ),
)
def test_forms_of_ports(written: object, ports: tuple[tuple[int, int], ...]) -> None:
    """A port, a range with either sign, a list of such (§4.2)."""
    assert the_rule(snapshot(rule_document(port_range=written))).ports == PortSet.of(*ports)


@pytest.mark.parametrize(
    ("written", "meant"),
    (
        ("192.0.2.1", CidrBlock.parse("192.0.2.1/32")),
        ("2001:DB8::/32", CidrBlock.parse("2001:db8::/32")),
        ("sg-x", GroupReference("sg-x")),
        ("1609982529920000/sg-x", GroupReference("sg-x", "1609982529920000")),
        ("pl-x", PrefixListReference("pl-x")),
    ),
)
def test_forms_of_the_object(written: str, meant: object) -> None:
    """An address, a CIDR, a group, another account's group, a prefix list (§5.1)."""
    assert the_rule(snapshot(rule_document(authorization_object=written))).authorization_objects == (meant,)


def test_a_port_list_stands_in_place_of_ports() -> None:
    """TCP and UDP rules may name a list (§4.3)."""
    rule = the_rule(snapshot(rule_document(port_range=None, port_list_id="prl-1")))
    assert rule.ports == PortListReference("prl-1")


@pytest.mark.parametrize("ports", (None, "-1/-1"))
def test_protocols_without_ports_need_none(ports: str | None) -> None:
    """Absent is -1/-1 for them (§4.2)."""
    rule = the_rule(snapshot(rule_document(protocol="gre", port_range=ports, source_port_range=ports)))
    assert (rule.ports, rule.source_ports) == (ALL_PORTS, ALL_PORTS)


@pytest.mark.parametrize(
    ("fields", "code"),
    (
        ({"port_range": "-1/-1"}, "every_port"),
        ({"port_list_id": "prl-1"}, "port_list_ignored"),
        ({"priority": 110}, "priority_above_100"),
        ({"authorization_object": "192.0.2.1/24"}, "host_bits"),
        ({"local_address": "10.0.0.1/8"}, "host_bits"),
    ),
)
def test_what_is_only_warned_of(fields: dict[str, object], code: str) -> None:
    """The cloud would refuse these, a host can do them (§8.2)."""
    found, warnings = parse(rule_document(**fields))
    assert codes(warnings) == [code]
    assert the_rule(found).direction is Direction.INGRESS


@pytest.mark.parametrize(
    ("fields", "code"),
    (
        ({"colour": "red"}, "unknown_field"),
        ({"direction": None}, "missing_field"),
        ({"policy": None}, "missing_field"),
        ({"protocol": None}, "missing_field"),
        ({"authorization_object": None}, "missing_field"),
        ({"direction": "in"}, "bad_value"),
        ({"policy": "reject"}, "bad_value"),
        ({"policy": True}, "wrong_type"),
        ({"priority": "1"}, "wrong_type"),
        ({"priority": 0}, "bad_priority"),
        ({"priority": -1}, "bad_priority"),
        ({"priority": 10**30}, "out_of_range"),
        ({"priority": 1.5}, "wrong_type"),
        ({"protocol": "ip"}, "bad_protocol"),
        ({"protocol": 256}, "bad_protocol"),
        ({"protocol": -1}, "bad_protocol"),
        ({"port_range": None}, "missing_ports"),
        ({"port_range": "80/79"}, "reversed_ports"),
        ({"port_range": 0}, "port_out_of_range"),
        ({"port_range": "1/65536"}, "port_out_of_range"),
        ({"port_range": "-1"}, "port_out_of_range"),
        ({"port_range": "http"}, "bad_port_range"),
        ({"port_range": "٨٠"}, "bad_port_range"),
        ({"port_range": "0443"}, "bad_port_range"),
        ({"port_range": "22/0443"}, "bad_port_range"),
        ({"source_port_range": ["00/443"]}, "bad_port_range"),
        ({"port_range": []}, "bad_port_range"),
        ({"port_range": {"first": 1}}, "wrong_type"),
        ({"protocol": "icmp"}, "ports_do_not_fit"),
        ({"protocol": "all"}, "ports_do_not_fit"),
        ({"protocol": "gre", "port_range": None, "port_list_id": "prl-1"}, "ports_do_not_fit"),
        ({"protocol": "gre", "port_range": None, "source_port_range": 80}, "ports_do_not_fit"),
        ({"protocol": "icmp", "port_range": None, "authorization_object": "::/0"}, "family_of_protocol"),
        ({"protocol": "icmpv6", "port_range": None}, "family_of_protocol"),
        (
            {"protocol": "icmp", "port_range": None, "local_address": "::/0", "authorization_object": "sg-1"},
            "family_of_protocol",
        ),
        ({"local_address": "2001:db8::/32"}, "mixed_families"),
        ({"authorization_object": "anywhere"}, "bad_address"),
        ({"authorization_object": "10.0.0.0/255.0.0.0"}, "bad_address"),
        ({"authorization_object": "10.0.0.0/33"}, "bad_address"),
        ({"authorization_object": "010.0.0.1"}, "bad_address"),
        ({"authorization_object": "fe80::1%eth0"}, "zone_id"),
        ({"authorization_object": "::ffff:192.0.2.1"}, "mapped_address"),
        ({"authorization_object": [["192.0.2.1"]]}, "wrong_type"),
        ({"authorization_object": {"cidr": "192.0.2.1"}}, "wrong_type"),
        ({"authorization_object": "sg-a b"}, "bad_id"),
        ({"authorization_object": "a b/sg-1"}, "bad_id"),
        ({"rule_id": "a\nb"}, "bad_id"),
        ({"rule_id": "x" * 129}, "bad_id"),
        ({"rule_id": "\u202ex"}, "bad_id"),
        ({"rule_id": ""}, "bad_id"),
    ),
)
def test_wrong_rules(fields: dict[str, object], code: str) -> None:
    """Each is one error, with file, line, path and a remedy (§8.1)."""
    (problem,) = refused(rule_document(**fields))
    assert problem.code == code
    assert problem.origin.line > 1
    assert problem.origin.path.startswith("security_groups[0].rules[0]")


def test_an_unknown_field_names_the_nearest_known_one() -> None:
    """A slip of the pen, or the API's spelling, is easy to mend."""
    (problem,) = refused(rule_document(PortRange="80", port_range=None, port_list_id="prl-1"))
    assert problem.remedy == "did you mean port_range?"


def test_all_errors_of_all_files_are_told_at_once() -> None:
    """Nobody mends documents one error at a time (§8.1)."""
    problems = refused(rule_document(priority=0, direction="in"), "version: 2\n", "version: 1\nfoo: 1\n")
    assert sorted(codes(problems)) == ["bad_priority", "bad_value", "unknown_field", "unknown_version"]
    assert len({problem.origin.file for problem in problems}) == 3


@pytest.mark.parametrize("text", ("vpc_id: vpc-1\n", "version: '1'\n", "3\n", "- version: 2\n"))
def test_the_version_of_the_format_is_required(text: str) -> None:
    """A document that does not say what it is, is none."""
    assert codes(refused(text))[0] in ("missing_field", "wrong_type", "unknown_version")


@pytest.mark.parametrize("where", ("member_addresses", "addresses"))
def test_host_bits_in_a_member_address_are_an_error(where: str) -> None:
    """Clearing them would make members of a whole network (§5.3)."""
    groups = [{"security_group_id": "sg-1", "member_addresses": ["10.0.0.11/24"]}]
    interfaces = [{"network_interface_id": "eni-1", "addresses": ["10.0.0.11/24"]}]
    text = (
        document(security_groups=groups)
        if where == "member_addresses"
        else document(network_interfaces=interfaces)
    )
    assert codes(refused(text)) == ["host_bits"]


def test_an_entry_of_the_other_family_is_an_error() -> None:
    """A prefix list has one family (§1.4)."""
    lists = [{"prefix_list_id": "pl-1", "address_family": "ipv4", "entries": ["2001:db8::/32"]}]
    assert codes(refused(document(prefix_lists=lists))) == ["mixed_families"]


@pytest.mark.parametrize(
    ("kind", "thing"),
    (
        ("security_groups", {"security_group_id": "sg-1"}),
        ("prefix_lists", {"prefix_list_id": "pl-1", "address_family": "ipv4", "entries": []}),
        ("port_lists", {"port_list_id": "prl-1", "entries": []}),
        ("network_interfaces", {"network_interface_id": "eni-1"}),
    ),
)
def test_an_id_is_given_once(kind: str, thing: dict[str, object]) -> None:
    """A duplicate is an error with its field that names the first, across files too (§8.1)."""
    (problem,) = refused(document(**{kind: [thing]}), document(**{kind: [thing]}))
    assert problem.code == "duplicate_id"
    assert {problem.origin.file, *problem.message.split(":")[0].split()[-1:]} == {"a.yaml", "1-a.yaml"}
    field = next(iter(thing))
    (problem,) = refused(document(**{kind: [thing, thing]}))
    assert (problem.code, problem.origin.path) == ("duplicate_id", f"{kind}[1].{field}")
    assert problem.message.startswith(f"the {field} is already used by a.yaml:")
    assert problem.message.endswith(f"{kind}[0]")


@pytest.mark.parametrize("groups", (("sg-1", "sg-1"), ("sg-1", "sg-2")), ids=("one group", "two groups"))
def test_a_rule_id_is_unique_in_the_snapshot(groups: tuple[str, str]) -> None:
    """Two groups can't share one either (§4.7)."""
    rules: dict[str, list[object]] = {group: [] for group in groups}
    for group in groups:
        rules[group].append({**RULE, "rule_id": "sgr-1"})
    things = [{"security_group_id": group, "rules": some} for group, some in rules.items()]
    (problem,) = refused(document(security_groups=things))
    assert problem.code == "duplicate_id"
    assert problem.message.partition(" used by ")[0] == "the rule_id is already"
    assert problem.origin.path.endswith(".rule_id")


def test_a_rule_without_an_id_gets_one_from_its_content() -> None:
    """The id survives another description and another order (§4.7)."""
    other = {**RULE, "port_range": "443/443"}
    first = the_group(
        snapshot(document(security_groups=[{"security_group_id": "sg-1", "rules": [RULE, other]}]))
    )
    described = {**RULE, "description": "x"}
    second = the_group(
        snapshot(document(security_groups=[{"security_group_id": "sg-1", "rules": [other, described]}]))
    )
    assert first.rules == second.rules
    assert all(rule.rule_id == derive_rule_id("sg-1", rule) for rule in first.rules)


def test_two_rules_that_are_alike_are_one() -> None:
    """Without ids nothing tells them apart; with a warning (§4.7)."""
    found, warnings = parse(document(security_groups=[{"security_group_id": "sg-1", "rules": [RULE, RULE]}]))
    assert (codes(warnings), len(the_group(found).rules)) == (["duplicate_rule"], 1)


def test_interfaces_that_share_a_mac_address_are_warned_of() -> None:
    """By MAC alone they can't be told apart."""
    interfaces = [{"network_interface_id": f"eni-{n}", "mac_address": "00:16:3e:00:00:01"} for n in range(2)]
    assert codes(parse(document(network_interfaces=interfaces))[1]) == ["shared_mac_address"]


def test_the_version_names_the_content() -> None:
    """Names and order of files do not count, and every meaning does."""
    one, two = rule_document(), "version: 1\nport_lists: [{port_list_id: prl-1, entries: [53]}]\n"
    version = snapshot(one, two).version
    assert version == snapshot(two, one, name="z.yaml").version
    assert version.startswith("sha256:")
    assert version != snapshot(rule_document(priority=2), two).version
    assert version != snapshot(one).version


@pytest.mark.parametrize(
    ("kind", "inner", "is_warned"),
    (
        ("advanced", "accept", True),
        ("enterprise", "allow", True),
        ("advanced", "drop", False),
        ("advanced", None, False),
        ("basic", "accept", False),
    ),
)
def test_an_inner_policy_of_an_advanced_group(kind: str, inner: str | None, is_warned: bool) -> None:  # noqa: FBT001 - as said
    """It is warned of only if it is written: the default is for basic groups."""
    group = {"security_group_id": "sg-1", "type": kind} | ({"inner_access_policy": inner} if inner else {})
    assert codes(parse(document(security_groups=[group]))[1]) == ["inner_accept_in_advanced"] * is_warned


@pytest.mark.parametrize("kind", ("basic", "advanced"))
@pytest.mark.parametrize("inner", ("accept", "drop"))
def test_no_written_group_makes_its_reader_warn(kind: str, inner: str) -> None:
    """It reads as the same; the inner access policy is left out where it has no effect and is the default."""
    group = SecurityGroup(
        security_group_id="sg-1", group_type=GroupType(kind), inner_access_policy=Policy(inner)
    )
    written = write_group(group)
    assert snapshot(document(security_groups=[written])).security_groups == (group,)
    assert ("inner_access_policy" in written) is ((kind, inner) != ("advanced", "accept"))


def test_a_port_list_of_every_port_is_warned_of() -> None:
    """-1/-1 in a list is every port, 0 included (§4.2)."""
    found, warnings = parse("version: 1\nport_lists: [{port_list_id: prl-1, entries: [-1/-1]}]\n")
    assert (codes(warnings), found.port_lists[0].entries) == (["every_port"], PortSet.of((0, 65535)))


def test_null_is_nothing() -> None:
    """A list whose entries were all taken away must be written as [], so that a slip takes no rules away."""
    assert codes(refused("version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    rules:\n")) == [
        "wrong_type"
    ]


def test_families_do_not_mix_in_sorting() -> None:
    """Members of both families stand beside each other, IPv4 first."""
    text = document(security_groups=[{"security_group_id": "sg-1", "member_addresses": ["::1", "10.0.0.1"]}])
    assert [one.family for one in the_group(snapshot(text)).member_addresses] == [Family.IPV4, Family.IPV6]


@pytest.mark.parametrize(
    ("field", "value", "message", "remedy"),
    (
        ("protocol", [["tcp"]], "expected one protocol, found a list", "tcp, udp, "),
        ("direction", ["ingress"], "expected one word, found a list", "one of ingress, egress"),
        ("authorization_object", 5, "expected an authorization object, found a whole number", "a CIDR"),
        ("authorization_object", [["::"]], "expected one authorization object, found a list", "a CIDR"),
        ("port_range", True, "expected a port range, found true or false", "443/443"),
        ("port_range", {"from": 1}, "expected a port range, found a mapping", "443/443"),
        ("priority", "1", "expected a priority, found text", "without quotes"),
        ("description", False, "expected a text, found true or false", "put it in quotes"),
        ("rule_id", 7, "expected an id, found a whole number", "put it in quotes"),
        ("rule_id", [7], "expected one id, found a list", "at most 128 letters"),
    ),
)
def test_wrong_types_are_told_with_right_ones(field: str, value: object, message: str, remedy: str) -> None:
    """The message says what is expected and what was found, the remedy what to write."""
    (problem,) = refused(rule_document(**{field: value}))
    assert (problem.code, problem.message) == ("wrong_type", message)
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("written", "meant"),
    (
        ("action", "policy"),
        ("Action", "policy"),
        ("port", "port_range"),
        ("source", "authorization_object"),
        ("prority", "priority"),
    ),
)
def test_words_of_other_firewalls_are_understood_in_hints(written: str, meant: str) -> None:
    """The hint goes by what is meant, not by letters alone: action resembles direction."""
    (problem,) = refused(rule_document(**{written: "x"}))
    assert (problem.code, problem.remedy) == ("unknown_field", f"did you mean {meant}?")


def test_errors_of_fields_and_between_them_are_told_together() -> None:
    """A wrong field hides no contradiction between others, and each is at its own line."""
    text = """\
        version: 1
        security_groups:
          - security_group_id: sg-1
            rules:
              - direction: sideways
                policy: accept
                priority: 0
                protocol: icmp
                port_range: 80
                authorization_object:
                  10.0.0.0/8
                local_address: 2001:db8::1
                tpyo: 1
    """
    found = {(problem.origin.line, problem.code) for problem in refused(text)}
    assert found == {
        (5, "bad_value"),
        (7, "bad_priority"),
        (9, "ports_do_not_fit"),
        (12, "family_of_protocol"),
        (13, "unknown_field"),
    }


def test_what_is_right_of_a_wrong_rule_warns_once() -> None:
    """What is right of it is read once: neither its warnings nor its costs double."""
    limits = Limits(addresses=1)
    problems = refused(rule_document(policy="x", authorization_object="10.0.0.1/8"), limits=limits)
    assert codes(problems) == ["bad_value", "host_bits"]


@pytest.mark.parametrize("unread", ("fields", "ports", "tags"))
def test_a_flood_of_errors_takes_little_memory(unread: str) -> None:
    """Errors that are only counted are not kept first."""
    many = [f"a{number}" for number in range(20_000)]
    flood = {
        "fields": document(**dict.fromkeys(many, 1)),
        "ports": rule_document(port_range=many),
        "tags": document(security_groups=[{"security_group_id": "sg-1", "tags": dict.fromkeys(many, True)}]),
    }[unread]
    tracemalloc.start()
    try:
        problems = refused(flood, name="a.json", limits=Limits(problems=10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(problems), problems[-1].code) == (11, "more_problems")
    assert peak < 12 << 20


@pytest.mark.parametrize(
    ("text", "remedy"),
    (
        (document(prefix_lists=[{"prefix_list_id": "pl-1", "entries": []}]), "one of ipv4, ipv6"),
        (rule_document(direction=None), "one of ingress, egress"),
        (rule_document(policy=None), "one of accept, drop, allow, deny"),
        ('{"PrefixListId": "pl-1"}', "IPv4 or IPv6"),
        ('{"SecurityGroupId": "sg-1", "Permissions": {"Permission": [{}]}}', "one of ingress, egress"),
        ("vpc_id: vpc-1", "version: 1"),
    ),
)
def test_a_missing_word_is_named_with_those_that_are_allowed(text: str, remedy: str) -> None:
    """Missing and empty alike, in native documents and in answers."""
    assert remedy in [one.remedy for one in refused(text) if one.message == "missing"]
