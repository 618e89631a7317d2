"""Limits by source on the wire: who exceeds one is dropped, and nobody else (§13.1)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from itertools import product

import pytest

from integration.enforcer import Enforcer, enforcer, policy_of
from integration.kernel_verdicts import LAYOUT, NOTRACK
from integration.lab import Lab, lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import NOTICED_SECONDS, Service, definitions
from sgagent.core.conditions import MOST_SOURCES
from sgagent.core.model import Mode
from sgagent.nft.marks import MarkLayout
from sgagent.policy_test.packet_bytes import Address, tcp, udp
from tests.patience import PATIENCE

HOST, HOST6 = ip_address("10.0.0.11"), ip_address("2001:db8::11")
LOUD, QUIET = ip_address("198.51.100.7"), ip_address("198.51.100.8")
LOUD6, QUIET6 = ip_address("2001:db8:7::7"), ip_address("2001:db8:7::8")
BURST = 5
SSH, DNS = 22, 53
_BATCH = 1 << 14
LINKS = ("eth0", "eth1", "eth2", "eth3")
SYSLOG = 514
ONE_WAY = f"""security_groups:
  - security_group_id: sg-1
    type: advanced
    rules:
      - {{rule_id: sgr-in, direction: ingress, policy: accept, protocol: udp, port_range: {SYSLOG},
         authorization_object: any, limit_per_source: {{rate: 1/day, burst: 2}}}}
      - {{rule_id: sgr-out, direction: egress, policy: accept, protocol: udp, port_range: {SYSLOG},
         authorization_object: any, limit_per_source: {{rate: 1/day, burst: 2}}}}
"""
TRACKING = "table inet testtracking { chain seen { type filter hook prerouting priority 0; ct state new; }; }"
"""Conntrack follows packets only where a table asks for what it knows."""


def limited(burst: int = BURST, web: int = 80) -> str:
    """Return definitions with a rule of each protocol that is limited, and one that is not."""
    limit = f"limit_per_source: {{rate: 1/day, burst: {burst}}}"
    rules = f"""
      - {{rule_id: sgr-ssh, direction: ingress, policy: accept, protocol: tcp, port_range: {SSH},
         authorization_object: any, {limit}}}
      - {{rule_id: sgr-dns, direction: ingress, policy: accept, protocol: udp, port_range: {DNS},
         authorization_object: any, {limit}}}
      - {{rule_id: sgr-out, direction: egress, policy: accept, protocol: udp, port_range: {DNS},
         authorization_object: any, {limit}}}
"""
    text = definitions(f"ingress accept 1 tcp {web} from 0.0.0.0/0", addresses=f"{HOST}, '{HOST6}'")
    return text.replace("    rules:\n", f"    rules:{rules}", 1)


agent = agent_with(limited(), is_started=False, verifies=True)


def admitted(lab: Lab, source: Address, sessions: int, first_port: int = 1024) -> int:
    """Return how many new sessions of a source to SSH get in."""
    host = HOST if source.version == 4 else HOST6
    return sum(lab.send_ingress([tcp(source, host, first_port + one, SSH) for one in range(sessions)]))


def over(agent: Service, rule_id: str) -> float | None:
    """Return how many packets a rule's limit dropped."""
    name = "sgagent_over_limit_packets_total"
    return agent.metric(name, interface="eth0", security_group_id="sg-1", rule_id=rule_id)


def test_a_flood_is_cut_off_and_hits_nobody_else(agent: Service, one_interface: Lab) -> None:
    """Of either family; an agent that is stopped or started anew changes nothing, and no bucket is drift."""
    agent.start()
    for loud, quiet in ((LOUD, QUIET), (LOUD6, QUIET6)):
        assert admitted(one_interface, loud, 20) == BURST
        assert admitted(one_interface, quiet, BURST) == BURST
    assert agent.hits("sgr-ssh") == 4 * BURST
    assert over(agent, "sgr-ssh") == 2 * (20 - BURST)
    table = agent.command("hits", "--wide").output
    assert "sgr-ssh (over_limit)" in table
    query = f"explain ingress --source {LOUD} --destination {HOST} --protocol tcp --port {SSH}"
    assert "may be dropped" in agent.command(*query.split()).output
    agent.wait_for_proof()
    assert agent.command("verify").status == 0
    agent.stop()
    assert admitted(one_interface, LOUD, 1, 3000) == 0
    agent.start()
    assert admitted(one_interface, LOUD, 1, 3001) == 0
    assert not agent.events("drift_repaired")
    assert agent.metric("sgagent_drift_repaired_total") == 0


@pytest.mark.parametrize(("host", "client"), ((HOST, LOUD), (HOST6, LOUD6)))
def test_sessions_of_one_port_count_each(
    host: Address, client: Address, agent: Service, one_interface: Lab
) -> None:
    """Conntrack keeps the entry of a session that the server reset, and takes the next one for part of it."""
    agent.start()
    lab, opened = one_interface, 0
    with lab.listen(lab.host, str(host), SSH) as server:
        server.settimeout(1)
        for _ in range(BURST + 3):
            with suppress(TimeoutError):
                opened += reset_by_server(lab, server, (str(client), 40_000), (str(host), SSH))
    assert opened == BURST
    wait_for(lambda: (over(agent, "sgr-ssh") or 0) >= 3, "the limit to be exceeded")


def reset_by_server(
    lab: Lab, server: socket.socket, source: tuple[str, int], destination: tuple[str, int]
) -> bool:
    """Open a session that the server closes with unread data, and tell that it did.

    Raises:
        TimeoutError: it does not open.
    """
    with lab.connect(lab.peer, source, destination, seconds=0.5) as client:
        client.sendall(b"more than is read")
        with server.accept()[0] as accepted:
            accepted.recv(1)
        with suppress(ConnectionResetError):
            client.recv(1)
    return True


@pytest.mark.long
def test_buckets_that_others_plant_limit_nobody(agent: Service, one_interface: Lab) -> None:
    """They would count in the place of the rule's: they refute the proof, and the next agent removes them."""
    agent.start()
    agent.stop()
    names = [f"limit/eth0/sgr-ssh/{family}/1-86400-{BURST}" for family in ("ipv4", "ipv6")]
    planted = "limit rate over 10000/second burst 500 packets timeout 300d"
    for name, source in zip(names, (LOUD, LOUD6), strict=True):
        one_interface.host.nft("add", "element", "inet", "sgagent", name, f"{{ {source} {planted} }}")
        assert admitted(one_interface, source, 2 * BURST) == 2 * BURST
        assert admitted(one_interface, QUIET if source == LOUD else QUIET6, 2 * BURST) == BURST
    found = agent.command("verify")
    assert found.status == 1
    assert f"in it {LOUD} with limit rate over 10000/second burst 500 packets, timeout" in found.output
    agent.start()
    for source in (LOUD, LOUD6):
        assert admitted(one_interface, source, 2 * BURST, 3000) == BURST
    agent.wait_for_proof()


def test_what_changes_a_bucket(agent: Service, one_interface: Lab) -> None:
    """Another rule changes none, another limit fills all anew; in observe mode nothing is dropped."""
    agent.start()
    assert admitted(one_interface, LOUD, 2 * BURST) == BURST
    agent.define(limited(web=81))
    agent.wait_for_event("ruleset_applied", 2)
    assert admitted(one_interface, LOUD, 1, 3000) == 0
    agent.define(limited(burst=2))
    agent.wait_for_event("ruleset_applied", 3)
    assert admitted(one_interface, LOUD, 4, 3001) == 2
    assert agent.command("mode", "observe").status == 0
    assert admitted(one_interface, LOUD, 4, 4000) == 4
    assert over(agent, "sgr-ssh") == BURST + 1 + 2 + 4
    agent.wait_for_proof()


@pytest.mark.long
def test_newcomers_pass_while_all_buckets_are_taken(agent: Service, one_interface: Lab) -> None:
    """The kernel puts no bucket out: who has one stays limited, and a flood shuts nobody out."""
    agent.define(limited(burst=1))
    agent.start()
    first = int(ip_address("198.18.0.0"))
    for begin in range(0, MOST_SOURCES, _BATCH):
        sources = (ip_address(first + begin + one) for one in range(_BATCH))
        assert all(one_interface.send_ingress([udp(source, HOST, 1024, DNS) for source in sources]))
    again = [udp(ip_address(first + one), HOST, 1025, DNS) for one in (0, MOST_SOURCES - 1)]
    assert one_interface.send_ingress(again) == [False, False]
    assert one_interface.send_ingress([udp(LOUD, HOST, 1024 + one, DNS) for one in range(5)]) == [True] * 5
    agent.wait_for_proof()


def test_sessions_use_a_bucket_once(agent: Service, one_interface: Lab) -> None:
    """A live session, answered or not, is judged again after a change without using it up (§6.3)."""
    agent.start()
    lab = one_interface
    with ExitStack() as stack:
        server = stack.enter_context(lab.listen(lab.host, str(HOST), DNS, socket.SOCK_DGRAM))
        server.settimeout(NOTICED_SECONDS * PATIENCE)
        ends = ((str(LOUD), 5000 + one) for one in range(BURST + 1))
        clients = [
            stack.enter_context(lab.connect(lab.peer, end, (str(HOST), DNS), socket.SOCK_DGRAM))
            for end in ends
        ]
        for client in clients:
            client.send(b"first")
        heard = [server.recvfrom(16)[1] for _ in range(BURST)]
        for answered in heard[:2]:
            server.sendto(b"answer", answered)
        before = agent.generation()
        agent.define(limited(web=81))  # takes something away
        wait_for(lambda: agent.generation() != before, "another generation")
        for client in clients:
            client.send(b"again")
        assert sorted(server.recvfrom(16)[1] for _ in range(BURST)) == sorted(heard)
    wait_for(lambda: over(agent, "sgr-dns") == 2, "the sixth session to be counted twice")


def test_outwards_each_source_has_a_bucket(agent: Service, one_interface: Lab) -> None:
    """The sources are the host's own addresses, and those behind it."""
    agent.start()
    for source in (HOST, ip_address("10.0.0.12")):
        packets = [udp(source, LOUD, 1024 + one, DNS) for one in range(2 * BURST)]
        assert sum(one_interface.send_egress(packets)) == BURST
    assert over(agent, "sgr-out") == 2 * BURST


@pytest.fixture
def built() -> Iterator[Lab]:
    """Build a host with more links than have slots; its addresses are on the last one."""
    with lab(*LINKS) as made:
        made.add_host_addresses([str(HOST), str(HOST6)], LINKS[-1])
        yield made


def arrive(agent: Enforcer, direction: str, version: int, port: int) -> int:
    """Return how many of six datagrams of a session arrive; nobody answers, and limits drop the others."""
    built, is_in = agent.lab, direction == "ingress"
    here, there = (built.peer, built.host) if is_in else (built.host, built.peer)
    host, peer = (HOST, LOUD) if version == 4 else (HOST6, LOUD6)
    near, far = map(str, (peer, host) if is_in else (host, peer))
    before, arrived = dropped(agent), []
    with (
        built.listen(there, far, SYSLOG, socket.SOCK_DGRAM) as server,
        built.listen(here, near, port, socket.SOCK_DGRAM) as client,
    ):
        server.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LINKS[-1].encode())
        for _ in range(6):
            with suppress(PermissionError):  # what is dropped on its way out
                client.sendto(b"message", (far, SYSLOG))

        def is_all_there() -> bool:
            with suppress(BlockingIOError):
                while True:
                    arrived.append(server.recv(16))
            return len(arrived) + dropped(agent) - before == 6

        wait_for(is_all_there, "six datagrams, or their drops")
    return len(arrived)


def dropped(agent: Enforcer) -> int:
    """Return how many packets limits have dropped."""
    return sum(packets for name, packets in agent.hits().items() if name.startswith("over_limit/"))


WAYS = tuple(product(("ingress", "egress"), (4, 6)))


@pytest.mark.parametrize("layout", (LAYOUT, MarkLayout(0x1)), ids=("slots", "no slots"))
def test_a_session_that_nobody_answers_uses_a_bucket_once(built: Lab, layout: MarkLayout) -> None:
    """Also without a slot, before the link takes one, and before rules were first enforced (§6.3, §6.4)."""
    built.load(TRACKING)
    with enforcer(built) as agent:
        agent.layout = layout
        assert [arrive(agent, *way, 1000) for way in WAYS] == [6] * len(WAYS)
        for bound in (LINKS, LINKS[1:]):
            agent.enforce(policy_of(ONE_WAY, Mode.ENFORCE, **dict.fromkeys(bound, "sg-1")))
            for way in WAYS:  # behind a bucket's two, nothing
                assert [arrive(agent, *way, 1000 + one) for one in range(4)] == [6, 6, 6, 0], (bound, way)


@pytest.mark.parametrize("version", (4, 6))
def test_what_opens_a_session_here_uses_a_bucket(built: Lab, version: int) -> None:
    """Whoever opened its entry over another link (§6.4); and each untracked packet (§6.6)."""
    (host, peer), ports = ((HOST, LOUD) if version == 4 else (HOST6, LOUD6)), range(1000, 1006)
    with enforcer(built) as agent:
        agent.enforce(policy_of(ONE_WAY, eth3="sg-1"))
        guest = [udp(peer, host, port, SYSLOG) for port in ports]
        with built.listen(built.host, str(host), SYSLOG, socket.SOCK_DGRAM) as server:
            server.settimeout(NOTICED_SECONDS * PATIENCE)
            built.put_on_wire("eth0", list(enumerate(guest, start=1)))
            for _ in guest:
                server.recv(16)
        assert [arrive(agent, "ingress", version, port) for port in ports[:3]] == [6, 6, 0]
        built.load(NOTRACK)
        assert arrive(agent, "egress", version, 1000) == 2
