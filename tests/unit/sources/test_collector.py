"""How long a reading of documents waits while somebody keeps changing them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sgagent.core.errors import SourceUnavailableError
from sgagent.sources.files import collector, reader
from sgagent.sources.files.collector import CollectorTask, FileCollector
from sgagent.sources.files.reader import LONGEST_SECONDS, Appearance
from tests.collected_files import log_warning

pytestmark = pytest.mark.one_python


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Give the only document."""
    made = tmp_path / "web.yaml"
    made.write_text("version: 1\n")
    return made


@pytest.fixture
def files(document: Path) -> Iterator[FileCollector]:
    """Give a collector that watches, and has started, for which other rules hold."""
    task = CollectorTask(path=document.parent, document_bytes=100, all_bytes=100, wants_signature=False)
    made = FileCollector(task)
    with made.watch(lambda: None, log_warning):
        made.collect()
        yield made


def test_documents_that_never_rest_are_read_in_time(
    monkeypatch: pytest.MonkeyPatch, files: FileCollector, document: Path
) -> None:
    """A reading debounces changes before and during it, but for no longer than one change may be late."""
    waits: list[float] = []

    class Pause(threading.Event):
        """Has the document change after each wait."""

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            is_set = super().wait(timeout)
            document.write_text(f"version: 1  # {len(waits)}\n")
            return is_set

    monkeypatch.setattr(collector, "threading", SimpleNamespace(Event=Pause))
    document.write_text("version: 1  # changed\n")
    found = files.collect()
    assert 0 < sum(waits) <= LONGEST_SECONDS
    assert found.documents[str(document)] == f"version: 1  # {len(waits)}\n".encode()


def change_at_each_look(monkeypatch: pytest.MonkeyPatch, document: Path, seconds: float) -> None:
    """Have the document change each time that a reading looks at the directory, for so long."""
    appearance, rests_at = reader.appearance, time.monotonic() + seconds

    def changing(path: Path) -> tuple[Appearance, ...]:
        if time.monotonic() < rests_at:
            draft = document.with_name(".draft")
            draft.write_text(f"version: 1  # {time.monotonic()}\n")
            draft.rename(document)
        return appearance(path)

    monkeypatch.setattr(reader, "appearance", changing)


def test_documents_that_change_during_each_reading_are_read_once_they_rest(
    monkeypatch: pytest.MonkeyPatch, files: FileCollector, document: Path
) -> None:
    """The source does not count as down because many changes take a while."""
    change_at_each_look(monkeypatch, document, 3 * LONGEST_SECONDS)
    assert files.collect().documents == {str(document): document.read_bytes()}


def test_documents_that_change_during_each_reading_are_given_up(
    monkeypatch: pytest.MonkeyPatch, files: FileCollector, document: Path
) -> None:
    """In the end the source is down, and says so."""
    monkeypatch.setattr(collector, "CHANGING_SECONDS", 0.1)
    change_at_each_look(monkeypatch, document, 60.0)
    with pytest.raises(SourceUnavailableError, match="documents keep changing while they are read"):
        files.collect()
