"""A step does what is to be done, and nothing that was done before."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from sgagent.agent.manual_override import ModeOverrides
from sgagent.agent.step import StepEnd
from sgagent.core.endpoints import Endpoint, exempt
from sgagent.core.errors import KernelRefusedError, SgagentError
from sgagent.core.model import Mode
from sgagent.nft import names
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.transactions import Plan
from tests.fakes.dataplane import FakeDataplane
from tests.unit.agent.machine import GOOD, Machine
from tests.unit.agent.test_status import LOGIN


def test_nothing_is_compiled_twice(machine: Machine) -> None:
    """A step that finds policy and table as they were returns what it knows, under the facts of now."""
    agent = machine.reconciler()
    first = agent.step(fetch=True)
    machine.host.add_link("eth9", "02:00:00:00:00:09")
    second = agent.step(fetch=True)
    assert (first.outcome, second.outcome) == (StepEnd.APPLIED, StepEnd.UNCHANGED)
    assert second.counters is first.counters
    assert second.version == first.version
    assert [link.name for link in second.facts.links] == ["eth0", "eth9", "lo"]
    assert not second.is_first_table


def test_a_change_is_told_before_the_table_changes(machine: Machine) -> None:
    """Until then the proof is of the table that stands; a step that changes nothing tells of none."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    first = machine.dataplane.ruleset
    agent.step(fetch=True)
    assert machine.changed == [None]
    machine.source.write(GOOD.replace("id: sg-1\n", "id: sg-1\n    type: advanced\n"))
    agent.step(fetch=True)
    assert machine.changed == [None, first]
    assert machine.dataplane.ruleset != first


def test_an_agent_that_finds_its_table_holds_it_once(machine: Machine) -> None:
    """What the kernel lists and what is compiled are equal, and for 10,000 rules 75 MB each."""
    machine.reconciler().step(fetch=True)
    machine.dataplane.ruleset = listed = deepcopy(machine.dataplane.ruleset)
    agent = machine.reconciler()
    assert agent.step(fetch=True).outcome is StepEnd.UNCHANGED
    assert agent.state.in_force is not None
    assert machine.dataplane.ruleset is agent.state.in_force.enforced.ruleset
    assert machine.dataplane.ruleset is not listed


def test_a_table_that_was_changed_is_looked_at(machine: Machine) -> None:
    """The same policy is brought to the kernel again where the table is another."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    desired = machine.dataplane.ruleset
    machine.dataplane.ruleset = None
    step = agent.step(fetch=False)
    assert (step.outcome, step.was_drift) == (StepEnd.APPLIED, True)
    assert machine.dataplane.ruleset == desired
    again = agent.step(fetch=False)
    assert (again.outcome, again.was_drift) == (StepEnd.UNCHANGED, False)


def test_a_change_is_brought_to_the_kernel(machine: Machine) -> None:
    """Another policy is another table, and the way back leads to the first."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    machine.source.write(GOOD.replace("security_group_ids: [sg-1]", "security_group_ids: []"))
    assert agent.step(fetch=True).outcome is StepEnd.APPLIED
    machine.source.write(GOOD)
    assert agent.step(fetch=True).outcome is StepEnd.APPLIED
    assert machine.reconciler().step(fetch=True).outcome is StepEnd.UNCHANGED


def test_a_table_whose_state_can_not_be_read_takes_two_changes(machine: Machine) -> None:
    """The first remembers no session, so that marks can be cleared; it is reported as one repair."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    desired = machine.dataplane.ruleset
    assert desired is not None
    chains = (replace(c, comment="?") if c.name == names.STATE_CHAIN else c for c in desired.chains)
    machine.dataplane.ruleset = replace(desired, chains=tuple(chains))
    machine.dataplane.marks = [0xFFFF0000]
    step = agent.step(fetch=False)
    assert (step.outcome, step.was_drift, len(machine.dataplane.applied)) == (StepEnd.APPLIED, True, 3)
    assert machine.dataplane.marks == [0]
    assert agent.step(fetch=False).outcome is StepEnd.UNCHANGED


def test_a_table_that_can_not_be_listed_counts_as_none(machine: Machine) -> None:
    """What it let through may be followed by nobody, so sessions are looked at as after a first table."""
    machine.dataplane.foreign = ("table inet sgagent",)
    step = machine.reconciler().step(fetch=True)
    assert (step.outcome, len(machine.dataplane.applied)) == (StepEnd.APPLIED, 2)
    assert step.is_first_table


def test_an_unfinished_table_counts_as_none_for_the_next_agent(machine: Machine) -> None:
    """Whoever left it, the boot or an agent that died, looked at no session."""
    machine.dataplane.foreign, machine.dataplane.refused_at = ("table inet sgagent",), 1
    assert machine.reconciler().step(fetch=True).outcome is StepEnd.REFUSED
    machine.dataplane.refused_at = None
    step = machine.reconciler().step(fetch=True)
    assert (step.outcome, step.is_first_table) == (StepEnd.APPLIED, True)


def test_a_table_that_is_spoilt_at_once_does_not_hold_a_step_up(machine: Machine) -> None:
    """To make it anew takes two changes; where the second has to make it anew too, the next step goes on."""
    machine.reconciler().step(fetch=True)
    plane = machine.dataplane = SpoiltDataplane(machine.dataplane.ruleset)
    agent = machine.reconciler()
    assert agent.step(fetch=True).outcome is StepEnd.APPLIED
    assert len(plane.applied) == 2
    plane.is_spoilt, plane.foreign = False, ()
    assert agent.has_drifted()
    assert agent.step(fetch=False).outcome is StepEnd.APPLIED
    assert len(plane.applied) == 3
    assert not agent.has_drifted()
    assert agent.step(fetch=False).outcome is StepEnd.UNCHANGED


class SpoiltDataplane(FakeDataplane):
    """A table into which another process puts what can't be deleted, at once after each change."""

    def __init__(self, ruleset: Ruleset | None) -> None:
        """Start with a table that is spoilt."""
        super().__init__()
        self.ruleset, self.foreign, self.is_spoilt = ruleset, FOREIGN, True

    def apply(self, plan: Plan) -> None:
        """Make a change, and spoil it."""
        super().apply(plan)
        self.foreign = FOREIGN if self.is_spoilt else self.foreign


FOREIGN = ("ct timeout spoilt",)


def test_a_refusal_after_the_first_of_two_changes_is_no_drift(machine: Machine) -> None:
    """The table that remembers no session is the agent's own, and no other process is named for it."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    desired = machine.dataplane.ruleset
    assert desired is not None
    chains = (replace(c, comment="?") if c.name == names.STATE_CHAIN else c for c in desired.chains)
    machine.dataplane.ruleset = replace(desired, chains=tuple(chains))
    machine.dataplane.refused_at = len(machine.dataplane.applied) + 1
    assert agent.step(fetch=False).outcome is StepEnd.REFUSED
    machine.dataplane.refused_at = None
    step = agent.step(fetch=False)
    assert (step.outcome, step.was_drift) == (StepEnd.APPLIED, False)
    assert agent.step(fetch=False).outcome is StepEnd.UNCHANGED


RULE = "{direction: ingress, policy: accept, protocol: gre, authorization_object: 192.0.2.1}"
RULED = GOOD.replace("security_group_id: sg-1\n", f"security_group_id: sg-1\n    rules: [{RULE}]\n")


def test_counters_are_read_before_those_of_a_change_go(machine: Machine) -> None:
    """A change that deletes counters, and no other, is preceded by a reading; it names exactly these."""

    def counters() -> frozenset[str]:
        table = machine.dataplane.ruleset
        return frozenset(table.counter_by_name) if table else frozenset()

    agent = machine.reconciler()
    agent.step(fetch=True)
    few = counters()
    machine.source.write(RULED)
    agent.step(fetch=True)
    assert counters() > few
    assert machine.counters_read == []
    gone = counters() - few
    machine.source.write(GOOD)
    agent.step(fetch=True)
    assert machine.counters_read == [gone]


def test_counters_that_can_not_be_read_put_off_their_removal(machine: Machine) -> None:
    """The policy is in force by then, and is stored; the next step reads and removes them."""
    machine.source.write(RULED)
    agent = machine.reconciler()
    agent.step(fetch=True)
    ruled = machine.dataplane.ruleset
    machine.source.write(GOOD)
    read = agent.before_counters_go

    def refuse(_: frozenset[str]) -> None:
        raise KernelRefusedError("another process keeps changing the ruleset")

    agent.before_counters_go = refuse
    assert agent.step(fetch=True).outcome is StepEnd.APPLIED
    in_force = agent.definitions.in_force
    assert in_force is not None
    assert not in_force.snapshot.security_groups[0].rules
    agent.before_counters_go = read
    agent.step(fetch=False)
    left = machine.dataplane.ruleset
    assert ruled is not None
    assert left is not None
    assert machine.counters_read == [frozenset(ruled.counter_by_name) - frozenset(left.counter_by_name)]


def test_counters_are_read_before_verdicts_are_carried_out_or_not(machine: Machine) -> None:
    """At each change of a mode, since the same counters count other verdicts behind it."""
    agent = machine.reconciler()
    agent.overrides = ModeOverrides(everywhere=Mode.OBSERVE)
    agent.step(fetch=True)
    assert machine.counters_read == []  # nothing was in force before
    for readings, mode in enumerate((Mode.ENFORCE, Mode.OBSERVE, None), 1):
        agent.overrides = ModeOverrides(everywhere=mode)
        assert agent.step(fetch=False).outcome is StepEnd.APPLIED
        assert len(machine.counters_read) == readings
        assert agent.step(fetch=False).outcome is StepEnd.UNCHANGED
    assert set(machine.counters_read) == {frozenset()}
    assert len(machine.counters_read) == 3


CLOSED = GOOD.replace("security_group_ids: [sg-1]", "security_group_ids: []")
BROKEN = GOOD.replace("sg-1]", "sg-2]")


def test_a_delivery_is_made_up_for_when_a_step_failed(machine: Machine) -> None:
    """The source does not call again for it."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    machine.source.write(CLOSED)
    machine.host.fault = SgagentError("links changed while they were listed")
    with pytest.raises(SgagentError, match="links changed"):
        agent.step(fetch=True)
    machine.host.fault = None
    assert agent.step(fetch=False).outcome is StepEnd.APPLIED


def test_the_way_to_the_source_is_open(machine: Machine) -> None:
    """Where the source is reached is exempt on egress, and what it moves to from the next step on (§7.4)."""
    agent = machine.reconciler()
    machine.source.reached_at = (Endpoint.at("192.0.2.10", 443),)
    first = agent.step(fetch=True)
    assert first.policy is not None
    assert first.policy.interfaces[0].egress.failsafe == exempt(machine.source.reached_at)
    machine.source.reached_at = (Endpoint.at("192.0.2.11", 443),)
    second = agent.step(fetch=False)
    assert second.outcome is StepEnd.APPLIED
    assert second.policy is not None
    assert second.policy.interfaces[0].egress.failsafe == exempt(machine.source.reached_at)


def test_a_source_that_cannot_be_reached_is_exempt_too(machine: Machine) -> None:
    """What is blocked by a table of before must be let through to be reached again (§7.4)."""
    machine.reconciler().step(fetch=True)
    machine.source.remove()
    machine.source.reached_at = (Endpoint.at("192.0.2.10", 443),)
    step = machine.reconciler().step(fetch=True)
    assert step.source_error
    assert step.policy is not None
    assert step.policy.interfaces[0].egress.failsafe == exempt(machine.source.reached_at)


def test_open_sessions_are_looked_at_before_each_change(machine: Machine) -> None:
    """The first one too; not where nothing changes, as over a restart, nor where a table is mended (§7.4)."""
    agent, machine.cut = machine.reconciler(), (LOGIN,)
    first = agent.step(fetch=True)
    assert [old for old, _ in machine.previewed] == [None]
    assert first.sessions_cut == (LOGIN,)
    assert agent.step(fetch=True).sessions_cut == ()
    machine.dataplane.ruleset = None
    assert agent.step(fetch=True).sessions_cut == ()
    assert len(machine.previewed) == 1
    machine.source.write(GOOD.replace("security_group_ids: [sg-1]", "security_group_ids: []"))
    second = agent.step(fetch=True)
    assert machine.previewed[1:] == [(first.policy, second.policy)]
    assert second.sessions_cut == (LOGIN,)
    machine.reconciler().step(fetch=True)
    assert len(machine.previewed) == 2


def test_a_change_that_the_kernel_refuses_cuts_nothing(machine: Machine) -> None:
    """What was previewed did not come to pass."""
    machine.dataplane.refusal, machine.cut = KernelRefusedError("no room"), (LOGIN,)
    assert machine.reconciler().step(fetch=True).sessions_cut == ()


def test_sessions_that_are_kept_are_not_cut(machine: Machine) -> None:
    """With ``sessions = "keep"`` only the first table ends any: it finds sessions that nobody allowed."""
    agent = machine.reconciler('[enforcement]\nsessions = "keep"\n')
    first = agent.step(fetch=True)
    machine.source.write(GOOD.replace("security_group_ids: [sg-1]", "security_group_ids: []"))
    second = agent.step(fetch=True)
    assert (second.outcome, second.state) == (StepEnd.APPLIED, first.state)
    assert len(machine.previewed) == 1


def test_counters_that_are_made_start_at_zero(machine: Machine) -> None:
    """Also those of a table that was lost: what the new one counts was not counted before."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    made = frozenset(machine.dataplane.read_counters())
    assert machine.counters_at_zero == [made]
    machine.dataplane.ruleset = None
    agent.step(fetch=False)
    assert machine.counters_at_zero == [made, made]
    agent.step(fetch=True)
    assert len(machine.counters_at_zero) == 2
