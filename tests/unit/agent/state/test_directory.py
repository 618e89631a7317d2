"""The directory that outlives the agent."""

from __future__ import annotations

from pathlib import Path

from sgagent.agent.state.directory import KeptDocuments, StateDirectory
from sgagent.documents import DocumentFile


def test_a_file_whose_name_is_no_text_is_kept(tmp_path: Path) -> None:
    """Names come as the file system has them: any bytes."""
    name = Path(tmp_path, b"a\xff.yaml".decode(errors="surrogateescape"))
    kept = KeptDocuments(version="v", documents=(DocumentFile(str(name), b"version: 1\n"),))
    directory = StateDirectory(tmp_path / "state")
    directory.keep(kept)
    assert directory.load() == (kept, ())
