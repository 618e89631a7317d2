"""Half of what somebody writes in place is not taken: until the writer closes the file, or for a minute."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sgagent.core.errors import SourceUnavailableError
from sgagent.sources.files.inotify import FileChange
from sgagent.sources.files.reader import LONGEST_OPEN_SECONDS, Writers
from tests.collected_files import CollectedFiles, log_warning
from tests.fakes.clock import FakeClock
from tests.waiting import wait_until

pytestmark = pytest.mark.one_python

WHOLE = "version: 1\nsecurity_groups:\n- security_group_id: sg-1\n- security_group_id: sg-2\n"
HALF = WHOLE.rpartition("- ")[0]
OTHER = "version: 1\nsecurity_groups:\n- security_group_id: sg-other\n"
WEB = Path("/etc/sgagent/groups.d/web.yaml")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Give a document that was written long ago."""
    made = tmp_path / "groups.d" / "web.yaml"
    made.parent.mkdir()
    made.write_text(WHOLE)
    return made


class Followed:
    """Files that are watched, and how often that called."""

    def __init__(self, path: Path) -> None:
        """Take the path of the documents."""
        self.source = CollectedFiles(path)
        self.calls = 0
        self._changed = threading.Event()

    def called(self) -> None:
        """Take in a call of the watch."""
        self.calls += 1
        self._changed.set()

    def groups(self) -> list[str]:
        """Return the groups that the first fetch delivers that can be done."""
        delivered: list[str] = []

        def fetch() -> bool:
            with contextlib.suppress(SourceUnavailableError):
                snapshot = self.source.fetch().snapshot
                delivered[:] = sorted(group.security_group_id for group in snapshot.security_groups)
            return bool(delivered)

        wait_until(fetch, "a fetch to deliver something")
        return delivered


@contextlib.contextmanager
def followed(path: Path) -> Iterator[Followed]:
    """Follow documents, which were read once."""
    made = Followed(path)
    with made.source.watch(made.called):
        yield made


@pytest.mark.parametrize("is_directory", (True, False), ids=("directory", "file"))
def test_half_of_a_document_is_not_taken(document: Path, *, is_directory: bool) -> None:
    """However long its writer pauses: what it held before counts, until it is closed."""
    with followed(document.parent if is_directory else document) as agent:
        assert agent.groups() == ["sg-1", "sg-2"]
        with document.open("w") as writer:
            assert agent.groups() == ["sg-1", "sg-2"]
            writer.write(HALF)
            writer.flush()
            assert agent.groups() == ["sg-1", "sg-2"]
        wait_until(lambda: agent.groups() == ["sg-1"], "what was closed to be taken")


def test_other_documents_do_not_wait_for_a_slow_writer(document: Path) -> None:
    """What is moved into place beside it counts; what is new and half written is not there yet."""
    with followed(document.parent) as agent:
        agent.groups()
        with document.open("w") as slow, (document.parent / "new.yaml").open("w") as new:
            slow.write(HALF)
            slow.flush()
            new.write(OTHER.replace("sg-other", "sg-new"))
            new.flush()
            draft = document.parent / ".other.yaml"
            draft.write_text(OTHER)
            draft.rename(document.parent / "other.yaml")
            wait_until(lambda: agent.groups() == ["sg-1", "sg-2", "sg-other"], "the other document")
        wait_until(lambda: agent.groups() == ["sg-1", "sg-new", "sg-other"], "what was closed")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look at everything")
def test_documents_that_can_not_be_looked_at_are_unavailable(document: Path) -> None:
    """Also while one is being written; the agent takes that for a fault of the source."""
    (document.parent / "other.yaml").write_text(OTHER)
    with followed(document.parent) as agent:
        agent.groups()
        with document.open("w") as writer:
            writer.write(HALF)
            writer.flush()
            document.parent.chmod(0o400)
            try:
                with pytest.raises(SourceUnavailableError, match="permission denied"):
                    agent.source.fetch()
            finally:
                document.parent.chmod(0o700)


def test_a_document_behind_a_link_is_known_by_where_it_lies(tmp_path: Path, document: Path) -> None:
    """A writer writes to the file, whatever the document is called."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    target = document.rename(place / "data")
    document.symlink_to(target)
    with followed(document.parent) as agent:
        agent.groups()
        with target.open("w") as writer:
            writer.write(HALF)
            writer.flush()
            assert agent.groups() == ["sg-1", "sg-2"]
        wait_until(lambda: agent.groups() == ["sg-1"], "what was closed to be taken")


def test_a_file_that_is_moved_over_one_that_is_being_written_counts(document: Path) -> None:
    """The writer writes to a file that has no name any more."""
    with followed(document.parent) as agent:
        agent.groups()
        with document.open("w") as writer:
            writer.write(HALF)
            writer.flush()
            draft = document.with_name(".draft")
            draft.write_text(OTHER)
            draft.rename(document)
            wait_until(lambda: agent.groups() == ["sg-other"], "the file that was moved there")


def test_whoever_asks_gets_what_is_there(document: Path) -> None:
    """SIGHUP says that it is whole; the next fetch knows that as well, and no more than that."""
    with followed(document.parent) as agent:
        agent.groups()
        with document.open("w") as writer:
            writer.write(OTHER)
            writer.flush()
            agent.source.refresh()
            assert agent.groups() == ["sg-other"]
            writer.write("- security_group_id: sg-half")
            writer.flush()
            assert agent.groups() == ["sg-other"]


def test_half_of_a_first_document_is_not_taken(document: Path) -> None:
    """Where nothing was read before there is nothing to go on with; the error says why."""
    with followed(document.parent) as agent:
        with document.open("w") as writer:
            writer.write(HALF)
            writer.flush()
            with pytest.raises(SourceUnavailableError, match=r"web\.yaml: its writer has not closed it"):
                agent.source.fetch()
        wait_until(lambda: agent.groups() == ["sg-1"], "what was closed to be taken")


def test_a_start_waits_for_a_writer_who_is_at_it(document: Path) -> None:
    """One who began before the agent, and does not pause, has the time to end."""
    with document.open("w") as writer:
        writer.write(HALF)
        writer.flush()
        with followed(document.parent) as agent:

            def end() -> None:
                writer.write(WHOLE.removeprefix(HALF))
                writer.close()

            threading.Timer(0.1, end).start()
            wait_until(lambda: agent.groups() == ["sg-1", "sg-2"], "all of it")
            assert agent.source.fetch().documents[0].content.decode() == WHOLE


def test_a_command_reads_what_is_there(document: Path) -> None:
    """Without a watch nobody knows who writes."""
    source = CollectedFiles(document)
    with document.open("w") as writer:
        writer.write(HALF)
        writer.flush()
        assert source.fetch().documents[0].content.decode() == HALF


def test_a_writer_that_never_closes_is_not_waited_for_for_ever() -> None:
    """After a minute the file counts as it is, and the log says so; its next change begins anew."""
    clock = FakeClock()
    writers = Writers(log_warning, clock.monotonic)
    writers.note(WEB, FileChange.WRITTEN)
    clock.pass_seconds(LONGEST_OPEN_SECONDS / 2)
    writers.note(WEB, FileChange.WRITTEN)
    assert writers.open_files() == {WEB}
    clock.pass_seconds(LONGEST_OPEN_SECONDS / 2)
    with capture_logs() as logged:
        assert writers.open_files() == frozenset()
        assert writers.open_files() == frozenset()
    assert [(one["event"], one["path"]) for one in logged] == [("document_kept_open", str(WEB))]
    writers.note(WEB, FileChange.WRITTEN)
    assert writers.open_files() == {WEB}


@pytest.mark.parametrize("change", (FileChange.CLOSED, FileChange.REPLACED, FileChange.UNSETTLED))
def test_what_ends_a_writer(change: FileChange) -> None:
    """It closed the file, or its file is not there any more."""
    writers = Writers(log_warning)
    writers.note(WEB, FileChange.WRITTEN)
    writers.note(WEB, FileChange.ATTRIBUTES)
    assert writers.open_files() == {WEB}
    writers.note(WEB, change)
    assert writers.open_files() == frozenset()


def test_what_nobody_hears_of_any_more_is_forgotten() -> None:
    """Of a directory that is not watched any more, or of all when events were lost."""
    writers = Writers(log_warning)
    other = Path("/srv/other.yaml")
    writers.note(WEB, FileChange.WRITTEN)
    writers.note(other, FileChange.WRITTEN)
    writers.forget(WEB.parent)
    assert writers.open_files() == {other}
    writers.forget()
    assert writers.open_files() == frozenset()
