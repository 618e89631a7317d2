"""What publishing writes."""

from __future__ import annotations

from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.sources.etcd.key_layout import KeyLayout, published_keys
from sgagent.sources.etcd.messages import DeleteKey, KeyValue, PutKey
from sgagent.sources.etcd.publication import (
    MOST_BYTES,
    MOST_WRITES,
    Completeness,
    Marker,
    Publication,
    Published,
    batches,
    plan_publication,
)

LAYOUT = KeyLayout("/sgagent")
NOBODY = Published(marker=None, marker_revision=0, revision=1, items=())


def groups(*names: str) -> Snapshot:
    """Return a snapshot of groups without rules."""
    lines = "".join(f"  - {{security_group_id: {name}}}\n" for name in names)
    text = f"version: 1\nsecurity_groups:\n{lines}" if names else "version: 1"
    return parse_documents([DocumentFile("x.yaml", text.encode())], Limits())[0]


def published(snapshot: Snapshot, publication: Publication, revision: int = 10) -> Published:
    """Return what a store holds after a publication."""
    items = published_keys(snapshot, LAYOUT).items()
    return Published(
        marker=publication.marker,
        marker_revision=revision,
        revision=revision + 1,
        items=tuple(KeyValue(key=key, value=value, mod_revision=revision) for key, value in items),
    )


def plan(before: Published, snapshot: Snapshot, at: float = 1000.0) -> Publication:
    """Return what has to be written."""
    return plan_publication(before, snapshot, LAYOUT, by="root@build", at=at)


def test_the_first_publication() -> None:
    """Everything is written; readers of a store without a marker have to read all."""
    made = plan(NOBODY, groups("sg-1", "sg-2"))
    assert [one.key for one in made.writes] == [LAYOUT.key("groups", "sg-1"), LAYOUT.key("groups", "sg-2")]
    assert (made.puts, made.deletions, made.begun, made.marker_revision) == (2, 0, None, 0)
    assert made.marker == Marker(
        state=Completeness.COMPLETE,
        serial=1000,
        version=groups("sg-1", "sg-2").version,
        published_by="root@build",
        published_at="1970-01-01T00:16:40Z",
        counts={"groups": 2, "interfaces": 0, "port-lists": 0, "prefix-lists": 0},
        changed=None,
    )


def test_only_what_changed_is_written() -> None:
    """What left is deleted, what stayed is left alone, and the marker names the rest."""
    first = groups("sg-1", "sg-2")
    made = plan(published(first, plan(NOBODY, first)), groups("sg-2", "sg-3"), at=2000.0)
    assert made.writes == (
        DeleteKey(LAYOUT.key("groups", "sg-1")),
        PutKey(
            LAYOUT.key("groups", "sg-3"), published_keys(groups("sg-3"), LAYOUT)[LAYOUT.key("groups", "sg-3")]
        ),
    )
    assert made.marker.changed == ("groups/sg-1", "groups/sg-3")
    assert (made.marker_revision, made.marker.serial) == (10, 2000)


def test_serials_grow_whatever_the_clock_says() -> None:
    """A clock that went back makes no publication older than the one before."""
    first = groups("sg-1")
    assert plan(published(first, plan(NOBODY, first)), groups(), at=5.0).marker.serial == 1001


def test_a_large_publication_says_what_still_counts() -> None:
    """Its first marker names the revision at which all was complete, and its last names no keys."""
    first = groups("sg-0")
    many = groups(*(f"sg-{number}" for number in range(MOST_WRITES + 2)))
    made = plan(published(first, plan(NOBODY, first)), many)
    assert made.begun is not None
    assert (made.begun.state, made.begun.complete_revision) == (Completeness.PUBLISHING, 11)
    assert (made.marker.state, made.marker.changed) == (Completeness.COMPLETE, None)


def test_who_takes_over_keeps_what_was_complete() -> None:
    """A publication that never ended leaves its revision to the next, which names no keys either."""
    first = groups("sg-0")
    begun = plan(NOBODY, groups(*(f"sg-{number}" for number in range(MOST_WRITES + 2)))).begun
    assert begun is not None
    assert begun.complete_revision == 0
    before = published(first, plan(NOBODY, first))
    stuck = Published(
        marker=Marker(
            state=Completeness.PUBLISHING,
            serial=7,
            version="v",
            published_by="x",
            published_at="y",
            complete_revision=5,
        ),
        marker_revision=20,
        revision=30,
        items=before.items,
    )
    small, large = plan(stuck, groups("sg-1")), plan(stuck, groups(*(f"sg-{n}" for n in range(200))))
    assert (small.begun, small.marker.changed) == (None, None)
    assert large.begun is not None
    assert large.begun.complete_revision == 5


def test_writes_are_cut_into_portions() -> None:
    """None holds too many, none too much, and together they are all, in order."""
    writes = [PutKey(f"/{number:04}", b"x" * (MOST_BYTES // 4)) for number in range(10)]
    writes += [PutKey(f"/{number:04}", b"") for number in range(10, 500)]
    portions = list(batches(writes))
    assert [write for portion in portions for write in portion] == writes
    assert all(len(portion) <= MOST_WRITES for portion in portions)
    sizes = [sum(len(write.value) for write in portion if isinstance(write, PutKey)) for portion in portions]
    assert max(sizes) <= MOST_BYTES
    assert list(batches([])) == []
