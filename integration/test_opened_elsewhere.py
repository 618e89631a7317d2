"""Conntrack entries that were opened over another link neither open nor shut a bound one (§6.4)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from integration.enforcer import Enforcer, enforcer, policy_of
from integration.lab import Lab, lab, wait_for
from sgagent.core.model import Mode
from sgagent.policy_test.packet_bytes import udp
from tests.patience import PATIENCE

HOST = {4: "10.0.0.11", 6: "2001:db8::11"}
FAR = {4: "10.0.0.99", 6: "2001:db8::99"}
FAR_PORT, PORTS = 5353, range(40_000, 40_010)
SECONDS = 0.3

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
      - {{rule_id: in-4, direction: ingress, policy: accept, protocol: udp, port_range: 1/65535,
         authorization_object: 0.0.0.0/0}}
      - {{rule_id: in-6, direction: ingress, policy: accept, protocol: udp, port_range: 1/65535,
         authorization_object: '::/0'}}
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
    """Take hold of a host with two links, of which the first leads to the far ends."""
    with lab("eth0", "eth1") as built:
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
    """Whoever opened an entry over another link, what the host sends as its answer goes out."""
    names = ("all", "eth0", "eth1")
    agent.lab.host.sysctl({f"net.ipv4.conf.{name}.rp_filter": rp_filter for name in names})
    enforce(agent, eth0=group, **elsewhere)
    pretend(agent.lab, version)
    assert queries(agent.lab, version) == len(PORTS)
