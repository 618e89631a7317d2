"""The history of what was enforced: its order, its bounds, and files that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.agent.state.directory import (
    MOST_ENTRIES,
    History,
    KeptDocuments,
    Record,
    StateDirectory,
    Trigger,
)
from sgagent.documents import DocumentFile
from tests.crashes import crashes_at


def kept(version: str, size: int = 10, record: Record | None = None) -> KeptDocuments:
    """Return documents of a version and a size."""
    return KeptDocuments(
        version=version, documents=(DocumentFile("a.yaml", b"#" * size),), record=record or Record()
    )


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Return a history that has nothing yet."""
    return History(tmp_path / "history")


def test_the_newest_comes_first(history: History) -> None:
    """Numbers go up, and nothing is there before something was kept."""
    assert list(history.entries()) == []
    assert [history.keep(kept(version)) for version in "abc"] == [1, 2, 3]
    assert [(entry.number, entry.head and entry.head.version) for entry in history.entries()] == [
        (3, "c"),
        (2, "b"),
        (1, "a"),
    ]
    assert history.read(2).version == "b"


def test_what_is_in_force_already_gets_no_second_number(history: History) -> None:
    """When it was enforced first stays; who wished it, and links, are those of now."""
    history.keep(kept("a", record=Record(enforced_at=5.0)))
    history.keep(kept("a", record=Record(enforced_at=9.0, origin=Trigger.ROLLBACK)))
    (entry,) = history.entries()
    assert entry.head is not None
    assert (entry.number, entry.head.record.enforced_at) == (1, 5.0)
    assert entry.head.record.origin is Trigger.ROLLBACK
    history.keep(kept("b"))
    assert history.keep(kept("a")) == 3


def test_the_oldest_give_way(history: History) -> None:
    """There are at most ten; numbers are never used again."""
    for number in range(MOST_ENTRIES + 3):
        history.keep(kept(f"v{number}"))
    assert history.numbers() == tuple(range(4, MOST_ENTRIES + 4))


def test_large_ones_give_way_sooner(tmp_path: Path) -> None:
    """The two newest stay, however large they are."""
    history = History(tmp_path, most_bytes=3000)
    for version in "abcd":
        history.keep(kept(version, size=1000))
    assert history.numbers() == (3, 4)
    history.keep(kept("e", size=5000))
    history.keep(kept("f", size=5000))
    assert history.numbers() == (5, 6)


def test_a_damaged_file_is_named_and_its_number_is_not_used_again(history: History) -> None:
    """The ones beside it are read."""
    for version in "ab":
        history.keep(kept(version))
    history.path(2).write_bytes(history.path(2).read_bytes()[:-5])
    damaged, whole = history.entries()
    assert damaged.head is None
    assert str(history.path(2)) in (damaged.fault or "")
    assert whole.head is not None
    assert history.keep(kept("b")) == 3


def test_files_that_are_none_of_ours_are_left_alone(history: History, tmp_path: Path) -> None:
    """Drafts of an agent that died, and whatever somebody put there."""
    history.keep(kept("a"))
    for name in (".00000002.json.new", "2.json", "notes"):
        (tmp_path / "history" / name).write_text("x")
    assert history.numbers() == (1,)
    (tmp_path / "other").write_text("no directory")
    assert History(tmp_path / "other").numbers() == ()


def test_keeping_may_be_interrupted_anywhere(tmp_path: Path) -> None:
    """The old version or the new one is found, whole."""
    for death in range(20):
        state = StateDirectory(tmp_path / str(death))
        state.keep(kept("a"))

        def keep(state: StateDirectory = state) -> None:
            state.keep(kept("b"))

        died = crashes_at(tmp_path / str(death), death, keep)
        found, faults = state.load()
        assert faults == ()
        assert found in (kept("a"), kept("b"))
        if not died:
            assert found == kept("b")
            return
    pytest.fail("it never came to an end")


def test_the_newest_that_is_whole_is_used(tmp_path: Path) -> None:
    """Those that are not are named, one after the other."""
    state = StateDirectory(tmp_path)
    for version in "abc":
        state.keep(kept(version))
    for number in (3, 2):
        state.history.path(number).write_bytes(b"")
    found, faults = state.load()
    assert found == kept("a")
    assert [
        str(state.history.path(number)) in fault for number, fault in zip((3, 2), faults, strict=True)
    ] == [True, True]
