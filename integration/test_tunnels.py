"""The claims of docs/recipes/vpn.md about tunnels that keep marks, with the rules that their programs set.

Neither program is run: the host gets their rules, marks and routes, and a socket with their mark.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lab import Lab, lab
from integration.service import Service, service_on

HOST, FAR, PORT = "192.0.2.10", "198.51.100.7", 51820
SO_MARK = 36
PACKETS = 3
LOOSE, STRICT = 2, 1
POLICY = """\
version: 1
security_groups: [{security_group_id: sg-edge, inner_access_policy: drop}]
network_interfaces: [{network_interface_id: eni-edge, addresses: [192.0.2.10], security_group_ids: [sg-edge]}]
"""
WG_QUICK = """\
table ip wg-quick {
	chain premangle {
		type filter hook prerouting priority mangle
		meta l4proto udp meta mark set ct mark
	}
	chain postmangle {
		type filter hook postrouting priority mangle
		meta l4proto udp meta mark 0xca6c ct mark set meta mark
	}
}
"""
TAILSCALE = """\
table ip tailscale {
	chain PREROUTING {
		type filter hook prerouting priority mangle
		ct state established,related ct mark & 0xff0000 != 0 meta mark set ct mark & 0xff0000
	}
	chain OUTPUT {
		type filter hook output priority mangle
		ct state new meta mark & 0xff0000 != 0 ct mark set meta mark & 0xff0000
	}
}
"""


@pytest.fixture
def wire() -> Iterator[Lab]:
    """Give a host whose default route leads into a tunnel, except for packets with the tunnel's mark."""
    with lab() as built:
        built.add_host_addresses([HOST])
        built.host.ip("link add tun0 type veth peer name tun1", "link set tun0 up", "link set tun1 up")
        built.host.ip("route add default dev tun0 table 52")
        yield built


@pytest.fixture
def agent(wire: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give it an agent that is not started yet."""
    with service_on(wire.host, tmp_path) as made:
        made.define(POLICY)
        yield made


@pytest.mark.parametrize(
    ("check", "mask", "answers"),
    ((LOOSE, "0xffff0000", PACKETS), (STRICT, "0xffff0000", 0), (STRICT, "0x1", PACKETS)),
)
def test_wireguard_with_a_default_route_needs_a_loose_source_check(
    wire: Lab, agent: Service, check: int, mask: str, answers: int
) -> None:
    """wg-quick compares the whole mark, and so takes a session with our bits for another's.

    With a mask too small for ours we leave the mark alone.
    """
    agent.configure(f"[enforcement]\nmark_mask = {mask}\n")
    wire.host.nft("-f", "-", stdin=WG_QUICK)
    wire.host.ip("rule add not fwmark 51820 table 52", "rule add table main suppress_prefixlength 0")
    check_sources(wire, check)
    agent.start()
    assert answers_through_the_wire(wire, 51820) == answers


@pytest.mark.parametrize(("mask", "answers"), (("0x0000ffff", PACKETS), ("0xffff0000", 0)))
def test_tailscale_needs_other_bits_of_the_mark(wire: Lab, agent: Service, mask: str, answers: int) -> None:
    """With a mask of its own each program finds its bits; with ours by default we replace Tailscale's."""
    wire.host.nft("-f", "-", stdin=TAILSCALE)
    wire.host.ip("rule add fwmark 0x80000/0xff0000 table main pref 5210", "rule add table 52 pref 5270")
    check_sources(wire, STRICT)
    agent.configure(f"[enforcement]\nmark_mask = {mask}\n")
    agent.start()
    assert answers_through_the_wire(wire, 0x80000) == answers


def check_sources(wire: Lab, how: int) -> None:
    """Have the host check the route back to each sender, by marks too."""
    wire.host.sysctl(
        {
            "net.ipv4.conf.all.rp_filter": 0,
            "net.ipv4.conf.eth0.rp_filter": how,
            "net.ipv4.conf.all.src_valid_mark": 1,
        }
    )


def answers_through_the_wire(wire: Lab, mark: int) -> int:
    """Send packets of a tunnel to its far end, which answers each, and return how many answers arrive."""
    answers = 0
    with (
        wire.listen(wire.peer, FAR, PORT, socket.SOCK_DGRAM) as far,
        wire.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
    ):
        near.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        near.bind((HOST, PORT))
        near.settimeout(0.5)
        far.settimeout(5)
        for _ in range(PACKETS):
            near.sendto(b"packet", (FAR, PORT))
            _, sender = far.recvfrom(16)
            far.sendto(b"answer", sender)
            try:
                answers += near.recv(16) == b"answer"
            except TimeoutError:
                continue
    return answers
