"""The daemon follows the host's links: bound by hand, by MAC or by address, within a second (§9.3, §9.4)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import HOST_MAC, Lab, lab, wait_for
from integration.service import Service, definitions, service_on
from sgagent.rehearsal.wire import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
IDENTIFIED_SECONDS = 1.0
BY_HAND = """
[[interface]]
name = "{name}"
security_group_ids = ["sg-1"]
"""
NO_MAC = "02:00:00:00:99:99"


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


def enters(bench: Lab, interface: str, port: int = 81) -> bool:
    """Tell whether a session gets in at an interface; port 80 is open, others are not."""
    (passes,) = bench.send_ingress([tcp(CLIENT, HOST, 1024, port)], interface)
    return passes


def test_a_link_is_closed_from_the_moment_that_it_exists(agent: Service, bench: Lab) -> None:
    """What is bound by name needs no link: its first packet is judged, with or without an agent (§9.3)."""
    bench.host.ip("link set eth1 name later0")
    agent.configure(BY_HAND.format(name="eth1"))
    agent.define(definitions(WEB, mac_address=NO_MAC))
    agent.start()
    assert agent.metric("sgagent_interface_info", interface="eth1", state="absent") == 1
    assert enters(bench, "eth0")
    agent.stop()
    bench.host.ip("link set later0 name eth1")
    assert not enters(bench, "eth1")
    assert enters(bench, "eth1", 80)
    assert enters(bench, "eth0")


def test_a_link_is_found_by_its_mac(agent: Service, bench: Lab) -> None:
    """The interface of the documents is the link with its MAC; the other one is not judged (§2.3)."""
    agent.define(definitions(WEB, mac_address=HOST_MAC % 1))
    agent.start()
    assert enters(bench, "eth0")
    assert not enters(bench, "eth1")
    assert agent.metric("sgagent_interface_info", interface="eth0", state="unbound") == 1
    assert agent.metric("sgagent_interface_info", interface="eth1", network_interface_id="eni-1") == 1


def test_an_address_that_moves_takes_its_groups_along(agent: Service, bench: Lab) -> None:
    """An interface of the documents without a MAC is the link that carries its address, wherever it goes."""
    agent.define(definitions(WEB, mac_address=""))
    agent.start()
    assert not enters(bench, "eth0")
    assert enters(bench, "eth1")
    bench.host.ip(f"address del {HOST}/32 dev eth0", f"address add {HOST}/32 dev eth1")
    wait_for(lambda: not enters(bench, "eth1"), "eth1 to be bound", IDENTIFIED_SECONDS)
    assert enters(bench, "eth0")
    bench.host.ip(f"address del {HOST}/32 dev eth1")
    wait_for(lambda: enters(bench, "eth1"), "eth1 to be let go", IDENTIFIED_SECONDS)


def test_a_link_that_is_renamed_stays_bound(agent: Service, bench: Lab) -> None:
    """A link that is known by its MAC is followed to its new name; its counters are those of that name."""
    agent.define(definitions(WEB, mac_address=HOST_MAC % 1))
    agent.start()
    bench.host.ip("link set eth1 name wan0")
    wait_for(
        lambda: agent.metric("sgagent_interface_info", interface="wan0", state="bound") == 1,
        "wan0 to be bound",
        IDENTIFIED_SECONDS,
    )
    assert agent.metric("sgagent_interface_info", interface="eth1") is None
    assert not enters(bench, "eth1")


def test_a_link_that_goes_and_comes_back_is_bound_again(agent: Service, bench: Lab) -> None:
    """A link that is made anew with the same MAC is judged within a second."""
    agent.define(definitions(WEB, mac_address=NO_MAC))
    agent.start()
    for _ in range(2):
        bench.host.ip(f"link add br0 address {NO_MAC} type bridge")
        wait_for(
            lambda: agent.metric("sgagent_interface_info", interface="br0", state="bound") == 1,
            "br0 to be bound",
            IDENTIFIED_SECONDS,
        )
        bench.host.ip("link delete br0")
        wait_for(
            lambda: agent.metric("sgagent_interface_info", interface="br0") is None,
            "br0 to be let go",
            IDENTIFIED_SECONDS,
        )


def test_of_two_links_with_one_mac_the_one_with_the_address_is_meant(agent: Service, bench: Lab) -> None:
    """Links that share a MAC are told apart by the address that the documents name (§9.4)."""
    bench.host.ip(f"link set eth1 address {HOST_MAC % 0}")
    agent.define(definitions(WEB, mac_address=HOST_MAC % 0))
    agent.start()
    assert agent.metric("sgagent_interface_info", interface="eth0", state="bound") == 1
    assert agent.metric("sgagent_interface_info", interface="eth1", state="unbound") == 1
    bench.host.ip(f"address del {HOST}/32 dev eth0", f"address add {HOST}/32 dev eth1")
    wait_for(
        lambda: agent.metric("sgagent_interface_info", interface="eth1", state="bound") == 1,
        "eth1 to be bound",
        IDENTIFIED_SECONDS,
    )
    assert agent.metric("sgagent_interface_info", interface="eth0", state="unbound") == 1


def test_a_port_of_a_bridge_is_refused_and_the_bridge_judged(agent: Service, bench: Lab) -> None:
    """Packets of a bridge's port show as the bridge's: binding the port is an error that names it (§9.4)."""
    bench.host.ip(
        f"link add br0 address {HOST_MAC % 1} type bridge", "link set br0 up", "link set eth1 master br0"
    )
    agent.configure(BY_HAND.format(name="eth1"))
    agent.define(definitions(WEB, mac_address=NO_MAC))
    agent.start()
    (problem,) = [event for event in agent.events("problem_found") if event["level"] == "error"]
    assert problem["code"] == "port_of_master"
    assert "bridge br0" in problem["problem"]
    assert agent.events("nothing_enforced")
    assert enters(bench, "eth1")
    agent.stop()
    agent.configure(BY_HAND.format(name="br0"))
    agent.start()
    assert not enters(bench, "eth1")
    assert enters(bench, "eth1", 80)


def test_unbound_links_may_be_closed(agent: Service, bench: Lab) -> None:
    """With ``unbound_interfaces = "closed"`` a link is closed until it is identified (§9.3)."""
    agent.configure('[enforcement]\nunbound_interfaces = "closed"\n')
    agent.define(definitions(WEB, mac_address="", addresses="10.0.0.12"))
    agent.start()
    assert not enters(bench, "eth0", 80)
    assert not enters(bench, "eth1", 80)
    assert agent.metric("sgagent_interface_info", interface="eth0", state="closed") == 1
    bench.host.ip("address add 10.0.0.12/32 dev eth1")
    wait_for(lambda: enters(bench, "eth1", 80), "eth1 to be identified", IDENTIFIED_SECONDS)
    assert not enters(bench, "eth1")
    assert not enters(bench, "eth0", 80)
