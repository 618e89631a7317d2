"""Importer of EC2 API answers as ``aws ec2 describe-…`` prints them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from sgagent.core.model import (
    AuthorizationObject,
    CidrBlock,
    Cloud,
    Direction,
    GroupReference,
    NetworkInterface,
    PrefixListReference,
)
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field, Fields
from sgagent.documents.tree import Listing
from sgagent.documents.values import FAMILIES, parse_account, parse_id, parse_mac
from sgagent.importers.aws_rules import AwsPermission, ImportEffect
from sgagent.importers.context import AwsGroup, Gathered, Imported, NumberedRules, import_files
from sgagent.importers.fields import (
    entries,
    read_block,
    read_bounds,
    read_group_reference,
    read_id,
    read_member,
    read_protocol,
    read_text,
    require_id,
)

_DIRECTIONS = (("IpPermissions", Direction.INGRESS), ("IpPermissionsEgress", Direction.EGRESS))
_BOUNDS = ("FromPort", "ToPort")
_ADDRESSES = (
    ("PrivateIpAddresses", "PrivateIpAddress"),
    ("Ipv6Addresses", "Ipv6Address"),
    ("Ipv4Prefixes", "Ipv4Prefix"),
    ("Ipv6Prefixes", "Ipv6Prefix"),
)
"""Where private addresses and delegated prefixes stand; public ones are never compared (§5.2)."""

_ID_IN_NAME = re.compile(r"pl-[A-Za-z0-9]+")


def import_aws(files: Sequence[DocumentFile], limits: Limits) -> Imported:
    """Return the definitions in EC2 API answers.

    Raises:
        DocumentError: something can't be understood, or there is nothing to import.
    """
    return import_files(files, limits, _read_document)


def _read_document(root: Field, gathered: Gathered) -> None:
    """Add one answer, or each answer of a list."""
    if isinstance(root.node, Listing):
        for item in root.items():
            _read_answer(item, gathered)
    else:
        _read_answer(root, gathered)


def _read_answer(field: Field, gathered: Gathered) -> None:
    """Add an answer; its fields determine its kind."""
    answer = field.fields()
    if answer is None:
        return
    for name, read in _SHAPES:
        if name in answer.names():
            _refuse_part(answer)
            read(answer, gathered)
            return
    field.error(
        "unknown_answer",
        "an answer that is not read here",
        "describe-security-groups, describe-security-group-rules, describe-network-interfaces, "
        "describe-managed-prefix-lists, get-managed-prefix-list-entries or describe-prefix-lists",
    )


def _refuse_part(answer: Fields) -> None:
    """Add an error if an answer announces another page."""
    token = answer.filled("NextToken")
    if token is not None:
        token.error(
            "missing_page", "the answer is only a part", "all of it: without --max-items or --no-paginate"
        )


def _about(field: Field, name: str) -> Fields | None:
    """Return the fields of a group, rule or interface, with problems that name it by its id."""
    fields = field.fields()
    named = fields.filled(name) if fields else None
    return field.belonging_to(named.node).fields() if named and isinstance(named.node, str) else fields


def _read_groups(answer: Fields, gathered: Gathered) -> None:
    for field in entries(answer, "SecurityGroups"):
        fields = _about(field, "GroupId")
        group = _group(fields) if fields else None
        if fields is None or group is None:
            continue
        gathered.add_aws_group(group)
        for name, direction in _DIRECTIONS:
            for permission in entries(fields, name):
                gathered.allowances += _allowances(permission, group.security_group_id, direction)
                _note_nobody(permission, group.security_group_id, gathered)


def _group(fields: Fields) -> AwsGroup | None:
    security_group_id, owner = require_id(fields, "GroupId"), fields.filled("OwnerId")
    group = AwsGroup(
        place=fields.field,
        security_group_id=security_group_id or "",
        name=read_text(fields, "GroupName"),
        vpc_id=read_id(fields, "VpcId"),
        account_id=owner.read(parse_account) if owner else None,
        tags=_tags(fields),
    )
    return group if security_group_id else None


def _tags(fields: Fields) -> tuple[tuple[str, str], ...]:
    tags = [tag for field in entries(fields, "Tags") if (tag := field.fields())]
    return tuple(sorted({read_text(tag, "Key"): read_text(tag, "Value") for tag in tags}.items()))


def _allowances(permission: Field, security_group_id: str, direction: Direction) -> Iterator[AwsPermission]:
    """Yield one permission for each peer of an ``IpPermission``, which has one protocol."""
    fields = permission.fields()
    written = fields.require("IpProtocol") if fields else None
    protocol = read_protocol(written) if written else None
    bounds = read_bounds(fields, protocol, *_BOUNDS) if fields and protocol else None
    if fields is None or protocol is None or bounds is None:
        return
    for field, peer, vpc_id in _peers(fields):
        field.count_rule()
        within = field.fields()
        yield AwsPermission(
            origin=field.origin,
            security_group_id=security_group_id,
            direction=direction,
            protocol=protocol,
            bounds=bounds,
            peer=peer,
            peer_vpc_id=vpc_id,
            description=read_text(within, "Description") if within else "",
        )


def _note_nobody(permission: Field, security_group_id: str, gathered: Gathered) -> None:
    """Add a note on a permission without any peer."""
    fields = permission.fields()
    if fields is not None and not any(fields.filled(name) for name, _, _ in _ENDS):
        message = "a rule without a peer"
        gathered.notes.add(ImportEffect.LEFT_OUT, permission.origin, security_group_id, message)


def _peers(fields: Fields) -> Iterator[tuple[Field, AuthorizationObject, str | None]]:
    """Yield the peers of a permission, with the VPC of a group if the answer has it."""
    for name, inner, read in _ENDS:
        for field in entries(fields, name):
            within = field.fields()
            written = within.require(inner) if within else None
            peer = read(written, within) if written and within else None
            if within is not None and peer is not None:
                yield field, peer, read_id(within, "VpcId")


def _block(field: Field, within: Fields) -> CidrBlock | None:
    del within
    return read_block(field)


def _pair(field: Field, within: Fields) -> GroupReference | None:
    """Return the group of a pair of group and account."""
    reference, account = read_group_reference(field), within.filled("UserId")
    account_id = account.read(parse_account) if account else None
    return GroupReference(reference.security_group_id, account_id) if reference else None


def _list(field: Field, within: Fields) -> PrefixListReference | None:
    del within
    prefix_list_id = field.read(parse_id)
    return PrefixListReference(prefix_list_id) if prefix_list_id else None


_ENDS: tuple[tuple[str, str, Callable[[Field, Fields], AuthorizationObject | None]], ...] = (
    ("IpRanges", "CidrIp", _block),
    ("Ipv6Ranges", "CidrIpv6", _block),
    ("UserIdGroupPairs", "GroupId", _pair),
    ("PrefixListIds", "PrefixListId", _list),
)


def _read_rules(answer: Fields, gathered: Gathered) -> None:
    """Add rules one by one; only this call returns their ids."""
    for field in entries(answer, "SecurityGroupRules"):
        fields = _about(field, "SecurityGroupRuleId")
        allowance = _allowance(fields) if fields else None
        if allowance is None:
            continue
        key = allowance.security_group_id
        numbered = gathered.numbered.setdefault(key, NumberedRules(answer.field))
        numbered.allowances.append(allowance)
        if numbered.answer is not answer.field:
            message = f"the rules of {key} are in {numbered.answer.origin} too"
            field.error("second_answer", message, "one answer with all of its rules")


def _allowance(fields: Fields) -> AwsPermission | None:
    fields.field.count_rule()
    group_id, rule_id = require_id(fields, "GroupId"), read_id(fields, "SecurityGroupRuleId")
    way, written = fields.require("IsEgress"), fields.require("IpProtocol")
    protocol = read_protocol(written) if written else None
    peer, vpc_id = _only_peer(fields)
    is_egress = way.boolean() if way else None
    bounds = read_bounds(fields, protocol, *_BOUNDS) if protocol else None
    if group_id is None or protocol is None or bounds is None or peer is None or is_egress is None:
        return None
    return AwsPermission(
        origin=fields.field.origin,
        security_group_id=group_id,
        direction=Direction.EGRESS if is_egress else Direction.INGRESS,
        protocol=protocol,
        bounds=bounds,
        peer=peer,
        peer_vpc_id=vpc_id,
        rule_id=rule_id or "",
        description=read_text(fields, "Description"),
    )


def _only_peer(fields: Fields) -> tuple[AuthorizationObject | None, str | None]:
    """Return the one peer of a rule, with the VPC of a group if the answer has it."""
    block = fields.filled("CidrIpv4") or fields.filled("CidrIpv6")
    prefix_list, group = fields.filled("PrefixListId"), fields.filled("ReferencedGroupInfo")
    if block is not None:
        return read_block(block), None
    if prefix_list is not None:
        return _list(prefix_list, fields), None
    within = group.fields() if group else None
    written = within.require("GroupId") if within else None
    if within is not None and written is not None:
        return _pair(written, within), read_id(within, "VpcId")
    fields.refuse_missing("CidrIpv4", "one of CidrIpv4, CidrIpv6, PrefixListId or ReferencedGroupInfo")
    return None, None


def _read_interfaces(answer: Fields, gathered: Gathered) -> None:
    for field in entries(answer, "NetworkInterfaces"):
        fields = _about(field, "NetworkInterfaceId")
        interface = _interface(fields) if fields else None
        if interface is not None:
            gathered.add_interface(field, interface, Cloud.AWS)


def _interface(fields: Fields) -> NetworkInterface | None:
    network_interface_id = require_id(fields, "NetworkInterfaceId")
    mac, owner, attachment = (fields.filled(name) for name in ("MacAddress", "OwnerId", "Attachment"))
    attached_to = attachment.fields() if attachment else None
    groups = [group for field in entries(fields, "Groups") if (group := field.fields())]
    found = [read_member(field) for field in _address_fields(fields)]
    interface = NetworkInterface(
        network_interface_id=network_interface_id or "",
        mac_address=mac.read(parse_mac) if mac else None,
        addresses=tuple(dict.fromkeys(block for block in found if block)),
        security_group_ids=tuple(sorted({key for group in groups if (key := require_id(group, "GroupId"))})),
        account_id=owner.read(parse_account) if owner else None,
        vpc_id=read_id(fields, "VpcId"),
        instance_id=read_id(attached_to, "InstanceId") if attached_to else None,
        origin=fields.field.origin,
    )
    return interface if network_interface_id else None


def _address_fields(fields: Fields) -> Iterator[Field]:
    primary = fields.filled("PrivateIpAddress")
    if primary is not None:
        yield primary
    for outer, inner in _ADDRESSES:
        for item in entries(fields, outer):
            within = item.fields()
            address = within.filled(inner) if within else None
            if address is not None:
                yield address


def _read_prefix_lists(answer: Fields, gathered: Gathered) -> None:
    """Add prefix lists; those that AWS manages include their entries."""
    for field in entries(answer, "PrefixLists"):
        fields = field.fields()
        prefix_list_id = require_id(fields, "PrefixListId") if fields else None
        if fields is None or prefix_list_id is None:
            continue
        draft = gathered.prefix_list(prefix_list_id, field)
        family = fields.filled("AddressFamily")
        draft.family = (family.word(FAMILIES) if family else None) or draft.family
        if fields.filled("Cidrs"):
            draft.deliver(field, [block for item in entries(fields, "Cidrs") if (block := read_block(item))])


def _read_prefix_entries(answer: Fields, gathered: Gathered) -> None:
    """Add the entries of a prefix list; the answer lacks the list's id, so the file name has it."""
    field = answer.field
    named = _ID_IN_NAME.search(field.reading.file.rpartition("/")[2]) if not field.path else None
    prefix_list_id = read_id(answer, "PrefixListId") or (named and named.group(0))
    if prefix_list_id is None:
        answer.refuse_missing("PrefixListId", "add the id, or name the file after it, like pl-1.json")
        return
    draft = gathered.prefix_list(prefix_list_id, field)
    items = [fields for item in entries(answer, "Entries") if (fields := item.fields())]
    written = [entry for fields in items if (entry := fields.require("Cidr"))]
    draft.deliver(field, [block for entry in written if (block := read_block(entry))])


_SHAPES: tuple[tuple[str, Callable[[Fields, Gathered], None]], ...] = (
    ("SecurityGroups", _read_groups),
    ("SecurityGroupRules", _read_rules),
    ("NetworkInterfaces", _read_interfaces),
    ("PrefixLists", _read_prefix_lists),
    ("Entries", _read_prefix_entries),
)
"""The field that identifies each kind of answer."""
