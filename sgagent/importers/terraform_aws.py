"""Readers of security group resources of Terraform's AWS provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from sgagent.core.model import AuthorizationObject, Cloud, Direction, GroupReference, PrefixListReference
from sgagent.documents.field import Field, Fields
from sgagent.documents.values import DIRECTIONS, FAMILIES, parse_account, parse_id
from sgagent.importers.aws_rules import AwsPermission
from sgagent.importers.aws_values import (
    entries,
    read_block,
    read_bounds,
    read_group_reference,
    read_id,
    read_protocol,
    read_text,
    require_id,
)
from sgagent.importers.context import AwsGroup, Gathered
from sgagent.importers.notes import ImportEffect
from sgagent.importers.terraform_interfaces import InterfaceForm, read_interface, read_mention, read_tags


def _read_group(values: Fields, gathered: Gathered) -> None:
    """Add a group with its inline rules."""
    security_group_id, owner = require_id(values, "id"), values.filled("owner_id")
    if security_group_id is None:
        return
    gathered.add_aws_group(
        AwsGroup(
            place=values.field,
            security_group_id=security_group_id,
            name=read_text(values, "name"),
            vpc_id=read_id(values, "vpc_id"),
            account_id=owner.read(parse_account) if owner else None,
            tags=read_tags(values, "tags_all", "tags"),
        )
    )
    for name, direction in DIRECTIONS.items():
        for field in entries(values, name):
            fields = field.fields()
            if fields is not None:
                rule = _Rule(security_group_id, direction, "protocol")
                gathered.allowances += _allowances(fields, rule, gathered)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the values of a rule do not say themselves."""

    security_group_id: str
    direction: Direction
    protocol_name: str
    """Of the field that holds the protocol."""

    rule_id: str = ""


def _read_rule(values: Fields, gathered: Gathered) -> None:
    """Add a rule of the older resource type, which may have several peers."""
    security_group_id, kind = require_id(values, "security_group_id"), values.require("type")
    direction = kind.word(DIRECTIONS) if kind else None
    if security_group_id is None or direction is None:
        return
    rule_id = read_id(values, "security_group_rule_id") or ""
    found = list(_allowances(values, _Rule(security_group_id, direction, "protocol", rule_id), gathered))
    gathered.allowances += found if len(found) == 1 else [_without_id(allowance) for allowance in found]


def _without_id(allowance: AwsPermission) -> AwsPermission:
    """Return one of several that share an id, which no two rules can have."""
    return replace(allowance, rule_id="")


def _reader_of(direction: Direction) -> Callable[[Fields, Gathered], None]:
    """Return what takes a rule of the newer kind, which has a single other end."""

    def read(values: Fields, gathered: Gathered) -> None:
        security_group_id = require_id(values, "security_group_id")
        if security_group_id is not None:
            rule_id = read_id(values, "security_group_rule_id", "id") or ""
            rule = _Rule(security_group_id, direction, "ip_protocol", rule_id)
            gathered.allowances += _allowances(values, rule, gathered)

    return read


def _allowances(values: Fields, rule: _Rule, gathered: Gathered) -> Iterator[AwsPermission]:
    """Yield the permissions of a rule."""
    itself = values.filled("self")
    if not any(values.filled(name) for name in dict(_ENDS)) and (itself is None or itself.written == "false"):
        subject = values.field.reading.subject
        gathered.notes.add(ImportEffect.LEFT_OUT, values.field.origin, subject, "a rule without a peer")
    written = values.require(rule.protocol_name)
    protocol = read_protocol(written) if written else None
    bounds = read_bounds(values, protocol, "from_port", "to_port") if protocol else None
    if protocol is None or bounds is None:
        return
    for field, peer in _peers(values, rule):
        field.count_rule()
        yield AwsPermission(
            origin=field.origin,
            security_group_id=rule.security_group_id,
            direction=rule.direction,
            protocol=protocol,
            bounds=bounds,
            peer=peer,
            rule_id=rule.rule_id,
            description=read_text(values, "description"),
        )


def _peers(values: Fields, rule: _Rule) -> Iterator[tuple[Field, AuthorizationObject]]:
    """Yield the peers of a rule, from lists and single fields."""
    for name, read in _ENDS:
        found = values.filled(name)
        if found is None:
            continue
        for field in found.items() if name in _LISTS else (found,):
            peer = read(field)
            if peer is not None:
                yield field, peer
    itself = values.filled("self")
    if itself is not None and itself.boolean():
        yield itself, GroupReference(rule.security_group_id)


def _list(field: Field) -> PrefixListReference | None:
    prefix_list_id = field.read(parse_id)
    return PrefixListReference(prefix_list_id) if prefix_list_id else None


_LISTS = ("cidr_blocks", "ipv6_cidr_blocks", "security_groups", "prefix_list_ids")
_ENDS: tuple[tuple[str, Callable[[Field], AuthorizationObject | None]], ...] = (
    ("cidr_blocks", read_block),
    ("cidr_ipv4", read_block),
    ("ipv6_cidr_blocks", read_block),
    ("cidr_ipv6", read_block),
    ("security_groups", read_group_reference),
    ("source_security_group_id", read_group_reference),
    ("referenced_security_group_id", read_group_reference),
    ("prefix_list_ids", _list),
    ("prefix_list_id", _list),
)


def _read_prefix_list(values: Fields, gathered: Gathered) -> None:
    """Add a prefix list with its inline entries."""
    prefix_list_id = require_id(values, "id")
    if prefix_list_id is None:
        return
    draft, family = gathered.prefix_list(prefix_list_id, values.field), values.filled("address_family")
    if draft.delivered is not None:
        message = f"{prefix_list_id} is defined twice, first in {draft.delivered.origin}"
        values.field.error("duplicate_id", message, "one of the two")
    draft.family = (family.word(FAMILIES) if family else None) or draft.family
    draft.delivered = values.field
    for item in entries(values, "entry"):
        fields = item.fields()
        if fields is not None:
            _add_entry(fields, prefix_list_id, gathered)


def _read_prefix_entry(values: Fields, gathered: Gathered) -> None:
    """Add an entry that is a separate resource; its list must be a resource too."""
    prefix_list_id = require_id(values, "prefix_list_id")
    if prefix_list_id is not None:
        _add_entry(values, prefix_list_id, gathered)


def _add_entry(fields: Fields, prefix_list_id: str, gathered: Gathered) -> None:
    written = fields.require("cidr")
    block = read_block(written) if written else None
    if block is not None:
        gathered.prefix_list(prefix_list_id, fields.field).entries.append(block)


def _read_attachment(values: Fields, gathered: Gathered) -> None:
    """Add an attachment of a group to an interface that is a separate resource."""
    interface, group = require_id(values, "network_interface_id"), require_id(values, "security_group_id")
    if interface is not None and group is not None:
        gathered.attachments.append((values.field, interface, group))


_INTERFACE = InterfaceForm(
    cloud=Cloud.AWS,
    ids=("id",),
    mac="mac_address",
    addresses=("private_ip", "private_ips", "ipv6_addresses", "ipv4_prefixes", "ipv6_prefixes"),
    groups=("security_groups",),
)
_INSTANCE = InterfaceForm(
    cloud=Cloud.AWS,
    ids=("primary_network_interface_id",),
    instance="id",
    addresses=("private_ip", "secondary_private_ips", "ipv6_addresses"),
    groups=("vpc_security_group_ids",),
    secondary=("network_interface", "secondary_network_interface"),
)

AWS_RESOURCES: Mapping[str, Callable[[Fields, Gathered], None]] = {
    "aws_security_group": _read_group,
    "aws_default_security_group": _read_group,
    "aws_security_group_rule": _read_rule,
    "aws_vpc_security_group_ingress_rule": _reader_of(Direction.INGRESS),
    "aws_vpc_security_group_egress_rule": _reader_of(Direction.EGRESS),
    "aws_ec2_managed_prefix_list": _read_prefix_list,
    "aws_ec2_managed_prefix_list_entry": _read_prefix_entry,
    "aws_network_interface": lambda values, gathered: read_interface(values, gathered, _INTERFACE),
    "aws_instance": lambda values, gathered: read_interface(values, gathered, _INSTANCE),
    "aws_network_interface_attachment": read_mention,
    "aws_network_interface_sg_attachment": _read_attachment,
}
