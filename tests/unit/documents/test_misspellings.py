"""Values as consoles, guides and people write them: the message says what they are, and what is right."""

from __future__ import annotations

import json

import pytest

from sgagent.core.errors import DocumentError
from sgagent.core.model import GroupType, Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents

FIELDS = {
    "direction": "ingress",
    "policy": "accept",
    "protocol": "tcp",
    "port_range": "80",
    "authorization_object": "10.0.0.1",
}


def read(document: object) -> Snapshot:
    """Return the definitions of a document."""
    return parse_documents([DocumentFile("groups.json", json.dumps(document).encode())], Limits())[0]


@pytest.mark.parametrize(
    ("name", "value", "told", "right"),
    (
        ("port_range", "80,443", "several ranges", "[80, 443]"),
        ("authorization_object", "10.0.0.1, 10.0.0.2", "several objects", "[10.0.0.1, 10.0.0.2]"),
        ("port_range", "8000\u20138100", "a dash that is no hyphen", "8000-8100"),
        ("authorization_object", "2001:db8::/129", "largest prefix of IPv6 is /128", "2001:db8::/128"),
        ("authorization_object", "10.0.0.0/33", "largest prefix of IPv4 is /32", "10.0.0.0/32"),
        ("port_range", "8/0", "the port is out of range", "from 1 to 65535; ICMP has -1/-1"),
        ("port_range", "0/80", "the port is out of range", "from 1 to 65535; ICMP has -1/-1"),
        ("direction", "Inbound", "console", "ingress"),
        ("direction", "outbound", "console", "egress"),
        ("protocol", "Custom TCP", "console", "tcp"),
        ("protocol", "All ICMP (IPv4)", "console", "icmp, with port_range -1/-1"),
        ("protocol", "All ICMP (IPv6)", "console", "icmpv6, with port_range -1/-1"),
        ("port_range", "HTTP (80)", "console", "80"),
        ("protocol", "HTTP (80)", "console", "tcp, with port_range 80"),
        ("authorization_object", "192.0.2.1-192.0.2.9", "range of addresses", "CIDRs"),
        ("authorization_object", "2001:db8::1 - 2001:db8::9", "range of addresses", "CIDRs"),
        ("authorization_object", "172.16.XX.XX", "masked", "the whole value"),
        ("authorization_object", "192.168.XX.XX/16", "masked", "the whole value"),
        ("authorization_object", "sg-bp1hv6wvmegs036****", "masked", "the whole value"),
        ("authorization_object", "160998252992****/sg-bp174yoe2ib1sqj5****", "masked", "the whole value"),
    ),
)
def test_what_is_right_is_told(name: str, value: str, told: str, right: str) -> None:
    """Instead of a list of all forms."""
    rule = FIELDS | {name: value}
    document = {"version": 1, "security_groups": [{"security_group_id": "sg-a", "rules": [rule]}]}
    with pytest.raises(DocumentError) as caught:
        read(document)
    (problem,) = caught.value.problems
    assert told in problem.message
    assert right in problem.remedy


@pytest.mark.parametrize(
    ("name", "told"),
    (
        ("apiVersion", "Kubernetes objects; documents of sgagent begin with version: 1"),
        ("Permission", "the API's rules, below Permissions"),
        ("Permissions", "documents of sgagent have them in security_groups[].rules"),
    ),
)
def test_a_field_of_another_format_is_no_version(name: str, told: str) -> None:
    """The remedy says whose it is, and what documents have instead."""
    with pytest.raises(DocumentError) as caught:
        read({"version": 1, name: [], "security_groups": []})
    (problem,) = caught.value.problems
    assert told in problem.remedy


@pytest.mark.parametrize(
    ("name", "meant"),
    (
        ("Permit", "policy"),
        ("allow", "policy"),
        ("SourceCidrIp", "authorization_object"),
        ("SourceGroupId", "authorization_object"),
        ("SourcePrefixListId", "authorization_object"),
        ("DestCidrIp", "authorization_object"),
        ("source_ip", "authorization_object"),
        ("SecurityGroupRuleId", "rule_id"),
        ("dport", "port_range"),
        ("sport", "source_port_range"),
        ("comment", "description"),
    ),
)
def test_a_field_of_the_api_or_of_a_firewall_names_ours(name: str, meant: str) -> None:
    """Not the one whose letters are nearest."""
    document = {"security_group_id": "sg-a", "rules": [FIELDS | {name: "1"}]}
    with pytest.raises(DocumentError) as caught:
        read({"version": 1, "security_groups": [document]})
    (problem,) = caught.value.problems
    assert problem.remedy == f"did you mean {meant}?"


@pytest.mark.parametrize(
    ("inner", "group_type"),
    (("Accept", GroupType.BASIC), ("Drop", GroupType.ADVANCED), ("", GroupType.ADVANCED)),
)
def test_the_inner_access_policy_of_an_answer_names_the_type(inner: str, group_type: GroupType) -> None:
    """Only basic groups accept among members; otherwise the type is not known without the listing."""
    answer = {"SecurityGroupId": "sg-a", "InnerAccessPolicy": inner, "Permissions": {"Permission": []}}
    assert read(answer).security_groups[0].group_type is group_type
