"""Which keys concern a host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import pytest

from sgagent.core.binding import HandBinding, HostFacts, Link
from sgagent.core.errors import DocumentError
from sgagent.core.model import CidrBlock
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.sources.etcd.documents import Everything, HostInterest
from sgagent.sources.etcd.key_layout import KeyLayout, published_keys
from sgagent.sources.etcd.messages import KeyValue
from tests.etcd import read_all

LAYOUT = KeyLayout("/sgagent")
DEFINITIONS = b"""
version: 1
security_groups:
  - security_group_id: sg-web
    rules:
      - {direction: ingress, policy: accept, protocol: tcp, port_range: 80, authorization_object: sg-front}
      - {direction: ingress, policy: accept, protocol: tcp, port_list_id: prl-1, authorization_object: pl-1}
      - {direction: ingress, policy: accept, protocol: tcp, port_range: 81, authorization_object: sg-missing}
  - security_group_id: sg-front
    rules:
      - {direction: ingress, policy: accept, protocol: tcp, port_range: 80, authorization_object: sg-far}
  - {security_group_id: sg-far}
  - {security_group_id: sg-other}
prefix_lists:
  - {prefix_list_id: pl-1, address_family: ipv4, entries: [203.0.113.0/24]}
  - {prefix_list_id: pl-2, address_family: ipv4, entries: []}
port_lists:
  - {port_list_id: prl-1, entries: [443]}
  - {port_list_id: prl-2, entries: [443]}
network_interfaces:
  - {network_interface_id: eni-web, mac_address: '02:00:00:00:00:01', addresses: [10.0.0.1],
     security_group_ids: [sg-web]}
  - {network_interface_id: eni-front, addresses: [10.0.0.2, 10.0.8.0/28], security_group_ids: [sg-front]}
  - {network_interface_id: eni-far, addresses: [10.0.0.3], security_group_ids: [sg-far, sg-other]}
"""


def store(text: bytes = DEFINITIONS) -> dict[str, KeyValue]:
    """Return the keys of published definitions."""
    snapshot, _ = parse_documents([DocumentFile("x.yaml", text)], Limits())
    items = published_keys(snapshot, LAYOUT).items()
    return {key: KeyValue(key=key, value=value, mod_revision=2) for key, value in items}


def host(*links: Link, by_hand: tuple[HandBinding, ...] = ()) -> HostInterest:
    """Return the interest of a host with these links."""
    return HostInterest(LAYOUT, HostFacts(links=links), by_hand, Limits())


def names_of(values: Mapping[str, KeyValue], kind: str) -> set[str]:
    """Return the names of the objects of a kind."""
    return {LAYOUT.parts(key)[1] for key in values if LAYOUT.parts(key)[0] == kind}


def test_a_host_reads_what_concerns_it() -> None:
    """Its interface by MAC, its group, what that refers to, and the members of these; nothing beyond."""
    link = Link(name="eth0", index=2, mac_address="02:00:00:00:00:01")
    values = read_all(store(), host(link))
    assert sorted(map(LAYOUT.relative, values)) == [
        "by-mac/02:00:00:00:00:01/eni-web",
        "groups/sg-front",
        "groups/sg-web",
        "interfaces/eni-web",
        "members/sg-front/eni-front",
        "members/sg-web/eni-web",
        "port-lists/prl-1",
        "prefix-lists/pl-1",
    ]


def test_an_interface_without_a_mac_is_found_by_address() -> None:
    """So are its groups."""
    link = Link(
        name="eth0", index=2, mac_address="02:00:00:00:00:09", addresses=(CidrBlock.parse("10.0.0.2"),)
    )
    values = read_all(store(), host(link))
    assert names_of(values, "interfaces") == {"eni-front"}
    assert names_of(values, "groups") == {"sg-far", "sg-front"}


def test_bindings_by_hand_lead_to_interfaces_and_groups() -> None:
    """Whether the links exist or not."""
    by_hand = (
        HandBinding(interface="eth0", network_interface_id="eni-far"),
        HandBinding(interface="eth1", security_group_ids=("sg-web",)),
    )
    values = read_all(store(), host(by_hand=by_hand))
    assert names_of(values, "interfaces") == {"eni-far"}
    assert names_of(values, "groups") == {"sg-far", "sg-front", "sg-other", "sg-web"}


def test_ports_of_bridges_are_not_looked_for() -> None:
    """Containers come and go, and are bound to nothing."""
    port = Link(name="veth1", index=3, mac_address="02:00:00:00:00:01", master="br0", master_kind="bridge")
    loopback = Link(name="lo", index=1, mac_address="00:00:00:00:00:00", is_loopback=True)
    assert host(port, loopback).roots() == frozenset()


def test_rules_of_groups_that_are_only_referred_to_are_left_out() -> None:
    """They concern the group's own hosts."""
    link = Link(name="eth0", index=2, mac_address="02:00:00:00:00:01")
    interest = host(link)
    composed = interest.documents(read_all(store(), interest))
    snapshot, problems = parse_documents(composed.documents, Limits())
    assert {group.security_group_id: len(group.rules) for group in snapshot.security_groups} == {
        "sg-front": 0,
        "sg-web": 3,
    }
    front = snapshot.group_by_id["sg-front"]
    assert list(map(str, front.member_addresses)) == ["10.0.0.2", "10.0.8.0/28"]
    assert [interface.network_interface_id for interface in snapshot.network_interfaces] == ["eni-web"]
    assert (problems, composed.problems) == ((), ())


def test_a_host_of_which_nothing_is_said() -> None:
    """It gets an empty document, which is none that is missing."""
    interest = host(Link(name="eth0", index=2, mac_address="02:00:00:00:00:77"))
    (document,) = interest.documents(read_all(store(), interest)).documents
    assert document.content == b'{"version":1}'


def test_everything_is_all_that_was_published() -> None:
    """With members that hosts announced, and without those of published interfaces twice."""
    values = store()
    key = LAYOUT.key("members", "sg-other", "web-9.eth0")
    values[key] = KeyValue(key=key, value=b'{"addresses":["10.0.0.9"]}', mod_revision=3, lease=1)
    everything = Everything(LAYOUT)
    snapshot, _ = parse_documents(everything.documents(read_all(values, everything)).documents, Limits())
    before, _ = parse_documents([DocumentFile("x.yaml", DEFINITIONS)], Limits())
    assert snapshot.network_interfaces == before.network_interfaces
    assert snapshot.prefix_lists == before.prefix_lists
    assert list(map(str, snapshot.group_by_id["sg-other"].member_addresses)) == ["10.0.0.9"]


@pytest.mark.parametrize(
    "value",
    (
        *(b"", b"[]", b"\xff", b'{"version":1}', b'],"x":[', b"{}"),
        *(b'{"name":"\\ud800"}', b'{"rules":["\\ud800"]}', b'{"member_addresses":["\\ud800"]}'),
    ),
)
def test_a_key_that_holds_no_object_is_an_error(value: bytes) -> None:
    """It names the key; and nothing in one key can become more than one object."""
    key = LAYOUT.key("groups", "sg-web")
    values = store() | {key: KeyValue(key=key, value=value, mod_revision=3)}
    with pytest.raises(DocumentError) as caught:
        parse_documents(Everything(LAYOUT).documents(values).documents, Limits())
    assert any(problem.origin.file.startswith(f"etcd:{key}") for problem in caught.value.problems)


def test_a_key_that_holds_another_object_is_an_error() -> None:
    """Whoever may write one key can't replace the object of another."""
    key = LAYOUT.key("groups", "sg-other")
    values = store()
    values[key] = KeyValue(key=key, value=values[LAYOUT.key("groups", "sg-web")].value, mod_revision=3)
    with pytest.raises(DocumentError) as caught:
        Everything(LAYOUT).documents(values)
    assert [problem.code for problem in caught.value.problems] == ["key_mismatch"]


class Decoded(bytes):
    """A value that counts how often its text is read."""

    __slots__ = ()
    counts: ClassVar[Counter[bytes]] = Counter()

    def decode(self, *arguments: str, **named: str) -> str:
        """Count, and return the text."""
        self.counts[bytes(self)] += 1
        return super().decode(*arguments, **named)


def test_each_value_is_decoded_once() -> None:
    """Selection, members and documents share what was read; a change decodes the changed key alone."""
    interest = host(Link(name="eth0", index=2, mac_address="02:00:00:00:00:01"))
    everything = {key: replace(item, value=Decoded(item.value)) for key, item in store().items()}
    values = read_all(everything, interest)
    interest.documents(values)
    changed = LAYOUT.key("members", "sg-front", "eni-front")
    value = Decoded(b'{"addresses":["10.0.0.7"]}')
    values[changed] = replace(values[changed], value=value, mod_revision=9)
    assert interest.wanted(values)
    documents = interest.documents(values).documents
    assert b'"member_addresses":["10.0.0.7"]' in documents[1].content
    assert set(Decoded.counts.values()) == {1}
    assert len(Decoded.counts) == len([key for key in values if LAYOUT.parts(key)[0] != "by-mac"]) + 1
