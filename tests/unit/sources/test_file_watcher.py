"""Changes of real files are noticed, whatever way they are made in."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from sgagent.sources.files.inotify import Inotify
from sgagent.sources.files.reader import Debounce
from sgagent.sources.files.watcher import watch_path
from tests.collected_files import log_warning
from tests.patience import PATIENCE

pytestmark = pytest.mark.one_python

WITHIN_SECONDS = 2.0 * PATIENCE
"""The contract's bound on enforcing a changed file."""

NOT_WITHIN_SECONDS = 0.5 * PATIENCE
"""Longer than any change takes to settle."""

POLL_SECONDS = 0.1
"""Between looks, without inotify."""

TRIES = 50
"""To be quick enough, on a machine that may have something else to do."""


def no_inotify() -> NoReturn:
    """Fail as the kernel does when a user has too many descriptors."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture(params=(Inotify, no_inotify), ids=("inotify", "polling"))
def watching(request: pytest.FixtureRequest) -> Watching:
    """Watch paths, with inotify and without it."""
    return Watching(request.param)


class Watching:
    """Watch a path and keep whether it changed."""

    def __init__(self, open_inotify: Callable[[], Inotify]) -> None:
        """Keep where inotify comes from."""
        self.open_inotify = open_inotify
        self.changed = threading.Event()

    @contextlib.contextmanager
    def __call__(self, path: Path) -> Iterator[threading.Event]:
        """Watch a path, and give an event that is set at each change."""
        with (
            capture_logs(),
            watch_path(
                path,
                self.changed.set,
                Debounce(),
                log_warning,
                open_inotify=self.open_inotify,
                poll_seconds=POLL_SECONDS,
            ),
        ):
            yield self.changed


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory with one document in it."""
    made = tmp_path / "groups.d"
    made.mkdir()
    (made / "web.yaml").write_text("version: 1\n")
    return made


def rewrite(directory: Path) -> None:
    """Write the document in place."""
    (directory / "web.yaml").write_text("version: 1\nsecurity_groups: []\n")


def rename_over(directory: Path) -> None:
    """Write a new file and rename it over the document, as careful editors do."""
    (directory / ".web.yaml.new").write_text("version: 1\nsecurity_groups: []\n")
    (directory / ".web.yaml.new").rename(directory / "web.yaml")


def move_away_and_write(directory: Path) -> None:
    """Keep the old file as a back-up and write a new one, as other editors do."""
    (directory / "web.yaml").rename(directory / "web.yaml~")
    (directory / "web.yaml").write_text("version: 1\nsecurity_groups: []\n")


def remove(directory: Path) -> None:
    """Remove the document."""
    (directory / "web.yaml").unlink()


def link(directory: Path) -> None:
    """Put a symbolic link in the document's place."""
    (directory.parent / "elsewhere.yaml").write_text("version: 1\nsecurity_groups: []\n")
    (directory / "web.yaml").unlink()
    (directory / "web.yaml").symlink_to("../elsewhere.yaml")


CHANGES = (rewrite, rename_over, move_away_and_write, remove, link)


@pytest.mark.parametrize("watched", ("", "web.yaml"), ids=("directory", "file"))
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told(
    watching: Watching, directory: Path, change: Callable[[Path], None], watched: str
) -> None:
    """Whatever way a document of the directory, or the one document, changes, it is told in time."""
    with watching(directory / watched) as changed:
        change(directory)
        assert changed.wait(WITHIN_SECONDS)


def test_a_new_document_is_told(watching: Watching, directory: Path) -> None:
    """A second document in the directory counts."""
    with watching(directory) as changed:
        (directory / "app.json").write_text("{}")
        assert changed.wait(WITHIN_SECONDS)


def test_a_file_that_vanishes_and_comes_back_is_told_each_time(watching: Watching, directory: Path) -> None:
    """After the file is gone, its return is noticed, and so is a change after that."""
    with watching(directory / "web.yaml") as changed:
        for change in (remove, rewrite, rename_over):
            changed.clear()
            change(directory)
            assert changed.wait(WITHIN_SECONDS)


def test_directories_that_are_made_later_are_told(watching: Watching, tmp_path: Path) -> None:
    """A path may be given long before there is anything on the way to it."""
    directory = tmp_path / "etc" / "sgagent" / "groups.d"
    with watching(directory) as changed:
        directory.mkdir(parents=True)
        (directory / "web.yaml").write_text("version: 1\n")
        assert changed.wait(WITHIN_SECONDS)
        changed.clear()
        rewrite(directory)
        assert changed.wait(WITHIN_SECONDS)


def test_a_directory_that_is_replaced_is_told(watching: Watching, directory: Path) -> None:
    """Changes are noticed in the new directory, and no longer in the old one."""
    with watching(directory) as changed:
        old = directory.rename(directory.parent / "old")
        directory.mkdir()
        rewrite(directory)
        assert changed.wait(WITHIN_SECONDS)
        changed.clear()
        rename_over(directory)
        assert changed.wait(WITHIN_SECONDS)
        _until_quiet(changed)
        rewrite(old)
        assert not changed.wait(NOT_WITHIN_SECONDS)


def test_a_link_to_a_directory_that_is_swapped_is_told(watching: Watching, tmp_path: Path) -> None:
    """A release that is put in place by swapping a link counts at once, and so do changes in it."""
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "web.yaml").write_text(f"# {release}\nversion: 1\n")
    (tmp_path / "current").symlink_to("1")
    with watching(tmp_path / "current") as changed:
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").rename(tmp_path / "current")
        assert changed.wait(WITHIN_SECONDS)
        changed.clear()
        rewrite(tmp_path / "2")
        assert changed.wait(WITHIN_SECONDS)


def test_a_mounted_config_map_that_is_swapped_is_told(watching: Watching, tmp_path: Path) -> None:
    """Documents that are links through a hidden link, as Kubernetes mounts them, change with that link."""
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "web.yaml").write_text(f"# {version}\nversion: 1\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "web.yaml").symlink_to("..data/web.yaml")
    with watching(tmp_path) as changed:
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert changed.wait(WITHIN_SECONDS)


def test_a_document_behind_a_link_is_watched_where_it_lies(watching: Watching, tmp_path: Path) -> None:
    """A link in the directory leads to a file elsewhere that is changed in place."""
    (tmp_path / "groups.d").mkdir()
    (tmp_path / "elsewhere").mkdir()
    rewrite(tmp_path / "elsewhere")
    (tmp_path / "groups.d" / "web.yaml").symlink_to("../elsewhere/web.yaml")
    with watching(tmp_path / "groups.d") as changed:
        (tmp_path / "elsewhere" / "web.yaml").write_text("version: 1\n")
        assert changed.wait(WITHIN_SECONDS)


def test_what_a_new_link_leads_to_is_told_though_it_changed_at_once(directory: Path) -> None:
    """It may lie in a directory that is watched already, under a name that was none of ours before."""
    (directory / ".first").write_text("version: 1\n")
    (directory / ".second").write_text("version: 1\nsecurity_groups: []\n")
    (directory / ".link").symlink_to(".first")
    told, told_again = threading.Event(), threading.Event()

    def wake() -> None:
        if told.is_set():
            told_again.set()
        else:
            (directory / ".second").rename(directory / ".first")
            told.set()

    with watch_path(directory, wake, Debounce(), log_warning):
        (directory / ".link").rename(directory / "web.yaml")
        assert told_again.wait(WITHIN_SECONDS)


def test_what_is_no_document_is_not_told(watching: Watching, directory: Path) -> None:
    """Swap files, back-ups and notes beside the documents wake nobody, and nor does reading."""
    with watching(directory) as changed:
        for name in (".web.yaml.swp", "web.yaml~", "#web.yaml#", "README"):
            (directory / name).write_text("x")
        (directory / "web.yaml").read_text()
        (directory.parent / "unrelated.yaml").write_text("x")
        assert not changed.wait(NOT_WITHIN_SECONDS)


def test_a_file_is_not_told_while_it_is_being_written(watching: Watching, directory: Path) -> None:
    """What is written in two halves is told once the second is there.

    Unless the second takes so long that the file looked the same twice.
    """
    with watching(directory) as changed, (directory / "web.yaml").open("w") as file:
        began = time.monotonic()
        file.write("version: 1\nsecurity")
        file.flush()
        assert not changed.wait(POLL_SECONDS / 2) or time.monotonic() - began >= POLL_SECONDS
        changed.clear()
        file.write("_groups: []\n")
        file.close()
        assert changed.wait(WITHIN_SECONDS)


def test_a_file_that_is_closed_at_last_is_told(watching: Watching, directory: Path) -> None:
    """What wakes nobody while it is written does so when its writer closes it."""
    with watching(directory) as changed:
        with (directory / "web.yaml").open("a") as file:
            file.write("security_groups: []\n")
            file.flush()
        assert changed.wait(WITHIN_SECONDS)


def test_a_watch_that_ended_tells_nothing(watching: Watching, directory: Path) -> None:
    """Leaving the context ends the thread, and with it all that was opened."""
    descriptors = set(os.listdir("/proc/self/fd"))  # noqa: PTH208  a listing of names, compared as such
    with watching(directory) as changed:
        pass
    rewrite(directory)
    assert not changed.wait(0.1)
    assert "documents" not in {thread.name for thread in threading.enumerate()}
    assert set(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208  as above; others may close theirs


def test_the_log_says_that_files_are_only_looked_at(directory: Path) -> None:
    """An operator can see why a change takes a moment, and what to raise."""
    with (
        capture_logs() as logged,
        watch_path(directory, lambda: None, Debounce(), log_warning, open_inotify=no_inotify),
    ):
        pass
    assert [(entry["event"], entry["log_level"]) for entry in logged] == [("file_watch_degraded", "warning")]
    assert "Too many open files" in logged[0]["reason"]


def _until_quiet(changed: threading.Event) -> None:
    """Wait until the changes that were made so far have woken somebody."""
    while changed.wait(NOT_WITHIN_SECONDS):
        changed.clear()
