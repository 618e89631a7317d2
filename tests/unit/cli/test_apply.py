"""``sgagent apply`` announces a trial before the agent hears of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from sgagent.agent.control.answers import Answering
from sgagent.agent.control.protocol import LONGEST_QUESTION
from sgagent.agent.control.requests import ApplyCommand, ControlAnswer, EnforcedAnswer, Query, StatusQuery
from sgagent.agent.control.server import ControlServer
from sgagent.agent.inbox import Wanted, always
from sgagent.cli.lockout_guard import trial_lines
from tests.patience import PATIENCE
from tests.unit.agent.control.test_protocol import STATUS
from tests.unit.agent.test_status import LOGIN

WAIT_SECONDS = 20.0 * PATIENCE
GOOD = "version: 1\n"
KEEP_IT = "to keep it, run 'sgagent confirm' in that time, here or in a new session;\n"
WAIT = "if this session stops answering, wait: the agent goes back by itself\n"


class Agent:
    """An agent that carries a command out once it is let."""

    def __init__(self) -> None:
        """Hold commands back."""
        self.let = threading.Event()
        self.ordered: list[ApplyCommand] = []

    def answer(self, question: Query, _is_wanted: Wanted = always, /) -> ControlAnswer:
        """Answer what the command asks."""
        if isinstance(question, StatusQuery):
            return replace(STATUS, interfaces=())
        assert isinstance(question, ApplyCommand)
        assert self.let.wait(WAIT_SECONDS), "the command printed nothing before it ordered"
        self.ordered.append(question)
        return EnforcedAnswer(
            version="v2",
            is_changed=True,
            interfaces=("eth0",),
            held_back=None,
            seconds_left=60.0,
            goes_back_to="v1",
        )


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """Serve an agent where the configuration of the test says."""
    made = Agent()
    answering: Answering = made.answer
    (tmp_path / "sgagent.toml").write_text(f'[state]\nruntime_directory = "{tmp_path}/run"\n')
    with closing(ControlServer(tmp_path / "run", answering, longest_order=LONGEST_QUESTION)):
        yield made
        made.let.set()


def started(directory: Path, *more: str) -> subprocess.Popen[str]:
    """Start the command as a shell does."""
    arguments = ("apply", "by-hand.yaml", "--confirm-within", "60s", *more, "--config", "sgagent.toml")
    return subprocess.Popen(  # noqa: S603 - our own program and arguments
        [sys.executable, "-m", "sgagent", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def three_lines(stream: IO[str] | None) -> list[str]:
    """Return the next three lines of a pipe, as soon as they are there."""
    assert stream is not None
    return [stream.readline() for _ in range(3)]


def test_a_trial_is_announced_before_it_begins(agent: Agent, tmp_path: Path) -> None:
    """What will happen and how to keep it stands in the terminal, whatever becomes of that."""
    (tmp_path / "by-hand.yaml").write_text(GOOD)
    with started(tmp_path) as command:
        said = three_lines(command.stdout)
        assert said == ["trying by-hand.yaml for 60 seconds, then going back to v1\n", KEEP_IT, WAIT]
        assert agent.ordered == []
        agent.let.set()
        output, errors = command.communicate(timeout=WAIT_SECONDS)
    assert (command.returncode, errors) == (0, "")
    assert output.startswith("enforcing v2 on eth0\ngoes back to v1 in 60 seconds")
    assert [command.confirm_within for command in agent.ordered] == [60.0]


def test_what_a_script_reads_is_one_object(agent: Agent, tmp_path: Path) -> None:
    """The announcement is on standard error then."""
    (tmp_path / "by-hand.yaml").write_text(GOOD)
    with started(tmp_path, "--json") as command:
        said = three_lines(command.stderr)
        assert said[1:] == [KEEP_IT, WAIT]
        agent.let.set()
        output, _ = command.communicate(timeout=WAIT_SECONDS)
    assert json.loads(output)["version"] == "v2"


def test_nothing_is_announced_that_the_agent_refuses(agent: Agent, tmp_path: Path) -> None:
    """Documents with errors change nothing; the agent says what is wrong with them."""
    (tmp_path / "by-hand.yaml").write_text("version: 2\n")
    agent.let.set()
    with started(tmp_path) as command:
        output, _ = command.communicate(timeout=WAIT_SECONDS)
    assert output.startswith("enforcing v2")


def test_the_session_that_a_trial_cuts_is_named() -> None:
    """A person who is about to see nothing more learns it first, and what comes after."""
    first, second, *_ = trial_lines("trying wrong for 90 seconds", "then going back to v1", [LOGIN])
    assert first == "trying wrong for 90 seconds, then going back to v1"
    assert second.startswith("this cuts the session that you are in until then: the login from 198.51.100.7")
