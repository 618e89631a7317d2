"""The query for the verdict on a packet, and its answer."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Self

from sgagent.core.conditions import LAST_USER, ControlGroup
from sgagent.core.errors import UsageError
from sgagent.core.evaluate import Packet
from sgagent.core.explanation import Explanation
from sgagent.core.model import LAST_PORT, Direction, Family, address_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainQuery:
    """Ask for the verdict on a packet under the policy that is in force."""

    direction: Direction
    source: str
    destination: str
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    hop_limit: int | None = None
    user: int | None = None
    """Whose socket of this host sends it (§13.3); null without one."""

    unit: str | None = None
    """The path of the control group in which it was made; null without one."""

    interface: str | None = None
    """May be null where one interface is bound, or none."""

    @classmethod
    def about(cls, packet: Packet, unit: str | None = None) -> Self:
        """Return the query about a packet, of a socket that was made in the control group of a unit."""
        return cls(
            direction=packet.direction,
            source=address_text(packet.family, packet.source),
            destination=address_text(packet.family, packet.destination),
            protocol=packet.protocol,
            source_port=packet.source_port,
            destination_port=packet.destination_port,
            icmp_type=packet.icmp_type,
            hop_limit=packet.hop_limit,
            user=packet.user,
            unit=unit,
            interface=packet.interface or None,
        )

    def packet(self, interface: str) -> Packet:
        """Return the packet that is asked about, at an interface.

        Raises:
            UsageError: there is no such packet.
        """
        try:
            source, destination = (ipaddress.ip_address(text) for text in (self.source, self.destination))
        except ValueError as error:
            raise UsageError(str(error)) from error
        if source.version != destination.version:
            raise UsageError("source and destination are of different address families")
        if not all(0 <= (port or 0) <= LAST_PORT for port in (self.source_port, self.destination_port)):
            raise UsageError("a port is a number from 0 to 65535")
        if not all(0 <= (byte or 0) <= 255 for byte in (self.protocol, self.icmp_type, self.hop_limit)):
            raise UsageError("protocol, ICMP type and hop limit are numbers from 0 to 255")
        if not 0 <= (self.user or 0) <= LAST_USER:
            raise UsageError(f"a user is a number from 0 to {LAST_USER}")
        return Packet(
            interface=interface,
            direction=self.direction,
            family=Family.IPV4 if source.version == 4 else Family.IPV6,
            source=int(source),
            destination=int(destination),
            protocol=self.protocol,
            source_port=self.source_port,
            destination_port=self.destination_port,
            icmp_type=self.icmp_type,
            hop_limit=self.hop_limit,
            user=self.user,
            unit=None if self.unit is None else ControlGroup(self.unit, 0).numbers[0],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainAnswer:
    """The explained verdict on the packet."""

    snapshot_version: str | None
    explanation: Explanation
