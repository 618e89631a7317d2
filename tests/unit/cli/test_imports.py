"""What commands import before they know whether they need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

ANSWER = b'{"version":1,"answer":{"snapshot_version":null,"interfaces":[]}}'


@pytest.mark.parametrize("command", ("check", "compile", "plan", "run", "status"))
def test_who_checks_no_signature_does_not_import_the_cryptography_library(command: str) -> None:
    """It takes as long to import as ten rules to check."""
    code = (
        f"import sys, sgagent.cli.main as main; main.find_command({command!r}); import sgagent.cli.inputs;"
        " print('cryptography' in sys.modules)"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    "command", ("status", "hits", "history", "mode", "confirm", "rollback", "denied", "flush")
)
def test_commands_that_ask_the_agent_do_not_import_pydantic(command: str) -> None:
    """It takes longer to import than they take to run; only a configuration that is not empty needs it."""
    code = (
        f"import sys, sgagent.cli.main as main; main.find_command({command!r});"
        " from sgagent.settings import parse_settings;"
        " from sgagent.agent.control.protocol import decode_answer, encode_question;"
        " from sgagent.agent.control.requests import HitsQuestion; question = HitsQuestion();"
        f" parse_settings('', ''); encode_question(question); decode_answer(question, {ANSWER!r});"
        " print('pydantic' in sys.modules, 'pydantic_core' in sys.modules)"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stdout.split() == ["False", "False"]


def test_who_reads_a_configuration_does_not_import_the_compiler() -> None:
    """Nor the forms of nftables: each command reads one."""
    code = (
        "import sys, sgagent.settings;"
        " print({'sgagent.compiler', 'sgagent.nft.ruleset'} & sys.modules.keys())"
    )
    ours = [sys.executable, "-c", code]
    done = subprocess.run(ours, capture_output=True, text=True, check=True)  # noqa: S603 - nothing of anybody else
    assert done.stdout == "set()\n"
