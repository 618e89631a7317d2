"""The agent has rules begin and end by their hours, whatever the clock does (§13.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.agent.control.answers import status_answer
from sgagent.agent.control.status_text import facts
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.step import StepEnd
from tests.unit.agent.machine import GOOD, MAC, Machine
from tests.unit.agent.running import Running
from tests.unit.agent.test_expiry import rules, step_at
from tests.waiting import wait_until

RULE = """
    rules:
      - {{rule_id: office, direction: ingress, policy: {policy}, protocol: tcp, port_range: 22,
         authorization_object: any, active: {{from: "00:20", to: "00:40"}}}}
      - {{rule_id: lasting, direction: ingress, policy: accept, protocol: tcp, port_range: 80,
         authorization_object: any}}
"""
BEGIN, END = 1_200.0, 2_400.0
"""In seconds since the epoch; the clock of these tests starts at 1,000."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host with a rule that has hours."""
    return define(Machine(tmp_path / "state"))


def define(machine: Machine, policy: str = "accept") -> Machine:
    """Publish definitions with a rule that has hours."""
    text = RULE.format(policy=policy)
    machine.source.write(GOOD.replace("security_group_id: sg-1\n", "security_group_id: sg-1" + text, 1))
    return machine


def test_a_rule_comes_and_goes_each_day(machine: Machine) -> None:
    """Each edge is a step; the end bumps the generation, so that live sessions are judged again (§6.3)."""
    agent, generations = machine.reconciler(), list[int | None]([0])
    for day in (0, 86_400):
        for time, found in ((BEGIN - 0.001, False), (BEGIN, True), (END - 0.001, True), (END, False)):
            step = step_at(machine, agent, day + time)
            assert ("office" in rules(step)) is found
            generations.append(step.state.generation if step.state else generations[-1])
    assert len({*generations[1:4]}) == 1
    assert generations[4] not in generations[:4]


def test_a_clock_that_goes_back_brings_no_hours_back(machine: Machine) -> None:
    """The latest time that is known counts, over restarts too: it is late until the clock has caught up."""
    agent = machine.reconciler()
    assert rules(step_at(machine, agent, END)) == {"lasting"}
    assert rules(step_at(machine, agent, BEGIN)) == {"lasting"}
    assert rules(machine.reconciler().step(fetch=True)) == {"lasting"}
    assert rules(step_at(machine, agent, 86_400 + BEGIN)) == {"office", "lasting"}


def test_a_jump_over_the_hours_is_none_of_them(machine: Machine) -> None:
    """What was on before is off after, and the reverse."""
    agent = machine.reconciler()
    step_at(machine, agent, BEGIN - 1)
    assert rules(step_at(machine, agent, END + 1)) == {"lasting"}
    assert rules(step_at(machine, agent, 86_400 + BEGIN)) == {"office", "lasting"}
    assert rules(step_at(machine, agent, 2 * 86_400.0)) == {"lasting"}


@pytest.mark.parametrize("policy", ("accept", "drop"))
def test_what_stays_for_want_of_better_keeps_its_hours(machine: Machine, policy: str) -> None:
    """Definitions that can be enforced no more stay in force; a drop begins in these, too."""
    agent = define(machine, policy).reconciler()
    step_at(machine, agent, BEGIN - 1)
    machine.host.add_link("eth1", MAC)  # now the definitions match two links
    assert rules(step_at(machine, agent, BEGIN - 0.5)) == {"lasting"}
    began = step_at(machine, agent, BEGIN)
    assert (began.is_refused, rules(began)) == (True, {"office", "lasting"})
    assert rules(step_at(machine, agent, END)) == {"lasting"}


def test_the_status_says_until_when(machine: Machine) -> None:
    """Of rules that are on, and of those that are off."""
    agent, published = machine.reconciler(), PublishedStatus(machine.clock, lambda _: True)
    for time, said in ((BEGIN, "on until"), (END, "off until")):
        published.note_step(step_at(machine, agent, time), is_fetched=True)
        answer = status_answer(published, machine.clock, "a file")
        (line,) = (text for label, text in facts(answer, machine.clock.now()) if label == "hours")
        assert f"office of sg-1 (accept), mon-sun 00:20-00:40 UTC: {said}" in line


def test_the_loop_wakes_for_each_edge(machine: Machine, tmp_path: Path) -> None:
    """Without an event, and without asking the source."""
    running = Running(machine, tmp_path)

    def names() -> set[str]:
        return {rule.rule_id for rule in running.published.policy.interfaces[0].ingress.rules}

    def script() -> None:
        fetches = machine.source.fetches
        machine.clock.set_back(1_000.0 - BEGIN)
        wait_until(lambda: "office" in names(), "the beginning")
        machine.clock.set_back(BEGIN - END)
        wait_until(lambda: "office" not in names(), "the end")
        assert machine.source.fetches == fetches

    running.while_it_runs(script)


def test_an_edge_at_which_nothing_changes_is_no_change(machine: Machine) -> None:
    """As midnight is, between two whole days."""
    text = RULE.format(policy="accept").replace('{from: "00:20", to: "00:40"}', "{days: mon-sun, zone: UTC}")
    machine.source.write(GOOD.replace("security_group_id: sg-1\n", "security_group_id: sg-1" + text, 1))
    agent = machine.reconciler()
    agent.step(fetch=True)
    assert step_at(machine, agent, 86_400.0).outcome is StepEnd.UNCHANGED
