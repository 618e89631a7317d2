"""Members of groups, each in a key of its own."""

from __future__ import annotations

import pytest

from sgagent.core.errors import Problem
from sgagent.sources.etcd.documents import Composer
from sgagent.sources.etcd.key_layout import MEMBERS, MOST_ANNOUNCED, KeyIndex, KeyLayout, read_member
from sgagent.sources.etcd.messages import KeyValue

LAYOUT = KeyLayout("/sgagent")


def member(group: str, name: str, value: bytes, *, revision: int = 1, lease: int = 0) -> KeyValue:
    """Return a member's key."""
    key = LAYOUT.key("members", group, name)
    return KeyValue(key=key, value=value, mod_revision=revision, lease=lease)


def read(index: KeyIndex, *items: KeyValue) -> dict[str, list[object]]:
    """Return the addresses of the members among all keys, by group."""
    folders = index.sort({item.key: item for item in items})
    return {
        name[-1]: [one.content for one in folder] for name, folder in folders.items() if name[0] == MEMBERS
    }


def problems_of(*items: KeyValue) -> tuple[Problem, ...]:
    """Return the warnings about members."""
    folders = KeyIndex(LAYOUT).sort({item.key: item for item in items})
    return Composer(LAYOUT).compose(folders, lambda _: True).problems


def test_members_are_told_by_group() -> None:
    """One interface may be in several groups, with other addresses in each."""
    found = read(
        KeyIndex(LAYOUT),
        member("sg-1", "eni-2", b'{"addresses":[]}'),
        member("sg-2", "eni-1", b'{"addresses":["10.0.0.2"]}'),
        member("sg-1", "eni-1", b'{"addresses":["10.0.0.1","2001:db8::/64"]}'),
        KeyValue(key=LAYOUT.key("groups", "sg-1"), value=b"{}"),
    )
    assert found == {"sg-1": [("10.0.0.1", "2001:db8::/64"), ()], "sg-2": [("10.0.0.2",)]}


def test_what_is_written_anew_is_read_anew() -> None:
    """And what was not is not."""
    index = KeyIndex(LAYOUT)
    other = member("sg-2", "eni-1", b'{"addresses":["10.0.0.9"]}')
    known: list[object] = []
    for revision, address in ((1, "10.0.0.1"), (2, "10.0.0.2")):
        value = b'{"addresses":["%b"]}' % address.encode()
        written = member("sg-1", "eni-1", value, revision=revision)
        found = read(index, written, other)
        assert found["sg-1"] == [(address,)]
        known.append(found["sg-2"][0])
    assert known[0] is known[1]


def test_groups_without_members_are_forgotten() -> None:
    """However many hosts come and go, those are kept in mind that are there."""
    index = KeyIndex(LAYOUT)
    read(index, member("sg-1", "eni-1", b'{"addresses":["10.0.0.1"]}'))
    assert read(index, member("sg-2", "eni-1", b'{"addresses":["10.0.0.1"]}')).keys() == {"sg-2"}


@pytest.mark.parametrize("name", ("members/sg-1", "members/sg-1/eni-1/eth0"))
def test_a_key_that_names_no_member_is_left_out(name: str) -> None:
    """A member has a group and a name of its own."""
    item = KeyValue(key=LAYOUT.key(name), value=b'{"addresses":["10.0.0.1"]}')
    assert list(read(KeyIndex(LAYOUT), item).values()) == [[None]]
    assert [problem.code for problem in problems_of(item)] == ["not_a_member"]


@pytest.mark.parametrize(
    "value",
    (
        b"",
        b"10.0.0.1",
        b'["10.0.0.1"]',
        b'{"addresses":"10.0.0.1"}',
        b'{"addresses":[1]}',
        b'{"addresses":["10.0.0.1/24"]}',
        b'{"addresses":["fe80::1%eth0"]}',
        b'{"addresses":["::ffff:10.0.0.1"]}',
        b'{"addresses":["10.0.0.1"],"security_group_ids":["sg-admin"]}',
        b"[" * 100_000,
    ),
)
def test_one_that_cannot_be_read_is_left_out(value: bytes) -> None:
    """It is told, and all others count: whoever may write one key can't hold up a policy."""
    good = member("sg-1", "b", b'{"addresses":["10.0.0.9"]}')
    bad = member("sg-1", "a", value)
    assert read(KeyIndex(LAYOUT), bad, good)["sg-1"] == [None, ("10.0.0.9",)]
    (problem,) = problems_of(bad, good)
    assert problem.code == "not_a_member"
    assert str(problem).startswith("warning: etcd:/sgagent/v1/members/sg-1/a: ")


def test_a_host_announces_single_addresses() -> None:
    """It can't make members of whole networks, or of very many addresses, as publishing can."""
    network, many = (
        b'{"addresses":["10.0.0.0/8"]}',
        b'{"addresses":[%b]}' % b",".join([b'"10.0.0.1"'] * (MOST_ANNOUNCED + 1)),
    )
    for value in (network, many):
        assert read_member(value, is_announced=True) is None
        assert read_member(value, is_announced=False) is not None
