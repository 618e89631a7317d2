"""Sessions that nobody followed are named and ended, and a kernel that can't do that ends no agent."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from sgagent.agent.sessions import end_forbidden_sessions
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import HostFacts, Link
from sgagent.core.errors import NotPermittedError
from sgagent.core.model import CidrBlock, Family, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from sgagent.dataplane.live_sessions import Ending, TcpSession

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


@dataclass(slots=True)
class Log:
    """Keep what was logged."""

    lines: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def info(self, event: str, **keys: object) -> None:
        """Take a line."""
        self.lines.append((event, keys))

    warning = error = info


def closed(mode: Mode = Mode.ENFORCE) -> Step:
    """Return a step that made the table of a host on which nothing gets in."""
    link = Link(name="eth0", index=2, addresses=(HOST,))
    policy = ResolvedPolicy(interfaces=(closed_interface("eth0", Exemptions(), mode),))
    return Step(outcome=StepEnd.APPLIED, policy=policy, facts=HostFacts(links=(link,)))


def refuse(_session: TcpSession) -> Ending:
    """Be a kernel that does not let us."""
    raise NotPermittedError("sessions can be ended only with CAP_NET_ADMIN")


def test_a_forbidden_session_is_ended_and_named() -> None:
    """The log says which session, why, and what came of it."""
    log, ended = Log(), []

    def destroy(session: TcpSession) -> Ending:
        ended.append(session)
        return Ending.ENDED

    end_forbidden_sessions(closed(), log, lambda: [SESSION], destroy)
    assert ended == [SESSION]
    ((event, keys),) = log.lines
    assert (event, keys["ending"], keys["peer"], keys["local_port"]) == (
        "session_cut",
        "ended",
        "198.51.100.7",
        22,
    )


def test_observing_ends_nothing() -> None:
    """In observe mode the session is named only; a destroy would fail the test."""
    log = Log()
    end_forbidden_sessions(closed(Mode.OBSERVE), log, lambda: [SESSION], refuse)
    assert [event for event, _ in log.lines] == ["session_would_be_cut"]


def test_a_kernel_that_ends_no_sessions_is_named() -> None:
    """What can't be ended is said to go on, and the agent goes on too."""
    log = Log()
    end_forbidden_sessions(closed(), log, lambda: [SESSION], refuse)
    ((event, keys),) = log.lines
    assert event == "session_cut"
    assert "CAP_NET_ADMIN" in str(keys["ending"])


def test_a_kernel_that_lists_no_sessions_is_named() -> None:
    """Without socket diagnosis in the kernel the rules stand all the same."""
    log = Log()

    def list_sessions() -> list[TcpSession]:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    end_forbidden_sessions(closed(), log, list_sessions, refuse)
    ((event, keys),) = log.lines
    assert (event, keys) == ("sessions_not_listed", {"reason": "[Errno 2] No such file or directory"})
