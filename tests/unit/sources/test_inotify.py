"""What the kernel tells of changes in a directory."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sgagent.sources.files.inotify import FileChange, FileEvent, Inotify, decode


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    """Give a descriptor without watches."""
    with closing(Inotify()) as opened:
        yield opened


def changes(inotify: Inotify, name: str = "web.yaml") -> list[FileChange]:
    """Return what was told of a name, repetitions left out."""
    told = [event.change for event in inotify.read() if event.name == name]
    return [change for n, change in enumerate(told) if n == 0 or told[n - 1] is not change]


def test_a_file_is_ready_when_it_was_closed(inotify: Inotify, tmp_path: Path) -> None:
    """Until then it may be half of what it will be."""
    inotify.add(tmp_path)
    with (tmp_path / "web.yaml").open("w") as file:
        file.write("version: 1\n")
        file.flush()
        assert changes(inotify) == [FileChange.UNSETTLED, FileChange.WRITTEN]
        (tmp_path / "web.yaml").chmod(0o600)
        assert changes(inotify) == [FileChange.ATTRIBUTES]
    assert changes(inotify) == [FileChange.CLOSED]
    with (tmp_path / "web.yaml").open("w"):
        assert changes(inotify) == [FileChange.WRITTEN]
    assert changes(inotify) == [FileChange.CLOSED]


def test_a_file_that_was_moved_in_is_whole(inotify: Inotify, tmp_path: Path) -> None:
    """A rename puts whole files in place."""
    (tmp_path / "draft").touch()
    inotify.add(tmp_path)
    (tmp_path / "draft").rename(tmp_path / "web.yaml")
    assert changes(inotify) == [FileChange.REPLACED]


@pytest.mark.parametrize("is_moved", (False, True))
def test_a_file_that_is_gone_may_come_back(inotify: Inotify, tmp_path: Path, *, is_moved: bool) -> None:
    """Editors move or remove a file before they write it anew."""
    (tmp_path / "web.yaml").touch()
    inotify.add(tmp_path)
    if is_moved:
        (tmp_path / "web.yaml").rename(tmp_path / "web.yaml~")
    else:
        (tmp_path / "web.yaml").unlink()
    assert changes(inotify) == [FileChange.UNSETTLED]


def test_reading_is_no_change(inotify: Inotify, tmp_path: Path) -> None:
    """Whoever wakes at changes and then reads is not woken by that."""
    (tmp_path / "web.yaml").touch()
    inotify.add(tmp_path)
    (tmp_path / "web.yaml").read_bytes()
    list(tmp_path.iterdir())
    assert inotify.read() == ()


def test_a_directory_that_is_gone_ends_its_watch(inotify: Inotify, tmp_path: Path) -> None:
    """The watch's number is told, and removing it again does no harm."""
    (tmp_path / "groups.d").mkdir()
    watch = inotify.add(tmp_path / "groups.d")
    (tmp_path / "groups.d").rmdir()
    assert {(event.watch, event.change) for event in inotify.read()} == {(watch, FileChange.WATCH_ENDED)}
    inotify.remove(watch)


def test_one_directory_has_one_watch(inotify: Inotify, tmp_path: Path) -> None:
    """Adding it again changes nothing."""
    assert inotify.add(tmp_path) == inotify.add(tmp_path)


def test_all_that_happened_is_read_at_once(inotify: Inotify, tmp_path: Path) -> None:
    """Nothing is left behind for a later reading, however much happened before it."""
    inotify.add(tmp_path)
    for number in range(1000):
        (tmp_path / f"{'x' * 200}{number}").touch()
    (tmp_path / "web.yaml").touch()
    assert inotify.read()[-1].name == "web.yaml"
    assert inotify.read() == ()


def test_a_removed_watch_is_silent(inotify: Inotify, tmp_path: Path) -> None:
    """But for the kernel's word that it ended."""
    inotify.remove(inotify.add(tmp_path))
    (tmp_path / "web.yaml").touch()
    assert {event.change for event in inotify.read()} == {FileChange.WATCH_ENDED}


def test_what_is_not_there_can_not_be_watched(inotify: Inotify, tmp_path: Path) -> None:
    """Nor can a file: only directories are."""
    with pytest.raises(FileNotFoundError):
        inotify.add(tmp_path / "later")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        inotify.add(tmp_path / "file")


def test_names_need_not_be_text(inotify: Inotify, tmp_path: Path) -> None:
    """A name that is not UTF-8 comes back as the file system's own functions give it."""
    name = os.fsdecode(b"web-\xff.yaml")
    inotify.add(tmp_path)
    (tmp_path / name).touch()
    assert {event.name for event in inotify.read()} == {name}


def test_lost_events_are_told() -> None:
    """An overflow has no watch and no name (inotify(7))."""
    lost = struct.pack("iIII", -1, 0x4000, 0, 0)
    ready = struct.pack("iIII", 1, 0x8, 0, 16) + b"web.yaml".ljust(16, b"\0")
    assert list(decode(ready + lost)) == [
        FileEvent(1, "web.yaml", FileChange.CLOSED),
        FileEvent(-1, "", FileChange.OVERFLOW),
    ]
