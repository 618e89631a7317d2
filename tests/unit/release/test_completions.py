"""The completions offer what the parsers take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from release.commandline import describe_program
from release.completions import bash_completion, fish_completion, zsh_completion
from sgagent.analysis.lint.findings import CODES
from sgagent.cli.main import COMMANDS, main

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


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """Return a configuration of documents with two groups."""
    (tmp_path / "groups.yaml").write_text(
        "version: 1\nsecurity_groups:\n"
        "- {security_group_id: sg-web, rules: [{rule_id: sgr-web, direction: ingress, policy: accept,"
        " protocol: all, authorization_object: sg-app}]}\n"
        "- {security_group_id: sg-app}\n"
    )
    path = tmp_path / "sgagent.toml"
    state = f'[state]\nruntime_directory = "{tmp_path}"\n'
    path.write_text(f'[source]\npath = "{tmp_path}/groups.yaml"\n{state}')
    return path


def completed(script: Path, *words: str) -> set[str]:
    """Return what bash offers for the last of the words; it calls the sgagent of this environment."""
    done = subprocess.run(  # noqa: S603 - our own program and arguments
        ["bash", "-c", ASK, "bash", script, "sgagent", *words],  # noqa: S607 - bash as a person finds it
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
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


def test_bash_offers_links(script: Path, configuration: Path) -> None:
    """Those of this host that can be bound, never loopback; where a group must follow, with the sign."""
    links = {path.name for path in Path("/sys/class/net").iterdir() if path.is_dir()} - {"lo"}
    given = ("--config", str(configuration))
    assert completed(script, "hits", *given, "--interface", "") == links
    assert completed(script, "explain", *given, "ingress", "--on", "") == links
    assert completed(script, "compile", "--interface", "") == {f"{link}=" for link in links}


@pytest.mark.long
def test_bash_offers_ids_of_the_definitions(script: Path, configuration: Path) -> None:
    """Groups behind the link of a binding, also behind a comma, and rules; bash parts words at =."""
    given = ("--config", str(configuration))
    assert completed(script, "compile", *given, "--interface", "eth0", "=", "") == {"sg-web", "sg-app"}
    assert completed(script, "compile", *given, "--interface", "eth0", "=") == {"sg-web", "sg-app"}
    assert completed(script, "compile", *given, "--interface", "eth0", "=", "sg-w") == {"sg-web"}
    assert completed(script, "check", *given, "--interface", "=", "eth0", "=", "sg-w") == {"sg-web"}
    assert completed(script, "check", *given, "--interface", "eth0=sg-w") == {"eth0=sg-web"}
    assert completed(script, "plan", *given, "--interface", "e", "=", "sg-web,sg-a") == {"sg-web,sg-app"}
    assert completed(script, "denied", *given, "--rule", "") == {"sgr-web"}
    here = ("--definitions", str(configuration.parent / "groups.yaml"))
    assert completed(script, "compile", *here, "--interface", "eth0", "=", "sg-w") == {"sg-web"}
    assert completed(script, "denied", "--config", "/nonexistent.toml", "--rule", "") == set()


def test_bash_offers_codes_of_checks(script: Path) -> None:
    """Also behind a comma."""
    assert completed(script, "lint", "--disable", "") == set(CODES)
    assert completed(script, "lint", "--disable", "void_drop,never") == {"void_drop,never_reached"}


def test_bash_offers_no_word_that_is_refused(script: Path, configuration: Path) -> None:
    """A word that is chosen is chosen once; a packet has one protocol."""
    documents = configuration.parent / "groups.yaml"
    assert "wait" not in completed(script, "fleet", "status", "")
    assert {"status", "wait"} <= completed(script, "fleet", "")
    assert "observe" not in completed(script, "mode", "enforce", "")
    assert "all" not in completed(script, "explain", "ingress", "--protocol", "")
    for word in completed(script, "explain", "ingress", "--protocol", ""):
        packet = ["--source", "2001:db8::1", "--destination", "2001:db8::2", "--protocol", word]
        ports = ["--port", "1"] if word in ("tcp", "udp") else []
        family = [one.replace("2001:db8::", "10.0.0.") if word == "icmp" else one for one in packet]
        assert main(["explain", "ingress", *family, *ports, "--interface", "eth0=", str(documents)]) == 0


def test_a_hidden_command_gives_ids_and_links(
    configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says nothing where nothing can be had: nobody would read it."""
    assert main(["complete", "rules", "--config", str(configuration)]) == 0
    assert capsys.readouterr() == ("sgr-web\n", "")
    assert main(["complete", "groups", str(configuration.parent / "groups.yaml")]) == 0
    assert capsys.readouterr() == ("sg-app\nsg-web\n", "")
    configuration.write_text("nonsense = 1\n")
    assert main(["complete", "groups", "--config", str(configuration)]) == 1
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "complete" not in capsys.readouterr().out


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
