"""Links that can't be identified yet are judged by the names that they had (§9.3)."""

from __future__ import annotations

from dataclasses import replace

from sgagent.core.binding import NO_FACTS, HandBinding, HostFacts, Link, bind
from sgagent.core.expected_links import ExpectedLink, bind_expected
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.words import blocks

MAC = "02:00:00:00:00:01"
OTHER_MAC = "02:00:00:00:00:02"
EXPECTED = ExpectedLink(interface="ens3", network_interface_id="eni-1")
ENS3 = Link(name="ens3", index=2, mac_address=MAC)


def snapshot(mac: str = f"mac_address: '{MAC}', ") -> Snapshot:
    """Return definitions of one network interface."""
    text = (
        "version: 1\nsecurity_groups: [{security_group_id: sg-1}]\nnetwork_interfaces:\n"
        f"  - {{network_interface_id: eni-1, {mac}addresses: [10.0.0.11], security_group_ids: [sg-1]}}\n"
    )
    return parse_documents((DocumentFile("one.yaml", text.encode()),), Limits())[0]


def bound(
    definitions: Snapshot,
    *links: Link,
    expected: ExpectedLink = EXPECTED,
    by_hand: tuple[HandBinding, ...] = (),
) -> dict[str, tuple[str, ...]]:
    """Return the groups of each link that is bound on a host with these links."""
    facts = HostFacts(links=links)
    found = bind(definitions, by_hand, facts, automatically=True)
    bindings = bind_expected(found, [expected], definitions, facts)
    assert bindings.problems == ()
    return {binding.interface: binding.security_group_ids for binding in bindings.bindings}


def test_a_link_that_is_not_there_is_bound_by_its_name() -> None:
    """It is judged from the moment it exists."""
    assert bound(snapshot()) == {"ens3": ("sg-1",)}


def test_a_link_without_its_address_is_bound_by_its_name() -> None:
    """Where the network interface names no MAC, nothing else tells it before the network is configured."""
    assert bound(snapshot(mac=""), ENS3) == {"ens3": ("sg-1",)}


def test_a_link_under_another_name_is_bound_under_both() -> None:
    """The kernel's own name is judged until udev has renamed the link, and the new name from then on."""
    assert bound(snapshot(), replace(ENS3, name="eth0")) == {"ens3": ("sg-1",), "eth0": ("sg-1",)}


def test_a_network_interface_that_is_found_elsewhere_is_expected_no_more() -> None:
    """The link that has its former name now is another one, which nothing else would tell without a MAC."""
    elsewhere = replace(ENS3, name="ens5", index=3, addresses=blocks("10.0.0.11"))
    other = replace(ENS3, mac_address=OTHER_MAC, addresses=blocks("192.168.1.5"))
    assert bound(snapshot(mac=""), other, elsewhere) == {"ens5": ("sg-1",)}


def test_a_link_that_is_found_is_bound_once() -> None:
    """What is expected and found is as if it were found alone."""
    definitions, facts = snapshot(), HostFacts(links=(ENS3,))
    found = bind(definitions, (), facts, automatically=True)
    assert bind_expected(found, [EXPECTED], definitions, facts) == found


def test_another_link_of_that_name_is_left_alone() -> None:
    """A MAC that is another's says that the name has changed hands; so does being a bridge's port."""
    assert bound(snapshot(), replace(ENS3, mac_address=OTHER_MAC)) == {}
    assert bound(snapshot(mac=""), replace(ENS3, master="br0", master_kind="bridge")) == {}


def test_loopback_is_never_expected() -> None:
    """A file that says so is wrong (§2.3)."""
    lo = Link(name="lo", index=1, is_loopback=True)
    expected = ExpectedLink(interface="lo", network_interface_id="eni-1")
    assert bound(snapshot(mac=""), lo, expected=expected) == {}


def test_what_the_definitions_no_longer_have_is_not_expected() -> None:
    """A network interface that is gone binds nothing."""
    assert bound(Snapshot(version="1"), expected=EXPECTED) == {}


def test_a_binding_by_hand_wins() -> None:
    """The configuration's groups stay, whatever was found under that name before."""
    by_hand = (HandBinding(interface="ens3", security_group_ids=("sg-2",)),)
    found = bind(snapshot(), by_hand, NO_FACTS, automatically=True)
    assert bind_expected(found, [EXPECTED], snapshot(), NO_FACTS) == found
