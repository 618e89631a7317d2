"""What is known of a store, and whether it makes sense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.errors import DocumentError
from sgagent.sources.etcd.grpc import StoreTooLargeError
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.messages import KeyEvent, KeyRange, KeyValue, weight
from sgagent.sources.etcd.publication import Completeness, Marker
from sgagent.sources.etcd.replica import LEAST_SEEN, Condition, Replica

LAYOUT = KeyLayout("/sgagent")
WEB, APP = LAYOUT.key("groups", "sg-web"), LAYOUT.key("groups", "sg-app")
MEMBERS = LAYOUT.all_of("members", "sg-web")
ONE = LAYOUT.key("members", "sg-web", "eni-1")
MARKER = Marker(
    state=Completeness.COMPLETE, serial=1, version="v", published_by="x", published_at="y", changed=()
)


def replica(most_bytes: int = 10_000_000) -> Replica:
    """Return what was published at revision 10, and read at 12."""
    known = Replica(
        LAYOUT, KeyValue(key=LAYOUT.meta, value=MARKER.encoded(), mod_revision=10), 12, most_bytes
    )
    known.add(KeyRange(WEB), [KeyValue(key=WEB, value=b"web", mod_revision=10)], 12)
    known.add(KeyRange(APP), [KeyValue(key=APP, value=b"app", mod_revision=9)], 12)
    known.add(MEMBERS, [KeyValue(key=ONE, value=b"one", mod_revision=11, lease=5)], 12)
    return known


def condition(known: Replica) -> Condition:
    """Return whether what is known can be taken."""
    return known.condition


def put(key: str, value: bytes, revision: int, lease: int = 0) -> KeyEvent:
    """Return that a key was written."""
    return KeyEvent(item=KeyValue(key=key, value=value, mod_revision=revision, lease=lease))


def deletion(key: str, revision: int) -> KeyEvent:
    """Return that a key was deleted."""
    return KeyEvent(item=KeyValue(key=key, mod_revision=revision), is_deletion=True)


def marker(
    revision: int, *changed: str, is_too_much: bool = False, state: Completeness = Completeness.COMPLETE
) -> KeyEvent:
    """Return that something was published."""
    named = None if is_too_much else tuple(LAYOUT.relative(key) for key in changed)
    return put(LAYOUT.meta, replace(MARKER, serial=revision, changed=named, state=state).encoded(), revision)


def test_what_was_read_is_settled() -> None:
    """At one revision everything makes sense."""
    assert condition(replica()) is Condition.SETTLED


@pytest.mark.parametrize("order", ((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)))
def test_all_of_a_publication_is_waited_for(order: tuple[int, ...]) -> None:
    """In whatever order the watches tell of its keys and its marker, it is settled with the last."""
    known = replica()
    events = (put(WEB, b"new", 20), deletion(APP, 20), marker(20, WEB, APP))
    for index in order[:-1]:
        known.note(events[index])
        assert condition(known) is Condition.AWAITING
    known.note(events[order[-1]])
    assert condition(known) is Condition.SETTLED
    assert known.values[WEB].value == b"new"
    assert APP not in known.values


def test_keys_that_are_not_followed_are_not_waited_for() -> None:
    """What concerns others settles at once."""
    known = replica()
    known.note(marker(20, LAYOUT.key("groups", "sg-other")))
    assert condition(known) is Condition.SETTLED
    assert known.marker.serial == 20


def test_two_publications_one_behind_the_other() -> None:
    """The second may be seen in part before the first is seen whole."""
    known = replica()
    for event in (put(WEB, b"1", 20), put(WEB, b"2", 21), marker(20, WEB, APP)):
        known.note(event)
        assert condition(known) is Condition.AWAITING
    known.note(put(APP, b"1", 20))
    assert condition(known) is Condition.AWAITING, "the second publication's marker is still to come"
    known.note(marker(21, WEB))
    assert condition(known) is Condition.SETTLED


def test_hosts_come_and_go_without_a_publication() -> None:
    """What is under a lease needs no marker, nor does its end."""
    known = replica()
    known.note(put(LAYOUT.key("members", "sg-web", "eni-2"), b"two", 30, lease=6))
    assert condition(known) is Condition.SETTLED
    known.note(deletion(ONE, 31))
    assert condition(known) is Condition.SETTLED
    assert ONE not in known.values


def test_what_nobody_published_is_waited_for() -> None:
    """A key that was written or deleted on its own may be half of something; whoever follows reads anew."""
    for event in (put(WEB, b"x", 20), deletion(WEB, 20)):
        known = replica()
        known.note(event)
        assert condition(known) is Condition.AWAITING


def test_a_large_publication() -> None:
    """While it is written nothing is taken; then all is read anew."""
    known = replica()
    known.note(marker(20, is_too_much=True, state=Completeness.PUBLISHING))
    assert condition(known) is Condition.PUBLISHING
    known.note(put(WEB, b"x", 21))
    assert condition(known) is Condition.PUBLISHING
    known.note(marker(22, is_too_much=True))
    assert condition(known) is Condition.STALE


def test_a_marker_that_is_deleted_or_none() -> None:
    """It is noticed, and is not taken for an empty publication."""
    known = replica()
    known.note(deletion(LAYOUT.meta, 20))
    assert condition(known) is Condition.GONE
    with pytest.raises(DocumentError, match="not a marker of a publication"):
        replica().note(put(LAYOUT.meta, b"x", 20))


def test_what_is_told_twice_changes_nothing() -> None:
    """After a connection is lost, the next one may tell again what was known."""
    known = replica()
    for event in (
        put(WEB, b"new", 20),
        marker(20, WEB),
        put(WEB, b"old", 10),
        marker(10, APP),
        deletion(APP, 8),
    ):
        known.note(event)
    assert condition(known) is Condition.SETTLED
    assert (known.values[WEB].value, known.values[APP].value) == (b"new", b"app")


def test_hosts_that_come_and_go_leave_nothing_behind() -> None:
    """However many did since the last publication: what all who watch them have told of can't come again."""
    known = replica()
    for number in range(3 * LEAST_SEEN):
        key, revision = LAYOUT.key("members", "sg-web", f"new-{number}"), 30 + 2 * number
        for event in (put(key, b"x", revision, lease=6), deletion(key, revision + 1)):
            known.note(event)
            known.note_progress(MEMBERS, event.item.mod_revision)
            known.settle()
    assert known.remembered <= LEAST_SEEN + 1
    assert set(known.values) == {WEB, APP, ONE}


def test_what_another_watch_may_tell_again_is_kept_in_mind() -> None:
    """A range within another is told of apart, and may be behind: it brings nobody back who has gone."""
    known = replica()
    known.add(narrow := LAYOUT.all_of("members", "sg-web", "eni"), [], 12)
    keys = [LAYOUT.key("members", "sg-web", "eni", str(number)) for number in range(2 * LEAST_SEEN)]
    for number, key in enumerate(keys):
        known.note(put(key, b"x", 30 + number, lease=6))
    for number, key in enumerate(keys):
        known.note(deletion(key, 30 + len(keys) + number))
    known.note_progress(MEMBERS, 30 + 2 * len(keys))
    known.settle()
    assert known.remembered == len(keys)
    known.note(put(keys[0], b"x", 30, lease=6))
    assert keys[0] not in known.values
    known.note_progress(narrow, 30 + 2 * len(keys))
    known.note(deletion(ONE, 40 + 2 * len(keys)))
    known.note_progress(MEMBERS, 40 + 2 * len(keys))
    for number in range(2 * len(keys)):
        known.note(put(LAYOUT.key("members", "sg-web", f"eni-{number}"), b"x", 10_000 + number, lease=6))
        known.note_progress(MEMBERS, 10_000 + number)
    known.settle()
    assert known.remembered == 0


@pytest.mark.parametrize(
    "followed", ([], [KeyRange(ONE)], [MEMBERS], [LAYOUT.all_of("members"), KeyRange(WEB)])
)
def test_a_key_is_followed_that_is_in_any_range(followed: list[KeyRange]) -> None:
    """Be it one itself, or somewhere below one."""
    marker_key = KeyValue(key=LAYOUT.meta, value=MARKER.encoded())
    known = Replica(LAYOUT, marker_key, 12, 10_000_000)
    for one in followed:
        known.add(one, [], 12)
    for key in (
        ONE,
        WEB,
        APP,
        f"{ONE}/deeper",
        f"{ONE}0",
        LAYOUT.key("members", "sg-app", "eni-1"),
        LAYOUT.root,
    ):
        assert known.covers(key) == any(key in one for one in followed), key
    assert known.covers(LAYOUT.meta)


def test_what_is_no_longer_followed_is_forgotten() -> None:
    """But for what another range holds too."""
    known = replica()
    known.add(KeyRange(ONE), [], 12)
    known.drop(MEMBERS)
    assert ONE in known.values
    known.drop(KeyRange(ONE))
    assert ONE not in known.values
    known.note(put(ONE, b"x", 40, lease=5))
    assert ONE not in known.values
    known.note_progress(MEMBERS, 50)
    assert MEMBERS not in known.known_until


def test_progress_only_goes_forward() -> None:
    """A watch that is made anew begins where the range was known."""
    known = replica()
    known.note_progress(MEMBERS, 20)
    known.note_progress(MEMBERS, 15)
    assert known.known_until[MEMBERS] == 20


def counted(known: Replica) -> int:
    """Return for how many bytes keys count that are known, and the marker."""
    marker_key = KeyValue(key=LAYOUT.meta, value=known.marker.encoded())
    return sum(map(weight, (marker_key, *known.values.values())))


def test_what_is_held_is_counted() -> None:
    """Whatever was read, added, written, written anew, deleted and dropped."""
    known = replica()
    assert known.room().taken_bytes == counted(known)
    known.add(KeyRange("/other"), [KeyValue(key="/other", value=b"else")], 12)
    known.add(KeyRange("/other"), [KeyValue(key="/other", value=b"again")], 12)
    known.note(put(WEB, b"longer than before", 20))
    known.note(put(LAYOUT.key("members", "sg-web", "eni-2"), b"two", 20))
    known.note(deletion(APP, 20))
    known.note(deletion(LAYOUT.key("members", "sg-web", "eni-3"), 20))
    known.note(marker(20, WEB, APP))
    assert len(known.values) == 4
    assert known.room().taken_bytes == counted(known)
    known.drop(MEMBERS)
    assert len(known.values) == 2
    assert known.room().taken_bytes == counted(known)


def test_all_that_is_held_has_a_bound() -> None:
    """Beyond it nothing is taken: no key that is read, none that a watch tells of, no marker."""
    most = counted(replica())
    replica(most)
    with pytest.raises(StoreTooLargeError):
        replica(most - 1)
    with pytest.raises(StoreTooLargeError):
        replica(most).add(KeyRange("/"), [KeyValue(key="/")], 12)
    with pytest.raises(StoreTooLargeError):
        replica(most).note(put(WEB, b"web!", 20))
    with pytest.raises(StoreTooLargeError):
        replica(most).note(marker(20, WEB))
    known = replica(most)
    known.note(deletion(APP, 20))
    known.note(put(WEB, b"web!", 20))
    assert known.values[WEB].value == b"web!"


@pytest.mark.parametrize("is_expected", (False, True))
def test_changes_that_nobody_can_keep_in_mind(is_expected: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Somebody publishes without end keys that he deletes again; all is read anew when that has ended."""
    known = replica(counted(replica()) + 1000)
    known.note(marker(20, state=Completeness.PUBLISHING))
    most = 0
    for revision in range(21, 121):
        key = LAYOUT.key("members", "sg-web", f"eni-{revision}")
        if is_expected:
            known.note(marker(2 * revision, key))
            known.note(marker(2 * revision + 1, state=Completeness.PUBLISHING))
        else:
            known.note(deletion(key, revision))
        most = max(most, known.remembered)
        assert condition(known) is Condition.PUBLISHING
    assert 5 < most < 20
    known.note(marker(1000))
    assert condition(known) is Condition.STALE


@pytest.mark.parametrize("is_told", (True, False))
def test_changes_that_are_known_need_not_be_kept_in_mind(is_told: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """However many publications there are, each of which is whole, with the next or once it was delivered."""
    known = replica(counted(replica()) + 1000)
    for revision in range(21, 121):
        key = LAYOUT.key("members", "sg-web", f"eni-{revision}") if is_told else WEB
        known.note(marker(revision, key))
        assert condition(known) is Condition.AWAITING
        known.note(deletion(key, revision) if is_told else put(key, b"web", revision))
        assert condition(known) is Condition.SETTLED
        if is_told:
            known.settle()
