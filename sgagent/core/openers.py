"""Packets that can open no session, by their header (§6.4), and those that can open one anew (§13.1)."""

from __future__ import annotations

from sgagent.core.model import DCCP, ICMP, ICMPV6, SCTP, Direction
from sgagent.core.policy import ResolvedInterface

ANSWERING = tuple(protocol.wire_number for protocol in (ICMP, DCCP, ICMPV6, SCTP))
"""Protocols of which no reply counts as opening a session. An echo reply can't; of SCTP and DCCP the type of
message is not read, so that an INIT in the reply direction opens nothing either (§6.4)."""

OPENING_FLAGS = (0x02, 0xC2)
"""Of a segment that opens a session of TCP: SYN, and SYN with the offer of ECN (RFC 3168)."""


def counts_reopened(judge: ResolvedInterface, opened: Direction) -> bool:
    """Return whether sessions count that reuse conntrack's entry of an older one: a rule limits them (§13.1).

    Conntrack takes the SYN for one of the older session where more of that came after the server's reset.
    """
    return any(rule.conditions.limit for rule in judge.toward(opened).rules)
