"""The source of files as the agent has it: another process reads, and may hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import sgagent
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.documents import Limits
from sgagent.ports import Delivery
from sgagent.sources.files.background import Patience
from sgagent.sources.files.source import FileSource
from tests.contract.source import APP, BROKEN, WEB
from tests.waiting import wait_until

PATIENT = Patience(first=60.0, asked=60.0, reading=60.0, process=60.0)


@dataclass
class Watched:
    """A source that is watched, and how often it woke its watch."""

    path: Path
    source: FileSource
    wakes: list[None] = field(default_factory=list)

    def write(self, text: str, name: str = "policy.yaml") -> None:
        """Write a document beside its place, and rename it into it."""
        draft = self.path / f".{name}"
        draft.write_text(text)
        draft.rename(self.path / name)

    def groups(self) -> list[str]:
        """Return the ids of the groups that a fetch delivers."""
        return [group.security_group_id for group in self.source.fetch().snapshot.security_groups]

    def settled(self) -> Delivery:
        """Return what is delivered, once the process reads: it takes a moment to start."""
        found: list[Delivery] = []

        def is_delivered() -> bool:
            with suppress(SourceUnavailableError):
                found.append(self.source.fetch())
            return bool(found)

        wait_until(is_delivered, "the first delivery")
        return found[0]

    def wait_for(self, *groups: str) -> None:
        """Wait until a fetch after a wake delivers these groups."""

        def are_delivered() -> bool:
            with suppress(DocumentError, SourceUnavailableError):
                return bool(self.wakes) and self.groups() == list(groups)
            return False

        wait_until(are_delivered, f"the groups {groups}")


@pytest.fixture
def watched(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Watch a directory with one document; the parameter is the patience."""
    directory = tmp_path / "groups.d"
    directory.mkdir()
    patience = getattr(request, "param", PATIENT)
    made = Watched(directory, FileSource(directory, Limits(), patience=patience))
    made.write(WEB)
    with made.source.watch(lambda: made.wakes.append(None)):
        yield made


def readers() -> list[int]:
    """Return the processes that read for this one, also those that were killed and have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            if name == "sgagent-reader" and int(rest.split()[1]) == os.getpid() and rest.split()[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def reader() -> int:
    """Wait for the one process that reads, and return it."""
    wait_until(lambda: len(readers()) == 1, "one reader")
    return readers()[0]


def test_the_first_fetch_delivers(watched: Watched) -> None:
    """It waits for the process."""
    assert watched.groups() == ["sg-web"]


def test_changes_wake_and_are_delivered(watched: Watched) -> None:
    """As a whole, errors and their end included; what did not change is the same object."""
    first = watched.source.fetch()
    assert watched.source.fetch() is first
    watched.write(APP, "second.yaml")
    watched.wait_for("sg-app", "sg-web")
    assert watched.source.fetch().documents[0].content is first.documents[0].content
    watched.write(BROKEN, "second.yaml")
    wait_until(lambda: is_refused(watched), "the errors")
    (watched.path / "second.yaml").unlink()
    watched.wait_for("sg-web")


def is_refused(watched: Watched) -> bool:
    """Tell whether a fetch raises errors of form."""
    try:
        watched.source.fetch()
    except DocumentError:
        return True
    return False


def test_who_asks_for_it_gets_what_stands_there_now(watched: Watched) -> None:
    """Also a document that its writer has not closed."""
    watched.source.fetch()
    with (watched.path / "open.yaml").open("w") as opened:
        opened.write(APP)
        opened.flush()
        watched.source.refresh()
        assert watched.groups() == ["sg-app", "sg-web"]


def test_a_directory_without_documents_is_unavailable(watched: Watched) -> None:
    """And is not, once there is one."""
    watched.source.fetch()
    (watched.path / "policy.yaml").unlink()
    watched.source.refresh()
    with pytest.raises(SourceUnavailableError, match="holds no document"):
        watched.source.fetch()
    watched.write(APP)
    watched.wait_for("sg-app")


def test_a_process_that_ends_is_replaced(watched: Watched) -> None:
    """The log says so, and changes are followed again."""
    watched.source.fetch()
    with capture_logs() as logged:
        os.kill(reader(), signal.SIGKILL)
        watched.write(APP)
        watched.wait_for("sg-app")
    assert "reader_ended" in [line["event"] for line in logged]


HASTY = Patience(first=60.0, asked=0.2, reading=0.4, process=3600.0)
RETRYING = Patience(first=60.0, asked=0.2, reading=0.2, process=0.5)


@pytest.mark.parametrize("watched", (HASTY,), indirect=True)
def test_a_reading_that_hangs_makes_the_source_unavailable(watched: Watched) -> None:
    """Who asks waits a moment; the watch is woken when the time is up, and again when the process goes on."""
    delivered = watched.settled()
    hung, before = reader(), len(watched.wakes)
    os.kill(hung, signal.SIGSTOP)
    watched.source.refresh()
    with pytest.raises(SourceUnavailableError, match=r"longer than 0.[24] seconds: does a file"):
        watched.source.fetch()
    with pytest.raises(SourceUnavailableError, match=r"longer than 0.[24] seconds"):
        watched.source.fetch()  # without waiting: what is known is older than what was asked for
    wait_until(lambda: len(watched.wakes) > before, "the end of patience")
    for _ in range(3):  # without waiting
        watched.source.refresh()
        with pytest.raises(SourceUnavailableError, match=r"longer than 0.4 seconds"):
            watched.source.fetch()
    before = len(watched.wakes)
    os.kill(hung, signal.SIGCONT)
    wait_until(lambda: len(watched.wakes) > before, "the answer")
    assert watched.source.fetch().snapshot == delivered.snapshot
    assert readers() == [hung]


@pytest.mark.parametrize("watched", (RETRYING,), indirect=True)
def test_another_process_tries_where_one_hangs(watched: Watched) -> None:
    """Its file system may be another one by then; the one that hung is killed."""
    watched.settled()
    wait_until(lambda: len(readers()) == 1, "one reader")
    hung = reader()
    os.kill(hung, signal.SIGSTOP)
    watched.write(APP)
    watched.source.refresh()
    with suppress(SourceUnavailableError):
        watched.source.fetch()
    watched.wait_for("sg-app")
    wait_until(lambda: hung not in readers(), "the end of the one that hung")


def test_the_end_of_a_watch_ends_the_process(tmp_path: Path) -> None:
    """Also of one that stands still."""
    source = FileSource(tmp_path, Limits(), patience=PATIENT)
    (tmp_path / "policy.yaml").write_text(WEB)
    for is_stopped in (False, True):
        with source.watch(lambda: None):
            source.fetch()
            if is_stopped:
                os.kill(reader(), signal.SIGSTOP)
        wait_until(lambda: readers() == [], "the reader to end")


def test_a_delivery_is_the_same_for_both(watched: Watched) -> None:
    """Whether this process reads or the other."""
    alone: Delivery = FileSource(watched.path, Limits()).fetch()
    assert watched.source.fetch() == alone


def test_the_process_starts_with_the_standard_library_alone() -> None:
    """It is started with every agent, and again beside one that hangs: what it imports is waited for."""
    program = (
        f"import sys; sys.path.append({str(Path(sgagent.__file__).parent.parent)!r});"
        " import sgagent.sources.files.isolated_reader, sgagent.sources.files.watcher;"
        " print({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run(  # noqa: S603 - this interpreter and package
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert literal_eval(done.stdout) == {"__main__", "__mp_main__", "sgagent"}
