"""examples/from-traffic holds: the suggestion for its record, beside a policy by hand, and the replay."""

from __future__ import annotations

import os
import re

import pytest

from sgagent.cli.main import main
from sgagent.core.model import Policy
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.suggest.conversations import Traffic
from sgagent.suggest.flow_lines import FlowLineReader
from sgagent.suggest.observations import observe
from sgagent.suggest.proof import judge, judges_of
from tests.corpus import EXAMPLES

ROOT, FOLDER = EXAMPLES.parent, EXAMPLES / "from-traffic"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SUGGEST, PLAN, TEST = re.findall(r"^```\n\$ sgagent ([^\n]*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SUGGESTED, BY_HAND = "groups.d/suggested.yaml", "by-hand.yaml"
ASKED_ABOUT = {8443, *range(1000, 1010)}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the commands find the files as a reader does."""
    monkeypatch.chdir(ROOT)


def test_the_suggestion_is_the_one_that_is_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    """With the questions that the page shows."""
    command, questions = SUGGEST
    assert main([*command.split(), "--config", os.devnull]) == 0
    assert capsys.readouterr() == ((FOLDER / SUGGESTED).read_text(encoding="utf-8"), questions)


@pytest.mark.parametrize(("command", "printed"), (PLAN, TEST), ids=("plan", "test"))
def test_commands_print_what_is_shown(command: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The difference to the policy by hand, and the packets."""
    assert main([*command.split(), "--config", os.devnull]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", (SUGGESTED, BY_HAND))
def test_a_replay_of_the_record_loses_no_session(name: str) -> None:
    """Either policy, of as many rules, admits all but what is asked about."""
    traffic = Traffic()
    FlowLineReader(traffic, "flows.log", "shop").read(
        (FOLDER / "flows.log").read_bytes().splitlines(keepends=True)
    )
    snapshot, _ = parse_documents([DocumentFile(name, (FOLDER / name).read_bytes())], Limits())
    observations, known = observe(traffic.passed, snapshot)
    judged = judge(judges_of(known), observations)
    dropped = {one.observation.service.port for one in judged if one.decision.verdict is Policy.DROP}
    assert dropped == ASKED_ABOUT
    assert len(snapshot.security_groups[0].rules) == 5
