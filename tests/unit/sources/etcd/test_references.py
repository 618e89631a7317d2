"""What objects of the store refer to."""

from __future__ import annotations

import json

import pytest

from sgagent.documents import Limits
from sgagent.sources.etcd.key_layout import GROUPS, INTERFACES, KeyLayout, References, read_object
from sgagent.sources.etcd.messages import KeyValue

LAYOUT = KeyLayout("/sgagent")


def key(value: object) -> KeyValue:
    """Return a key that holds JSON."""
    return KeyValue(key=LAYOUT.key("groups", "sg-1"), value=json.dumps(value).encode())


def references(*rules: object, limits: Limits | None = None) -> References:
    """Return what rules refer to."""
    item = key({"security_group_id": "sg-1", "rules": rules})
    found = read_object(item, GROUPS, limits or Limits())
    assert found is not None
    return found.references


def test_rules_refer_to_groups_and_lists() -> None:
    """Whosever group it is."""
    found = references(
        {"authorization_object": "sg-2"},
        {"authorization_object": "1000000000000001/sg-3"},
        {"authorization_object": "pl-1", "port_list_id": "prl-1"},
        {"authorization_object": "10.0.0.0/8"},
        {"authorization_object": "2001:db8::1"},
        {"authorization_object": ["any", "sg-4", "pl-2", "10.0.0.0/8"]},
    )
    assert found == References(
        groups=frozenset({"sg-2", "sg-3", "sg-4"}),
        prefix_lists=frozenset({"pl-1", "pl-2"}),
        port_lists=frozenset({"prl-1"}),
    )


def test_what_has_errors_refers_to_nothing() -> None:
    """And takes nothing from what has none; a name that is no id makes no key."""
    found = references(
        "sg-2",
        {},
        {"authorization_object": [["sg-2"], 2, {}], "port_list_id": 1},
        {"authorization_object": [], "port_list_id": ["prl-1"]},
        {"authorization_object": "sg 1", "port_list_id": "../meta"},
        {"authorization_object": "no sense"},
        {"authorization_object": "sg-4"},
    )
    assert found == References(groups=frozenset({"sg-4"}))


def test_what_costs_more_than_the_limits_refers_to_nothing() -> None:
    """It is refused as a document, too."""
    rules = [{"authorization_object": f"10.0.0.{number}"} for number in range(3)]
    assert references({"authorization_object": "sg-2"}, *rules, limits=Limits(addresses=2)) == References()


@pytest.mark.parametrize("value", (b"", b"[]", b"\xff", b'{"rules":{}}', b'{"x":"\\ud800"}', b"[" * 100_000))
def test_a_key_that_holds_no_list_refers_to_nothing(value: bytes) -> None:
    """Whatever it holds instead."""
    item = KeyValue(key=LAYOUT.key("groups", "sg-1"), value=value)
    for kind in (GROUPS, INTERFACES):
        found = read_object(item, kind, Limits())
        assert found is None or found.references == References()


def test_an_interface_has_groups() -> None:
    """Those that can be read."""
    item = key({"network_interface_id": "eni-1", "security_group_ids": ["sg-1", 2, "sg-2", "", None]})
    found = read_object(item, INTERFACES, Limits())
    assert found is not None
    assert found.references == References(groups=frozenset({"sg-1", "sg-2"}))
