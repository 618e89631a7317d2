"""Strict reader of the native format, version 1: a typing error never admits traffic (§8.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sgagent.core.model import (
    DEFAULT_GROUP_TYPE,
    DEFAULT_INNER_ACCESS,
    CidrBlock,
    Cloud,
    NetworkInterface,
    PortList,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.documents.assembly import Collected
from sgagent.documents.field import Field, Fields
from sgagent.documents.rule_form import Part, RuleForm, make_port_list, make_prefix_list, make_rule
from sgagent.documents.tree import Mapping
from sgagent.documents.values import (
    CLOUDS,
    DIRECTIONS,
    FAMILIES,
    GROUP_TYPES,
    POLICIES,
    HostBits,
    checked_priority,
    in_order,
    parse_account,
    parse_block,
    parse_id,
    parse_mac,
    parse_members,
    parse_object,
    parse_ports,
    parse_protocol,
)

FORMAT_VERSION = 1

DOCUMENT_FIELDS = (
    "version",
    "vpc_id",
    "account_id",
    "security_groups",
    "prefix_lists",
    "port_lists",
    "network_interfaces",
)
GROUP_FIELDS = (
    "security_group_id",
    "name",
    "vpc_id",
    "account_id",
    "type",
    "inner_access_policy",
    "cloud",
    "tags",
    "member_addresses",
    "rules",
)
RULE_FIELDS = (
    "rule_id",
    "direction",
    "policy",
    "priority",
    "protocol",
    "port_range",
    "port_list_id",
    "source_port_range",
    "authorization_object",
    "local_address",
    "description",
)
PREFIX_LIST_FIELDS = ("prefix_list_id", "address_family", "entries")
PREFIX_ENTRY_FIELDS = ("cidr", "description")
PORT_LIST_FIELDS = ("port_list_id", "entries")
PORT_ENTRY_FIELDS = ("port_range", "description")
INTERFACE_FIELDS = (
    "network_interface_id",
    "mac_address",
    "addresses",
    "security_group_ids",
    "vpc_id",
    "account_id",
    "instance_id",
)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose a group or interface is: its own fields, else the document's."""

    vpc_id: str | None
    account_id: str | None


def read_native(document: Field, collected: Collected) -> None:
    """Take all objects of a native document."""
    fields = document.fields()
    if fields is None:
        return
    fields.refuse_unknown(DOCUMENT_FIELDS)
    _check_version(fields)
    owner = _owner(fields, _Owner(None, None))
    for field in fields.items("security_groups"):
        collected.add_group(_group(field, owner))
    for field in fields.items("prefix_lists"):
        collected.add_prefix_list(_prefix_list(field))
    for field in fields.items("port_lists"):
        collected.add_port_list(_port_list(field))
    for field in fields.items("network_interfaces"):
        collected.add_interface(_interface(field, owner))


def _check_version(fields: Fields) -> None:
    """Note an error unless the document is of the version that is read here."""
    field = fields.get("version")
    if field is None:
        fields.refuse_missing("version", f"version: {FORMAT_VERSION}")
        return
    version = field.integer()
    if version is not None and version != FORMAT_VERSION:
        field.error("unknown_version", "a version of the format that is not known here", f"{FORMAT_VERSION}")


def _owner(fields: Fields, default: _Owner) -> _Owner:
    """Return the VPC and account of an object."""
    vpc, account = fields.get("vpc_id"), fields.get("account_id")
    return _Owner(
        default.vpc_id if vpc is None else parse_id(vpc),
        default.account_id if account is None else parse_account(account),
    )


def _group(field: Field, default: _Owner) -> SecurityGroup | None:
    """Return a security group (§1.1)."""
    fields = field.fields()
    if fields is None:
        return None
    fields.refuse_unknown(GROUP_FIELDS)
    owner = _owner(fields, default)
    group_type = fields.get("type")
    inner, cloud = fields.get("inner_access_policy"), fields.get("cloud")
    security_group_id = _required_id(fields, "security_group_id")
    group = SecurityGroup(
        security_group_id=security_group_id or "",
        group_type=(group_type.word(GROUP_TYPES) if group_type else None) or DEFAULT_GROUP_TYPE,
        inner_access_policy=(inner.word(POLICIES) if inner else None) or DEFAULT_INNER_ACCESS,
        account_id=owner.account_id,
        vpc_id=owner.vpc_id,
        name=_free_text(fields, "name"),
        tags=_tags(fields),
        member_addresses=_addresses(fields, "member_addresses", _sorted_members),
        rules=tuple(_rules(fields)),
        cloud=(cloud.word(CLOUDS) if cloud else None) or Cloud.ALIBABA,
        origin=field.origin,
    )
    return group if security_group_id else None


def _rules(fields: Fields) -> Iterator[SecurityGroupRule]:
    """Go through the rules of a group that can be read."""
    field = fields.get("rules")
    return filter(None, field.recall_each(_rule, _moved)) if field else iter(())


def _moved(rule: SecurityGroupRule | None, field: Field) -> SecurityGroupRule | None:
    """Return a rule as it is where it stands now."""
    origin = field.origin
    return rule if rule is None or rule.origin == origin else replace(rule, origin=origin)


def _rule(field: Field) -> SecurityGroupRule | None:
    """Return a rule (§1.2)."""
    field.count_rule()
    fields = field.fields()
    if fields is None:
        return None
    fields.refuse_unknown(RULE_FIELDS)
    return make_rule(_form(fields))


def _form(fields: Fields) -> RuleForm:
    """Return the parts of a rule."""
    rule_id, priority = fields.get("rule_id"), fields.get("priority")
    direction, policy = fields.require("direction"), fields.require("policy")
    protocol, port_list = fields.require("protocol"), fields.get("port_list_id")
    ports, source_ports = fields.get("port_range"), fields.get("source_port_range")
    peer, local = fields.require("authorization_object"), fields.get("local_address")
    return RuleForm(
        place=fields.field,
        rule_id=(rule_id and parse_id(rule_id)) or "",
        direction=direction and direction.word(DIRECTIONS),
        policy=policy and policy.word(POLICIES),
        priority=checked_priority(priority, priority.integer()) if priority else 1,
        protocol=protocol and parse_protocol(protocol),
        ports=ports and Part(ports, parse_ports(ports)),
        port_list=port_list and Part(port_list, parse_id(port_list)),
        source_ports=source_ports and Part(source_ports, parse_ports(source_ports)),
        peer=peer and Part(peer, parse_object(peer)),
        local=local and Part(local, parse_block(local, HostBits.CLEARED)),
        description=_free_text(fields, "description"),
    )


def _prefix_list(field: Field) -> PrefixList | None:
    """Return a prefix list (§1.4)."""
    fields = field.fields()
    if fields is None:
        return None
    fields.refuse_unknown(PREFIX_LIST_FIELDS)
    prefix_list_id = _required_id(fields, "prefix_list_id")
    family = fields.require("address_family")
    entries = [_entry(item, "cidr", PREFIX_ENTRY_FIELDS) for item in _required_items(fields, "entries")]
    return make_prefix_list(field, prefix_list_id, family and family.word(FAMILIES), entries)


def _port_list(field: Field) -> PortList | None:
    """Return a port list (§1.4)."""
    fields = field.fields()
    if fields is None:
        return None
    fields.refuse_unknown(PORT_LIST_FIELDS)
    port_list_id = _required_id(fields, "port_list_id")
    entries = [_entry(item, "port_range", PORT_ENTRY_FIELDS) for item in _required_items(fields, "entries")]
    return make_port_list(field, port_list_id, entries)


def _entry(item: Field, name: str, known: tuple[str, ...]) -> Field | None:
    """Return the value of an entry, which may stand alone or with a description."""
    if not isinstance(item.node, Mapping):
        return item
    fields = Fields(item, item.node.entries)
    fields.refuse_unknown(known)
    _free_text(fields, "description")
    return fields.require(name)


def _interface(field: Field, default: _Owner) -> NetworkInterface | None:
    """Return a network interface (§1.3)."""
    fields = field.fields()
    if fields is None:
        return None
    fields.refuse_unknown(INTERFACE_FIELDS)
    owner = _owner(fields, default)
    mac, instance = fields.get("mac_address"), fields.get("instance_id")
    network_interface_id = _required_id(fields, "network_interface_id")
    attachment = fields.get("security_group_ids")
    attached = [parse_id(item) for item in fields.items("security_group_ids")]
    interface = NetworkInterface(
        network_interface_id=network_interface_id or "",
        mac_address=mac and parse_mac(mac),
        addresses=_addresses(fields, "addresses", _members),
        security_group_ids=tuple(sorted({group for group in attached if group})),
        account_id=owner.account_id,
        vpc_id=owner.vpc_id,
        instance_id=instance and parse_id(instance),
        origin=field.origin,
        attachment_origin=attachment.origin if attachment else field.origin,
    )
    return interface if network_interface_id else None


def _addresses(
    fields: Fields, name: str, make: Callable[[Field], tuple[CidrBlock, ...]]
) -> tuple[CidrBlock, ...]:
    """Return addresses that make members, none where the field is not there."""
    field = fields.get(name)
    return field.recall(make) if field else ()


def _members(field: Field) -> tuple[CidrBlock, ...]:
    return tuple(dict.fromkeys(parse_members(field)))


def _sorted_members(field: Field) -> tuple[CidrBlock, ...]:
    return in_order(parse_members(field))


def _required_id(fields: Fields, name: str) -> str | None:
    """Return the id of an object, which must be there."""
    field = fields.require(name)
    return parse_id(field) if field else None


def _required_items(fields: Fields, name: str) -> Iterator[Field]:
    """Go through a list that must be there: a forgotten one is no empty one."""
    field = fields.require(name)
    return field.items() if field else iter(())


def _free_text(fields: Fields, name: str) -> str:
    """Return a text for people, empty where there is none; a whole number is read as its digits."""
    field = fields.get(name)
    return (field.text_or_digits() if field else None) or ""


def _tags(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Return the tags of a group, sorted by their keys."""
    field = fields.get("tags")
    mapping = field.fields() if field else None
    if mapping is None:
        return ()
    return tuple(sorted((name, _free_text(mapping, name)) for name in mapping.names()))
