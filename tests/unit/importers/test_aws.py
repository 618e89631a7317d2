"""Answers of the EC2 API in our own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sgagent.core.errors import DocumentError
from sgagent.core.model import ALL_PORTS, Direction, PortSet, SecurityGroupRule
from sgagent.core.rule_values import objects_text, protocols_text
from sgagent.documents import DocumentFile, Limits
from sgagent.importers import Imported, ImportEffect, import_aws

Answer = dict[str, Any]


def imported(*answers: object, **named: object) -> Imported:
    """Return what answers come to; those with a name stand in a file of that name."""
    files = {f"{index}.json": answer for index, answer in enumerate(answers)}
    files |= {f"{name.replace('_', '-')}.json": answer for name, answer in named.items()}
    return import_aws([DocumentFile(name, json.dumps(it).encode()) for name, it in files.items()], Limits())


def group(*permissions: Answer, **more: object) -> Answer:
    """Return an answer with one group."""
    usual = {
        "GroupId": "sg-1",
        "OwnerId": "123456789012",
        "VpcId": "vpc-1",
        "IpPermissions": list(permissions),
    }
    return {"SecurityGroups": [{**usual, **more}]}


def permission(protocol: str, first: int | None = None, last: int | None = None, **ends: object) -> Answer:
    """Return a permission, from anywhere unless said."""
    ports = {} if first is None else {"FromPort": first, "ToPort": last}
    return {"IpProtocol": protocol, **ports, **(ends or {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]})}


def the_rules(found: Imported) -> tuple[SecurityGroupRule, ...]:
    """Return the rules of the only group."""
    (only,) = found.snapshot.security_groups
    return only.rules


def ports_of(rule: SecurityGroupRule) -> list[str]:
    """Return the port ranges of a rule."""
    return list(rule.ports.texts) if isinstance(rule.ports, PortSet) else []


def effects(found: Imported) -> list[ImportEffect]:
    """Return what became of what is not what it was."""
    return [note.effect for note in found.notes]


@pytest.mark.parametrize(
    ("protocol", "written"),
    (("-1", "all"), ("6", "tcp"), ("icmp", "icmp"), ("47", "gre"), ("50", "50"), ("esp", "50")),
)
def test_protocols(protocol: str, written: str) -> None:
    """A number and a name are the same, and -1 is every protocol; without ports where there are none."""
    found = imported(group(permission(protocol, *((443, 443) if written == "tcp" else (-1, -1)))))
    assert [protocols_text(rule.protocols) for rule in the_rules(found)] == [written]
    assert found.notes == ()


def test_ports_of_a_protocol_without_any_say_nothing() -> None:
    """AWS lets all traffic of such a protocol through, whatever ports a rule names."""
    (rule,) = the_rules(imported(group(permission("-1", 0, 0))))
    assert rule.ports == ALL_PORTS


@pytest.mark.parametrize(
    ("first", "last", "ports", "effect"),
    (
        (443, 443, ["443/443"], []),
        (0, 65535, ["1/65535"], [ImportEffect.NARROWED]),
        (0, 0, [], [ImportEffect.LEFT_OUT]),
    ),
)
def test_port_0_is_lost(first: int, last: int, ports: list[str], effect: list[ImportEffect]) -> None:
    """No document can speak of it; what is lost is told."""
    found = imported(group(permission("tcp", first, last)))
    assert [port for rule in the_rules(found) for port in ports_of(rule)] == ports
    assert effects(found) == effect


WRONG_BOUNDS: tuple[tuple[str, Answer, str, str, str | None], ...] = (
    ("tcp", {"FromPort": 80}, "missing_field", "ToPort", None),
    ("tcp", {"ToPort": 80}, "missing_field", "FromPort", None),
    ("udp", {"FromPort": None, "ToPort": 53}, "missing_field", "FromPort", None),
    ("6", {}, "missing_field", "FromPort", None),
    ("tcp", {"FromPort": "", "ToPort": ""}, "missing_field", "FromPort", None),
    ("tcp", {"FromPort": 80, "ToPort": 65536}, "port_out_of_range", "ToPort", "65536"),
    ("tcp", {"FromPort": 70000, "ToPort": 70000}, "port_out_of_range", "FromPort", "70000"),
    ("udp", {"FromPort": -1, "ToPort": -1}, "port_out_of_range", "FromPort", "-1"),
    ("tcp", {"FromPort": -80, "ToPort": 80}, "port_out_of_range", "FromPort", "-80"),
    ("tcp", {"FromPort": 443, "ToPort": 80}, "reversed_ports", "FromPort", "443"),
    ("tcp", {"FromPort": "80", "ToPort": 80}, "wrong_type", "FromPort", "80"),
    ("tcp", {"FromPort": True, "ToPort": 80}, "wrong_type", "FromPort", "true"),
    ("tcp", {"FromPort": 8.5, "ToPort": 80}, "wrong_type", "FromPort", "8.5"),
    ("tcp", {"FromPort": 10**30, "ToPort": 80}, "out_of_range", "FromPort", "1" + "0" * 30),
    ("icmp", {}, "missing_field", "FromPort", None),
    ("icmp", {"FromPort": 8}, "missing_field", "ToPort", None),
    ("icmpv6", {"FromPort": 300, "ToPort": -1}, "port_out_of_range", "FromPort", "300"),
    ("icmp", {"FromPort": -2, "ToPort": -1}, "port_out_of_range", "FromPort", "-2"),
    ("-1", {"FromPort": "all", "ToPort": -1}, "wrong_type", "FromPort", "all"),
)


@pytest.mark.parametrize(("protocol", "bounds", "code", "name", "value"), WRONG_BOUNDS)
def test_no_port_is_guessed(protocol: str, bounds: Answer, code: str, name: str, value: str | None) -> None:
    """Missing, reversed and impossible ports are errors with the resource, the field and its value."""
    inside = group({"IpProtocol": protocol, "IpRanges": [{"CidrIp": "0.0.0.0/0"}], **bounds})
    alone = rule_answer(IpProtocol=protocol, CidrIpv4="0.0.0.0/0", FromPort=None, ToPort=None)
    alone["SecurityGroupRules"][0].update(bounds)
    for answers, named in (((inside,), "sg-1"), ((group(), alone), "sgr-1")):
        with pytest.raises(DocumentError) as caught:
            imported(*answers)
        problem = caught.value.problems[0]
        assert (problem.code, problem.value) == (code, value)
        assert problem.origin.path.endswith(f".{name}")
        assert problem.message.startswith(f"{named}: ")
        assert problem.remedy


def test_one_type_of_icmp_is_not_all_of_it() -> None:
    """A rule for echo requests is left out, as all of ICMP would be more; one for all types is taken."""
    found = imported(group(permission("icmp", 8, -1), permission("icmp", -1, -1)))
    assert len(the_rules(found)) == 1
    (note,) = found.notes
    assert "icmp of type 8 and code -1" in str(note)
    assert str(note).startswith("left out: 0.json:1: SecurityGroups[0].IpPermissions[0].IpRanges[0]: sg-1: ")


def test_groups_of_other_accounts_and_vpcs() -> None:
    """An account is named where it is another; a peered VPC is out of reach."""
    pairs = [
        {"GroupId": "sg-1", "UserId": "123456789012"},
        {"GroupId": "sg-2", "UserId": "210987654321"},
        {"GroupId": "sg-3", "UserId": "123456789012", "VpcId": "vpc-2", "PeeringStatus": "active"},
    ]
    found = imported(group(permission("-1", UserIdGroupPairs=pairs)))
    assert [objects_text(rule.authorization_objects) for rule in the_rules(found)] == [
        "sg-1",
        "210987654321/sg-2",
    ]
    assert effects(found) == [ImportEffect.NARROWED, ImportEffect.LEFT_OUT]


@pytest.mark.parametrize(
    ("account", "effect"), (("123456789012", []), ("210987654321", [ImportEffect.NARROWED]))
)
def test_a_group_that_another_account_would_have(account: str, effect: list[ImportEffect]) -> None:
    """A known id is not enough: if the account is another, the rule matches nothing, which is told."""
    both = group(permission("-1", UserIdGroupPairs=[{"GroupId": "sg-2", "UserId": account}]))
    both["SecurityGroups"] += group(GroupId="sg-2")["SecurityGroups"]
    found = imported(both)
    assert effects(found) == effect
    assert all("sg-2 is account 123456789012's" in note.message for note in found.notes)
    numbered = rule_answer(ReferencedGroupInfo={"GroupId": "sg-2", "UserId": account})
    without = group()
    without["SecurityGroups"] += group(GroupId="sg-2")["SecurityGroups"]
    assert effects(imported(without, numbered)) == effect


def test_a_group_of_another_vpc_is_known_by_its_own_answer() -> None:
    """A pair need not say the VPC."""
    pairs = [{"GroupId": "sg-2", "UserId": "123456789012"}]
    both = group(permission("-1", UserIdGroupPairs=pairs))
    both["SecurityGroups"] += group(GroupId="sg-2", VpcId="vpc-2")["SecurityGroups"]
    assert effects(imported(both)) == [ImportEffect.LEFT_OUT]


def test_prefix_lists() -> None:
    """Entries come in an answer that does not say whose they are; the name of the file does."""
    listed = {"PrefixLists": [{"PrefixListId": "pl-1", "AddressFamily": "IPv6"}]}
    entries = {"Entries": [{"Cidr": "2001:db8::/32"}]}
    rule = permission("tcp", 22, 22, PrefixListIds=[{"PrefixListId": "pl-1"}])
    found = imported(group(rule), listed, pl_1=entries)
    (prefix_list,) = found.snapshot.prefix_lists
    assert list(map(str, prefix_list.entries)) == ["2001:db8::/32"]
    assert found.notes == ()
    assert effects(imported(group(rule), listed)) == [ImportEffect.LEFT_OUT, ImportEffect.NARROWED]


def test_lists_that_aws_keeps_have_one_family_here() -> None:
    """Entries of the other family are lost, and told."""
    found = imported(
        group(), {"PrefixLists": [{"PrefixListId": "pl-1", "Cidrs": ["198.51.100.0/24", "2001:db8::/32"]}]}
    )
    assert effects(found) == [ImportEffect.NARROWED]


def rule_answer(**ends: object) -> Answer:
    """Return an answer with one rule and its id."""
    usual = {"SecurityGroupRuleId": "sgr-1", "GroupId": "sg-1", "IsEgress": False, "IpProtocol": "tcp"}
    return {"SecurityGroupRules": [{**usual, "FromPort": 443, "ToPort": 443, "Description": "", **ends}]}


@pytest.mark.parametrize(
    ("ends", "peer"),
    (
        ({"CidrIpv4": "192.0.2.0/24"}, "192.0.2.0/24"),
        ({"CidrIpv6": "2001:db8::/32"}, "2001:db8::/32"),
        ({"PrefixListId": "pl-1"}, "pl-1"),
        ({"ReferencedGroupInfo": {"GroupId": "sg-1", "UserId": "123456789012"}}, "sg-1"),
        ({"ReferencedGroupInfo": {"GroupId": "sg-9", "UserId": "210987654321"}}, "210987654321/sg-9"),
    ),
)
def test_rules_with_their_ids(ends: Answer, peer: str) -> None:
    """A call of its own tells them; the group's own answer may tell the same rule without its id."""
    (rule,) = the_rules(imported(group(), rule_answer(**ends)))
    assert (rule.rule_id, objects_text(rule.authorization_objects)) == ("sgr-1", peer)
    (egress,) = the_rules(imported(group(), rule_answer(IsEgress=True, **ends)))
    assert egress.direction is Direction.EGRESS


def test_a_rule_that_is_told_twice_is_one() -> None:
    """Once in its group, once with its id; in any order."""
    once = group(permission("tcp", 443, 443))
    again = rule_answer(CidrIpv4="0.0.0.0/0", Description="HTTPS")
    for answers in ((once, again), (again, once)):
        (rule,) = the_rules(imported(*answers))
        assert rule.rule_id == "sgr-1"


def test_an_old_answer_beside_a_new_one_is_refused() -> None:
    """Together they would allow what either allows; both places are named."""
    rule = rule_answer(CidrIpv4="0.0.0.0/0")
    other = rule_answer(CidrIpv4="192.0.2.0/24", SecurityGroupRuleId="sgr-2")
    eni = {"NetworkInterfaceId": "eni-1", "PrivateIpAddress": "10.0.0.5", "Groups": [{"GroupId": "sg-1"}]}
    moved = {**eni, "PrivateIpAddress": "10.0.0.6"}
    listed = {"PrefixLists": [{"PrefixListId": "pl-1", "Cidrs": ["198.51.100.0/24"]}]}
    wider = {"PrefixLists": [{"PrefixListId": "pl-1", "Cidrs": ["198.51.100.0/24", "192.0.2.0/24"]}]}
    entries = {"PrefixListId": "pl-1", "Entries": [{"Cidr": "192.0.2.0/24"}]}
    for first, second, code in (
        (group(permission("tcp", 443, 443)), other, "contradiction"),
        (group(permission("tcp", 443, 443), permission("tcp", 22, 22)), rule, "contradiction"),
        (rule, other, "second_answer"),
        (rule, rule, "second_answer"),
        ({"NetworkInterfaces": [eni]}, {"NetworkInterfaces": [moved]}, "duplicate_id"),
        (listed, wider, "duplicate_id"),
        (listed, entries, "duplicate_id"),
        (entries, {**entries, "Entries": []}, "duplicate_id"),
        (group(permission("tcp", 443, 443)), group(), "duplicate_id"),
    ):
        answers = (first, second) if "SecurityGroups" in first else (group(), first, second)
        with pytest.raises(DocumentError) as caught:
            imported(*answers)
        problem = caught.value.problems[0]
        assert problem.code == code
        places = str(problem)
        assert all(f"{len(answers) - number}.json" in places for number in (1, 2)), places


def test_the_same_told_twice_is_no_contradiction() -> None:
    """An interface and the entries of a list may be in two answers, alike."""
    eni = {"NetworkInterfaceId": "eni-1", "PrivateIpAddress": "10.0.0.5", "Groups": [{"GroupId": "sg-1"}]}
    listed = {"PrefixLists": [{"PrefixListId": "pl-1", "Cidrs": ["198.51.100.0/24"]}]}
    entries = {"PrefixListId": "pl-1", "Entries": [{"Cidr": "198.51.100.0/24"}]}
    found = imported(group(), *[{"NetworkInterfaces": [eni]}] * 2, listed, entries)
    assert (len(found.snapshot.network_interfaces), found.notes) == (1, ())


def test_private_addresses_of_an_interface() -> None:
    """Primary, secondary, IPv6 and delegated prefixes; never a public address."""
    interface = {
        "NetworkInterfaceId": "eni-1",
        "MacAddress": "02:00:00:00:00:01",
        "PrivateIpAddress": "10.0.0.5",
        "PrivateIpAddresses": [
            {"PrivateIpAddress": "10.0.0.6"},
            {"PrivateIpAddress": "10.0.0.5", "Association": {"PublicIp": "203.0.113.7"}},
        ],
        "Ipv6Addresses": [{"Ipv6Address": "2001:db8::5"}],
        "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.8.0/28"}],
        "Groups": [{"GroupId": "sg-1", "GroupName": "web"}],
        "Attachment": {"InstanceId": "i-1"},
    }
    (found,) = imported(group(), {"NetworkInterfaces": [interface]}).snapshot.network_interfaces
    assert list(map(str, found.addresses)) == ["10.0.0.5", "10.0.0.6", "2001:db8::5", "10.0.8.0/28"]
    assert (found.security_group_ids, found.instance_id) == (("sg-1",), "i-1")


@pytest.mark.parametrize(
    ("answer", "code"),
    (
        ({**group(), "NextToken": "more"}, "missing_page"),
        ({"Reservations": []}, "unknown_answer"),
        ({"SecurityGroups": []}, "nothing_to_import"),
        (group(permission("tcp", 1, 1, IpRanges=[{"CidrIp": "any"}])), "bad_address"),
        (group(permission("carrier pigeon")), "bad_protocol"),
        (group({"IpRanges": []}), "missing_field"),
        (group(permission("tcp", 1, 1, IpRanges=[{}])), "missing_field"),
        ({"SecurityGroups": [*group()["SecurityGroups"], *group()["SecurityGroups"]]}, "duplicate_id"),
        ({"Entries": []}, "missing_field"),
        (rule_answer(), "missing_field"),
        (rule_answer(CidrIpv4="192.0.2.1", IsEgress="no"), "wrong_type"),
    ),
)
def test_what_is_refused(answer: object, code: str) -> None:
    """What can't be understood is told with its place, and nothing is imported."""
    with pytest.raises(DocumentError) as caught:
        imported(answer)
    assert code in [problem.code for problem in caught.value.problems]


def test_every_error_of_a_rule_is_told_at_once() -> None:
    """A wrong account hides neither the group beside it nor what the rule contradicts."""
    rule = rule_answer(ReferencedGroupInfo={"GroupId": "sg-1", "UserId": []})
    rule["SecurityGroupRules"][0]["FromPort"] = "443"
    with pytest.raises(DocumentError) as caught:
        imported(group(), rule_answer(CidrIpv4="192.0.2.1"), rule)
    account = (
        "ReferencedGroupInfo.UserId: sgr-1: expected one account id, found a list (the digits of the account)"
    )
    place, remedy = "error: 2.json:1: SecurityGroupRules[0]", "(digits alone, without quotes)"
    assert list(map(str, caught.value.problems)) == [
        f"{place}.FromPort: sgr-1: expected a whole number, found text: '443' {remedy}",
        f"{place}.{account}",
    ]
    del rule["SecurityGroupRules"][0]["FromPort"]
    rule["SecurityGroupRules"][0]["IpProtocol"] = "-1"
    with pytest.raises(DocumentError) as caught:
        imported(group(), rule_answer(CidrIpv4="192.0.2.1"), rule)
    assert sorted(problem.code for problem in caught.value.problems) == ["second_answer", "wrong_type"]


def test_as_many_rules_as_the_limits_allow_are_read() -> None:
    """The limit of lists and mappings leaves room for a rule's empty ones."""
    limits = Limits(rules=200, addresses=200)
    empty: Answer = {"Ipv6Ranges": [], "UserIdGroupPairs": [], "PrefixListIds": []}
    rules = [
        permission("tcp", port, port, IpRanges=[{"CidrIp": "192.0.2.1"}], **empty) for port in range(1, 201)
    ]
    text = json.dumps(group(*rules)).encode()
    assert len(the_rules(import_aws([DocumentFile("0.json", text)], limits))) == 200
