"""Answers of entries that were opened over another link, and which of them open a session here (§6.4)."""

from __future__ import annotations

from sgagent.core.addresses import ranges_of, without
from sgagent.core.model import TCP
from sgagent.core.openers import ANSWERING, OPENING_FLAGS
from sgagent.verify.packets import Constraints, PacketAtHook
from sgagent.verify.views import PROTOCOL, TCP_FLAGS

ANSWERS_THAT_OPEN_NOTHING: tuple[Constraints, ...] = (
    ((PROTOCOL, ranges_of(ANSWERING)),),
    ((PROTOCOL, ranges_of([TCP.wire_number])), (TCP_FLAGS, without(((0, 255),), ranges_of(OPENING_FLAGS)))),
)
"""Which replies of entries that were opened over another link open no session here (§6.4)."""


def opens_nothing(packet: PacketAtHook) -> bool:
    """Return whether a reply can open no session, by its own header."""
    is_answer = packet.protocol == TCP.wire_number and packet.tcp_flags not in OPENING_FLAGS
    return packet.protocol in ANSWERING or is_answer
