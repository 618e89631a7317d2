"""Open sessions are named before a change cuts them."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import NoReturn

from sgagent.agent.sessions import MOST_LOOKED_AT, MOST_NAMED, CutPreview
from sgagent.core.binding import HostFacts, Link
from sgagent.core.lockout import LiveSession, NamedCut, SessionKind
from sgagent.core.model import TCP, CidrBlock, Direction, Family
from sgagent.core.tracked_sessions import FlowTuple
from sgagent.dataplane.conntrack import TrackedSession
from tests.fakes.log import FakeLog
from tests.unit.agent.test_forbidden_sessions import forget
from tests.words import ACCEPT, DROP, OUT, group, policy_of, rule

HOST = CidrBlock.parse("10.0.0.11")
FACTS = HostFacts(links=(Link(name="eth0", index=2, addresses=(HOST,)),))
LOGIN = LiveSession(
    family=Family.IPV4,
    local_address=HOST.first,
    local_port=22,
    peer_address=CidrBlock.parse("198.51.100.7").first,
    peer_port=40_000,
    kind=SessionKind.MANAGEMENT,
)
OPEN = policy_of(group("sg-1", rule("ssh", ACCEPT, TCP, "22", "0.0.0.0/0")), on={"eth0": "sg-1"})
CLOSED = policy_of(group("sg-1", rule("ssh", DROP, TCP, "22", "0.0.0.0/0")), on={"eth0": "sg-1"})


def test_a_session_that_will_be_cut_is_named() -> None:
    """With what it is, its interface and the rule."""
    log = FakeLog()
    (cut,) = CutPreview(log, lambda: [LOGIN], forget).cuts(OPEN, CLOSED, FACTS)
    assert cut == NamedCut(
        interface="eth0",
        kind=SessionKind.MANAGEMENT,
        opened=Direction.INGRESS,
        peer="198.51.100.7",
        peer_port=40_000,
        local="10.0.0.11",
        local_port=22,
        decided_by="rule",
        rule_id="ssh",
    )
    assert str(cut) == "the login from 198.51.100.7 port 40000 to port 22 on eth0, by rule ssh"
    ((event, keys),) = log.lines
    assert (event, keys["kind"]) == ("session_cut_foreseen", "management")
    assert (keys["opened"], keys["rule_id"]) == ("ingress", "ssh")


def test_the_agents_own_session_is_named_by_the_far_end() -> None:
    """It has no port of this host that a person knows."""
    mine = replace(LOGIN, opened=OUT, kind=SessionKind.SOURCE, local_port=40_001, peer_port=443)
    closed = policy_of(
        group("sg-1", rule("no", DROP, TCP, "443", "0.0.0.0/0", direction=OUT)), on={"eth0": "sg-1"}
    )
    (cut,) = CutPreview(FakeLog(), lambda: [mine], forget).cuts(OPEN, closed, FACTS)
    assert str(cut) == "the agent's own session to 198.51.100.7 port 443 on eth0, by rule no"


def test_a_change_that_the_kernel_refuses_says_it_once() -> None:
    """It is tried again and again; a session that came since is news, and so is what another change cuts."""
    log, sessions = FakeLog(), [LOGIN]
    preview = CutPreview(log, lambda: sessions, forget)
    assert preview.cuts(OPEN, CLOSED, FACTS) == preview.cuts(OPEN, CLOSED, FACTS)
    assert len(log.lines) == 1
    sessions.append(replace(LOGIN, peer_port=40_001))
    assert len(preview.cuts(OPEN, CLOSED, FACTS)) == 2
    assert [keys["peer_port"] for _, keys in log.lines] == [40_000, 40_001]
    preview.cuts(CLOSED, OPEN, FACTS)
    preview.cuts(OPEN, CLOSED, FACTS)
    assert len(log.lines) == 4


def test_a_crowd_is_counted() -> None:
    """Some are named, as many as are worth a line; so many are looked at, and the others not."""
    log = FakeLog()
    crowd = [replace(LOGIN, peer_port=port) for port in range(20_000, 21_000)]
    assert len(CutPreview(log, lambda: crowd, forget).cuts(OPEN, CLOSED, FACTS)) == MOST_LOOKED_AT
    events = log.events()
    assert events == ["session_cut_foreseen"] * MOST_NAMED + ["more_cuts_foreseen"]
    assert log.lines[-1][1] == {"sessions": MOST_LOOKED_AT}
    few = FakeLog()
    CutPreview(few, lambda: crowd[:MOST_NAMED], forget).cuts(OPEN, CLOSED, FACTS)
    assert [event for event, _ in few.lines] == ["session_cut_foreseen"] * MOST_NAMED


def test_a_kernel_that_can_not_tell_is_named_once() -> None:
    """Nothing is known to be cut, and the change goes on."""
    log = FakeLog()

    def fail() -> list[LiveSession]:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    preview = CutPreview(log, fail, forget)
    assert preview.cuts(OPEN, CLOSED, FACTS) == preview.cuts(OPEN, CLOSED, FACTS) == ()
    assert log.events() == ["sessions_not_listed"]


def test_a_redirected_session_is_judged_by_the_wire() -> None:
    """Its packets have another port than its socket; what is named is what a rule can allow (§2.2)."""
    came = FlowTuple(LOGIN.peer_address, LOGIN.peer_port, HOST.first, 2222)
    tracked = TrackedSession(mark=0, opened=Direction.EGRESS, is_translated=True, original=came)
    preview = CutPreview(FakeLog(), lambda: [LOGIN], lambda packets: [tracked] * len(packets))
    at_wire = policy_of(group("sg-1", rule("wire", ACCEPT, TCP, "2222", "0.0.0.0/0")), on={"eth0": "sg-1"})
    assert preview.cuts(None, at_wire, FACTS) == ()
    (cut,) = preview.cuts(None, OPEN, FACTS)
    assert (cut.local_port, cut.kind) == (2222, SessionKind.MANAGEMENT)


def test_a_session_that_conntrack_took_for_the_hosts_own_is_judged_by_its_socket() -> None:
    """What came first then was an answer, whose ends are those of the socket."""
    came = FlowTuple(HOST.first, LOGIN.local_port, LOGIN.peer_address, LOGIN.peer_port)
    tracked = TrackedSession(mark=0, opened=Direction.INGRESS, original=came)
    preview = CutPreview(FakeLog(), lambda: [LOGIN], lambda packets: [tracked] * len(packets))
    (cut,) = preview.cuts(OPEN, CLOSED, FACTS)
    assert cut.local_port == LOGIN.local_port


def test_the_ends_of_sockets_are_taken_where_conntrack_can_not_be_asked() -> None:
    """A command of an ordinary user names what it can."""

    def refuse(_packets: object) -> NoReturn:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (cut,) = CutPreview(FakeLog(), lambda: [LOGIN], refuse).cuts(OPEN, CLOSED, FACTS)
    assert cut.local_port == LOGIN.local_port
