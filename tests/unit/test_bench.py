"""What the bench invents, and what it makes of what was measured."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from bench.answers import LINT, PLAN_A_RULE, measure_answers
from bench.daemon import AtWork, Changed
from bench.definition_writers import Change, Notice
from bench.durations import FIRST_APPLY
from bench.goals import judge_goals
from bench.linear import Order, render_linear
from bench.packetcost import CONNTRACK_ONLY, OURS
from bench.picture import draw
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy, invent, with_member, with_rule
from bench.report import BEGIN, END, insert_tables
from bench.results import Command, Duration, Machine, PacketCost, Results, Spread, read_results, write_results
from bench.sizes import SIZES, Size
from bench.traffic import Aim
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents

MACHINE = Machine(processors=2, kernel="6.12", nftables="nftables v1.1.3", python="3.13.5", load=0.1)


def resolved_from_document(policy: BenchPolicy) -> ResolvedPolicy:
    """Return what sgagent makes of the policy's document."""
    snapshot, _ = parse_documents([DocumentFile("bench.json", policy.document().encode())], Limits())
    by_hand = HandBinding(interface=INTERFACE, security_group_ids=(GROUP_ID,))
    bindings = bind(snapshot, [by_hand], HostFacts(), automatically=False)
    return resolve(snapshot, bindings, Exemptions()).policy


@pytest.mark.parametrize("size", SIZES[:2])
def test_the_document_says_what_is_compiled(size: Size) -> None:
    """The policy that packets are sent through is the one that commands read."""
    policy = invent(size)
    assert resolved_from_document(policy) == policy.resolved


def test_answers_are_measured() -> None:
    """A plan of each change and lint have a duration; a goal holds them to a second, and is judged by it."""
    durations = tuple(measure_answers(invent(SIZES[0]), repeats=1))
    assert {duration.operation for duration in durations} >= {LINT, PLAN_A_RULE}
    at_size = tuple(replace(duration, size=SIZES[2]) for duration in durations)
    results = Results(machine=MACHINE, is_quick=False, durations=at_size)
    assert [goal.is_met for goal in judge_goals(results)] == [True, True]
    slow = tuple(replace(duration, seconds=Spread(1.1, 1.1, 1.1)) for duration in at_size)
    assert [goal.is_met for goal in judge_goals(replace(results, durations=slow))] == [False, False]


def test_a_policy_has_its_size() -> None:
    """As many rules and members as were asked for, and one more of each after a change."""
    policy = invent(Size(100, 1_000))
    assert len(policy.rules) == 100
    assert sum(len(group.numbers) for group in policy.groups) == 1_000
    assert len(with_rule(policy).rules) == 101
    assert sum(len(group.numbers) for group in with_member(policy).groups) == 1_001


def test_a_list_has_every_rule_in_order() -> None:
    """The linear ruleset has a line for each rule, and what it looks at first comes first."""
    policy = invent(SIZES[0])
    by_address = render_linear(policy.resolved, Order.ADDRESS_FIRST).splitlines()
    by_port = render_linear(policy.resolved, Order.PORT_FIRST).splitlines()
    assert sum("dport" in line for line in by_address) == 10
    assert any(line.startswith("ip saddr @sg-0 tcp dport") for line in by_address)
    assert any("dport" in line and line.endswith("ip saddr @sg-0 counter accept") for line in by_port)


def measured(ours: dict[Size, float], linear: float, *, of_few: float = 700.0) -> Results:
    """Return results with these costs of new sessions above conntrack only; a short list has its own."""
    figures = [(size, OURS, cost) for size, cost in ours.items()]
    figures += [
        (size, order.value, of_few if size == SIZES[0] else cost)
        for size in ours
        for order, cost in ((Order.ADDRESS_FIRST, linear), (Order.PORT_FIRST, linear / 2))
    ]
    figures += [(size, CONNTRACK_ONLY, 0.0) for size in ours]
    packets = tuple(
        PacketCost(
            size=size,
            session="new",
            aim=aim.value,
            contender=contender,
            whole=Spread.of([cost + 700]),
            above=Spread.of([cost]),
        )
        for aim in Aim
        for size, contender, cost in figures
    )
    return Results(machine=MACHINE, is_quick=False, packets=packets)


FINE = measured({SIZES[0]: 400.0, SIZES[2]: 800.0, SIZES[3]: 1_200.0}, linear=40_000.0)


def test_goals_are_met_or_missed_by_what_was_measured() -> None:
    """Growing threefold is allowed and more is not; fifty times less is enough, for few rules the same."""
    assert {goal.is_met for goal in judge_goals(FINE)} == {True}
    slow = measured({SIZES[0]: 400.0, SIZES[2]: 1_100.0, SIZES[3]: 2_601.0}, linear=40_000.0, of_few=399.0)
    assert {goal.is_met for goal in judge_goals(slow)} == {False}


def test_results_survive_being_written(tmp_path: Path) -> None:
    """What is read back equals what was written."""
    spread = Spread.of([1.0, 2.0, 4.0])
    results = replace(
        FINE,
        durations=(Duration(size=SIZES[0], operation="compile", contender=OURS, seconds=spread),),
        commands=(Command(size=SIZES[0], command="x", seconds=1.5, peak_mebibytes=40.0, status=0),),
    )
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


def test_tables_replace_what_stood_between_the_marks() -> None:
    """The text around the tables stays; the old tables go."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    written = insert_tables(page, FINE)
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert "| 1,000/10,000 | spread | *700* | 800 | 40,000 (50.0× ≥ 50×) | 20,000 (25.0× ≥ 20×) |" in written
    assert insert_tables(written, FINE) == written


def test_a_page_without_marks_is_left_alone() -> None:
    """There is no guessing where the tables belong."""
    with pytest.raises(ValueError, match="no place"):
        insert_tables("nothing", FINE)


def points(picture: str, label: str) -> list[float]:
    """Return how far down the points of a line lie, from left to right."""
    root = ET.fromstring(picture)  # noqa: S314 - drawn just now
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    titles = [(circle.findtext("{http://www.w3.org/2000/svg}title") or "", circle) for circle in circles]
    return [float(circle.get("cy", "0")) for title, circle in titles if title.startswith(f"{label}: ")]


def test_the_picture_has_a_point_for_every_figure() -> None:
    """It is well-formed, and each size of each line has its point, higher where it costs more."""
    picture = draw(FINE)
    ours = points(picture, "sgagent, new session")
    assert len(ours) == 3
    assert ours == sorted(ours, reverse=True)
    assert len(points(picture, "linear, address first")) == 3


def test_the_picture_has_a_chart_for_each_that_was_measured() -> None:
    """Loads, changes and memory have theirs where there are figures, and none else."""
    changed = Changed(
        change=Change.MEMBER.value,
        notice=Notice.SIGNAL.value,
        enforced=(0.02, 0.03),
        processor_seconds=0.02,
        by_nft=(0.01,),
        processor_seconds_by_nft=0.01,
    )
    at_work = [
        AtWork(size=size, start_seconds=1.0, mebibytes=80.0, mebibytes_later=later, changed=(changed,))
        for size, later in zip(SIZES[1:], (80.0, 90.0, 250.0), strict=True)
    ]
    spread = Spread.of([0.5])
    load = Duration(size=SIZES[0], operation=FIRST_APPLY, contender=OURS, seconds=spread)
    picture = draw(replace(FINE, durations=(load,)), at_work)
    labels = (
        "sgagent compile",
        "sgagent, the daemon",
        "nft, the same transaction",
        "the daemon, both processes",
    )
    assert [len(points(picture, label)) for label in labels] == [1, 3, 3, 3]
    assert points(picture, "the daemon, both processes")[0] > points(picture, "the daemon, both processes")[2]
    assert "Memory" not in draw(FINE)
