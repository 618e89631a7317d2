"""Take a packet that belongs to a live session for what it is, when it is to be explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sgagent.core.compiling.marks import EnforcementState, MarkLayout, is_remembered
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import Direction, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.conntrack import TrackedSession


class LiveSessions:
    """Know which sessions the current policy has allowed, as the kernel remembers it."""

    def __init__(self, layout: MarkLayout, find: Callable[[Packet], TrackedSession | None]) -> None:
        """Take what is needed to read a mark, and what finds the session of a packet.

        Args:
            layout: our bits of the mark.
            find: may raise OSError where the kernel can't be asked.
        """
        self._layout = layout
        self._find = find

    def as_met(self, packet: Packet, policy: ResolvedPolicy, state: EnforcementState) -> Packet:
        """Return the packet as the kernel would judge it.

        One of a live session is judged as the packet that opened the session, whichever way it goes itself
        (§6.4); if the current policy has allowed the session already, it says so (§3, step 1). In observe
        mode sessions are remembered that enforcing would drop, so there nothing is taken for allowed.
        """
        interface = policy.interface(packet.interface)
        try:
            session = self._find(packet) if interface else None
        except OSError:
            return packet
        if interface is None or session is None:
            return packet
        opening = packet if session.opened is packet.direction else _turned(packet, session.opened)
        is_allowed = interface.mode is Mode.ENFORCE and is_remembered(
            session.mark, packet.interface, session.opened, self._layout, state
        )
        return replace(opening, tracking=Tracking.ALLOWED) if is_allowed else opening


def _turned(packet: Packet, opened: Direction) -> Packet:
    """Return the packet that a packet is a reply to."""
    return replace(
        packet,
        direction=opened,
        source=packet.destination,
        destination=packet.source,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
    )
