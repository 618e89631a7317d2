"""States of Terraform in our own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sgagent.core.errors import DocumentError
from sgagent.core.model import ALL_PORTS, GroupType, Policy, SecurityGroup, SecurityGroupRule
from sgagent.core.rule_values import objects_text, protocols_text
from sgagent.documents import DocumentFile, Limits
from sgagent.importers import Imported, ImportEffect, import_terraform
from tests.unit.importers.test_aws import WRONG_BOUNDS

Resource = dict[str, Any]


def resource(kind: str, /, **values: object) -> Resource:
    """Return a resource that Terraform manages."""
    return {"address": f"{kind}.this", "mode": "managed", "type": kind, "name": "this", "values": values}


def state(*resources: Resource, modules: list[Resource] | None = None) -> Resource:
    """Return a state with these resources, and these modules below the root."""
    root = {"resources": list(resources), "child_modules": modules or []}
    return {"format_version": "1.0", "terraform_version": "1.9.0", "values": {"root_module": root}}


def imported(*states: object) -> Imported:
    """Return what states come to."""
    files = [DocumentFile(f"{index}.json", json.dumps(each).encode()) for index, each in enumerate(states)]
    return import_terraform(files, Limits())


def refused(*states: object) -> list[str]:
    """Return the codes of what is wrong with states."""
    with pytest.raises(DocumentError) as caught:
        imported(*states)
    return [problem.code for problem in caught.value.problems]


def the_group(found: Imported) -> SecurityGroup:
    """Return the only group."""
    (group,) = found.snapshot.security_groups
    return group


def said(rule: SecurityGroupRule) -> str:
    """Return a rule in a line."""
    ports = "" if rule.ports == ALL_PORTS else str(rule.ports)
    words = (
        rule.direction.value,
        rule.policy.value,
        rule.priority,
        protocols_text(rule.protocols),
        ports or "-",
    )
    return " ".join(map(str, (*words, objects_text(rule.authorization_objects))))


AWS_GROUP = resource(
    "aws_security_group",
    id="sg-1",
    name="web",
    vpc_id="vpc-1",
    owner_id="123456789012",
    tags={"tier": "web"},
    ingress=[
        {
            "protocol": "tcp",
            "from_port": 443,
            "to_port": 443,
            "cidr_blocks": ["0.0.0.0/0", "10.0.0.0/8"],
            "ipv6_cidr_blocks": ["::/0"],
            "prefix_list_ids": [],
            "security_groups": ["sg-1", "210987654321/sg-9"],
            "self": False,
            "description": "",
        },
        {"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": [], "self": True},
    ],
    egress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"], "self": False}],
)


def test_a_group_of_aws_with_its_rules() -> None:
    """Rules inside a group become one for each other end; ``self`` is the group itself."""
    group = the_group(imported(state(AWS_GROUP)))
    assert (group.group_type, group.inner_access_policy) == (GroupType.ADVANCED, Policy.DROP)
    assert (group.name, group.vpc_id, group.account_id) == ("web", "vpc-1", "123456789012")
    assert group.tags == (("tier", "web"),)
    assert [said(rule) for rule in group.rules] == [
        "ingress accept 1 tcp 443/443 0.0.0.0/0",
        "ingress accept 1 tcp 443/443 10.0.0.0/8",
        "ingress accept 1 tcp 443/443 ::/0",
        "ingress accept 1 tcp 443/443 sg-1",
        "ingress accept 1 tcp 443/443 210987654321/sg-9",
        "ingress accept 1 all - sg-1",
        "egress accept 1 all - 0.0.0.0/0",
    ]


def test_rules_that_are_resources_of_their_own() -> None:
    """Both kinds are taken; an id is kept where it is one rule's, and a rule that is told twice is one."""
    found = imported(
        state(
            AWS_GROUP,
            resource(
                "aws_security_group_rule",
                security_group_id="sg-1",
                security_group_rule_id="sgr-1",
                type="ingress",
                protocol="tcp",
                from_port=443,
                to_port=443,
                cidr_blocks=["0.0.0.0/0"],
                description="HTTPS",
            ),
            modules=[
                {
                    "address": "module.deep",
                    "child_modules": [
                        {
                            "resources": [
                                resource(
                                    "aws_vpc_security_group_egress_rule",
                                    id="sgr-2",
                                    security_group_id="sg-1",
                                    ip_protocol="udp",
                                    from_port=53,
                                    to_port=53,
                                    cidr_ipv6="2001:db8::/32",
                                )
                            ]
                        }
                    ],
                }
            ],
        )
    )
    rules = {said(rule): rule for rule in the_group(found).rules}
    assert rules["ingress accept 1 tcp 443/443 0.0.0.0/0"].rule_id == "sgr-1"
    assert rules["ingress accept 1 tcp 443/443 0.0.0.0/0"].description == "HTTPS"
    assert rules["egress accept 1 udp 53/53 2001:db8::/32"].rule_id == "sgr-2"
    assert len(the_group(found).rules) == 8


@pytest.mark.parametrize(("protocol", "bounds", "code", "name", "value"), WRONG_BOUNDS)
def test_no_port_is_guessed(protocol: str, bounds: Resource, code: str, name: str, value: str | None) -> None:
    """As those of the API; the message names the address of the resource."""
    named = {"FromPort": "from_port", "ToPort": "to_port"}
    ports = {named[key]: number for key, number in bounds.items()}
    inside = {
        **AWS_GROUP,
        "values": {"id": "sg-1", "egress": [{"protocol": protocol, "self": True, **ports}]},
    }
    older = resource(
        "aws_security_group_rule",
        **{"security_group_id": "sg-1", "type": "ingress", "protocol": protocol, "self": True, **ports},
    )
    newer = resource(
        "aws_vpc_security_group_ingress_rule",
        **{"id": "sgr-2", "security_group_id": "sg-1", "ip_protocol": protocol, "cidr_ipv4": "::/0", **ports},
    )
    for resources in ((inside,), (AWS_GROUP, older), (AWS_GROUP, newer)):
        with pytest.raises(DocumentError) as caught:
            imported(state(*resources))
        problem = caught.value.problems[0]
        assert (problem.code, problem.value) == (code, value)
        assert problem.origin.path.endswith(f".{named[name]}")
        assert problem.message.startswith(f"{resources[-1]['address']}: ")
        assert problem.remedy


def test_a_rule_of_a_group_elsewhere_is_left_out_and_told() -> None:
    """Of a group that the state does not hold nobody knows the other rules."""
    stray = resource(
        "aws_vpc_security_group_ingress_rule",
        id="sgr-9",
        security_group_id="sg-elsewhere",
        ip_protocol="-1",
        cidr_ipv4="0.0.0.0/0",
    )
    (note,) = [note for note in imported(state(AWS_GROUP, stray)).notes if note.subject == "sg-elsewhere"]
    assert note.effect is ImportEffect.LEFT_OUT


def test_prefix_lists_and_interfaces_of_aws() -> None:
    """Entries may be resources of their own, and groups may be attached from outside."""
    found = imported(
        state(
            AWS_GROUP,
            resource(
                "aws_ec2_managed_prefix_list",
                id="pl-1",
                address_family="IPv4",
                entry=[{"cidr": "10.0.0.0/8"}],
            ),
            resource("aws_ec2_managed_prefix_list_entry", prefix_list_id="pl-1", cidr="192.0.2.0/24"),
            resource(
                "aws_network_interface",
                id="eni-1",
                mac_address="02:00:00:00:00:01",
                private_ip="10.0.0.5",
                private_ips=["10.0.0.6", "10.0.0.5"],
                ipv4_prefixes=["10.0.8.0/28"],
                security_groups=["sg-gone"],
            ),
            resource(
                "aws_network_interface_sg_attachment", network_interface_id="eni-1", security_group_id="sg-1"
            ),
            resource(
                "aws_instance",
                id="i-2",
                primary_network_interface_id="eni-2",
                private_ip="10.0.0.7",
                vpc_security_group_ids=["sg-1"],
            ),
        )
    )
    (prefix_list,) = found.snapshot.prefix_lists
    assert list(map(str, prefix_list.entries)) == ["10.0.0.0/8", "192.0.2.0/24"]
    first, second = found.snapshot.network_interfaces
    assert list(map(str, first.addresses)) == ["10.0.0.5", "10.0.0.6", "10.0.8.0/28"]
    assert first.security_group_ids == second.security_group_ids == ("sg-1",)
    assert second.instance_id == "i-2"
    assert [note.effect for note in found.notes if note.subject == "eni-1"] == [ImportEffect.NARROWED]


def alicloud_rule(**values: object) -> Resource:
    """Return a rule as the provider's state has it, unused fields empty."""
    usual = {
        "security_group_id": "sg-2",
        "type": "ingress",
        "ip_protocol": "tcp",
        "policy": "accept",
        "priority": 1,
        "nic_type": "intranet",
        "port_range": "80/80",
        "cidr_ip": None,
        "ipv6_cidr_ip": "",
        "source_security_group_id": "",
        "source_group_owner_account": "",
        "prefix_list_id": "",
    }
    return resource("alicloud_security_group_rule", **{**usual, **values})


ALICLOUD_GROUP = resource(
    "alicloud_security_group",
    id="sg-2",
    security_group_name="db",
    security_group_type="normal",
    inner_access_policy="Drop",
    vpc_id="vpc-2",
    tags=None,
)


def test_a_group_of_alibaba_cloud_means_what_it_meant() -> None:
    """Type, inner policy, policies and priorities are the native ones."""
    group = the_group(
        imported(
            state(
                ALICLOUD_GROUP,
                alicloud_rule(cidr_ip="10.0.0.0/8"),
                alicloud_rule(
                    policy="drop", priority=50, ip_protocol="all", port_range="-1/-1", cidr_ip="0.0.0.0/0"
                ),
                alicloud_rule(source_security_group_id="sg-3", source_group_owner_account="1609982529920000"),
                alicloud_rule(type="egress", ipv6_cidr_ip="2001:db8::/32", port_range="1/65535"),
                alicloud_rule(port_range="-1/-1", port_range_list_id="prl-1", prefix_list_id="pl-1"),
            )
        )
    )
    assert (group.group_type, group.inner_access_policy) == (GroupType.BASIC, Policy.DROP)
    assert [said(rule) for rule in group.rules] == [
        "ingress accept 1 tcp 80/80 10.0.0.0/8",
        "ingress drop 50 all - 0.0.0.0/0",
        "ingress accept 1 tcp 80/80 1609982529920000/sg-3",
        "egress accept 1 tcp 1/65535 2001:db8::/32",
        "ingress accept 1 tcp prl-1 pl-1",
    ]


def test_what_matches_nothing_is_told() -> None:
    """An accept rule whose object or port list is not there, and a group that is another account's."""
    known = {
        **AWS_GROUP,
        "address": "aws_security_group.other",
        "values": {"id": "sg-9", "owner_id": "123456789012"},
    }
    (note,) = imported(state(AWS_GROUP, known)).notes
    assert "210987654321/sg-9 is not in what was read, where sg-9 is account 123456789012's" in note.message
    for values in (
        {"source_security_group_id": "sg-gone"},
        {"prefix_list_id": "pl-gone"},
        {"cidr_ip": "10.0.0.0/8", "port_range": "-1/-1", "port_range_list_id": "prl-gone"},
    ):
        (note,) = imported(state(ALICLOUD_GROUP, alicloud_rule(**values))).notes
        assert (note.effect, "-gone is not in what was read" in note.message) == (ImportEffect.NARROWED, True)


@pytest.mark.parametrize(
    ("values", "code"),
    (
        ({"cidr_ip": "nowhere", "policy": "drop"}, "bad_address"),
        ({"policy": "drop"}, "missing_object"),
        ({"cidr_ip": "10.0.0.0/8", "policy": "reject"}, "bad_value"),
        ({"cidr_ip": "10.0.0.0/8", "ip_protocol": "icmpv6", "port_range": "-1/-1"}, "family_of_protocol"),
    ),
)
def test_a_rule_of_alibaba_cloud_is_never_left_out(values: Resource, code: str) -> None:
    """One that can't be understood refuses the import: a lost rule that drops would open something."""
    assert code in refused(state(ALICLOUD_GROUP, alicloud_rule(**values)))


def test_an_interface_of_alibaba_cloud_keeps_all_its_groups() -> None:
    """A group that is not there may drop, so it can't be left out; another state may hold it."""
    interface = resource(
        "alicloud_ecs_network_interface",
        id="eni-2",
        mac="00:16:3e:00:00:01",
        primary_ip_address="10.0.0.9",
        security_group_ids=["sg-2", "sg-4"],
    )
    assert refused(state(ALICLOUD_GROUP, interface)) == ["dangling_attachment"]
    other = resource("alicloud_security_group", id="sg-4", inner_access=True)
    (found,) = imported(state(ALICLOUD_GROUP, interface), state(other)).snapshot.network_interfaces
    assert found.security_group_ids == ("sg-2", "sg-4")


DROP_BY_GROUP = alicloud_rule(policy="drop", source_security_group_id="sg-2")
DROP_BY_OTHER = alicloud_rule(policy="drop", source_security_group_id="sg-4")
DROP_BY_BLOCK = alicloud_rule(policy="drop", cidr_ip="192.0.2.0/24")
OTHER_GROUP = resource(
    "alicloud_security_group", id="sg-4", security_group_type="normal", inner_access_policy="Accept"
)
INSTANCE = {
    "id": "i-1",
    "network_interface_id": "eni-1",
    "private_ip": "10.0.0.9",
    "security_groups": ["sg-2"],
}
ATTACHMENT = "alicloud_ecs_network_interface_attachment"
LOST: tuple[tuple[str, Resource], ...] = (
    ("alicloud_instance", {**INSTANCE, "network_interface_id": None}),
    ("alicloud_instance", {**INSTANCE, "network_interface_id": ""}),
    ("alicloud_instance", {name: INSTANCE[name] for name in ("id", "private_ip", "security_groups")}),
    ("alicloud_instance", {**INSTANCE, "private_ip": None}),
    ("alicloud_instance", {**INSTANCE, "private_ip": "", "ipv6_addresses": ["2001:db8::9"]}),
    (
        "alicloud_instance",
        {
            **INSTANCE,
            "network_interfaces": [{"network_interface_id": "eni-2", "security_group_ids": ["sg-2"]}],
        },
    ),
    ("alicloud_instance", {**INSTANCE, "network_interfaces": [{"network_interface_id": "eni-2"}]}),
    ("alicloud_instance", {**INSTANCE, "network_interfaces": [{"network_interface_id": ""}]}),
    ("alicloud_ecs_network_interface", {"primary_ip_address": "10.0.0.9", "security_group_ids": ["sg-2"]}),
    ("alicloud_network_interface", {"id": "", "private_ip": "10.0.0.9", "security_groups": ["sg-2"]}),
    (ATTACHMENT, {"instance_id": "i-1", "network_interface_id": "eni-7"}),
    ("alicloud_eci_container_group", {"security_group_id": "sg-2", "intranet_ip": "10.0.0.10"}),
    ("alicloud_ecs_instance_set", {"nested": [{"security_group_ids": ["sg-2"]}]}),
)


@pytest.mark.parametrize(("kind", "values"), LOST)
def test_a_member_that_is_lost_is_told_and_an_error_for_drop_rules(kind: str, values: Resource) -> None:
    """An interface without id or address is told with its resource; a drop rule would miss its packets."""
    lost = {**resource(kind, **values), "address": f"module.m.{kind}.web[0]"}
    (note,) = imported(state(ALICLOUD_GROUP, OTHER_GROUP, DROP_BY_BLOCK, lost)).notes
    assert note.subject == f"module.m.{kind}.web[0]"
    with pytest.raises(DocumentError) as caught:
        imported(state(ALICLOUD_GROUP, OTHER_GROUP, DROP_BY_GROUP, lost))
    (problem,) = caught.value.problems
    assert problem.code == "lost_member"
    assert problem.message.startswith(f"module.m.{kind}.web[0]: ")
    if (
        all("security_group_ids" in one for one in values.get("network_interfaces", ()))
        and kind != ATTACHMENT
    ):
        assert len(imported(state(ALICLOUD_GROUP, OTHER_GROUP, DROP_BY_OTHER, lost)).notes) == 1
    else:
        assert refused(state(ALICLOUD_GROUP, OTHER_GROUP, DROP_BY_OTHER, lost)) == ["lost_member"]


def test_a_secondary_interface_with_a_resource_of_its_own_is_not_lost() -> None:
    """What an instance says of it is then no more than that."""
    server = resource("alicloud_instance", **INSTANCE, network_interfaces=[{"network_interface_id": "eni-2"}])
    secondary = resource(
        "alicloud_ecs_network_interface",
        id="eni-2",
        primary_ip_address="10.0.0.10",
        security_group_ids=["sg-2"],
    )
    attached = resource(ATTACHMENT, instance_id="i-1", network_interface_id="eni-2")
    found = imported(state(ALICLOUD_GROUP, DROP_BY_GROUP, server, secondary, attached))
    assert found.notes == ()
    assert len(found.snapshot.network_interfaces) == 2


@pytest.mark.parametrize(
    ("kind", "values"),
    (
        ("aws_instance", {"private_ip": "10.0.0.7", "vpc_security_group_ids": ["sg-1"]}),
        ("aws_instance", {"primary_network_interface_id": "", "vpc_security_group_ids": ["sg-1"]}),
        ("aws_instance", {"primary_network_interface_id": "eni-1", "private_ip": "10.0.0.7"}),
        (
            "aws_instance",
            {"primary_network_interface_id": "eni-1", "vpc_security_group_ids": ["sg-1"], "private_ip": None},
        ),
        ("aws_network_interface", {"id": None, "private_ip": "10.0.0.7", "security_groups": ["sg-1"]}),
        ("aws_network_interface_attachment", {"network_interface_id": "eni-1"}),
        (
            "aws_network_interface_sg_attachment",
            {"network_interface_id": "eni-1", "security_group_id": "sg-1"},
        ),
        ("aws_lb", {"security_groups": ["sg-1"]}),
        ("aws_security_group_rule", {"type": "egress", "security_group_id": "sg-1", "protocol": "-1"}),
        (
            "aws_security_group_rule",
            {
                "type": "egress",
                "security_group_id": "sg-1",
                "protocol": "-1",
                "self": False,
                "cidr_blocks": None,
            },
        ),
        (
            "aws_vpc_security_group_egress_rule",
            {"id": "sgr-1", "security_group_id": "sg-1", "ip_protocol": "-1", "cidr_ipv4": None},
        ),
    ),
)
def test_what_is_lost_of_aws_is_told(kind: str, values: Resource) -> None:
    """Groups there only allow, so it is no error; it is told with the address of the resource."""
    notes = imported(state(AWS_GROUP, resource(kind, **values))).notes
    (note,) = [note for note in notes if note.subject == f"{kind}.this"]
    assert note.message


def test_a_resource_without_a_type_is_refused() -> None:
    """It could be a rule."""
    for kind in (None, ""):
        assert refused(state(ALICLOUD_GROUP, {**DROP_BY_BLOCK, "type": kind})) == ["missing_field"]
    del (rule := {**DROP_BY_BLOCK})["type"]
    assert refused(state(ALICLOUD_GROUP, rule)) == ["missing_field"]


def test_what_two_resources_say_of_an_interface_is_put_together() -> None:
    """Each may know addresses that the other does not; other groups are a contradiction."""
    instance = resource("alicloud_instance", **INSTANCE, secondary_private_ips=["10.0.0.10"])
    values = {
        "id": "eni-1",
        "mac": "00:16:3e:00:00:01",
        "primary_ip_address": "10.0.0.9",
        "ipv6_addresses": ["2001:db8::9"],
        "security_group_ids": ["sg-2"],
    }
    interface = resource("alicloud_ecs_network_interface", **values)
    for resources in ((instance, interface), (interface, instance)):
        (found,) = imported(state(ALICLOUD_GROUP, *resources)).snapshot.network_interfaces
        assert set(map(str, found.addresses)) == {"10.0.0.9", "10.0.0.10", "2001:db8::9"}
        assert (found.mac_address, found.instance_id) == ("00:16:3e:00:00:01", "i-1")
    other = resource("alicloud_ecs_network_interface", **{**values, "security_group_ids": ["sg-4"]})
    assert refused(state(ALICLOUD_GROUP, OTHER_GROUP, instance, other)) == ["duplicate_id"]


def test_what_is_missing_is_read_as_what_admits_least() -> None:
    """A state always says types, inner policies and priorities; where it does not, the least is admitted."""
    bare = resource("alicloud_security_group", id="sg-2")
    accept = alicloud_rule(priority=None, cidr_ip="10.0.0.0/8")
    drop = alicloud_rule(priority="", cidr_ip="0.0.0.0/0", policy="drop")
    found = imported(state(bare, accept, drop))
    group = the_group(found)
    assert (group.group_type, group.inner_access_policy) == (GroupType.ADVANCED, Policy.DROP)
    assert [said(rule) for rule in group.rules] == [
        "ingress accept 100 tcp 80/80 10.0.0.0/8",
        "ingress drop 1 tcp 80/80 0.0.0.0/0",
    ]
    assert [note.effect for note in found.notes] == [ImportEffect.NARROWED] * 2
    basic = resource("alicloud_security_group", id="sg-2", security_group_type="normal")
    assert [note.effect for note in imported(state(basic)).notes] == [ImportEffect.NARROWED]
    assert refused(state(ALICLOUD_GROUP, alicloud_rule(policy=None, cidr_ip="10.0.0.0/8"))) == [
        "missing_field"
    ]


@pytest.mark.parametrize(
    ("values", "codes"),
    (
        ({"entry": None}, ["missing_field"]),
        ({}, ["missing_field"]),
        ({"entry": [{"cidr": None}]}, ["missing_field"]),
        ({"entry": [{"cidr": ""}]}, ["missing_field"]),
    ),
)
def test_entries_of_a_list_are_never_lost(values: Resource, codes: list[str]) -> None:
    """A drop rule may depend on them."""
    listed = resource("alicloud_ecs_prefix_list", id="pl-1", address_family="IPv4", **values)
    assert refused(state(ALICLOUD_GROUP, listed)) == codes


def test_a_list_stands_once() -> None:
    """Two states that hold one list are one too many: together they would hold what either held."""
    for kind in ("alicloud_ecs_prefix_list", "aws_ec2_managed_prefix_list"):
        listed = resource(kind, id="pl-1", address_family="IPv4", entry=[{"cidr": "10.0.0.0/8"}])
        assert refused(state(listed), state(listed)) == ["duplicate_id"]


def test_a_drop_rule_that_is_about_to_go_is_refused() -> None:
    """It is in force until then; and so may be one that can't be read."""
    deposed = {**DROP_BY_BLOCK, "deposed_key": "0a1b2c3d"}
    assert refused(state(ALICLOUD_GROUP, deposed)) == ["lost_drop_rule"]
    unread = {**DROP_BY_BLOCK, "type": "alicloud_security_group_rule_v2"}
    assert refused(state(ALICLOUD_GROUP, unread)) == ["lost_drop_rule"]
    assert refused(state(ALICLOUD_GROUP, {**DROP_BY_BLOCK, "mode": "other"})) == ["bad_value"]


def test_what_is_only_looked_up_is_not_taken() -> None:
    """A data source is somebody else's group, and a deposed object is about to go."""
    looked_up = {**ALICLOUD_GROUP, "mode": "data"}
    deposed = {**AWS_GROUP, "deposed_key": "0a1b2c3d"}
    assert refused(state(looked_up)) == ["nothing_to_import"]
    found = imported(state(ALICLOUD_GROUP, deposed))
    assert [group.security_group_id for group in found.snapshot.security_groups] == ["sg-2"]
    assert [note.effect for note in found.notes] == [ImportEffect.LEFT_OUT]


def test_a_related_resource_that_is_not_read_is_told() -> None:
    """Somebody who relies on it must know."""
    other = resource("aws_vpc_security_group_vpc_association", security_group_id="sg-1", vpc_id="vpc-2")
    notes = imported(state(AWS_GROUP, other)).notes
    assert any("aws_vpc_security_group_vpc_association is not read here" in str(note) for note in notes)


@pytest.mark.parametrize(
    ("document", "code"),
    (
        ({"format_version": "1.2", "planned_values": {"root_module": {}}}, "nothing_to_import"),
        ({"format_version": "1.0"}, "not_a_state"),
        (state(), "nothing_to_import"),
        ([], "wrong_type"),
    ),
)
def test_what_is_no_state_is_refused(document: object, code: str) -> None:
    """An import of nothing is a mistake, too."""
    assert code in refused(document)


def test_a_group_stands_once() -> None:
    """Two states that hold one group are one too many."""
    assert refused(state(AWS_GROUP), state(AWS_GROUP)) == ["duplicate_id"]
    assert refused(state(ALICLOUD_GROUP), state(ALICLOUD_GROUP)) == ["duplicate_id"]
