"""Reader of network interfaces in Terraform states, with the field names of each provider."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.model import Cloud, NetworkInterface
from sgagent.documents.field import Field, Fields
from sgagent.documents.tree import Listing
from sgagent.documents.values import parse_id, parse_mac
from sgagent.importers.aws_values import entries, read_id, read_member, read_text
from sgagent.importers.context import Gathered, LostMember


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceForm:
    """The field names of a resource type that describe an interface."""

    cloud: Cloud
    ids: tuple[str, ...]
    addresses: tuple[str, ...]
    """The primary one first; each field holds one or a list."""

    groups: tuple[str, ...]
    """Several names, because older versions of a provider use another one."""

    mac: str = ""
    instance: str = ""
    vpc: str = ""
    secondary: tuple[str, ...] = ()
    """Lists of further interfaces, for which an instance has only ids and groups."""


def read_interface(values: Fields, gathered: Gathered, form: InterfaceForm) -> None:
    """Add an interface; one without an id is lost to its groups."""
    groups = _ids(values, form.groups)
    for name in form.secondary:
        for item in entries(values, name):
            fields = item.fields()
            if fields is not None:
                read_mention(fields, gathered, "its secondary interface")
    if not any(values.filled(name) for name in form.ids):
        gathered.lost.append(LostMember(values.field, f"{form.ids[0]} is missing", groups))
        return
    network_interface_id = read_id(values, *form.ids)
    if network_interface_id is None:
        return
    mac = values.filled(form.mac)
    blocks = [read_member(field) for field in _address_fields(values, form)]
    interface = NetworkInterface(
        network_interface_id=network_interface_id,
        mac_address=mac.read(parse_mac) if mac else None,
        addresses=tuple(dict.fromkeys(block for block in blocks if block)),
        security_group_ids=tuple(sorted(groups or ())),
        vpc_id=read_id(values, form.vpc),
        instance_id=read_id(values, form.instance),
        origin=values.field.origin,
    )
    gathered.add_interface(values.field, interface, form.cloud, is_partial=True)


def read_mention(values: Fields, gathered: Gathered, what: str = "the interface") -> None:
    """Add an interface that a resource only references; it is lost unless another resource defines it."""
    network_interface_id = read_id(values, "network_interface_id")
    reason = f"{what} {network_interface_id or 'without id'} is no resource in what was read"
    groups = _ids(values, ("security_group_ids", "security_groups"))
    gathered.lost.append(LostMember(values.field, reason, groups, network_interface_id))


def _ids(values: Fields, names: tuple[str, ...]) -> frozenset[str] | None:
    """Return the ids in these lists; None if there are none, so that they are unknown."""
    found = frozenset(
        key for name in names for field in entries(values, name) if (key := field.read(parse_id))
    )
    return found or None


def _address_fields(values: Fields, form: InterfaceForm) -> Iterator[Field]:
    for name in form.addresses:
        found = values.filled(name)
        if found is None:
            continue
        if isinstance(found.node, Listing):
            yield from found.items()
        else:
            yield found


def read_tags(values: Fields, *names: str) -> tuple[tuple[str, str], ...]:
    """Return the tags of the first of these fields that is there, sorted."""
    found = next((field for name in names if (field := values.filled(name))), None)
    tags = found.fields() if found else None
    if tags is None:
        return ()
    return tuple(sorted((name, read_text(tags, name)) for name in tags.names()))
