"""Links that change names, numbers, masters and namespaces while the daemon runs are followed in a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import HOST_MAC, Lab, lab, wait_for
from integration.namespaces import Namespace, network_namespace
from integration.service import Service, definitions, service_on
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
IDENTIFIED_SECONDS = 1.0
FIRST, SECOND = HOST_MAC % 0, HOST_MAC % 1
OTHER_MAC = "02:00:00:00:99:01"
CLOSED = '[enforcement]\nunbound_interfaces = "closed"\n'
STORM = [f"10.9.{high}.{low}" for high in range(10) for low in range(1, 101)]


@pytest.fixture
def bench() -> Iterator[Lab]:
    """Build a host with two interfaces and an address."""
    with lab("eth0", "eth1") as built:
        built.add_host_addresses([str(HOST)])
        yield built


@pytest.fixture
def agent(bench: Lab, tmp_path: Path) -> Iterator[Service]:
    """Return an agent that is not started yet."""
    with service_on(bench.host, tmp_path) as made:
        yield made


def state(agent: Service, name: str) -> str | None:
    """Return the state of a link as the metrics have it; None for one that is not known."""
    found = agent.families()["sgagent_interface_info"].samples
    return next((s.labels["state"] for s in found if s.labels["interface"] == name), None)


def wait_for_state(agent: Service, **states: str | None) -> None:
    """Wait until links are in these states, as long as it may take to identify one."""
    wait_for(
        lambda: all(state(agent, name) == wanted for name, wanted in states.items()),
        f"{states}",
        IDENTIFIED_SECONDS,
    )


def enters(bench: Lab, interface: str, port: int = 81) -> bool:
    """Tell whether a session gets in at an interface; port 80 is open, others are not."""
    return bench.send_ingress([tcp(CLIENT, HOST, 1024, port)], interface) == [True]


@contextmanager
def elsewhere(host: Namespace, link: str) -> Iterator[None]:
    """Have a link live in another namespace for a while."""
    with network_namespace("elsewhere") as away:
        host.ip(f"link set {link} netns {away.name}")
        yield
        away.ip(f"link set {link} netns {host.name}")


def test_a_link_that_moves_to_another_namespace_is_let_go(agent: Service, bench: Lab) -> None:
    """Found by its MAC, it is no link of this host while it is away, and judged again when it is back."""
    agent.define(definitions(WEB, mac_address=OTHER_MAC))
    bench.host.ip(f"link add guest0 address {OTHER_MAC} type veth peer name guest1")
    agent.start()
    assert state(agent, "guest0") == "bound"
    with elsewhere(bench.host, "guest0"):
        wait_for_state(agent, guest0=None)
    wait_for_state(agent, guest0="bound")


def test_two_links_that_swap_their_names(agent: Service, bench: Lab) -> None:
    """A link known by its MAC is followed; the other link is not judged under the name that it took."""
    agent.define(definitions(WEB, mac_address=SECOND))
    agent.start()
    assert not enters(bench, "eth1")
    bench.host.ip("link set eth0 name swap0", "link set eth1 name eth0", "link set swap0 name eth1")
    wait_for_state(agent, eth0="bound", eth1="unbound")
    assert agent.metric("sgagent_interface_info", interface="eth0", network_interface_id="eni-1") == 1


def test_a_mac_that_is_replaced(agent: Service, bench: Lab) -> None:
    """The link that takes the MAC of a network interface is judged, and the one that lost it no more."""
    agent.define(definitions(WEB, mac_address=SECOND, addresses="10.0.0.99"))
    agent.start()
    bench.host.ip(f"link set eth1 address {OTHER_MAC}")
    wait_for_state(agent, eth0="unbound", eth1="unbound")
    bench.host.ip(f"link set eth0 address {SECOND}")
    wait_for_state(agent, eth0="bound", eth1="unbound")
    bench.host.ip(f"link set eth0 address {FIRST}", f"link set eth1 address {SECOND}")
    wait_for_state(agent, eth0="unbound", eth1="bound")
    assert not enters(bench, "eth1")
    assert enters(bench, "eth0")


def test_a_link_that_goes_down_and_up_stays_judged(agent: Service, bench: Lab) -> None:
    """Nothing is let go with its carrier, and no packet slips in when it is back."""
    agent.define(definitions(WEB, mac_address=FIRST))
    agent.start()
    for _ in range(3):
        bench.host.ip("link set eth0 down", "link set eth0 up")
        wait_for(lambda: enters(bench, "eth0", 80), "the link to carry packets")
        assert not enters(bench, "eth0")
    wait_for_state(agent, eth0="bound")


def test_addresses_that_come_and_go(agent: Service, bench: Lab) -> None:
    """Of a network interface that is known by addresses alone, any one of them holds the link."""
    agent.define(definitions(WEB, mac_address="", addresses="10.0.0.11, 10.0.0.12, '2001:db8::12'"))
    agent.start()
    assert state(agent, "eth0") == "bound"
    bench.host.ip(f"address add {HOST}/32 dev eth1", f"address del {HOST}/32 dev eth0")
    wait_for_state(agent, eth0="unbound", eth1="bound")
    bench.host.ip("address add 2001:db8::12/128 dev eth1 nodad", f"address del {HOST}/32 dev eth1")
    bench.host.ip("address add 10.0.0.12/32 dev eth1", "address del 2001:db8::12/128 dev eth1")
    wait_for_state(agent, eth0="unbound", eth1="bound")
    assert not enters(bench, "eth1")
    bench.host.ip("address del 10.0.0.12/32 dev eth1")
    wait_for_state(agent, eth0="unbound", eth1="unbound")
    bench.host.ip("address add 2001:db8::12/128 dev eth0 nodad")
    wait_for_state(agent, eth0="bound", eth1="unbound")


def test_a_link_that_becomes_a_port_of_a_bridge(agent: Service, bench: Lab) -> None:
    """The port's packets show as the bridge's: the bridge is judged, which shares the MAC (§9.4)."""
    agent.define(definitions(WEB, mac_address=SECOND))
    agent.start()
    bench.host.ip("link add br0 type bridge", "link set eth1 master br0", "link set br0 up")
    bench.host.ip(f"link set br0 address {SECOND}")
    wait_for(lambda: enters(bench, "eth1", 80), "the bridge to forward")
    wait_for(lambda: not enters(bench, "eth1"), "br0 to be bound", IDENTIFIED_SECONDS)
    wait_for_state(agent, br0="bound")
    bench.host.ip("link set eth1 nomaster", "link delete br0")
    wait_for_state(agent, br0=None, eth1="bound")
    assert not enters(bench, "eth1")


@pytest.mark.parametrize("configuration", ("", CLOSED), ids=("open", "closed"))
def test_a_storm_of_addresses_hides_nothing(agent: Service, bench: Lab, configuration: str) -> None:
    """A thousand addresses come and go, more than a buffer may hold; a relevant change is seen in time."""
    agent.configure(configuration)
    agent.define(definitions(WEB, mac_address=OTHER_MAC))
    agent.start()
    come = [f"address add {address}/32 dev eth0" for address in STORM]
    go = [f"address del {address}/32 dev eth0" for address in STORM]
    bench.host.ip(*come, *go, *come, *go, f"link add last0 address {OTHER_MAC} type bridge")
    wait_for_state(agent, last0="bound")
    bench.host.ip(*come, "link delete last0", *go)
    wait_for_state(agent, last0=None)
    failed = {event["reason"] for event in agent.events("step_failed")}
    assert failed <= {"links or addresses changed during each listing, for a second"}  # on a busy machine
