"""Reader of API answers about network interfaces, prefix lists and port lists."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sgagent.core.model import CidrBlock, NetworkInterface
from sgagent.documents.api_fields import note_page, optional_id, owner, refuse_part, required_id, wrapped
from sgagent.documents.assembly import Collected
from sgagent.documents.field import Field, Fields
from sgagent.documents.rule_form import make_port_list, make_prefix_list
from sgagent.documents.values import FAMILIES, HostBits, parse_block, parse_id, parse_mac

_ADDRESSES = (
    ("PrivateIpSets", "PrivateIpSet", "PrivateIpAddress"),
    ("Ipv6Sets", "Ipv6Set", "Ipv6Address"),
    ("Ipv4PrefixSets", "Ipv4PrefixSet", "Ipv4Prefix"),
    ("Ipv6PrefixSets", "Ipv6PrefixSet", "Ipv6Prefix"),
)
"""Paths of private addresses and delegated prefixes; public addresses never match (§5.2)."""

_TIMEOUTS = ("TcpEstablishedTimeout", "TcpClosedAndTimeWaitTimeout", "UdpTimeout")


def read_interfaces(answer: Fields, collected: Collected) -> None:
    """Collect the interfaces of an answer."""
    note_page(answer, collected, "DescribeNetworkInterfaces")
    for field in wrapped(answer, "NetworkInterfaceSets", "NetworkInterfaceSet"):
        interface = _interface(field)
        if interface is not None:
            collected.delivered_interfaces.append(interface)


def _interface(field: Field) -> NetworkInterface | None:
    """Return an interface (§1.3)."""
    fields = field.fields()
    if fields is None:
        return None
    _warn_of_timeouts(fields)
    network_interface_id = required_id(fields, "NetworkInterfaceId")
    mac = fields.filled("MacAddress")
    attachment = fields.get("SecurityGroupIds")
    attached = [parse_id(item) for item in wrapped(fields, "SecurityGroupIds", "SecurityGroupId")]
    interface = NetworkInterface(
        network_interface_id=network_interface_id or "",
        mac_address=mac and parse_mac(mac),
        addresses=tuple(dict.fromkeys(_addresses(fields))),
        security_group_ids=tuple(sorted({group for group in attached if group})),
        account_id=owner(fields),
        vpc_id=optional_id(fields, "VpcId"),
        instance_id=optional_id(fields, "InstanceId"),
        origin=field.origin,
        attachment_origin=attachment.origin if attachment else field.origin,
    )
    return interface if network_interface_id else None


def _addresses(fields: Fields) -> Iterator[CidrBlock]:
    """Yield the private addresses, the primary one first."""
    for field in _address_fields(fields):
        block = parse_block(field, HostBits.REFUSED_IN_MEMBERS)
        if block is not None:
            yield block


def _address_fields(fields: Fields) -> Iterator[Field]:
    """Yield the fields with private addresses."""
    primary = fields.filled("PrivateIpAddress")
    if primary is not None:
        yield primary
    for outer, inner, name in _ADDRESSES:
        for item in wrapped(fields, outer, inner):
            within = item.fields()
            address = within.filled(name) if within else None
            if address is not None:
                yield address


def _warn_of_timeouts(fields: Fields) -> None:
    """Add the warning that the agent does not enforce idle timeouts (§6.7)."""
    place = fields.filled("ConnectionTrackingConfiguration")
    timeouts = place.fields() if place else None
    found = [name for name in _TIMEOUTS if timeouts and timeouts.filled(name)]
    if place is not None and found:
        place.warn(
            "idle_timeouts",
            f"{', '.join(found)}: read, but not enforced",
            "rely on the kernel's own timeouts",
        )


_ID_IN_NAME = re.compile(r"prl-[A-Za-z0-9]+")


def read_prefix_list(answer: Fields, collected: Collected) -> None:
    """Collect the prefix list of an answer."""
    refuse_part(answer)
    family = answer.filled("AddressFamily")
    if family is None:
        answer.refuse_missing("AddressFamily", "IPv4 or IPv6")
    prefix_list_id = required_id(answer, "PrefixListId")
    entries = list(_values(wrapped(answer, "Entries", "Entry"), "Cidr"))
    made = make_prefix_list(answer.field, prefix_list_id, family and family.word(FAMILIES), entries)
    collected.add_prefix_list(made)


def read_port_list(answer: Fields, collected: Collected) -> None:
    """Collect the port list of an answer.

    The API does not return the id of the list. The id comes from a ``PortRangeListId`` that the user adds, or
    from the name of a file that holds only this answer.
    """
    refuse_part(answer)
    port_list_id = optional_id(answer, "PortRangeListId") or _id_in_file_name(answer.field)
    if port_list_id is None:
        answer.refuse_missing("PortRangeListId", "add the id, or name the file after it, like prl-1.json")
    entries = answer.filled("Entries")
    values = list(_values(entries.items(), "PortRange")) if entries else []
    collected.add_port_list(make_port_list(answer.field, port_list_id, values))


def _values(items: Iterator[Field], name: str) -> Iterator[Field | None]:
    """Yield the named field of each entry."""
    for item in items:
        fields = item.fields()
        yield fields.require(name) if fields else None


def _id_in_file_name(answer: Field) -> str | None:
    """Return the id in the file's name; None unless the answer is the whole document."""
    if answer.path:
        return None
    match = _ID_IN_NAME.search(answer.reading.file.rpartition("/")[2])
    return match.group(0) if match else None
