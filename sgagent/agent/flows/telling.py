"""Turn what the kernel tells of a packet into a flow: who, where to, by which rule, and by which names."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket

from sgagent.agent.flows.directory import NAMELESS, Directory, Name
from sgagent.agent.flows.flow import Flow, FlowEnd
from sgagent.agent.flows.heads import Head
from sgagent.agent.flows.leaves import Leaf
from sgagent.core.host import link_name
from sgagent.core.kernel.names import OTHER_INTERFACES
from sgagent.core.model import Direction, Family, Protocol
from sgagent.dataplane.nflog import LoggedPacket


def tell(
    packet: LoggedPacket, head: Head, leaf: Leaf, directory: Directory, *, number: int, seen_at: float
) -> Flow:
    """Return the flow that a packet belongs to.

    Args:
        packet: as the kernel told of it.
        head: what its bytes say.
        leaf: where it was judged.
        directory: names addresses.
        number: of the flow.
        seen_at: when the agent heard of it.
    """
    is_reply = packet.is_leaving is (leaf.direction is Direction.INGRESS)
    source = _End(head.source, head.source_port, is_local=packet.is_leaving)
    destination = _End(head.destination, head.destination_port, is_local=not packet.is_leaving)
    if is_reply and head.icmp_type is None:
        source, destination = destination, source
    return Flow(
        number=number,
        seen_at=seen_at,
        interface=_link_name(packet, leaf),
        direction=leaf.direction,
        verdict=leaf.verdict,
        mode=leaf.mode,
        decided_by=leaf.decided_by,
        rule_id=leaf.rule_id,
        security_group_id=leaf.security_group_id,
        priority=leaf.priority,
        family=head.family,
        protocol=str(Protocol(head.protocol)),
        source=source.named(head.family, leaf, directory),
        destination=destination.named(head.family, leaf, directory),
        icmp_type=head.icmp_type,
        is_reply=is_reply,
        bytes=head.bytes,
    )


class _End:
    """An end of a packet that has no name yet."""

    def __init__(self, address: int, port: int | None, *, is_local: bool) -> None:
        self._address = address
        self._port = port
        self._is_local = is_local

    def named(self, family: Family, leaf: Leaf, directory: Directory) -> FlowEnd:
        """Return the end with its names; a near end without any has those of the interface."""
        name = directory.name(family, self._address, directory.vpc_of(leaf.network_interface_id))
        if name == NAMELESS and self._is_local:
            name = Name(leaf.network_interface_id, leaf.interface_groups)
        kind = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
        return FlowEnd(
            address=str(kind(self._address)),
            port=self._port,
            network_interface_id=name.network_interface_id,
            security_group_ids=name.security_group_ids,
        )


def _link_name(packet: LoggedPacket, leaf: Leaf) -> str:
    """Return the name of the link; of those that are judged together, as none is bound, that of this one."""
    if leaf.interface == OTHER_INTERFACES:
        with contextlib.suppress(OSError):
            return link_name(os.fsencode(socket.if_indextoname(packet.link_index)))
    return leaf.interface
