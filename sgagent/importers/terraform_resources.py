"""Readers of Terraform resources: interfaces of both clouds, and Alibaba Cloud's groups, rules and lists.

The latter's fields have native equivalents. An unreadable one refuses the import, because leaving out a drop
rule would admit more traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping as MappingOf
from functools import partial
from itertools import chain
from typing import Annotated

from sgagent.core.model import (
    ALL_PORTS,
    CidrBlock,
    Cloud,
    Direction,
    Family,
    GroupType,
    NetworkInterface,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.documents import api, field_types, values
from sgagent.documents.field import Field
from sgagent.documents.models import (
    FieldType,
    LooseModel,
    PlacedValue,
    declare,
    items_of,
    one_of,
    read_each,
    read_model,
)
from sgagent.documents.rules import RuleEnds, make_rule
from sgagent.documents.scalars import parse_boolean, parse_digits, parse_each, parse_list, parse_mapping
from sgagent.documents.tree import Listing, Node, is_set
from sgagent.importers.aws_rules import ImportEffect
from sgagent.importers.context import Gathered, LostMember

ResourceReader = Callable[[Field, Gathered], None]


def _parse_ids(node: Node) -> frozenset[str]:
    return frozenset(parse_each(enumerate(parse_list(node).items), values.parse_id))


def _parse_addresses(place: Field) -> tuple[CidrBlock, ...]:
    """Return the addresses of a field that holds one or a list."""
    items = place.items() if isinstance(place.node, Listing) else (place,)
    return tuple(filter(None, (item.attempt(values.parse_member) for item in items)))


def _parse_tags(node: Node) -> tuple[tuple[str, str], ...]:
    entries = {name: tag if is_set(tag) else "" for name, tag in parse_mapping(node).entries.items()}
    return tuple(sorted(zip(entries, parse_each(entries.items(), parse_digits), strict=True)))


Items = Annotated[Listing | None, FieldType(parse_list)]
Tags = Annotated[tuple[tuple[str, str], ...] | None, FieldType(_parse_tags)]
_ADDRESS = PlacedValue(_parse_addresses)
_Addresses = Annotated[tuple[CidrBlock, ...], _ADDRESS]
_Ids = Annotated[frozenset[str], FieldType(_parse_ids)]


class _Mention(LooseModel):
    """A resource that refers to an interface."""

    network_interface_id: field_types.Id | None = None
    security_group_ids: _Ids = frozenset()
    security_groups: _Ids = frozenset()
    """Older versions of a provider use this name."""


class _Interface(_Mention):
    """A resource that is an interface; each type has some of the fields."""

    network_interface_id: field_types.Id | None = declare(None, name="id")
    mac_address: field_types.Mac | None = None
    primary_ip_address: _Addresses = ()
    private_ip: _Addresses = ()
    private_ip_addresses: _Addresses = ()
    private_ips: _Addresses = ()
    secondary_private_ips: _Addresses = ()
    ipv6_addresses: _Addresses = ()
    ipv4_prefixes: _Addresses = ()
    ipv6_prefixes: _Addresses = ()


_ADDRESSES = tuple(one.attribute for one in _Interface.fields().values() if one.value is _ADDRESS)
"""The fields that hold addresses, the primary one's first."""


class _AlibabaInterface(_Interface):
    mac_address: field_types.Mac | None = declare(None, name="mac")


class _Instance(_Interface):
    """A machine with its primary interface, and ids and groups of further ones."""

    instance_id: field_types.Id | None = declare(None, name="id")
    vpc_id: field_types.Id | None = None
    network_interface: Items = None
    network_interfaces: Items = None
    secondary_network_interface: Items = None


_SECONDARY = ("network_interface", "network_interfaces", "secondary_network_interface")


class _AwsInstance(_Instance):
    network_interface_id: field_types.Id | None = declare(None, name="primary_network_interface_id")
    security_groups: _Ids = declare(frozenset(), name="vpc_security_group_ids")


class _AlibabaInstance(_Instance):
    network_interface_id: field_types.Id | None = None


def _read_interface(place: Field, gathered: Gathered, declared: type[_Interface], cloud: Cloud) -> None:
    """Add an interface; one without an id is lost to its groups."""
    model = read_model(declared, place)
    if model is None:
        return
    groups = model.security_group_ids | model.security_groups
    instance = model if isinstance(model, _Instance) else None
    for name in _SECONDARY if instance else ():
        for item, mention in read_each(_Mention, items_of(place, name)):
            _add_mention(item, mention, gathered, "its secondary interface")
    if model.network_interface_id is None:
        id_field = declared.names()["network_interface_id"]
        if not is_set(place.entries.get(id_field, "")):
            gathered.lost.append(LostMember(place, f"{id_field} is missing", groups or None))
        return
    addresses = chain.from_iterable(getattr(model, name) for name in _ADDRESSES)
    interface = NetworkInterface(
        network_interface_id=model.network_interface_id,
        mac_address=model.mac_address,
        addresses=tuple(dict.fromkeys(addresses)),
        security_group_ids=tuple(sorted(groups)),
        vpc_id=instance.vpc_id if instance else None,
        instance_id=instance.instance_id if instance else None,
        origin=place.origin,
    )
    gathered.add_interface(place, interface, cloud, is_partial=True)


def _add_mention(place: Field, model: _Mention, gathered: Gathered, what: str = "the interface") -> None:
    """Add an interface that a resource only references; it is lost unless another resource defines it."""
    reason = f"{what} {model.network_interface_id or 'without id'} is no resource in what was read"
    groups = model.security_group_ids | model.security_groups
    gathered.lost.append(LostMember(place, reason, groups or None, model.network_interface_id))


def _read_mention(place: Field, gathered: Gathered) -> None:
    model = read_model(_Mention, place)
    if model is not None:
        _add_mention(place, model, gathered)


class _Attachment(LooseModel):
    network_interface_id: field_types.Id
    security_group_id: field_types.Id


def _read_attachment(place: Field, gathered: Gathered) -> None:
    """Add an attachment of a group to an interface that is a separate resource."""
    model = read_model(_Attachment, place)
    if model and model.network_interface_id and model.security_group_id:
        gathered.attachments.append((place, model.network_interface_id, model.security_group_id))


_alibaba_interface = partial(_read_interface, declared=_AlibabaInterface, cloud=Cloud.ALIBABA)

INTERFACE_RESOURCES: MappingOf[str, ResourceReader] = {
    "aws_network_interface": partial(_read_interface, declared=_Interface, cloud=Cloud.AWS),
    "aws_instance": partial(_read_interface, declared=_AwsInstance, cloud=Cloud.AWS),
    "aws_network_interface_attachment": _read_mention,
    "aws_network_interface_sg_attachment": _read_attachment,
    "alicloud_ecs_network_interface": _alibaba_interface,
    "alicloud_network_interface": _alibaba_interface,
    "alicloud_ecs_network_interface_attachment": _read_mention,
    "alicloud_network_interface_attachment": _read_mention,
    "alicloud_instance": partial(_read_interface, declared=_AlibabaInstance, cloud=Cloud.ALIBABA),
}


class _Group(LooseModel):
    id: field_types.Id
    security_group_type: Annotated[GroupType | None, one_of(values.GROUP_TYPES)] = None
    inner_access_policy: field_types.PolicyWord | None = None
    inner_access: Annotated[bool | None, FieldType(parse_boolean)] = None
    """What older versions of the provider have in place of the policy."""

    vpc_id: field_types.Id | None = None
    security_group_name: field_types.Text = ""
    name: field_types.Text = ""
    tags: Tags = None


_LEAST_URGENT = 100


class _Rule(api.PermissionModel):
    """A rule; its peer has the same names on ingress and on egress."""

    security_group_id: field_types.Id
    direction: Annotated[Direction, one_of(values.DIRECTIONS)] = declare(name="type")
    priority: Annotated[int, FieldType(values.parse_priority)] = _LEAST_URGENT
    peer_cidr_ip: field_types.Block | None = declare(None, name="cidr_ip")
    ipv6_peer_cidr_ip: field_types.Block | None = declare(None, name="ipv6_cidr_ip")
    peer_group_id: field_types.Id | None = declare(None, name="source_security_group_id")
    peer_group_owner_account: field_types.Account | None = declare(None, name="source_group_owner_account")
    peer_prefix_list_id: field_types.Id | None = declare(None, name="prefix_list_id")

    @classmethod
    def name_of(cls, attribute: str) -> str:
        """Return the provider's name of a field, which is the API's."""
        return api.API_NAMES.get(attribute, attribute)


class PrefixEntry(LooseModel):
    """An entry of a prefix list."""

    cidr: Annotated[CidrBlock | None, PlacedValue(values.parse_block)]


class _PrefixList(LooseModel):
    id: field_types.Id
    address_family: Annotated[Family | None, one_of(values.FAMILIES)] = None
    entry: Annotated[Listing, FieldType(parse_list, remedy="the entries of the list, [] if it has none")]


def _read_group(place: Field, gathered: Gathered) -> None:
    model = read_model(_Group, place)
    if model is None or not model.id:
        return
    if not is_set(place.entries.get("security_group_type", "")):
        message = f"its type is missing; it is read as {values.UNKNOWN_GROUP_TYPE.value}, which admits least"
        _note_narrowed(place, gathered, message)
    group_type = model.security_group_type or values.UNKNOWN_GROUP_TYPE
    inner = model.inner_access_policy
    if inner is None and model.inner_access is not None:
        inner = Policy.ACCEPT if model.inner_access else Policy.DROP
    if inner is None and group_type is GroupType.BASIC:
        _note_narrowed(place, gathered, "its inner access policy is missing; it is read as drop")
    group = SecurityGroup(
        security_group_id=model.id,
        group_type=group_type,
        inner_access_policy=inner or Policy.DROP,
        vpc_id=model.vpc_id,
        name=model.security_group_name or model.name,
        tags=model.tags or (),
        origin=place.origin,
    )
    gathered.add_group(place, group)


def _note_narrowed(place: Field, gathered: Gathered, message: str) -> None:
    """Add the note that the import reads a resource with the narrowest meaning."""
    gathered.notes.add(ImportEffect.NARROWED, place.origin, place.reading.subject, message)


def _read_rule(place: Field, gathered: Gathered) -> None:
    place.count_rule()
    model = read_model(_Rule, place)
    rule = _rule(place, model, gathered) if model else None
    if model and rule and model.security_group_id:
        gathered.rules.append((model.security_group_id, rule))


def _rule(place: Field, model: _Rule, gathered: Gathered) -> SecurityGroupRule | None:
    """Return a rule; None, with errors added, if it is invalid. A priority that is missing admits least."""
    api.note_nic_type(place, model)
    ends = RuleEnds(api.rule_peer(place, model))
    if "priority" not in model.given and model.policy is Policy.DROP:
        model.priority = 1
    if "priority" not in model.given and model.policy is Policy.ACCEPT:
        _note_narrowed(place, gathered, f"its priority is missing; it is read as {_LEAST_URGENT}")
    if "port_list_id" in model.given and model.port_range == ALL_PORTS:
        model.given.discard("port_range")  # the provider writes -1/-1 where a port list is meant
    return make_rule(place, model, ends, description=model.description)


def _read_prefix_list(place: Field, gathered: Gathered) -> None:
    model = read_model(_PrefixList, place)
    if model is None or not model.id:
        return
    draft = gathered.defined_prefix_list(model.id, place)
    draft.family = model.address_family or Family.IPV4
    for item, entry in read_each(PrefixEntry, items_of(place, "entry")):
        if entry.cidr and entry.cidr.family is not draft.family:
            message = "an entry of another family than the list"
            item.at("cidr").error("mixed_families", message, "the list's own family")
        elif entry.cidr:
            draft.entries.append(entry.cidr)


ALIBABA_RESOURCES: MappingOf[str, ResourceReader] = {
    "alicloud_security_group": _read_group,
    "alicloud_security_group_rule": _read_rule,
    "alicloud_ecs_prefix_list": _read_prefix_list,
}
