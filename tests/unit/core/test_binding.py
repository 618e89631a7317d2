"""Find out which links are meant (§2.3, §9.3, §9.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.binding import Bindings, HandBinding, HostFacts, Link, bind
from sgagent.core.errors import Origin, Severity
from sgagent.core.model import Mode, NetworkInterface
from tests.words import blocks, interface, snapshot

MAC_1, MAC_2 = "00:16:3e:00:00:01", "00:16:3e:00:00:02"


def link(
    name: str,
    *addresses: str,
    mac: str | None = None,
    has_hardware: bool = True,
    port_of: tuple[str, str] | None = None,
    is_loopback: bool = False,
) -> Link:
    """Return a link; ``port_of`` names its master and the master's kind."""
    return Link(
        name=name,
        index=1,
        mac_address=mac,
        addresses=blocks(*addresses),
        has_hardware=has_hardware,
        master=port_of[0] if port_of else None,
        master_kind=port_of[1] if port_of else None,
        is_loopback=is_loopback,
    )


def bound(interfaces: list[NetworkInterface], links: list[Link], *hands: HandBinding) -> Bindings:
    """Return what is bound of these on a host with these links."""
    return bind(snapshot(*interfaces), hands, HostFacts(links=tuple(links)), automatically=True)


def pairs(found: Bindings) -> list[tuple[str, str | None]]:
    """Return each link with the network interface that it is bound to."""
    return [
        (one.interface, one.network_interface.network_interface_id if one.network_interface else None)
        for one in found.bindings
    ]


def codes(found: Bindings) -> list[str]:
    """Return the codes of the problems."""
    return [problem.code for problem in found.problems]


class TestByMac:
    """Network interfaces that name a MAC."""

    def test_the_link_with_the_mac(self) -> None:
        """It brings the interface's groups; its name does not matter."""
        found = bound(
            [interface("eni-1", ["sg-1"], mac=MAC_1)], [link("ens5", mac=MAC_1), link("ens6", mac=MAC_2)]
        )
        assert pairs(found) == [("ens5", "eni-1")]
        assert found.bindings[0].security_group_ids == ("sg-1",)
        assert found.bindings[0].mode is None

    def test_no_such_link(self) -> None:
        """An interface of another host is nobody's here, and nothing to speak of."""
        assert bound([interface("eni-1", mac=MAC_1)], [link("eth0", mac=MAC_2)]) == Bindings()

    def test_loopback_is_never_meant(self) -> None:
        """Whatever MAC or address it has (§2.3)."""
        lo = link("lo", "10.0.0.2", mac=MAC_1, is_loopback=True)
        assert bound([interface("eni-1", mac=MAC_1)], [lo]) == Bindings()
        assert bound([interface("eni-1", addresses=["10.0.0.2"])], [lo]) == Bindings()

    def test_links_that_share_a_mac(self) -> None:
        """The one that carries the address is meant (§9.4)."""
        links = [
            link("eth0", mac=MAC_1),
            link("br0", "10.0.0.2", mac=MAC_1, has_hardware=False),
            link("vlan7", mac=MAC_1, has_hardware=False),
        ]
        assert pairs(bound([interface("eni-1", addresses=["10.0.0.2"], mac=MAC_1)], links)) == [
            ("br0", "eni-1")
        ]

    def test_without_the_address_the_hardware_is_meant(self) -> None:
        """Of links that share a MAC and carry no address, the one with a device under it."""
        links = [link("a-macvlan", mac=MAC_1, has_hardware=False), link("eth0", mac=MAC_1)]
        assert pairs(bound([interface("eni-1", mac=MAC_1)], links)) == [("eth0", "eni-1")]

    def test_a_bond_and_its_ports(self) -> None:
        """The bond is meant, and not its ports, though they share the MAC and are the hardware."""
        links = [
            link("bond0", mac=MAC_1, has_hardware=False),
            link("eth0", mac=MAC_1, port_of=("bond0", "bond")),
            link("eth1", mac=MAC_1, port_of=("bond0", "bond")),
        ]
        assert pairs(bound([interface("eni-1", mac=MAC_1)], links)) == [("bond0", "eni-1")]

    @pytest.mark.parametrize("kind", ("bridge", "bond", "team", "openvswitch"))
    def test_a_port(self, kind: str) -> None:
        """Binding a port is an error that names the master (§9.4); its rules are made all the same."""
        port = link("eth0", "10.0.0.2", mac=MAC_1, port_of=("m0", kind))
        found = bound([interface("eni-1", addresses=["10.0.0.2"], mac=MAC_1)], [port])
        assert pairs(found) == [("eth0", "eni-1")]
        assert codes(found) == ["port_of_master"]
        assert "m0" in found.problems[0].remedy

    def test_an_alternative_name(self) -> None:
        """Rules would match no packet: an error names the link, which is open (§2.3)."""
        hand = HandBinding(interface="ens3", security_group_ids=("sg-1",))
        found = bound([], [replace(link("eth0"), other_names=("enp0s3", "ens3"))], hand)
        assert (codes(found), found.problems[0].remedy) == (["alternative_name"], "bind eth0")
        assert codes(bound([], [link("ens3"), replace(link("eth0"), other_names=("enp0s3",))], hand)) == []

    @pytest.mark.parametrize("name", ("@a", "a*", 'a"b', "a\x1b"))
    def test_a_name_that_rules_can_not_speak_of(self, name: str) -> None:
        """Linux lets links be called so; one that is meant is an error that says it."""
        found = bound([interface("eni-1", mac=MAC_1)], [link(name, mac=MAC_1)])
        assert pairs(found) == []
        assert codes(found) == ["bad_interface_name"]


class TestByAddress:
    """Network interfaces that name no MAC."""

    def test_the_link_that_carries_an_address(self) -> None:
        """Any of its addresses will do, of either family."""
        for carried in ("10.0.0.2", "2001:db8::2"):
            found = bound(
                [interface("eni-1", addresses=["10.0.0.2", "2001:db8::2"])], [link("eth0", carried)]
            )
            assert pairs(found) == [("eth0", "eni-1")]

    def test_an_address_inside_a_delegated_prefix(self) -> None:
        """A prefix is not an address that a link carries for the interface itself."""
        assert (
            bound([interface("eni-1", addresses=["10.0.8.0/28"])], [link("eth0", "10.0.8.3")]) == Bindings()
        )

    def test_another_mac(self) -> None:
        """Who names a MAC is not bound by address; that its address is here is worth a warning."""
        found = bound(
            [interface("eni-1", addresses=["10.0.0.2"], mac=MAC_1)], [link("eth0", "10.0.0.2", mac=MAC_2)]
        )
        assert pairs(found) == []
        assert codes(found) == ["other_mac"]
        assert found.problems[0].severity is Severity.WARNING


class TestByHand:
    """What the configuration or the command line binds."""

    def test_groups(self) -> None:
        """Groups are sorted, and the link need not exist."""
        found = bound([], [], HandBinding(interface="eth9", security_group_ids=("sg-2", "sg-1", "sg-2")))
        assert pairs(found) == [("eth9", None)]
        assert found.bindings[0].security_group_ids == ("sg-1", "sg-2")

    def test_a_network_interface(self) -> None:
        """It brings its groups, and is not looked for elsewhere."""
        hand = HandBinding(interface="eth1", network_interface_id="eni-1", mode=Mode.OBSERVE)
        found = bound([interface("eni-1", ["sg-1"], mac=MAC_1)], [link("eth0", mac=MAC_1)], hand)
        assert pairs(found) == [("eth1", "eni-1")]
        assert found.bindings[0].security_group_ids == ("sg-1",)
        assert found.bindings[0].mode is Mode.OBSERVE

    def test_it_wins(self) -> None:
        """What the documents name for a link that is bound by hand is passed over without a word."""
        hand = HandBinding(interface="eth0", security_group_ids=("sg-9",))
        for other in (interface("eni-1", mac=MAC_1), interface("eni-1", addresses=["10.0.0.2"])):
            found = bound([other], [link("eth0", "10.0.0.2", mac=MAC_1)], hand)
            assert pairs(found) == [("eth0", None)]
            assert codes(found) == []

    def test_an_unknown_network_interface(self) -> None:
        """It is an error, and the link is not bound to nothing."""
        found = bound([], [link("eth0")], HandBinding(interface="eth0", network_interface_id="eni-9"))
        assert pairs(found) == []
        assert codes(found) == ["unknown_network_interface"]

    def test_twice(self) -> None:
        """A link is bound by hand once."""
        hands = [HandBinding(interface="eth0", security_group_ids=(name,)) for name in ("sg-1", "sg-2")]
        found = bound([], [], *hands)
        assert codes(found) == ["interface_bound_twice"]
        assert found.bindings[0].security_group_ids == ("sg-1",)

    def test_a_port(self) -> None:
        """Binding a port by hand is an error, too, and says where the binding is."""
        hand = HandBinding(interface="eth0", security_group_ids=("sg-1",), origin=Origin(file="sgagent.toml"))
        found = bound([], [link("eth0", port_of=("br0", "bridge"))], hand)
        assert pairs(found) == [("eth0", None)]
        assert codes(found) == ["port_of_master"]
        assert found.problems[0].origin.file == "sgagent.toml"

    def test_alone(self) -> None:
        """Where nothing is to be found automatically, nothing is."""
        found = bind(
            snapshot(interface("eni-1", mac=MAC_1)),
            [HandBinding(interface="eth1")],
            HostFacts(links=(link("eth0", mac=MAC_1),)),
            automatically=False,
        )
        assert pairs(found) == [("eth1", None)]

    def test_the_order_is_that_of_the_links(self) -> None:
        """However they were bound, bindings are sorted by link."""
        found = bound(
            [interface("eni-1", mac=MAC_1), interface("eni-2", addresses=["10.0.0.2"])],
            [link("b", mac=MAC_1), link("a", "10.0.0.2")],
            HandBinding(interface="c"),
        )
        assert [one.interface for one in found.bindings] == ["a", "b", "c"]


class TestAmbiguity:
    """What may mean several links, or several network interfaces, is told and never guessed."""

    @pytest.mark.parametrize(
        ("addresses", "mac", "links"),
        (
            (["10.0.0.2", "10.0.0.3"], None, [link("eth0", "10.0.0.2"), link("eth1", "10.0.0.3")]),
            (["10.0.0.2"], MAC_1, [link("eth0", mac=MAC_1), link("eth1", mac=MAC_1)]),
            (["10.0.0.2"], None, [link("ens5", "10.0.0.2"), link("dummy0", "10.0.0.2")]),
            (["10.0.0.2"], None, [link("ens5", "10.0.0.2"), link("wlan0", "10.0.0.2")]),
        ),
        ids=("an address on each", "the MAC on both", "the address on both", "on both, of any name"),
    )
    def test_one_network_interface_on_two_links(
        self, addresses: list[str], mac: str | None, links: list[Link]
    ) -> None:
        """Binding one would leave the other open; none is taken for the right one by its name (§9.4)."""
        found = bound([interface("eni-1", ["sg-1"], addresses, mac=mac)], links)
        assert codes(found) == ["ambiguous_link"]
        assert not found.bindings

    @pytest.mark.parametrize(
        ("first", "second", "on"),
        (
            (interface("eni-1", mac=MAC_1), interface("eni-2", mac=MAC_1), link("eth0", mac=MAC_1)),
            (
                interface("eni-1", addresses=["10.0.0.2"]),
                interface("eni-2", addresses=["10.0.0.3"]),
                link("eth0", "10.0.0.2", "10.0.0.3"),
            ),
        ),
        ids=("by MAC", "by address"),
    )
    def test_two_network_interfaces_on_one_link(
        self, first: NetworkInterface, second: NetworkInterface, on: Link
    ) -> None:
        """Nobody can tell whose groups hold: an error, as the link can be judged by one only."""
        found = bound([first, second], [on])
        assert codes(found) == ["ambiguous_link"]
        assert found.problems[0].severity is Severity.ERROR

    def test_an_address_that_occurs_in_another_vpc_too(self) -> None:
        """A link that is bound by MAC is settled, whoever else has its address."""
        found = bound(
            [
                interface("eni-1", ["sg-1"], ["10.0.0.2"], mac=MAC_1),
                interface("eni-2", ["sg-2"], ["10.0.0.2"]),
            ],
            [link("eth0", "10.0.0.2", mac=MAC_1)],
        )
        assert codes(found) == []
        assert pairs(found) == [("eth0", "eni-1")]

    def test_an_address_of_a_link_that_is_bound_by_hand_too(self) -> None:
        """That link is settled, and the other one is found, whichever name comes first."""
        for by_hand, other in (("eth0", "eth1"), ("eth1", "eth0")):
            found = bound(
                [interface("eni-1", ["sg-1"], ["10.0.0.2"])],
                [link("eth0", "10.0.0.2"), link("eth1", "10.0.0.2")],
                HandBinding(interface=by_hand, security_group_ids=("sg-2",)),
            )
            assert codes(found) == []
            assert dict(pairs(found)) == {by_hand: None, other: "eni-1"}
