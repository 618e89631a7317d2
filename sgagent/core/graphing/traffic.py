"""Reckon with what may be sent between two ends: protocols, and ports of those that have them."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.comparing.boxes import ALL_PORTS, ALL_PROTOCOL_NUMBERS, Box, Label
from sgagent.core.comparing.wording import port_text, protocol_text
from sgagent.core.intervals import NONE, Ranges, common, holds, joined, without
from sgagent.core.model import TCP, UDP

_TCP, _UDP = 6, 17
_WITHOUT_PORTS = without(ALL_PROTOCOL_NUMBERS, ((_TCP, _TCP), (_UDP, _UDP)))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What may be sent; equal sets are equal values."""

    tcp: Ranges = NONE
    """Destination ports."""

    udp: Ranges = NONE
    others: Ranges = NONE
    """Numbers of protocols without ports."""

    @classmethod
    def of(cls, box: Box[Label]) -> Traffic:
        """Return what a box of packets holds."""
        return cls(
            tcp=box.ports if holds(box.protocols, _TCP) else NONE,
            udp=box.ports if holds(box.protocols, _UDP) else NONE,
            others=common(box.protocols, _WITHOUT_PORTS),
        )

    def __or__(self, other: Traffic) -> Traffic:
        """Return what is in either."""
        return Traffic(
            joined((*self.tcp, *other.tcp)),
            joined((*self.udp, *other.udp)),
            joined((*self.others, *other.others)),
        )

    def __and__(self, other: Traffic) -> Traffic:
        """Return what is in both."""
        return Traffic(
            common(self.tcp, other.tcp), common(self.udp, other.udp), common(self.others, other.others)
        )

    def __sub__(self, other: Traffic) -> Traffic:
        """Return what is in this and not in the other."""
        return Traffic(
            without(self.tcp, other.tcp), without(self.udp, other.udp), without(self.others, other.others)
        )

    def __bool__(self) -> bool:
        """Tell whether anything may be sent."""
        return bool(self.tcp or self.udp or self.others)

    def has_port(self, port: int) -> bool:
        """Tell whether the port may be reached, by TCP or UDP."""
        return holds(self.tcp, port) or holds(self.udp, port)

    def texts(self) -> tuple[str, ...]:
        """Return what may be sent in words, like ``tcp 80, 443`` and ``icmp``; everything is ``all``."""
        if self == ALL_TRAFFIC:
            return ("all",)
        found = [
            f"{protocol} {port_text(ports)}" if ports != ALL_PORTS else str(protocol)
            for protocol, ports in ((TCP, self.tcp), (UDP, self.udp))
            if ports
        ]
        if self.others == _WITHOUT_PORTS:
            found.append("all other protocols")
        elif self.others:
            found.append(protocol_text(self.others))
        return tuple(found)

    def __str__(self) -> str:
        """Return what may be sent in one line."""
        return "; ".join(self.texts()) or "nothing"


NO_TRAFFIC = Traffic()
ALL_TRAFFIC = Traffic(ALL_PORTS, ALL_PORTS, _WITHOUT_PORTS)
