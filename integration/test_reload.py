"""Policies change under full traffic: nothing that is denied leaks, nothing that is allowed is lost."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random

import pytest

from integration.enforcer import Enforcer, enforcer, one_group, policy_of
from integration.lab import TEST_MAC, Lab, wait_for
from integration.traffic import traffic
from integration.wire import tcp
from sgagent.core.policy import ResolvedPolicy

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
RELOADS = 300 if IS_FULL else 60
CLIENT, HOST = ip_address("198.51.100.7"), ip_address("10.0.0.11")
ALLOWED, BY_DEFAULT, BY_RULE = 80, 81, 82
_ROUND = 3 * 512

WATCH = """
table inet testwatch {{
    counter allowed {{ }}
    counter leaked {{ }}
    counter sent {{ }}
    chain first {{
        type filter hook prerouting priority -450; policy accept;
        ether saddr {mac} counter name sent
    }}
    chain behind {{
        type filter hook prerouting priority -149; policy accept;
        ether saddr {mac} tcp dport 80 counter name allowed drop
        ether saddr {mac} counter name leaked drop
    }}
}}
"""
"""Counts behind the agent's hook, and drops: every packet is the first of a session."""


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Enforcer]:
    """Take hold of a host with an address."""
    one_interface.add_host_addresses([str(HOST)])
    with enforcer(one_interface) as made:
        yield made


@dataclass(slots=True)
class Flood:
    """New sessions as fast as can be: a third allowed, a third denied by default, a third by a rule."""

    lab: Lab
    sent: int = 0
    """Packets of each kind."""

    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until told to stop."""
        frames = list(self._frames())
        with self.lab.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0))
            while not self._stop.is_set():
                for frame in frames:
                    wire.send(frame)
                self.sent += len(frames) // 3

    def stop(self) -> None:
        """Send no more after this round."""
        self._stop.set()

    def _frames(self) -> Iterator[bytes]:
        """Return one round of frames."""
        target = self.lab.host.run("cat", "/sys/class/net/eth0/address").strip()
        ether = bytes.fromhex((target + TEST_MAC).replace(":", "")) + b"\x08\x00"
        for number in range(_ROUND):
            packet = tcp(CLIENT, HOST, 1024 + number, (ALLOWED, BY_DEFAULT, BY_RULE)[number % 3])
            for datagram in packet.datagrams(1 + number):
                yield ether + datagram


def changing_policies(random: Random) -> Iterator[ResolvedPolicy]:
    """Return one policy after the other that agree about the flood and about nothing else."""
    while True:
        others = [
            f"{random.choice(('ingress', 'egress'))} {random.choice(('accept', 'drop'))}"
            f" {random.randint(1, 100)} tcp {random.randint(1000, 1400)}"
            f" from 192.0.2.{random.randint(1, 250)}"
            for _ in range(random.randint(0, 200))
        ]
        yield policy_of(
            one_group(
                "ingress accept 2 tcp 80 from 198.51.100.0/24",
                "ingress drop 1 tcp 82 from 198.51.100.7",
                "ingress accept 2 tcp 82 from 0.0.0.0/0",
                *others,
            ),
            eth0="sg-1",
        )


def test_reloads_leak_nothing_and_lose_nothing(agent: Enforcer, capsys: pytest.CaptureFixture[str]) -> None:
    """While policies follow each other, every new session is judged by the one before or the one after.

    A session that was open all the time loses no byte, and counters never go back.
    """
    random = Random(7)
    policies = changing_policies(random)
    agent.enforce(next(policies))
    agent.lab.load(WATCH.format(mac=TEST_MAC))
    flood = Flood(agent.lab)
    with traffic(agent.lab) as busy:
        busy.open("web", agent.lab.peer, str(CLIENT), agent.lab.host, (str(HOST), ALLOWED))
        sender = threading.Thread(target=flood.run, name="flood")
        with busy.running():
            sender.start()
            try:
                highest = agent.hits()["rule/eth0/sgr-0"]
                for _ in range(RELOADS):
                    agent.enforce(next(policies))
                    hits = agent.hits()["rule/eth0/sgr-0"]
                    assert hits >= highest
                    highest = hits
            finally:
                flood.stop()
                sender.join()
            busy.settle({"web"})
    seen = watched(agent.lab)
    with capsys.disabled():
        print(
            f"\n  {RELOADS} reloads under {3 * flood.sent} new sessions: {seen['leaked']} leaked,"
            f" {flood.sent - seen['allowed']} lost",
            end="",
        )
    assert seen["sent"] == 3 * flood.sent
    assert seen["leaked"] == 0
    assert seen["allowed"] == flood.sent


def watched(lab: Lab) -> dict[str, int]:
    """Return what the watch has counted."""
    return {name: packets for name, (packets, _) in lab.counters("testwatch").items()}


def test_the_watch_notices_a_leak(agent: Enforcer) -> None:
    """Without a policy the same flood passes whole: the test above can fail."""
    agent.lab.load(WATCH.format(mac=TEST_MAC))
    flood = Flood(agent.lab)
    sender = threading.Thread(target=flood.run, name="flood")
    sender.start()
    wait_for(lambda: flood.sent > 0, "a first round")
    flood.stop()
    sender.join()
    assert watched(agent.lab)["leaked"] == 2 * flood.sent
