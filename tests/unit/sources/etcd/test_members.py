"""Members of groups, each in a key of its own."""

from __future__ import annotations

import pytest

from sgagent.sources.etcd.documents import MOST_ANNOUNCED, MemberReader, Members, read_member
from sgagent.sources.etcd.keys import Folders, KeyLayout
from sgagent.sources.etcd.messages import KeyValue

LAYOUT = KeyLayout("/sgagent")


def member(group: str, name: str, value: bytes, *, revision: int = 1, lease: int = 0) -> KeyValue:
    """Return a member's key."""
    key = LAYOUT.key("members", group, name)
    return KeyValue(key=key, value=value, mod_revision=revision, lease=lease)


def read(reader: MemberReader, *items: KeyValue) -> dict[str, Members]:
    """Return the members among all keys, by group."""
    return dict(reader.read(Folders(LAYOUT).sort({item.key: item for item in items})))


def test_members_are_told_by_group() -> None:
    """One interface may be in several groups, with other addresses in each."""
    found = read(
        MemberReader(LAYOUT),
        member("sg-1", "eni-2", b'{"addresses":[]}'),
        member("sg-2", "eni-1", b'{"addresses":["10.0.0.2"]}'),
        member("sg-1", "eni-1", b'{"addresses":["10.0.0.1","2001:db8::/64"]}'),
        KeyValue(key=LAYOUT.key("groups", "sg-1"), value=b"{}"),
    )
    addresses = {group: members.addresses for group, members in found.items()}
    assert addresses == {"sg-1": ("10.0.0.1", "2001:db8::/64"), "sg-2": ("10.0.0.2",)}
    assert [members.problems for members in found.values()] == [(), ()]


def test_what_is_written_anew_is_read_anew() -> None:
    """And what was not is not."""
    reader, folders = MemberReader(LAYOUT), Folders(LAYOUT)
    other = member("sg-2", "eni-1", b'{"addresses":["10.0.0.9"]}')
    known: list[Members] = []
    for revision, address in ((1, "10.0.0.1"), (2, "10.0.0.2")):
        value = b'{"addresses":["%b"]}' % address.encode()
        written = member("sg-1", "eni-1", value, revision=revision)
        found = reader.read(folders.sort({item.key: item for item in (written, other)}))
        assert found["sg-1"].addresses == (address,)
        known.append(found["sg-2"])
    assert known[0] is known[1]


def test_groups_without_members_are_forgotten() -> None:
    """However many hosts come and go, those are kept in mind that are there."""
    reader = MemberReader(LAYOUT)
    read(reader, member("sg-1", "eni-1", b'{"addresses":["10.0.0.1"]}'))
    assert read(reader, member("sg-2", "eni-1", b'{"addresses":["10.0.0.1"]}')).keys() == {"sg-2"}


@pytest.mark.parametrize("name", ("members/sg-1", "members/sg-1/eni-1/eth0"))
def test_a_key_that_names_no_member_is_left_out(name: str) -> None:
    """A member has a group and a name of its own."""
    item = KeyValue(key=LAYOUT.key(name), value=b'{"addresses":["10.0.0.1"]}')
    (found,) = read(MemberReader(LAYOUT), item).values()
    assert found.addresses == ()
    assert [problem.code for problem in found.problems] == ["not_a_member"]


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
    found = read(MemberReader(LAYOUT), member("sg-1", "a", value), good)["sg-1"]
    assert found.addresses == ("10.0.0.9",)
    (problem,) = found.problems
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
