"""The marker of a publication."""

from __future__ import annotations

import pytest

from sgagent.core.errors import DocumentError
from sgagent.sources.etcd.messages import KeyValue
from sgagent.sources.etcd.publication import Completeness, Marker, read_marker

KEY = "/sgagent/v1/meta"
MARKER = Marker(
    state=Completeness.PUBLISHING,
    serial=7,
    version="sha256:0123456789ab",
    published_by="root@build-1",
    published_at="2026-01-31T12:00:00Z",
    counts={"groups": 2, "interfaces": 0},
    changed=("groups/sg-1",),
    complete_revision=12,
)


def read(value: bytes) -> Marker:
    """Return what a value says in the marker's key."""
    return read_marker(KeyValue(key=KEY, value=value))


def test_it_comes_back() -> None:
    """What is written is read."""
    assert read(MARKER.encoded()) == MARKER


def test_nothing_changed_is_not_too_much_to_be_told() -> None:
    """An empty list of keys and none at all are told apart."""
    for changed in ((), None):
        marker = Marker(
            state=Completeness.COMPLETE,
            serial=1,
            version="v",
            published_by="x",
            published_at="y",
            changed=changed,
        )
        assert read(marker.encoded()).changed == changed


@pytest.mark.parametrize(
    "value",
    (
        b"",
        b"complete",
        b"[]",
        b"{}",
        b'{"format":1}',
        MARKER.encoded().replace(b'"format":1', b'"format":2'),
        MARKER.encoded().replace(b'"publishing"', b'"done"'),
        MARKER.encoded().replace(b'"groups":2', b'"groups":"many"'),
        b"[" * 100_000,
    ),
)
def test_what_is_none_is_refused(value: bytes) -> None:
    """So is one of a later version."""
    with pytest.raises(DocumentError) as caught:
        read(value)
    (problem,) = caught.value.problems
    assert (problem.code, problem.origin.file) == ("keyspace_lost", f"etcd:{KEY}")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    (
        (b'"serial":7', b'"serial":"7"', "serial: expected a whole number"),
        (b'"serial":7', b'"serial":true', "serial: expected a whole number"),
        (b'"groups":2', b'"groups":2.5', "counts.groups: expected a whole number"),
        (b'["groups/sg-1"]', b'"groups/sg-1"', "changed: expected a list"),
        (b'["groups/sg-1"]', b"[7]", "changed[0]: expected a text"),
        (b'"publishing"', b'"done"', "state: expected one of complete, publishing"),
        (b'"format":1', b'"format":2', "unknown format 2, where 1 is expected"),
    ),
)
def test_the_wrong_field_is_named(before: bytes, after: bytes, reason: str) -> None:
    """Nothing else stands for a number."""
    with pytest.raises(DocumentError) as caught:
        read(MARKER.encoded().replace(before, after))
    assert caught.value.problems[0].message == f"not a marker of a publication: {reason}"
