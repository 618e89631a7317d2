"""A release: refused where the repository says something else, and whole in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.namespaces import CommandError, run
from integration.package import ROOT, why_not
from sgagent import __version__

VERSION = "9.9.9"
BUILD_SECONDS = 900.0

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(bool(_reason := why_not()), reason=f"no package can be built: {_reason}"),
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Clone this repository, with something to release."""
    folder = tmp_path / "clone"
    run("git", "clone", "--quiet", str(ROOT), str(folder))
    for name, value in (("name", "Tester"), ("email", "tester@example.org")):
        run("git", "-C", str(folder), "config", f"user.{name}", value)
    changelog = folder / "CHANGELOG.md"
    text = changelog.read_text()
    changelog.write_text(text.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- A thing.\n", 1))
    run("git", "-C", str(folder), "commit", "--quiet", "--all", "--message", "docs: Add a thing")
    return folder


def release(clone: Path, *arguments: str) -> str:
    """Run ``script/release`` in a clone and return its output."""
    return run("env", "-C", str(clone), "script/release", *arguments, seconds=BUILD_SECONDS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    (
        ((), "which version"),
        ((VERSION,), "with which key"),
        (("v1", "--unsigned"), "'v1' is no version"),
        ((VERSION, "--key"), "--key needs a value"),
        ((VERSION, "--key", "nobody@packages.invalid"), "no secret key nobody@packages.invalid"),
        ((VERSION, "9.9.10", "--unsigned"), f"one version at a time, not {VERSION} and 9.9.10"),
        (("0.0.1", "--unsigned"), f"0.0.1 is older than {__version__}"),
        ((VERSION, "--what"), "unknown option --what"),
    ),
)
def test_wrong_use_is_refused(clone: Path, arguments: tuple[str, ...], reason: str) -> None:
    """The refusal says which use was expected."""
    with pytest.raises(CommandError, match=reason):
        release(clone, *arguments)


def test_a_repository_that_says_something_else_is_refused(clone: Path) -> None:
    """Nobody to commit, a tag, uncommitted changes, nothing to release; the repository stays as it is."""
    commit = run("git", "-C", str(clone), "rev-parse", "HEAD")
    nobody = ("env", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory")
    run("git", "-C", str(clone), "config", "--unset", "user.email")
    with pytest.raises(CommandError, match=r"set user.name and user.email"):
        run(*nobody, "GIT_CONFIG_VALUE_0=*", str(clone / "script/release"), VERSION, "--unsigned")
    run("git", "-C", str(clone), "config", "user.email", "tester@example.org")
    run("git", "-C", str(clone), "tag", f"v{VERSION}")
    with pytest.raises(CommandError, match=f"v{VERSION} is tagged already"):
        release(clone, VERSION, "--unsigned", "--no-bundles")
    run("git", "-C", str(clone), "tag", "--delete", f"v{VERSION}")
    changelog = clone / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n")
    with pytest.raises(CommandError, match="not committed"):
        release(clone, VERSION, "--unsigned", "--no-bundles")
    run("git", "-C", str(clone), "commit", "--quiet", "--all", "--message", "docs: Take it back")
    with pytest.raises(CommandError, match=r"says nothing under \[Unreleased\]"):
        release(clone, VERSION, "--unsigned", "--no-bundles")
    assert run("git", "-C", str(clone), "rev-parse", "HEAD~1") == commit


BUILD_AND_COMMIT = """#!/bin/sh
mkdir -p dist
echo package >dist/sgagent.deb
git -C '{clone}' commit --quiet --allow-empty --message 'docs: Come in between'
"""
"""In place of ``script/package``: somebody commits to the repository meanwhile."""


def test_a_release_is_whole(clone: Path) -> None:
    """A commit, a tag, and every file, with checksums that are true and a bill that names them.

    Where the repository went on while it was built there is none of it, and another attempt can be made.
    """
    package = clone / "script/package"
    package.write_text(BUILD_AND_COMMIT.format(clone=clone))
    run("git", "-C", str(clone), "commit", "--quiet", "--all", "--message", "script: Build nothing")
    with pytest.raises(CommandError, match="the repository changed while this was built"):
        release(clone, VERSION, "--unsigned", "--no-bundles")
    assert f"v{VERSION}" not in run("git", "-C", str(clone), "tag").split()
    assert not (clone / "dist" / VERSION).exists()
    package.write_text((ROOT / "script/package").read_text())
    run("git", "-C", str(clone), "commit", "--quiet", "--all", "--message", "script: Build it")
    assert f"sgagent_{VERSION}-1_all.deb" in release(clone, VERSION, "--unsigned", "--no-bundles")
    assert run("git", "-C", str(clone), "describe", "--exact-match").strip() == f"v{VERSION}"
    assert f"## [{VERSION}] - " in (clone / "CHANGELOG.md").read_text()
    files = clone / "dist" / VERSION
    assert sorted(path.name for path in files.iterdir()) == [
        "SHA256SUMS",
        f"sgagent-{VERSION}-1.noarch.rpm",
        f"sgagent-{VERSION}-pages.tar.gz",
        f"sgagent-{VERSION}.cdx.json",
        f"sgagent-{VERSION}.tar.gz",
        f"sgagent_{VERSION}-1_all.deb",
    ]
    run("env", "-C", str(files), "sha256sum", "--check", "--strict", "SHA256SUMS")
    bill = json.loads((files / f"sgagent-{VERSION}.cdx.json").read_text())
    assert bill["metadata"]["component"]["version"] == VERSION
    named = {part["name"] for part in bill["components"] if part["type"] == "file"}
    assert named == {path.name for path in files.iterdir()} - {"SHA256SUMS", f"sgagent-{VERSION}.cdx.json"}
