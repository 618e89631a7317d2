"""States of Terraform in our own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sgagent.core.errors import DocumentError
from sgagent.core.model import GroupType, Policy, SecurityGroup, SecurityGroupRule
from sgagent.documents import DocumentFile, Limits
from sgagent.imports import Effect, Imported, import_terraform
from tests.unit.imports.test_aws import WRONG_BOUNDS

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
    ports = ",".join(map(str, rule.ports)) if isinstance(rule.ports, tuple) else str(rule.ports)
    words = (rule.direction.value, rule.policy.value, rule.priority, rule.protocol, ports or "-")
    return " ".join(map(str, (*words, rule.authorization_object)))


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
def test_ports_are_never_guessed(
    protocol: str, bounds: Resource, code: str, name: str, value: str | None
) -> None:
    """As those of the API; the message names the address of the resource."""
    named = {"FromPort": "from_port", "ToPort": "to_port"}
    ports = {named[key]: number for key, number in bounds.items()}
    inside = {**AWS_GROUP, "values": {"id": "sg-1", "egress": [{"protocol": protocol, "self": True, **ports}]}}
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
    assert note.effect is Effect.LEFT_OUT


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
    assert [note.effect for note in found.notes if note.subject == "eni-1"] == [Effect.NARROWED]


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


def test_what_is_only_looked_up_is_not_taken() -> None:
    """A data source is somebody else's group, and a deposed object is about to go."""
    looked_up = {**ALICLOUD_GROUP, "mode": "data"}
    deposed = {**AWS_GROUP, "deposed_key": "0a1b2c3d"}
    assert refused(state(looked_up)) == ["nothing_to_import"]
    found = imported(state(ALICLOUD_GROUP, deposed))
    assert [group.security_group_id for group in found.snapshot.security_groups] == ["sg-2"]
    assert [note.effect for note in found.notes] == [Effect.LEFT_OUT]


def test_a_related_resource_that_is_not_read_is_told() -> None:
    """Somebody who relies on it must know."""
    other = resource("aws_vpc_security_group_vpc_association", security_group_id="sg-1", vpc_id="vpc-2")
    notes = imported(state(AWS_GROUP, other)).notes
    assert any("aws_vpc_security_group_vpc_association is not read here" in str(note) for note in notes)


@pytest.mark.parametrize(
    ("document", "code"),
    (
        ({"format_version": "1.2", "planned_values": {"root_module": {}}}, "not_a_state"),
        ({"format_version": "1.0"}, "not_a_state"),
        (state(), "nothing_to_import"),
        ([], "wrong_type"),
    ),
)
def test_what_is_no_state_is_refused(document: object, code: str) -> None:
    """A plan knows no ids yet; and an import of nothing is a mistake."""
    assert code in refused(document)


def test_a_group_stands_once() -> None:
    """Two states that hold one group are one too many."""
    assert refused(state(AWS_GROUP), state(AWS_GROUP)) == ["duplicate_id"]
    assert refused(state(ALICLOUD_GROUP), state(ALICLOUD_GROUP)) == ["duplicate_id"]
