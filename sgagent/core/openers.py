"""Tell which packets conntrack takes for the first of a session; others are invalid to it (§3)."""

from __future__ import annotations

from dataclasses import replace

from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import ICMP, ICMPV6, Family

_ICMP_REQUESTS = frozenset({8, 13, 15, 17})
"""ICMP types that open a session: echo, timestamp, information and address mask (RFC 792, RFC 950)."""

_ICMPV6_REQUESTS = frozenset({128, 139})
"""ICMPv6 types that open one: echo and node information (RFC 4443, RFC 4620)."""

_ICMPV6_UNFOLLOWED = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143, 151, 152})
"""ICMPv6 types that conntrack leaves alone: listeners, neighbours, routers (RFC 3810, RFC 4861, RFC 4286)."""

_NO_UPPER_LAYER = frozenset({0, 43, 44, 51, 59, 60})
"""IPv6's extension headers that conntrack looks behind, and "no next header" (RFC 8200, RFC 4302).

A packet whose last header is one of these has no upper layer. Mobility (135), HIP (139) and Shim6 (140) are
upper layers to conntrack, and so is ESP (50).
"""


def as_opener(packet: Packet) -> Packet:
    """Return the packet as conntrack takes it where it belongs to no session that it follows.

    A packet about which it said something already is returned as it is.
    """
    if packet.tracking is Tracking.NEW and not _may_open(packet):
        return replace(packet, tracking=Tracking.INVALID)
    return packet


def _may_open(packet: Packet) -> bool:
    """Tell whether conntrack lets the packet open a session, or does not follow its kind at all."""
    is_ipv4 = packet.family is Family.IPV4
    may_open = _ICMP_REQUESTS if is_ipv4 else _ICMPV6_REQUESTS | _ICMPV6_UNFOLLOWED
    if packet.protocol in ((ICMPV6.number,) if is_ipv4 else (ICMP.number, *_NO_UPPER_LAYER)):
        return False
    is_message = packet.protocol in (ICMP.number, ICMPV6.number) and packet.icmp_type is not None
    return not is_message or packet.icmp_type in may_open
