"""Implicit allows: the traffic that a host needs to have an address at all (§7.1)."""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.core.model import Family

DHCP: Mapping[Family, tuple[int, int]] = {Family.IPV4: (67, 68), Family.IPV6: (547, 546)}
"""Server and client port of each family's DHCP (RFC 2131, RFC 8415)."""

NEIGHBOUR_DISCOVERY_TYPES = (133, 134, 135, 136)
"""ICMPv6 types of router and neighbour solicitations and advertisements (RFC 4861)."""

MULTICAST_LISTENER_TYPES = (130, 131, 132, 143)
"""ICMPv6 types of multicast listener queries and reports (RFC 2710, RFC 3810)."""

LINK_LOCAL = (0xFE80 << 112, (0xFEC0 << 112) - 1)
"""First and last address of fe80::/10."""
