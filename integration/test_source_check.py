"""The source check: leaving packets have an address of the interface, and entering ones have none (§12.6)."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from integration.flood import flooding, watch
from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions
from sgagent.policy_test.packet_bytes import Address, icmpv6, tcp, udp

OWN, SECONDARY, DELEGATED, NEW = map(ip_address, ("10.0.0.11", "10.0.0.12", "10.0.8.3", "10.0.0.13"))
OWN6, DELEGATED6, NEW6 = map(ip_address, ("2001:db8::11", "2001:db8:0:8::3", "2001:db8::13"))
CLIENT, CLIENT6 = ip_address("198.51.100.7"), ip_address("2001:db8:7::7")
OTHER, OTHER6 = ip_address("192.0.2.66"), ip_address("2001:db8:66::66")
ADDRESSES = f"{OWN}, {SECONDARY}, 10.0.8.0/28, {OWN6}, '2001:db8:0:8::/64'"
RULES = ("ingress accept 1 all -1/-1 from 0.0.0.0/0", "ingress accept 1 all -1/-1 from ::/0")
CHECKED = '[enforcement]\nsource_check = "on"\n'
FOLLOWED_SECONDS = 1.0
_IP_TRANSPARENT = 19
"""From linux/in.h: the socket keeps its address, also where the host no longer has it."""


agent = agent_with(definitions(*RULES, addresses=ADDRESSES), CHECKED, is_started=False)


def leaves(lab: Lab, source: Address) -> bool:
    """Tell whether a session from a source gets out."""
    (passes,) = lab.send_egress([tcp(source, CLIENT if source.version == 4 else CLIENT6, 1024, 443)])
    return passes


def enters(lab: Lab, source: Address) -> bool:
    """Tell whether a session from a source gets in."""
    (passes,) = lab.send_ingress([tcp(source, OWN if source.version == 4 else OWN6, 1024, 80)])
    return passes


def spoofed(agent: Service, direction: str) -> float | None:
    """Return how many packets the source check dropped."""
    return agent.metric("sgagent_spoofed_packets_total", interface="eth0", direction=direction)


@pytest.mark.parametrize(
    ("own", "other", "client"),
    (((OWN, SECONDARY, DELEGATED), OTHER, CLIENT), ((OWN6, DELEGATED6), OTHER6, CLIENT6)),
    ids=("ipv4", "ipv6"),
)
def test_only_own_addresses_leave_and_none_enters(
    agent: Service, one_interface: Lab, own: tuple[Address, ...], other: Address, client: Address
) -> None:
    """Addresses of the link, secondary ones and delegated networks are own; everything else is not."""
    agent.start()
    assert [leaves(one_interface, source) for source in own] == [True] * len(own)
    assert not leaves(one_interface, other)
    assert spoofed(agent, "egress") == 1
    assert enters(one_interface, client)
    assert [enters(one_interface, source) for source in own] == [False] * len(own)
    assert spoofed(agent, "ingress") == len(own)


def test_link_local_addresses_and_what_a_host_needs(agent: Service, one_interface: Lab) -> None:
    """The link's link-local address is its own, and no source forbids DHCP or neighbour discovery (§7.1)."""
    agent.start()
    near = ip_address("fe80::1234")
    one_interface.host.ip("address add fe80::1234/64 dev eth0 nodad")
    routers = ip_address("ff02::2")
    wait_for(
        lambda: one_interface.send_egress([udp(near, ip_address("ff02::123"), 1024, 123)]) == [True],
        "the link-local address to be followed",
        FOLLOWED_SECONDS,
    )
    counted = spoofed(agent, "egress") or 0
    nobody = ip_address("fe80::66")
    assert one_interface.send_egress([udp(nobody, ip_address("ff02::123"), 1024, 123)]) == [False]
    assert spoofed(agent, "egress") == counted + 1
    assert one_interface.send_egress([icmpv6(nobody, routers, 133, hop_limit=255)]) == [True]
    assert one_interface.send_egress([udp(OTHER, ip_address("255.255.255.255"), 68, 67)]) == [True]
    assert one_interface.send_ingress([udp(OWN, ip_address("255.255.255.255"), 67, 68)]) == [True]
    assert (spoofed(agent, "egress"), spoofed(agent, "ingress")) == (counted + 1, 0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("new", "length"), ((NEW, 32), (NEW6, 128)), ids=("ipv4", "ipv6"))
def test_link_addresses_are_followed(agent: Service, one_interface: Lab, new: Address, length: int) -> None:
    """An address that comes may send within a second, and one that went may not; the table stays the same."""
    agent.verifies = True
    agent.configure(CHECKED)
    agent.start()
    assert not leaves(one_interface, new)
    chains = agent.namespace.nft("-a", "list", "chain", "inet", "sgagent", "peers/eth0/egress/ipv4")
    one_interface.host.ip(f"address add {new}/{length} dev eth0" + (" nodad" if new.version == 6 else ""))
    wait_for(lambda: leaves(one_interface, new), "the new address to be followed", FOLLOWED_SECONDS)
    assert not enters(one_interface, new)
    assert leaves(one_interface, OWN)
    one_interface.host.ip(f"address del {new}/{length} dev eth0")
    wait_for(lambda: not leaves(one_interface, new), "the address to be let go", FOLLOWED_SECONDS)
    assert agent.namespace.nft("-a", "list", "chain", "inet", "sgagent", "peers/eth0/egress/ipv4") == chains
    agent.wait_for_proof()
    assert not agent.events("table_not_verified")


@pytest.mark.parametrize(("new", "length"), ((NEW, 32), (NEW6, 128)), ids=("ipv4", "ipv6"))
def test_a_new_address_is_followed_under_a_flood(
    agent: Service, one_interface: Lab, new: Address, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host's packets from it are refused for a moment only, however many sessions come in."""
    agent.start()
    client = (str(CLIENT if new.version == 4 else CLIENT6), 5000)
    sender = one_interface.host.socket(
        socket.AF_INET if new.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM
    )
    watch(one_interface)
    with sender, flooding(one_interface) as flood:
        wait_for(lambda: flood.sent > 0, "the flood")
        one_interface.host.ip(f"address add {new}/{length} dev eth0" + (" nodad" if new.version == 6 else ""))
        sender.bind((str(new), 5001))
        # The flood takes the agent's time, too.
        took = wait_for(lambda: is_sent(sender, client), "the new address to be followed")
    with capsys.disabled():
        print(f"\n  own source after {took * 1000:.0f} ms, {spoofed(agent, 'egress'):.0f} packets refused")


def is_sent(sender: socket.socket, to: tuple[str, int]) -> bool:
    """Tell whether a datagram leaves; the kernel says at once that it was dropped."""
    try:
        return sender.sendto(b"?", to) == 1
    except PermissionError:
        return False


def test_known_sessions_live_on_while_addresses_change(agent: Service, one_interface: Lab) -> None:
    """A session from and to an own address loses nothing when another address comes."""
    agent.start()
    lab = one_interface
    with lab.listen(lab.peer, str(CLIENT), 443) as listener:
        client = lab.connect(lab.host, (str(OWN), 0), (str(CLIENT), 443))
        server, _ = listener.accept()
        with client, server:
            lab.host.ip(f"address add {NEW}/32 dev eth0")
            wait_for(lambda: leaves(lab, NEW), "the new address to be followed", FOLLOWED_SECONDS)
            for sender, receiver in ((client, server), (server, client)):
                receiver.settimeout(FOLLOWED_SECONDS)
                sender.sendall(b"?")
                assert receiver.recv(1) == b"?"


def test_a_session_ends_with_the_address_that_it_was_opened_from(agent: Service, one_interface: Lab) -> None:
    """An address that the host no longer has is no source, also of a session that lives (§6.3)."""
    agent.start()
    lab = one_interface
    lab.host.ip(f"address add {NEW}/32 dev eth0")
    wait_for(lambda: leaves(lab, NEW), "the new address to be followed", FOLLOWED_SECONDS)
    sender = lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
    with sender, lab.listen(lab.peer, str(CLIENT), 5000, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(FOLLOWED_SECONDS)
        sender.bind((str(NEW), 5001))
        sender.sendto(b"1", (str(CLIENT), 5000))
        assert receiver.recv(1) == b"1"
        lab.host.ip(f"address del {NEW}/32 dev eth0")
        wait_for(lambda: not leaves(lab, NEW), "the address to be let go", FOLLOWED_SECONDS)
        with pytest.raises(PermissionError):
            sender.sendto(b"2", (str(CLIENT), 5000))


def test_observing_counts_and_drops_nothing(agent: Service, one_interface: Lab) -> None:
    """In observe mode spoofed packets pass and count (§9.1)."""
    agent.configure(CHECKED + 'mode = "observe"\n')
    agent.start()
    assert leaves(one_interface, OTHER)
    assert enters(one_interface, OWN)
    assert (spoofed(agent, "egress"), spoofed(agent, "ingress")) == (1, 1)
    would_drop = "sgagent_would_drop_packets_total"
    assert agent.metric(would_drop, interface="eth0", direction="egress") == 1


def test_everybody_says_that_it_was_spoofed(agent: Service, one_interface: Lab) -> None:
    """The flow log, ``denied``, ``hits`` and ``explain`` name the source check, and no rule."""
    agent.start()
    assert not leaves(one_interface, OTHER)
    wait_for(lambda: "the source check" in agent.command("denied").output, "the drop to be reported")
    assert "(spoofed)" in agent.command("hits").output
    packet = ("--source", str(OTHER), "--destination", str(CLIENT), "--protocol", "tcp", "--port", "443")
    ended = agent.command("explain", "--json", "egress", *packet)
    assert '"decided_by": "spoofed"' in ended.output
    assert '"rule_id": null' in ended.output


def test_check_warns_on_hosts_that_forward(agent: Service, one_interface: Lab) -> None:
    """A router's forwarded packets are not its own; ``check`` says so, and nothing where the check is off."""
    assert "source_check_forwards" not in agent.command("check", "--json").output
    one_interface.host.sysctl({"net.ipv4.ip_forward": 1})
    assert "source_check_forwards" in agent.command("check", "--json").output
    assert "forwards IPv4; on eth0" in agent.command("check").output
    one_interface.host.sysctl({"net.ipv4.ip_forward": 0})
    assert "source_check_forwards" not in agent.command("check", "--json").output
    one_interface.host.ip(
        "link add cni0 type bridge",
        "link add veth1 type veth peer name c1",
        "link set veth1 master cni0",
        "link set c1 netns " + one_interface.peer.name,
    )
    one_interface.host.sysctl({"net.ipv4.conf.cni0.forwarding": 1})
    assert "behind the host (cni0) send" in agent.command("check").output
    agent.configure()
    assert "source_check_forwards" not in agent.command("check", "--json").output
