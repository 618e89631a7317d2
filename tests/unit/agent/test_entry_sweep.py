"""After a change, conntrack's entries are gone through a piece at a time, and no longer than a moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import pytest

from sgagent.agent.entry_sweep import FLOW_TABLE_SECONDS, EntrySweep, SweepReport
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import HostFacts, Link
from sgagent.core.conditions import Conditions, LocalUser
from sgagent.core.model import TCP, UDP, CidrBlock, Family, Protocol
from sgagent.core.policy import ResolvedInterface
from sgagent.core.tracked_sessions import ConntrackEntry
from sgagent.dataplane.conntrack_entries import Piece
from sgagent.dataplane.flow_tables import FlowTable
from sgagent.dataplane.live_sessions import Ending, TcpSession
from sgagent.nft.marks import EnforcementState, MarkLayout, MarkTest
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.unit.core.test_tracked_sessions import FAR, GUEST, HOST, entry, only
from tests.words import OUT

LAYOUT = MarkLayout(0xFFFF0000)
LINKS = tuple(
    Link(name=name, index=number, addresses=(CidrBlock.parse(address),))
    for number, (name, address) in enumerate((("eth0", "10.0.0.11"), ("docker0", "172.20.0.1")), start=1)
)
FACTS = HostFacts(links=LINKS)
STATE = EnforcementState(generation=2, slots=("eth0", None, None))
REVOKED = Step(outcome=StepEnd.APPLIED, policy=only("in"), facts=FACTS, may_cut=True, state=STATE)
SOCKET = TcpSession(
    family=Family.IPV4,
    local_address=HOST,
    local_port=500,
    peer_address=FAR,
    peer_port=500,
    inode=1,
    socket_family=2,
    identity=bytes(48),
)
TABLE = FlowTable("inet", "fast", "path", ("eth0",))


@dataclass
class Kernel:
    """Be a conntrack with entries, and flow tables."""

    entries: list[ConntrackEntry] = field(default_factory=list)
    tables: tuple[FlowTable, ...] = ()
    size: int = 2
    """Of a piece."""

    users: Collection[int | None] = ()
    """Who made the sockets of all sessions."""

    fault: OSError | None = None
    begun: list[tuple[tuple[MarkTest, ...], bool]] = field(default_factory=list)
    ended: list[ConntrackEntry] = field(default_factory=list)
    destroyed: list[TcpSession] = field(default_factory=list)
    _left: list[ConntrackEntry] = field(default_factory=list)

    def begin_entries(self, tests: Sequence[MarkTest], *, all_protocols: bool) -> None:
        """Begin."""
        self.begun.append((tuple(tests), all_protocols))
        self._left = list(self.entries)

    def next_entries(self) -> Piece:
        """Return the next piece."""
        if self.fault is not None:
            raise self.fault
        some, self._left = self._left[: self.size], self._left[self.size :]
        return Piece(tuple(some), is_last=not self._left)

    def end_entries(self, entries: Sequence[ConntrackEntry]) -> int:
        """End some."""
        self.ended += entries
        self.entries = [one for one in self.entries if one not in entries]
        return len(entries)

    def list_sockets(self) -> Self:
        """Return all sockets."""
        return self

    def of(self, entry: ConntrackEntry) -> Collection[TcpSession]:
        """Return the socket of a session."""
        del entry
        return (SOCKET,)

    def makers_of(self, entry: ConntrackEntry) -> Collection[tuple[int | None, int | None]]:
        """Return who made the sockets of a session."""
        del entry
        return [(user, None) for user in self.users]

    def destroy(self, session: TcpSession) -> Ending:
        """End one."""
        self.destroyed.append(session)
        return Ending.ENDED

    def list_flow_tables(self) -> tuple[FlowTable, ...]:
        """List them."""
        return self.tables


def link_towards(_family: Family, peer: int, _source: int | None) -> int | None:
    """Return the link towards an address."""
    return {FAR: 1, GUEST: 2}.get(peer)


def sweep_on(kernel: Kernel, log: FakeLog | None = None, clock: FakeClock | None = None) -> EntrySweep:
    """Return what sweeps."""
    return EntrySweep(log or FakeLog(), clock or FakeClock(), kernel, LAYOUT, link_towards)


def test_after_a_change_the_locked_out_are_ended_and_no_others() -> None:
    """One line in the log says how many."""
    log, allowed, locked_out = FakeLog(), entry(FAR, HOST), entry(HOST, FAR)
    kernel = Kernel([allowed, locked_out, replace(locked_out, identity=2), allowed])
    sweep = sweep_on(kernel, log)
    sweep.follow(REVOKED)
    sweep.poll()
    assert kernel.entries == [allowed, allowed]
    assert log.lines == [("conntrack_entries_ended", {"entries": 2, "offloaded": 0})]
    assert sweep.report == SweepReport(ended=2)


def test_entries_that_the_policy_in_force_has_allowed_are_not_listed() -> None:
    """Their marks say so; of another generation they say nothing."""
    kernel = Kernel()
    sweep_on(kernel).follow(REVOKED)
    (((test,), all_protocols),) = kernel.begun
    assert not all_protocols
    assert test.is_met_by(LAYOUT.generation_bits(2) | 0x20000)
    assert not test.is_met_by(LAYOUT.generation_bits(1) | 0x20000)
    assert not test.is_met_by(LAYOUT.generation_bits(2) | 0x10000)


def test_a_session_that_was_accepted_at_another_link_is_left() -> None:
    """Rules of others choose links by marks, which the routes do not show; so it may go on there."""
    state = replace(STATE, slots=("eth0", "eth1", None))
    here, elsewhere = (
        replace(entry(HOST, FAR), mark=LAYOUT.generation_bits(1) | LAYOUT.direction_bit(slot, OUT))
        for slot in (0, 1)
    )
    kernel = Kernel([here, elsewhere])
    sweep = sweep_on(kernel)
    sweep.follow(replace(REVOKED, state=state))
    sweep.poll()
    assert kernel.entries == [elsewhere]


def test_a_look_is_short() -> None:
    """What remains is for the next one, which comes at once."""
    kernel = Kernel([replace(entry(HOST, FAR), identity=number) for number in range(6)])
    sweep = sweep_on(kernel, clock=FakeClock(seconds_of_a_look=1))
    sweep.follow(REVOKED)
    for ended in (2, 4, 6):
        assert sweep.is_busy
        sweep.poll()
        assert len(kernel.ended) == ended
    assert not sweep.is_busy


@pytest.mark.parametrize(
    ("entries", "step", "sweeps"),
    (
        ([], replace(REVOKED), 1),
        ([], replace(REVOKED, policy=only("in", "out"), may_cut=False), 1),
        ([], replace(REVOKED, policy=only("in", "out")), 2),
        ([], replace(REVOKED, policy=only("in", "out"), may_cut=False, is_first_table=True), 2),
        ([entry(FAR, HOST)], replace(REVOKED, policy=only("in", "out"), may_cut=False), 2),
        ([entry(FAR, HOST)], replace(REVOKED, facts=HostFacts(), may_cut=False), 2),
        ([entry(FAR, HOST)], replace(REVOKED, outcome=StepEnd.UNCHANGED, may_cut=False), 1),
    ),
)
def test_a_sweep_follows_what_may_concern_it(entries: list[ConntrackEntry], step: Step, sweeps: int) -> None:
    """The first step of an agent too: the one before may have died before it swept."""
    kernel = Kernel(entries)
    sweep = sweep_on(kernel)
    sweep.follow(replace(REVOKED, may_cut=False))
    sweep.poll()
    sweep.follow(step)
    sweep.poll()
    assert len(kernel.begun) == sweeps


def test_a_change_under_way_is_judged_by_the_newest_policy() -> None:
    """A sweep that it finds begins again."""
    kernel = Kernel([entry(HOST, FAR)])
    sweep = sweep_on(kernel)
    sweep.follow(REVOKED)
    sweep.follow(replace(REVOKED, policy=only("in", "out"), may_cut=False))
    sweep.poll()
    assert kernel.ended == []
    assert len(kernel.begun) == 2


def test_nothing_is_ended_where_nothing_is_known_to_be_enforced() -> None:
    """A trial was given up on a host without definitions (§9.2)."""
    kernel = Kernel([entry(HOST, FAR)])
    sweep = sweep_on(kernel)
    sweep.follow(REVOKED)
    sweep.follow(Step(outcome=StepEnd.WAITING))
    sweep.poll()
    assert kernel.ended == []


def test_a_kernel_that_can_not_list_is_named_once_and_asked_again() -> None:
    """At the next change."""
    kernel, log = (
        Kernel([entry(HOST, FAR)], fault=OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))),
        FakeLog(),
    )
    sweep = sweep_on(kernel, log)
    for policy in (only("in"), only("in")):
        sweep.follow(replace(REVOKED, policy=policy))
        sweep.poll()
        assert not sweep.is_busy
    assert log.events() == ["conntrack_not_listed"]
    kernel.fault = None
    sweep.follow(replace(REVOKED, policy=only("in"), may_cut=False))
    sweep.poll()
    assert len(kernel.ended) == 1


def tcp(source: int, destination: int, *, is_offloaded: bool = False) -> ConntrackEntry:
    """Return an entry of TCP."""
    return replace(entry(source, destination, TCP), is_offloaded=is_offloaded)


def test_with_flow_tables_every_revoked_session_of_others_is_ended() -> None:
    """One that is not offloaded now may be with its next packet. The host's own never are."""
    log = FakeLog()
    guests, own, allowed = tcp(GUEST, FAR), tcp(HOST, FAR), tcp(FAR, GUEST)
    kernel = Kernel([guests, own, allowed, entry(GUEST, FAR)], tables=(TABLE,))
    sweep = sweep_on(kernel, log)
    policy = only("in", protocol=TCP)
    sweep.follow(replace(REVOKED, policy=policy))
    sweep.poll()
    assert kernel.begun == [((), True)]
    assert kernel.entries == [own, allowed]
    assert log.events() == ["flow_tables_found", "conntrack_entries_ended"]
    assert log.lines[0][1] == {"flow_tables": ["inet fast path (eth0)"]}
    sweep.follow(replace(REVOKED, policy=only("in", protocol=TCP)))
    sweep.poll()
    assert log.events() == ["flow_tables_found", "conntrack_entries_ended"]
    assert sweep.report.flow_tables == (TABLE,)


def test_an_offloaded_session_is_ended_though_no_flow_table_is_listed() -> None:
    """Others than nftables have some, too."""
    kernel, log = Kernel([tcp(GUEST, FAR, is_offloaded=True), tcp(FAR, GUEST, is_offloaded=True)]), FakeLog()
    sweep = sweep_on(kernel, log)
    sweep.follow(replace(REVOKED, policy=only("in", protocol=TCP)))
    sweep.poll()
    assert [one.original.source for one in kernel.ended] == [GUEST]
    assert log.lines == [("conntrack_entries_ended", {"entries": 1, "offloaded": 1})]


def test_a_flow_table_that_comes_later_has_revoked_sessions_ended() -> None:
    """Packets of what was only dropped would pass by it; one that stays, or goes, is no news."""
    kernel, clock, log = Kernel([tcp(GUEST, FAR)]), FakeClock(), FakeLog()
    sweep = sweep_on(kernel, log, clock)
    sweep.follow(replace(REVOKED, policy=only("in", protocol=TCP)))
    sweep.poll()
    assert kernel.ended == []
    for tables, ended, sweeps in (((TABLE,), 1, 2), ((TABLE,), 1, 2), ((), 1, 2)):
        kernel.tables = tables
        sweep.poll()
        clock.pass_seconds(FLOW_TABLE_SECONDS)
        sweep.poll()
        assert (len(kernel.ended), len(kernel.begun)) == (ended, sweeps)
        assert sweep.report.flow_tables == tables


def of_user(protocol: Protocol) -> Step:
    """Return the step of a policy that lets the sockets of user 1000 open sessions."""
    policy = only("out", protocol=protocol)
    conditions = Conditions(local=LocalUser(name="deploy", number=1000))
    judges = (one.egress.rules for one in policy.interfaces)
    rules = {rule.rule_id: replace(rule, conditions=conditions) for some in judges for rule in some}

    def change(judge: ResolvedInterface) -> ResolvedInterface:
        return replace(judge, egress=replace(judge.egress, rules=tuple(rules.values())))

    return replace(REVOKED, policy=policy.with_judges(change))


@pytest.mark.parametrize("protocol", (UDP, TCP))
@pytest.mark.parametrize(
    ("users", "goes_on"),
    (((1000,), True), ((1001,), False), ((None,), False), ((1001, 1000), True), ((), True)),
)
def test_sessions_of_users_end(protocol: Protocol, users: tuple[int | None, ...], *, goes_on: bool) -> None:
    """Its answers don't show that; TCP's socket ends as well (§6.3, §13.3). If nothing is known it stays."""
    kernel = Kernel([entry(HOST, FAR, protocol)], users=users)
    sweep = sweep_on(kernel)
    sweep.follow(of_user(protocol))
    sweep.poll()
    assert bool(kernel.entries) is goes_on
    assert bool(kernel.destroyed) is (protocol == TCP and not goes_on)
    assert kernel.begun[0][1], "all protocols are listed"


def test_what_is_forwarded_is_no_user_s() -> None:
    """Whoever has a socket with the same ends here."""
    kernel = Kernel([entry(GUEST, FAR)], users=(1000,))
    sweep = sweep_on(kernel)
    sweep.follow(of_user(UDP))
    sweep.poll()
    assert not kernel.entries
    assert not kernel.destroyed
