"""Parsers of single values and of network interfaces, in the syntax of AWS and Terraform."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.model import (
    ALL_PROTOCOLS,
    LAST_PORT,
    TCP,
    UDP,
    CidrBlock,
    Cloud,
    GroupReference,
    NetworkInterface,
    Protocol,
)
from sgagent.documents.field import Field, Fields
from sgagent.documents.scalars import parse_text
from sgagent.documents.tree import Listing, Node
from sgagent.documents.values import (
    HostBits,
    parse_account,
    parse_block,
    parse_id,
    parse_mac,
    parse_protocol,
)
from sgagent.importers.aws_rules import Bounds
from sgagent.importers.context import Gathered, LostMember

_PROTOCOLS = {"-1": ALL_PROTOCOLS, "ah": Protocol(51), "esp": Protocol(50)}
"""Protocol names of AWS and Terraform that differ from those of documents."""


def entries(fields: Fields, name: str) -> Iterator[Field]:
    """Yield the items of a list; a missing list and null are empty."""
    found = fields.filled(name)
    if found is not None:
        yield from found.items()


def read_text(fields: Fields, *names: str) -> str:
    """Return the first text that is set; empty if none is."""
    for name in names:
        found = fields.filled(name)
        if found is not None:
            return found.text_or_digits() or ""
    return ""


def read_id(fields: Fields, *names: str) -> str | None:
    """Return the first of these ids that is in use."""
    found = next((field for name in names if (field := fields.filled(name))), None)
    return found.read(parse_id) if found else None


def require_id(fields: Fields, *names: str) -> str | None:
    """Return the first id that is set; None, with an error added, if none is."""
    if not any(fields.filled(name) for name in names):
        fields.refuse_missing(names[0])
    return read_id(fields, *names)


def read_bounds(fields: Fields, protocol: Protocol, first: str, last: str) -> Bounds | None:
    """Return ports, or the type and code of ICMP; None, with errors added, if AWS would refuse them.

    Args:
        fields: of the rule.
        protocol: of the rule. Where it has neither ports nor types AWS ignores both fields.
        first: the field with the first port or the type.
        last: the field with the last port or the code.
    """
    if protocol.has_types:
        kind, code = (_bounded(fields, name, -1, 255, _TYPES) for name in (first, last))
        return (
            None if kind is None or code is None else Bounds(*(n if n >= 0 else None for n in (kind, code)))
        )
    if protocol not in (TCP, UDP):
        written = [field for name in (first, last) if (field := fields.filled(name))]
        return Bounds() if None not in [field.integer() for field in written] else None
    low, high = (_bounded(fields, name, 0, LAST_PORT, _PORTS) for name in (first, last))
    if low is None or high is None:
        return None
    if low > high:
        field = fields.get(first) or fields.field
        field.error("reversed_ports", f"{first} is greater than {last} ({high})", f"{first} up to {last}")
        return None
    return Bounds(low, high)


_PORTS = f"a whole number from 0 to {LAST_PORT}; every port is 0 and {LAST_PORT}"
_TYPES = "a whole number from 0 to 255; -1 is every one"


def _bounded(fields: Fields, name: str, least: int, most: int, form: str) -> int | None:
    """Return a required number within bounds; None, with an error added, for any other value."""
    field = fields.filled(name)
    if field is None:
        fields.refuse_missing(name, form)
        return None
    number = field.integer()
    if number is not None and not least <= number <= most:
        field.error("port_out_of_range", "out of range", form)
        return None
    return number


def read_protocol(field: Field) -> Protocol | None:
    """Return a protocol."""
    text = field.text_or_digits()
    if text is None:
        return None
    return _PROTOCOLS.get(text.lower()) or field.read(parse_protocol)


def read_block(field: Field) -> CidrBlock | None:
    """Return the CIDR of a rule; bits behind the prefix are cleared, as AWS clears them."""
    return field.attempt(parse_block)


def read_member(field: Field) -> CidrBlock | None:
    """Return an address of an interface, or a prefix that is delegated to it."""
    return field.attempt(parse_block, HostBits.REFUSED_IN_MEMBERS)


def read_group_reference(field: Field) -> GroupReference | None:
    """Return a group, written ``sg-…`` or ``account/sg-…``."""
    return field.read(_parse_group_reference)


def _parse_group_reference(node: Node) -> GroupReference:
    account, slash, group = parse_text(node).rpartition("/")
    return GroupReference(parse_id(group), parse_account(account) if slash else None)


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
