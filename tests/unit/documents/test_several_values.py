"""Several objects and protocols in a rule of a native document (§12.1, §12.2)."""

from __future__ import annotations

import json
import time

import pytest

from sgagent.core.errors import Problem, Severity
from sgagent.core.model import (
    ALL_PORTS,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    CidrBlock,
    GroupReference,
    PortListReference,
    PrefixListReference,
    Protocol,
)
from sgagent.core.rule_values import EVERYTHING, objects_text
from sgagent.documents.assembly import derive_rule_id
from sgagent.documents.writer import as_yaml, write_document
from tests.unit.documents.reading import (
    RULE,
    codes,
    document,
    parse,
    refused,
    rule_document,
    snapshot,
    the_rule,
)

PING = {"protocol": ["icmp", "icmpv6"], "port_range": None}
GRE = Protocol(47)


def test_objects_of_every_kind_stand_in_one_list() -> None:
    """They come out in one order, each once, whatever the order in the document."""
    written = ["sg-app", "2001:db8::/32", "pl-a", "10.0.0.0/8", "10.0.0.9", "sg-app", "1/sg-x", "10.0.0.0/8"]
    rule = the_rule(snapshot(rule_document(authorization_object=written)))
    assert rule.authorization_objects == (
        CidrBlock.parse("10.0.0.0/8"),
        CidrBlock.parse("10.0.0.9"),
        CidrBlock.parse("2001:db8::/32"),
        GroupReference("sg-x", "1"),
        GroupReference("sg-app"),
        PrefixListReference("pl-a"),
    )
    assert the_rule(snapshot(rule_document(authorization_object=written[::-1]))) == rule


@pytest.mark.parametrize("written", ("any", "ANY", ["any"], ["0.0.0.0/0", "::/0"], ["::/0", "any"]))
def test_any_is_both_families(written: object) -> None:
    """Alone or in a list; it is written back in one word."""
    rule = the_rule(snapshot(rule_document(authorization_object=written)))
    assert rule.authorization_objects == EVERYTHING == tuple(map(CidrBlock.parse, ("0.0.0.0/0", "::/0")))
    assert objects_text(rule.authorization_objects) == "any"


def test_any_is_no_local_address() -> None:
    """A local address is one CIDR."""
    assert codes(refused(rule_document(local_address="any"))) == ["bad_address"]


@pytest.mark.parametrize(
    ("written", "meant"),
    (
        (["udp", "TCP"], (TCP, UDP)),
        ([17, "6"], (TCP, UDP)),
        (["tcp"], (TCP,)),
        (["udp", 253], (UDP, Protocol(253))),
    ),
)
def test_protocols_stand_in_a_list(written: list[object], meant: tuple[Protocol, ...]) -> None:
    """By name or number, in any order."""
    ports = "-1/-1" if Protocol(253) in meant else "53"
    assert the_rule(parse(rule_document(protocol=written, port_range=ports))[0]).protocols == meant


def test_tcp_and_udp_share_ports() -> None:
    """A port range, a port list and source ports are for both."""
    assert str(the_rule(snapshot(rule_document(protocol=["tcp", "udp"], source_port_range=53))).source_ports)
    listed = rule_document(protocol=["tcp", "udp"], port_range=None, port_list_id="prl-1")
    assert the_rule(snapshot(listed)).ports == PortListReference("prl-1")


def test_every_port_of_a_list_is_warned_of() -> None:
    """As of a single protocol (§4.2), also where no other range fits all protocols of the rule."""
    found, warnings = parse(rule_document(protocol=["tcp", "gre"], port_range="-1/-1"))
    assert (the_rule(found).protocols, the_rule(found).ports) == ((TCP, GRE), ALL_PORTS)
    _, others = parse(rule_document(protocol=["tcp", "udp"], port_range="-1/-1"))
    assert [(one.code, one.message, one.remedy) for one in (*warnings, *others)] == [
        ("every_port", "-1/-1 is read as every tcp port", "1/65535 in a rule for tcp alone"),
        ("every_port", "-1/-1 is read as every tcp, udp port", "1/65535"),
    ]


def test_ping_is_for_both_families() -> None:
    """Each of the two protocols has an object of its family; a group may have members of either."""
    for written in ("any", ["192.0.2.1", "2001:db8::1"], "sg-1", ["10.0.0.0/8", "sg-1"]):
        rule = the_rule(snapshot(rule_document(**PING, authorization_object=written)))
        assert rule.protocols == (ICMP, ICMPV6)


@pytest.mark.parametrize(
    ("fields", "code", "path", "message", "remedy"),
    (
        ({"authorization_object": []}, "missing_object", "authorization_object", "is empty", "any, sg-…"),
        (
            {"authorization_object": ["10.0.0.1", "10.0.0.0/33"]},
            "bad_address",
            "authorization_object[1]",
            "the largest prefix of IPv4 is /32",
            "10.0.0.0/32",
        ),
        ({"authorization_object": ["sg-a b"]}, "bad_id", "authorization_object[0]", "an id", "128"),
        ({"protocol": []}, "bad_protocol", "protocol", "the list of protocols is empty", "tcp, udp"),
        ({"protocol": ["tcp", "http"]}, "bad_protocol", "protocol[1]", "not a protocol", "tcp, udp"),
        (
            {"protocol": ["tcp", "udp", 6]},
            "duplicate_protocol",
            "protocol[2]",
            "tcp is given twice",
            "remove",
        ),
        (
            {"protocol": ["gre", "all"], "port_range": None},
            "protocol_beside_all",
            "protocol[1]",
            "all stands for",
            "all alone",
        ),
        (
            {"protocol": ["tcp", "icmp", "gre"], "port_range": "80"},
            "ports_do_not_fit",
            "port_range",
            "icmp, gre have no ports",
            "-1/-1, or a rule without icmp, gre",
        ),
        (
            {"protocol": ["tcp", "gre"], "port_range": None, "port_list_id": "prl-1"},
            "ports_do_not_fit",
            "port_list_id",
            "gre has no ports, so it takes no port list",
            "tcp or udp",
        ),
        (
            {"protocol": ["tcp", "gre"], "port_range": "-1/-1", "source_port_range": 53},
            "ports_do_not_fit",
            "source_port_range",
            "gre has no ports",
            "-1/-1",
        ),
        (
            {"protocol": ["tcp", "gre"], "port_range": None},
            "missing_ports",
            "",
            "a rule with tcp needs a port range",
            "-1/-1",
        ),
        (
            {"protocol": ["tcp", "udp"], "port_range": None},
            "missing_ports",
            "",
            "a tcp, udp rule needs",
            "443",
        ),
        (
            {**PING, "authorization_object": ["192.0.2.0/24", "10.0.0.0/8"]},
            "family_of_protocol",
            "authorization_object",
            "icmpv6 is for ipv6 only, found no ipv6 object",
            "an ipv6 address or CIDR among the objects, or no icmpv6",
        ),
        (
            {"authorization_object": ["sg-1", "::/0", "10.0.0.1"], "local_address": "10.0.0.0/8"},
            "mixed_families",
            "authorization_object[1]",
            "mix IPv4 and IPv6",
            "an ipv4 address or CIDR, as in local_address",
        ),
        (
            {"authorization_object": "any", "local_address": "10.0.0.0/8"},
            "mixed_families",
            "authorization_object",
            "mix IPv4 and IPv6",
            "an ipv4 address or CIDR, as in local_address",
        ),
    ),
)
def test_wrong_lists(fields: dict[str, object], code: str, path: str, message: str, remedy: str) -> None:
    """Each is one error, which names the field or item, the value, and what would be right."""
    problems = refused(rule_document(**fields))
    (problem,) = (one for one in problems if one.severity is Severity.ERROR)
    assert problem.code == code
    assert problem.origin.path == ".".join(filter(None, ("security_groups[0].rules[0]", path)))
    assert message in problem.message
    assert remedy in problem.remedy


def test_all_that_is_wrong_in_a_list_is_reported_at_once() -> None:
    """Each item has its own error."""
    problems = refused(
        rule_document(authorization_object=["::x", "10.0.0.1", "10.0.0.0/33"], protocol=["z", "all", "w"])
    )
    assert sorted((problem.origin.path.rpartition(".")[2], problem.value) for problem in problems) == [
        ("authorization_object[0]", "::x"),
        ("authorization_object[2]", "10.0.0.0/33"),
        ("protocol[0]", "z"),
        ("protocol[2]", "w"),
    ]


def test_host_bits_are_cleared_in_a_list() -> None:
    """With a warning at the item; two that name one network then are one."""
    found, warnings = parse(rule_document(authorization_object=["10.0.0.1/8", "10.0.0.2/8"]))
    assert [warning.origin.path.rpartition(".")[2] for warning in warnings] == [
        "authorization_object[0]",
        "authorization_object[1]",
    ]
    assert the_rule(found).authorization_objects == (CidrBlock.parse("10.0.0.0/8"),)


def test_a_list_of_one_is_the_rule_without_the_list() -> None:
    """Derived id, version and all: nobody's hits begin anew for a pair of brackets."""
    plain, listed = rule_document(), rule_document(protocol=["tcp"], authorization_object=["192.0.2.0/24"])
    assert snapshot(listed) == snapshot(plain)
    assert snapshot(listed).version == snapshot(plain).version


def test_derived_ids_are_of_all_objects_and_protocols() -> None:
    """In whatever order they stand; the ids of single values are as they always were (§4.7)."""
    assert the_rule(snapshot(rule_document())).rule_id == "auto-5ba54a5fbdc1e895"
    several = the_rule(
        snapshot(rule_document(protocol=["tcp", "udp"], authorization_object=["192.0.2.0/24", "sg-1"]))
    )
    other = the_rule(
        snapshot(rule_document(protocol=["udp", "tcp"], authorization_object=["sg-1", "192.0.2.0/24"]))
    )
    assert several.rule_id == other.rule_id == derive_rule_id("sg-1", several)
    fewer = (
        rule_document(protocol=["tcp", "udp"], authorization_object=["192.0.2.0/24"]),
        rule_document(protocol="tcp", authorization_object=["192.0.2.0/24", "sg-1"]),
        rule_document(),
    )
    assert len({several.rule_id, *(the_rule(snapshot(text)).rule_id for text in fewer)}) == 4


def errors(answer: str) -> list[Problem]:
    """Return the errors of an answer, without the warnings about what goes with it."""
    return [one for one in refused(answer, name="a.json") if one.severity is Severity.ERROR]


@pytest.mark.parametrize(
    "fields",
    (
        {"authorization_object": "any", **PING},
        {"authorization_object": ["10.0.0.0/8", "2001:db8::/32", "sg-1", "7/sg-2", "pl-1"]},
        {
            "authorization_object": ["0.0.0.0/0", "::/0", "sg-1"],
            "protocol": ["tcp", "udp"],
            "port_range": [1, 2],
        },
        {"protocol": ["tcp", "gre", 253], "port_range": "-1/-1"},
    ),
)
def test_what_is_written_is_read_again(fields: dict[str, object]) -> None:
    """As JSON and as YAML."""
    found, _ = parse(rule_document(**fields))
    written = write_document(found)
    for text in (json.dumps(written), as_yaml(written)):
        again, _ = parse(text)
        assert again == found


def test_answers_of_the_api_have_no_lists() -> None:
    """In the cloud a rule has one protocol and one object; a list there is a mistake (§12)."""
    rule = {
        "SecurityGroupRuleId": "sgr-1",
        "Direction": "ingress",
        "Policy": "Accept",
        "Priority": "1",
        "IpProtocol": ["TCP", "UDP"],
        "PortRange": "80/80",
        "SourceCidrIp": ["10.0.0.0/8"],
    }
    answer = {"SecurityGroupId": "sg-1", "Permissions": {"Permission": [rule]}}
    problems = errors(json.dumps(answer))
    assert {problem.origin.path.rpartition(".")[2] for problem in problems} == {"IpProtocol", "SourceCidrIp"}
    assert set(codes(problems)) == {"wrong_type"}
    word = json.dumps(answer).replace('["10.0.0.0/8"]', '"any"').replace('["TCP", "UDP"]', '"TCP"')
    assert codes(errors(word)) == ["bad_address"]


@pytest.mark.parametrize(
    "written",
    (
        {
            "authorization_object": [
                "sg-lost",
                "lost",
                "10.0.0.0/33",
                "10.0.0.300",
                "any",
                "dns:a.example.org",
            ]
        },
        {"authorization_object": ["lost", "10.0.0.300"], "port_range": 0},
        {"authorization_object": ["lost", "sg-1", "10.0.0.300"], "protocol": ["tcp", "tcp"]},
    ),
)
def test_unknown_ids_are_reported_beside_other_errors(written: dict[str, object]) -> None:
    """All at once, where they stand (§8.1)."""
    problems = refused(rule_document(**written))
    objects = written["authorization_object"]
    assert isinstance(objects, list)
    field = "security_groups[0].rules[0].authorization_object"
    found = {(str(one.origin.path), one.value) for one in problems}
    assert {(f"{field}[{objects.index(text)}]", text) for text in ("lost", "10.0.0.300")} < found
    assert len(found) == len(problems) == 3


def test_an_unknown_id_alone_is_reported_beside_other_errors() -> None:
    """Not one that a group of the documents has, though."""
    found = refused(rule_document(authorization_object="lost", port_range=0))
    assert [(one.code, one.value) for one in found] == [("port_out_of_range", "0"), ("bad_address", "lost")]
    assert codes(refused(rule_document(authorization_object="sg-1", port_range=0))) == ["port_out_of_range"]


@pytest.mark.parametrize("form", ("mirror%d.example", "office%d"))
def test_thousands_of_wrong_objects_are_named_in_a_moment(form: str) -> None:
    """A list of names that was pasted without ``dns:`` keeps no agent until its watchdog ends it."""
    written = [form % number for number in range(6_000)]
    began = time.process_time()
    found = refused(rule_document(authorization_object=written))
    assert time.process_time() - began < 10
    place = "security_groups[0].rules[0].authorization_object"
    items = {(text, f"{place}[{number}]") for number, text in enumerate(written)}
    assert {(problem.value, problem.origin.path) for problem in found} == items


@pytest.mark.one_python
def test_wrong_objects_are_compared_with_a_bounded_number_of_groups() -> None:
    """The first ones get a hint; thousands beside thousands of groups take no minutes."""
    objects = [f"sg_app{number:04}" for number in range(2_000)]
    groups = [{"security_group_id": f"sg-app{number:04}"} for number in range(2_000)]
    rules = [{**RULE, "authorization_object": objects}]
    text = document(security_groups=[*groups, {"security_group_id": "sg-1", "rules": rules}])
    began = time.process_time()
    found = refused(text)
    assert time.process_time() - began < 15
    assert (len(found), found[0].remedy) == (2_000, "did you mean sg-app0000?")
    assert found[-1].remedy.startswith("an address, a CIDR")
