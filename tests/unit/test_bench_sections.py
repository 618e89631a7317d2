"""What benches make of their figures: tables, and goals that are met or missed."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from bench import churn, questions, scrape, starting, stream_losses, throughput
from bench.churn import Churn, Sample
from bench.daemon import AtWork, Changed, judge, judge_memory
from bench.definition_writers import Change, Notice
from bench.goals import Goal
from bench.packetcost import CONNTRACK_ONLY, NO_FIREWALL, OURS
from bench.report import END
from bench.results import Spread
from bench.scrape import Scraped
from bench.section import Section, figure, goal_table, percentile, table
from bench.sending import Stream
from bench.sizes import SIZES, Size
from bench.starting import Compared
from bench.stream_losses import Losses, Situation, Streams, Waits
from bench.throughput import Carried

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "text"),
    (
        (0.0, "0"),
        (0.98765, "0.988"),
        (1.0, "1"),
        (12.345, "12.3"),
        (0.00123, "0.00123"),
        (12_345.6, "12,346"),
    ),
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    """Whole numbers stay whole, and small ones keep what counts."""
    assert figure(value) == text


def test_a_percentile_is_one_of_the_values() -> None:
    """99 of 100 values are not above it, and nothing is made up between two values."""
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([3.0], 99) == 3.0


def test_a_missed_goal_is_seen() -> None:
    """The table says of each goal whether it is met."""
    goals = [Goal("fast", "at most 2", 1.5, is_met=True), Goal("small", "at most 1", 1.5, is_met=False)]
    assert [line.split(" | ")[-1] for line in goal_table(goals)][2:4] == ["met |", "**missed** |"]


def test_a_table_has_a_row_for_each() -> None:
    """Head, rule, rows, and an empty line that ends it."""
    assert list(table(("a", "b"), [("1", "2")])) == ["| a | b |", "|---|---|", "| 1 | 2 |", ""]


def at_work(size: Size, change: Change, enforced: float, by_nft: float) -> AtWork:
    """Return a daemon for which every change of a kind took the same."""
    changed = Changed(
        change=change.value,
        notice=Notice.SIGNAL.value,
        enforced=(enforced,) * 100,
        processor_seconds=enforced,
        by_nft=(by_nft,) * 100,
        processor_seconds_by_nft=by_nft,
    )
    return AtWork(size=size, start_seconds=1.0, mebibytes=80.0, mebibytes_later=80.0, changed=(changed,))


@pytest.mark.parametrize(
    ("change", "enforced", "is_met"),
    (
        (Change.MEMBER, 0.024, True),
        (Change.MEMBER, 0.026, False),
        (Change.RULE, 0.029, True),
        (Change.RULE, 0.031, False),
    ),
)
def test_changes_are_held_to_what_nft_takes(change: Change, enforced: float, *, is_met: bool) -> None:
    """A member twice and five milliseconds, a rule three times; small policies are not judged."""
    found = [at_work(size, change, enforced, 0.01) for size in SIZES[1:3]]
    assert [goal.is_met for goal in judge(found)] == [is_met]


def test_memory_is_held_to_what_was_promised() -> None:
    """80 MiB at 1,000 rules, 300 at 10,000; small policies are not judged."""
    found = [replace(at_work(size, Change.RULE, 0.03, 0.01), mebibytes_later=81.0) for size in SIZES[1:]]
    assert [goal.is_met for goal in judge_memory(found)] == [False, True]


def test_commands_are_held_to_their_baselines() -> None:
    """By processor time in multiples, and by the clock and memory where that was promised."""
    quick = Compared(
        command="a",
        elapsed=0.9,
        seconds=0.3,
        mebibytes=50.0,
        baseline="b",
        baseline_seconds=0.1,
        limit=4.0,
        most_seconds=1.0,
        most_processor_seconds=0.4,
        most_mebibytes=60.0,
    )
    slow = replace(quick, elapsed=1.1, seconds=0.5, mebibytes=61.0)
    assert [goal.is_met for goal in starting.judge([quick, slow])] == [True] * 4 + [False] * 4


def streams(*, leaked: int = 0, lost: int = 0, denied: int = 2_000_000, worst: float = 1_500.0) -> Streams:
    """Return streams of which little was lost and little waited."""
    counted = Losses(
        change="everything replaced",
        applies=50,
        accepted=1_000_000,
        accepted_lost=lost,
        known=1_000_000,
        known_lost=0,
        denied=denied,
        leaked=leaked,
    )
    quiet = dict.fromkeys((stream.value for stream in Stream), Waits(1_000, 5.0, 20.0, 600.0, 0))
    waits = {situation.value: quiet for situation in Situation}
    waits[Situation.HERE.value] = quiet | {Stream.KNOWN.value: Waits(1_000, 5.0, 20.0, worst, 1)}
    return Streams(size=SIZES[2], losses=(counted,), waits=waits)


@pytest.mark.parametrize(
    ("found", "missed"),
    (
        (streams(), []),
        (streams(leaked=1), [0]),
        (streams(denied=999_999), [0]),
        (streams(lost=1), [1]),
        (streams(worst=1_601.0), [3]),
    ),
)
def test_traffic_is_held_to_what_was_promised(found: Streams, missed: list[int]) -> None:
    """One packet is too many, a million is the least, and waits count above those without applies."""
    goals = list(stream_losses.judge(found))
    assert [number for number, goal in enumerate(goals) if not goal.is_met] == missed


def test_waits_are_told_in_microseconds() -> None:
    """The half, what few exceed, the worst, and how many took more than a millisecond."""
    waits = Waits.of([1_000] * 1_998 + [1_000_000, 1_000_001])
    assert waits == Waits(2_000, 1.0, 1.0, 1_000.001, 1)


def churned(*, lag: float = 0.5, missing: int = 0, processor: float = 1.0, applies: int = 10) -> Churn:
    """Return three seconds of a thousand changes each; the last is as told."""
    first = Sample(changes=1_000, applies=10, processor_seconds=1.0, mebibytes=90.0, lags=(0.4,))
    last = Sample(changes=1_000, applies=applies, processor_seconds=processor, mebibytes=90.0, lags=(lag,))
    return Churn(
        way="files", seconds=3.0, samples=(first, first, last), last_lag=0.3, missing=missing, left_over=0
    )


@pytest.mark.parametrize(
    ("found", "missed"),
    (
        (churned(), []),
        (churned(lag=2.1), [0]),
        (churned(missing=1), [1]),
        (churned(processor=1.2), [2]),
        (churned(applies=1_000), [4]),
    ),
)
def test_churn_is_held_to_what_was_promised(found: Churn, missed: list[int]) -> None:
    """It keeps up, is right in the end, stays as it is, and takes many changes at once."""
    goals = list(churn.judge([found]))
    assert [number for number, goal in enumerate(goals) if not goal.is_met] == missed


def test_a_figure_that_misses_its_limit_is_bold() -> None:
    """The table of many changes has no column for that."""
    rows = [line for line in churn.lines([churned(lag=2.1)]) if "**" in line]
    assert rows == ["| ms until enforced, worst | ≤ 2,000 | **2,100** |"]


@pytest.mark.parametrize(
    ("alone", "with_scrapes", "missed"), ((0.2, 0.1, []), (0.251, 0.1, [0]), (0.2, 0.12, [1]))
)
def test_scrapes_are_held_to_what_was_promised(alone: float, with_scrapes: float, missed: list[int]) -> None:
    """A scrape takes so long at most, and slows no change."""
    found = Scraped(
        size=SIZES[3],
        kibibytes=2_500.0,
        alone=(alone,),
        meanwhile=(0.5,),
        without=(0.1,),
        with_scrapes=(with_scrapes,),
    )
    goals = list(scrape.judge(found))
    assert [number for number, goal in enumerate(goals) if not goal.is_met] == missed


@pytest.mark.parametrize(("share", "is_met"), ((0.98, True), (0.97, False)))
def test_throughput_is_held_to_that_without_a_firewall(share: float, *, is_met: bool) -> None:
    """What sgagent carries counts, of what the kernel joins: that comes first."""
    found = [
        Carried(packets=packets, contender=contender, gigabits=Spread.of([5.0]), share=Spread.of([value]))
        for packets, ours in (("joined", share), ("small", 0.9))
        for contender, value in ((NO_FIREWALL, 1.0), (CONNTRACK_ONLY, 0.5), (OURS, ours))
    ]
    assert [goal.is_met for goal in throughput.judge(found)] == [is_met]


def test_numbers_are_kept_whatever_they_are_of() -> None:
    """What is kept can be read again by anybody, values within values, too."""
    kept = json.loads(Section("stream", [], streams(lost=3)).json)
    assert kept["losses"][0]["accepted_lost"] == 3
    assert kept["waits"][Situation.QUIET.value][Stream.KNOWN.value]["worst"] == 600.0
    (kept,) = json.loads(Section("churn", [], [churned(lag=0.7)]).json)
    assert kept["samples"][-1]["lags"] == [0.7]
    (kept,) = json.loads(Section("daemon", [], [at_work(SIZES[2], Change.RULE, 0.02, 0.01)]).json)
    assert kept["size"] == {"rules": 1_000, "members": 10_000}


@pytest.mark.parametrize("shape", questions.SHAPES)
def test_questions_are_asked_of_every_shape(shape: str) -> None:
    """Of each there are findings and figures, and a goal is judged by the slowest."""
    asked = questions.ask_about(shape, 50)
    assert asked.findings
    fast = replace(asked, rules=questions.RULES[1], lint_seconds=0.1, lint_mebibytes=50.0, plan_seconds=0.1)
    slow = replace(fast, lint_seconds=6.0, plan_seconds=2.0)
    assert [goal.is_met for goal in questions.judge([fast])] == [True, True, True]
    assert [goal.is_met for goal in questions.judge([fast, slow])] == [False, True, False]
    assert any(shape in line for line in questions.lines([fast]))


PAGES = tuple(ROOT / name for name in ("docs/performance.md", "bench/costs.md", "bench/peers.md"))
_STAMP = re.compile(r"Measured at [0-9a-f]{8,}, (\d{4}-\d\d-\d\d)(: \*\*older than the program\*\*)?\.")
_MOST_DAYS = 7


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone knows when the program changed")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_that_are_older_than_the_program_say_so(page: Path) -> None:
    """Tables name the commit that was measured, and if the program has changed a week after it, that too."""
    command = ("git", "log", "-1", "--format=%cs", "--", "sgagent")
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - git
    changed, found = date.fromisoformat(told.strip()), tables_of(page)
    assert found
    for name, text in found.items():
        stamp = _STAMP.search(text)
        assert stamp, f"{name} does not say what was measured"
        is_said, age = bool(stamp[2]), (changed - date.fromisoformat(stamp[1])).days
        assert is_said or age <= _MOST_DAYS, f"measure {name} again, or have it say that it is older"


def tables_of(page: Path) -> dict[str, str]:
    """Return the parts of a page that benches write, by name."""
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r"<!-- (\w+): begin -->\n(.*?)<!-- \1: end -->", text, re.DOTALL)
    return dict(parts) | dict(re.findall(f"(measured): .*?\n(.*?){re.escape(END)}", text, re.DOTALL))
