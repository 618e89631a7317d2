"""How long a reading of documents waits while somebody keeps changing them."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from sgagent.sources.files import collector
from sgagent.sources.files.collector import CollectorTask, FileCollector
from sgagent.sources.files.reader import DEBOUNCE_SECONDS, LONGEST_SECONDS
from tests.collected_files import log_warning

pytestmark = pytest.mark.one_python


def test_documents_that_never_rest_are_read_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reading debounces changes before and during it, but for no longer than one change may be late."""
    (tmp_path / "web.yaml").write_text("version: 1\n")
    files = FileCollector(
        CollectorTask(path=tmp_path, document_bytes=100, all_bytes=100, wants_signature=False)
    )
    waits: list[float] = []

    class Pause(threading.Event):
        """Has the documents change after each wait."""

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            is_set = super().wait(timeout)
            (tmp_path / "web.yaml").write_text(f"version: 1  # {len(waits)}\n")
            return is_set

    with files.watch(lambda: None, log_warning):
        files.collect()  # as the agent starts, it waits by other rules
        monkeypatch.setattr(collector, "threading", SimpleNamespace(Event=Pause))
        (tmp_path / "web.yaml").write_text("version: 1  # changed\n")
        found = files.collect()
    assert DEBOUNCE_SECONDS < sum(waits) <= LONGEST_SECONDS
    assert found.documents[str(tmp_path / "web.yaml")] == f"version: 1  # {len(waits)}\n".encode()
