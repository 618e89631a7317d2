"""Importer of EC2 API answers as ``aws ec2 describe-…`` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Annotated

from sgagent.core.model import AuthorizationObject, Cloud, Direction, Family, GroupReference, NetworkInterface
from sgagent.documents import DocumentFile, Limits, api, field_types
from sgagent.documents.field import Field
from sgagent.documents.models import FieldType, PlacedValue, declare, items_of, one_of, read_each, read_model
from sgagent.documents.scalars import parse_boolean, parse_list, parse_mapping
from sgagent.documents.tree import Listing, Mapping, is_set
from sgagent.documents.values import FAMILIES, parse_block
from sgagent.importers import aws_rules
from sgagent.importers.context import AWS_GROUP, Gathered, Imported, NumberedRules, import_files

_List = Annotated[Listing | None, FieldType(parse_list)]
_PrefixListReference = Annotated[AuthorizationObject, PlacedValue(aws_rules.parse_prefix_list)]


class _Group(api.AnswerModel):
    """A group of describe-security-groups."""

    group_id: field_types.Id
    group_name: field_types.Text = ""
    vpc_id: field_types.Id | None = None
    owner_id: field_types.Account | None = None
    tags: _List = None
    ip_permissions: _List = None
    ip_permissions_egress: _List = None


class _Peer(api.AnswerModel):
    """A peer of an ``IpPermission``; the fields of other kinds of peers do not count."""

    peer: AuthorizationObject
    user_id: field_types.Account | None = None
    vpc_id: field_types.Id | None = None
    description: field_types.Text = ""


class _Ipv4Range(_Peer):
    peer: field_types.Block = declare(name="CidrIp")


class _Ipv6Range(_Peer):
    peer: field_types.Block = declare(name="CidrIpv6")


class _GroupPair(_Peer):
    peer: Annotated[GroupReference, PlacedValue(aws_rules.parse_group)] = declare(name="GroupId")


class _PrefixListId(_Peer):
    peer: _PrefixListReference = declare(name="PrefixListId")


_PEERS: dict[str, type[_Peer]] = {
    "IpRanges": _Ipv4Range,
    "Ipv6Ranges": _Ipv6Range,
    "UserIdGroupPairs": _GroupPair,
    "PrefixListIds": _PrefixListId,
}


class _Permission(api.AnswerModel):
    """An ``IpPermission``: one protocol and any number of peers."""

    ip_protocol: aws_rules.AwsProtocol
    from_port: aws_rules.Number = None
    to_port: aws_rules.Number = None
    ip_ranges: _List = None
    ipv6_ranges: _List = None
    user_id_group_pairs: _List = None
    prefix_list_ids: _List = None


class _Rule(api.AnswerModel):
    """A rule of describe-security-group-rules, which has one peer."""

    group_id: field_types.Id
    security_group_rule_id: field_types.Id = ""
    is_egress: Annotated[bool, FieldType(parse_boolean)]
    ip_protocol: aws_rules.AwsProtocol
    from_port: aws_rules.Number = None
    to_port: aws_rules.Number = None
    cidr_ipv4: field_types.Block | None = None
    cidr_ipv6: field_types.Block | None = None
    prefix_list_id: _PrefixListReference | None = None
    referenced_group_info: Annotated[Mapping | None, FieldType(parse_mapping)] = None
    description: field_types.Text = ""


class _Attachment(api.AnswerModel):
    instance_id: field_types.Id | None = None


class _AttachedGroup(api.AnswerModel):
    group_id: field_types.Id


class _Interface(api.AnswerModel):
    """An interface of describe-network-interfaces."""

    network_interface_id: field_types.Id
    mac_address: field_types.Mac | None = None
    owner_id: field_types.Account | None = None
    vpc_id: field_types.Id | None = None
    attachment: Annotated[Mapping | None, FieldType(parse_mapping)] = None
    groups: _List = None
    private_ip_address: field_types.Member | None = None
    private_ip_addresses: _List = None
    ipv6_addresses: _List = None
    ipv4_prefixes: _List = None
    ipv6_prefixes: _List = None


_ADDRESSES = ("PrivateIpAddresses", "Ipv6Addresses", "Ipv4Prefixes", "Ipv6Prefixes")
"""Where private addresses and delegated prefixes stand; public ones are never compared (§5.2)."""


class _PrefixList(api.AnswerModel):
    """A prefix list; those that AWS manages include their entries."""

    prefix_list_id: field_types.Id
    address_family: Annotated[Family | None, one_of(FAMILIES)] = None
    cidrs: _List = None


class _PrefixEntries(api.AnswerModel):
    """An answer of get-managed-prefix-list-entries, which does not name the list."""

    prefix_list_id: field_types.Id | None = None
    entries: _List = None


def import_aws(files: Sequence[DocumentFile], limits: Limits) -> Imported:
    """Return the definitions in EC2 API answers.

    Raises:
        DocumentError: something can't be understood, or there is nothing to import.
    """
    return import_files(files, limits, _read_document)


def _read_document(root: Field, gathered: Gathered) -> None:
    """Add one answer, or each answer of a list."""
    for answer in root.items() if isinstance(root.node, Listing) else (root,):
        if answer.read(parse_mapping):
            _read_answer(answer, gathered)


def _read_answer(answer: Field, gathered: Gathered) -> None:
    """Add an answer; its fields determine its kind. One that announces another page is an error."""
    for name, read in _SHAPES.items():
        if name not in answer.entries:
            continue
        if is_set(answer.entries.get("NextToken", "")):
            remedy = "all of it: without --max-items or --no-paginate"
            answer.at("NextToken").error("missing_page", "the answer is only a part", remedy)
        read(answer, gathered)
        return
    answer.error(
        "unknown_answer",
        "an answer that is not read here",
        "describe-security-groups, describe-security-group-rules, describe-network-interfaces, "
        "describe-managed-prefix-lists, get-managed-prefix-list-entries or describe-prefix-lists",
    )


def _named(answer: Field, name: str, id_field: str) -> Iterator[Field]:
    """Yield the groups, rules or interfaces of an answer, with problems that name them by their ids."""
    for item in answer.at(name).items() if is_set(answer.entries[name]) else ():
        named = item.entries.get(id_field)
        yield item.belonging_to(named) if isinstance(named, str) and named else item


def _read_groups(answer: Field, gathered: Gathered) -> None:
    for place, model in read_each(_Group, _named(answer, "SecurityGroups", "GroupId")):
        tags = {tag.key: tag.value for _, tag in read_each(api.TagModel, items_of(place, "Tags"))}
        group = replace(
            AWS_GROUP,
            security_group_id=model.group_id,
            origin=place.origin,
            name=model.group_name,
            vpc_id=model.vpc_id,
            account_id=model.owner_id,
            tags=tuple(sorted(tags.items())),
        )
        if model.group_id:
            gathered.add_group(place, group)
        for name, way in (("IpPermissions", Direction.INGRESS), ("IpPermissionsEgress", Direction.EGRESS)):
            for permission, written in read_each(_Permission, items_of(place, name)):
                gathered.allowances += _allowances(permission, written, model.group_id or "", way, gathered)


def _allowances(
    place: Field, model: _Permission, security_group_id: str, direction: Direction, gathered: Gathered
) -> Iterator[aws_rules.AwsPermission]:
    """Yield one permission for each peer; add a note if there is none."""
    ports = {"FromPort": model.from_port, "ToPort": model.to_port}
    make = aws_rules.permission(place, security_group_id, direction, model.ip_protocol, **ports)
    if not any(is_set(place.entries.get(name, "")) for name in _PEERS):
        message = "a rule without a peer"
        gathered.notes.add(aws_rules.ImportEffect.LEFT_OUT, place.origin, security_group_id, message)
    peers = (read_each(kind, items_of(place, name)) for name, kind in _PEERS.items())
    for item, end in chain.from_iterable(peers):
        peer = _of_account(end.peer, end.user_id)
        if make is not None and peer is not None:
            item.count_rule()
            yield make(origin=item.origin, peer=peer, peer_vpc_id=end.vpc_id, description=end.description)


def _of_account(peer: AuthorizationObject, account_id: str | None) -> AuthorizationObject:
    """Return a peer; a group as one of an account."""
    return GroupReference(peer.security_group_id, account_id) if isinstance(peer, GroupReference) else peer


def _read_rules(answer: Field, gathered: Gathered) -> None:
    """Add rules one by one; only this call returns their ids."""
    for place in _named(answer, "SecurityGroupRules", "SecurityGroupRuleId"):
        allowance = _allowance(place)
        if allowance is None:
            continue
        key = allowance.security_group_id
        numbered = gathered.numbered.setdefault(key, NumberedRules(answer))
        numbered.allowances.append(allowance)
        if numbered.answer is not answer:
            message = f"the rules of {key} are in {numbered.answer.origin} too"
            place.error("second_answer", message, "one answer with all of its rules")


def _allowance(place: Field) -> aws_rules.AwsPermission | None:
    place.count_rule()
    model = read_model(_Rule, place)
    if model is None:
        return None
    ports = {"FromPort": model.from_port, "ToPort": model.to_port}
    direction = Direction.EGRESS if model.is_egress else Direction.INGRESS
    make = aws_rules.permission(place, model.group_id, direction, model.ip_protocol, **ports)
    peer, vpc_id = _only_peer(place, model)
    if not model.group_id or make is None or peer is None or model.is_egress is None:
        return None
    rule_id, description = model.security_group_rule_id, model.description
    return make(origin=place.origin, peer=peer, peer_vpc_id=vpc_id, rule_id=rule_id, description=description)


def _only_peer(place: Field, model: _Rule) -> tuple[AuthorizationObject | None, str | None]:
    """Return the one peer of a rule, with the VPC of a group if the answer has it."""
    info = model.referenced_group_info and read_model(_GroupPair, place.at("ReferencedGroupInfo"))
    if info:
        return _of_account(info.peer, info.user_id), info.vpc_id
    ends = ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupInfo")
    if not any(is_set(place.entries.get(name, "")) for name in ends):
        place.refuse_missing(ends[0], f"one of {', '.join(ends[:-1])} or {ends[-1]}")
    return model.cidr_ipv4 or model.cidr_ipv6 or model.prefix_list_id, None


def _read_interfaces(answer: Field, gathered: Gathered) -> None:
    for place, model in read_each(_Interface, _named(answer, "NetworkInterfaces", "NetworkInterfaceId")):
        items = (items_of(place, name) for name in _ADDRESSES)
        attached = model.attachment and read_model(_Attachment, place.at("Attachment"))
        groups = {group.group_id for _, group in read_each(_AttachedGroup, items_of(place, "Groups"))}
        interface = NetworkInterface(
            network_interface_id=model.network_interface_id,
            mac_address=model.mac_address,
            addresses=api.read_addresses(model.private_ip_address, chain.from_iterable(items)),
            security_group_ids=tuple(sorted(filter(None, groups))),
            account_id=model.owner_id,
            vpc_id=model.vpc_id,
            instance_id=attached.instance_id if attached else None,
            origin=place.origin,
        )
        if model.network_interface_id:
            gathered.add_interface(place, interface, Cloud.AWS)


def _read_prefix_lists(answer: Field, gathered: Gathered) -> None:
    for place, model in read_each(_PrefixList, _named(answer, "PrefixLists", "PrefixListId")):
        if model.prefix_list_id:
            draft = gathered.prefix_list(model.prefix_list_id, place)
            draft.family = model.address_family or draft.family
            if model.cidrs:
                blocks = (item.attempt(parse_block) for item in place.at("Cidrs").items())
                draft.deliver(place, filter(None, blocks))


def _read_prefix_entries(answer: Field, gathered: Gathered) -> None:
    """Add the entries of a prefix list; the answer lacks the list's id, so the file name has it."""
    model = read_model(_PrefixEntries, answer)
    prefix_list_id = (model and model.prefix_list_id) or answer.id_in_file_name("pl-")
    if prefix_list_id is None:
        answer.refuse_missing("PrefixListId", "add the id, or name the file after it, like pl-1.json")
        return
    entries = (entry.cidr for _, entry in read_each(api.DeliveredPrefixModel, items_of(answer, "Entries")))
    gathered.prefix_list(prefix_list_id, answer).deliver(answer, filter(None, entries))


_SHAPES: dict[str, Callable[[Field, Gathered], None]] = {
    "SecurityGroups": _read_groups,
    "SecurityGroupRules": _read_rules,
    "NetworkInterfaces": _read_interfaces,
    "PrefixLists": _read_prefix_lists,
    "Entries": _read_prefix_entries,
}
"""The field that identifies each kind of answer, with what reads it."""
