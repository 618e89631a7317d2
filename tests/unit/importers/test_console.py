"""The console's export of a group."""

from __future__ import annotations

import json

import pytest

from sgagent.core.errors import DocumentError, UsageError
from sgagent.core.model import Direction, GroupType, Policy, SecurityGroup
from sgagent.documents import DocumentFile, Limits
from sgagent.importers.console import Known, import_console

HEADER = "Rule ID,Rule direction,Action,Priority,Protocol type,Port range,Authorization object,Description\n"
ROWS = (
    'sgr-1,Inbound,Allow,1,Custom TCP,"HTTP (80),443/443",0.0.0.0/0,web\n'
    "sgr-2,Inbound,Allow,1,All ICMP (IPv4),-1/-1,10.0.0.0/8,\n"
    "sgr-3,Outbound,Deny,2,All,-1/-1,0.0.0.0/0,\n"
)
BASIC = Known(security_group_id="sg-web", group_type=GroupType.BASIC)


def imported(text: str, known: Known = BASIC) -> SecurityGroup:
    """Return the group of an export."""
    (group,) = import_console(
        [DocumentFile("export", text.encode())], Limits(), known
    ).snapshot.security_groups
    return group


def test_a_table_in_the_words_of_the_console() -> None:
    """It is found by its header row."""
    group = imported(HEADER + ROWS)
    assert (group.security_group_id, group.group_type) == ("sg-web", GroupType.BASIC)
    found = {
        rule.rule_id: (rule.direction.value, rule.policy.value, str(rule.protocols[0]), str(rule.ports))
        for rule in group.rules
    }
    assert found == {
        "sgr-1": ("ingress", "accept", "tcp", "80/80,443/443"),
        "sgr-2": ("ingress", "accept", "icmp", "-1/-1"),
        "sgr-3": ("egress", "drop", "all", "-1/-1"),
    }


def test_a_bare_list_of_rules() -> None:
    """As the API has them; the direction is named where they lack it."""
    rule = {"Policy": "Accept", "IpProtocol": "TCP", "PortRange": "80/80", "SourceCidrIp": "10.0.0.0/8"}
    with pytest.raises(UsageError, match="--direction"):
        imported(json.dumps([rule]))
    known = Known(security_group_id="sg-a", group_type=GroupType.ADVANCED, direction=Direction.INGRESS)
    group = imported(json.dumps([rule]), known)
    assert (group.group_type, len(group.rules)) == (GroupType.ADVANCED, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ("a,b,c\n1,2,3\n", "no column for policy, protocol, port_range"),
        (HEADER + ROWS.replace("Deny,2", "Deny,soon"), "not a priority"),
        ("[", "not JSON"),
        ("[1]", "no list of rules"),
        (HEADER + ROWS.replace("Custom TCP", "Custom XYZ"), "export:2: .*not a protocol"),
        (HEADER + ROWS + "\n\nsgr-4,Inbound,Allow,1,XYZ,-1/-1,10.0.0.0/8,\n", "export:7: .*not a protocol"),
        (HEADER + ROWS.replace(",web", ',"a\nb"').replace("Deny,2", "Deny,0"), "export:5: .*priority"),
        (
            HEADER + ROWS + f"sgr-4,Inbound,Allow,1,All,-1/-1,10.0.0.0/8,{'x' * 200_000}\n",
            "export:5: .*limit",
        ),
        (HEADER + ROWS + "sgr-4,Inbound,Allow\n", "export:5: .*no cell for protocol, port_range"),
        (HEADER + ROWS.replace(",web", ",a\rb"), "export:3: .*no cell for policy"),
    ),
)
def test_what_can_not_be_read(text: str, message: str) -> None:
    """It is told."""
    with pytest.raises(DocumentError, match=message):
        imported(text)


def test_an_export_without_rules() -> None:
    """It is of a group that admits nobody."""
    assert imported("[]").rules == imported(HEADER).rules == ()


@pytest.mark.parametrize("end", ("\r", "\r\n"))
def test_any_end_of_line(end: str) -> None:
    """A carriage return alone is one, too."""
    assert len(imported((HEADER + ROWS).replace("\n", end)).rules) == 3


def test_each_of_two_tables_names_its_own_line() -> None:
    """As rules of both directions are often in two files."""
    wrong = HEADER + ROWS.replace("Custom TCP", "Custom XYZ").replace("sgr-", "sgr-x")
    files = [DocumentFile("in.csv", (HEADER + ROWS).encode()), DocumentFile("out.csv", wrong.encode())]
    with pytest.raises(DocumentError, match=r"out\.csv:2: .*not a protocol"):
        import_console(files, Limits(), BASIC)
    right = DocumentFile("out.csv", (HEADER + ROWS.replace("sgr-", "sgr-x")).encode())
    (group,) = import_console([files[0], right], Limits(), BASIC).snapshot.security_groups
    assert len(group.rules) == 6


def test_a_table_without_a_direction() -> None:
    """It is asked for by name."""
    text = HEADER.replace("Rule direction,", "") + ROWS.replace("Inbound,", "").replace("Outbound,", "")
    with pytest.raises(UsageError, match="--direction"):
        imported(text)


SG_RULE = {
    "Policy": "Accept",
    "IpProtocol": "TCP",
    "PortRange": "80/80",
    "SourceGroupId": "sg-b",
    "Direction": "ingress",
}
CIDR_RULE = SG_RULE | {"SourceGroupId": "", "SourceCidrIp": "10.0.0.0/8"}
ONLY_ID = Known(security_group_id="sg-a")


@pytest.mark.parametrize(
    ("export", "group_type"),
    (
        (json.dumps([SG_RULE]), GroupType.BASIC),
        (HEADER + ROWS.replace("0.0.0.0/0", "sg-b", 1), GroupType.BASIC),
        (
            json.dumps({"InnerAccessPolicy": "Accept", "Permissions": {"Permission": [CIDR_RULE]}}),
            GroupType.BASIC,
        ),
        (json.dumps({"SecurityGroupType": "enterprise", "Permission": [CIDR_RULE]}), GroupType.ADVANCED),
    ),
)
def test_the_type_follows_where_it_can(export: str, group_type: GroupType) -> None:
    """The cloud takes groups as objects, and an inner policy of accept, in basic groups only."""
    assert imported(export, ONLY_ID).group_type is group_type


@pytest.mark.parametrize("export", (json.dumps([CIDR_RULE]), HEADER + ROWS))
def test_else_the_type_is_asked_for(export: str) -> None:
    """By the name of the option."""
    with pytest.raises(UsageError, match="--type basic or --type advanced"):
        imported(export, ONLY_ID)


@pytest.mark.parametrize(
    ("said", "policy", "notes"),
    ((None, Policy.DROP, 1), ("Accept", Policy.ACCEPT, 0), ("Drop", Policy.DROP, 0)),
)
def test_an_inner_policy_that_is_not_said_admits_nobody(said: str | None, policy: Policy, notes: int) -> None:
    """And is noted: the default of documents would let members reach each other."""
    answer = {"Permissions": {"Permission": [CIDR_RULE]}} | ({"InnerAccessPolicy": said} if said else {})
    found = import_console([DocumentFile("export", json.dumps(answer).encode())], Limits(), BASIC)
    assert found.snapshot.security_groups[0].inner_access_policy is policy
    assert len(found.notes) == notes
