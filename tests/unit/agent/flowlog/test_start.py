"""How the flow log begins, and what ends it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from sgagent.agent.flowlog.flowlog import FlowLog, begin_flow_log, flows_heard, in_effect
from sgagent.core.model import Policy
from sgagent.settings import Settings, parse_settings
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog

ASKED = parse_settings('[flow_log]\naccepted = true\noutput = "stdout"', "sgagent.toml")
OFF = parse_settings("[flow_log]\ndropped = false", "sgagent.toml")


class Kernel:
    """A kernel with a packet log, or without, or with another listener."""

    def __init__(self, *, has_log: bool = True, is_taken: bool = False) -> None:
        """Start with nobody who listens."""
        self.has_log = has_log
        self.is_taken = is_taken
        self.allowed: list[int] = []
        self.opened, self.told_by = socket.socketpair(type=socket.SOCK_DGRAM)

    def allow_log(self, group: int) -> bool:
        """Take note of the group."""
        self.allowed.append(group)
        return self.has_log

    def open_log(self) -> socket.socket:
        """Hand the socket out."""
        if self.is_taken:
            raise OSError(errno.EBUSY, "another program listens to it")
        return self.opened

    def close(self) -> None:
        """Close both ends."""
        self.opened.close()
        self.told_by.close()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """Give a kernel that has all it takes."""
    with closing(Kernel()) as made:
        yield made


def begin(settings: Settings, kernel: Kernel) -> tuple[Settings, FlowLog, socket.socket | None, FakeLog]:
    """Begin as an agent does."""
    log = FakeLog()
    return *begin_flow_log(settings, kernel, FakeClock(), log), log


def test_the_kernel_is_heard_as_the_configuration_says(kernel: Kernel) -> None:
    """By the group that it names; nothing is logged of that."""
    settings, flow_log, opened, log = begin(ASKED, kernel)
    assert settings is ASKED
    assert opened is kernel.opened
    assert kernel.allowed == [9469]
    assert flow_log.logging.verdicts == frozenset(Policy)
    assert (flow_log.unavailable, flow_log.fault, log.lines) == (None, None, [])
    assert in_effect(ASKED, kernel) is ASKED


def test_where_nothing_is_to_be_told_nobody_is_asked(kernel: Kernel) -> None:
    """The kernel may lack it then."""
    settings, flow_log, opened, log = begin(OFF, kernel)
    assert (settings, opened, kernel.allowed, log.lines) == (OFF, None, [], [])
    assert flow_log.unavailable is None
    assert in_effect(OFF, kernel) is OFF
    assert kernel.allowed == []


@pytest.mark.parametrize(
    ("lacks", "reason"),
    (
        ({"has_log": False}, "the kernel takes no rules that log to a group (nfnetlink_log)"),
        ({"is_taken": True}, "group 9469 of the kernel's packet log: another program listens to it"),
    ),
)
def test_without_the_kernels_log_everything_else_goes_on(lacks: dict[str, bool], reason: str) -> None:
    """Nothing is compiled that it would refuse or nobody would hear; a log that was asked for is missed."""
    with closing(Kernel(**lacks)) as kernel:
        for asked, fault in ((ASKED, f"no flow log: {reason}"), (Settings(), None)):
            settings, flow_log, opened, log = begin(asked, kernel)
            assert settings.flow_log.logging.verdicts == frozenset()
            assert opened is None
            assert (flow_log.unavailable, flow_log.fault) == (reason, fault)
            assert log.lines == [("flow_log_unavailable", {"reason": reason})]


def test_a_boot_finds_the_table_as_the_agent_will() -> None:
    """Without a kernel's log there are no lines in it that log."""
    with closing(Kernel(has_log=False)) as kernel:
        assert in_effect(Settings(), kernel).flow_log.logging.verdicts == frozenset()


def test_a_fault_of_ours_ends_the_log_and_nothing_else(kernel: Kernel) -> None:
    """What is no netlink socket has no sender with a number; whoever asks for drops is told."""
    _, flow_log, opened, log = begin(ASKED, kernel)
    assert opened is not None
    flow_log.ready.set()
    with flows_heard(opened, flow_log):
        kernel.told_by.send(b"not of a kernel")
    assert log.events() == ["flow_log_failed"]
    assert "failed" in (flow_log.unavailable or "")
    assert "failed" in (flow_log.fault or "")
