"""What the service manager is told, over a real socket."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgagent.agent.systemd import ServiceManager


@pytest.fixture(params=("path", "abstract"))
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an address as NOTIFY_SOCKET writes it."""
    return str(tmp_path / "notify") if request.param == "path" else f"@sgagent-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    """Give a socket that listens as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5.0)
        yield listener


def told(manager: socket.socket) -> list[str]:
    """Return the lines of the next message."""
    return manager.recv(4096).decode().split("\n")


def test_states_are_told(manager: socket.socket, address: str) -> None:
    """Each state is one message, in the words of sd_notify."""
    service = ServiceManager({"NOTIFY_SOCKET": address})
    service.ready()
    service.alive()
    service.stopping()
    assert [told(manager) for _ in range(3)] == [["READY=1"], ["WATCHDOG=1"], ["STOPPING=1"]]


def test_a_reload_says_when_it_began(manager: socket.socket, address: str) -> None:
    """Type=notify-reload wants the monotonic time, to tell this reload from an earlier one."""
    before = time.monotonic()
    ServiceManager({"NOTIFY_SOCKET": address}).reloading()
    state, when = told(manager)
    name, microseconds = when.split("=")
    assert (state, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before - 0.001 <= int(microseconds) / 1_000_000 <= time.monotonic()


def test_a_long_step_is_announced_once(manager: socket.socket, address: str) -> None:
    """The watchdog, and a start or stop, wait so much longer from then on; less is nothing new."""
    service = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    service.extend(5.0)
    service.extend(4.0)
    service.extend(10.0)
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=5000000", "WATCHDOG_USEC=65000000"]
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=10000000", "WATCHDOG_USEC=70000000"]


def test_a_service_without_a_watchdog_gets_none(manager: socket.socket, address: str) -> None:
    """``WatchdogSec=0`` of the administrator stays."""
    ServiceManager({"NOTIFY_SOCKET": address}).extend(5.0)
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=5000000"]


def test_a_status_is_one_line(manager: socket.socket, address: str) -> None:
    """A line break in a status can't smuggle in another assignment."""
    ServiceManager({"NOTIFY_SOCKET": address}).status("12 rules\nWATCHDOG=trigger \udc80")
    assert told(manager) == ["STATUS=12 rules WATCHDOG=trigger \\udc80"]


def test_a_status_is_said_once(manager: socket.socket, address: str) -> None:
    """What stays as it was is no news."""
    service = ServiceManager({"NOTIFY_SOCKET": address})
    for text in ("one", "one", "two", "one"):
        service.status(text)
    assert [told(manager) for _ in range(3)] == [["STATUS=one"], ["STATUS=two"], ["STATUS=one"]]
    manager.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_nobody_waits_for_a_manager_that_does_not_listen(manager: socket.socket, address: str) -> None:
    """Where there is no room the loop goes on, and says later what could not be said."""
    service = ServiceManager({"NOTIFY_SOCKET": address})
    began = time.monotonic()
    for number in range(200):
        service.alive()
        service.status(f"{number}")
        service.extend(float(number))
    assert time.monotonic() - began < 10, "each wait would be a second"
    manager.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
    with contextlib.suppress(BlockingIOError):
        while True:
            told(manager)
    service.status("199")
    service.extend(199.0)
    assert told(manager) == ["STATUS=199"]
    assert told(manager) == ["EXTEND_TIMEOUT_USEC=199000000"]


@pytest.mark.parametrize("text", ("", "relative", "vsock:2:1234", "/nobody/listens/here"))
def test_without_a_listener_nothing_happens(text: str) -> None:
    """Outside systemd, or if it went away, the daemon goes on."""
    ServiceManager({"NOTIFY_SOCKET": text}).ready()


def test_without_the_variable_nothing_happens() -> None:
    """Started by hand, nobody is told."""
    ServiceManager({}).ready()
