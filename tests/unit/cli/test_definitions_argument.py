"""Every command that reads definitions takes their path in the same two ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.runner import Run, runner

DOCUMENT = """\
version: 1
security_groups:
  - security_group_id: sg-web
    type: basic
    rules:
      - {rule_id: sgr-web, direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 443,
         authorization_object: 0.0.0.0/0}
"""
PACKETS = """\
bind: {eth0: [sg-web]}
packets:
  - {name: a customer, direction: ingress, source: 198.51.100.1, destination: 10.0.0.11, protocol: tcp,
     port: 443, expect: accept, decided_by: rule, rule_id: sgr-web}
"""
PACKET = ("--source", "192.0.2.1", "--destination", "10.0.0.11", "--protocol", "tcp", "--port", "443")
READERS = {
    "check": ("check", "--interface", "eth0=sg-web"),
    "compile": ("compile", "--dry-run", "--no-verify", "--interface", "eth0=sg-web"),
    "explain": ("explain", "ingress", *PACKET, "--interface", "eth0=sg-web"),
    "graph": ("graph", "--output", "dot"),
    "lint": ("lint", "--json"),
    "plan": ("plan", "--against", "before", "--everywhere"),
    "test": ("test", "packets.yaml", "--verbose"),
}
"""Commands, each with an option before the path."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command beside definitions and packets."""
    monkeypatch.chdir(tmp_path)
    for folder in ("candidate", "before"):
        Path(folder).mkdir()
        Path(folder, "web.yaml").write_text(DOCUMENT)
    Path("packets.yaml").write_text(PACKETS)
    Path("sgagent.toml").write_text(f'[source]\npath = "{tmp_path}/nowhere"\n')
    return runner(capsys, "--config", "sgagent.toml")


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("path", ("candidate", "candidate/web.yaml"))
def test_path_and_option_mean_the_same(run: Run, command: str, path: str) -> None:
    """PATH may come last, or behind the command, or as ``--definitions PATH``."""
    words = READERS[command]
    by_option = run(*words, "--definitions", path)
    assert by_option[0] == 0, by_option
    assert run(*words, path) == by_option
    first = 2 if command in {"explain", "test"} else 1
    assert run(*words[:first], path, *words[first:]) == by_option


@pytest.mark.parametrize("command", (*READERS, "apply", "sign", "publish"))
def test_two_paths_are_wrong_use(run: Run, command: str) -> None:
    """A path that would be ignored is refused."""
    words = READERS.get(command, (command, *(("--key", "key") if command == "sign" else ())))
    by_option = ("--definitions", "before")
    for paths in (("candidate", *by_option), ("--definitions", "candidate", *by_option)):
        code, _, errors = run(*words, *paths)
        assert code == 2
        assert "the definitions are named twice" in errors
        assert f"(see 'sgagent {command} --help')" in errors


@pytest.mark.parametrize("command", ("apply", "sign", "publish"))
def test_commands_without_a_source_need_a_path(run: Run, command: str) -> None:
    """They say so, and take the option as well."""
    Path("sgagent.toml").write_text('[source]\ntype = "etcd"\nendpoints = ["http://192.0.2.1:2379"]\n')
    words = (command, *(("--key", "key") if command == "sign" else ()))
    code, _, errors = run(*words)
    assert code == 2
    assert "PATH is missing" in errors
    for way in (("missing",), ("--definitions", "missing")):
        code, _, errors = run(*words, *way)
        assert code == 2
        assert "missing: no such file" in errors or "key" in errors


def test_an_unknown_argument_is_still_refused(run: Run) -> None:
    """Only a command that reads definitions takes a path, and only one."""
    assert run("status", "candidate")[0] == 2
    assert run("check", "candidate", "before")[0] == 2
    assert run("check", "--nonsense")[0] == 2


def test_the_last_path_of_test_may_be_a_directory_of_packets(run: Run) -> None:
    """What holds packets is no definitions; a packet file that is wrong is not taken for definitions."""
    Path("suite").mkdir()
    Path("suite", "packets.yaml").write_text("definitions: ../candidate\n" + PACKETS)
    code, output, _ = run("test", "suite")
    assert code == 0
    assert "1 passed" in output
    Path("wrong.yaml").write_text("bind: {eth0: [sg-web]}\n")
    assert run("test", "wrong.yaml")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    (
        ("apply", ""),
        ("check", "--definitions", ""),
        ("check", "--config", ""),
        ("import", "aws", "x", "--output", ""),
        ("test", ""),
        ("test", "packets.yaml", "--verbose", ""),
        ("plan", "--against", "", "x"),
    ),
)
def test_an_empty_path_is_not_the_current_directory(run: Run, arguments: tuple[str, ...]) -> None:
    """It is what a shell makes of a variable that is not set."""
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert ": expected a path, found an empty text (see 'sgagent " in errors


@pytest.mark.parametrize(
    ("command", "name"), (("explain", "direction"), ("fleet", "action"), ("import", "format"))
)
def test_a_missing_argument_is_named(run: Run, command: str, name: str) -> None:
    """By what it chooses."""
    code, _, errors = run(command)
    assert code == 2
    assert f"arguments are required: {name}" in errors
