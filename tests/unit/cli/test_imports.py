"""What commands import before they know whether they need it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_python
CONFIGURATION = "[state]\ndirectory = '/'\n[[interface]]\nname = 'eth0'\nsecurity_group_ids = ['sg-a']"
ANSWER = b'{"version":1,"answer":{"snapshot_version":null,"interfaces":[]}}'


def printed_by(code: str) -> str:
    """Run Python code in a new process, and return its output."""
    ours = [sys.executable, "-c", code]
    return subprocess.run(ours, capture_output=True, text=True, check=True).stdout  # noqa: S603 - nothing of anybody else


def imported_with(commands: Iterable[str], modules: set[str], then: str = "") -> str:
    """Return each command after which one of the modules is imported, as a new process finds out."""
    return printed_by(
        "import sys, sgagent.cli.main as main\n"
        f"for command in {tuple(commands)}:\n"
        "    main.find_command(command)\n"
        f"    if sys.modules.keys() & {modules}: print(command)\n"
        f"{then}\n"
        f"if sys.modules.keys() & {modules}: print('in the end')\n"
    )


def test_who_checks_no_signature_does_not_import_the_cryptography_library() -> None:
    """It takes as long to import as ten rules to check."""
    commands = ("check", "compile", "plan", "run", "status")
    assert imported_with(commands, {"cryptography"}, "import sgagent.cli.inputs") == ""


def test_commands_that_ask_the_agent_do_not_import_pydantic() -> None:
    """It takes longer to import than they take to run, with a configuration or without."""
    commands = ("status", "hits", "history", "mode", "confirm", "rollback", "denied", "flush")
    then = (
        "from sgagent.settings import parse_settings\n"
        "from sgagent.agent.control.protocol import decode_answer, encode_question\n"
        "from sgagent.agent.control.requests import HitsQuery\n"
        "question = HitsQuery()\n"
        f"parse_settings({CONFIGURATION!r}, '')\n"
        f"encode_question(question); decode_answer(question, {ANSWER!r})\n"
    )
    assert imported_with(commands, {"pydantic", "pydantic_core"}, then) == ""


@pytest.mark.parametrize(
    ("command", "modules"),
    (
        ("status", ("agent.step", "agent.status", "core.resolve", "sources")),
        ("check", ("agent.control", "agent.status")),
        ("explain", ("analysis.compare", "nft.ruleset")),
        ("keygen", ("documents", "settings")),
    ),
)
def test_a_command_imports_only_what_it_needs(command: str, modules: tuple[str, ...]) -> None:
    """Not what computes a status, answers as the agent, compares policies, or reads documents."""
    assert imported_with((command,), {f"sgagent.{name}" for name in modules}) == ""


def test_who_names_no_name_does_not_import_the_resolver(tmp_path: Path) -> None:
    """Rules without names of the DNS are resolved without the table of names."""
    document = tmp_path / "policy.yaml"
    document.write_text("version: 1\n")
    then = f"main.main(['check', {str(document)!r}, '--interface', 'eth0='])"
    assert "in the end" not in imported_with((), {"sgagent.agent.names.name_table"}, then)


def test_no_source_is_read_to_read_documents() -> None:
    """Docstrings of fields are for ``sgagent schema``."""
    code = "import linecache, sgagent.documents.native; print(list(linecache.cache))"
    assert printed_by(code) == "[]\n"


def test_who_reads_a_configuration_does_not_import_the_compiler() -> None:
    """Nor the forms of nftables: each command reads one."""
    unused = "{'sgagent.compiler', 'sgagent.nft.ruleset'}"
    assert printed_by(f"import sys, sgagent.settings; print({unused} & sys.modules.keys())") == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "is_ready"), ((["run", "--help"], True), (["flush", "--config", "run", "--help"], False))
)
def test_a_reload_does_not_end_an_agent_that_has_yet_to_start(arguments: list[str], is_ready: bool) -> None:  # noqa: FBT001 - parametrized
    """The command that is chosen decides, whatever other words are on the command line."""
    code = (
        "import signal, sys, sgagent.cli.main as main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # who started the tests may have it ignored
        f"try: main.main({arguments})\n"
        "except SystemExit: pass\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, file=sys.stderr)\n"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stderr == f"{is_ready}\n"
