"""The verdicts of other tables on one packet, base chain by base chain, as far as they are understood.

``explain`` says so beside the verdict of the policy. A chain that is not understood is named with the reason,
never guessed. Address translation is not followed: packets are read as they are on the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Packet
from sgagent.core.model import PORTED_NUMBERS, Direction, Family, Policy
from sgagent.core.openers import OPENING_FLAGS
from sgagent.nft import ruleset as nft
from sgagent.nft.kernel_table import FAULTS
from sgagent.nft.ruleset import FAMILY, TABLE
from sgagent.verify.interpreter import run, traces
from sgagent.verify.packets import CtDirection, CtState, PacketAtHook, SessionAtHook
from sgagent.verify.verified_table import (
    UnsupportedStatementError,
    VerifiedChain,
    VerifiedTable,
    selectors_of,
)

_OURS = {Direction.INGRESS: ("prerouting", -150), Direction.EGRESS: ("postrouting", 300)}
"""Where sgagent's own chains are: what it drops comes to no chain behind them."""

_ECHO_REQUEST = {Family.IPV4: (1, 8), Family.IPV6: (58, 128)}
"""Protocol and type of the ICMP message that is meant where no type is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """The verdict of another table's base chain on a packet."""

    chain: str
    """Family, table and name."""

    hook: str
    priority: int
    is_behind_ours: bool
    """Whether sgagent's chains come first."""

    verdict: Policy | None = None
    """None where it is not known."""

    decided_in: str | None = None
    """The chain whose rule decided, or that ended last; None for the base chain's policy to drop."""

    unread: str | None = None
    """The parts that are not understood, where the verdict is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way of a packet through this host."""

    packet: Packet
    decided_by: DecidedBy
    is_dropped: bool
    """Whether sgagent drops it."""

    is_local: bool
    """Whether this host sends or receives it, and does not forward it."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """Return the hooks at which its link is the one that is asked about, in order."""
        if self.packet.direction is Direction.INGRESS:
            return ("prerouting", "input" if self.is_local else "forward")
        return ("output" if self.is_local else "forward", "postrouting")


def verdicts_of_others(table: VerifiedTable, way: Way) -> tuple[ChainVerdict, ...]:
    """Return the verdict of each base chain that sees a packet, in order, up to one that drops it.

    Args:
        table: all tables of others, as :func:`sgagent.verify.programs.read_filters` reads them.
        way: of the packet.
    """
    found: list[ChainVerdict] = []
    for hook in way.hooks:
        for chain in table.chains_at(hook, way.packet.family):
            if way.is_dropped and _is_behind_ours(chain, way.packet.direction):
                return tuple(found)
            if chain.name.startswith(f"{FAMILY} {TABLE} "):
                continue
            found.append(_verdict(table, chain, way))
            if found[-1].verdict is Policy.DROP:
                return tuple(found)
    return tuple(found)


def _is_behind_ours(chain: VerifiedChain, direction: Direction) -> bool:
    assert chain.hook is not None  # noqa: S101 - it is a base chain
    hook, priority = _OURS[direction]
    if chain.hook.name == hook:
        return chain.hook.priority >= priority
    return direction is Direction.INGRESS


def _verdict(table: VerifiedTable, chain: VerifiedChain, way: Way) -> ChainVerdict:
    """Return one base chain's verdict, as if it were alone."""
    assert chain.hook is not None  # noqa: S101 - it is a base chain
    said = ChainVerdict(
        chain=chain.name,
        hook=chain.hook.name,
        priority=chain.hook.priority,
        is_behind_ours=_is_behind_ours(chain, way.packet.direction),
    )
    if link := _other_link(table, chain, way):
        return replace(said, unread=link)
    packet = _at_hook(way, chain.hook.name)
    unknown = _unknown(way)
    try:
        trace, *others = traces(_alone(table, chain), packet, unknown)
        if any(one.verdict is not trace.verdict for one in others):
            return replace(said, unread="it depends on a limit")
        without_policy = replace(chain, hook=replace(chain.hook, drops=False))
        is_by_rule = run(_alone(table, without_policy), packet, unknown=unknown).verdict is trace.verdict
    except UnsupportedStatementError as error:
        return replace(said, unread=str(error))
    except FAULTS as error:
        return replace(said, unread=f"{type(error).__name__}: {error}")
    last = next((name for name in reversed(trace.path) if name in table.chains), chain.name)
    return replace(said, verdict=trace.verdict, decided_in=last if is_by_rule else None)


def _alone(table: VerifiedTable, chain: VerifiedChain) -> VerifiedTable:
    """Return the table with one base chain, in place of the one with its name."""
    others = {name: replace(one, hook=None) for name, one in table.chains.items()}
    return replace(table, chains={**others, chain.name: chain})


def _other_link(table: VerifiedTable, chain: VerifiedChain, way: Way) -> str | None:
    """Return which expression asks for the link on the other side of a packet that is forwarded."""
    key = "oifname" if way.packet.direction is Direction.INGRESS else "iifname"
    if way.is_local or chain.hook is None or chain.hook.name != "forward":
        return None
    reads = (selector.key for one in table.statements_from(chain.name) for selector in selectors_of(one))
    other = f"meta {key}, as the other link of a packet that is forwarded is not asked for"
    return other if key in reads else None


def _unknown(way: Way) -> frozenset[nft.Selector]:
    """Return the fields of a packet that the question does not name, and sgagent or others may set."""
    packet = way.packet
    is_said = {
        nft.CT_MARK: False,
        nft.ETHER_DADDR: False,
        nft.TCP_FLAGS: way.decided_by not in (DecidedBy.SESSION, DecidedBy.INVALID),  # it opens one
        nft.IP6_HOPLIMIT: packet.hop_limit is not None,
        nft.META_SKUID: packet.user is not None,
        nft.SOCKET_GROUP: packet.unit is not None,
    }
    return frozenset(selector for selector, is_known in is_said.items() if not is_known)


def _at_hook(way: Way, hook: str) -> PacketAtHook:
    """Return the packet; what is unknown of it, but there, is 0."""
    packet = way.packet
    is_sent_here = way.is_local and packet.direction is Direction.EGRESS
    protocol, echo = _ECHO_REQUEST[packet.family]
    is_ported = packet.protocol in PORTED_NUMBERS
    found = PacketAtHook(
        hook=hook,
        interface=packet.interface,
        family=packet.family,
        source=packet.source,
        destination=packet.destination,
        protocol=packet.protocol,
        source_port=packet.source_port if is_ported else None,
        destination_port=packet.destination_port if is_ported else None,
        icmp_type=echo if packet.icmp_type is None and packet.protocol == protocol else packet.icmp_type,
        hop_limit=packet.hop_limit or 0,
        ether_destination=None if is_sent_here else 0,
        tcp_flags=OPENING_FLAGS[0],
        user=(packet.user or 0) if is_sent_here else None,
        unit=(packet.unit or 0) if is_sent_here else None,
    )
    if way.decided_by is DecidedBy.INVALID:
        return replace(found, state=CtState.INVALID)
    session = SessionAtHook(
        direction=CtDirection.ORIGINAL,
        protocol=packet.protocol,
        original=found.ends,
        reply=found.ends.swapped,
    )
    is_known = way.decided_by is DecidedBy.SESSION
    session = replace(session, is_confirmed=is_known)
    return replace(found, state=CtState.ESTABLISHED if is_known else CtState.NEW, session=session)


def final_verdict(chains: Sequence[ChainVerdict]) -> Policy | None:
    """Return other tables' verdict on a packet in the end; None where a chain on its way is not known."""
    if any(one.verdict is Policy.DROP for one in chains):
        return Policy.DROP
    return Policy.ACCEPT if all(one.verdict is Policy.ACCEPT for one in chains) else None
