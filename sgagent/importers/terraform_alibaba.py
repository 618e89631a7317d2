"""Readers of security group resources of Terraform's Alibaba Cloud provider.

Their fields have native equivalents. An unreadable resource refuses the import, because leaving out a drop
rule would admit more traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgagent.core.model import (
    ALL_PORTS,
    UNKNOWN_GROUP_TYPE,
    AuthorizationObject,
    Cloud,
    Family,
    GroupReference,
    GroupType,
    Policy,
    PortSet,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.documents.field import Field, Fields
from sgagent.documents.rule_form import Part, RuleForm, make_rule
from sgagent.documents.values import (
    DIRECTIONS,
    FAMILIES,
    GROUP_TYPES,
    POLICIES,
    parse_account,
    parse_block,
    parse_id,
    parse_port_range,
    parse_priority,
    parse_protocol,
)
from sgagent.importers.aws_rules import ImportEffect
from sgagent.importers.context import Gathered
from sgagent.importers.fields import (
    InterfaceForm,
    entries,
    read_block,
    read_id,
    read_interface,
    read_mention,
    read_tags,
    read_text,
    require_id,
)


def _read_group(values: Fields, gathered: Gathered) -> None:
    security_group_id, kind = require_id(values, "id"), values.filled("security_group_type")
    if security_group_id is None:
        return
    group_type = (kind.word(GROUP_TYPES) if kind else None) or UNKNOWN_GROUP_TYPE
    if kind is None:
        message = f"its type is missing; it is read as {UNKNOWN_GROUP_TYPE.value}, which admits least"
        _note_narrowed(values, gathered, message)
    inner = _inner(values)
    if inner is None and group_type is GroupType.BASIC:
        _note_narrowed(values, gathered, "its inner access policy is missing; it is read as drop")
    group = SecurityGroup(
        security_group_id=security_group_id,
        group_type=group_type,
        inner_access_policy=inner or Policy.DROP,
        vpc_id=read_id(values, "vpc_id"),
        name=read_text(values, "security_group_name", "name"),
        tags=read_tags(values, "tags"),
        origin=values.field.origin,
    )
    gathered.add_group(values.field, group)


def _note_narrowed(values: Fields, gathered: Gathered, message: str) -> None:
    """Add the note that the import reads a group with the narrowest meaning."""
    gathered.notes.add(ImportEffect.NARROWED, values.field.origin, values.field.reading.subject, message)


def _inner(values: Fields) -> Policy | None:
    """Return the inner access policy; older versions of the provider have a boolean field."""
    policy, older = values.filled("inner_access_policy"), values.filled("inner_access")
    if policy is not None:
        return policy.word(POLICIES) or Policy.DROP
    if older is not None:
        return Policy.ACCEPT if older.boolean() else Policy.DROP
    return None


def _read_rule(values: Fields, gathered: Gathered) -> None:
    values.field.count_rule()
    security_group_id = require_id(values, "security_group_id")
    rule = _rule(values, gathered)
    if security_group_id is not None and rule is not None:
        gathered.rules.append((security_group_id, rule))


def _rule(values: Fields, gathered: Gathered) -> SecurityGroupRule | None:
    """Return a rule; None, with errors added, if it is invalid."""
    network, way, policy, priority, protocol = (
        values.filled(name) for name in ("nic_type", "type", "policy", "priority", "ip_protocol")
    )
    if network is not None and network.text() not in (None, "intranet"):
        network.warn("nic_type", "a rule for another network than the private one", "intranet")
    for name in ("type", "policy", "ip_protocol"):
        if values.filled(name) is None:
            values.refuse_missing(name)
    meant = policy and policy.word(POLICIES)
    if priority is None and meant is Policy.ACCEPT:
        _note_narrowed(values, gathered, f"its priority is missing; it is read as {_LEAST_URGENT}")
    form = RuleForm(
        place=values.field,
        rule_id=read_id(values, "security_group_rule_id") or "",
        direction=way and way.word(DIRECTIONS),
        policy=meant,
        priority=Part("priority", priority.read(parse_priority) if priority else _unsaid_priority(meant)),
        protocol=protocol and protocol.read(parse_protocol),
        ports=_ports(values),
        port_list=_port_list(values),
        source_ports=None,
        peer=_peer(values),
        local=None,
        description=read_text(values, "description"),
    )
    return make_rule(form)


_LEAST_URGENT = 100


def _unsaid_priority(policy: Policy | None) -> int:
    """Return the priority that admits least."""
    return 1 if policy is Policy.DROP else _LEAST_URGENT


def _ports(values: Fields) -> Part[PortSet] | None:
    """Return the port range; the provider writes ``-1/-1`` where a port list is meant."""
    field = values.filled("port_range")
    ports = field.read(parse_port_range) if field else None
    if field is None or (ports == ALL_PORTS and values.filled("port_range_list_id")):
        return None
    return Part("port_range", ports)


def _port_list(values: Fields) -> Part[str] | None:
    field = values.filled("port_range_list_id")
    return Part("port_range_list_id", field.read(parse_id)) if field else None


def _peer(values: Fields) -> Part[AuthorizationObject] | None:
    """Return the other end of a rule: of a CIDR, a group and a prefix list the first counts (§5.1)."""
    ipv4, ipv6, group, prefix_list = (
        values.filled(name)
        for name in ("cidr_ip", "ipv6_cidr_ip", "source_security_group_id", "prefix_list_id")
    )
    if ipv4 is not None and ipv6 is not None:
        ipv6.error("mixed_families", "cidr_ip and ipv6_cidr_ip in one rule", "a rule for each")
    block = ipv4 or ipv6
    if block is not None:
        return Part("cidr_ip" if ipv4 else "ipv6_cidr_ip", block.attempt(parse_block))
    if group is not None:
        return _group(values, group)
    if prefix_list is not None:
        prefix_list_id = prefix_list.read(parse_id)
        return Part("prefix_list_id", PrefixListReference(prefix_list_id) if prefix_list_id else None)
    message = "no authorization object"
    values.field.error(
        "missing_object", message, "cidr_ip, ipv6_cidr_ip, source_security_group_id or prefix_list_id"
    )
    return None


def _group(values: Fields, group: Field) -> Part[AuthorizationObject]:
    account, group_id = values.filled("source_group_owner_account"), group.read(parse_id)
    account_id = account.read(parse_account) if account else None
    return Part("source_security_group_id", GroupReference(group_id, account_id) if group_id else None)


def _read_prefix_list(values: Fields, gathered: Gathered) -> None:
    prefix_list_id, family = require_id(values, "id"), values.filled("address_family")
    if prefix_list_id is None:
        return
    if values.filled("entry") is None:
        values.refuse_missing("entry", "the entries of the list, [] if it has none")
    draft = gathered.prefix_list(prefix_list_id, values.field)
    if draft.delivered is not None:
        message = f"{prefix_list_id} is defined twice, first in {draft.delivered.origin}"
        values.field.error("duplicate_id", message, "one of the two")
    draft.family = (family.word(FAMILIES) if family else None) or Family.IPV4
    draft.delivered = values.field
    items = [fields for item in entries(values, "entry") if (fields := item.fields())]
    for cidr in [cidr for fields in items if (cidr := fields.require("cidr"))]:
        block = read_block(cidr)
        if block is not None and block.family is not draft.family:
            cidr.error("mixed_families", "an entry of another family than the list", "the list's own family")
        elif block is not None:
            draft.entries.append(block)


_INTERFACE = InterfaceForm(
    cloud=Cloud.ALIBABA,
    ids=("id",),
    mac="mac",
    addresses=(
        "primary_ip_address",
        "private_ip",
        "private_ip_addresses",
        "private_ips",
        "ipv6_addresses",
        "ipv4_prefixes",
        "ipv6_prefixes",
    ),
    groups=("security_group_ids", "security_groups"),
)
_INSTANCE = InterfaceForm(
    cloud=Cloud.ALIBABA,
    ids=("network_interface_id",),
    instance="id",
    addresses=("private_ip", "secondary_private_ips", "ipv6_addresses"),
    groups=("security_groups",),
    vpc="vpc_id",
    secondary=("network_interfaces",),
)


def _read_interface(values: Fields, gathered: Gathered) -> None:
    read_interface(values, gathered, _INTERFACE)


ALIBABA_RESOURCES: Mapping[str, Callable[[Fields, Gathered], None]] = {
    "alicloud_security_group": _read_group,
    "alicloud_security_group_rule": _read_rule,
    "alicloud_ecs_prefix_list": _read_prefix_list,
    "alicloud_ecs_network_interface": _read_interface,
    "alicloud_network_interface": _read_interface,
    "alicloud_ecs_network_interface_attachment": read_mention,
    "alicloud_network_interface_attachment": read_mention,
    "alicloud_instance": lambda values, gathered: read_interface(values, gathered, _INSTANCE),
}
