"""Keep the way to the agent's own source open, whatever the groups say (§7.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from sgagent.core.model import LAST_PORT, TCP, CidrBlock, Direction, Family, PortRange
from sgagent.core.policy import Exemption


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP port of another host where the agent gets its definitions."""

    address: CidrBlock
    """A single one."""

    port: int

    @classmethod
    def at(cls, address: str, port: int) -> Endpoint:
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
        return cls(CidrBlock.parse(str(number)), port)


def exempt(endpoints: Iterable[Endpoint]) -> tuple[Exemption, ...]:
    """Return the entries of the fail-safe list that let the agent reach its source, in a total order."""
    return tuple(
        Exemption(
            direction=Direction.EGRESS,
            peer=endpoint.address,
            protocol=TCP,
            ports=(PortRange(endpoint.port, endpoint.port),),
        )
        for endpoint in sorted(set(endpoints), key=_order)
    )


def _order(endpoint: Endpoint) -> tuple[bool, int, int]:
    return endpoint.address.family is Family.IPV6, endpoint.address.first, endpoint.port
