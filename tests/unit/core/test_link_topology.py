"""Lower devices, links above others, and links that pass the hooks under another name (§9.4 to §9.6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.binding import BridgeHooks, HostFacts, IpvlanMode, Link
from sgagent.core.link_topology import (
    FindingCode,
    bound_master,
    findings,
    lower_devices,
    may_have_lower_devices,
    other_name,
)
from sgagent.core.model import Family

ETH0 = Link(name="eth0", index=2, master="bond0", master_kind="bond")
BOND0 = Link(name="bond0", index=3, kind="bond", master="br0", master_kind="bridge")
BR0 = Link(name="br0", index=4, kind="bridge")
MACVLAN = Link(name="mv0", index=5, kind="macvlan", lower="br0")
VLAN = Link(name="br0.10", index=6, kind="vlan", lower="br0")
ON = BridgeHooks(families=tuple(Family))


def named(*links: Link) -> dict[str, Link]:
    """Return links by name."""
    return {link.name: link for link in links}


def codes(*links: Link, bound: tuple[str, ...], hooks: BridgeHooks = BridgeHooks()) -> dict[str, FindingCode]:  # noqa: B008 - it is frozen
    """Return what is found, by link."""
    return {one.link: one.code for one in findings(HostFacts(links=links, bridge_hooks=hooks), set(bound))}


def test_a_lower_device_is_one_over_all_levels() -> None:
    """The slave of a bond that is a port of a bound bridge is a lower device of the bridge."""
    assert lower_devices(named(ETH0, BOND0, BR0), {"br0"}.__contains__) == {"eth0": "br0", "bond0": "br0"}


def test_of_several_bound_masters_the_topmost_judges() -> None:
    """What a bond's slave shows is the bridge's, as what the bond shows is."""
    assert bound_master(named(ETH0, BOND0, BR0), "eth0", {"br0", "bond0"}.__contains__) == "br0"


@pytest.mark.parametrize("kind", ("bridge", "hsr", "batadv", "team", "openvswitch", None, "some new kind"))
def test_every_kind_of_master_has_lower_devices(kind: str | None) -> None:
    """Also one that has no kind, as a network card whose virtual function is its port."""
    port = Link(name="p0", index=2, master="m0", master_kind=kind)
    assert bound_master(named(port, Link(name="m0", index=3, kind=kind)), "p0", {"m0"}.__contains__) == "m0"


def test_a_port_of_a_vrf_is_no_lower_device() -> None:
    """It is judged by its own binding, and what stands under it by its."""
    vrf = Link(name="red", index=9, kind="vrf")
    port = replace(BR0, master="red", master_kind="vrf")
    links = named(ETH0, BOND0, port, vrf)
    assert lower_devices(links, {"red"}.__contains__) == {}
    assert set(lower_devices(links, {"red", "br0"}.__contains__).values()) == {"br0"}


def test_masters_of_each_other_end_the_search() -> None:
    """A listing that contradicts itself has no master without end."""
    one = Link(name="a", index=2, master="b", master_kind="bond")
    other = Link(name="b", index=3, master="a", master_kind="bond")
    assert bound_master(named(one, other), "a", {"c"}.__contains__) is None


def test_a_link_may_have_lower_devices_by_its_kind_or_as_it_has_some() -> None:
    """A bridge without ports may get one; a network card is a master where a link says so."""
    card, function = Link(name="eth0", index=2), Link(name="vf0", index=3, master="eth0")
    assert may_have_lower_devices(named(BR0), "br0")
    assert may_have_lower_devices(named(card, function), "eth0")
    assert not may_have_lower_devices(named(card), "eth0")
    assert not may_have_lower_devices(named(card), "gone0")


def test_links_above_are_found_over_levels() -> None:
    """A macvlan on a VLAN of a link stands on the link, and so does one on its lower device."""
    top = Link(name="mv1", index=7, kind="macvlan", lower="br0.10")
    on_port = Link(name="eth0.5", index=8, kind="vlan", lower="eth0")
    found = codes(BR0, VLAN, top, BOND0, ETH0, on_port, bound=("br0",))
    assert found == dict.fromkeys(("br0.10", "eth0.5", "mv1"), FindingCode.LINK_ABOVE)


def test_the_other_end_of_a_pair_stands_on_nothing() -> None:
    """A kind that is not known to stand on another link is none above it."""
    assert codes(BR0, Link(name="veth0", index=7, kind="veth", lower="br0"), bound=("br0",)) == {}


@pytest.mark.parametrize(
    ("link", "bridge", "hooks", "is_other"),
    (
        (MACVLAN, BR0, ON, True),
        (MACVLAN, BR0, BridgeHooks(families=(Family.IPV6,)), True),
        (MACVLAN, BR0, BridgeHooks(), False),
        (MACVLAN, replace(BR0, calls_ip_hooks=True), BridgeHooks(), True),
        (MACVLAN, replace(BR0, kind=None), ON, False),
        (VLAN, BR0, ON, False),
        (VLAN, BR0, replace(ON, tagged=True), True),
        (VLAN, replace(BR0, is_vlan_aware=True), ON, True),
        (VLAN, replace(BR0, is_vlan_aware=True), BridgeHooks(tagged=True), False),
    ),
)
def test_a_link_above_a_bridge_passes_the_hooks_as_the_bridge(
    link: Link, bridge: Link, hooks: BridgeHooks, *, is_other: bool
) -> None:
    """br_netfilter shows frames as the bridge's: untagged ones, and with its third setting tagged ones."""
    found = other_name(HostFacts(links=(bridge, link), bridge_hooks=hooks), link)
    assert (found is not None) is is_other
    assert found is None or (found.name == "br0" and "nf" in found.cause)


def test_a_macvlan_on_a_vlan_of_a_bridge_is_one_of_them() -> None:
    """What counts is how the frame leaves the bridge: by its VLAN."""
    top = Link(name="mv1", index=7, kind="macvlan", lower="br0.10")
    aware = replace(BR0, is_vlan_aware=True)
    assert other_name(HostFacts(links=(aware, VLAN, top), bridge_hooks=ON), top) is not None
    assert other_name(HostFacts(links=(BR0, VLAN, top), bridge_hooks=ON), top) is None


@pytest.mark.parametrize("mode", IpvlanMode)
def test_only_mode_l3s_of_ipvlan_has_another_name(mode: IpvlanMode) -> None:
    """Its packets come in as its parent's."""
    link = Link(name="ipv0", index=5, kind="ipvlan", lower="eth0", ipvlan_mode=mode)
    found = other_name(HostFacts(links=(Link(name="eth0", index=2), link)), link)
    assert (found is not None) is (mode is IpvlanMode.L3S)


def test_a_bound_port_is_found() -> None:
    """It is a lower device, of whatever master."""
    assert codes(ETH0, BOND0, BR0, bound=("eth0",)) == {"eth0": FindingCode.LOWER_DEVICE}


def test_an_unbound_link_above_a_bound_one_is_found_once() -> None:
    """Also over a level; one that is bound, or whose master is, is not found."""
    top = Link(name="mv1", index=7, kind="macvlan", lower="br0.10")
    assert codes(BR0, VLAN, top, bound=("br0",)) == dict.fromkeys(("br0.10", "mv1"), FindingCode.LINK_ABOVE)
    assert codes(BR0, VLAN, top, bound=("br0", "br0.10")) == {"mv1": FindingCode.LINK_ABOVE}
    judged = replace(VLAN, master="br1", master_kind="bridge")
    assert codes(BR0, judged, Link(name="br1", index=8, kind="bridge"), bound=("br0", "br1")) == {}


def test_a_bound_bridge_whose_frames_are_judged_is_found() -> None:
    """Where br_netfilter is on and there are ports that may speak to each other."""
    ports = [Link(name=f"p{n}", index=10 + n, master="br0", master_kind="bridge") for n in (1, 2)]
    found = {"br0": FindingCode.BRIDGED_FRAMES}
    assert codes(BR0, *ports, bound=("br0",), hooks=ON) == found
    assert codes(replace(BR0, calls_ip_hooks=True), *ports, bound=("br0",)) == found
    assert codes(BR0, *ports, bound=("br0",)) == codes(BR0, ports[0], bound=("br0",), hooks=ON) == {}


def test_a_bound_link_under_another_name_is_found() -> None:
    """The message names the cause, the remedy the setting."""
    (found,) = findings(HostFacts(links=(BR0, MACVLAN), bridge_hooks=ON), {"mv0"})
    assert (found.code, found.other) == (FindingCode.OTHER_NAME, "br0")
    assert "bridge-nf-call-iptables" in found.message
    assert "bridge-nf-call-ip6tables" in found.remedy
