"""What script/release writes: the changelog's new section and the bill of materials."""

from __future__ import annotations

import hashlib
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.output.json import JsonV1Dot6

from release.changelog import NothingUnreleasedError, main, released
from release.materials import bill_of_materials

ROOT = Path(__file__).parents[3]
HEAD = "# Changelog\n\n## [Unreleased]\n"
EARLIER = "## [0.1.0] - 2026-01-01\n\n- First.\n"
MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("earlier", ("", f"\n{EARLIER}"))
def test_what_is_unreleased_becomes_the_section_of_the_version(earlier: str) -> None:
    """Below an empty section for what comes next; earlier sections stay."""
    changes = "\n### Added\n\n- A thing.\n"
    text = released(f"{HEAD}{changes}{earlier}", "0.2.0", "2026-03-01")
    assert text == f"{HEAD}\n## [0.2.0] - 2026-03-01\n{changes}{earlier}"


@pytest.mark.parametrize("text", (HEAD, f"{HEAD}\n{EARLIER}", "# Changelog\n"))
def test_a_version_without_a_change_is_refused(text: str, tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(NothingUnreleasedError):
        released(text, "0.2.0", "2026-03-01")
    file = tmp_path / "CHANGELOG.md"
    file.write_text(text)
    assert main([str(file), "0.2.0", "2026-03-01"]) == 1
    assert file.read_text() == text


def test_a_look_writes_nothing(tmp_path: Path) -> None:
    """``--check`` only answers."""
    file = tmp_path / "CHANGELOG.md"
    file.write_text(f"{HEAD}\n- A thing.\n")
    assert main(["--check", str(file)]) == 0
    assert file.read_text() == f"{HEAD}\n- A thing.\n"


def bill(folder: Path, content: str) -> dict[str, object]:
    """Return the bill of one file as JSON."""
    (folder / "file.deb").write_text(content)
    text = JsonV1Dot6(bill_of_materials([folder / "file.deb"], MOMENT)).output_as_string()
    decoded: dict[str, object] = json.loads(text)
    return decoded


def test_the_bill_names_files_and_what_is_needed(tmp_path: Path) -> None:
    """Files by their checksums; each dependency of the project, and Debian's nftables."""
    text = json.dumps(bill(tmp_path, "content"))
    assert hashlib.sha256(b"content").hexdigest() in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [dependency.partition(">")[0] for dependency in project["dependencies"]]
    assert [name for name in names if f"pkg:pypi/{name}" not in text] == []
    assert "pkg:deb/debian/nftables" in text


def test_one_release_has_one_bill(tmp_path: Path) -> None:
    """The same files make the same bill; others have another serial number."""
    assert bill(tmp_path, "content") == bill(tmp_path, "content")
    assert bill(tmp_path, "content")["serialNumber"] != bill(tmp_path, "other")["serialNumber"]
