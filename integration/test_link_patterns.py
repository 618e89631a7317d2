"""Links that patterns match are judged from their first packet on, in whatever way they come (§12.5)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random

import pytest

from integration.lab import Lab, lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions
from sgagent.policy_test.packet_bytes import tcp

CLIENT, HOST = ip_address("198.51.100.7"), ip_address("10.0.0.11")
NEAR_MAC, FAR_MAC = "02:00:00:00:77:01", "02:00:00:00:77:02"
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
IDENTIFIED_SECONDS = 1.0
_ROUND = 64
_PAUSE_SECONDS = 0.0003
"""Between two rounds, each of which takes about as long."""
_WATCH = """
table inet testwatch {{
    counter came {{ }}
    counter came_allowed {{ }}
    counter passed {{ }}
    counter passed_allowed {{ }}
    chain before {{
        type filter hook prerouting priority -151; policy accept;
        iifname {{ {names} }} ether saddr {mac} tcp dport 80 counter name came_allowed
        iifname {{ {names} }} ether saddr {mac} tcp dport != 80 counter name came
        iifname {{ {names} }} ether saddr {mac} meta priority set 7
    }}
    chain behind {{
        type filter hook prerouting priority -149; policy accept;
        iifname {{ {names} }} ether saddr {mac} tcp dport 80 counter name passed_allowed
        iifname {{ {names} }} ether saddr {mac} meta priority 7 tcp dport != 80 counter name passed
        ether saddr {mac} drop
    }}
}}
"""
_WATCH_OUT = """
table inet testwatch {{
    counter came {{ }}
    counter came_allowed {{ }}
    counter passed {{ }}
    counter passed_allowed {{ }}
    chain before {{
        type filter hook postrouting priority 299; policy accept;
        oifname "{name}" ip daddr {client} tcp dport 80 counter name came_allowed
        oifname "{name}" ip daddr {client} tcp dport != 80 counter name came
    }}
    chain behind {{
        type filter hook postrouting priority 301; policy accept;
        oifname "{name}" ip daddr {client} tcp dport 80 counter name passed_allowed drop
        oifname "{name}" ip daddr {client} tcp dport != 80 counter name passed drop
    }}
}}
"""
"""Count what a link brings, or takes away, before and behind the agent; all packets open sessions.

A packet that must not pass counts if the link had a watched name before the agent and behind it: a link is
renamed while packets are between the two. The packet's priority, which nothing here uses, tells the second
chain what the first one saw.
"""


@pytest.fixture
def bench() -> Iterator[Lab]:
    """Build a host with a link that no pattern matches."""
    with lab("eth0") as built:
        yield built


agent = agent_with(definitions(WEB, mac_address=""), is_started=False)


def patterns(*tables: str) -> str:
    """Return the tables ``[[interface]]``: each is a name, and the other lines in it."""
    texts = (table.partition(" ") for table in tables)
    return "".join(
        f'[[interface]]\nname = "{name}"\nsecurity_group_ids = ["sg-1"]\n{more}\n' for name, _, more in texts
    )


@dataclass(slots=True)
class Flooded:
    """A link whose far end sends tens of thousands of packets a second, a half of it to the open port."""

    lab: Lab
    name: str
    sender: threading.Thread
    is_over: threading.Event

    def end(self) -> tuple[int, int, int, int]:
        """Send no more, and return the counts."""
        self.is_over.set()
        self.sender.join()
        return self.counts()

    def come(self) -> None:
        """Bring the link to the host, under its name, and up: packets are there at once."""
        self.lab.peer.ip(f"link set near netns {self.lab.host.name} name {self.name}")
        self.lab.host.ip(f"link set {self.name} up")

    def rename(self, name: str) -> None:
        """Give the link another name while it is up."""
        self.lab.host.ip(f"link set {self.name} name {name}")
        self.name = name

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many packets came and passed, first those to be dropped, then those to the open port."""
        found = {name: packets for name, (packets, _) in self.lab.counters("testwatch").items()}
        return found["came"], found["passed"], found["came_allowed"], found["passed_allowed"]

    def wait_for_allowed(self) -> None:
        """Wait until a packet to the open port has passed."""
        wait_for(lambda: self.counts()[3] > 0, "an allowed packet")  # the flood takes the agent's time, too

    def wait_for_packets(self, more: int = 500) -> tuple[int, int, int, int]:
        """Return the counts when so many more packets of each kind have come."""
        before = self.counts()
        wait_for(
            lambda: self.counts()[0] >= before[0] + more and self.counts()[2] >= before[2] + more, "packets"
        )
        return self.counts()


@contextlib.contextmanager
def flooded(bench: Lab, name: str, *watched: str) -> Iterator[Flooded]:
    """Make a link whose far end sends until the context is left; the link is still elsewhere.

    Args:
        bench: where.
        name: of the link when it comes.
        watched: the names under which packets are counted; the first name if there is none.
    """
    names = ", ".join(f'"{one}"' for one in watched or (name,))
    bench.load(_WATCH.format(names=names, mac=FAR_MAC))
    bench.peer.ip(f"link add far address {FAR_MAC} type veth peer name near address {NEAR_MAC}")
    bench.peer.ip("link set far up")
    header = bytes.fromhex((NEAR_MAC + FAR_MAC).replace(":", "")) + b"\x08\x00"
    packets = [tcp(CLIENT, HOST, 1024 + number, 80 + number % 2) for number in range(_ROUND)]
    frames = [header + datagram for at, packet in enumerate(packets, 1) for datagram in packet.datagrams(at)]
    is_over = threading.Event()

    def send() -> None:
        with bench.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("far", 0))
            while not is_over.wait(_PAUSE_SECONDS):
                for frame in frames:
                    with contextlib.suppress(OSError):  # while the other end is down
                        wire.send(frame)

    sender = threading.Thread(target=send, name="flood")
    sender.start()
    try:
        yield Flooded(bench, name, sender, is_over)
    finally:
        is_over.set()
        sender.join()
        bench.peer.ip("link del far")
        bench.host.nft("delete", "table", "inet", "testwatch")


def states(agent: Service) -> dict[str, str]:
    """Return the states of the links that are known, as the metrics have them."""
    found = agent.families()["sgagent_interface_info"].samples
    return {sample.labels["interface"]: sample.labels["state"] for sample in found}


def state(agent: Service, name: str) -> str | None:
    """Return the state of a link; None for one that is not known."""
    return states(agent).get(name)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("tables", "name", "is_certain"),
    (
        (["br-*"], "br-new", True),
        (["br-* exclude = ['br-lan', 'br-l*']"], "br-new", True),
        (["br-* exclude = ['br-lan*']", "wg*", "eth1", "br-lan*"], "br-lan0", True),
        (["br-* source_check = 'on'"], "br-new", False),
        (["br-*", "br-new"], "br-new", True),
    ),
)
def test_a_link_that_comes_under_a_flood(
    agent: Service,
    bench: Lab,
    tables: list[str],
    name: str,
    is_certain: bool,  # noqa: FBT001 - a parameter of the table above
) -> None:
    """No packet passes that the policy drops, from the first on; allowed ones pass soon, or at once."""
    agent.configure(patterns(*tables))
    agent.start()
    for _ in range(3):
        with flooded(bench, name) as link:
            link.come()
            link.wait_for_packets()
            link.wait_for_allowed()
            came, passed, came_allowed, passed_allowed = link.end()
            assert (came > 0, passed) == (True, 0)
            if is_certain:
                assert passed_allowed == came_allowed
            wait_for(lambda: state(agent, name) == "bound", "the link to be known", IDENTIFIED_SECONDS)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("more", "tables", "name"),
    (
        ("", ["br-*"], "other0"),
        ("", ["br-* exclude = ['br-lan']"], "br-lan"),
        ("", ["br-* exclude = ['br-l*']"], "br-lan"),
        ("", ["br-* mode = 'observe'"], "br-new"),
        ("[enforcement]\nmode = 'observe'\n", ["br-* source_check = 'on'"], "br-new"),
    ),
)
def test_a_link_that_is_open_from_its_first_packet_on(
    agent: Service, bench: Lab, more: str, tables: list[str], name: str
) -> None:
    """One that no pattern means, or that is excluded by its name or its first signs, or only observed."""
    agent.configure(more + patterns(*tables))
    agent.start()
    with flooded(bench, name) as link:
        link.come()
        link.wait_for_packets()
        came, passed, came_allowed, passed_allowed = link.end()
    assert came > 0
    assert (passed, passed_allowed) == (came, came_allowed)


def test_a_link_that_is_renamed_into_a_pattern_and_out_of_it(agent: Service, bench: Lab) -> None:
    """It is judged under its new name from then on, also while it is up."""
    agent.configure(patterns("br-*"))
    agent.start()
    inside = "br-in"
    with flooded(bench, "other0", inside) as link:
        link.come()
        wait_for(lambda: state(agent, "other0") == "unbound", "the link to be known", IDENTIFIED_SECONDS)
        for _ in range(3):
            link.rename(inside)
            link.wait_for_packets()
            wait_for(lambda: state(agent, inside) == "bound", "the link to be known", IDENTIFIED_SECONDS)
            link.rename("other0")
            wait_for(lambda: state(agent, "other0") == "unbound", "the link to be known", IDENTIFIED_SECONDS)
        came, passed, _, passed_allowed = link.end()
    assert (came > 0, passed, passed_allowed > 0) == (True, 0, True)


def test_a_link_that_comes_while_the_agent_is_dead(agent: Service, bench: Lab) -> None:
    """The table outlives it: the link is judged from its first packet on."""
    agent.configure(patterns("br-*"))
    agent.start()
    agent.kill()
    with flooded(bench, "br-new") as link:
        link.come()
        link.wait_for_packets()
        came, passed, came_allowed, passed_allowed = link.end()
    assert (came > 0, passed, passed_allowed) == (True, 0, came_allowed)


@pytest.mark.parametrize("is_without_snapshot", (False, True))
def test_a_host_without_definitions_closes_patterns(
    agent: Service,
    bench: Lab,
    is_without_snapshot: bool,  # noqa: FBT001 - a parameter
) -> None:
    """``fail_closed`` concerns the links that the configuration names: all that patterns match (§9.2)."""
    if is_without_snapshot:
        (agent.documents / "policy.yaml").unlink()
    agent.configure("[enforcement]\nfail_closed = true\n" + patterns("veth* exclude = ['veth10']"))
    agent.start()
    with flooded(bench, "veth7") as link:
        link.come()
        link.wait_for_packets()
        came, passed, _, _ = link.end()
    assert (came > 0, passed) == (True, 0)
    with flooded(bench, "veth10") as link:
        link.come()
        wait_for(lambda: link.counts()[1] > 0, "a packet to pass")


@pytest.mark.long
def test_a_hundred_links_that_come_and_go_at_once(agent: Service, bench: Lab) -> None:
    """Each is judged, and when they are gone the chains are the same as before."""
    agent.configure(patterns("br-*"))
    agent.start()
    chains = agent.table().count("\tchain ")
    names = [f"br-{number}" for number in range(100)]
    with flooded(bench, names[50]) as link:
        others = [one for one in names if one != names[50]]
        bench.host.ip(*(f"link add {one} type bridge" for one in others))
        link.come()
        link.wait_for_packets()
        wait_for(lambda: states(agent).items() >= dict.fromkeys(names, "bound").items(), "100 links", 10)
        assert agent.command("verify").status == 0
        bench.host.ip(*(f"link del {one}" for one in others))
        bench.host.ip(f"link set {names[50]} down")
        bench.host.ip(f"link set {names[50]} netns {bench.peer.name} name near")
        wait_for(lambda: state(agent, names[0]) is None and state(agent, names[50]) is None, "none", 10)
        assert agent.table().count("\tchain ") == chains
        assert agent.command("verify").status == 0
        assert agent.metric("sgagent_drift_repaired_total") == 0
        came, passed, _, passed_allowed = link.end()
    assert (came > 0, passed, passed_allowed > 0) == (True, 0, True)


MEANT = ("br-0", "br-1", "br-lanx", "br-lan-x", "veth1", "veth10x", "ab", "axb")
OPEN = ("other0", "br-lan", "veth10", "veth20", "ac", "eth5")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", (1, 2))
def test_a_link_that_has_many_names(agent: Service, bench: Lab, seed: int) -> None:
    """Whatever it was called before, and whether there is an agent, nothing passes that must not."""
    chance = Random(seed)
    agent.configure(
        patterns(
            "br-* exclude = ['br-lan']", "veth* exclude = ['veth10', 'veth2*']", "ab*", "axb*", "br-lan-x"
        )
    )
    agent.start()
    is_running = True
    with flooded(bench, "other0", *MEANT) as link:
        link.come()
        for _ in range(40):
            if chance.random() < 0.05:
                chance.choice((agent.kill, agent.stop))() if is_running else agent.start()
                is_running = not is_running
            name = chance.choice([*MEANT, *OPEN])
            if name != link.name:
                link.rename(name)
            if name not in OPEN:
                link.wait_for_packets(chance.choice((1, 1, 10, 1000)))
        if not is_running:
            agent.start()
        if link.name != "br-1":
            link.rename("br-1")
        before = link.counts()[3]
        wait_for(lambda: link.counts()[3] > before, "an allowed packet")
        came, passed, _, _ = link.end()
        assert (came > 0, passed) == (True, 0)
        assert agent.command("verify").status == 0


@pytest.mark.parametrize(("table", "name"), (("br-*", "br-new"), ("abcdefghijklmn*", "abcdefghijklmno")))
def test_a_link_through_which_the_host_sends(agent: Service, bench: Lab, table: str, name: str) -> None:
    """Leaving packets are judged from the first on, too, also while no agent can identify the link."""
    rules = "egress accept 1 tcp 80 to 0.0.0.0/0", "egress drop 2 all -1/-1 to 0.0.0.0/0"
    agent.define(definitions(*rules, mac_address=""))
    agent.configure(patterns(table))
    agent.start()
    agent.kill()
    datagrams = [
        datagram
        for at in range(1, _ROUND)
        for datagram in tcp(HOST, CLIENT, 1024 + at, 80 + at % 2).datagrams(at)
    ]
    bench.host.ip(f"link add {name} type veth peer name far address {FAR_MAC} netns {bench.peer.name}")
    bench.peer.ip("link set far up")

    def send() -> None:
        with bench.host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            while not is_over.wait(_PAUSE_SECONDS):
                for datagram in datagrams:
                    with contextlib.suppress(OSError):  # before there is a way, and where the agent drops it
                        raw.sendto(datagram, (str(CLIENT), 0))

    bench.load(_WATCH_OUT.format(name=name, client=CLIENT))
    is_over, sender = threading.Event(), threading.Thread(target=send, name="flood")
    link = Flooded(bench, name, sender, is_over)
    sender.start()
    try:
        bench.host.ip(
            f"link set {name} up",
            f"neighbour replace {CLIENT} lladdr {FAR_MAC} dev {name} nud permanent",
            f"route add {CLIENT} dev {name}",
        )
        link.wait_for_packets()
        agent.start()
        link.wait_for_allowed()
    finally:
        came, passed, _, _ = link.end()
    assert (came > 0, passed) == (True, 0)
