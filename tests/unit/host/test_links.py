"""Reading rtnetlink's messages by pyroute2, without a kernel."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from sgagent.core.binding import BridgeHooks, IpvlanMode, Link, link_name
from sgagent.core.model import CidrBlock, Family
from sgagent.host.links import InterruptedListingError, read_bridge_hooks, read_facts, read_forwarding
from sgagent.netlink import NESTED, attribute

ADDRESS, IFNAME, MASTER, LINKINFO, PARENT_DEVICE = 1, 3, 10, 18, 56
KIND, PORT_KIND = 1, 4
PROPERTIES, OTHER_NAME = 52, 53
PLAIN, LOCAL = 1, 2
NEW_LINK, NEW_ADDRESS = 16, 20
INTERRUPTED = 0x10


def message(kind: int, payload: bytes, flags: int = 0) -> Any:  # noqa: ANN401 - pyroute2 has no types
    """Return what pyroute2 reads in the bytes of a message."""
    header = struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0)
    (read,) = MarshalRtnl().parse(header + payload)
    return read


def text(word: str) -> bytes:
    """Return a text as the kernel writes it."""
    return word.encode() + b"\0"


def link(
    name: str | bytes, index: int, flags: int = 0, about: Mapping[int, str] | None = None, **found: bytes
) -> Any:  # noqa: ANN401 - as above
    """Return the message of a link, with what it is in itself and other attributes by our names for them."""
    kinds = {"mac": ADDRESS, "master": MASTER, "device": PARENT_DEVICE}
    nested = b"".join(attribute(kind, text(word)) for kind, word in (about or {}).items())
    others = b"".join(attribute(kinds[key], value) for key, value in found.items())
    header = struct.pack("=BxHiII", 0, 1, index, flags, 0)
    octets = text(name) if isinstance(name, str) else name + b"\0"
    payload = header + attribute(IFNAME, octets) + others + attribute(LINKINFO | NESTED, nested)
    return message(NEW_LINK, payload)


def test_alternative_names_are_read() -> None:
    """A link has any number of them, also longer than a name."""
    names = b"".join(attribute(OTHER_NAME, text(word)) for word in ("ens3", "a-name-of-more-than-15-octets"))
    header = struct.pack("=BxHiII", 0, 1, 2, 0, 0)
    payload = header + attribute(IFNAME, text("eth0")) + attribute(PROPERTIES | NESTED, names)
    assert only_link(message(NEW_LINK, payload)).other_names == ("a-name-of-more-than-15-octets", "ens3")


def address(index: int, plain: str, local: str | None = None, family: int | None = None) -> Any:  # noqa: ANN401 - as above
    """Return the message of an address."""
    family = family or int(AF_INET6 if ":" in plain else AF_INET)
    header = struct.pack("=BBBBI", family, 24, 0, 0, index)
    of_host = attribute(LOCAL, ip_address(local).packed) if local else b""
    return message(NEW_ADDRESS, header + attribute(PLAIN, ip_address(plain).packed) + of_host)


def only_link(*messages: object, addresses: tuple[object, ...] = ()) -> Link:
    """Return the first by name of the links that the messages tell of."""
    return read_facts(messages, addresses).links[0]


def test_links_are_sorted_by_name() -> None:
    """Links come in the order of their names, whatever order the kernel tells them in."""
    names = [found.name for found in read_facts([link("eth1", 2), link("eth0", 3)], []).links]
    assert names == ["eth0", "eth1"]


@pytest.mark.parametrize(
    ("name", "shown"),
    (
        (b"eth0.100@+-_", "eth0.100@+-_"),
        ("büro-1".encode(), "büro-1"),
        (b"a\"b'c", "a\"b'c"),
        (b"\xff\xfeeth", r"\xff\xfeeth"),
        (rb"\xff", r"\x5cxff"),
        (b"a\\", r"a\x5c"),
        (b"e\x1b[31m", r"e\x1b[31m"),
        (b"n\nl\rl", r"n\x0al\x0dl"),
        ("n\u0085l".encode(), r"n\xc2\x85l"),
        ("n\u2028l".encode(), r"n\xe2\x80\xa8l"),
        ("\u202eevil".encode(), r"\xe2\x80\xaeevil"),
        (b"\xed\xb3\xbf", r"\xed\xb3\xbf"),
        (b"cut\xe2\x80", r"cut\xe2\x80"),
        (b"\x7f", r"\x7f"),
    ),
)
def test_a_name_is_text_that_can_be_shown_anywhere(name: bytes, shown: str) -> None:
    """Linux allows any bytes but a few; what is no printable text, and the backslash, are escaped."""
    assert only_link(link(name, 2)).name == shown


def test_a_master_is_named_as_the_link_is() -> None:
    """Both names come from the same message."""
    port = link("A0", 3, about={PORT_KIND: "bridge"}, master=struct.pack("=I", 2))
    assert only_link(port, link(b"\xff", 2)).master == r"\xff"


@given(st.binary(min_size=1, max_size=15), st.binary(min_size=1, max_size=15))
def test_no_two_links_have_one_name(one: bytes, other: bytes) -> None:
    """Different bytes give different names, and every name is printable UTF-8."""
    names = link_name(one), link_name(other)
    assert (names[0] == names[1]) is (one == other)
    assert all(name.isprintable() and name.encode() for name in names)


def test_addresses_of_both_families_are_sorted() -> None:
    """IPv4 comes before IPv6, each in numerical order, as single addresses."""
    told = (address(2, "2001:db8::1"), address(2, "10.0.0.11"), address(2, "10.0.0.9"))
    found = only_link(link("eth0", 2), addresses=told)
    assert found.addresses == tuple(map(CidrBlock.parse, ("10.0.0.9", "10.0.0.11", "2001:db8::1")))


def test_the_local_end_of_a_point_to_point_link_is_its_address() -> None:
    """The far end's address is not the host's own."""
    found = only_link(link("ppp0", 2), addresses=(address(2, "10.0.0.2", local="10.0.0.1"),))
    assert found.addresses == (CidrBlock.parse("10.0.0.1"),)


def test_an_address_of_a_link_that_went_meanwhile_is_left_out() -> None:
    """Links and addresses are listed one after the other; what has no link is dropped."""
    assert only_link(link("eth0", 2), addresses=(address(7, "10.0.0.1"),)).addresses == ()


def test_an_address_of_another_family_is_left_out() -> None:
    """Only IPv4 and IPv6 are known."""
    other = address(2, "10.0.0.1", family=28)
    assert only_link(link("eth0", 2), addresses=(other,)).addresses == ()


@pytest.mark.parametrize(
    ("told", "expected"),
    (
        (b"\x52\x54\x00\xab\xcd\x01", "52:54:00:ab:cd:01"),
        (bytes(6), None),
        (b"\xc0\x00\x02\x01", None),
        (bytes(range(20)), None),
        (b"", None),
    ),
)
def test_only_six_octets_are_a_mac_address(told: bytes, expected: str | None) -> None:
    """Tunnels keep an IP address in the place of the MAC, InfiniBand more, and loopback has zeros."""
    assert only_link(link("eth0", 2, mac=told)).mac_address == expected


def test_a_device_under_the_link_is_hardware_whatever_its_kind() -> None:
    """A modem's link has a kind and a device."""
    found = only_link(link("wwan0", 2, about={KIND: "wwan"}, device=text("1-1")))
    assert found.has_hardware


def test_a_link_without_a_kind_is_hardware() -> None:
    """Old kernels don't name the device."""
    assert only_link(link("eth0", 2)).has_hardware


def test_a_software_link_is_not_hardware() -> None:
    """A bridge, tunnel or veth has a kind and no device."""
    assert not only_link(link("veth0", 2, about={KIND: "veth"})).has_hardware


def test_loopback_is_not_hardware() -> None:
    """Loopback has neither kind nor device."""
    found = only_link(link("lo", 1, flags=0x49))
    assert found.is_loopback
    assert not found.has_hardware


def test_a_port_names_its_master_and_the_masters_kind() -> None:
    """A port of a bridge is told apart, since its packets show as the bridge's."""
    bridge = link("br0", 5, about={KIND: "bridge"})
    port, master = reversed(read_facts([link("eth0", 2, master=struct.pack("=I", 5)), bridge], []).links)
    assert (port.master, port.master_kind) == ("br0", "bridge")
    assert (master.master, master.master_kind) == (None, None)


def test_the_port_says_the_kind_where_the_master_does_not() -> None:
    """Some masters have no kind of their own."""
    port = link("eth0", 2, about={PORT_KIND: "openvswitch"}, master=struct.pack("=I", 5))
    assert only_link(port, link("ovs-system", 5)).master_kind == "openvswitch"


def test_a_listing_that_a_change_interrupted_is_known() -> None:
    """The kernel marks a message of it; newer pyroute2 ignores the mark."""
    payload = struct.pack("=BxHiII", 0, 1, 2, 0, 0)
    whole, marked = message(NEW_LINK, payload), message(NEW_LINK, payload, INTERRUPTED)
    read_facts([whole], [])
    for links, addresses in (([whole, marked], []), ([whole], [marked])):
        with pytest.raises(InterruptedListingError):
            read_facts(links, addresses)


def test_an_address_that_is_no_mac_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """pyroute2 would log a traceback for each tunnel, at each listing."""
    assert only_link(link("tunl0", 2, mac=bytes(4), about={KIND: "ipip"})).mac_address is None
    assert not caplog.records


def test_which_families_the_host_forwards(tmp_path: Path) -> None:
    """From any link or from one; IPv6 may be missing from the kernel, and any number but 0 is yes."""
    (tmp_path / "ipv4/conf/docker0").mkdir(parents=True)
    (tmp_path / "ipv4/conf/docker0/forwarding").write_text("0\n")
    assert read_forwarding(tmp_path) == ()
    (tmp_path / "ipv6/conf/all").mkdir(parents=True)
    (tmp_path / "ipv6/conf/all/forwarding").write_text("2\n")
    assert read_forwarding(tmp_path) == (Family.IPV6,)
    (tmp_path / "ipv4/conf/docker0/forwarding").write_text("1\n")
    assert read_forwarding(tmp_path) == (Family.IPV4, Family.IPV6)
    (tmp_path / "ipv6/conf/all/forwarding").write_text("0\n")
    assert read_forwarding(tmp_path) == (Family.IPV4,)
    (tmp_path / "ipv6/conf/all/force_forwarding").write_text("1\n")
    assert read_forwarding(tmp_path) == (Family.IPV4, Family.IPV6)


def about_kind(kind: str, **numbers: bytes) -> bytes:
    """Return what a link says of its kind: attributes by their numbers, as ``a7``."""
    data = b"".join(attribute(int(name[1:]), value) for name, value in numbers.items())
    return attribute(KIND, text(kind)) + attribute(2 | NESTED, data)


def of_kind(name: str, index: int, kind: str, *others: bytes, **numbers: bytes) -> Any:  # noqa: ANN401 - as above
    """Return the message of a link with what it says of its kind."""
    header = struct.pack("=BxHiII", 0, 1, index, 0, 0)
    nested = attribute(LINKINFO | NESTED, about_kind(kind, **numbers))
    return message(NEW_LINK, header + attribute(IFNAME, text(name)) + b"".join(others) + nested)


ON_LINK = attribute(5, struct.pack("=I", 2))
ELSEWHERE = attribute(37, struct.pack("=i", 1))


@pytest.mark.parametrize(
    ("kind", "others", "lower"),
    (
        ("macvlan", (ON_LINK,), "eth0"),
        ("vlan", (ON_LINK, ELSEWHERE), None),
        ("veth", (ON_LINK,), None),
        ("vlan", (), None),
    ),
)
def test_a_link_names_the_one_it_stands_on(kind: str, others: tuple[bytes, ...], lower: str | None) -> None:
    """That may be in another namespace, where its number says nothing here; a veth names its other end."""
    found = read_facts([of_kind("x0", 3, kind, *others), link("eth0", 2)], []).links[1]
    assert (found.kind, found.lower) == (kind, lower)


@pytest.mark.parametrize(("number", "mode"), ((0, IpvlanMode.L2), (1, IpvlanMode.L3), (2, IpvlanMode.L3S)))
def test_the_mode_of_an_ipvlan_is_read(number: int, mode: IpvlanMode) -> None:
    """By the kernel's numbers."""
    assert only_link(of_kind("ipv0", 3, "ipvlan", a1=struct.pack("=H", number))).ipvlan_mode is mode


def test_members_of_hsr_are_named_by_it() -> None:
    """They name no master themselves."""
    ring = of_kind("hsr0", 5, "hsr", a1=struct.pack("=I", 2), a2=struct.pack("=I", 3))
    found = read_facts([ring, link("eth1", 2), link("eth2", 3), link("eth3", 4)], []).links
    masters = {one.name: (one.master, one.master_kind) for one in found}
    assert masters["eth1"] == masters["eth2"] == ("hsr0", "hsr")
    assert masters["eth3"] == masters["hsr0"] == (None, None)


def test_what_a_bridge_does_with_tags_and_hooks_is_read() -> None:
    """Each setting is an attribute of its kind."""
    plain = only_link(of_kind("br0", 3, "bridge", a7=b"\0", a36=b"\0", a37=b"\0"))
    assert (plain.is_vlan_aware, plain.calls_ip_hooks) == (False, False)
    set_up = only_link(of_kind("br0", 3, "bridge", a7=b"\1", a36=b"\0", a37=b"\1"))
    assert (set_up.is_vlan_aware, set_up.calls_ip_hooks) == (True, True)


def test_the_settings_of_br_netfilter_are_read(tmp_path: Path) -> None:
    """Where the module is not loaded there are none, and no frame on a bridge passes a hook of IP."""
    assert read_bridge_hooks(tmp_path) == BridgeHooks()
    for name, value in (("call-iptables", 0), ("call-ip6tables", 1), ("filter-vlan-tagged", 1)):
        (tmp_path / f"bridge-nf-{name}").write_text(f"{value}\n")
    assert read_bridge_hooks(tmp_path) == BridgeHooks(families=(Family.IPV6,), tagged=True)
