"""Where the agent gets its definitions, as entries of the fail-safe list (§7.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from sgagent.core.model import LAST_PORT, TCP, CidrBlock, Direction, Family, PortSet, Protocol
from sgagent.core.policy import Exemption


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port of another host where the agent gets its definitions, or asks where that is."""

    address: CidrBlock
    """A single one."""

    port: int
    protocol: Protocol = TCP

    @classmethod
    def at(cls, address: str, port: int, protocol: Protocol = TCP) -> Endpoint:
        """Return the end point at an address, as resolvers and sockets write it.

        An IPv4 address that is written as IPv6 (``::ffff:192.0.2.1``) goes over IPv4, and the zone of a
        link-local one (``fe80::1%eth0``) is no part of it.

        Raises:
            ValueError: it is no address, or no port.
        """
        number = ipaddress.ip_address(address.partition("%")[0])
        if number.version == 6 and number.ipv4_mapped:
            number = number.ipv4_mapped
        if not 1 <= port <= LAST_PORT:
            raise ValueError(f"not a port: {port}")
        return cls(CidrBlock.parse(str(number)), port, protocol)


def exempt(endpoints: Iterable[Endpoint]) -> tuple[Exemption, ...]:
    """Return the entries of the fail-safe list that let the agent reach its source, in a total order."""
    return tuple(
        Exemption(
            direction=Direction.EGRESS,
            peer=endpoint.address,
            protocol=endpoint.protocol,
            ports=PortSet.of((endpoint.port, endpoint.port)),
        )
        for endpoint in in_order(endpoints)
    )


def in_order(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return each end point once, in a total order."""
    return tuple(sorted(set(endpoints), key=_order))


def _order(endpoint: Endpoint) -> tuple[bool, int, int, int]:
    address, protocol = endpoint.address, endpoint.protocol
    return address.family is Family.IPV6, address.first, endpoint.port, protocol.wire_number
