"""Test an agent's reliability under traffic: count leaked, lost and uncounted packets.

New sessions come all the time: to a port that is open, to one that a rule closes and to one that nothing
opens. Sessions that were let in talk all the time, in both directions. What comes to the edge and what gets
past it is counted by a table of the test's own, which nobody can flush; so what the agent counted can be
compared.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from random import Random

import nftables

from integration.lab import HOST_MAC, TEST_MAC, Lab, LabError, lab, wait_for
from integration.service import Service, service_on
from integration.traffic import Traffic, traffic
from sgagent.agent.state.counter_file import CounterFile, read_boot_id
from sgagent.core.counter_keys import RuleCounter
from sgagent.policy_test.packet_bytes import tcp
from tests.patience import PATIENCE

CLIENT, HOST = ip_address("198.51.100.7"), ip_address("10.0.0.11")
HOST6, CLIENT6 = "2001:db8::11", "2001:db8:1::7"
OPEN, CLOSED_BY_DEFAULT, CLOSED_BY_RULE, TALK = 80, 81, 82, 90

_PAUSE_SECONDS = 0.01
_BATCH = 12
"""Packets at once: over a thousand new sessions a second, a third of each kind."""

_SOURCE_PORTS = 50_000
_WATCH = """
table inet testwatch {{
    flags owner;
    counter came_open {{ }}
    counter came_closed_by_rule {{ }}
    counter entered {{ }}
    counter leaked {{ }}
    chain arrival {{
        type filter hook prerouting priority -450; policy accept;
        ether saddr {mac} tcp dport {open} counter name came_open
        ether saddr {mac} tcp dport {closed} counter name came_closed_by_rule
    }}
    chain behind {{
        type filter hook prerouting priority -149; policy accept;
        ether saddr {mac} tcp dport {open} counter name entered drop
        ether saddr {mac} counter name leaked drop
    }}
}}
"""
_POLICY = """version: 1
security_groups:
  - security_group_id: sg-1
    type: basic
    rules:
      - {{rule_id: sgr-open, direction: ingress, policy: accept, priority: 2, protocol: tcp,
          port_range: {open}, authorization_object: 198.51.100.0/24}}
      - {{rule_id: sgr-closed, direction: ingress, policy: drop, priority: 1, protocol: tcp,
          port_range: {closed}, authorization_object: {client}}}
      - {{rule_id: sgr-wide, direction: ingress, policy: accept, priority: 2, protocol: tcp,
          port_range: {closed}, authorization_object: 0.0.0.0/0}}
      - {{rule_id: sgr-talk, direction: ingress, policy: accept, priority: 3, protocol: tcp,
          port_range: {talk}, authorization_object: 198.51.100.0/24}}
      - {{rule_id: sgr-talk-udp, direction: ingress, policy: accept, priority: 3, protocol: udp,
          port_range: {talk}, authorization_object: 198.51.100.0/24}}
      - {{rule_id: sgr-talk6, direction: ingress, policy: accept, priority: 3, protocol: tcp,
          port_range: {talk}, authorization_object: '2001:db8:1::/64'}}
{others}
network_interfaces:
  - {{network_interface_id: eni-1, mac_address: '{mac}', addresses: [{host}], security_group_ids: [sg-1]}}
"""
_OTHER = (
    "      - {{rule_id: {name}, direction: {direction}, policy: {policy}, priority: {priority},"
    " protocol: tcp, port_range: {port}, authorization_object: 192.0.2.{last}}}"
)


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of a reliability test."""

    leaked: int
    """Packets of new sessions that got in, which no policy of the test allows."""

    kept_out: int
    """Packets of new sessions that did not get in, which every policy allows."""

    broken: int
    """Sessions that were let in and did not carry everything in the end."""

    uncounted: int
    """Packets that the kernel judged and that the agent's metrics lack."""

    tried: int
    """New sessions that came to the edge."""


@dataclass(slots=True)
class AgentUnderTraffic:
    """An agent under traffic."""

    lab: Lab
    service: Service
    dice: Random
    busy: Traffic
    stream: Stream
    _policies: int = 0

    def change_policy(self) -> str:
        """Have another policy defined, and return the name of the rule that tells it from all before.

        About the traffic all policies agree; about nothing else do they.
        """
        mark = self.next_mark()
        self.service.define(self.policy(mark))
        return mark

    def next_mark(self) -> str:
        """Return the name of a rule that no policy had before."""
        self._policies += 1
        return f"sgr-try-{self._policies}"

    def policy(self, mark: str) -> str:
        """Return a document with a rule of a name, and others by chance."""
        names = [mark, *(f"sgr-{number}" for number in range(self.dice.randint(0, 40)))]
        return _POLICY.format(
            open=OPEN,
            closed=CLOSED_BY_RULE,
            talk=TALK,
            client=CLIENT,
            host=f"{HOST}, '{HOST6}'",
            mac=HOST_MAC % 0,
            others="\n".join(self._rule(name) for name in names),
        )

    def wait_for_policy(self, mark: str) -> None:
        """Wait until the kernel has the rule of a name."""
        wait_for(lambda: f"/{mark} {{" in self.service.table(), f"the policy with {mark}")

    def a_moment(self, longest: float) -> None:
        """Let a time go by that nobody chose."""
        threading.Event().wait(self.dice.uniform(0, longest))

    def _rule(self, name: str) -> str:
        return _OTHER.format(
            name=name,
            direction=self.dice.choice(("ingress", "egress")),
            policy=self.dice.choice(("accept", "drop")),
            priority=self.dice.randint(1, 100),
            port=self.dice.randint(1000, 1400),
            last=self.dice.randint(1, 250),
        )


@dataclass(slots=True)
class Stream:
    """New sessions at an even pace, of three kinds in turn."""

    lab: Lab
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Send from now on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._send, name="stream")
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _send(self) -> None:
        """Send until told to stop."""
        frames = list(self._frames())
        with self.lab.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0))
            at = 0
            while not self._stop.wait(_PAUSE_SECONDS):
                for frame in frames[at : at + _BATCH]:
                    # A cable that is unplugged takes nothing, which is no business of ours.
                    with contextlib.suppress(OSError):
                        wire.send(frame)
                at = (at + _BATCH) % len(frames)

    def _frames(self) -> Iterator[bytes]:
        """Return as many frames as there are kinds and sources, each the first of a session."""
        ether = bytes.fromhex((HOST_MAC % 0 + TEST_MAC).replace(":", "")) + b"\x08\x00"
        ports = (OPEN, CLOSED_BY_DEFAULT, CLOSED_BY_RULE)
        for number in range(_BATCH * 100):
            packet = tcp(CLIENT, HOST, 1024 + number % _SOURCE_PORTS, ports[number % len(ports)])
            for datagram in packet.datagrams(1 + number):
                yield ether + datagram


@contextlib.contextmanager
def watching(built: Lab) -> Iterator[None]:
    """Count the packets at the edge and those past it, in a table that only this process can change."""
    with built.host.entered():
        watch = nftables.Nftables()
        status, _, error = watch.cmd(_WATCH.format(mac=TEST_MAC, open=OPEN, closed=CLOSED_BY_RULE))
    if status:
        raise LabError(f"the watch was refused: {error}")
    yield
    del watch


@contextlib.contextmanager
def agent_under_traffic(
    directory: Path, dice: Random, configuration: str = "", *, owned: bool = True
) -> Iterator[AgentUnderTraffic]:
    """Build a host with an agent that enforces a policy, and let traffic begin.

    Args:
        directory: for the agent's files.
        dice: for all that is left to chance.
        configuration: what to add to the agent's.
        owned: whether the agent may own its table; otherwise there is one that nobody can take up.
    """
    with (
        lab() as built,
        service_on(built.host, directory) as service,
        traffic(built) as busy,
        watching(built),
    ):
        built.add_host_addresses([str(HOST), HOST6])
        service.configure(configuration)
        if not owned:
            built.host.nft("add table inet sgagent")
        made = AgentUnderTraffic(built, service, dice, busy, Stream(built))
        made.change_policy()
        service.start()
        with under_traffic(made):
            yield made


@contextlib.contextmanager
def under_traffic(made: AgentUnderTraffic) -> Iterator[None]:
    """Let traffic begin at a host whose agent enforces a policy; it is over when the context is left."""
    _open_sessions(made.busy)
    with made.busy.running():
        made.stream.start()
        try:
            made.busy.wait_until_all_talk()
            yield
        finally:
            made.stream.stop()


def _open_sessions(busy: Traffic) -> None:
    """Open the sessions that should outlast everything: inwards and outwards, TCP and UDP, IPv4 and IPv6."""
    built = busy.lab
    busy.open("tcp", built.peer, str(CLIENT), built.host, (str(HOST), TALK))
    busy.open("udp", built.peer, str(CLIENT), built.host, (str(HOST), TALK), kind=socket.SOCK_DGRAM)
    busy.open("tcp6", built.peer, CLIENT6, built.host, (HOST6, TALK))
    busy.open("out", built.host, str(HOST), built.peer, ("203.0.113.9", 443))


def count_losses(made: AgentUnderTraffic, *, link_stays: bool = True) -> Losses:
    """End the traffic and return its losses; the agent runs, and is stopped.

    Args:
        made: the agent.
        link_stays: whether the link was there and judged all the time. Otherwise datagrams may be lost, and
            what came while it was closed is no rule's.
    """
    made.stream.stop()
    broken = _broken(made.busy, set(made.busy.sessions) - (set() if link_stays else {"udp"}))
    seen = {name: packets for name, (packets, _) in made.lab.counters("testwatch").items()}
    uncounted = _uncounted(made.service, seen) if link_stays else 0
    made.service.stop()
    if not link_stays:
        uncounted = abs(seen["entered"] - _kept_hits(made.service)["sgr-open"])
    return Losses(
        leaked=seen["leaked"],
        kept_out=seen["came_open"] - seen["entered"],
        broken=broken,
        uncounted=uncounted,
        tried=seen["came_open"] + seen["came_closed_by_rule"],
    )


def _uncounted(service: Service, seen: Mapping[str, int]) -> int:
    """Return how many packets the agent's metrics lack, or have too many, after a reading or two."""
    came = {"sgr-open": seen["came_open"], "sgr-closed": seen["came_closed_by_rule"]}

    def difference() -> int:
        return sum(abs(number - int(service.hits(name) or 0)) for name, number in came.items())

    with contextlib.suppress(LabError):
        wait_for(lambda: difference() == 0, "all that came to be counted", _COUNTED_SECONDS)
    return difference()


_COUNTED_SECONDS = 3.0 / PATIENCE
"""For a scrape that shows a reading of now: an agent that is busy shows the last one. Not longer on a busy
machine, as it is waited out wherever something was not counted."""


def _kept_hits(service: Service) -> Counter[str]:
    """Return the hits that the agent kept of each rule, whatever the link was called when it was hit."""
    kept, _ = CounterFile(service.state, read_boot_id()).load()
    hits: Counter[str] = Counter()
    for key, total in kept.totals:
        if isinstance(key, RuleCounter):
            hits[key.rule_id] += total.packets
    return hits


def _broken(busy: Traffic, names: set[str]) -> int:
    """Return how many of some sessions do not deliver all that was sent in the end."""
    try:
        busy.wait_until_all_talk()
        busy.settle(names)
    except LabError:
        return sum(busy.sessions[name].lost() > 0 for name in names)
    return 0
