"""Read network interfaces out of Terraform states, whatever a provider calls their fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.model import NetworkInterface
from sgagent.documents.field import Field, Fields
from sgagent.documents.scalars import parse_id, parse_mac
from sgagent.documents.tree import Listing
from sgagent.imports.awsvalues import entries, read_id, read_member, read_text
from sgagent.imports.gathered import Cloud, Gathered


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceForm:
    """Where a resource says what an interface is."""

    cloud: Cloud
    ids: tuple[str, ...]
    addresses: tuple[str, ...]
    """The primary one first; each field holds one or a list."""

    groups: tuple[str, ...]
    """Older versions of a provider called the field otherwise; the first that is filled counts."""

    mac: str = ""
    instance: str = ""
    vpc: str = ""


def read_interface(values: Fields, gathered: Gathered, form: InterfaceForm) -> None:
    """Take an interface; an instance that does not say which one it has tells of none."""
    network_interface_id = read_id(values, *form.ids)
    if network_interface_id is None:
        return
    mac = values.filled(form.mac)
    groups = next((name for name in form.groups if values.filled(name)), form.groups[0])
    attached = [parse_id(field) for field in entries(values, groups)]
    blocks = [read_member(field) for field in _address_fields(values, form)]
    interface = NetworkInterface(
        network_interface_id=network_interface_id,
        mac_address=parse_mac(mac) if mac else None,
        addresses=tuple(dict.fromkeys(block for block in blocks if block)),
        security_group_ids=tuple(sorted({group for group in attached if group})),
        vpc_id=read_id(values, form.vpc),
        instance_id=read_id(values, form.instance),
        origin=values.field.origin,
    )
    gathered.add_interface(values.field, interface, form.cloud)


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
