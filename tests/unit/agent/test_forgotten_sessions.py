"""What conntrack forgets of sessions that only the far end may open is restored, at a bounded cost."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from sgagent.agent.forgotten_sessions import (
    LONGEST_REST_SECONDS,
    MOST_LOOKED_UP,
    REST,
    ForgottenPort,
    ForgottenSessions,
)
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import HostFacts, Link
from sgagent.core.evaluate import Packet
from sgagent.core.model import TCP, Direction, GroupType, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.dataplane.live_sessions import TcpSession
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.unit.agent.test_forbidden_sessions import HOST, SESSION
from tests.words import ACCEPT, ADVANCED, BASIC, DROP, OUT, group, policy_of, rule

INWARDS = TrackedSession(mark=0, opened=Direction.EGRESS, original_zone=7)
"""As an answer finds it."""

FACTS = HostFacts(links=(Link(name="eth0", index=2, addresses=(HOST,)),))


def policy(kind: GroupType = ADVANCED, port: str = "22", mode: Mode = Mode.ENFORCE) -> ResolvedPolicy:
    """Return a policy that lets sessions in at a port."""
    made = policy_of(
        group("sg-1", rule("ssh", ACCEPT, TCP, port, "0.0.0.0/0"), group_type=kind), on={"eth0": "sg-1"}
    )
    return made.with_judges(lambda one: replace(one, mode=mode))


STEP = Step(outcome=StepEnd.APPLIED, policy=policy(), facts=FACTS)


@dataclass
class Kernel:
    """Be a kernel with sessions at listeners, and a conntrack."""

    sessions: list[TcpSession] = field(default_factory=lambda: [SESSION])
    tracked: TrackedSession | None = INWARDS
    link: int | None = 2
    listings: int = 0
    asked: int = 0
    restored: list[tuple[TcpSession, TrackedSession]] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    cost: float = 0.0
    fault: bool = False

    @property
    def port(self) -> ForgottenPort:
        """Return how it is asked."""
        return ForgottenPort(
            list_sessions=self.list,
            find=self.find,
            link_towards=lambda _session: self.link,
            restore=self.restore,
        )

    def list(self) -> Sequence[TcpSession]:
        """List the sessions at listeners."""
        self.listings += 1
        self.clock.pass_seconds(self.cost)
        if self.fault:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return self.sessions

    def find(self, packets: Sequence[Packet]) -> Sequence[TrackedSession | None]:
        """Return what conntrack knows."""
        self.asked += len(packets)
        return [self.tracked] * len(packets)

    def restore(self, session: TcpSession, known: TrackedSession) -> bool:
        """Restore a session."""
        self.restored.append((session, known))
        return True


def looking_at(kernel: Kernel, step: Step = STEP, log: FakeLog | None = None) -> ForgottenSessions:
    """Return what has looked once."""
    made = ForgottenSessions(log or FakeLog(), kernel.clock, kernel.port)
    made.follow(step)
    made.poll()
    return made


def test_a_session_that_conntrack_knew_and_forgot_is_restored() -> None:
    """As it was known: in its zones. The log says how many."""
    kernel, log = Kernel(), FakeLog()
    forgotten = looking_at(kernel, log=log)
    kernel.tracked = None
    forgotten.poll()
    assert kernel.restored == [(SESSION, INWARDS)]
    assert log.lines == [("sessions_restored", {"sessions": 1})]


@pytest.mark.parametrize(
    "known",
    (None, replace(INWARDS, opened=Direction.INGRESS), replace(INWARDS, is_translated=True)),
    ids=("unknown", "opened by this host", "translated"),
)
def test_what_was_not_known_as_opened_inwards_is_left(known: TrackedSession | None) -> None:
    """The socket alone does not show what is on the wire, nor who opened it."""
    kernel = Kernel(tracked=known)
    forgotten = looking_at(kernel)
    kernel.tracked = None
    forgotten.poll()
    assert kernel.restored == []


@pytest.mark.parametrize(
    "step",
    (
        replace(STEP, policy=policy(BASIC)),
        replace(STEP, policy=policy(port="23")),
        replace(STEP, policy=policy(mode=Mode.OBSERVE)),
        replace(STEP, facts=HostFacts()),
        Step(outcome=StepEnd.WAITING),
    ),
    ids=("the host may open it", "denied", "observed", "no link", "nothing is enforced"),
)
def test_only_sessions_that_the_far_end_alone_may_open_are_looked_up(step: Step) -> None:
    """Others go on with the host's next packet, or are not to go on."""
    kernel = Kernel()
    looking_at(kernel, step)
    assert kernel.asked == 0


def test_where_hosts_may_open_whatever_they_like_nothing_is_listed() -> None:
    """A drop rule outwards makes it worth a look."""
    kernel = Kernel()
    looking_at(kernel, replace(STEP, policy=policy(BASIC)))
    assert kernel.listings == 0
    rules = (
        rule("ssh", ACCEPT, TCP, "22", "0.0.0.0/0"),
        rule("no", DROP, TCP, "40000", "0.0.0.0/0", direction=OUT),
    )
    looking_at(kernel, replace(STEP, policy=policy_of(group("sg-1", *rules), on={"eth0": "sg-1"})))
    assert (kernel.listings, kernel.asked) == (1, 1)


def test_a_session_by_another_link_is_left() -> None:
    """A guest's packets to the address of a bound link do not pass that link (§2.3)."""
    kernel = Kernel(link=3)
    looking_at(kernel)
    assert kernel.asked == 0


def test_a_look_is_short_and_listings_are_rare_where_they_take_long() -> None:
    """All of them together take a twentieth of the time."""
    sessions = [replace(SESSION, peer_port=port) for port in range(1, MOST_LOOKED_UP + 11)]
    kernel = Kernel(sessions, cost=0.1)
    forgotten = looking_at(kernel)
    assert kernel.asked == MOST_LOOKED_UP
    forgotten.poll()
    assert kernel.asked == len(sessions)
    forgotten.poll()
    assert kernel.listings == 1
    kernel.clock.pass_seconds(0.1 * REST + 0.01)
    forgotten.poll()
    assert kernel.listings == 2


def test_a_look_that_takes_seconds_puts_off_the_next_for_half_a_minute_at_most() -> None:
    """As on a busy host, where the same work takes longer; sessions wait for it."""
    kernel = Kernel(cost=4.0)
    forgotten = looking_at(kernel)
    kernel.clock.pass_seconds(LONGEST_REST_SECONDS - 0.01)
    forgotten.poll()
    assert kernel.listings == 1
    kernel.clock.pass_seconds(0.02)
    forgotten.poll()
    assert kernel.listings == 2


def test_a_kernel_that_can_not_tell_ends_nothing() -> None:
    """The next look tries again."""
    kernel = Kernel(fault=True)
    forgotten = looking_at(kernel)
    kernel.fault = False
    forgotten.poll()
    assert kernel.asked == 1
