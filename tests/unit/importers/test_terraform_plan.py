"""Plans and raw states of Terraform."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sgagent.core.errors import DocumentError
from sgagent.core.rule_values import objects_text
from sgagent.documents import DocumentFile, Limits
from sgagent.importers import Imported, import_terraform
from tests.unit.importers.test_terraform import AWS_GROUP, imported, refused, said, the_group

Json = dict[str, Any]


def managed(address: str, **values: object) -> Json:
    """Return a planned resource."""
    name = address.rpartition("module.")[2].split(".", 1)[1] if address.startswith("module.") else address
    kind, _, rest = name.partition(".")
    bare, _, index = rest.partition("[")
    found: Json = {"address": address, "mode": "managed", "type": kind, "name": bare, "values": values}
    return found | ({"index": json.loads(index[:-1])} if index else {})


def configured(kind: str, name: str, **expressions: object) -> Json:
    """Return a resource of a plan's configuration."""
    return {"address": f"{kind}.{name}", "type": kind, "name": name, "expressions": expressions}


def refers(*references: str) -> Json:
    """Return an expression."""
    return {"references": list(references)}


RULE: Json = {
    "type": "ingress",
    "ip_protocol": "tcp",
    "policy": "accept",
    "priority": 1,
    "port_range": "443/443",
    "nic_type": "intranet",
}
GROUP: Json = {"security_group_type": "normal", "inner_access_policy": "Drop", "security_group_name": "web"}


def plan(resources: list[Json], configuration: Json, **more: object) -> Json:
    """Return a plan as it is shown."""
    return {
        "format_version": "1.2",
        "terraform_version": "1.9.0",
        "planned_values": {"root_module": {"resources": resources, **more}},
        "configuration": {"root_module": configuration},
    }


def test_a_plan_of_alibaba_cloud_that_creates_all() -> None:
    """A group that has no id yet has one of its address, by which rules are its."""
    rules = [
        managed("alicloud_security_group_rule.https", **RULE, cidr_ip="0.0.0.0/0"),
        managed("alicloud_security_group_rule.ssh", **(RULE | {"port_range": "22/22"})),
    ]
    found = imported(
        plan(
            [managed("alicloud_security_group.web", **GROUP), *rules],
            {
                "resources": [
                    configured("alicloud_security_group", "web"),
                    configured(
                        "alicloud_security_group_rule",
                        "https",
                        security_group_id=refers(
                            "alicloud_security_group.web.id", "alicloud_security_group.web"
                        ),
                    ),
                    configured(
                        "alicloud_security_group_rule",
                        "ssh",
                        security_group_id=refers("alicloud_security_group.web.id"),
                        source_security_group_id=refers("alicloud_security_group.web.id"),
                    ),
                ]
            },
        )
    )
    group = the_group(found)
    assert group.security_group_id == "sg-web"
    assert sorted(map(said, group.rules)) == [
        "ingress accept 1 tcp 22/22 sg-web",
        "ingress accept 1 tcp 443/443 0.0.0.0/0",
    ]


def test_addresses_that_differ_in_a_dash_are_two_groups() -> None:
    """The second one's id is told apart; each has its own rules."""
    names = ("a_b", "a-b")
    rule = managed("alicloud_security_group_rule.https", **RULE, cidr_ip="0.0.0.0/0")
    group_id = refers("alicloud_security_group.a-b.id")
    configuration = {
        "resources": [
            *(configured("alicloud_security_group", name) for name in names),
            configured("alicloud_security_group_rule", "https", security_group_id=group_id),
        ]
    }
    groups = [managed(f"alicloud_security_group.{name}", **GROUP) for name in names]
    found = imported(plan([*groups, rule], configuration)).snapshot.security_groups
    assert [(one.security_group_id, len(one.rules)) for one in found] == [("sg-a-b", 0), ("sg-a-b-2", 1)]


def test_references_go_through_modules() -> None:
    """By variables into a module, and by its outputs out of it; what exists keeps its id."""
    inner = managed("module.net.aws_security_group.db")
    rule = {"ip_protocol": "tcp", "from_port": 5432, "to_port": 5432}
    outer = managed("aws_vpc_security_group_ingress_rule.out", **rule)
    inward = managed("module.net.aws_vpc_security_group_ingress_rule.in", **rule)
    found = imported(
        plan(
            [managed("aws_security_group.app", id="sg-app"), outer],
            {
                "resources": [
                    configured("aws_security_group", "app"),
                    configured(
                        "aws_vpc_security_group_ingress_rule",
                        "out",
                        security_group_id=refers("module.net.db_id", "module.net"),
                        referenced_security_group_id=refers("aws_security_group.app.id"),
                    ),
                ],
                "module_calls": {
                    "net": {
                        "expressions": {"clients": refers("aws_security_group.app.id")},
                        "module": {
                            "outputs": {"db_id": {"expression": refers("aws_security_group.db.id")}},
                            "resources": [
                                configured("aws_security_group", "db"),
                                configured(
                                    "aws_vpc_security_group_ingress_rule",
                                    "in",
                                    security_group_id=refers("aws_security_group.db.id"),
                                    referenced_security_group_id=refers("var.clients"),
                                ),
                            ],
                        },
                    }
                },
            },
            child_modules=[{"address": "module.net", "resources": [inner, inward]}],
        )
    )
    groups = found.snapshot.group_by_id
    assert sorted(groups) == ["sg-app", "sg-net-db"]
    assert {objects_text(rule.authorization_objects) for rule in groups["sg-net-db"].rules} == {"sg-app"}


def test_instances_refer_to_those_of_their_index() -> None:
    """Of several groups each rule has that of its own key."""
    kinds = [managed(f'alicloud_security_group.web["{key}"]', **GROUP) for key in "ab"]
    rules = [
        managed(f'alicloud_security_group_rule.r["{key}"]', **RULE, cidr_ip="10.0.0.0/8") for key in "ab"
    ]
    expressions = {"security_group_id": refers("alicloud_security_group.web", "each.key")}
    configuration = {
        "resources": [
            configured("alicloud_security_group", "web"),
            configured("alicloud_security_group_rule", "r", **expressions),
        ]
    }
    groups = imported(plan([*kinds, *rules], configuration)).snapshot.security_groups
    assert [(one.security_group_id, len(one.rules)) for one in groups] == [("sg-web-a", 1), ("sg-web-b", 1)]


PREFIX_LIST = "aws_ec2_managed_prefix_list.p"


def peers_of(references: Json, resources: list[Json]) -> tuple[list[str], int]:
    """Return the peers of planned rules whose prefix lists are these references, and the number of notes."""
    lists = [
        managed(f"{PREFIX_LIST}[{n}]", address_family="IPv4", entry=[{"cidr": f"10.{n}.0.0/16"}])
        for n in (0, 1)
    ]
    web = managed("aws_security_group.web")
    expressions = {"security_group_id": refers("aws_security_group.web.id"), "prefix_list_ids": references}
    rules = [configured("aws_security_group_rule", "r", **expressions)]
    found = imported(plan([*lists, web, *resources], {"resources": rules}))
    (group,) = found.snapshot.security_groups
    peers = [objects_text(rule.authorization_objects) for rule in group.rules]
    return peers, len(found.notes)


def older_rule(address: str, **values: object) -> Json:
    """Return a planned rule of SSH."""
    return managed(address, type="ingress", protocol="tcp", from_port=22, to_port=22, self=False, **values)


FIRST = (f"{PREFIX_LIST}[0].id", f"{PREFIX_LIST}[0]", PREFIX_LIST)
SECOND = (f"{PREFIX_LIST}[1].id", f"{PREFIX_LIST}[1]", PREFIX_LIST)


def test_a_reference_to_one_of_several_is_to_no_other() -> None:
    """Although its shorter forms stand behind it, the last without an index, and the rule has one."""
    rules = [older_rule(f"aws_security_group_rule.r[{n}]", prefix_list_ids=[None]) for n in (0, 1)]
    assert peers_of(refers(*SECOND), rules) == (["pl-p-1"], 0)


def test_the_index_of_a_rule_is_that_of_its_list_only_if_it_says_so() -> None:
    """``element(p[*].id, 0)`` is not the list of the rule's own index."""
    rules = [older_rule(f"aws_security_group_rule.r[{n}]", prefix_list_ids=[None]) for n in (0, 1)]
    assert peers_of(refers(PREFIX_LIST), rules) == ([], 2)
    rules = [older_rule(f"aws_security_group_rule.r[{n}]", prefix_list_ids=[None]) for n in (0, 1)]
    assert peers_of(refers(PREFIX_LIST, "count.index"), rules) == (["pl-p-0", "pl-p-1"], 0)


def test_a_known_null_is_no_reference() -> None:
    """A condition that is known made it null; what is known only after the apply is not there."""
    rule = older_rule("aws_security_group_rule.r", cidr_blocks=["192.0.2.0/24"], prefix_list_ids=None)
    assert peers_of(refers("var.is_office", *FIRST), [rule]) == (["192.0.2.0/24"], 0)


def test_one_of_two_that_a_condition_chooses_is_left_out() -> None:
    """The plan says that it is one, and not which; two that are unknown are both."""
    references = refers("var.which", *FIRST, *SECOND)
    for unknown, found in (([None], ([], 1)), ([None, None], (["pl-p-0", "pl-p-1"], 0))):
        rule = older_rule("aws_security_group_rule.r", prefix_list_ids=unknown)
        assert peers_of(references, [rule]) == found


def test_what_can_not_be_followed_is_refused() -> None:
    """A rule of no known group is an error, not a rule less."""
    rule = managed("alicloud_security_group_rule.r", **RULE, cidr_ip="10.0.0.0/8")
    expressions = {"security_group_id": refers("local.group")}
    configuration = {"resources": [configured("alicloud_security_group_rule", "r", **expressions)]}
    assert refused(plan([rule], configuration)) == ["missing_field"]


def inline(*left_out: str, **values: object) -> Json:
    """Return a planned inline rule without what is known only after the apply."""
    names = ("cidr_blocks", "ipv6_cidr_blocks", "prefix_list_ids", "security_groups")
    lists: Json = {name: [] for name in names}
    rule = {"protocol": "tcp", "from_port": 443, "to_port": 443, "self": False} | lists | values
    return {name: value for name, value in rule.items() if name not in left_out}


def planned_inline(rules: list[Json], *written: Json) -> tuple[list[str], list[str]]:
    """Return the rules and notes of a plan of a group with inline rules, in an order of its own."""
    groups = [managed("aws_security_group.lb"), managed("aws_security_group.db", ingress=rules)]
    configuration = [
        configured("aws_security_group", "lb"),
        configured("aws_security_group", "db", ingress=list(written)),
    ]
    found = imported(plan(groups, {"resources": configuration}))
    (group,) = (one for one in found.snapshot.security_groups if one.security_group_id == "sg-db")
    return sorted(map(said, group.rules)), [note.message for note in found.notes]


LOAD_BALANCER = {"security_groups": refers("aws_security_group.lb.id")}
OFFICE = {"cidr_blocks": {"constant_value": ["192.0.2.0/24"]}}


def test_the_one_inline_rule_that_lacks_its_group() -> None:
    """Of several rules it is the one that the only reference belongs to, wherever that is written."""
    rules = [inline(cidr_blocks=["192.0.2.0/24"]), inline("security_groups", from_port=80, to_port=80)]
    wanted = ["ingress accept 1 tcp 443/443 192.0.2.0/24", "ingress accept 1 tcp 80/80 sg-lb"]
    assert planned_inline(rules, LOAD_BALANCER, OFFICE) == (wanted, [])


def test_inline_rules_that_lack_their_groups_are_named() -> None:
    """Nothing tells which is which, and what else they allow stays."""
    rules = [inline("security_groups", cidr_blocks=["192.0.2.0/24"]), inline("security_groups")]
    found, notes = planned_inline(rules, OFFICE | LOAD_BALANCER, {"security_groups": refers("local.group")})
    assert found == ["ingress accept 1 tcp 443/443 192.0.2.0/24"]
    assert notes == ["a peer in security_groups that is known only after the apply"] * 2


@pytest.mark.parametrize(
    ("rule", "note"),
    (
        (inline("cidr_blocks"), "a peer in cidr_blocks that is known only after the apply"),
        (inline("ipv6_cidr_blocks"), "a peer in ipv6_cidr_blocks that is known only after the apply"),
        (inline(prefix_list_ids=[None]), "a peer in prefix_list_ids that is known only after the apply"),
        (inline(), "a rule without a peer"),
    ),
)
def test_an_inline_rule_that_is_lost_is_named(rule: Json, note: str) -> None:
    """Whatever peer it lacks, and although it has lists without peers."""
    assert planned_inline([rule], {}) == ([], [note])


def test_a_raw_state() -> None:
    """terraform.tfstate, with instances and modules, means what the shown state does."""
    raw = {
        "version": 4,
        "terraform_version": "1.9.0",
        "resources": [
            {
                "module": "module.net",
                "mode": "managed",
                "type": "aws_security_group",
                "name": "this",
                "instances": [{"index_key": 0, "attributes": AWS_GROUP["values"]}],
            },
            {"mode": "data", "type": "aws_security_group", "name": "x", "instances": [{"attributes": {}}]},
        ],
    }
    shown = the_group(imported({"values": {"root_module": {"resources": [AWS_GROUP]}}}))
    assert [said(rule) for rule in the_group(imported(raw)).rules] == [said(rule) for rule in shown.rules]


def test_what_a_raw_state_is_about_to_destroy_is_left_out() -> None:
    """As in a shown state."""
    dropping = {"security_group_id": "sg-1", "policy": "drop"}
    resource = {
        "mode": "managed",
        "type": "alicloud_security_group_rule",
        "name": "r",
        "instances": [{"attributes": dropping, "deposed": "00000001"}],
    }
    assert "lost_drop_rule" in refused({"version": 4, "resources": [resource]})


def of_text(text: str) -> Imported:
    """Import a text."""
    return import_terraform([DocumentFile("x.json", text.encode())], Limits())


@pytest.mark.parametrize(
    "text",
    (
        '{"@level":"info","type":"version"}\n{"@level":"info"}\n',
        '{"version": 4, "resources": [1]}',
        '{"version": 4, "resources": [{"type": "aws_security_group"}]}',
        '{"planned_values": {"root_module": 7}}',
        '{"planned_values": [1]}',
        '{"planned_values": {"root_module": {"resources": [{"mode": "managed"}]}}}',
        "[" * 10_000,
        "nothing",
    ),
)
def test_what_is_neither_is_refused(text: str) -> None:
    """Whatever shape it has; the log of a plan is named as such."""
    with pytest.raises(DocumentError) as caught:
        of_text(text)
    if "@level" in text:
        assert "terraform show -json FILE" in str(caught.value)
