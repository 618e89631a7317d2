"""IP that the kernel shows on a lower device of a bound link is judged as the link's, or dropped (§9.5)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.lab import Lab, lab, wait_for
from integration.lower_devices import (
    ALL,
    KINDS,
    LINK_LOCAL_MULTICAST,
    NONE,
    PLAIN_FRAMES,
    Passed,
    add_wire,
    inwards,
    make_master,
    outwards,
    own_mac,
    why_not,
)
from integration.prepared_agent import agent_with
from integration.service import Service

DENYING = """
version: 1
security_groups:
  - security_group_id: sg-1
    type: advanced
    rules: []
"""
BOUND = '[[interface]]\nname = "{name}"\nsecurity_group_ids = ["sg-1"]\n'
IDENTIFIED_SECONDS = 1.0


@pytest.fixture
def bench() -> Iterator[Lab]:
    """Build a host with a link without rules, and two wires for a master."""
    with lab("eth0", "eth1", "eth2") as built:
        yield built


agent = agent_with(DENYING, is_started=False)


def all_that_passes(bench: Lab, kind: str, *links: str) -> dict[str, Passed]:
    """Return the packets that pass by lower devices past their master; none of them should."""
    found: dict[str, Passed] = {}
    for link in links:
        destinations = [*LINK_LOCAL_MULTICAST, *([own_mac(bench, link)] if kind in PLAIN_FRAMES else [])]
        found |= {f"{link} in {to}": inwards(bench, link, to) for to in destinations}
        found[f"{link} out"] = outwards(bench, link)
    return {way: passed for way, passed in found.items() if passed}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_passes_by_a_lower_device(agent: Service, bench: Lab, kind: str) -> None:
    """Neither with an agent nor without, from a new device's first packet on; without rules it does."""
    if reason := why_not(bench, kind):
        pytest.skip(reason)
    make_master(bench, kind)
    open_ = all_that_passes(bench, kind, "eth1", "eth2")
    assert {link for link in ("eth1", "eth2") if f"{link} out" in open_} == {"eth1", "eth2"}
    assert any(" in " in way for way in open_), open_
    agent.configure(BOUND.format(name="m0"))
    agent.start()
    assert all_that_passes(bench, kind, "eth1", "eth2") == {}
    assert agent.metric("sgagent_interface_info", interface="eth1", state="lower_device") == 1
    assert agent.stop() == 0
    assert all_that_passes(bench, kind, "eth1", "eth2") == {}
    if kind != "hsr":  # which takes no more devices
        bench.host.ip("link set eth2 nomaster")
        add_wire(bench, "late0", 7)
        bench.host.ip("link set late0 down", "link set late0 master m0", "link set late0 up")
        assert all_that_passes(bench, kind, "late0") == {}
    agent.start()
    assert outwards(bench, "eth0") == ALL


def test_a_link_that_becomes_a_lower_device_is_judged_as_its_master(agent: Service, bench: Lab) -> None:
    """While an agent runs, within a step; a link that is taken out again is open, as it was."""
    make_master(bench, "bridge")
    bench.host.ip("link set eth2 nomaster")
    agent.configure(BOUND.format(name="m0"))
    agent.start()
    assert outwards(bench, "eth2") == ALL
    bench.host.ip("link set eth2 master m0")
    wait_for(lambda: outwards(bench, "eth2") == NONE, "the port to be judged", IDENTIFIED_SECONDS)
    bench.host.ip("link set eth2 nomaster")
    wait_for(lambda: outwards(bench, "eth2") == ALL, "the link to be let go", IDENTIFIED_SECONDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLAIN_FRAMES])
def test_no_frame_passes_by_a_link_that_becomes_a_port_unseen(agent: Service, bench: Lab, kind: str) -> None:
    """Of an identified link the frames are dropped that masters leave to their ports, and no others."""
    if reason := why_not(bench, kind):
        pytest.skip(reason)
    make_master(bench, kind)
    bench.host.ip("link set eth2 nomaster", "link set eth2 up")
    agent.configure(BOUND.format(name="m0"))
    agent.start()
    for link in ("eth0", "eth2"):
        assert inwards(bench, link, own_mac(bench, link)) == ALL
    assert agent.command("verify").status == 0
    assert agent.stop() == 0
    bench.host.ip("link set eth2 down", "link set eth2 master m0", "link set eth2 up")
    assert {to: inwards(bench, "eth2", to) for to in LINK_LOCAL_MULTICAST} == dict.fromkeys(
        LINK_LOCAL_MULTICAST, NONE
    )
    assert inwards(bench, "eth0", own_mac(bench, "eth0")) == ALL


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "configuration",
    (
        BOUND.format(name="m*"),
        '[enforcement]\nunbound_interfaces = "closed"\n' + BOUND.format(name="m0"),
        '[enforcement]\nsource_check = "on"\n' + BOUND.format(name="m*"),
    ),
)
def test_however_the_master_is_bound(agent: Service, bench: Lab, configuration: str) -> None:
    """By a pattern, also one whose links' sources are checked; or where unbound links are closed."""
    make_master(bench, "bridge")
    agent.configure(configuration)
    agent.start()
    bench.host.ip("link add name x0 type veth peer name x1", "link set x0 master m0", "link set x0 up")
    wait_for(
        lambda: agent.metric("sgagent_interface_info", interface="x0", state="lower_device") == 1,
        "the new port to be known",
        IDENTIFIED_SECONDS,
    )
    for link in ("eth1", "eth2"):
        assert inwards(bench, link, LINK_LOCAL_MULTICAST[0]) == NONE


@pytest.mark.long
def test_a_lower_device_is_explained_and_proved(agent: Service, bench: Lab) -> None:
    """``explain`` applies the master's groups, and the table is proved with them."""
    make_master(bench, "bridge")
    agent.configure(BOUND.format(name="m0"))
    agent.start()
    asked = ("explain", "--on", "eth1", "ingress", "--source", "198.51.100.7", "--destination", "10.0.0.11")
    told = agent.command(*asked, "--protocol", "udp", "--port", "5000")
    assert "drop" in told.output, told
    assert agent.command("verify").status == 0
    agent.stop()
    assert agent.command("verify").status == 0
