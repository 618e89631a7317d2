"""What has to become of a packet: the policy's verdict, the counter, and the mark that remembers it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sgagent.core.evaluate import DecidedBy, Decision, Packet, Tracking, evaluate, is_always_allowed
from sgagent.core.model import Direction, Mode, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.names import (
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    KernelCounterKey,
    RuleCounter,
    SpoofedCounter,
    counter_name,
)
from sgagent.nft.ruleset import ALL_BITS
from sgagent.verify.packets import MarkChange, PacketAtHook, opener_of
from sgagent.verify.table import VerifiedTable

_SLOTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMemory:
    """What our bits of the mark mean: low to high two for each of three slots, and the generation."""

    mask: int = 0
    """Contiguous bits; 0: nothing is remembered, and no bit is ours."""

    generation: int | None = None
    """None: sessions are judged at every packet, and no mark is believed or set."""

    slots: tuple[str | None, ...] = (None,) * _SLOTS
    """The link in each slot."""

    @property
    def _shift(self) -> int:
        return (self.mask & -self.mask).bit_length() - 1

    @property
    def generation_mask(self) -> int:
        """Return the bits that hold the generation."""
        return self.mask & ~(((1 << 2 * _SLOTS) - 1) << self._shift)

    def remembers(self, link: str, opened: Direction) -> tuple[int, int] | None:
        """Return the generation, and the bit of sessions opened so at the link, in their places of the mark.

        None where the sessions of a link are not remembered.
        """
        if self.generation is None or link not in self.slots:
            return None
        place = 2 * self.slots.index(link) + (opened is Direction.EGRESS)
        return self.generation << (self._shift + 2 * _SLOTS), 1 << (self._shift + place)


NOTHING_REMEMBERED = SessionMemory()

_STATE = re.compile(
    r"mask 0x(?P<mask>[0-9a-f]{1,8}) generation (?P<generation>none|[1-9][0-9]{0,9})"
    r" slots (?P<slots>\S+ \S+ \S+)( reused)?"
)


def stated_memory(table: VerifiedTable) -> SessionMemory:
    """Return what a table says of its generation and slots; nothing where it says nothing that can be read.

    Then no session may be accepted by its mark.
    """
    keeper = table.chains.get(names.STATE_CHAIN)
    found = _STATE.fullmatch(keeper.comment) if keeper else None
    if found is None:
        return NOTHING_REMEMBERED
    generation = None if found["generation"] == "none" else int(found["generation"])
    slots = tuple(None if word == "/" else word for word in found["slots"].split())
    memory = SessionMemory(mask=int(found["mask"], 16), generation=generation, slots=slots)
    first_slot = memory.mask & -memory.mask
    greatest = memory.generation_mask // (first_slot << 2 * _SLOTS) if memory.mask else 0
    return replace(memory, generation=None) if (generation or 0) > greatest else memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What has to become of a packet."""

    verdict: Policy
    """As it is carried out: where a link is only observed, accept (§9.1)."""

    decision: Decision
    counter: str | None
    """The counter that the packet adds to; None for no counter."""

    mark: int | None
    """Of the session afterwards; None where there is no session."""


JUDGED_HOOKS = ("prerouting", "postrouting")
"""Where the policy is asked; at other hooks nothing may become of a packet."""


def expect(policy: ResolvedPolicy, memory: SessionMemory, packet: PacketAtHook) -> Expectation:
    """Return what has to become of a packet at its hook.

    Args:
        policy: what the table is to enforce.
        memory: what our bits of the mark mean.
        packet: as the table meets it.
    """
    mark = packet.session.mark if packet.session else None
    opener = opener_of(packet)
    judge = policy.judge(packet.interface)
    if judge is None or packet.hook not in JUDGED_HOOKS:
        unbound = Decision(verdict=Policy.ACCEPT, decided_by=DecidedBy.UNBOUND)
        return Expectation(verdict=Policy.ACCEPT, decision=unbound, counter=None, mark=mark)
    bits = memory.remembers(judge.name, opener.direction)
    if bits is not None and mark is not None and mark & (memory.generation_mask | bits[1]) == sum(bits):
        opener = replace(opener, tracking=Tracking.ALLOWED)
    decision = evaluate(policy, opener)
    verdict = carried_out(judge, decision)
    is_accepted_now = verdict is Policy.ACCEPT and decision.decided_by is not DecidedBy.SESSION
    if mark is not None and bits is not None and is_accepted_now:
        is_current = mark & memory.generation_mask == bits[0]
        mark = change_of_accepted(memory, bits, is_current=is_current).of(mark)
    return Expectation(
        verdict=verdict, decision=decision, counter=counter_of(judge, opener, decision), mark=mark
    )


def carried_out(judge: ResolvedInterface, decision: Decision) -> Policy:
    """Return the verdict as the table carries it out: a link that is observed drops nothing (§9.1)."""
    return Policy.ACCEPT if judge.mode is Mode.OBSERVE else decision.verdict


def change_of_accepted(memory: SessionMemory, bits: tuple[int, int], *, is_current: bool) -> MarkChange:
    """Return what becomes of the mark of a session that is accepted now.

    It gets the generation and the bit of its direction. Under another generation none of our bits mean
    anything, so all are replaced.

    Args:
        memory: what our bits of the mark mean.
        bits: the generation and the direction's bit, in their places.
        is_current: whether the mark has the current generation.
    """
    generation, bit = bits
    if is_current:
        return MarkChange(put=bit)
    return MarkChange(keep=ALL_BITS & ~memory.mask, put=generation | bit)


def counter_of(judge: ResolvedInterface, opener: Packet, decision: Decision) -> str | None:
    """Return the counter that a packet adds to; None where it adds to none."""
    key = _counter_key(judge, opener, decision)
    return None if key is None else counter_name(key)


def _counter_key(judge: ResolvedInterface, opener: Packet, decision: Decision) -> KernelCounterKey | None:
    link, direction = judge.name, opener.direction
    match decision.decided_by:
        case DecidedBy.RULE if decision.rule is not None:
            return RuleCounter(
                interface=link,
                security_group_id=decision.rule.security_group_id,
                rule_id=decision.rule.rule_id,
                direction=direction,
                policy=decision.rule.policy,
            )
        case DecidedBy.DEFAULT:
            return DefaultCounter(interface=link, direction=direction, verdict=decision.verdict)
        case DecidedBy.INNER:
            return InnerCounter(interface=link)
        case DecidedBy.FAILSAFE:
            return ExemptionCounter(interface=link, direction=direction, kind=ExemptionKind.FAILSAFE)
        case DecidedBy.ALWAYS if not is_always_allowed(opener):
            return ExemptionCounter(interface=link, direction=direction, kind=ExemptionKind.PLATFORM)
        case DecidedBy.INVALID:
            return InvalidCounter(interface=link, direction=direction)
        case DecidedBy.SPOOFED:
            return SpoofedCounter(interface=link, direction=direction)
        case _:
            return None
