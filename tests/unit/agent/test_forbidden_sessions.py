"""Sessions that nobody followed are named and ended, and a kernel that can't do that ends no agent."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import pytest

from sgagent.agent.sessions import (
    MOST_ASKED_FOR,
    MOST_LOOKED_AT,
    RevokedSessions,
    SessionPort,
    end_forbidden_sessions,
)
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import HostFacts, Link
from sgagent.core.errors import NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import CidrBlock, Direction, Family, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.live_sessions import Ending, TcpSession, link_towards
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog

HOST = CidrBlock.parse("10.0.0.11")
SESSION = TcpSession(
    family=Family.IPV4,
    local_address=HOST.first,
    local_port=22,
    peer_address=CidrBlock.parse("198.51.100.7").first,
    peer_port=40_000,
    inode=7,
    socket_family=2,
    identity=bytes(48),
)


def closed(mode: Mode = Mode.ENFORCE) -> Step:
    """Return a step that made the table of a host on which nothing gets in."""
    link = Link(name="eth0", index=2, addresses=(HOST,))
    policy = ResolvedPolicy(interfaces=(closed_interface("eth0", Exemptions(), mode),))
    return Step(outcome=StepEnd.APPLIED, policy=policy, facts=HostFacts(links=(link,)))


def refuse(_session: TcpSession) -> Ending:
    """Be a kernel that does not let us."""
    raise NotPermittedError("sessions can be ended only with CAP_NET_ADMIN")


def forget(packets: Sequence[Packet]) -> list[TrackedSession | None]:
    """Be a conntrack that followed no session."""
    return [None] * len(packets)


def port_of(
    destroy: Callable[[TcpSession], Ending], list_sessions: Callable[[], list[TcpSession]] = lambda: [SESSION]
) -> SessionPort:
    """Return a kernel with a session whose packets leave by the link with its address."""
    return SessionPort(
        find=forget, destroy=destroy, list_sessions=list_sessions, link_towards=lambda _session: 2
    )


def test_a_session_by_another_link_is_left_to_the_kernel() -> None:
    """A guest's packets to the address of a bound link do not pass that link (§2.3)."""
    log = FakeLog()
    end_forbidden_sessions(closed(), log, replace(port_of(refuse), link_towards=lambda _session: 3))
    assert not log.lines


def test_a_session_that_conntrack_followed_is_left_to_the_kernel() -> None:
    """It is evaluated there by what is on the wire: its port may be redirected to that of the socket."""
    kernel, log = Kernel([SESSION]), FakeLog()
    end_forbidden_sessions(closed(), log, kernel.port)
    assert (kernel.ended, log.lines) == ([], [])


def test_a_forbidden_session_is_ended_and_named() -> None:
    """The log says which session, why, and what came of it."""
    log, ended = FakeLog(), []

    def destroy(session: TcpSession) -> Ending:
        ended.append(session)
        return Ending.ENDED

    end_forbidden_sessions(closed(), log, port_of(destroy))
    assert ended == [SESSION]
    ((event, keys),) = log.lines
    assert (event, keys["ending"]) == ("session_cut", "ended")
    assert (keys["peer"], keys["local_port"]) == ("198.51.100.7", 22)


def test_observing_ends_nothing() -> None:
    """In observe mode the session is named only; a destroy would fail the test."""
    log = FakeLog()
    end_forbidden_sessions(closed(Mode.OBSERVE), log, port_of(refuse))
    assert log.events() == ["session_would_be_cut"]


def test_a_kernel_that_ends_no_sessions_is_named() -> None:
    """What can't be ended is said to go on, and the agent goes on too."""
    log = FakeLog()
    end_forbidden_sessions(closed(), log, port_of(refuse))
    ((event, keys),) = log.lines
    assert event == "session_cut"
    assert "CAP_NET_ADMIN" in str(keys["ending"])


def test_a_kernel_that_lists_no_sessions_is_named() -> None:
    """Without socket diagnosis in the kernel the rules stand all the same."""
    log = FakeLog()

    def list_sessions() -> list[TcpSession]:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    end_forbidden_sessions(closed(), log, port_of(refuse, list_sessions))
    ((event, keys),) = log.lines
    assert (event, keys) == ("sessions_not_listed", {"reason": "[Errno 2] No such file or directory"})


@dataclass(slots=True)
class Kernel:
    """Be a kernel with open sessions, and a conntrack that knows some of them."""

    sessions: list[TcpSession]
    opened: Direction | None = Direction.INGRESS
    """Which way conntrack thinks that they were opened; None where it has forgotten them."""

    is_opening_seen: bool = False
    is_translated: bool = False
    asked: list[Packet] = field(default_factory=list)
    ended: list[TcpSession] = field(default_factory=list)
    listings: int = 0

    @property
    def port(self) -> SessionPort:
        """Return what knows and ends its sessions, which leave by the link with their address."""
        return SessionPort(
            find=self.find, destroy=self.destroy, list_sessions=self.list, link_towards=lambda _session: 2
        )

    def list(self) -> Sequence[TcpSession]:
        """List the sessions at listeners."""
        self.listings += 1
        return self.sessions

    def find(self, packets: Sequence[Packet]) -> Sequence[TrackedSession | None]:
        """Return the sessions of answers, looked up as if they came in: the other way round."""
        self.asked += packets
        if self.opened is None:
            return [None] * len(packets)
        turned = Direction.EGRESS if self.opened is Direction.INGRESS else Direction.INGRESS
        found = TrackedSession(
            mark=0, opened=turned, is_opening_seen=self.is_opening_seen, is_translated=self.is_translated
        )
        return [found] * len(packets)

    def destroy(self, session: TcpSession) -> Ending:
        """End a session."""
        self.ended.append(session)
        return Ending.ENDED


def looking_at(kernel: Kernel, log: FakeLog | None = None, step: Step | None = None) -> RevokedSessions:
    """Return what watches the sessions of a kernel, and has looked since a step, by default a closing one."""
    revoked = RevokedSessions(log or FakeLog(), FakeClock(), kernel.port)
    revoked.follow(step or closed())
    revoked.poll()
    return revoked


@pytest.mark.parametrize("opened", (None, Direction.EGRESS))
def test_a_revoked_session_is_ended_once_conntrack_does_not_know_it(opened: Direction | None) -> None:
    """Until then it is left: it goes on if it is allowed again (§6.3)."""
    kernel, log = Kernel([SESSION]), FakeLog()
    revoked = looking_at(kernel, log)
    assert not kernel.ended
    assert [(p.source, p.source_port, p.destination_port) for p in kernel.asked] == [(HOST.first, 22, 40_000)]
    kernel.opened = opened
    revoked.poll()
    revoked.poll()
    assert kernel.ended == [SESSION]
    assert kernel.listings == 1
    assert log.events() == ["session_cut"]


def test_a_session_that_the_host_opened_from_a_listeners_port_is_left() -> None:
    """Conntrack has seen it open; rules for the other way don't apply to it (§6.1), nor later on."""
    kernel = Kernel([SESSION], opened=Direction.EGRESS, is_opening_seen=True)
    revoked = looking_at(kernel)
    kernel.opened = None
    revoked.poll()
    assert not kernel.ended


def test_a_translated_session_is_left_for_good() -> None:
    """Its socket does not show what is on the wire: a port that is allowed may be redirected (§2.2)."""
    kernel = Kernel([SESSION], is_translated=True)
    revoked = looking_at(kernel)
    kernel.opened = None
    revoked.poll()
    assert len(kernel.asked) == 1
    assert not kernel.ended


def test_a_session_is_left_where_nothing_is_known_to_be_enforced_any_more() -> None:
    """A trial was given up on a host without definitions (§9.2)."""
    kernel = Kernel([SESSION])
    revoked = looking_at(kernel)
    kernel.opened = None
    revoked.follow(Step(outcome=StepEnd.WAITING))
    revoked.poll()
    assert not kernel.ended
    revoked.follow(closed())
    revoked.poll()
    assert kernel.ended == [SESSION]


def test_a_revoked_session_whose_address_moves_is_evaluated_again() -> None:
    """At a link that is not bound nothing is forbidden."""
    kernel, shut = Kernel([SESSION]), closed()
    revoked = looking_at(kernel, step=shut)
    kernel.opened = None
    link = Link(name="eth1", index=2, addresses=(HOST,))
    revoked.follow(replace(shut, outcome=StepEnd.UNCHANGED, facts=HostFacts(links=(link,))))
    revoked.poll()
    assert not kernel.ended


def test_sessions_are_listed_again_only_after_a_change_that_matters() -> None:
    """One that may cut some, or any while some are revoked; what is allowed again is left alone."""
    kernel = Kernel([SESSION])
    shut = closed()
    revoked = looking_at(kernel, step=shut)
    for step, listings in (
        (shut, 1),
        (replace(shut, outcome=StepEnd.UNCHANGED), 1),
        (replace(shut, policy=ResolvedPolicy()), 2),
        (replace(shut, policy=ResolvedPolicy()), 2),
        (replace(closed(), may_cut=True), 3),
    ):
        revoked.follow(step)
        revoked.poll()
        assert kernel.listings == listings
        kernel.opened = Direction.INGRESS
    assert not kernel.ended


def test_an_observed_session_is_left_whatever_conntrack_knows() -> None:
    """Its packets pass (§9.1)."""
    kernel = Kernel([SESSION], opened=None)
    looking_at(kernel, step=closed(Mode.OBSERVE))
    assert not kernel.ended


def test_a_look_asks_for_so_many() -> None:
    """The others have their turn at the next one."""
    sessions = [replace(SESSION, peer_port=port) for port in range(1, MOST_ASKED_FOR + 11)]
    kernel = Kernel(sessions)
    revoked = looking_at(kernel)
    assert len(kernel.asked) == MOST_ASKED_FOR
    kernel.opened = None
    revoked.poll()
    assert [one.peer_port for one in kernel.ended[:11]] == [
        *range(MOST_ASKED_FOR + 1, MOST_ASKED_FOR + 11),
        1,
    ]
    revoked.poll()
    assert len(kernel.ended) == len(sessions)


def test_a_look_is_short() -> None:
    """It leaves sessions to the next one, logins not."""
    sessions = [replace(SESSION, local_port=443, peer_port=port) for port in range(1, 2 * MOST_LOOKED_AT)]
    kernel = Kernel([*sessions, SESSION], opened=None)
    revoked = RevokedSessions(FakeLog(), FakeClock(seconds_of_a_look=60), kernel.port)
    revoked.follow(closed())
    for seen in (MOST_LOOKED_AT, len(kernel.sessions)):
        revoked.poll()
        assert len(kernel.ended) == seen
        assert kernel.ended[0] is SESSION


def test_a_kernel_that_can_not_tell_ends_no_session() -> None:
    """No session is ended, and the agent goes on."""

    def fail(*_of: object) -> NoReturn:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    kernel = Kernel([SESSION])
    for revoked in (
        RevokedSessions(FakeLog(), FakeClock(), replace(kernel.port, list_sessions=fail)),
        RevokedSessions(FakeLog(), FakeClock(), replace(kernel.port, find=fail)),
    ):
        revoked.follow(closed())
        revoked.poll()
    assert not kernel.ended


def test_a_kernel_that_can_not_list_sessions_is_asked_again() -> None:
    """It may have had no memory at that moment."""
    kernel, refusals = Kernel([SESSION], opened=None), [OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))]

    def list_sessions() -> Sequence[TcpSession]:
        if refusals:
            raise refusals.pop()
        return kernel.list()

    revoked = RevokedSessions(FakeLog(), FakeClock(), replace(kernel.port, list_sessions=list_sessions))
    revoked.follow(closed())
    revoked.poll()
    revoked.poll()
    assert kernel.ended == [SESSION]


@pytest.mark.parametrize(("number", "link"), ((3, 3), (0, None)))
def test_the_socket_says_by_which_link_a_link_local_session_passes(number: int, link: int | None) -> None:
    """Links with one MAC address, like a VLAN and the link below it, have the same link-local address."""
    ends = {"local_address": 0xFE80 << 112 | 1, "peer_address": 0xFE80 << 112 | 2}
    identity = bytes(36) + struct.pack("=I", number) + bytes(8)
    assert link_towards(replace(SESSION, family=Family.IPV6, identity=identity, **ends)) == link
