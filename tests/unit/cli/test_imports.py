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


def imported_with(commands: Iterable[str], modules: set[str], then: str = "") -> str:
    """Return each command after which one of the modules is imported, as a new process finds out."""
    code = (
        "import sys, sgagent.cli.main as main\n"
        f"for command in {tuple(commands)}:\n"
        "    main.find_command(command)\n"
        f"    if sys.modules.keys() & {modules}: print(command)\n"
        f"{then}\n"
        f"if sys.modules.keys() & {modules}: print('in the end')\n"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    return done.stdout


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


def test_status_does_not_import_what_computes_it() -> None:
    """The agent takes steps; who asks about them only names their results."""
    modules = {"sgagent.agent.step", "sgagent.agent.status", "sgagent.core.resolve", "sgagent.sources"}
    assert imported_with(("status",), modules) == ""


def test_check_asks_no_agent_before_it_has_to() -> None:
    """What the agent's answers are takes a quarter of the time for ten rules."""
    assert imported_with(("check",), {"sgagent.agent.control", "sgagent.agent.status"}) == ""


def test_who_names_no_name_does_not_import_the_resolver(tmp_path: Path) -> None:
    """Rules without names of the DNS are resolved without the table of names."""
    document = tmp_path / "policy.yaml"
    document.write_text("version: 1\n")
    then = f"main.main(['check', {str(document)!r}, '--interface', 'eth0='])"
    assert "in the end" not in imported_with((), {"sgagent.agent.names.name_table"}, then)


def test_a_verdict_is_explained_without_what_compares_policies() -> None:
    """Nor with what compiles them."""
    assert imported_with(("explain",), {"sgagent.analysis.compare", "sgagent.nft.ruleset"}) == ""


def test_no_source_is_read_to_read_documents() -> None:
    """Docstrings of fields are for ``sgagent schema``."""
    code = "import linecache, sgagent.documents.native; print(list(linecache.cache))"
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stdout == "[]\n"


def test_the_making_of_a_key_imports_no_documents() -> None:
    """It would take more than twice as long."""
    assert imported_with(("keygen",), {"sgagent.documents", "sgagent.settings"}) == ""


def test_who_reads_a_configuration_does_not_import_the_compiler() -> None:
    """Nor the forms of nftables: each command reads one."""
    code = (
        "import sys, sgagent.settings;"
        " print({'sgagent.compiler', 'sgagent.nft.ruleset'} & sys.modules.keys())"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stdout == "set()\n"


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
