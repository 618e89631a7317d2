"""Links under another name are refused and reported (§9.6), VRFs refused and their ports judged (§9.5)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.enforcer import one_group
from integration.lab import Lab, lab, wait_for
from integration.namespaces import CommandError
from integration.prepared_agent import agent_with
from integration.service import Service, definitions
from tests.patience import PATIENCE

WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
BOUND = '[[interface]]\nname = "{name}"\nsecurity_group_ids = ["sg-1"]\n'
IDENTIFIED_SECONDS = 3.0
"""A setting of br_netfilter is read each second."""


@pytest.fixture
def bench() -> Iterator[Lab]:
    """Build a host with two wires."""
    with lab("eth0", "eth1") as built:
        yield built


agent = agent_with(definitions(WEB, mac_address=""), is_started=False, verifies=True)


def make(bench: Lab, *lines: str) -> None:
    """Carry out lines of ``ip``, or skip where the kernel can't."""
    for line in lines:
        try:
            bench.host.ip(line)
        except CommandError as error:
            pytest.skip(f"this kernel can't {line}: {error.output.strip()}")


def bridge_hooks(bench: Lab, value: int, name: str = "bridge-nf-call-iptables") -> None:
    """Set br_netfilter, or skip where there is none."""
    try:
        bench.host.sysctl({f"net/bridge/{name}": value})
        if name == "bridge-nf-call-iptables":
            bench.host.sysctl({"net/bridge/bridge-nf-call-ip6tables": value})
    except FileNotFoundError:
        pytest.skip("this kernel has no br_netfilter")


UNDER_OTHER_NAMES = {
    "macvlan": (
        "link add br0 type bridge",
        "link set eth1 master br0",
        "link add up0 link br0 type macvlan mode bridge",
    ),
    "vlan of an aware bridge": (
        "link add br0 type bridge vlan_filtering 1",
        "link set br0 up",
        "link set eth1 master br0",
        "link add up0 link br0 type vlan id 10",
    ),
    "ipvlan l3s": ("link add up0 link eth1 type ipvlan mode l3s",),
}


@pytest.mark.parametrize("kind", UNDER_OTHER_NAMES)
def test_a_link_under_another_name_is_refused_and_reported(agent: Service, bench: Lab, kind: str) -> None:
    """The commands refuse, the agent reports, and nothing is called proved; until the cause is gone."""
    is_of_bridge = "ipvlan" not in kind
    if is_of_bridge:
        load_hooks(bench)
        bridge_hooks(bench, 1)
    make(bench, *UNDER_OTHER_NAMES[kind], "link set up0 up")
    agent.configure(BOUND.format(name="up0"))
    checked = agent.command("check")
    assert checked.status == 2
    assert ("bridge-nf-call-iptables" in checked.output) is is_of_bridge
    assert ("l3s" in checked.output) is not is_of_bridge
    agent.start()
    assert agent.metric("sgagent_interface_info", interface="up0", state="unenforceable") == 1
    assert [event["reason"] for event in agent.events("interface_not_enforced")]
    assert agent.command("verify").status == 3
    wait_for(lambda: _verified(agent) == "unknown", "the proof of the table")
    if is_of_bridge:
        bridge_hooks(bench, 0)
        wait_for(
            lambda: agent.metric("sgagent_interface_info", interface="up0", state="bound") == 1,
            "the setting to be seen",
            IDENTIFIED_SECONDS,
        )
        assert agent.command("check").status == 0
        wait_for(lambda: _verified(agent) == "proved", "the proof of the table")


def load_hooks(bench: Lab) -> None:
    """Load br_netfilter, where it is a module."""
    with bench.host.entered():
        is_there = Path("/proc/sys/net/bridge").exists()
    if not is_there:
        with contextlib.suppress(CommandError):
            bench.host.run("modprobe", "br_netfilter")


def _verified(agent: Service) -> str | None:
    verified = agent.as_json("status")["verified"]
    return verified and str(verified["outcome"])


@pytest.mark.parametrize("mode", ("l2", "l3"))
def test_other_ipvlans_are_enforced(agent: Service, bench: Lab, mode: str) -> None:
    """Their packets come in under their own name."""
    make(bench, f"link add up0 link eth1 type ipvlan mode {mode}", "link set up0 up")
    agent.configure(BOUND.format(name="up0"))
    assert agent.command("check").status == 0


def test_a_vrf_is_refused(agent: Service, bench: Lab) -> None:
    """Its ports are to be bound."""
    make(bench, "link add red type vrf table 10", "link set red up", "link set eth1 master red")
    agent.configure(BOUND.format(name="red"))
    checked = agent.command("check")
    assert (checked.status, "vrf_bound" in checked.output or "VRF" in checked.output) == (2, True)
    agent.start()
    assert agent.metric("sgagent_interface_info", interface="red", state="unenforceable") == 1


def test_a_link_above_a_bound_one_is_named(agent: Service, bench: Lab) -> None:
    """It is open both ways, which check and status say."""
    make(bench, "link add up0 link eth1 type macvlan mode bridge")
    agent.configure(BOUND.format(name="eth1"))
    assert "up0 (macvlan) stands on eth1" in agent.command("check").output
    agent.start()
    (up0,) = (one for one in agent.as_json("status")["interfaces"] if one["name"] == "up0")
    assert (up0["state"], up0["above"]) == ("unbound", "eth1")


@pytest.mark.parametrize("kind", ("basic", "advanced"))
@pytest.mark.parametrize("unbound", ("open", "closed"))
def test_a_vrf_port_is_judged_by_its_binding(agent: Service, bench: Lab, kind: str, unbound: str) -> None:
    """Allowed sessions live, denied ones do not open, whether or not unbound links are closed."""
    make(bench, "link add red type vrf table 10", "link set red up")
    bench.host.ip("link set eth1 master red")
    for version, near, far in ((4, "10.1.0.1/24", "10.1.0.2/24"), (6, "fd01::1/64", "fd01::2/64")):
        nodad = " nodad" if version == 6 else ""
        bench.host.ip(f"address add {near} dev eth1{nodad}")
        bench.peer.ip(f"address add {far} dev eth1{nodad}")
    agent.define(f"version: 1\n{one_group(*RULES, kind=kind)}\n")
    agent.configure(f'[enforcement]\nunbound_interfaces = "{unbound}"\n' + BOUND.format(name="eth1"))
    agent.start()
    for near, far in (("10.1.0.1", "10.1.0.2"), ("fd01::1", "fd01::2")):
        with server(bench, near, 80, "red"), server(bench, near, 81, "red"):
            assert echoes(bench, far, near, 80)
            assert not echoes(bench, far, near, 81)
    assert agent.command("verify").status == 0


RULES = ("ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress accept 1 tcp 80 from ::/0")


@contextlib.contextmanager
def server(bench: Lab, address: str, port: int, device: str) -> Iterator[None]:
    """Echo one client's messages, by a socket of a VRF."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with bench.host.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        listener.settimeout(5)

        def serve() -> None:
            with contextlib.suppress(OSError):
                accepted, _ = listener.accept()
                with accepted:
                    accepted.settimeout(5)
                    accepted.sendall(accepted.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def echoes(bench: Lab, source: str, destination: str, port: int) -> bool:
    """Return whether a session opens from the peer and carries data both ways."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with bench.peer.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1.0 * PATIENCE)
        try:
            client.bind((source, 0))
            client.connect((destination, port))
            client.sendall(b"hello")
            return client.recv(100) == b"hello"
        except OSError:
            return False
