"""Packets that can open no session, by their header alone (§6.4)."""

from __future__ import annotations

from sgagent.core.model import DCCP, ICMP, ICMPV6, SCTP

ANSWERING = tuple(protocol.wire_number for protocol in (ICMP, DCCP, ICMPV6, SCTP))
"""Protocols of which no reply counts as opening a session. An echo reply can't; of SCTP and DCCP the type of
message is not read, so that an INIT in the reply direction opens nothing either (§6.4)."""

OPENING_FLAGS = (0x02, 0xC2)
"""Of a segment that opens a session of TCP: SYN, and SYN with the offer of ECN (RFC 3168)."""
