"""The differences of views: a header's relation to its session, and whether there are ports."""

from __future__ import annotations

import enum


class Headers(enum.Enum):
    """The relation of a packet's header to its session."""

    OWN = "own"
    """The header is one of the session, on one side of NAT; or there is no session."""

    AUTHENTICATED = "authenticated"
    """Likewise, but an authentication header hides the protocol and ports from nftables."""

    ERROR = "error"
    """It is of an ICMP error about the session."""

    HIDDEN_ERROR = "hidden error"
    """Likewise, behind an authentication header; of a session that opens, no other one announced that."""

    ANNOUNCED = "hidden error about an announced session"
    """Likewise, in the direction of the packet that opened it, from which nftables can't distinguish it."""

    BROKEN = "broken"
    """Extension headers of IPv6 are cut off: there is no protocol, and no session."""


class Ports(enum.Enum):
    """Whether a packet has ports that rules compare."""

    PORTED = "ported"
    """The session's protocol is one of those whose ports rules compare."""

    SHORT = "short"
    """Likewise, but the packet is too short to hold ports, or a later fragment."""

    OTHER = "other"
    """Any other protocol; nothing is said about what stands in the place of ports."""
