"""Changes are read once they are quiet, and files that are moved together are read together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from sgagent.sources.files.reader import DEBOUNCE_SECONDS, LONGEST_SECONDS, MISSING_SECONDS, Debounce
from tests.collected_files import CollectedFiles
from tests.fakes.clock import FakeClock

TRIES = 40


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still."""
    return FakeClock()


def test_without_changes_nobody_waits(clock: FakeClock) -> None:
    """A fetch that is due anyway reads at once."""
    assert Debounce(clock.monotonic).remaining() == 0


def test_a_change_is_read_after_a_moment(clock: FakeClock) -> None:
    """And forgotten then: the next one has all its time."""
    debounce = Debounce(clock.monotonic)
    for _ in range(2):
        debounce.note("web.yaml", DEBOUNCE_SECONDS)
        assert debounce.remaining() == pytest.approx(DEBOUNCE_SECONDS)
        clock.pass_seconds(DEBOUNCE_SECONDS)
        assert debounce.remaining() == 0


@pytest.mark.parametrize("name", ("web.yaml", "app.yaml"))
def test_each_further_change_puts_all_off(clock: FakeClock, name: str) -> None:
    """Of the same file or of another."""
    debounce = Debounce(clock.monotonic)
    for _ in range(4):
        debounce.note("web.yaml", DEBOUNCE_SECONDS)
        clock.pass_seconds(DEBOUNCE_SECONDS / 2)
        debounce.note(name, DEBOUNCE_SECONDS)
        assert debounce.remaining() == pytest.approx(DEBOUNCE_SECONDS)
        clock.pass_seconds(DEBOUNCE_SECONDS / 2)


def test_a_file_that_went_may_come_back(clock: FakeClock) -> None:
    """It is waited for; once it is there, it is as any other."""
    debounce = Debounce(clock.monotonic)
    debounce.note("web.yaml", MISSING_SECONDS)
    assert debounce.remaining() == pytest.approx(MISSING_SECONDS)
    debounce.note("web.yaml", DEBOUNCE_SECONDS)
    assert debounce.remaining() == pytest.approx(DEBOUNCE_SECONDS)


def test_changes_without_end_are_read_all_the_same(clock: FakeClock) -> None:
    """The first of them is put off for half a second at most."""
    debounce, waited = Debounce(clock.monotonic), 0.0
    debounce.note("web.yaml", DEBOUNCE_SECONDS)
    while debounce.remaining():
        clock.pass_seconds(DEBOUNCE_SECONDS / 2)
        waited += DEBOUNCE_SECONDS / 2
        debounce.note("web.yaml", DEBOUNCE_SECONDS)
    assert waited == pytest.approx(LONGEST_SECONDS, abs=DEBOUNCE_SECONDS)


def release(directory: Path, number: int) -> Iterator[tuple[Path, Path]]:
    """Write two documents of a release beside the others; yield what moves each into its place."""
    for name in ("a.yaml", "b.yaml"):
        draft = directory / f".{name}"
        draft.write_text(f"version: 1\nsecurity_groups:\n- security_group_id: sg-{name[0]}-{number}\n")
        yield draft, directory / name


def delivered(source: CollectedFiles) -> set[int]:
    """Return the releases that a fetch delivers groups of."""
    groups = source.fetch().snapshot.security_groups
    return {int(group.security_group_id.rpartition("-")[2]) for group in groups}


def test_files_that_are_moved_together_are_read_together(tmp_path: Path) -> None:
    """Whenever somebody reads, be it between the two: both, or neither."""
    random = Random(3)
    for draft, place in release(tmp_path, 0):
        draft.rename(place)
    source, tried = CollectedFiles(tmp_path), 0
    with source.watch(lambda: None):
        assert delivered(source) == {0}
        for number in range(1, TRIES):
            moves, times = list(release(tmp_path, number)), list[float]()

            def move(moves: list[tuple[Path, Path]] = moves, times: list[float] = times) -> None:
                for draft, place in moves:
                    times.append(time.monotonic())
                    os.rename(draft, place)  # noqa: PTH104 - the quickest way
                    times.append(time.monotonic())
                    threading.Event().wait(random.uniform(0.0, DEBOUNCE_SECONDS / 3))

            mover = threading.Thread(target=move)
            mover.start()
            threading.Event().wait(random.uniform(0.0, DEBOUNCE_SECONDS / 2))
            found = delivered(source)
            mover.join()
            if times[-1] - times[0] < DEBOUNCE_SECONDS / 2:  # else the machine had something else to do
                tried += 1
                assert len(found) == 1, found
            assert delivered(source) == {number}
    assert tried > 0
