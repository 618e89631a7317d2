"""SCTP associations that are older than the first start go on or stop as the policy says (§6.3, §6.6).

Conntrack meets the middle of them, which it calls invalid. They are real, so the kernel must have SCTP: this
runs on Debian's, in a guest.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.enforcer import one_group
from integration.lab import Lab, LabError
from integration.namespaces import Namespace
from integration.service import Service, service_on

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
FRIEND, STRANGER, SHUNNED = "198.51.100.7", "198.51.100.8", "198.51.100.9"
FRIEND6, STRANGER6 = "2001:db8:7::7", "2001:db8:8::8"
PAIRS = (
    (HOST, FRIEND, HOST),
    (HOST, STRANGER, "0.0.0.0"),  # noqa: S104 - in a namespace of the test's
    (HOST, SHUNNED, HOST),
    (HOST6, FRIEND6, "::"),
    (HOST6, STRANGER6, HOST6),
)
"""Ends, and where the host waits for the peer."""

PORT = 2905
SCTP = 132
INWARDS = tuple(f"ingress accept 1 {SCTP} -1/-1 from {peer}" for peer in (FRIEND, FRIEND6))
BASIC = (*INWARDS, f"egress drop 1 {SCTP} -1/-1 to {SHUNNED}")
ADVANCED = (*INWARDS, f"egress accept 1 {SCTP} -1/-1 to {STRANGER}")
LIVING = {
    "basic": {f"in {FRIEND}", f"in {FRIEND6}", *(f"out {peer}" for _, peer, _ in PAIRS if peer != SHUNNED)},
    "advanced": {f"in {FRIEND}", f"in {FRIEND6}", f"out {STRANGER}"},
}
"""Which associations each group allows. Where egress is open, so would a heartbeat be of any of them."""

SELDOM, OFTEN = 600_000, 1_000
"""Milliseconds between heartbeats. They open an entry of conntrack, for whoever sends first."""

WATCH_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Association:
    """Both ends of one."""

    opener: socket.socket
    other: socket.socket

    def carries(self, seconds: float) -> tuple[bool, bool]:
        """Tell whether a message arrives within some seconds, from the opener and back."""
        return _arrives(self.opener, self.other, seconds), _arrives(self.other, self.opener, seconds)


def _arrives(sender: socket.socket, receiver: socket.socket, seconds: float) -> bool:
    """Return whether something arrives, after taking anything that may still be on the way."""
    receiver.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
    with contextlib.suppress(BlockingIOError):
        while receiver.recv(100):
            pass
    receiver.settimeout(seconds)
    try:
        sender.send(b"message")
        return receiver.recv(100) == b"message"
    except TimeoutError:
        return False


@pytest.fixture
def agent(one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give host and peer addresses, and an agent that is not started yet."""
    if subprocess.run(("modprobe", "sctp"), capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no SCTP")
    lab = one_interface
    lab.add_host_addresses([HOST, HOST6])
    lab.peer.ip(*(f"address add {one}/{ip_address(one).max_prefixlen} dev lo nodad" for _, one, _ in PAIRS))
    with service_on(lab.host, tmp_path) as made:
        yield made


@contextlib.contextmanager
def associated(
    client: Namespace, source: str, server: Namespace, place: tuple[str, int], waits_at: str = ""
) -> Iterator[Association]:
    """Open an association; the server goes on listening, at the same address unless said.

    Raises:
        TimeoutError: it did not open.
    """
    family = socket.AF_INET if ip_address(source).version == 4 else socket.AF_INET6
    with (
        server.socket(family, socket.SOCK_STREAM, SCTP) as listener,
        client.socket(family, socket.SOCK_STREAM, SCTP) as opener,
    ):
        listener.bind((waits_at or place[0], place[1]))
        listener.listen()
        opener.bind((source, 0))
        opener.settimeout(WATCH_SECONDS)
        opener.connect(place)
        with listener.accept()[0] as other:
            yield Association(opener, other)


@contextlib.contextmanager
def all_associated(lab: Lab) -> Iterator[Mapping[str, Association]]:
    """Open associations inwards and outwards, with a friend and a stranger, over both families."""
    with contextlib.ExitStack() as opened:
        found = {}
        for number, (host, peer, waits_at) in enumerate(PAIRS):
            inwards = associated(lab.peer, peer, lab.host, (host, PORT + number), waits_at)
            outwards = associated(lab.host, host, lab.peer, (peer, PORT))
            found[f"in {peer}"] = opened.enter_context(inwards)
            found[f"out {peer}"] = opened.enter_context(outwards)
        yield found


def start(agent: Service, kind: str, *rules: str) -> None:
    """Start an agent that enforces a group on the link."""
    agent.define(f"version: 1\n{one_group(*rules, kind=kind)}\n")
    agent.configure('[[interface]]\nname = "eth0"\nsecurity_group_ids = ["sg-1"]\n')
    agent.start()


@pytest.mark.parametrize("heartbeats", (SELDOM, OFTEN))
@pytest.mark.parametrize(("kind", "rules"), (("basic", BASIC), ("advanced", ADVANCED)))
def test_one_that_is_allowed_goes_on_and_another_stops(
    kind: str, rules: tuple[str, ...], heartbeats: int, agent: Service, one_interface: Lab
) -> None:
    """By the direction in which it was opened, though egress is open and the host sends heartbeats."""
    lab = one_interface
    for end in (lab.host, lab.peer):
        end.sysctl({"net.sctp.hb_interval": heartbeats})
    with all_associated(lab) as before:
        assert {name for name, one in before.items() if one.carries(WATCH_SECONDS) != (True, True)} == set()
        start(agent, kind, *rules)
        for _ in range(2):
            found = {name: one.carries(WATCH_SECONDS) for name, one in before.items()}
            assert found == {name: (name in LIVING[kind],) * 2 for name in before}


def test_one_that_is_opened_later_needs_an_opening(agent: Service, one_interface: Lab) -> None:
    """An allowed packet opens an association, a denied one does not, and one in the middle is invalid."""
    lab = one_interface
    start(agent, "advanced", *INWARDS)
    with associated(lab.peer, FRIEND, lab.host, (HOST, PORT)) as later:
        assert later.carries(WATCH_SECONDS) == (True, True)
        lab.host.run("conntrack", "-F")
        assert not _arrives(later.other, later.opener, WATCH_SECONDS)
    with pytest.raises(TimeoutError), associated(lab.peer, STRANGER, lab.host, (HOST, PORT + 1)):
        raise LabError("a denied association opened")
