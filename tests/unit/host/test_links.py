"""Reading rtnetlink's messages, without a kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6

import pytest

from sgagent.core.host import Link
from sgagent.core.model import CidrBlock
from sgagent.host.links import read_facts


@dataclass(frozen=True)
class Message:
    """A message as pyroute2 gives it."""

    fields: dict[str, object]
    attributes: dict[str, object] = field(default_factory=dict)

    def __getitem__(self, name: str) -> object:
        """Return a field."""
        return self.fields[name]

    def get_attr(self, name: str) -> object:
        """Return an attribute."""
        return self.attributes.get(name)

    def get_nested(self, *names: str) -> object:
        """Return an attribute in an attribute."""
        return self.attributes.get("/".join(names))


def link(name: str, index: int, flags: int = 0, **attributes: object) -> Message:
    """Return the message of a link; two underscores in an attribute's name stand for nesting."""
    named = {key.replace("__", "/"): value for key, value in attributes.items()}
    return Message({"index": index, "flags": flags}, {"IFLA_IFNAME": name, **named})


def address(index: int, text: str, local: str | None = None) -> Message:
    """Return the message of an address."""
    family = AF_INET6 if ":" in text else AF_INET
    return Message({"index": index, "family": int(family)}, {"IFA_ADDRESS": text, "IFA_LOCAL": local})


def only_link(*messages: Message, addresses: tuple[Message, ...] = ()) -> Link:
    """Return the first by name of the links that the messages tell of."""
    return read_facts(messages, addresses).links[0]


def test_links_are_sorted_by_name() -> None:
    """Links come in the order of their names, whatever order the kernel tells them in."""
    names = [found.name for found in read_facts([link("eth1", 2), link("eth0", 3)], []).links]
    assert names == ["eth0", "eth1"]


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
    other = Message({"index": 2, "family": 28}, {"IFA_ADDRESS": "10.0.0.1"})
    assert only_link(link("eth0", 2), addresses=(other,)).addresses == ()


@pytest.mark.parametrize(
    ("told", "expected"),
    (
        ("52:54:00:AB:cd:01", "52:54:00:ab:cd:01"),
        ("00:00:00:00:00:00", None),
        ("192.0.2.1", None),
        ("0a:00:00:01", None),
        (None, None),
    ),
)
def test_only_six_octets_are_a_mac_address(told: str | None, expected: str | None) -> None:
    """Tunnels keep an IP address in the place of the MAC, and loopback has zeros."""
    assert only_link(link("eth0", 2, IFLA_ADDRESS=told)).mac_address == expected


def test_a_device_under_the_link_is_hardware_whatever_its_kind() -> None:
    """A modem's link has a kind and a device."""
    found = only_link(link("wwan0", 2, IFLA_PARENT_DEV_NAME="1-1", IFLA_LINKINFO__IFLA_INFO_KIND="wwan"))
    assert found.has_hardware


def test_a_link_without_a_kind_is_hardware() -> None:
    """Old kernels don't name the device."""
    assert only_link(link("eth0", 2)).has_hardware


def test_a_software_link_is_not_hardware() -> None:
    """A bridge, tunnel or veth has a kind and no device."""
    assert not only_link(link("veth0", 2, IFLA_LINKINFO__IFLA_INFO_KIND="veth")).has_hardware


def test_loopback_is_not_hardware() -> None:
    """Loopback has neither kind nor device."""
    found = only_link(link("lo", 1, flags=0x49))
    assert found.is_loopback
    assert not found.has_hardware


def test_a_port_names_its_master_and_the_masters_kind() -> None:
    """A port of a bridge is told apart, since its packets show as the bridge's."""
    bridge = link("br0", 5, IFLA_LINKINFO__IFLA_INFO_KIND="bridge")
    port, master = reversed(read_facts([link("eth0", 2, IFLA_MASTER=5), bridge], []).links)
    assert (port.master, port.master_kind) == ("br0", "bridge")
    assert (master.master, master.master_kind) == (None, None)


def test_the_port_says_the_kind_where_the_master_does_not() -> None:
    """Some masters have no kind of their own."""
    port = link("eth0", 2, IFLA_MASTER=5, IFLA_LINKINFO__IFLA_INFO_SLAVE_KIND="openvswitch")
    assert only_link(port, link("ovs-system", 5)).master_kind == "openvswitch"
