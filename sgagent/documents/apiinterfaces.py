"""Read the answers of DescribeNetworkInterfaces."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.core.model import CidrBlock, NetworkInterface
from sgagent.documents.addresses import HostBits, parse_block
from sgagent.documents.apifields import note_page, optional_id, owner, required_id, wrapped
from sgagent.documents.collected import Collected
from sgagent.documents.field import Field, Fields
from sgagent.documents.scalars import parse_id, parse_mac

_ADDRESSES = (
    ("PrivateIpSets", "PrivateIpSet", "PrivateIpAddress"),
    ("Ipv6Sets", "Ipv6Set", "Ipv6Address"),
    ("Ipv4PrefixSets", "Ipv4PrefixSet", "Ipv4Prefix"),
    ("Ipv6PrefixSets", "Ipv6PrefixSet", "Ipv6Prefix"),
)
"""Where private addresses and delegated prefixes stand; public ones never match (§5.2)."""

_TIMEOUTS = ("TcpEstablishedTimeout", "TcpClosedAndTimeWaitTimeout", "UdpTimeout")


def read_interfaces(answer: Fields, collected: Collected) -> None:
    """Take the interfaces of an answer."""
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
    """Go through the private addresses, the primary one first."""
    for field in _address_fields(fields):
        block = parse_block(field, HostBits.REFUSED_IN_MEMBERS)
        if block is not None:
            yield block


def _address_fields(fields: Fields) -> Iterator[Field]:
    """Go through the fields that hold private addresses."""
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
    """Note that idle timeouts of the interface are not enforced (§6.7)."""
    place = fields.filled("ConnectionTrackingConfiguration")
    timeouts = place.fields() if place else None
    found = [name for name in _TIMEOUTS if timeouts and timeouts.filled(name)]
    if place is not None and found:
        place.warn(
            "idle_timeouts",
            f"{', '.join(found)}: read, but not enforced",
            "rely on the kernel's own timeouts",
        )
