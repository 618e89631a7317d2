"""Terraform resources that are, have or name network interfaces, of both clouds."""

from __future__ import annotations

from collections.abc import Callable, Mapping as MappingOf
from functools import partial
from itertools import chain
from typing import Annotated

from pydantic import Field as Declared

from sgagent.core.model import CidrBlock, Cloud, NetworkInterface
from sgagent.documents.api import Id, Mac
from sgagent.documents.field import Field
from sgagent.documents.models import LooseModel, Value, items_of, located, read_each, read_model
from sgagent.documents.scalars import parse_digits, parse_each, parse_list, parse_mapping
from sgagent.documents.tree import Listing, Node, is_set
from sgagent.documents.values import HostBits, parse_block, parse_id
from sgagent.importers.context import Gathered, LostMember

ResourceReader = Callable[[Field, Gathered], None]


def _parse_ids(node: Node) -> frozenset[str]:
    return frozenset(parse_each(enumerate(parse_list(node).items), parse_id))


def _parse_addresses(place: Field) -> tuple[CidrBlock, ...]:
    """Return the addresses of a field that holds one or a list."""
    items = place.items() if isinstance(place.node, Listing) else (place,)
    return tuple(filter(None, (item.attempt(parse_block, HostBits.REFUSED_IN_MEMBERS) for item in items)))


def _parse_tags(node: Node) -> tuple[tuple[str, str], ...]:
    entries = {name: tag if is_set(tag) else "" for name, tag in parse_mapping(node).entries.items()}
    return tuple(sorted(zip(entries, parse_each(entries.items(), parse_digits), strict=True)))


Items = Annotated[Listing | None, Value(parse_list)]
Tags = Annotated[tuple[tuple[str, str], ...] | None, Value(_parse_tags)]
_Addresses = Annotated[tuple[CidrBlock, ...], Value(located(_parse_addresses))]
_Ids = Annotated[frozenset[str], Value(_parse_ids)]


class _Mention(LooseModel):
    """A resource that refers to an interface."""

    network_interface_id: Id | None = None
    security_group_ids: _Ids = frozenset()
    security_groups: _Ids = frozenset()
    """Older versions of a provider use this name."""


class _Interface(_Mention):
    """A resource that is an interface; each type has some of the fields."""

    network_interface_id: Id | None = Declared(None, alias="id")
    mac_address: Mac | None = None
    primary_ip_address: _Addresses = ()
    private_ip: _Addresses = ()
    private_ip_addresses: _Addresses = ()
    private_ips: _Addresses = ()
    secondary_private_ips: _Addresses = ()
    ipv6_addresses: _Addresses = ()
    ipv4_prefixes: _Addresses = ()
    ipv6_prefixes: _Addresses = ()


class _AlibabaInterface(_Interface):
    mac_address: Mac | None = Declared(None, alias="mac")


class _Instance(_Interface):
    """A machine with its primary interface, and ids and groups of further ones."""

    instance_id: Id | None = Declared(None, alias="id")
    vpc_id: Id | None = None
    network_interface: Items = None
    network_interfaces: Items = None
    secondary_network_interface: Items = None


_SECONDARY = ("network_interface", "network_interfaces", "secondary_network_interface")


class _AwsInstance(_Instance):
    network_interface_id: Id | None = Declared(None, alias="primary_network_interface_id")
    security_groups: _Ids = Declared(frozenset(), alias="vpc_security_group_ids")


class _AlibabaInstance(_Instance):
    network_interface_id: Id | None = None


def _read_interface(place: Field, gathered: Gathered, declared: type[_Interface], cloud: Cloud) -> None:
    """Add an interface; one without an id is lost to its groups."""
    model = read_model(declared, place)
    if model is None:
        return
    groups = model.security_group_ids | model.security_groups
    instance = model if isinstance(model, _Instance) else None
    for name in (
        ("network_interface", "network_interfaces", "secondary_network_interface") if instance else ()
    ):
        for item, mention in read_each(_Mention, items_of(place, name)):
            _add_mention(item, mention, gathered, "its secondary interface")
    if model.network_interface_id is None:
        id_field = declared.names()["network_interface_id"]
        if not is_set(place.entries.get(id_field, "")):
            gathered.lost.append(LostMember(place, f"{id_field} is missing", groups or None))
        return
    addresses = chain(
        model.primary_ip_address,
        model.private_ip,
        model.private_ip_addresses,
        model.private_ips,
        model.secondary_private_ips,
        model.ipv6_addresses,
        model.ipv4_prefixes,
        model.ipv6_prefixes,
    )
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
    network_interface_id: Id
    security_group_id: Id


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
