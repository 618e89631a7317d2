"""The sweep over conntrack's entries after a change, which ends those that dropping does not (§6.3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

from sgagent.agent.step import EventLog, FaultLog, Step
from sgagent.compiler.selectors import has_units
from sgagent.core.binding import HostFacts
from sgagent.core.conditions import ControlGroup
from sgagent.core.errors import NotPermittedError
from sgagent.core.model import TCP, Direction, Family
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.tracked_sessions import ConntrackEntry, EntryJudge
from sgagent.dataplane.conntrack_entries import Piece
from sgagent.dataplane.flow_tables import FlowTable
from sgagent.dataplane.live_sessions import Ending, TcpSession
from sgagent.nft.marks import UNCACHED, EnforcementState, MarkLayout, MarkTest, allowed_marks
from sgagent.ports import Clock

SWEEP_SECONDS = 0.05
"""After which a look leaves what remains to the next one."""

FLOW_TABLE_SECONDS = 30.0
"""Between looks for flow tables while nothing changes."""


class Sockets(Protocol):
    """The sockets of this host at one moment."""

    def of(self, entry: ConntrackEntry) -> Collection[TcpSession]:
        """Return those that a session of this host may be of."""

    def makers_of(self, entry: ConntrackEntry) -> Collection[tuple[int | None, int | None]]:
        """Return the user who may have made its socket, and the kernel's identity of the control group."""


class Entries(Protocol):
    """Conntrack's entries, and the flow tables that forward packets of some; may raise OSError."""

    def begin_entries(self, tests: Sequence[MarkTest], *, all_protocols: bool) -> None:
        """Begin to list entries, but for those whose mark meets a test."""

    def next_entries(self) -> Piece:
        """Return the next piece of the listing."""

    def end_entries(self, entries: Sequence[ConntrackEntry]) -> int:
        """End entries, and return how many there still were."""

    def list_flow_tables(self) -> tuple[FlowTable, ...]:
        """Return the flow tables, sorted."""

    def list_sockets(self) -> Sockets:
        """Return the host's sockets, as they are now."""

    def destroy(self, session: TcpSession) -> Ending:
        """End a session at once; may raise NotPermittedError."""


FindLink = Callable[[Family, int, int | None], int | None]
"""Returns the number of the link by which packets to an address leave, from an address of this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """The findings and the ended entries of the sweeps since the agent started."""

    flow_tables: tuple[FlowTable, ...] = ()
    """As they were seen last."""

    ended: int = 0
    """Entries."""


@dataclass(slots=True)
class _Sweep:
    """A sweep that is under way."""

    judge: EntryJudge
    own: frozenset[tuple[Family, int]]
    """This host's addresses."""

    has_flow_tables: bool
    sockets: Sockets | None
    """None where no rule is for a user or unit."""

    groups: Mapping[int, ControlGroup]
    """By identity; none where no rule is for a unit."""

    seen: int = 0
    ended: int = 0
    offloaded: int = 0
    """Of those that were ended."""

    def is_doomed(self, entry: ConntrackEntry) -> bool:
        """Return whether an entry has to be ended."""
        if entry.is_offloaded or (self.has_flow_tables and self._is_forwarded(entry)):
            return self.judge.is_revoked(entry)
        return self.judge.is_locked_out(entry) or self.is_of_revoked_user(entry)

    def is_of_revoked_user(self, entry: ConntrackEntry) -> bool:
        """Return whether an entry is of a session that its user may not have any more (§13.3)."""
        if self.sockets is None:
            return False
        is_own = (entry.family, entry.original.source) in self.own
        made = self.sockets.makers_of(entry) if is_own else ((None, None),)
        return self.judge.is_of_revoked_user(entry, [(user, self._number(group)) for user, group in made])

    def _number(self, identity: int | None) -> int | None:
        """Return the number of a control group; None of one that is gone, or where nobody asks."""
        group = None if identity is None else self.groups.get(identity)
        return None if group is None else group.number

    def sockets_of(self, entry: ConntrackEntry) -> Collection[TcpSession]:
        """Return the sockets of TCP to end with an entry: a closing one would let answers in (§6.3)."""
        if self.sockets is None or entry.protocol != TCP.wire_number or self._is_forwarded(entry):
            return ()
        return self.sockets.of(entry) if self.is_of_revoked_user(entry) else ()

    def _is_forwarded(self, entry: ConntrackEntry) -> bool:
        return not any((entry.family, ends.source) in self.own for ends in (entry.original, entry.reply))


class EntrySweep:
    """After each change, go through conntrack's entries, a piece at a time."""

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        entries: Entries,
        layout: MarkLayout,
        find_link: FindLink,
    ) -> None:
        """Take the log, the clock, the entries, our bits of marks, and the look-up of routes."""
        self._log = log
        self._clock = clock
        self._entries = entries
        self._layout = layout
        self._find_link = find_link
        self._step: Step | None = None
        self._state: EnforcementState | None = None
        self._may_be_left = True
        """Whether the last sweep has seen entries that the policy in force has not allowed yet."""

        self._sweep: _Sweep | None = None
        self._faults = FaultLog(log.warning)
        self._tables_due = 0.0
        """When to look for flow tables, by the monotonic clock."""

        self.report = SweepReport()
        """May be read from any thread; replaced whole."""

    @property
    def is_busy(self) -> bool:
        """Return whether a sweep is under way."""
        return self._sweep is not None

    def follow(self, step: Step) -> None:
        """Note a step; after one that may have revoked sessions, or allowed remaining ones, sweep."""
        before, self._step = self._step, step
        self._state = step.state or self._state
        is_known = before is not None and before.policy is step.policy and before.facts == step.facts
        if step.policy is None:
            self._sweep = None
        elif not is_known and (step.may_cut or step.is_first_table or self._may_be_left):
            self._sweep = self._begun(step.policy, step.facts)

    def poll(self) -> None:
        """Go on with the sweep; without one, see now and then whether there are flow tables."""
        if self._sweep is None:
            self._find_flow_tables()
        end = self._clock.monotonic() + SWEEP_SECONDS
        while self._sweep is not None:
            try:
                self._go_on(self._sweep)
            except OSError as error:
                self._give_up(error)
            if self._clock.monotonic() >= end:
                return

    def _find_flow_tables(self) -> None:
        """Sweep where another flow table has come: packets of revoked sessions may pass our hooks now."""
        step = self._step
        if step is None or step.policy is None or self._clock.monotonic() < self._tables_due:
            return
        self._tables_due = self._clock.monotonic() + FLOW_TABLE_SECONDS
        before = self.report.flow_tables
        try:
            self._note(self._entries.list_flow_tables())
        except OSError as error:
            self._give_up(error)
        if not set(self.report.flow_tables) <= set(before):
            self._sweep = self._begun(step.policy, step.facts)

    def _begun(self, policy: ResolvedPolicy, facts: HostFacts) -> _Sweep | None:
        """Begin a sweep; entries that the policy in force has allowed are only listed for flow tables."""
        try:
            tables = self._entries.list_flow_tables()
            self._note(tables)
            tests = () if tables else tuple(self._allowed_marks())
            has_users = any(judge.egress.has_users for judge in policy.judges)
            self._entries.begin_entries(tests, all_protocols=bool(tables) or has_users)
            sockets = self._entries.list_sockets() if has_users else None
            groups = facts.find_local.list_groups() if any(map(has_units, policy.judges)) else {}
        except OSError as error:
            self._give_up(error)
            return None
        names = {link.index: link.name for link in facts.links}
        own = frozenset((one.family, one.first) for link in facts.links for one in link.addresses)

        @cache
        def towards(family: Family, peer: int, near: int) -> str | None:
            number = self._find_link(family, peer, near if (family, near) in own else None)
            return None if number is None else names.get(number)

        def find_link(entry: ConntrackEntry, direction: Direction) -> str | None:
            ends = entry.original if direction is Direction.INGRESS else entry.reply
            link = towards(entry.family, ends.source, ends.destination)
            return link if link is None or self._may_pass(entry.mark, link, direction) else None

        return _Sweep(EntryJudge(policy, find_link), own, bool(tables), sockets, groups)

    def _may_pass(self, mark: int, link: str, direction: Direction) -> bool:
        """Return whether the mark lets a session be one that was opened in the direction through the link.

        A route does not tell the link where rules of others choose it by a mark. What was accepted elsewhere,
        and not here, by whatever policy, passes there.
        """
        state, layout = self._state or UNCACHED, self._layout
        here = state.slot(link)
        bits = [layout.direction_bit(slot, direction) for slot in range(len(state.slots))]
        return here is None or not any(mark & bit for bit in bits) or bool(mark & bits[here])

    def _allowed_marks(self) -> Iterator[MarkTest]:
        """Yield tests for the marks of sessions that the policy in force has allowed outwards."""
        state = self._state or UNCACHED
        for name in filter(None, state.slots):
            test = allowed_marks(name, Direction.EGRESS, self._layout, state)
            if test is not None:
                yield test

    def _go_on(self, sweep: _Sweep) -> None:
        """Look at the next piece."""
        piece = self._entries.next_entries()
        doomed = [entry for entry in piece.entries if sweep.is_doomed(entry)]
        sweep.seen += len(piece.entries)
        sweep.offloaded += sum(entry.is_offloaded for entry in doomed)
        sweep.ended += self._entries.end_entries(doomed)
        for session in (one for entry in doomed for one in sweep.sockets_of(entry)):
            with suppress(NotPermittedError):
                self._entries.destroy(session)
        if piece.is_last:
            self._finish(sweep)

    def _finish(self, sweep: _Sweep) -> None:
        self._sweep = None
        self._faults.log("conntrack_not_listed")
        self._may_be_left = sweep.seen > 0
        self.report = replace(self.report, ended=self.report.ended + sweep.ended)
        if sweep.ended:
            self._log.info("conntrack_entries_ended", entries=sweep.ended, offloaded=sweep.offloaded)

    def _give_up(self, error: OSError) -> None:
        """End no entries until the next change."""
        self._sweep, self._may_be_left = None, True
        self._faults.log("conntrack_not_listed", str(error))

    def _note(self, tables: tuple[FlowTable, ...]) -> None:
        """Log the flow tables, once as long as they stay."""
        if tables and tables != self.report.flow_tables:
            self._log.warning("flow_tables_found", flow_tables=list(map(str, tables)))
        self.report = replace(self.report, flow_tables=tables)
