"""Rules expire by the latest time that the host has known, whatever its clock says (§12.4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgagent.agent.clock import FILE_NAME, SECONDS_BETWEEN_WRITES
from sgagent.agent.control.answers import hits_answer, status_answer
from sgagent.agent.control.hits import HitsQuery
from sgagent.agent.control.status_text import facts
from sgagent.agent.daemon import FIRST_RETRY_SECONDS
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.step import Step, StepEnd
from sgagent.cli.boot import LastGood, enforce_last_good
from sgagent.cli.output import format_json
from sgagent.core.errors import KernelRefusedError, SgagentError
from sgagent.json_model import to_json
from sgagent.nft.transactions import Plan
from sgagent.settings import Settings
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataplane
from tests.unit.agent.machine import GOOD, MAC, Machine
from tests.unit.agent.running import Running
from tests.waiting import wait_until

RULE = """
    rules:
      - {{rule_id: {name}, direction: ingress, policy: {policy}, protocol: tcp, port_range: {port},
         authorization_object: any, priority: {priority}{expires}}}
"""
END = 1_200.0
"""In seconds since the epoch; the clock of these tests starts at 1,000."""


def definitions(policy: str = "accept", expires: str = "1970-01-01T00:20:00Z") -> str:
    """Return definitions with a rule that ends at :data:`END`, and one that never does."""
    rules = RULE.format(name="brief", policy=policy, port=22, priority=1, expires=f", expires: '{expires}'")
    rules += RULE.format(name="lasting", policy="accept", port=80, priority=1, expires="").partition(":\n")[2]
    return GOOD.replace("security_group_id: sg-1\n", "security_group_id: sg-1" + rules, 1)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host with a rule that ends."""
    machine = Machine(tmp_path / "state")
    machine.source.write(definitions())
    return machine


def rules(step: Step) -> set[str]:
    """Return the rules in force."""
    assert step.policy is not None
    return {rule.rule_id for rule in step.policy.interfaces[0].ingress.rules}


def step_at(machine: Machine, agent: Reconciler, time: float) -> Step:
    """Set the clock, and do a step."""
    machine.clock.set_back(machine.clock.now() - time)
    return agent.step(fetch=True)


def test_a_rule_ends_and_the_table_changes(machine: Machine) -> None:
    """One step before, one at the instant."""
    agent = machine.reconciler()
    assert rules(step_at(machine, agent, END - 0.001)) == {"brief", "lasting"}
    before = machine.dataplane.ruleset
    ended = step_at(machine, agent, END)
    assert (ended.outcome, rules(ended)) == (StepEnd.APPLIED, {"lasting"})
    assert machine.dataplane.ruleset != before


def test_the_end_cuts_the_sessions_of_an_accept(machine: Machine) -> None:
    """Under another policy generation, so that the kernel judges them again (§6.3)."""
    agent = machine.reconciler()
    before = step_at(machine, agent, END - 1)
    after = step_at(machine, agent, END)
    assert before.state is not None
    assert after.state is not None
    assert after.state.generation != before.state.generation
    assert len(machine.previewed) == 2


@pytest.mark.parametrize(
    ("seen", "back"), ((END, 0.5), (END, 500.0), (END, 1_000.0), (END + 1e9, 1e9 + 100)), ids=str
)
def test_a_clock_that_goes_back_revives_nothing(machine: Machine, seen: float, back: float) -> None:
    """Neither in the agent that saw the end, be it by a jump forward, nor in the next one."""
    agent = machine.reconciler()
    assert rules(agent.step(fetch=True)) == {"brief", "lasting"}
    assert rules(step_at(machine, agent, seen)) == {"lasting"}
    assert rules(step_at(machine, agent, seen - back)) == {"lasting"}
    assert rules(machine.reconciler().step(fetch=True)) == {"lasting"}


def test_a_wrong_clock_at_boot_revives_nothing(machine: Machine, tmp_path: Path) -> None:
    """Before the network is up, and before any time server is asked."""
    step_at(machine, machine.reconciler(), END)
    machine.clock.set_back(machine.clock.now())
    written = (tmp_path / "state" / FILE_NAME).read_bytes()
    step = enforce_last_good(
        Settings(), machine.host, FakeDataplane(), LastGood(tmp_path / "state"), machine.clock
    )
    assert rules(step) == {"lasting"}
    assert (tmp_path / "state" / FILE_NAME).read_bytes() == written


def test_the_time_is_kept_before_the_rule_goes(machine: Machine) -> None:
    """An agent that dies while the kernel is told leaves the next one a time at which the rule had ended."""
    agent = machine.reconciler()
    step_at(machine, agent, END - 1)
    machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
    assert step_at(machine, agent, END).outcome is StepEnd.REFUSED
    machine.dataplane.refusal = None
    machine.clock.set_back(300.0)
    assert rules(machine.reconciler().step(fetch=True)) == {"lasting"}


def test_a_rule_that_comes_later_meets_the_latest_time(machine: Machine) -> None:
    """It ended before the definitions came, by the time that the host had known by then."""
    machine.source.write(GOOD)
    step_at(machine, machine.reconciler(), END + 2 * SECONDS_BETWEEN_WRITES)
    machine.clock.set_back(400.0)
    machine.source.write(definitions())
    assert rules(machine.reconciler().step(fetch=True)) == {"lasting"}


def test_a_drop_that_ended_drops_no_more(tmp_path: Path) -> None:
    """Its end opens what it closed."""
    machine = Machine(tmp_path / "state")
    machine.source.write(definitions("drop"))
    agent = machine.reconciler()
    assert rules(step_at(machine, agent, END - 1)) == {"brief", "lasting"}
    assert rules(step_at(machine, agent, END)) == {"lasting"}


def test_what_stays_for_want_of_better_loses_its_ended_rules(machine: Machine) -> None:
    """Definitions that can be enforced no more stay in force, but what has ended goes."""
    agent = machine.reconciler()
    step_at(machine, agent, END - 1)
    machine.host.add_link("eth1", MAC)  # now the definitions match two links
    assert rules(step_at(machine, agent, END - 0.5)) == {"brief", "lasting"}
    ended = step_at(machine, agent, END)
    assert ended.is_refused
    assert rules(ended) == {"lasting"}


def test_the_time_is_kept_before_a_rule_of_what_stays_goes(machine: Machine) -> None:
    """The next agent, whose clock went back, takes up the same definitions without it."""
    agent = machine.reconciler()
    step_at(machine, agent, END - 1)
    machine.host.add_link("eth1", MAC)
    assert rules(step_at(machine, agent, END)) == {"lasting"}
    machine.host.remove_link("eth1")
    machine.clock.set_back(300.0)
    assert rules(machine.reconciler().step(fetch=True)) == {"lasting"}


def test_a_damaged_file_is_a_fault(machine: Machine, tmp_path: Path) -> None:
    """The clock alone counts then, and the next time is kept again; this agent goes on to say so."""
    step_at(machine, machine.reconciler(), END)
    (tmp_path / "state" / FILE_NAME).write_bytes(b"{}")
    agent = machine.reconciler()
    (fault,) = agent.state_faults
    assert "latest time" in fault
    assert rules(agent.step(fetch=True)) == {"lasting"}
    assert agent.state_faults == (fault,)
    assert not machine.reconciler().state_faults


def test_a_time_that_can_not_be_kept_is_a_fault(machine: Machine, tmp_path: Path) -> None:
    """The rule ends all the same."""
    agent = machine.reconciler()
    agent.step(fetch=True)
    path = tmp_path / "state" / FILE_NAME
    path.unlink()
    path.mkdir()
    assert rules(step_at(machine, agent, END)) == {"lasting"}
    assert any("latest time could not be kept" in fault for fault in agent.state_faults)


def test_the_time_is_written_seldom_where_nothing_ends(machine: Machine, tmp_path: Path) -> None:
    """A minute may be lost, which nothing depends on."""
    machine.source.write(GOOD)
    agent, path = machine.reconciler(), tmp_path / "state" / FILE_NAME
    agent.step(fetch=True)
    first = path.read_bytes()
    step_at(machine, agent, 1_000.0 + SECONDS_BETWEEN_WRITES - 1)
    assert path.read_bytes() == first
    step_at(machine, agent, 1_000.0 + SECONDS_BETWEEN_WRITES)
    assert path.read_bytes() != first


def test_the_loop_wakes_for_the_end(machine: Machine, tmp_path: Path) -> None:
    """Without an event, and without asking the source."""
    running = Running(machine, tmp_path)

    def script() -> None:
        fetches = machine.source.fetches
        machine.clock.set_back(1_000.0 - END)
        running.wait_for("ruleset_applied", 2)
        assert machine.source.fetches == fetches
        assert [rule.rule_id for rule in running.published.policy.interfaces[0].ingress.rules] == ["lasting"]

    running.while_it_runs(script)


@pytest.fixture(params=("UTC", "Asia/Shanghai", "America/New_York"))
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_zone")
@pytest.mark.parametrize("expires", ("9999-12-31T00:00:00Z", "9999-12-31T23:59:59.999999Z"))
def test_a_rule_that_ends_with_the_calendar_is_shown(machine: Machine, expires: str) -> None:
    """The zone of the host may have a later day, and seconds since the epoch are rounded up."""
    machine.source.write(definitions(expires=expires))
    published = PublishedStatus(machine.clock, lambda _: True)
    published.note_step(machine.reconciler().step(fetch=True), is_fetched=True)
    status = status_answer(published, machine.clock, "a file")
    (line,) = (line for label, line in facts(status, machine.clock.now()) if label == "expires")
    assert line.startswith("9999-12-3")
    for answer in (status, hits_answer(published, HitsQuery())):
        assert '"9999-12-31T' in format_json(to_json(answer))


class SlowDataplane(FakeDataplane):
    """Take seconds for each change, as the kernel does for the largest tables."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        """Take the clock that passes."""
        super().__init__()
        self._clock = clock
        self._seconds = seconds

    def apply(self, plan: Plan) -> None:
        """Carry the change out, or refuse it, in so many seconds."""
        self._clock.pass_seconds(self._seconds)
        super().apply(plan)


@pytest.mark.parametrize("is_fetched", (False, True), ids=("after another end", "after new definitions"))
def test_a_rule_ending_in_a_step_goes_after_it(machine: Machine, tmp_path: Path, *, is_fetched: bool) -> None:
    """Without waiting for the next fetch."""
    machine.dataplane = SlowDataplane(machine.clock, 2.0)
    lasting = "lasting, direction: ingress"
    later = definitions().replace(lasting, f"lasting, expires: '1970-01-01T00:20:01Z', {lasting[9:]}")
    machine.source.write(later)
    running = Running(machine, tmp_path)

    def script() -> None:
        fetches = machine.source.fetches
        if is_fetched:
            machine.clock.set_back(machine.clock.now() - (END - 1))
            machine.source.write(later.replace("port_range: 80", "port_range: 81"))
            fetches += 1
        else:
            machine.clock.set_back(machine.clock.now() - END)
        wait_until(lambda: not running.published.policy.expiring, "the end of both rules")
        assert machine.source.fetches == fetches

    running.while_it_runs(script)


def test_a_kernel_that_refuses_the_end_is_asked_again_with_patience(machine: Machine, tmp_path: Path) -> None:
    """Once after the first delay, not at every turn of the loop."""
    running = Running(machine, tmp_path)

    def script() -> None:
        machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
        machine.clock.set_back(1_000.0 - END)
        wait_until(lambda: running.published.status.step.outcome is StepEnd.REFUSED, "a refusal")
        refused = running.published.status.outcomes[StepEnd.REFUSED]
        for _ in range(3):  # each reading takes a turn
            running.inbox.wait_for_reading(10.0)
        assert running.published.status.outcomes[StepEnd.REFUSED] == refused
        machine.dataplane.refusal = None
        machine.clock.pass_seconds(4 * FIRST_RETRY_SECONDS)
        running.wait_for("ruleset_applied", 2)

    running.while_it_runs(script)


def test_a_step_that_fails_at_the_end_is_tried_again_with_patience(machine: Machine, tmp_path: Path) -> None:
    """The loop does not go round and round for an end that it could not bring about."""
    running = Running(machine, tmp_path)

    def script() -> None:
        machine.host.fault = SgagentError("links or addresses changed again whenever they were listed")
        machine.clock.set_back(1_000.0 - END)
        running.wait_for("step_failed")
        looks = machine.host.looks
        for _ in range(3):  # each reading takes a turn
            running.inbox.wait_for_reading(10.0)
        assert machine.host.looks == looks
        machine.host.fault = None
        machine.clock.pass_seconds(4 * FIRST_RETRY_SECONDS)
        running.wait_for("ruleset_applied", 2)

    running.while_it_runs(script)
