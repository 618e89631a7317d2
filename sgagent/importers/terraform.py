"""Importer of Terraform states as ``terraform show -json`` prints them, with all modules.

The resources of the AWS provider are read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as MappingOf, Sequence
from dataclasses import dataclass, replace

from sgagent.core.model import AuthorizationObject, Cloud, Direction, GroupReference, PrefixListReference
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Fields
from sgagent.documents.tree import Listing, Mapping, Node
from sgagent.documents.values import DIRECTIONS, FAMILIES, parse_account, parse_id
from sgagent.importers.aws_rules import AwsPermission, ImportEffect
from sgagent.importers.context import AwsGroup, Gathered, Imported, UnreadResource, import_files
from sgagent.importers.fields import (
    InterfaceForm,
    entries,
    read_block,
    read_bounds,
    read_group_reference,
    read_id,
    read_interface,
    read_mention,
    read_protocol,
    read_tags,
    read_text,
    require_id,
)
from sgagent.importers.terraform_alibaba import ALIBABA_RESOURCES


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

AWS_RESOURCES: MappingOf[str, Callable[[Fields, Gathered], None]] = {
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


RESOURCES: MappingOf[str, Callable[[Fields, Gathered], None]] = {**AWS_RESOURCES, **ALIBABA_RESOURCES}
"""The reader of each resource type."""

_RELATED = ("security_group", "prefix_list", "port_list", "port_range_list")
"""An unread resource whose type contains one of these words gets a note."""


def import_terraform(files: Sequence[DocumentFile], limits: Limits) -> Imported:
    """Return the definitions in Terraform states.

    Raises:
        DocumentError: a file has errors, or no file has anything to import.
    """
    return import_files(files, limits, _read_state)


def _read_state(root: Field, gathered: Gathered) -> None:
    fields = root.fields()
    if fields is None:
        return
    values = fields.filled("values")
    if values is None:
        message = "a plan, not a state" if "planned_values" in fields.names() else "no state in it"
        root.error("not_a_state", message, "what `terraform show -json` prints of the state, after an apply")
        return
    within = values.fields()
    module = within.filled("root_module") if within else None
    if module is not None:
        for resource in _resources(module):
            _read_resource(resource, gathered)


def _resources(module: Field) -> Iterator[Field]:
    """Yield the resources of a module and its child modules; the limits bound the depth."""
    fields = module.fields()
    if fields is not None:
        yield from entries(fields, "resources")
        for child in entries(fields, "child_modules"):
            yield from _resources(child)


def _read_resource(field: Field, gathered: Gathered) -> None:
    """Add a managed resource; skip data sources, which Terraform only looks up."""
    found = field.fields()
    mode = found.filled("mode") if found else None
    if found is None or (mode is not None and mode.word(_MODES) is not True):
        return
    named = field.belonging_to(_text(found, "address") or _text(found, "type") or "a resource")
    resource = named.fields()
    kind = _text(resource, "type") if resource else None
    if resource is None or kind is None:
        found.refuse_missing("type", "the type of the resource")
    elif kind in RESOURCES and not resource.filled("deposed_key"):
        values = resource.require("values")
        within = values.fields() if values else None
        if within is not None:
            RESOURCES[kind](within, gathered)
    else:
        _leave_out(named, kind, gathered)


_MODES = {"managed": True, "data": False}
"""Whether Terraform manages a resource."""


def _leave_out(resource: Field, kind: str, gathered: Gathered) -> None:
    """Add a resource that no importer reads, with the group ids that it names."""
    fields = resource.fields()
    values = fields.get("values") if fields else None
    is_deposed = kind in RESOURCES
    policy = values.node.entries.get("policy") if values and isinstance(values.node, Mapping) else None
    reason = "about to be destroyed (deposed)" if is_deposed else f"{kind} is not read here"
    if policy == "drop":
        remedy = (
            "terraform apply first" if is_deposed else "a resource that is read, or remove it from the file"
        )
        resource.error("lost_drop_rule", f"it drops something: {reason}", remedy)
    names = (
        frozenset(text for text in _texts(values.node) if text.startswith("sg-")) if values else frozenset()
    )
    is_related = is_deposed or any(word in kind for word in _RELATED)
    gathered.unread.append(UnreadResource(resource, reason, names, is_related=is_related))


def _texts(node: Node) -> Iterator[str]:
    """Yield all texts in a value; the limits bound the depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, (Listing, Mapping)):
        for inner in node.items if isinstance(node, Listing) else node.entries.values():
            yield from _texts(inner)


def _text(fields: Fields, name: str) -> str | None:
    found = fields.filled(name)
    return found.text() if found else None
