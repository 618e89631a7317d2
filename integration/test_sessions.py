"""A policy change judges live sessions again: the forbidden ones stop, and no other loses a byte (§6)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from integration.enforcer import Enforcer, enforcer, one_group, policy_of
from integration.lab import Lab, lab
from integration.traffic import Traffic, is_open, traffic
from sgagent.core.model import Mode
from sgagent.nft.marks import MarkLayout, Sessions
from sgagent.policy_test.packet_bytes import icmp
from tests.patience import PATIENCE

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
STAYS, LEAVES = "198.51.100.7", "198.51.100.8"
STAYS6, LEAVES6 = "2001:db8:7::1", "2001:db8:8::1"
FAR, FAR_REVOKED = "203.0.113.10", "203.0.113.9"
WATCH_SECONDS = 0.6
AT_ONCE_SECONDS = 0.1
"""From the beginning of the transaction that cuts it to the last that is heard of a session."""

OPEN = one_group(
    "ingress accept 1 tcp 22 from 198.51.100.0/24",
    "ingress accept 1 tcp 80 from 0.0.0.0/0",
    "ingress accept 1 tcp 22 from ::/0",
    "ingress accept 1 udp 53 from 198.51.100.0/24",
    "ingress accept 1 udp 54 from 198.51.100.0/24",
)
NARROW = one_group(
    f"ingress accept 1 tcp 22 from {STAYS}",
    "ingress accept 1 tcp 80 from 0.0.0.0/0",
    f"ingress accept 1 tcp 22 from {STAYS6}",
    "ingress accept 1 udp 54 from 198.51.100.0/24",
    f"egress drop 1 all -1/-1 to {FAR_REVOKED}",
)

FOREIGN_MARK = """
table inet testmark {
    chain early {
        type filter hook prerouting priority -160; policy accept;
        ct state new ct mark set 0x2a
    }
}
"""


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Enforcer]:
    """Take hold of a host with two addresses."""
    one_interface.add_host_addresses([HOST, HOST6])
    with enforcer(one_interface) as made:
        yield made


@pytest.fixture
def busy(agent: Enforcer) -> Iterator[Traffic]:
    """Return sessions to be opened."""
    with traffic(agent.lab) as made:
        yield made


REVOKED = {"ssh from one that leaves", "ssh over IPv6 from one that leaves", "udp 53", "out to the revoked"}


def open_all(busy: Traffic) -> None:
    """Open sessions of both protocols, both families and both directions."""
    host, peer, udp = busy.lab.host, busy.lab.peer, socket.SOCK_DGRAM
    busy.open("ssh from one that stays", peer, STAYS, host, (HOST, 22))
    busy.open("ssh from one that leaves", peer, LEAVES, host, (HOST, 22))
    busy.open("web from one that leaves", peer, LEAVES, host, (HOST, 80))
    busy.open("ssh over IPv6 from one that stays", peer, STAYS6, host, (HOST6, 22))
    busy.open("ssh over IPv6 from one that leaves", peer, LEAVES6, host, (HOST6, 22))
    busy.open("udp 53", peer, STAYS, host, (HOST, 53), kind=udp)
    busy.open("udp 54", peer, STAYS, host, (HOST, 54), kind=udp)
    busy.open("out", host, HOST, peer, (FAR, 443))
    busy.open("out to the revoked", host, HOST, peer, (FAR_REVOKED, 443))
    busy.open("out over IPv6", host, HOST6, peer, ("2001:db8:10::1", 443))
    busy.open("out by udp", host, HOST, peer, (FAR, 123), kind=udp)


def assert_cut(
    busy: Traffic, moment: float, revoked: set[str], capsys: pytest.CaptureFixture[str] | None = None
) -> None:
    """Check that the revoked sessions, and no others, fell silent at once; the others lost nothing."""
    silent = busy.silent_since(moment, WATCH_SECONDS)
    busy.settle(set(busy.sessions) - revoked)
    if capsys:
        with capsys.disabled():
            for name, session in sorted(busy.sessions.items()):
                fate = (
                    f"cut, last heard {silent[name] * 1000:+.1f} ms after the change"
                    if name in silent
                    else f"goes on, {sum(end.heard for end in session.ends)} messages, {session.lost()} lost"
                )
                print(f"\n  {name:40} {fate}", end="")
    assert set(silent) == revoked
    assert max(silent.values(), default=0) < AT_ONCE_SECONDS * PATIENCE
    assert not [end.broken for session in busy.sessions.values() for end in session.ends if end.broken]


def test_a_change_cuts_what_it_forbids_and_nothing_else(
    agent: Enforcer, busy: Traffic, capsys: pytest.CaptureFixture[str]
) -> None:
    """Revoked sessions stop in both directions at once, though both ends keep sending (§6.3)."""
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    open_all(busy)
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(NARROW, eth0="sg-1"))
        assert_cut(busy, moment, REVOKED, capsys)


@pytest.mark.parametrize("mask", (0x00000FFF, 0xFFF00000, 0x00FF0000), ids=hex)
def test_few_bits_are_enough(agent: Enforcer, busy: Traffic, mask: int) -> None:
    """The same with other bits of the mark, and with too few to remember anything (§6.3)."""
    agent.layout = MarkLayout(mask)
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    open_all(busy)
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(NARROW, eth0="sg-1"))
        assert_cut(busy, moment, REVOKED)


def test_generations_come_round_again(agent: Enforcer, busy: Traffic) -> None:
    """With six bits the generation wraps every 63 changes; no old mark is ever taken for a current one."""
    agent.layout = MarkLayout(0x00000FFF)
    stays = f"ingress accept 1 tcp 22 from {STAYS}"
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    busy.open("goes on", busy.lab.peer, STAYS, busy.lab.host, (HOST, 22))
    busy.open("is revoked", busy.lab.peer, LEAVES, busy.lab.host, (HOST, 22))
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(one_group(stays), eth0="sg-1"))
        for number in range(2 * agent.layout.last_generation + 3):
            narrows_each_time = one_group(stays, f"ingress drop 1 tcp {1000 + number} from 0.0.0.0/0")
            agent.enforce(policy_of(narrows_each_time, eth0="sg-1"))
        silent = busy.silent_since(time.perf_counter(), WATCH_SECONDS)
        busy.settle({"goes on"})
    assert set(silent) == {"is revoked"}
    assert busy.sessions["is revoked"].last_heard - moment < AT_ONCE_SECONDS * PATIENCE


def test_more_interfaces_than_slots_are_all_judged() -> None:
    """Sessions of a fourth and fifth interface are remembered nowhere, and cut all the same."""
    names = ("eth0", "eth1", "eth2", "eth3", "eth4")
    with lab(*names) as built, enforcer(built) as agent, traffic(built) as busy:
        for index, name in enumerate(names):
            built.add_host_addresses([f"10.0.{index}.11"], name)
        agent.enforce(policy_of(OPEN, Mode.ENFORCE, **dict.fromkeys(names, "sg-1")))
        for index, name in enumerate(names):
            built.host.ip(f"rule add from 10.0.{index}.11 lookup {100 + index}")
            built.host.ip(f"route add default via 172.31.254.{4 * index + 2} dev {name} table {100 + index}")
            busy.open(f"{name} stays", built.peer, STAYS, built.host, (f"10.0.{index}.11", 22))
            busy.open(f"{name} leaves", built.peer, LEAVES, built.host, (f"10.0.{index}.11", 22))
        with busy.running():
            busy.wait_until_all_talk()
            moment = agent.enforce(policy_of(NARROW, Mode.ENFORCE, **dict.fromkeys(names, "sg-1")))
            assert_cut(busy, moment, {f"{name} leaves" for name in names})


def test_a_change_that_only_opens_cuts_nothing(agent: Enforcer, busy: Traffic) -> None:
    """A policy that takes nothing away leaves every session, and its marks, alone."""
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    open_all(busy)
    wider = (
        OPEN
        + "\n      - {direction: ingress, policy: accept, protocol: udp, port_range: 99, "
        + ("authorization_object: 0.0.0.0/0}")
    )
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(wider, eth0="sg-1"))
        assert_cut(busy, moment, set())


def test_sessions_come_back_with_the_policy(agent: Enforcer, busy: Traffic) -> None:
    """A session that was cut and is allowed again goes on where it was: nothing of it was deleted."""
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    open_all(busy)
    with busy.running():
        busy.wait_until_all_talk()
        busy.silent_since(agent.enforce(policy_of(NARROW, eth0="sg-1")), WATCH_SECONDS)
        agent.enforce(policy_of(OPEN, eth0="sg-1"))
        busy.wait_until_all_talk()
        busy.settle({name for name, session in busy.sessions.items() if session.ends[0].is_stream})


def test_sessions_may_be_kept(agent: Enforcer, busy: Traffic) -> None:
    """Where the configuration says ``sessions = "keep"`` an accepted session goes on; a new one is judged."""
    agent.sessions = Sessions.KEEP
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    open_all(busy)
    lab = agent.lab
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(NARROW, eth0="sg-1"))
        assert_cut(busy, moment, set())
    with lab.listen(lab.host, HOST, 22):
        assert is_open(lambda: lab.connect(lab.peer, (STAYS, 0), (HOST, 22), seconds=0.4))
        assert not is_open(lambda: lab.connect(lab.peer, (LEAVES, 0), (HOST, 22), seconds=0.4))


def test_every_session_is_judged_when_the_groups_go(agent: Enforcer, busy: Traffic) -> None:
    """An interface that loses its last group is closed for the sessions that it had."""
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    open_all(busy)
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(OPEN, eth0=""))
        assert_cut(busy, moment, set(busy.sessions))


def test_marks_of_others_are_left_alone(agent: Enforcer, busy: Traffic) -> None:
    """Bits of the conntrack mark outside our mask survive acceptance and a change of policy."""
    agent.lab.load(FOREIGN_MARK)
    agent.enforce(policy_of(OPEN, eth0="sg-1"))
    busy.open("web", busy.lab.peer, STAYS, busy.lab.host, (HOST, 80))
    with busy.running():
        busy.wait_until_all_talk()
        agent.enforce(policy_of(NARROW, eth0="sg-1"))
        busy.wait_until_all_talk()
        listing = agent.lab.host.run("conntrack", "-L", "-p", "tcp", "--dport", "80")
    marks = [int(word.removeprefix("mark=")) for word in listing.split() if word.startswith("mark=")]
    assert len(marks) == 1
    assert marks[0] & 0xFFFF == 0x2A
    assert marks[0] & 0xFFFF0000


def test_a_ping_that_goes_on_is_judged_again(agent: Enforcer) -> None:
    """ICMP has sessions too: a ping that was allowed is cut when it is not any more (§6.2)."""
    lab = agent.lab
    allowed = one_group(f"ingress accept 1 icmp -1/-1 from {STAYS}")
    lab.peer.ip(f"address add {STAYS}/32 dev lo")  # a raw socket is transparent on newer kernels only
    agent.enforce(policy_of(allowed, eth0="sg-1"))
    with lab.peer.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as ping:
        ping.bind((STAYS, 0))
        ping.settimeout(0.4)
        assert is_echoed(ping)
        assert is_echoed(ping)
        agent.enforce(policy_of(one_group(), eth0="sg-1"))
        assert not is_echoed(ping)
        agent.enforce(policy_of(allowed, eth0="sg-1"))
        assert is_echoed(ping)


def is_echoed(ping: socket.socket) -> bool:
    """Tell whether an echo request is answered."""
    ping.sendto(icmp(ip_address(STAYS), ip_address(HOST)).payload, (HOST, 0))
    try:
        return bool(ping.recv(64))
    except TimeoutError:
        return False
