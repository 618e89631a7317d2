"""Facts about files that commands put in the place of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sgagent.cli.output import replace_file, replace_files
from sgagent.core.errors import UsageError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new text stands there, and nothing beside it."""
    place = tmp_path / "a.yaml"
    place.write_text("old, and longer", encoding="utf-8")
    replace_file(place, "new\n")
    assert place.read_text(encoding="utf-8") == "new\n"
    assert list(tmp_path.iterdir()) == [place]


def test_what_can_not_be_replaced_stays_alone(tmp_path: Path) -> None:
    """The error names the place, which stays as it was, and no draft is left beside it."""
    place = tmp_path / "a.yaml"
    (place / "within").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"a\.yaml: can't be written: "):
        replace_file(place, "new\n")
    assert list(tmp_path.iterdir()) == [place]
    assert list(place.iterdir()) == [place / "within"]


def test_of_several_files_none_is_replaced_where_one_can_not_be_written(tmp_path: Path) -> None:
    """All drafts are written before the first is put in place."""
    first = tmp_path / "a.yaml"
    first.write_text("old\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"gone/b\.yaml: can't be written: "):
        replace_files({first: "new\n", tmp_path / "gone" / "b.yaml": "new\n"})
    assert first.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("mode", (0o400, 0o600, 0o640, 0o664))
def test_a_file_keeps_its_mode_and_its_owner(tmp_path: Path, mode: int) -> None:
    """What was private stays so."""
    place = tmp_path / "a.yaml"
    place.write_text("old\n", encoding="utf-8")
    if os.geteuid() == 0:
        os.chown(place, 1234, 2345)
    place.chmod(mode)
    before = place.stat()
    replace_file(place, "new\n")
    after = place.stat()
    assert place.read_text(encoding="utf-8") == "new\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """A pipe stays one, as ``/dev/null`` stays a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_file(pipe, "new\n")
    assert os.read(reader, 100) == b"new\n"
    os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_behind_a_symbolic_link_the_file_is_replaced(tmp_path: Path) -> None:
    """The link stays, also one to a file that is not there yet."""
    file, link = tmp_path / "there" / "a.yaml", tmp_path / "link.yaml"
    file.parent.mkdir()
    link.symlink_to(file)
    for text in ("new\n", "newer\n"):
        replace_file(link, text)
        assert link.is_symlink()
        assert file.read_text(encoding="utf-8") == text
    assert list(file.parent.iterdir()) == [file]


def test_a_draft_is_never_a_file_that_was_there(tmp_path: Path) -> None:
    """Who may write to the directory can't have another file overwritten, nor can a second command."""
    place, other = tmp_path / "a.yaml", tmp_path / "other"
    other.write_text("other\n", encoding="utf-8")
    (tmp_path / ".a.yaml.new").symlink_to(other)
    (tmp_path / f".a.yaml.{os.getpid()}.new").symlink_to(other)
    with pytest.raises(UsageError, match=r"a\.yaml: can't be written: File exists"):
        replace_file(place, "new\n")
    assert other.read_text(encoding="utf-8") == "other\n"
