"""Where br_netfilter is on, a bound bridge also judges its ports' frames to each other (§9.4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from integration.lab import Lab, lab, wait_for
from integration.namespaces import CommandError, Namespace, network_namespace
from integration.prepared_agent import agent_with
from integration.service import Service, definitions

SETTINGS = {"bridge-nf-call-iptables": "10.1.0", "bridge-nf-call-ip6tables": "fd01:"}
"""Of br_netfilter, with the network of the family."""

BOUND = '[[interface]]\nname = "br0"\nsecurity_group_ids = ["sg-1"]\n'
PINGS = tuple(
    f"{direction} accept 1 {protocol} -1/-1 {word} {network}"
    for direction, word in (("ingress", "from"), ("egress", "to"))
    for protocol, network in (("icmp", "10.1.0.0/24"), ("icmpv6", "fd01::/64"))
)
SHUT = ("egress drop 100 all -1/-1 to 0.0.0.0/0", "egress drop 100 all -1/-1 to ::/0")
IDENTIFIED_SECONDS = 3.0
"""A setting of br_netfilter is read each second."""


@pytest.fixture
def bench() -> Iterator[Lab]:
    """Build a host with br_netfilter."""
    with lab("eth0") as built:
        with contextlib.suppress(CommandError):
            built.host.run("modprobe", "br_netfilter")
        try:
            hooks(built, dict.fromkeys(SETTINGS, 0))
        except FileNotFoundError:
            pytest.skip("this kernel has no br_netfilter")
        yield built


@pytest.fixture
def guests(bench: Lab) -> Iterator[tuple[Namespace, Namespace]]:
    """Put two guests on a bridge of the host."""
    bench.host.ip("link add br0 type bridge", "link set br0 up")
    bench.host.ip("address add 10.1.0.1/24 dev br0", "address add fd01::1/64 dev br0 nodad")
    with network_namespace("guest") as one, network_namespace("guest") as other:
        for number, guest in enumerate((one, other), start=2):
            bench.host.ip(
                f"link add p{number} type veth peer name eth0 netns {guest.name}",
                f"link set p{number} master br0 up",
            )
            guest.ip(
                "link set eth0 up",
                f"address add 10.1.0.{number}/24 dev eth0",
                f"address add fd01::{number}/64 dev eth0 nodad",
            )
        yield one, other


agent = agent_with(definitions(*SHUT, mac_address=""), BOUND, is_started=False, verifies=True)


def hooks(bench: Lab, values: dict[str, int]) -> None:
    """Set br_netfilter."""
    bench.host.sysctl({f"net/bridge/{name}": value for name, value in values.items()})


def answered(guest: Namespace, number: int) -> dict[str, bool]:
    """Return whether a guest's pings to another one, or to the host (1), are answered, by network."""
    found = {}
    for network in SETTINGS.values():
        try:
            guest.run("ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", address(network, number))
        except CommandError:
            found[network] = False
        else:
            found[network] = True
    return found


def address(network: str, number: int) -> str:
    """Return an address of a network."""
    return f"{network}.{number}" if "." in network else f"{network}:{number}"


def told(agent: Service) -> str | None:
    """Return the status's text about frames between the ports."""
    interfaces = agent.as_json("status")["interfaces"]
    (found,) = (one["bridged_frames"] for one in interfaces if one["name"] == "br0")
    return None if found is None else str(found)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("setting", (None, *SETTINGS))
def test_frames_between_ports_are_judged_where_br_netfilter_is_on(
    agent: Service, bench: Lab, guests: tuple[Namespace, Namespace], setting: str | None
) -> None:
    """Frames are judged by family, as the bridge's packets; ``check``, ``status`` and ``doctor`` say so."""
    one, _ = guests
    agent.start()
    for number in (1, 3):
        wait_for(lambda to=number: answered(one, to) == both(to == 3), "the bridge to carry frames")  # type: ignore[misc]  # a default binds the loop's value
    if setting is not None:
        hooks(bench, {setting: 1})
        wait_for(lambda: setting in (told(agent) or ""), "the setting to be told", IDENTIFIED_SECONDS)
    judged = SETTINGS.get(setting or "")
    assert answered(one, 3) == {network: network != judged for network in SETTINGS.values()}
    assert answered(one, 1) == both(of=False)
    for command in ("check", "doctor"):
        assert (f"{setting}" in agent.command(command).output) is (setting is not None)
    assert (told(agent) is None) is (setting is None)
    assert agent.command("verify").status == 0


def test_groups_may_let_guests_talk(agent: Service, bench: Lab, guests: tuple[Namespace, Namespace]) -> None:
    """In both directions, as each of their frames enters and leaves by the bridge."""
    one, _ = guests
    agent.define(definitions(*PINGS, *SHUT, mac_address=""))
    agent.start()
    for value in (0, 1):
        hooks(bench, dict.fromkeys(SETTINGS, value))
        for number in (1, 3):
            wait_for(lambda to=number: answered(one, to) == both(of=True), "what is accepted to pass")  # type: ignore[misc]  # a default binds the loop's value


def both(of: bool) -> dict[str, bool]:  # noqa: FBT001 - the value that both networks have
    """Return the same for both networks."""
    return dict.fromkeys(SETTINGS.values(), of)
