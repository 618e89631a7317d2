"""The daemon's loop, on a host in memory: what wakes it, what it tries again, and what ends it."""

from __future__ import annotations

import errno
import gc
import math
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from sgagent.agent.control.answers import PATIENCE_SECONDS, Dispatcher
from sgagent.agent.control.requests import ApplyCommand, Document, EnforcedAnswer, ReloadCommand
from sgagent.agent.daemon import FIRST_RETRY_SECONDS, TICK_SECONDS
from sgagent.agent.inbox import LoopEvent, StoppedError, StopRequest
from sgagent.agent.step import FaultLog, StepEnd
from sgagent.core.errors import (
    DocumentError,
    KernelRefusedError,
    LinksUnreadableError,
    NotPermittedError,
    SgagentError,
    SourceUnavailableError,
    UsageError,
)
from sgagent.ports import Delivery
from tests.fakes.log import FakeLog
from tests.fakes.source import FakeSource
from tests.unit.agent.machine import GOOD, MAC, Machine
from tests.unit.agent.running import Running
from tests.unit.agent.test_steps import BROKEN, CLOSED
from tests.waiting import wait_until


def test_a_start_and_a_stop(running: Running) -> None:
    """The first step is done before the agent says that it started; the table stays behind."""
    running.while_it_runs(lambda: None)
    assert running.log.events() == ["ruleset_applied", "agent_started", "agent_stopped"]
    assert len(running.first_steps) == 1
    assert running.machine.dataplane.ruleset is not None


def test_damage_is_logged_once_and_shown_although_the_file_is_written_anew(tmp_path: Path) -> None:
    """The first step keeps the source's definitions, so nothing else would tell that a hold was lost."""
    machine = Machine(tmp_path)
    machine.source.write(GOOD)
    Running(machine, tmp_path).while_it_runs(lambda: None)
    newest = machine.state.history.path(1)
    newest.write_bytes(b"garbage")
    running = Running(machine, tmp_path)
    running.while_it_runs(lambda: None)
    assert str(newest) in str(running.log.keys_of("state_damaged")["reason"])
    assert running.log.events().count("state_damaged") == 1
    assert machine.state.load()[0] is not None
    (fault,) = running.published.faults
    assert str(newest) in fault


def test_a_fault_is_logged_once_whatever_comes_and_goes_beside_it() -> None:
    """It is logged again only after it was gone."""
    log = FakeLog()
    faults = FaultLog(log.error)
    for found in (["a"], ["a", "b"], ["a", None], [], ["b"]):
        faults.log("state_damaged", *found)
    assert [keys["reason"] for _, keys in log.lines] == ["a", "b", "b"]


def test_sessions_are_looked_at_once_a_first_table_is_finished(running: Running) -> None:
    """The kernel refuses the second of its two changes; the step that makes up for it is the first of all."""

    def script() -> None:
        assert not running.first_steps
        dataplane.refused_at = None
        running.clock.pass_seconds(FIRST_RETRY_SECONDS)
        running.wait_for("ruleset_applied")

    dataplane = running.machine.dataplane
    dataplane.foreign, dataplane.refused_at = ("table inet sgagent",), 1
    running.while_it_runs(script)
    assert running.log.events().count("ruleset_refused") == 1
    (step,) = running.first_steps
    assert step.outcome is StepEnd.APPLIED


def test_cycles_are_collected_from_the_first_step_on(running: Running) -> None:
    """A start collects none, which would take a tenth of it; what follows may last for years."""
    gc.disable()
    try:
        running.while_it_runs(lambda: None)
        assert gc.isenabled()
    finally:
        gc.enable()


class SilentSource(FakeSource):
    """Takes seconds to deliver."""

    def __init__(self, content: str) -> None:
        """Start with one document."""
        super().__init__(content)
        self.asked = threading.Event()

    def fetch(self) -> Delivery:
        """Return what was written last, too late."""
        self.asked.set()
        pause = threading.Event()
        for _ in range(200):  # a signal just before a wait begins is heard at its end
            pause.wait(0.05)
        return super().fetch()


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_the_wait_for_the_source(running: Running, number: signal.Signals) -> None:
    """A start that waits for a source goes on without, and stops at once."""
    source = SilentSource(GOOD)
    running.commands.reconciler.source = source

    def stop() -> None:
        source.asked.wait(10)
        os.kill(os.getpid(), number)

    thread, began = threading.Thread(target=stop), time.monotonic()
    thread.start()
    running.daemon.run()
    thread.join()
    assert running.log.events()[-2:] == ["agent_started", "agent_stopped"]
    assert str(running.log.keys_of("source_failed")["reason"]).startswith("a signal to stop")
    assert time.monotonic() - began < 5


def test_a_signal_before_the_source_is_asked_counts_too() -> None:
    """The request is made once, and ends no wait that comes after it was heard."""
    stop = StopRequest()
    with stop.ends_wait():
        pass
    stop.make()
    with pytest.raises(StoppedError), stop.ends_wait():
        raise AssertionError
    stop.make()


def test_signals_stop_and_reload(running: Running) -> None:
    """SIGHUP asks the source again, SIGTERM ends the loop; afterwards signals do what they did before."""
    before = signal.getsignal(signal.SIGTERM)

    def script() -> None:
        fetches = running.machine.source.fetches
        os.kill(os.getpid(), signal.SIGHUP)
        running.wait_for_fetches(fetches + 1)
        os.kill(os.getpid(), signal.SIGTERM)
        running.wait_for("agent_stopped")

    running.while_it_runs(script)
    assert running.log.events().count("reload_requested") == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ordered_reload_says_what_came_of_it(running: Running) -> None:
    """What is not enforced is an error of whoever ordered; the previous rules stay active."""

    def script() -> None:
        source, dataplane = running.machine.source, running.machine.dataplane
        dispatcher = Dispatcher(running.inbox, running.commands, running.machine.state)
        source.write(CLOSED, is_told=False)
        answer = dispatcher.carry_out(ReloadCommand())
        assert isinstance(answer, EnforcedAnswer)
        assert (answer.is_changed, answer.interfaces) == (True, ("eth0",))
        source.write(BROKEN, is_told=False)
        with pytest.raises(DocumentError):
            dispatcher.carry_out(ReloadCommand())
        source.remove()
        with pytest.raises(SourceUnavailableError, match="the previous rules stay active"):
            dispatcher.carry_out(ReloadCommand())
        dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
        source.write(GOOD, is_told=False)
        with pytest.raises(KernelRefusedError, match="No space left"):
            dispatcher.carry_out(ReloadCommand())
        assert running.published.status.snapshot_version == answer.version

    running.while_it_runs(script)
    assert running.log.events().count("reload_requested") == 4


def test_an_ordered_reload_waits_for_the_source(running: Running) -> None:
    """In the client's thread, and no longer than for the whole order; without an answer nothing is done."""

    def script() -> None:
        source = running.machine.source
        dispatcher = Dispatcher(running.inbox, running.commands, running.machine.state)
        source.write(CLOSED, is_told=False)
        source.is_slow = True
        with pytest.raises(SourceUnavailableError, match="has not answered within 120 seconds; the previous"):
            dispatcher.carry_out(ReloadCommand())
        assert source.waits == [PATIENCE_SECONDS]
        assert running.log.events().count("ruleset_applied") == 1

    running.while_it_runs(script)


def test_an_ordered_reload_says_what_has_changed_since(running: Running) -> None:
    """The source may have woken the loop before the order reached it."""

    def script() -> None:
        source = running.machine.source
        job = running.commands.job(ReloadCommand(), PATIENCE_SECONDS)
        source.write(CLOSED)
        running.wait_for("ruleset_applied", 2)
        answer = running.inbox.have_done(job, PATIENCE_SECONDS)
        assert isinstance(answer, EnforcedAnswer)
        assert answer.is_changed
        answer = running.inbox.have_done(
            running.commands.job(ReloadCommand(), PATIENCE_SECONDS), PATIENCE_SECONDS
        )
        assert isinstance(answer, EnforcedAnswer)
        assert not answer.is_changed

    running.while_it_runs(script)


def test_links_wake_it_without_a_fetch(running: Running) -> None:
    """A change of links is a step on the definitions that are there."""

    def script() -> None:
        fetches = running.machine.source.fetches
        running.machine.host.remove_link("eth0")
        running.wait_for("ruleset_applied", 2)
        assert running.machine.source.fetches == fetches

    running.while_it_runs(script)


UNREADABLE = (
    SgagentError("links or addresses can not be read"),
    OSError(errno.ENOBUFS, "No buffer space available"),
)


@pytest.mark.parametrize("fault", UNREADABLE, ids=("unreadable", "refused"))
def test_a_step_that_can_not_be_done_is_tried_again(running: Running, fault: SgagentError | OSError) -> None:
    """Links that can't be read are logged once, and the step is made up for when they can be."""

    def script() -> None:
        host = running.machine.host
        host.fault = fault
        host.remove_link("eth0")
        running.wait_for("step_failed")
        fetches = running.machine.source.fetches
        for count in (1, 2):  # when the second asks the source, the step of the first has failed
            running.inbox.put(LoopEvent.RELOAD)
            running.wait_for_fetches(fetches + count)
        host.fault = None
        running.clock.pass_seconds(4 * FIRST_RETRY_SECONDS)
        running.wait_for("ruleset_applied", 2)

    running.while_it_runs(script)
    assert running.log.events().count("step_failed") == 1


def test_links_that_keep_changing_for_a_moment_are_no_fault(running: Running) -> None:
    """Hundreds that go at once interrupt each listing for a second; the next step is made up for silently."""

    def script() -> None:
        host = running.machine.host
        looks, host.fault = host.looks, LinksUnreadableError("links changed during each listing")
        host.remove_link("eth0")
        wait_until(lambda: host.looks > looks, "a listing that is interrupted")
        host.fault = None
        wait_until(is_made_up_for, "the next step")

    def is_made_up_for() -> bool:
        running.clock.pass_seconds(FIRST_RETRY_SECONDS)
        return running.log.events().count("ruleset_applied") == 2

    running.while_it_runs(script)
    assert "step_failed" not in running.log.events()


def test_retries_become_rarer_until_one_succeeds(running: Running) -> None:
    """After 1, 2, 4 and 8 s, no earlier, and from 1 s on after a success; a refusal is logged once."""

    def refusals_after(seconds: float) -> int:
        running.clock.pass_seconds(seconds)
        for _ in range(2):  # a turn that was under way may serve the first one, by the time before
            assert running.inbox.wait_for_reading(20.0)
        return running.published.status.outcomes[StepEnd.REFUSED]

    def script() -> None:
        host, refusals = running.machine.host, 0
        changes = (partial(host.remove_link, "eth0"), partial(host.add_link, "eth0", MAC))
        for count, change in enumerate(changes, start=1):
            running.machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
            change()
            running.wait_for("ruleset_refused", count)
            refusals += 1
            for delay in (FIRST_RETRY_SECONDS * factor for factor in (1, 2, 4)):
                assert refusals_after(delay - 0.125) == refusals
                refusals += 1
                assert refusals_after(0.125) == refusals
            running.machine.dataplane.refusal = None
            assert refusals_after(8 * FIRST_RETRY_SECONDS) == refusals
            wait_until(lambda: running.published.status.step.kernel_error is None, "the retry")

    running.while_it_runs(script)
    assert running.log.events().count("ruleset_refused") == 2


def test_a_first_step_that_can_not_be_done_ends_it(running: Running) -> None:
    """At the start a person or a service manager is there to be told; nothing was done yet."""
    running.machine.host.fault = SgagentError("no")
    with pytest.raises(SgagentError, match="no"):
        running.daemon.run()
    assert running.machine.dataplane.ruleset is None


def test_a_table_that_somebody_changed_is_mended_at_the_next_tick(running: Running) -> None:
    """Each second the table is looked at, without a word from anybody."""

    def script() -> None:
        running.machine.dataplane.ruleset = None
        running.clock.pass_seconds(1.0)
        running.wait_for("drift_repaired")

    running.while_it_runs(script)
    assert running.machine.dataplane.ruleset is not None


@pytest.mark.parametrize("seconds", (0.1, 0.4, TICK_SECONDS))
def test_readers_leave_time_to_look_at_the_table(running: Running, seconds: float) -> None:
    """However often somebody asks for a reading, a change that nobody announced is repaired as soon."""

    def script() -> None:
        running.machine.dataplane.ruleset = None
        for _ in range(math.ceil(TICK_SECONDS / seconds) + 1):
            running.clock.pass_seconds(seconds)
            assert running.inbox.wait_for_reading(10.0)
        assert "drift_repaired" in running.log.events()

    running.while_it_runs(script)


def test_a_look_at_the_table_that_fails_ends_nothing(running: Running) -> None:
    """It is logged once, and what somebody changed meanwhile is mended when the table can be seen again."""

    def script() -> None:
        dataplane = running.machine.dataplane
        dataplane.fault = NotPermittedError("the table can't be seen")
        running.clock.pass_seconds(1.0)
        running.wait_for("step_failed")
        dataplane.ruleset, dataplane.fault = None, None
        running.clock.pass_seconds(4 * FIRST_RETRY_SECONDS)
        running.wait_for("drift_repaired")

    running.while_it_runs(script)
    assert running.log.events().count("step_failed") == 1
    assert running.machine.dataplane.ruleset is not None


B = GOOD.replace("10.0.0.11", "10.0.0.12")


def apply(running: Running, seconds: float | None) -> EnforcedAnswer:
    """Command another policy, as a client of the control socket does."""
    dispatcher = Dispatcher(running.inbox, running.commands, running.machine.state)
    document = Document(name="b.yaml", content=B)
    answer = dispatcher.carry_out(ApplyCommand(documents=(document,), confirm_within=seconds))
    assert isinstance(answer, EnforcedAnswer)
    return answer


def test_a_way_back_that_fails_is_tried_again_after_the_first_delay(running: Running) -> None:
    """One step failed, so the delay doubles once."""

    def script() -> None:
        apply(running, 10.0)
        running.machine.host.fault = SgagentError("links can't be read")
        running.clock.pass_seconds(10.0)
        running.wait_for("step_failed")
        running.machine.host.fault = None
        running.clock.pass_seconds(FIRST_RETRY_SECONDS)
        running.wait_for("ruleset_applied", 3)

    running.while_it_runs(script)


def test_an_order_is_carried_out_between_two_turns(running: Running) -> None:
    """It is answered when the kernel holds it, and the status shows it from then on."""

    def script() -> None:
        answer = apply(running, None)
        assert answer.is_changed
        held = running.published.status.manual_override.held
        assert held is not None
        assert (held.version, held.held_back) == (answer.version, answer.held_back)
        assert running.published.status.snapshot_version == answer.version

    running.while_it_runs(script)


def test_a_trial_ends_by_itself(running: Running) -> None:
    """Without a word from anybody, when its time is up."""

    def script() -> None:
        answer = apply(running, 60.0)
        pending = running.published.status.manual_override.pending
        assert pending is not None
        assert (pending.version, pending.seconds_left(running.clock.monotonic())) == (answer.version, 60.0)
        running.clock.pass_seconds(60.0)
        running.wait_for("rolled_back")
        assert running.published.status.manual_override.pending is None
        assert running.published.status.snapshot_version == answer.goes_back_to

    running.while_it_runs(script)


def test_a_stop_gives_a_trial_up(running: Running) -> None:
    """The table that stays behind is that of what was in force before."""
    running.while_it_runs(lambda: apply(running, 60.0))
    assert running.log.keys_of("rolled_back")["reason"] == "stopped"
    assert running.machine.dataplane.ruleset is not None
    assert running.machine.reconciler().step(fetch=True).outcome is StepEnd.UNCHANGED


def test_a_trial_that_can_not_be_given_up_at_the_end_is_left_to_the_next_agent(running: Running) -> None:
    """The agent says so, and ends all the same."""

    def script() -> None:
        apply(running, 60.0)
        running.machine.host.fault = SgagentError("the links can't be read")

    running.while_it_runs(script)
    assert "step_failed" in running.log.events()
    assert (running.machine.state.directory / "unconfirmed.json").exists()


def test_an_order_in_vain_is_told_and_ends_nothing(running: Running) -> None:
    """The time to confirm has bounds, and documents have to be right."""

    def script() -> None:
        for seconds in (0.0, float("nan"), 1e9):
            with pytest.raises(UsageError, match="confirm_within is from 1 to 86400"):
                apply(running, seconds)
        running.machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
        with pytest.raises(KernelRefusedError):
            apply(running, None)
        running.machine.dataplane.refusal = None

    running.while_it_runs(script)
