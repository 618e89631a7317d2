"""The expectation for packets: the policy's verdict, the counter, and the mark that remembers it.

The clauses of a policy, as boxes, only say where to cut sets of packets. ``evaluate`` says what becomes of a
packet: it is asked about one of each part that no clause cuts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from sgagent.core.addresses import (
    NO_ADDRESSES,
    AddressRanges,
    Ranges,
    holds,
    joined,
    ranges_of,
    sweep,
    without,
)
from sgagent.core.clauses import Clause, DecidedBy, dhcp_clause, list_clauses
from sgagent.core.evaluate import Decision, Tracking, evaluate
from sgagent.core.link_topology import FRAMES_OF_PORTS
from sgagent.core.model import ICMPV6, LAST_PORT, TCP, Direction, Family, Mode, Policy
from sgagent.core.openers import ANSWERING, OPENING_FLAGS, counts_reopened
from sgagent.core.policy import (
    LINK_LOCAL,
    MULTICAST_LISTENER_TYPES,
    NEIGHBOUR_DISCOVERY_TYPES,
    ResolvedInterface,
    ResolvedPolicy,
)
from sgagent.nft import names
from sgagent.nft.marks import SLOTS, stated_state
from sgagent.nft.ruleset import ALL_BITS, SetMark
from sgagent.verify.counter_names import counters_of, notes_of
from sgagent.verify.packets import (
    EVERY_MARK,
    UNCHANGED,
    Constraints,
    CtDirection,
    CtState,
    Cube,
    PacketAtHook,
    PacketSpace,
    is_disjoint,
    opener_of,
    split,
)
from sgagent.verify.users import hides_maker, of_maker
from sgagent.verify.verified_table import VerifiedTable
from sgagent.verify.views import HOP_LIMIT, ICMP_TYPE, NEAR_END, PORT, PROTOCOL, SOURCE_PORT, TCP_FLAGS


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMemory:
    """The meaning of our bits of the mark.

    Low to high two for each of three slots, of sessions that were accepted; two for each, of entries that
    were not opened so there; and the generation.
    """

    mask: int = 0
    """Contiguous bits; 0: nothing is remembered, and no bit is ours."""

    generation: int | None = None
    """None: sessions are judged at every packet, and no mark is believed or set."""

    slots: tuple[str | None, ...] = (None,) * SLOTS
    """The link in each slot."""

    @property
    def _shift(self) -> int:
        return (self.mask & -self.mask).bit_length() - 1

    @property
    def generation_mask(self) -> int:
        """Return the bits that hold the generation."""
        return self.mask & ~(((1 << 4 * SLOTS) - 1) << self._shift)

    def allowed_marks(self, link: str, opened: Direction) -> Cube | None:
        """Return the marks of sessions opened so at a link that were accepted there: generation and bit.

        None where the sessions of a link are not remembered.
        """
        if self.generation is None or link not in self.slots:
            return None
        generation = self.generation << (self._shift + 4 * SLOTS)
        bit = 1 << (self._shift + 2 * self.slots.index(link) + (opened is Direction.EGRESS))
        return self.generation_mask | bit, generation | bit

    def elsewhere_bit(self, link: str, opened: Direction) -> int:
        """Return the bit of entries that were not opened so at a link; 0 where that is not known."""
        allowed = self.allowed_marks(link, opened)
        return (allowed[0] & ~self.generation_mask) << 2 * SLOTS if allowed else 0

    def accepting(
        self, link: str | None, opened: Direction, *, is_new: bool, is_expected: bool, is_elsewhere: bool
    ) -> tuple[tuple[Cube, SetMark], ...]:
        """Return the changes of marks of sessions that are accepted now; the first cube that has one counts.

        A session gets the generation and the bit of its direction, and under another generation loses all
        such bits. An entry that is opened says at which links it was not, and which way, unless somebody else
        marked it on a link that remembers nothing; by its own packets it is opened here, by a reply not.

        Args:
            link: where it is accepted, or the pattern of its name; None where nothing is judged.
            opened: which way the session was opened there.
            is_new: whether the packet may open the entry.
            is_expected: whether it opens one that another session announced, and that has the mark of it.
            is_elsewhere: whether it is a reply, and the entry was not opened so here.
        """
        allowed = self.allowed_marks(link, opened) if link is not None else None
        places = {*product(filter(None, self.slots), Direction)} - {(link, opened)}
        others = sum(self.elsewhere_bit(*place) for place in places)
        untouched = (self.mask if allowed else ALL_BITS, 0)
        opening = others | (allowed[1] if allowed else 0)
        if is_expected and others:
            return ((EVERY_MARK[0], SetMark(keep=ALL_BITS & ~self.mask | opening, put=opening)),)
        found = [(untouched, SetMark(ALL_BITS, put=opening))] if is_new and others else []
        if allowed is None or link is None:
            return (*found, (EVERY_MARK[0], UNCHANGED))
        put = allowed[1]
        kept = ALL_BITS & ~(0 if is_elsewhere else self.elsewhere_bit(link, opened))
        forgotten = self.generation_mask | ((1 << 2 * SLOTS) - 1) << self._shift
        return (
            *found,
            ((self.generation_mask, put & self.generation_mask), SetMark(keep=kept, put=put)),
            (EVERY_MARK[0], SetMark(keep=kept & ~forgotten | put, put=put)),
        )


NOTHING_REMEMBERED = SessionMemory()


def stated_memory(table: VerifiedTable) -> SessionMemory:
    """Return the generation and slots that a table states; nothing where it states none that can be read.

    Then no session may be accepted by its mark.
    """
    keeper = table.chains.get(names.STATE_CHAIN)
    stated = stated_state(keeper.comment) if keeper else None
    if stated is None:
        return NOTHING_REMEMBERED
    mask, state = stated
    memory = SessionMemory(mask=mask, generation=state.generation, slots=state.slots)
    first_slot = memory.mask & -memory.mask
    greatest = memory.generation_mask // (first_slot << 4 * SLOTS) if memory.mask else 0
    return replace(memory, generation=None) if (state.generation or 0) > greatest else memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The verdict, counter and mark that a packet has to get."""

    verdict: Policy
    """As it is carried out: where a link is only observed, accept (§9.1)."""

    decision: Decision
    counters: tuple[str, ...]
    """The counter that the packet adds to, if to any, behind what meters say of the packet."""

    mark: int | None
    """Of the session afterwards; None where there is no session."""

    over: Expectation | None = None
    """What has to become of it where its source has used up the limit of the rule (§13.1)."""


JUDGED_HOOKS = ("prerouting", "postrouting")
"""Where the policy is asked; at other hooks nothing may become of a packet."""


def expect(policy: ResolvedPolicy, memory: SessionMemory, packet: PacketAtHook) -> Expectation:
    """Return the expectation for a packet at its hook.

    Args:
        policy: what the table is to enforce.
        memory: what our bits of the mark mean.
        packet: as the table meets it.
    """
    session, judge = packet.session, policy.judge(packet.interface)
    mark, is_new = session.mark if session else None, packet.state is CtState.NEW
    opener = opener_of(packet)
    is_expected = session is not None and packet.is_expected
    accepting = partial(memory.accepting, opened=opener.direction, is_new=is_new, is_expected=is_expected)
    if judge is None or packet.hook not in JUDGED_HOOKS:
        frame = packet.ether_destination
        dropped = frames_dropped_unjudged(policy, packet.hook) if judge is None else ()
        verdict = Policy.DROP if frame is not None and holds(dropped, frame) else Policy.ACCEPT
        if mark is not None and packet.hook in JUDGED_HOOKS and verdict is Policy.ACCEPT:
            mark = _changed(mark, accepting(None, is_elsewhere=False))
        unbound = Decision(verdict=verdict, decided_by=DecidedBy.UNBOUND)
        return Expectation(verdict=verdict, decision=unbound, counters=(), mark=mark)
    allowed = memory.allowed_marks(judge.name, opener.direction)
    elsewhere = memory.elsewhere_bit(judge.name, opener.direction)
    is_known = allowed is not None and mark is not None and mark & allowed[0] == allowed[1]
    is_known = is_known and not (packet.reopens and counts_reopened(judge, opener.direction))
    is_reply = session is not None and session.direction is CtDirection.REPLY
    is_elsewhere = is_reply and bool((mark or 0) & elsewhere)
    if is_known and not packet.is_expected:
        opener = replace(opener, tracking=Tracking.ALLOWED)
    elif is_elsewhere:
        opener = opener_of(packet, is_elsewhere=True)
    is_error = packet.is_error and not packet.is_expected
    is_unremembered = is_error or (is_elsewhere and opens_nothing(packet)) or hides_maker(judge, opener)
    mark_if_accepted = mark
    if mark is not None and opener.tracking is Tracking.NEW and not is_unremembered:
        mark_if_accepted = _changed(mark, accepting(judge.name, is_elsewhere=is_elsewhere))

    def expected(decision: Decision, *notes: str) -> Expectation:
        verdict = carried_out(judge, decision)
        return Expectation(
            verdict=verdict,
            decision=decision,
            counters=counters_of(judge, opener, decision, *notes),
            mark=mark_if_accepted if verdict is Policy.ACCEPT else mark,
        )

    decision = evaluate(policy, opener)
    notes = notes_of(judge.name, decision, opener.family)
    if notes is None or not (session is None or packet.reopens or session.opens_here(elsewhere)):
        return expected(decision)
    within, beyond = notes
    over = expected(evaluate(policy, replace(opener, is_over_limit=True)), beyond)
    return replace(expected(decision, within), over=over)


def frames_dropped_unjudged(policy: ResolvedPolicy, hook: str) -> Ranges:
    """Return the destinations of frames that are dropped at links that nothing judges (§9.5)."""
    return (FRAMES_OF_PORTS,) if policy.drops_frames_of_ports and hook == "prerouting" else ()


ANSWERS_THAT_OPEN_NOTHING: tuple[Constraints, ...] = (
    ((PROTOCOL, ranges_of(ANSWERING)),),
    ((PROTOCOL, ranges_of([TCP.wire_number])), (TCP_FLAGS, without(((0, 255),), ranges_of(OPENING_FLAGS)))),
)
"""Which replies of entries that were opened over another link open no session here (§6.4)."""


REOPENING: Constraints = (
    (PROTOCOL, ranges_of([TCP.wire_number])),
    (TCP_FLAGS, ranges_of(OPENING_FLAGS)),
)
"""Which packets of answered entries may open a session in the place of an older one (§13.1)."""


def opens_nothing(packet: PacketAtHook) -> bool:
    """Return whether a reply can open no session, by its own header."""
    is_answer = packet.protocol == TCP.wire_number and packet.tcp_flags not in OPENING_FLAGS
    return packet.protocol in ANSWERING or is_answer


def _changed(mark: int, changes: Iterable[tuple[Cube, SetMark]]) -> int:
    return next(change.of(mark) for (bits, value), change in changes if mark & bits == value)


def carried_out(judge: ResolvedInterface, decision: Decision) -> Policy:
    """Return the verdict as the table carries it out: a link that is observed drops nothing (§9.1)."""
    return Policy.ACCEPT if judge.mode is Mode.OBSERVE else decision.verdict


@dataclass(frozen=True, slots=True, eq=False)
class BoxClause:
    """A clause of the decision list as a box."""

    clause: Clause
    place: int
    """In the order of deciding."""

    peers: AddressRanges | None
    """The far ends; None for any."""

    constraints: Constraints = ()


def list_box_clauses(judge: ResolvedInterface, direction: Direction, family: Family) -> tuple[BoxClause, ...]:
    """Return the clauses that can match a packet of the family; the default is none of them."""
    listed = ((clause, _constraints(clause)) for clause in list_clauses(judge, direction, family)[:-1])
    return tuple(
        BoxClause(
            clause, place, None if _are_everyone(clause.addresses, family) else clause.addresses, constraints
        )
        for place, (clause, constraints) in enumerate((*_always_allowed(direction, family), *listed))
    )


def _are_everyone(peers: AddressRanges, family: Family) -> bool:
    """Return whether far ends are all that there are; most are not even the first or the last."""
    if peers[0][0] != 0 or peers[-1][1] != family.last_address:
        return False
    return joined(peers) == ((0, family.last_address),)


def _constraints(clause: Clause) -> Constraints:
    found: list[tuple[str, Ranges]] = []
    if clause.protocols is not None:
        found.append((PROTOCOL, ranges_of(clause.protocols)))
    if not clause.ports.is_all:
        found.append((PORT, joined(clause.ports.ranges)))
    if not clause.source_ports.is_all:
        found.append((SOURCE_PORT, joined(clause.source_ports.ranges)))
    if clause.local is not None:
        found.append((NEAR_END, (clause.local,)))
    return (*found, *of_maker(clause))


def _always_allowed(direction: Direction, family: Family) -> Iterator[tuple[Clause, Constraints]]:
    """Yield the clauses of what a host needs to have an address at all, and their constraints (§7.1)."""
    dhcp = dhcp_clause(direction, family)
    protocol, port, source_port = _constraints(dhcp)
    yield dhcp, (protocol, source_port, port)
    if family is Family.IPV4:
        return
    allowed = partial(Clause, DecidedBy.ALWAYS, Policy.ACCEPT)
    everyone, near = ((0, family.last_address),), ((0, 0), LINK_LOCAL)
    icmpv6 = (PROTOCOL, ((ICMPV6.wire_number, ICMPV6.wire_number),))
    neighbours = (ICMP_TYPE, ranges_of(NEIGHBOUR_DISCOVERY_TYPES))
    yield allowed(everyone), (icmpv6, neighbours, (HOP_LIMIT, ((255, 255),)))
    listeners = (icmpv6, (ICMP_TYPE, ranges_of(MULTICAST_LISTENER_TYPES)), (HOP_LIMIT, ((1, 1),)))
    if direction is Direction.INGRESS:
        yield allowed(near), listeners
    else:
        yield allowed(everyone), (*listeners, (NEAR_END, near))


def cut(box: PacketSpace, clauses: Sequence[BoxClause]) -> Iterator[tuple[PacketSpace, BoxClause | None]]:
    """Cut a box by clauses, in order, into cells in which no clause has a border that could matter.

    Yields:
        Each cell with the clause that decides in it; None for the default. Every clause before that one
        matches no packet of the cell, and that one matches all.
    """
    waiting: list[tuple[PacketSpace, int]] = [(box, 0)]
    while waiting:
        part, first = waiting.pop()
        for number in range(first, len(clauses)):
            clause = clauses[number]
            if is_disjoint(part, clause.constraints):
                continue
            inside, outside = split(part, clause.constraints)
            if inside is not None:
                yield inside, clause
            waiting += ((piece, number + 1) for piece in outside)
            break
        else:
            yield part, None


class ClauseIndex:
    """Clauses by protocol and port."""

    def __init__(self, clauses: Sequence[BoxClause]) -> None:
        """Sort clauses into segments of ports."""
        self._portless = [clause for clause in clauses if _ports_of(clause) is None]
        spans = ((number, _ports_of(clause) or ()) for number, clause in enumerate(clauses))
        pieces = [(first, [clauses[one] for one in here]) for first, _, here in sweep(spans, LAST_PORT)]
        self._starts = [first for first, _ in pieces]
        self._segments = [here for _, here in pieces]

    def meeting(self, box: PacketSpace) -> tuple[BoxClause, ...]:
        """Return the clauses that match a packet of a box, in order."""
        found = {clause.place: clause for clause in self._portless}
        for first, last in box[PORT]:
            start = max(bisect_right(self._starts, first) - 1, 0)
            for segment in self._segments[start : bisect_right(self._starts, last)]:
                found.update((clause.place, clause) for clause in segment)
        return tuple(
            found[place] for place in sorted(found) if not is_disjoint(box, found[place].constraints)
        )


def _ports_of(clause: BoxClause) -> Ranges | None:
    return next((ranges for dimension, ranges in clause.constraints if dimension == PORT), None)


def restricted(
    judge: ResolvedInterface, direction: Direction, clauses: Iterable[BoxClause]
) -> ResolvedPolicy:
    """Return the policy of one interface, in one direction restricted to some of its clauses, in order."""
    toward = judge.toward(direction)
    listed = [one.clause for one in clauses]
    exempt = {clause.exemption for clause in listed if clause.exemption is not None}
    decided_by = {clause.decided_by for clause in listed}
    toward = replace(
        toward,
        platform=tuple(entry for entry in toward.platform if entry in exempt),
        failsafe=tuple(entry for entry in toward.failsafe if entry in exempt),
        inner=toward.inner if DecidedBy.INNER in decided_by else NO_ADDRESSES,
        rules=tuple(clause.rule for clause in listed if clause.rule is not None),
    )
    own = judge.own_addresses if DecidedBy.SPOOFED in decided_by else None
    return ResolvedPolicy(unbound=replace(judge.with_side(direction, toward), own_addresses=own))
