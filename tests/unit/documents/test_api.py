"""Answers of the ECS API (§4, §5.1, §8.4)."""

from __future__ import annotations

import json

import pytest

from sgagent.core.errors import Problem
from sgagent.core.model import (
    ALL_PORTS,
    TCP,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    Policy,
    PortListReference,
    PortSet,
    PrefixListReference,
)
from tests.unit.documents.reading import codes, document, parse, refused, snapshot, the_group, the_rule

PERMISSION: dict[str, object] = {
    "SecurityGroupRuleId": "sgr-1",
    "Direction": "ingress",
    "Policy": "Accept",
    "Priority": "1",
    "IpProtocol": "TCP",
    "PortRange": "80/80",
    "SourcePortRange": "-1/-1",
    "SourceCidrIp": "0.0.0.0/0",
    "Ipv6SourceCidrIp": "",
    "SourceGroupId": "",
    "SourceGroupOwnerAccount": "",
    "SourcePrefixListId": "",
    "DestCidrIp": "",
    "Ipv6DestCidrIp": "",
    "DestGroupId": "",
    "DestPrefixListId": "",
    "PortRangeListId": "",
    "NicType": "intranet",
    "Description": "",
    "CreateTime": "2026-01-01T00:00:00Z",
}


def listing(*groups: dict[str, object], **fields: object) -> dict[str, object]:
    """Return an answer of DescribeSecurityGroups."""
    return {
        "RequestId": "r",
        "TotalCount": len(groups),
        "SecurityGroups": {"SecurityGroup": list(groups)},
        **fields,
    }


def listed(group_id: str = "sg-1", **fields: object) -> dict[str, object]:
    """Return a group of a listing."""
    return {
        "SecurityGroupId": group_id,
        "SecurityGroupType": "normal",
        "SecurityGroupName": "web",
        "VpcId": "vpc-1",
        "Tags": {"Tag": None},
        "Description": "",
        **fields,
    }


def attribute(*permissions: dict[str, object], group_id: str = "sg-1", **fields: object) -> dict[str, object]:
    """Return an answer of DescribeSecurityGroupAttribute."""
    return {
        "RequestId": "r",
        "SecurityGroupId": group_id,
        "VpcId": "vpc-1",
        "InnerAccessPolicy": "Accept",
        "Permissions": {"Permission": list(permissions)},
        **fields,
    }


def with_rule(**fields: object) -> str:
    """Return the answers for a group of one rule that differs from :data:`PERMISSION`."""
    return json.dumps([listing(listed()), attribute({**PERMISSION, **fields})])


def egress(**fields: object) -> str:
    """Return the answers for a group of one egress rule."""
    return with_rule(Direction="egress", SourceCidrIp="", **fields)


def test_two_answers_make_one_group() -> None:
    """The type comes from one call, inner policy and rules from the other, in any order and file."""
    tags = {"Tag": [{"TagKey": "b", "TagValue": "2"}, {"TagKey": "a", "TagValue": ""}]}
    first = json.dumps(listing(listed(SecurityGroupType="enterprise", Tags=tags, OwnerId=160998252992)))
    second = json.dumps(attribute(PERMISSION, InnerAccessPolicy="Drop"))
    group = the_group(snapshot(first, second))
    assert group == the_group(snapshot(second, first))
    assert (group.group_type, group.inner_access_policy) == (GroupType.ADVANCED, Policy.DROP)
    assert (group.name, group.vpc_id, group.account_id) == ("web", "vpc-1", "160998252992")
    assert group.tags == (("a", ""), ("b", "2"))


def test_a_rule_is_read() -> None:
    """Empty texts are unused fields; a priority may be a text."""
    rule = the_rule(snapshot(with_rule()))
    assert (rule.rule_id, rule.direction) == ("sgr-1", Direction.INGRESS)
    assert (rule.policy, rule.priority) == (Policy.ACCEPT, 1)
    assert (rule.protocols, rule.ports, rule.source_ports) == ((TCP,), PortSet.of((80, 80)), ALL_PORTS)
    assert (rule.authorization_objects, rule.local_address) == ((CidrBlock.parse("0.0.0.0/0"),), None)


@pytest.mark.parametrize(
    ("fields", "meant"),
    (
        ({"SourceGroupId": "sg-2", "SourcePrefixListId": "pl-1"}, CidrBlock.parse("0.0.0.0/0")),
        ({"SourceCidrIp": "", "Ipv6SourceCidrIp": "::/0"}, CidrBlock.parse("::/0")),
        ({"SourceCidrIp": "", "SourceGroupId": "sg-2", "SourcePrefixListId": "pl-1"}, GroupReference("sg-2")),
        (
            {"SourceCidrIp": None, "SourceGroupId": "sg-2", "SourceGroupOwnerAccount": "42"},
            GroupReference("sg-2", "42"),
        ),
        (
            {"SourceCidrIp": "", "SourceGroupId": "sg-2", "SourceGroupOwnerAccount": 42},
            GroupReference("sg-2", "42"),
        ),
        (
            {"SourceCidrIp": "", "SourceGroupId": "sg-2", "SourceGroupOwnerAccount": "a@example.com"},
            GroupReference("sg-2", "a@example.com"),
        ),
        ({"SourceCidrIp": "", "SourcePrefixListId": "pl-1"}, PrefixListReference("pl-1")),
        (
            {"SourceGroupId": "?", "SourceGroupOwnerAccount": "an account", "SourcePrefixListId": "?"},
            CidrBlock.parse("0.0.0.0/0"),
        ),
        ({"SourceCidrIp": "", "SourceGroupId": "sg-2", "SourcePrefixListId": "?"}, GroupReference("sg-2")),
        (
            {"SourceCidrIp": "", "SourceGroupOwnerAccount": "an account", "SourcePrefixListId": "pl-1"},
            PrefixListReference("pl-1"),
        ),
    ),
)
def test_a_cidr_wins_over_a_group_over_a_prefix_list(fields: dict[str, object], meant: object) -> None:
    """Where several are filled, one is meant (§5.1)."""
    assert the_rule(snapshot(with_rule(**fields))).authorization_objects == (meant,)


def test_the_near_end_is_the_local_address() -> None:
    """Destination on ingress, source on egress (§4.5)."""
    inward = the_rule(snapshot(with_rule(DestCidrIp="10.0.0.0/8")))
    outward = the_rule(
        snapshot(
            egress(DestCidrIp="192.0.2.0/24").replace('"SourceCidrIp": ""', '"SourceCidrIp": "10.0.0.0/8"')
        )
    )
    assert inward.local_address == outward.local_address == CidrBlock.parse("10.0.0.0/8")
    assert outward.authorization_objects == (CidrBlock.parse("192.0.2.0/24"),)


def test_an_egress_rule_to_a_group() -> None:
    """The destination is the peer on egress."""
    rule = the_rule(snapshot(egress(DestGroupId="sg-9", DestGroupOwnerAccount="7")))
    assert rule.authorization_objects == (GroupReference("sg-9", "7"),)


def test_a_rule_with_a_port_list() -> None:
    """An empty port range leaves the list in force (§4.3)."""
    assert the_rule(snapshot(with_rule(PortRange="", PortRangeListId="prl-1"))).ports == PortListReference(
        "prl-1"
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    (
        ({"SourceCidrIp": ""}, "missing_object"),
        ({"Ipv6SourceCidrIp": "::/0"}, "mixed_families"),
        ({"Ipv6DestCidrIp": "::/0"}, "mixed_families"),
        ({"Priority": "high"}, "bad_priority"),
        ({"Priority": "010"}, "bad_priority"),
        ({"Priority": 0}, "bad_priority"),
        ({"Priority": True}, "wrong_type"),
        ({"Policy": ""}, "missing_field"),
        ({"Direction": "both"}, "bad_value"),
        ({"IpProtocol": "XYZ"}, "bad_protocol"),
        ({"PortRange": 80.5}, "wrong_type"),
        ({"PortRange": ""}, "missing_ports"),
        ({"IpProtocol": "ICMP"}, "ports_do_not_fit"),
        ({"SourceCidrIp": ["0.0.0.0/0"]}, "wrong_type"),
        ({"NicType": 3}, "wrong_type"),
        ({"SourceCidrIp": "", "SourceGroupId": "sg-1", "SourceGroupOwnerAccount": "a b"}, "bad_id"),
    ),
)
def test_wrong_rules(fields: dict[str, object], code: str) -> None:
    """Known fields are held to their types and values (§8.1)."""
    (problem,) = refused(with_rule(**fields))
    assert problem.code == code
    assert problem.origin.path.startswith("[1].Permissions.Permission[0]")


@pytest.mark.parametrize(
    ("fields", "code"),
    (
        ({"NicType": "internet"}, "nic_type"),
        ({"Priority": "110"}, "priority_above_100"),
        ({"PortRange": "-1/-1"}, "every_port"),
        ({"SourceCidrIp": "10.1.2.3/8"}, "host_bits"),
    ),
)
def test_what_is_only_warned_of(fields: dict[str, object], code: str) -> None:
    """It is enforced all the same (§8.2)."""
    assert codes(parse(with_rule(**fields))[1]) == [code]


def test_pages_of_one_group_make_one() -> None:
    """Rules come in pages; the last one announces no other."""
    first = attribute(PERMISSION, NextToken="t")
    second = attribute({**PERMISSION, "SecurityGroupRuleId": "sgr-2"}, NextToken="")
    group = the_group(snapshot(json.dumps([listing(listed()), first, second])))
    assert [rule.rule_id for rule in group.rules] == ["sgr-1", "sgr-2"]


def told(*answers: dict[str, object]) -> tuple[Problem, ...]:
    """Return what is wrong with answers, each in a file of its own."""
    return refused(*map(json.dumps, (listing(listed()), *answers)))


OTHER = {**PERMISSION, "SecurityGroupRuleId": "sgr-2", "PortRange": "22/22"}


@pytest.mark.parametrize(
    ("first", "second"),
    (
        (attribute(PERMISSION), attribute(OTHER)),
        (attribute(PERMISSION), attribute()),
        (attribute(PERMISSION, NextToken=""), attribute(OTHER, NextToken=None)),
        (attribute(PERMISSION, NextToken="t"), attribute(OTHER, NextToken="t")),
    ),
)
def test_a_second_whole_answer_is_an_error(first: dict[str, object], second: dict[str, object]) -> None:
    """An old answer beside a new one would keep its rules in force; both files are named."""
    last = attribute({**OTHER, "SecurityGroupRuleId": "sgr-3"})
    answers = (first, second, last) if first.get("NextToken") else (first, second)
    (problem,) = told(*answers)
    assert (problem.code, problem.origin.file) == ("second_answer", "2-a.yaml")
    assert "sg-1" in problem.message
    assert "1-a.yaml" in problem.message


def test_three_whole_answers_are_two_errors() -> None:
    """Each is told, also those in one file, and one that says the same."""
    text = json.dumps([listing(listed()), attribute(), attribute(), attribute()])
    assert codes(refused(text)) == ["second_answer"] * 2


@pytest.mark.parametrize(
    ("name", "value", "other"),
    (
        ("InnerAccessPolicy", "Accept", "Drop"),
        ("VpcId", "vpc-1", "vpc-2"),
        ("OwnerId", "1", "2"),
        ("SecurityGroupName", "web", "db"),
    ),
)
def test_pages_agree_about_their_group(name: str, value: str, other: str) -> None:
    """Pages of different times make a group that never was; both files are named."""
    first = attribute(PERMISSION, NextToken="t", **{name: value})
    (problem,) = told(first, attribute(OTHER, **{name: other}))
    assert (problem.code, problem.origin.file) == ("contradiction", "2-a.yaml")
    assert problem.message.startswith(f"{name} of sg-1 differs from that in 1-a.yaml")
    silent = attribute(OTHER, **{name: ""})
    assert len(the_group(snapshot(*map(json.dumps, (listing(listed()), first, silent)))).rules) == 2


def test_what_the_first_page_does_not_say_the_second_may() -> None:
    """An inner policy that only one page tells is the group's."""
    first, second = attribute(InnerAccessPolicy="", NextToken="t"), attribute(InnerAccessPolicy="Drop")
    for pages in ((first, second), (second, first)):
        group = the_group(snapshot(json.dumps([listing(listed()), *pages])))
        assert group.inner_access_policy is Policy.DROP


def test_a_listing_agrees_with_the_answer_about_the_group() -> None:
    """A group does not change its VPC: one of the two is another's, or of another time."""
    for fields in ({"VpcId": "vpc-2"}, {"OwnerId": "2"}):
        text = json.dumps([listing(listed(OwnerId="1")), {**attribute(OwnerId="1"), **fields}])
        assert codes(refused(text)) == ["contradiction"]


def test_a_contradicting_listing_names_both_files() -> None:
    """So does one about an interface or list."""
    other = listing(listed(SecurityGroupType="enterprise"))
    twice = {
        "listing": (json.dumps([listing(listed()), attribute()]), json.dumps(other)),
        "interface": (interfaces(INTERFACE), interfaces({**INTERFACE, "PrivateIpAddress": "10.0.0.99"})),
        "prefix list": (json.dumps(PREFIXES), json.dumps({**PREFIXES, "Entries": None})),
        "port list": (json.dumps({**PORTS, "PortRangeListId": "prl-1"}),) * 2,
    }
    for texts in twice.values():
        problem = next(one for one in refused(*texts) if one.code == "duplicate_id")
        assert problem.origin.file == "a.yaml"
        assert " 1-a.yaml" in problem.message


def test_a_second_id_is_told_with_its_field() -> None:
    """As answers call it."""
    second = {**attribute(PERMISSION, PERMISSION)}
    (problem,) = refused(json.dumps([listing(listed()), second]))
    assert problem.origin.path == "[1].Permissions.Permission[1].SecurityGroupRuleId"
    assert problem.message.startswith("the SecurityGroupRuleId is already used by ")
    (problem,) = refused(json.dumps(PREFIXES), json.dumps(PREFIXES))
    assert problem.origin.path == "PrefixListId"
    (problem,) = refused(json.dumps([{**PORTS, "PortRangeListId": "prl-1"}] * 2))
    assert problem.origin.path == "[1].PortRangeListId"


def test_a_group_without_its_type_admits_least() -> None:
    """Losing the listing never admits a packet: the group is read as advanced, with a warning (§5.3)."""
    found, warnings = parse(json.dumps(attribute(PERMISSION, InnerAccessPolicy="Drop")))
    assert (the_group(found).group_type, codes(warnings)) == (GroupType.ADVANCED, ["type_not_delivered"])


def test_a_group_without_its_rules_is_left_out() -> None:
    """Without its drop rules it would open something: it stays unknown, with a warning (§5.3)."""
    found, warnings = parse(json.dumps(listing(listed())))
    assert (found.security_groups, codes(warnings)) == ((), ["rules_not_delivered"])


def test_a_group_listed_twice_must_be_the_same() -> None:
    """Pages may repeat a group; they may not contradict each other."""
    same = json.dumps([listing(listed(), listed()), attribute()])
    other = json.dumps([listing(listed(), listed(SecurityGroupType="enterprise")), attribute()])
    assert the_group(snapshot(same)).group_type is GroupType.BASIC
    assert codes(refused(other)) == ["duplicate_id"]


INTERFACE: dict[str, object] = {
    "NetworkInterfaceId": "eni-1",
    "MacAddress": "00:16:3E:00:00:01",
    "PrivateIpAddress": "10.0.0.11",
    "PrivateIpSets": {
        "PrivateIpSet": [
            {"PrivateIpAddress": "10.0.0.12", "Primary": False},
            {"PrivateIpAddress": "10.0.0.11", "AssociatedPublicIp": {"PublicIpAddress": "203.0.113.1"}},
        ]
    },
    "Ipv6Sets": {"Ipv6Set": [{"Ipv6Address": "2001:db8::11"}]},
    "Ipv4PrefixSets": {"Ipv4PrefixSet": [{"Ipv4Prefix": "10.0.8.0/28"}]},
    "Ipv6PrefixSets": {"Ipv6PrefixSet": None},
    "SecurityGroupIds": {"SecurityGroupId": ["sg-1", "sg-0"]},
    "VpcId": "vpc-1",
    "OwnerId": "42",
    "InstanceId": "",
}


def interfaces(*found: dict[str, object], **fields: object) -> str:
    """Return an answer of DescribeNetworkInterfaces."""
    return json.dumps(
        {"RequestId": "r", "NetworkInterfaceSets": {"NetworkInterfaceSet": list(found)}, **fields}
    )


def test_an_interface_is_read() -> None:
    """Private addresses, primary first, and delegated prefixes; never a public one (§5.2)."""
    (interface,) = snapshot(interfaces(INTERFACE)).network_interfaces
    assert [str(block) for block in interface.addresses] == [
        "10.0.0.11",
        "10.0.0.12",
        "2001:db8::11",
        "10.0.8.0/28",
    ]
    assert (interface.mac_address, interface.security_group_ids) == ("00:16:3e:00:00:01", ("sg-0", "sg-1"))
    assert (interface.vpc_id, interface.account_id, interface.instance_id) == ("vpc-1", "42", None)


def test_pages_may_repeat_an_interface() -> None:
    """The same again is one; another under its id is an error."""
    assert len(snapshot(interfaces(INTERFACE), interfaces(INTERFACE)).network_interfaces) == 1
    other = {**INTERFACE, "VpcId": "vpc-2"}
    assert "duplicate_id" in codes(refused(interfaces(INTERFACE), interfaces(other)))


def test_idle_timeouts_are_warned_of() -> None:
    """They are read and reported, not enforced (§6.7)."""
    timeouts = {"TcpEstablishedTimeout": 910, "UdpTimeout": 30}
    _, warnings = parse(interfaces({**INTERFACE, "ConnectionTrackingConfiguration": timeouts}))
    assert codes(warnings) == ["idle_timeouts"]


PREFIXES: dict[str, object] = {
    "RequestId": "r",
    "PrefixListId": "pl-1",
    "AddressFamily": "IPv4",
    "Entries": {"Entry": [{"Cidr": "203.0.113.0/24", "Description": "office"}]},
}


def test_a_prefix_list_is_read() -> None:
    """Its entries are wrapped."""
    (found,) = snapshot(json.dumps(PREFIXES)).prefix_lists
    assert (found.prefix_list_id, found.family) == ("pl-1", Family.IPV4)
    assert found.entries == (CidrBlock.parse("203.0.113.0/24"),)


PORTS: dict[str, object] = {"RequestId": "r", "Entries": [{"PortRange": "53/53", "Description": ""}]}


def test_a_port_list_has_the_id_beside_its_entries() -> None:
    """Its entries are a flat list."""
    (found,) = snapshot(json.dumps([{**PORTS, "PortRangeListId": "prl-1"}])).port_lists
    assert (found.port_list_id, found.entries) == ("prl-1", PortSet.of((53, 53)))


def test_a_port_list_may_have_its_id_from_the_file() -> None:
    """The answer of the API itself does not say whose entries they are."""
    (found,) = snapshot(json.dumps(PORTS), name="/d/ports-prl-7.json").port_lists
    assert found.port_list_id == "prl-7"


@pytest.mark.parametrize(
    ("answer", "name", "code"),
    (
        ([listing(listed()), attribute(PERMISSION, NextToken="t")], "a.yaml", "missing_page"),
        ({**PREFIXES, "NextToken": "t"}, "a.yaml", "missing_page"),
        ({**PORTS, "PortRangeListId": "prl-1", "NextToken": "t"}, "a.yaml", "missing_page"),
        (PORTS, "a.yaml", "missing_field"),
        ([PORTS], "prl-7.json", "missing_field"),
        (json.loads(interfaces({**INTERFACE, "PrivateIpAddress": "10.0.0.11/24"})), "a.yaml", "host_bits"),
    ),
    ids=("rules", "prefix list", "port list", "list without id", "lists of a file", "host bits"),
)
def test_a_part_is_an_error(answer: object, name: str, code: str) -> None:
    """Half a policy is none, nothing is guessed, and host bits would make members of a network (§5.3)."""
    assert codes(refused(json.dumps(answer), name=name)) == [code]


def test_a_group_of_the_native_format_is_not_a_page() -> None:
    """One group in both formats is a duplicate."""
    native = document(security_groups=[{"security_group_id": "sg-1"}])
    assert codes(refused(native, json.dumps([listing(listed()), attribute()]))) == ["duplicate_id"]


@pytest.mark.parametrize(
    ("answer", "code"),
    (
        ({"RequestId": "r", "Code": "Forbidden", "Message": "no"}, "unknown_answer"),
        ({"RequestId": "r"}, "unknown_answer"),
        (listing(listed(SecurityGroupType="")), "missing_field"),
        (listing({"SecurityGroupType": "normal"}), "missing_field"),
        ({"SecurityGroups": []}, "wrong_type"),
        (listing(listed(Tags=[])), "wrong_type"),
        (attribute(group_id=""), "missing_field"),
        ({"NetworkInterfaceSets": {"NetworkInterfaceSet": [1]}}, "wrong_type"),
        ({"NetworkInterfaceSets": {"NetworkInterfaceSet": [{}]}}, "missing_field"),
        ({"PrefixListId": "pl-1"}, "missing_field"),
    ),
)
def test_wrong_answers(answer: dict[str, object], code: str) -> None:
    """What is known must be of its type; what must be there is missed (§8.1)."""
    assert code in codes(refused(json.dumps(answer)))


def test_unknown_fields_are_ignored() -> None:
    """The API grows; answers may hold what this version doesn't know (§8.4)."""
    assert the_rule(snapshot(with_rule(Brand="new", Nested={"a": [1]}))).rule_id == "sgr-1"


@pytest.mark.parametrize(
    "field", ("SecurityGroups", "NetworkInterfaceSets", "Permissions", "Entries", "RequestId")
)
def test_a_version_makes_a_document_native(field: str) -> None:
    """What looks like an answer in it is an unknown field, and does not hide its groups."""
    assert codes(refused(json.dumps({"version": 1, "security_groups": [], field: {}}))) == ["unknown_field"]
