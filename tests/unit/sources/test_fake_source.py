"""The file source and the fake keep one contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sgagent.documents import Limits
from sgagent.sources.files.source import FileSource
from tests.contract.source import Origin, SourceContract
from tests.fakes.source import FakeSource


@dataclass
class FakeOrigin:
    """The fake is its own origin."""

    source: FakeSource = field(default_factory=FakeSource)

    def write(self, content: str) -> None:
        """Have it delivered."""
        self.source.write(content)

    def remove(self) -> None:
        """Have it out of reach."""
        self.source.remove()


class FileOrigin:
    """A path of the file system: a document, or a directory with one."""

    def __init__(self, path: Path, document: Path) -> None:
        """Take the path that the source is given, and the document at or below it."""
        self.source = FileSource(path, Limits())
        self._document = document

    def write(self, content: str) -> None:
        """Write the document in place."""
        self._document.parent.mkdir(exist_ok=True)
        self._document.write_text(content)

    def remove(self) -> None:
        """Remove the document."""
        self._document.unlink()


class TestFakeSource(SourceContract):
    """The fake."""

    @pytest.fixture
    def origin(self) -> Origin:
        """Give a fake out of reach."""
        return FakeOrigin()


class TestFileSource(SourceContract):
    """One file."""

    @pytest.fixture
    def origin(self, tmp_path: Path) -> Origin:
        """Give the path of a file that is not there."""
        return FileOrigin(tmp_path / "web.yaml", tmp_path / "web.yaml")


class TestDirectorySource(SourceContract):
    """A directory."""

    @pytest.fixture
    def origin(self, tmp_path: Path) -> Origin:
        """Give the path of a directory that is not there."""
        return FileOrigin(tmp_path / "groups.d", tmp_path / "groups.d" / "web.yaml")
