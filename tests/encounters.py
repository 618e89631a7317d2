"""Packets with their sessions, and what a table does with one on its whole way through the host's hooks.

It knows no policy: it walks one packet through :mod:`tests.tracer`, in the order in which the kernel calls
base chains, with what conntrack and NAT have made of the packet by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import Chain, Drop, Ruleset
from tests.tracer import Session, WirePacket, trace_chain

CONNTRACK, DESTINATION_NAT, SOURCE_NAT = -200, -100, 100
"""Priorities of the kernel's own hooks (netfilter_ipv4.h)."""

RAW = -300
"""Where others say ``notrack``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encounter:
    """A packet at one of the two hooks that we judge at, and the session that it belongs to."""

    packet: WirePacket
    """As it is on the wire."""

    session: Session | None = None
    """None where conntrack has none: of untracked and invalid packets."""

    is_forwarded: bool = False
    """Whether it comes from another link, or goes to one, and not from or to the host."""

    def __str__(self) -> str:
        """Return all of it in one line."""
        way = "forwarded" if self.is_forwarded else "local"
        return f"{self.packet} {self.session} {way}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a table does with a packet."""

    accepted: bool
    counted: tuple[str, ...]
    """Sorted: in which order does not matter."""

    mark: int | None


_WAYS: Mapping[tuple[str, bool], tuple[str, ...]] = {
    ("prerouting", False): ("prerouting", "input"),
    ("prerouting", True): ("prerouting", "forward"),
    ("postrouting", False): ("output", "postrouting"),
    ("postrouting", True): ("forward", "postrouting"),
}
"""The hooks that a packet passes on the link's side of the host."""


def outcome(
    table: Ruleset, encounter: Encounter, *, foreign: Sequence[str] = (), is_limited: bool = False
) -> Outcome:
    """Return what a table does with a packet at all hooks on its way, in the kernel's order.

    Args:
        table: what does it.
        encounter: the packet, and where.
        foreign: what else is in the table: ``policy`` of a chain that drops, ``table`` if it is dormant.
        is_limited: whether every limit is used up.
    """
    return _outcome(
        table, encounter, _WAYS[encounter.packet.hook, encounter.is_forwarded], foreign, is_limited=is_limited
    )


def outcome_at(table: Ruleset, encounter: Encounter, *, foreign: Sequence[str] = ()) -> Outcome:
    """Return what the base chains of the packet's own hook do with it as it is, whatever their priority."""
    return _outcome(table, encounter, (encounter.packet.hook,), foreign, is_limited=False, as_it_is=True)


def _outcome(
    table: Ruleset,
    encounter: Encounter,
    way: Sequence[str],
    foreign: Sequence[str],
    *,
    is_limited: bool,
    as_it_is: bool = False,
) -> Outcome:
    packet, session = encounter.packet, encounter.session and replace(encounter.session)
    counted: list[str] = []
    accepted = True
    is_asleep = f"table {nft.TABLE}" in foreign
    # Of one priority the kernel calls the newest first.
    bases = [] if is_asleep else [one for one in reversed(table.chains) if one.hook and one.hook.name in way]
    for chain in sorted(bases, key=lambda one: (way.index(hook_of(one).name), hook_of(one).hook_priority)):
        seen, of_session = (packet, session) if as_it_is else _at(packet, session, hook_of(chain))
        walk, verdict = trace_chain(
            table, chain.name, seen, of_session, is_limited=is_limited, is_over=is_limited
        )
        counted += walk.counted
        if isinstance(verdict, Drop) or (verdict is None and f"policy {chain.name}" in foreign):
            accepted = False
            break
    mark = None if session is None else session.mark
    return Outcome(accepted=accepted, counted=tuple(sorted(counted)), mark=mark)


def hook_of(chain: Chain) -> nft.Hook:
    """Return the hook of a base chain."""
    assert chain.hook is not None
    return chain.hook


def _at(packet: WirePacket, session: Session | None, hook: nft.Hook) -> tuple[WirePacket, Session | None]:
    """Return what a hook sees of a packet: before conntrack no session, on the inside of NAT other ends."""
    if hook.name in ("prerouting", "output") and hook.hook_priority <= CONNTRACK:
        is_untracked = packet.state == "untracked" and hook.hook_priority > RAW
        state = "untracked" if is_untracked else "invalid"
        return replace(_with_links(packet, hook.name), state=state), None
    if session is None or packet.state == "related":
        return _with_links(packet, hook.name), session
    is_outside = (hook.name == "prerouting" and hook.hook_priority < DESTINATION_NAT) or (
        hook.name == "postrouting" and hook.hook_priority > SOURCE_NAT
    )
    return _with_links(packet if is_outside else _inside(packet, session), hook.name), session


def _with_links(packet: WirePacket, hook: str) -> WirePacket:
    """Return a packet with the links that are known at a hook: both where it is forwarded."""
    if hook == "forward" and packet.hook == "prerouting":
        other, own = packet.interface, packet.other_interface
    else:
        own, other = packet.interface, packet.other_interface if hook in ("forward", "postrouting") else ""
    return replace(packet, hook=hook, interface=own, other_interface=other)


def _inside(packet: WirePacket, session: Session) -> WirePacket:
    """Return a packet between destination and source NAT: each end as the host's inside knows it."""
    is_original = packet.packet_direction == "original"
    this, other = (session.original, session.reply) if is_original else (session.reply, session.original)
    has_ports = packet.source_port is not None
    return replace(
        packet,
        source=this.source,
        destination=other.source,
        source_port=this.source_port if has_ports else None,
        destination_port=other.source_port if has_ports else None,
    )
