"""The daemon follows the host's links within a second: bound by hand, by MAC or by address (§9.3, §9.4)."""

from __future__ import annotations

import html
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from integration.lab import HOST_MAC, Lab, lab, wait_for
from integration.namespaces import CommandError, Namespace, network_namespace
from integration.service import Service, definitions
from sgagent.policy_test.packet_bytes import tcp

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"
IDENTIFIED_SECONDS = 1.0
BY_HAND = """
[[interface]]
name = "{name}"
security_group_ids = ["sg-1"]
"""
NO_MAC = "02:00:00:00:99:99"
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


def enters(bench: Lab, interface: str, port: int = 81) -> bool:
    """Tell whether a session gets in at an interface; port 80 is open, others are not."""
    (passes,) = bench.send_ingress([tcp(CLIENT, HOST, 1024, port)], interface)
    return passes


def test_a_link_is_closed_from_the_moment_that_it_exists(agent: Service, bench: Lab) -> None:
    """A binding by name needs no link: its first packet is judged, with or without an agent (§9.3)."""
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
    agent.define(definitions(WEB, mac_address=SECOND))
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


def test_a_port_of_a_bridge_is_an_error_and_the_bridge_judged(agent: Service, bench: Lab) -> None:
    """Packets of a bridge's port show as the bridge's: binding the port is an error that names it (§9.4)."""
    bench.host.ip(
        f"link add br0 address {HOST_MAC % 1} type bridge", "link set br0 up", "link set eth1 master br0"
    )
    agent.configure(BY_HAND.format(name="eth1"))
    agent.define(definitions(WEB, mac_address=NO_MAC))
    assert "bridge br0" in agent.command("check").output
    agent.start()
    (problem,) = [event for event in agent.events("problem_found") if event["level"] == "error"]
    assert problem["code"] == "port_of_master"
    assert "bridge br0" in problem["problem"]
    status = agent.command("status")
    assert (status.status, status.output.partition(" ")[0]) == (1, "idle")
    assert enters(bench, "eth1")
    agent.stop()
    agent.configure(BY_HAND.format(name="br0"))
    agent.start()
    assert not enters(bench, "eth1")


def test_an_alternative_name_is_refused_and_reported(agent: Service, bench: Lab) -> None:
    """Rules match a link's own name: nobody says that a link is bound by another, which ``ip`` shows."""
    bench.host.ip("link property add dev eth1 altname enp0s9")
    agent.configure(BY_HAND.format(name="enp0s9"))
    agent.define(definitions(WEB, mac_address=NO_MAC))
    checked = agent.command("check")
    assert (checked.status, "an alternative name of the link eth1" in checked.output) == (2, True)
    agent.start()
    assert [one["code"] for one in agent.events("problem_found")][:1] == ["alternative_name"]
    bench.host.ip("link property del dev eth1 altname enp0s9", "link set eth1 name enp0s9")
    wait_for(lambda: "errors " not in agent.command("status").output, "no error", IDENTIFIED_SECONDS)
    assert agent.metric("sgagent_interface_info", interface="enp0s9", state="bound") == 1


@pytest.mark.parametrize("kind", ("bridge", "bond mode active-backup"), ids=("bridge", "bond"))
def test_a_bound_link_that_becomes_a_port_is_named(agent: Service, bench: Lab, kind: str) -> None:
    """Nobody says that it is enforced, until it is no port any more: then its first packet is judged."""
    word = kind.partition(" ")[0]
    agent.configure(BY_HAND.format(name="eth0") + BY_HAND.format(name="eth1"))
    agent.define(definitions(WEB, mac_address=NO_MAC))
    agent.start()
    assert not enters(bench, "eth1")
    try:
        bench.host.ip(f"link add m0 type {kind}", "link set m0 up")
    except CommandError:
        pytest.skip(f"this kernel makes no link of type {word}")
    for number in (1, 2):
        bench.host.ip("link set eth1 down", "link set eth1 master m0", "link set eth1 up")
        agent.wait_for_event("interface_not_judged", number, IDENTIFIED_SECONDS)
        assert agent.events("interface_not_judged")[-1]["port_of"] == f"{word} m0"
        assert agent.metric("sgagent_interface_info", interface="eth1", state="port") == 1
        assert agent.metric("sgagent_mode", interface="eth1") is None
        assert f"port of {word} m0" in agent.command("status").output
        code, reasons = agent.get("/readyz")
        assert code == 503
        assert f"eth1 is a port of the {word} m0" in reasons
        assert not enters(bench, "eth0")
        bench.host.ip("link set eth1 nomaster", "link set eth1 up")
        agent.wait_for_event("interface_no_port_any_more", number, IDENTIFIED_SECONDS)
        assert agent.metric("sgagent_interface_info", interface="eth1", state="bound") == 1
        assert agent.get("/readyz")[0] == 200
        assert not enters(bench, "eth1")
        assert enters(bench, "eth1", 80)


def test_a_bound_link_that_comes_as_a_port_is_named(agent: Service, bench: Lab) -> None:
    """A link of the configuration's name may be made on a bridge, before the agent sees it alone."""
    agent.configure(BY_HAND.format(name="late0"))
    agent.define(definitions(WEB, mac_address=NO_MAC))
    agent.start()
    assert agent.metric("sgagent_interface_info", interface="late0", state="absent") == 1
    bench.host.ip("link add br0 type bridge", "link add late0 master br0 type veth peer name late1")
    agent.wait_for_event("interface_not_judged", 1, IDENTIFIED_SECONDS)
    assert agent.metric("sgagent_interface_info", interface="late0", state="port") == 1
    assert agent.command("status").status == 1
    bench.host.ip("link delete br0")
    agent.wait_for_event("interface_no_port_any_more", 1, IDENTIFIED_SECONDS)
    assert agent.metric("sgagent_interface_info", interface="late0", state="bound") == 1
    assert agent.command("status").status == 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("name", "shown"),
    (
        (b"\xff\xfeeth", r"\xff\xfeeth"),
        (b'a"b\\c', r'a"b\x5cc'),
        (b"n\xc2\x85\x1b[7ml", r"n\xc2\x85\x1b[7ml"),
    ),
    ids=("no-utf-8", "quotes", "controls"),
)
def test_a_link_may_have_any_name(agent: Service, bench: Lab, name: bytes, shown: str) -> None:
    """The kernel takes nearly any bytes for a name: it is shown escaped, in one way, wherever it is shown."""
    mac_address = "02:00:00:00:09:01"
    agent.define(definitions(WEB))
    agent.start()
    with bench.host.entered():
        command = [b"ip", b"link", b"add", name, b"address", mac_address.encode(), b"type", b"veth"]
        subprocess.run(command, check=True)
    wait_for(
        lambda: agent.metric("sgagent_interface_info", interface=shown, state="unbound") == 1,
        "the link to be seen",
        IDENTIFIED_SECONDS,
    )
    assert agent.metric("sgagent_interface_info", interface="eth0", state="bound") == 1
    asked = agent.as_json("status")
    assert shown in {interface["name"] for interface in asked["interfaces"]}
    assert shown in agent.command("status").output
    status, page = agent.get("/")
    assert (status, shown in html.unescape(page)) == (200, True)
    agent.define(definitions(WEB, mac_address=mac_address, addresses="10.0.0.99"))
    agent.wait_for_event("snapshot_refused")
    (problem,) = agent.events("problem_found")
    assert problem["code"] == "bad_interface_name"
    assert f"the link {shown} " in problem["problem"]
    for asking, output in (("check", "output"), ("plan", "errors"), ("status", "output")):
        assert f"the link {shown} " in getattr(agent.command(asking), output), asking


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
