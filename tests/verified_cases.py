"""Draw policies with the tables that enforce them, varied in all that a verifier could take for constant.

That is: how many links are bound, in which modes, to no group, or to all unbound links; which bits of the
mark are ours, which generation they have, and who has a slot; what is logged; and how tables are shaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgagent.compiler.compilation import compile_
from sgagent.compiler.linear import MOST_LINES
from sgagent.core.binding import HandBinding, HostFacts
from sgagent.core.model import Mode, Policy
from sgagent.core.policy import SILENT, FlowLogging, ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import closed_interface
from sgagent.nft.marks import EnforcementState, MarkLayout, first_state
from sgagent.nft.ruleset import Ruleset
from sgagent.verify.packets import CtDirection, CtState, Ends, PacketAtHook, SessionAtHook
from tests.crowded_groups import crowded_groups
from tests.draws import Draws, SeededDraws
from tests.encounters import Encounter
from tests.generators import Case, random_case, resolved, without_limits
from tests.tracer import Session, Tuple, WirePacket
from tests.words import PLATFORM, snapshot

LINKS = ("eth0", "eth1", "eth2", "br-0f.12", "a", "ä")
_MASKS = (0xFFFF0000, 0xFFFF0000, 0x0007FFF0, 0x7FFF, 0xFFFFFFFF, 0x7FF, 0xFF000000)
"""Our bits: as usual, in the middle, as few as can be, all, and too few to remember anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCase:
    """A policy, and the table that was compiled of it."""

    policy: ResolvedPolicy
    layout: MarkLayout
    state: EnforcementState
    table: Ruleset
    seed: int
    case: Case
    """The definitions, before modes and unbound links were varied."""


def verified_case(
    seed: int, *, links: Sequence[str] = (), most_rules: int = 40, has_limits: bool = True
) -> VerifiedCase:
    """Return the case of a seed.

    Args:
        seed: names the case.
        links: those that are bound; none to draw them.
        most_rules: of a group.
        has_limits: whether rules may limit new sessions by source.
    """
    draws = SeededDraws(seed)
    bound = tuple(links) or tuple(sorted(draws.sample(LINKS, draws.choice((1, 1, 2, 2, 3, 5)))))
    case = random_case(
        draws, interfaces=bound, most_rules=min(most_rules, draws.choice((0, 3, 10, 10, 20, 40)))
    )
    if not has_limits:
        case = without_limits(case)
    if draws.chance(10):
        case = _crowded(draws, bound[0], most_rules)
    policy = _varied(draws, case)
    layout = MarkLayout(draws.choice(_MASKS))
    state = _state(draws, policy, layout)
    logging, most_lines = _logging(draws), _most_lines(draws)

    def compiled(renamed: frozenset[str] = frozenset()) -> Ruleset:
        return compile_(policy, layout, state, logging, renamed=renamed, most_lines=most_lines).ruleset

    table = compiled()
    if draws.chance(25):
        names = [one.name for one in table.verdict_maps if one.name.startswith("peers/")]
        table = compiled(frozenset(name for name in names if draws.chance(50)))
    return VerifiedCase(policy=policy, layout=layout, state=state, table=table, seed=seed, case=case)


def _crowded(draws: Draws, link: str, most_rules: int) -> Case:
    """Return a case whose rules agree in all but source ports and near ends."""
    groups = crowded_groups(draws)
    first = replace(groups[0], rules=groups[0].rules[: 2 * most_rules])
    definitions = snapshot(first, groups[1])
    bindings = (HandBinding(interface=link, security_group_ids=("sg-1",)),)
    policy = resolved(definitions, bindings, PLATFORM)
    assert policy is not None
    return Case(
        snapshot=definitions, bindings=bindings, policy=policy, exemptions=PLATFORM, facts=HostFacts()
    )


def _varied(draws: Draws, case: Case) -> ResolvedPolicy:
    policy = case.policy
    bound = tuple(_observed(draws, interface) for interface in policy.interfaces)
    if draws.chance(5):
        bound = ()
    unbound = None
    if draws.chance(25):
        unbound = _observed(draws, closed_interface("*", case.exemptions, Mode.ENFORCE))
    return replace(policy, interfaces=bound, unbound=unbound)


def _observed(draws: Draws, interface: ResolvedInterface) -> ResolvedInterface:
    return replace(interface, mode=Mode.OBSERVE) if draws.chance(20) else interface


def _state(draws: Draws, policy: ResolvedPolicy, layout: MarkLayout) -> EnforcementState:
    """Draw generation and slots: as at the beginning, or as many changes later."""
    state = first_state(policy.remembering, layout)
    if state.generation is None or draws.chance(40):
        return state
    first, second, third = draws.shuffled(state.slots)
    generation = draws.choice((1, 2, layout.last_generation, draws.randint(1, layout.last_generation)))
    return EnforcementState(
        generation=max(1, min(generation, layout.last_generation)),
        slots=(first, second, third),
        reused=draws.chance(30),
        keeps=draws.chance(30),
    )


def _logging(draws: Draws) -> FlowLogging:
    return FlowLogging(verdicts=frozenset(draws.sample(Policy, 1))) if draws.chance(25) else SILENT


def _most_lines(draws: Draws) -> int:
    return draws.choice((MOST_LINES, MOST_LINES, 0, 100))


def at_hook(encounter: Encounter) -> PacketAtHook:
    """Return a packet on the wire as the verifier says it."""
    packet, session = encounter.packet, encounter.session
    return PacketAtHook(
        hook=packet.hook,
        interface=packet.interface,
        family=packet.family,
        source=packet.source,
        destination=packet.destination,
        protocol=packet.protocol,
        source_port=packet.source_port,
        destination_port=packet.destination_port,
        icmp_type=packet.icmp_type,
        tcp_flags=_tcp_flags(packet),
        hop_limit=packet.hop_limit,
        state=CtState(packet.state),
        is_fragment=packet.is_fragment,
        session=None if session is None else tracked(session, packet.packet_direction),
        other_interface=packet.other_interface if packet.hook == "postrouting" else "",
    )


def _tcp_flags(packet: WirePacket) -> int | None:
    is_tcp = packet.protocol == 6 and packet.source_port is not None
    likely = 0x02 if packet.state == "new" else 0x10
    return (likely if packet.tcp_flags is None else packet.tcp_flags) if is_tcp else None


def tracked(session: Session, direction: str) -> SessionAtHook:
    """Return a session as the verifier says it."""
    return SessionAtHook(
        direction=CtDirection(direction),
        protocol=session.protocol,
        original=_ends(session.original),
        reply=_ends(session.reply),
        mark=session.mark,
        is_confirmed=session.is_confirmed,
    )


def _ends(ends: Tuple) -> Ends:
    return Ends(
        source=ends.source,
        destination=ends.destination,
        source_port=ends.source_port,
        destination_port=ends.destination_port,
    )
