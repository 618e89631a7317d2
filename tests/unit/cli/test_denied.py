"""The report of ``sgagent denied``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.control.answers import denied_answer
from sgagent.agent.control.protocol import decode_answer, encode_answer
from sgagent.agent.control.requests import DeniedAnswer, DeniedQuery, Query
from sgagent.agent.control.server import control_served
from sgagent.agent.flowlog.flowlog import FlowLog
from sgagent.agent.inbox import Wanted, always
from sgagent.cli.denied import FollowedTable, report
from sgagent.core.clauses import DecidedBy
from sgagent.core.errors import UsageError
from sgagent.core.model import TCP, Direction, Mode, Policy
from sgagent.core.policy import FlowLogging, ResolvedPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.patience import PATIENCE
from tests.unit.agent.flowlog.flows import dropped, left_out
from tests.words import ACCEPT, group, policy_of, rule

BY_RULE = replace(
    dropped(2),
    interface="eth1",
    direction=Direction.EGRESS,
    mode=Mode.OBSERVE,
    decided_by=DecidedBy.RULE,
    rule_id="r1",
    security_group_id="sg-web",
    priority=5,
    is_reply=True,
)
ANSWER = DeniedAnswer(
    begun_at=1_000.0, newest=2, flows=(dropped(1), BY_RULE), left_out=(left_out(990),), rate_per_second=10
)

POLICY = policy_of(group("sg-1", rule("sgr-1", ACCEPT, TCP, "80", "0.0.0.0/0")))
"""What is in force, on eth0."""


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tell times as UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_drops_that_read_alike_are_one_line_with_names_for_addresses() -> None:
    """With how many they are, and when the newest was; who has no name keeps the address."""
    again = replace(dropped(3), source=replace(dropped(3).source, port=40_001))
    lines = report(replace(ANSWER, flows=(dropped(1), BY_RULE, again)), 20, None)
    assert [" ".join(line.split()) for line in lines] == [
        "TIME PACKETS INTERFACE WAY TRAFFIC FROM TO BY",
        "2023-11-14 22:13:22 1 eth1 out tcp 22 (reply) 203.0.113.9 eni-web-1 (sg-web) would, by r1",
        "2023-11-14 22:13:23 2 eth0 in tcp 22 203.0.113.9 eni-web-1 (sg-web) the default",
        "990 more packets dropped on eth0 ingress by the default, not logged one by one",
    ]


def test_what_a_limit_drops_is_said_to_be() -> None:
    """The rule alone accepts (§13.1)."""
    over = replace(BY_RULE, mode=Mode.ENFORCE, decided_by=DecidedBy.OVER_LIMIT)
    assert report(replace(ANSWER, flows=(over,), left_out=()), 20, None)[1].endswith(" r1 (over_limit)")


def test_followed_rows_stand_below_each_other() -> None:
    """Columns grow, and the headings come once."""
    table = FollowedTable()
    assert table.lines((), None) == []
    first, second, third = (
        *table.lines((dropped(1),), None),
        *table.lines((replace(dropped(2), protocol="udp"),), None),
    )
    assert first.split()[:2] == ["TIME", "PACKETS"]
    assert second.index("203.0.113.9") == third.index("203.0.113.9")
    (longer,) = table.lines((replace(dropped(3), interface="a-long-name-1"),), None)
    (after,) = table.lines((dropped(4),), None)
    assert longer.index("203.0.113.9") == after.index("203.0.113.9")


def test_only_the_newest_are_shown() -> None:
    """And how to see the others."""
    lines = report(ANSWER, 1, None)
    assert "eth1" in lines[1]
    assert lines[2] == "… and 1 earlier: --lines 2 shows them"


def test_the_report_fits_the_terminal() -> None:
    """Names are folded before lines wrap, and can be read whole."""
    long = replace(BY_RULE, rule_id="sgr-" + 60 * "x")
    lines = report(replace(ANSWER, flows=(long,), left_out=()), 20, 80)
    assert max(len(line) for row in lines for line in row.split("\n")) <= 80
    assert "\n".join(lines).count("x") == 60


def test_no_drop_is_remembered() -> None:
    """It says since when, as there were others before a restart; and where none can be known, why."""
    nothing = replace(ANSWER, newest=0, flows=(), left_out=())
    (line,) = report(nothing, 20, None)
    assert line.startswith("no drop is recorded since the agent started at 1970-01-01 00:16:40+00:00;")
    assert report(replace(nothing, unavailable="the kernel\x1b"), 20, None) == [
        "drops are not recorded: the kernel\\x1b"
    ]


def test_drops_that_were_not_asked_for_are_not_denied() -> None:
    """There are others; and with no line wanted, only their number is shown."""
    (line,) = report(replace(ANSWER, flows=(), left_out=()), 20, None)
    assert line.startswith("no such drop is recorded since the agent started at ")
    (line,) = report(replace(ANSWER, left_out=()), 0, None)
    assert line.startswith("… and ")


def agent(*, logging: FlowLogging | None = None, unavailable: str | None = None) -> FlowLog:
    """Return the flow log of an agent that dropped two."""
    made = FlowLog(
        FakeClock(),
        FakeLog(),
        logging=FlowLogging(verdicts=frozenset({Policy.DROP})) if logging is None else logging,
        unavailable=unavailable,
    )
    made.drops = (dropped(1), BY_RULE)
    return made


@pytest.mark.parametrize(
    ("question", "numbers"),
    (
        (DeniedQuery(), [1, 2]),
        (DeniedQuery(after=1), [2]),
        (DeniedQuery(interface="eth0"), [1]),
        (DeniedQuery(direction=Direction.EGRESS), [2]),
        (DeniedQuery(rule_id="r1"), [2]),
        (DeniedQuery(rule_id="r1", interface="eth0"), []),
    ),
)
def test_a_question_restricts_what_is_told(question: DeniedQuery, numbers: list[int]) -> None:
    """Where to go on is told all the same."""
    answer = denied_answer(agent(), question, ResolvedPolicy())
    assert [flow.number for flow in answer.flows] == numbers
    assert (answer.newest, answer.begun_at, answer.unavailable) == (2, 1_000.0, None)


@pytest.mark.parametrize(
    ("question", "message"),
    (
        (DeniedQuery(rule_id="sgr-gone"), "no rule sgr-gone is active on this host"),
        (DeniedQuery(interface="eth9"), r"eth9 is not bound \(bound: eth0\)"),
        (DeniedQuery(interface="eth0", rule_id="sgr-gone"), "no rule sgr-gone"),
    ),
)
def test_what_is_not_there_is_wrong_use(question: DeniedQuery, message: str) -> None:
    """A typing mistake is no "nobody was dropped"; before anything is enforced nobody knows yet."""
    with pytest.raises(UsageError, match=message):
        denied_answer(agent(), question, POLICY)
    assert denied_answer(agent(), question, ResolvedPolicy()).flows == ()
    assert denied_answer(agent(), replace(question, after=2), POLICY).flows == ()


def test_a_rule_that_is_gone_may_be_remembered() -> None:
    """What it dropped is told all the same, and a rule in force that dropped nobody is known."""
    assert len(denied_answer(agent(), DeniedQuery(rule_id="r1"), POLICY).flows) == 1
    assert denied_answer(agent(), DeniedQuery(rule_id="sgr-1"), POLICY).flows == ()


def test_where_nobody_is_told_of_the_answer_says_why() -> None:
    """The configuration, the kernel, or another program."""
    for flow_log in (None, agent(logging=FlowLogging())):
        assert "flow_log.dropped" in (denied_answer(flow_log, DeniedQuery(), POLICY).unavailable or "")
    assert denied_answer(agent(unavailable="taken"), DeniedQuery(), POLICY).unavailable == "taken"


def test_an_answer_arrives_as_it_was_sent() -> None:
    """Flows, their ends, and what was left out."""
    assert decode_answer(DeniedQuery(), encode_answer(ANSWER)) == ANSWER


@pytest.mark.parametrize("options", ((), ("--json",)))
def test_following_ends_with_its_reader(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As of ``sgagent denied --follow | head``: at once, although nothing more is dropped."""
    (tmp_path / "sgagent.toml").write_text(f'[state]\nruntime_directory = "{tmp_path}"\n')
    command = ("-m", "sgagent", "denied", "--follow", *options, "--config", f"{tmp_path}/sgagent.toml")

    def answer(question: Query, _is_wanted: Wanted = always, /) -> DeniedAnswer:
        assert isinstance(question, DeniedQuery)
        return replace(ANSWER, flows=() if question.after else ANSWER.flows)

    with control_served(tmp_path, answer, FakeLog()):
        follower = subprocess.Popen(  # noqa: S603 - our own program
            (sys.executable, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with follower:
            try:
                assert follower.stdout is not None
                assert follower.stderr is not None
                assert follower.stdout.readline() != b""
                follower.stdout.close()
                assert (follower.wait(20 * PATIENCE), follower.stderr.read()) == (128 + signal.SIGPIPE, b"")
            finally:
                follower.kill()
