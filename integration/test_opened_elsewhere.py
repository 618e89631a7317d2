"""Conntrack entries that were opened over another link neither open nor shut a bound one (§6.4)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from integration.enforcer import Enforcer, enforcer, policy_of
from integration.lab import Lab, lab, wait_for
from integration.test_edges import FTP_HELPER, announce_data, is_refused
from sgagent.core.model import Mode
from sgagent.policy_test.packet_bytes import tcp, udp
from tests.patience import PATIENCE

HOST = {4: "10.0.0.11", 6: "2001:db8::11"}
FAR = {4: "10.0.0.99", 6: "2001:db8::99"}
FAR_PORT, PORTS = 5353, range(40_000, 40_010)
SECONDS = 0.3
IPV6_FREEBIND = 78
"""Python has no name for it."""

GROUPS = """security_groups:
  - security_group_id: sg-open
    type: basic
  - security_group_id: sg-shut
    type: basic
    rules:
      - {{rule_id: shut-4, direction: egress, policy: drop, protocol: udp, port_range: 1/65535,
         authorization_object: 0.0.0.0/0}}
      - {{rule_id: shut-6, direction: egress, policy: drop, protocol: udp, port_range: 1/65535,
         authorization_object: '::/0'}}
  - security_group_id: sg-inwards
    type: basic
    rules:
      - {{rule_id: in-tcp, direction: ingress, policy: accept, protocol: tcp, port_range: 2020/8022,
         authorization_object: any}}
      - {{rule_id: in-4, direction: ingress, policy: accept, protocol: udp, port_range: 1/65535,
         authorization_object: 0.0.0.0/0}}
      - {{rule_id: in-6, direction: ingress, policy: accept, protocol: udp, port_range: 1/65535,
         authorization_object: '::/0'}}
  - security_group_id: sg-queries
    type: basic
    rules:
      - {{rule_id: queries-4, direction: ingress, policy: accept, protocol: udp, port_range: 5353,
         authorization_object: 0.0.0.0/0}}
      - {{rule_id: queries-6, direction: ingress, policy: accept, protocol: udp, port_range: 5353,
         authorization_object: '::/0'}}
  - security_group_id: sg-answers
    type: advanced
    rules:
      - {{rule_id: answers-4, direction: ingress, policy: accept, protocol: udp, port_range: 5353,
         authorization_object: 0.0.0.0/0}}
      - {{rule_id: answers-6, direction: ingress, policy: accept, protocol: udp, port_range: 5353,
         authorization_object: '::/0'}}
      - {{rule_id: ftp, direction: ingress, policy: accept, protocol: tcp, port_range: 21,
         authorization_object: 0.0.0.0/0}}
  - security_group_id: sg-many
    type: basic
    rules:
{many}
"""
MANY = "\n".join(
    f"      - {{rule_id: many-{number}, direction: {direction}, policy: drop, protocol: udp,"
    f" port_range: {number}, authorization_object: '{peer}'}}"
    for direction in ("ingress", "egress")
    for peer, first in (
        ("10.0.0.0/24", 100),
        ("10.0.0.99", 200),
        ("2001:db8::/64", 300),
        ("2001:db8::99", 400),
    )
    for number in range(first + (direction == "egress"), first + 40, 2)
)
"""Rules enough to be looked up by classes; none of them speaks of what is sent here."""


def enforce(agent: Enforcer, **groups: str) -> None:
    """Enforce groups on links."""
    bound = {link: f"sg-{name}" for link, name in groups.items()}
    agent.enforce(policy_of(GROUPS.format(many=MANY), Mode.ENFORCE, **bound))


@pytest.fixture
def agent() -> Iterator[Enforcer]:
    """Take hold of a host with links of which the first leads to the far ends."""
    with lab("eth0", "eth1", "eth2", "eth3") as built:
        built.add_host_addresses(HOST.values())
        with enforcer(built) as made:
            yield made


def pretend(built: Lab, version: int, link: str = "eth1") -> None:
    """Have a guest on a link send a datagram as the far end to each port of the host."""
    source, destination = ip_address(FAR[version]), ip_address(HOST[version])
    packets = [udp(source, destination, FAR_PORT, port) for port in PORTS]
    built.put_on_wire(link, list(enumerate(packets, start=1)))
    wait_for(lambda: tracked(built, version) == len(PORTS), "the entries of the guest")


def tracked(built: Lab, version: int) -> int:
    """Return how many entries conntrack has that the far end seems to have opened."""
    listing = built.host.run("conntrack", "-L", "-f", f"ipv{version}", "-p", "udp")
    return sum(f"src={FAR[version]} " in line.partition("dport=")[0] for line in listing.splitlines())


def queries(built: Lab, version: int) -> int:
    """Let the host ask the far end from each port, and return how many queries were answered."""
    host, far = HOST[version], (FAR[version], FAR_PORT)
    answered = 0
    with built.listen(built.peer, *far, socket.SOCK_DGRAM) as server:
        server.settimeout(SECONDS * PATIENCE)
        for port in PORTS:
            with built.listen(built.host, host, port, socket.SOCK_DGRAM) as client:
                client.settimeout(SECONDS * PATIENCE)
                with contextlib.suppress(TimeoutError, PermissionError):
                    client.sendto(b"question", far)
                    server.sendto(b"answer", server.recvfrom(64)[1])
                    answered += client.recv(64) == b"answer"
    return answered


@pytest.mark.parametrize(("version", "rp_filter"), ((4, 0), (4, 2), (6, 0)))
@pytest.mark.parametrize("group", ("open", "many"))
@pytest.mark.parametrize("elsewhere", ({}, {"eth1": "inwards"}), ids=("unbound", "bound"))
def test_a_guest_elsewhere_shuts_nothing(
    agent: Enforcer, version: int, rp_filter: int, group: str, elsewhere: dict[str, str]
) -> None:
    """Whoever opened an entry over another link, the host's answer to it goes out."""
    names = ("all", "eth0", "eth1")
    agent.lab.host.sysctl({f"net.ipv4.conf.{name}.rp_filter": rp_filter for name in names})
    enforce(agent, eth0=group, **elsewhere)
    pretend(agent.lab, version)
    assert queries(agent.lab, version) == len(PORTS)


@pytest.mark.parametrize("version", (4, 6))
def test_what_comes_in_opens_nothing_for_what_comes_in(agent: Enforcer, version: int) -> None:
    """Who sends both sides of a session over a link gets in what its header may, also after a change."""
    host, far = ip_address(HOST[version]), ip_address(FAR[version])
    request, answer = udp(far, host, 99, FAR_PORT), udp(host, far, FAR_PORT, 99)
    for groups in ({"eth0": "queries"}, {"eth0": "queries", "eth1": "queries"}, {"eth0": "queries"}):
        enforce(agent, **groups)
        assert agent.lab.send_ingress([answer]) == [False]
        agent.lab.put_on_wire("eth0", [(1, request)])
        wait_for(lambda: tracked(agent.lab, version) == 1, "the entry")
        assert agent.lab.send_ingress([answer]) == [False]


def received(built: Lab, version: int, port: int) -> bool:
    """Tell whether a datagram of the far end to a port of the host gets there over the first link."""
    with (
        built.listen(built.host, HOST[version], port, socket.SOCK_DGRAM) as server,
        built.listen(built.peer, FAR[version], FAR_PORT, socket.SOCK_DGRAM) as far,
    ):
        server.settimeout(SECONDS * PATIENCE)
        far.sendto(b"hello", (HOST[version], port))
        with contextlib.suppress(TimeoutError):
            return server.recv(64) == b"hello"
    return False


def open_outwards(built: Lab, version: int, link: str) -> None:
    """Have the host open entries to the far end over a link."""
    for port in PORTS:
        with built.listen(built.host, HOST[version], port, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            client.sendto(b"hello", (FAR[version], FAR_PORT))


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize("elsewhere", ({}, {"eth1": "open"}), ids=("unbound", "bound"))
def test_opened_elsewhere_opens_nothing(agent: Enforcer, version: int, elsewhere: dict[str, str]) -> None:
    """The far end gets in only where it may open a session itself, be it conntrack's answer or not."""
    enforce(agent, eth0="open", **elsewhere)
    open_outwards(agent.lab, version, "eth1")
    assert not received(agent.lab, version, PORTS[0])
    enforce(agent, eth0="inwards", **elsewhere)
    assert received(agent.lab, version, PORTS[1])


@pytest.mark.parametrize("version", (4, 6))
def test_over_its_own_link_the_far_end_answers(agent: Enforcer, version: int) -> None:
    """The same entries, opened over the link that the answer takes, let it in."""
    enforce(agent, eth0="open")
    open_outwards(agent.lab, version, "eth0")
    assert received(agent.lab, version, PORTS[0])


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize("group", ("open", "many"))
def test_a_revocation_stops_them_too(agent: Enforcer, version: int, group: str) -> None:
    """Queries that passed as answers stop both ways at the next policy, and go on with the one after."""
    enforce(agent, eth0=group)
    pretend(agent.lab, version)
    assert queries(agent.lab, version) == len(PORTS)
    enforce(agent, eth0="shut")
    assert queries(agent.lab, version) == 0
    assert not received(agent.lab, version, PORTS[0])
    enforce(agent, eth0=group)
    assert queries(agent.lab, version) == len(PORTS)


@pytest.mark.parametrize("version", (4, 6))
def test_what_came_in_over_the_link_itself_stays_shut(agent: Enforcer, version: int) -> None:
    """A session that was opened inwards here and is revoked stops in both directions, egress open or not."""
    enforce(agent, eth0="inwards", eth1="inwards")
    pretend(agent.lab, version, "eth0")
    assert queries(agent.lab, version) == len(PORTS)
    enforce(agent, eth0="open", eth1="inwards")
    pretend(agent.lab, version, "eth1")
    assert queries(agent.lab, version) == 0


@pytest.mark.parametrize("version", (4, 6))
def test_a_link_that_takes_the_slot_of_another(agent: Enforcer, version: int) -> None:
    """Entries from before are nobody's; those that are opened afterwards are told."""
    enforce(agent, eth1="inwards", eth2="open", eth3="open")
    pretend(agent.lab, version)
    enforce(agent, eth0="open", eth1="inwards", eth3="open")
    agent.lab.host.run("conntrack", "-D", "-p", "udp", "-f", f"ipv{version}")
    pretend(agent.lab, version)
    assert queries(agent.lab, version) == len(PORTS)


@pytest.mark.parametrize("version", (4, 6))
def test_a_refusal_is_heard(agent: Enforcer, version: int) -> None:
    """An error about a query that conntrack takes for an answer comes in (§6.5)."""
    enforce(agent, eth0="open")
    pretend(agent.lab, version)
    # Only an address that is really there is used as the source of an error.
    agent.lab.peer.ip(f"address add {FAR[version]} dev lo")
    with agent.lab.listen(agent.lab.host, HOST[version], PORTS[0], socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.connect((FAR[version], FAR_PORT))
        wait_for(lambda: is_refused(client), "the refusal of a query")


@pytest.mark.parametrize("version", (4, 6))
def test_sessions_of_tcp_open_too(agent: Enforcer, version: int) -> None:
    """A guest's opening packet of TCP keeps the host from no connection to the far end."""
    enforce(agent, eth0="open")
    source, destination = ip_address(FAR[version]), ip_address(HOST[version])
    packets = [tcp(source, destination, FAR_PORT, port) for port in PORTS]
    agent.lab.put_on_wire("eth1", list(enumerate(packets, start=1)))
    with agent.lab.listen(agent.lab.peer, FAR[version], FAR_PORT):
        for port in PORTS:
            far = FAR[version], FAR_PORT
            agent.lab.connect(agent.lab.host, (HOST[version], port), far, seconds=SECONDS * PATIENCE).close()


def test_nobody_shuts_the_host_from_within(agent: Enforcer) -> None:
    """A program that may choose its source, as IPv6 lets any, opens entries over the loopback link."""
    enforce(agent, eth0="open")
    with agent.lab.host.socket(socket.AF_INET6, socket.SOCK_DGRAM) as local:
        local.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        local.bind((FAR[6], FAR_PORT))
        for port in PORTS:
            local.sendto(b"hello", (HOST[6], port))
    assert tracked(agent.lab, 6) == len(PORTS)
    assert queries(agent.lab, 6) == len(PORTS)


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize("elsewhere", ({}, {"eth1": "inwards"}), ids=("unbound", "bound"))
def test_an_accepted_answer_lets_nobody_in(agent: Enforcer, version: int, elsewhere: dict[str, str]) -> None:
    """The far end, with the host's address, answers a guest's packet at an open port: no other port opens."""
    built, host, far = agent.lab, ip_address(HOST[version]), ip_address(FAR[version])
    enforce(agent, eth0="answers", **elsewhere)
    pretend(built, version)
    built.put_on_wire("eth0", [(n, udp(host, far, port, FAR_PORT)) for n, port in enumerate(PORTS, start=1)])
    wait_for(lambda: agent.hits()[f"rule/eth0/answers-{version}"] >= len(PORTS), "the accepted answers")
    assert not any(received(built, version, port) for port in PORTS[:3])


WATCH = """
table inet watch {{
    chain arrived {{
        type filter hook prerouting priority -160; policy accept
        iifname eth0 tcp dport {port} counter
    }}
    chain let_in {{
        type filter hook input priority 0; policy accept
        iifname eth0 tcp dport {port} counter
    }}
    chain answered {{
        type filter hook output priority 0; policy accept
        tcp sport {port} counter
    }}
    chain let_out {{
        type filter hook postrouting priority 400; policy accept
        oifname eth0 tcp sport {port} counter
    }}
}}
"""
"""Counts segments on both sides of what is enforced."""


def counted(built: Lab, chain: str) -> int:
    """Return how many segments a chain of the watch has counted."""
    listing = built.host.run("nft", "list", "chain", "inet", "watch", chain)
    return int(listing.partition("packets ")[2].split()[0])


@pytest.mark.parametrize("version", (4, 6))
@pytest.mark.parametrize("elsewhere", ({}, {"eth1": "inwards"}), ids=("unbound", "bound"))
def test_the_hosts_answer_lets_nobody_in(agent: Enforcer, version: int, elsewhere: dict[str, str]) -> None:
    """A SYN-ACK that leaves over an open link opens no session there: its answers are dropped."""
    built, port = agent.lab, 8022
    built.peer.ip(f"address add {FAR[version]} dev lo")  # it refuses what it has not asked for
    built.load(WATCH.format(port=port))
    enforce(agent, eth0="open", **elsewhere)
    opening = tcp(ip_address(FAR[version]), ip_address(HOST[version]), FAR_PORT, port)
    with built.listen(built.host, HOST[version], port):
        built.put_on_wire("eth1", [(1, opening)])
        wait_for(lambda: counted(built, "arrived") > 0, "the far end's refusal")
    assert counted(built, "let_out") > 0
    assert counted(built, "let_in") == 0


@pytest.mark.parametrize("elsewhere", ({}, {"eth1": "inwards"}), ids=("unbound", "bound"))
def test_an_announced_session_has_to_be_opened_here(agent: Enforcer, elsewhere: dict[str, str]) -> None:
    """One that a guest opens elsewhere has the mark of who announced it; that lets nothing pass (§6.5)."""
    built, host, far = agent.lab, ip_address(HOST[4]), ip_address(FAR[4])
    built.load(FTP_HELPER)
    built.load(WATCH.format(port=2020))
    enforce(agent, eth0="answers", **elsewhere)
    with (
        built.listen(built.host, HOST[4], 21) as listener,
        built.listen(built.host, HOST[4], 2020),
        built.connect(built.peer, (FAR[4], 0), (HOST[4], 21)) as asking,
        listener.accept()[0] as asked,
    ):
        announce_data(asking, asked, host)
        built.put_on_wire("eth1", [(1, tcp(far, host, FAR_PORT, 2020))])
        wait_for(lambda: counted(built, "answered") > 0, "the host's answer")
    assert counted(built, "let_out") == 0
