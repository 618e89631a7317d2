"""The completions offer what the parsers take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from release.commandline import describe_program
from release.completions import bash_completion, fish_completion, zsh_completion
from sgagent.cli.main import COMMANDS

PROGRAM = describe_program()

ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_sgagent
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the script for bash."""
    path = tmp_path_factory.mktemp("completion") / "sgagent"
    path.write_text(bash_completion(PROGRAM), encoding="utf-8")
    return path


def completed(script: Path, *words: str) -> set[str]:
    """Return what bash offers for the last of the words."""
    done = subprocess.run(  # noqa: S603 - our own program and arguments
        ["bash", "-c", ASK, "bash", script, "sgagent", *words],  # noqa: S607 - bash as a person finds it
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_offers_the_commands(script: Path) -> None:
    """All of them, and those that begin as what was typed."""
    assert set(COMMANDS) <= completed(script, "")
    assert {name for name in COMMANDS if name.startswith("c")} == completed(script, "c")
    assert completed(script, "--config", "x.toml", "flu") == {"flush"}


def test_bash_offers_the_options_of_a_command(script: Path) -> None:
    """Those of the command that stands there, and no others."""
    offered = completed(script, "compile", "--")
    assert {"--dry-run", "--definitions", "--interface", "--config"} <= offered
    assert "--watch" not in offered
    assert "--watch" in completed(script, "hits", "--w")


def test_bash_offers_words_where_there_are_any(script: Path) -> None:
    """Directions, formats and protocols."""
    assert completed(script, "explain", "in") == {"ingress"}
    assert completed(script, "compile", "--output", "") == {"nft", "json"}
    assert completed(script, "explain", "ingress", "--protocol", "ic") == {"icmp", "icmpv6"}
    assert completed(script, "compile", "--output", "=", "n") == {"nft"}


def test_bash_offers_links(script: Path) -> None:
    """Those of this host; where a group must follow, with the sign before it."""
    assert "lo" in completed(script, "hits", "--interface", "")
    assert "lo" in completed(script, "explain", "ingress", "--on", "l")
    assert "lo=" in completed(script, "compile", "--interface", "l")


def test_bash_offers_files(script: Path, tmp_path: Path) -> None:
    """Where an option names one."""
    (tmp_path / "groups.d").mkdir()
    assert completed(script, "check", "--definitions", f"{tmp_path}/gr") == {f"{tmp_path}/groups.d"}
    assert completed(script, "--config", f"{tmp_path}/gr") == {f"{tmp_path}/groups.d"}


def test_bash_offers_files_to_commands_that_take_them(script: Path, tmp_path: Path) -> None:
    """Without an option before them, and options all the same."""
    (tmp_path / "policy").mkdir()
    assert completed(script, "apply", f"{tmp_path}/po") == {f"{tmp_path}/policy"}
    assert completed(script, "explain", "ingress", f"{tmp_path}/po") == {f"{tmp_path}/policy"}
    assert completed(script, "apply", "--conf") == {"--confirm-within", "--config"}


@pytest.mark.parametrize("text", (zsh_completion(PROGRAM), fish_completion(PROGRAM)), ids=["zsh", "fish"])
def test_the_other_shells_know_every_option(text: str) -> None:
    """They are run by integration/test_package.py, where they are installed."""
    for command in PROGRAM.commands:
        assert command.name in text
        for option in command.options:
            assert option.names[-1].removeprefix("--") in text
