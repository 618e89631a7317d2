"""Orders are carried out as they were meant, whatever happens in between; an agent may die anywhere."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sgagent.agent.control.handlers import CommandHandler
from sgagent.agent.control.requests import ConfirmAnswer, ModeCommand
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.state.directory import MOST_ENTRIES, Trigger
from sgagent.agent.step import Step, StepEnd
from sgagent.cli.boot import LastGood, enforce_last_good
from sgagent.core.errors import DocumentError, KernelRefusedError, NotPermittedError, SgagentError, UsageError
from sgagent.core.model import Mode
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import Delivery
from sgagent.settings import Settings
from tests.crashes import crashes_at
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import GOOD, Machine

MOST_DEATHS = 40
"""Operations on files that no command comes up to."""


def document(number: int) -> str:
    """Return a document that opens a port of this number."""
    rule = "{direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: %d/%d,"
    rule += " authorization_object: 0.0.0.0/0}"
    return GOOD.replace("sg-1\n", f"sg-1\n    rules:\n      - {rule % (number, number)}\n", 1)


A, B, C = (document(number) for number in (1, 2, 3))


def delivery(text: str) -> Delivery:
    """Return what somebody sends."""
    documents = (DocumentFile("by-hand.yaml", text.encode()),)
    snapshot, problems = parse_documents(documents, Limits())
    return Delivery(snapshot=snapshot, problems=problems, documents=documents)


def version(text: str) -> str:
    """Return the version of a document."""
    return delivery(text).snapshot.version


class Agent:
    """An agent that was just started on a host, as the loop runs it."""

    def __init__(self, machine: Machine, boot_id: str = "this boot") -> None:
        """Do its first step."""
        self.log = FakeLog()
        self.reconciler: Reconciler = machine.reconciler()
        self.commands: CommandHandler = machine.commands(self.reconciler, self.log, boot_id)
        self.last: Step | None = None
        self.commands.begin(partial(self.step, fetch=True))

    def step(self, *, fetch: bool = False) -> Step:
        """Do a step."""
        self.last = self.reconciler.step(fetch=fetch)
        return self.last

    def fetch(self) -> str | None:
        """Do a step that asks the source, and return what is in force then."""
        return self.step(fetch=True).version

    @property
    def in_force(self) -> str | None:
        """Return what is in force."""
        return self.last.version if self.last else None

    def apply(self, text: str, seconds: float | None = None) -> None:
        """Apply a document."""
        self.commands.apply(self.step, delivery(text), seconds)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host whose source delivers A, and that has enforced nothing yet."""
    made = Machine(tmp_path / "state")
    made.source.write(A)
    return made


def history(machine: Machine) -> list[str | None]:
    """Return the versions of the history, the oldest first."""
    entries = machine.state.history.entries()
    return [entry.head.version if entry.head else None for entry in entries][::-1]


def has_table(machine: Machine) -> bool:
    """Tell whether the kernel has a table of ours."""
    return machine.dataplane.ruleset is not None


def leftovers(machine: Machine) -> set[str]:
    """Return what a trial left in the state directory."""
    return {path.name for path in machine.state.directory.glob("*")} & {"pending.json", "unconfirmed.json"}


def test_what_is_applied_stands_until_the_source_has_something_else(machine: Machine) -> None:
    """Over restarts too, and while the source is away; what was applied before is nothing to it."""
    agent = Agent(machine)
    agent.apply(B)
    for _ in range(2):
        assert agent.fetch() == version(B)
        held = agent.commands.manual_override().held
        assert held is not None
        assert (held.version, held.origin, held.held_back) == (version(B), Trigger.APPLY, version(A))
        agent = Agent(machine)
    machine.source.remove()
    assert Agent(machine).in_force == version(B)
    machine.source.write(C)
    assert agent.fetch() == version(C)
    assert agent.commands.manual_override().held is None
    machine.source.write(A)
    assert agent.fetch() == version(A)
    assert history(machine) == [version(text) for text in (A, B, C, A)]


def test_a_version_that_can_not_be_enforced_ends_nothing(machine: Machine) -> None:
    """The source has to deliver something that can be in force instead."""
    agent = Agent(machine)
    agent.apply(B)
    for wrong in ("version: 1\ntypo: 7\n", C.replace("0.0.0.0/0", "sg-nowhere").replace("accept", "drop", 1)):
        machine.source.write(wrong)
        assert agent.fetch() == version(B)
        assert agent.last is not None
        assert agent.last.is_refused
    machine.source.write(A)
    assert agent.fetch() == version(B)


def test_the_source_may_come_round_to_what_was_applied(machine: Machine) -> None:
    """Then it is the source's, and what it says next is followed."""
    agent = Agent(machine)
    agent.apply(B)
    machine.source.write(B)
    assert agent.fetch() == version(B)
    assert agent.commands.manual_override().held is None
    assert history(machine) == [version(A), version(B)]
    machine.source.write(A)
    assert agent.fetch() == version(A)


def test_applying_what_the_source_says_holds_nothing_back(machine: Machine) -> None:
    """Nothing changes, and on trial there is nothing to confirm."""
    agent = Agent(machine)
    for seconds in (None, 60.0):
        agent.apply(A, seconds)
        assert agent.commands.manual_override().held is None
        assert agent.commands.deadline is None
    assert history(machine) == [version(A)]


def test_what_is_not_confirmed_is_given_up_when_its_time_is_up(machine: Machine) -> None:
    """Not a moment before, and nothing of it is left."""
    agent = Agent(machine)
    agent.apply(B, 60.0)
    machine.clock.pass_seconds(59.9)
    agent.commands.expire(agent.step)
    assert agent.fetch() == version(B)
    pending = agent.commands.manual_override().pending
    assert pending is not None
    assert pending.goes_back_to == version(A)
    machine.clock.pass_seconds(0.1)
    agent.commands.expire(agent.step)
    assert (agent.in_force, history(machine), leftovers(machine)) == (version(A), [version(A)], set())
    assert agent.log.keys_of("rolled_back")["reason"] == "unconfirmed"
    assert agent.commands.confirm(agent.step) == ConfirmAnswer(is_confirmed=False)


def test_the_time_of_a_trial_begins_when_the_kernel_has_it(machine: Machine) -> None:
    """A large table may take longer to enforce than somebody gives it; that is kept over a restart too."""
    agent = Agent(machine)

    def slowly(*, fetch: bool = False) -> Step:
        machine.clock.pass_seconds(30.0)
        return agent.step(fetch=fetch)

    answer = agent.commands.apply(slowly, delivery(B), 10.0)
    assert answer.seconds_left == 10.0
    machine.clock.pass_seconds(9.0)
    agent = Agent(machine)
    assert agent.in_force == version(B)
    assert agent.commands.deadline == machine.clock.monotonic() + 1.0


def test_the_wall_clock_does_not_matter(machine: Machine) -> None:
    """Neither while the agent runs nor over a restart."""
    agent = Agent(machine)
    agent.apply(B, 60.0)
    for seconds in (-86400.0, 2 * 86400.0):
        machine.clock.set_back(seconds)
        agent.commands.expire(agent.step)
        assert agent.fetch() == version(B)
        assert Agent(machine).in_force == version(B)
    machine.clock.pass_seconds(60.0)
    assert Agent(machine).in_force == version(A)


def test_what_is_confirmed_is_the_last_good_one(machine: Machine) -> None:
    """It stands before the source's, and a boot enforces it."""
    agent = Agent(machine)
    agent.apply(B, 60.0)
    assert boot(machine) == version(A)
    answer = agent.commands.confirm(agent.step)
    assert answer == ConfirmAnswer(is_confirmed=True, version=version(B))
    assert boot(machine) == version(B)
    machine.clock.pass_seconds(61.0)
    agent.commands.expire(agent.step)
    assert (agent.fetch(), history(machine)) == (version(B), [version(A), version(B)])
    assert leftovers(machine) == set()


def boot(machine: Machine) -> str | None:
    """Return what a boot enforces on an empty kernel."""
    state = LastGood(machine.state.directory)
    return enforce_last_good(Settings(), machine.host, FakeDataplane(), state, machine.clock).version


def test_what_the_source_says_meanwhile_waits(machine: Machine) -> None:
    """It is in force as soon as the trial is over, also if that was confirmed."""
    agent = Agent(machine)
    agent.apply(B, 60.0)
    machine.source.write(C)
    assert agent.fetch() == version(B)
    answer = agent.commands.confirm(agent.step)
    assert (answer.version, answer.overtaken_by) == (version(B), version(C))
    assert history(machine) == [version(A), version(B), version(C)]


def test_a_trial_that_is_given_up_goes_back_to_what_was_held(machine: Machine) -> None:
    """Not to what the source says, which was held back before and is again."""
    agent = Agent(machine)
    agent.apply(B)
    agent.apply(C, 60.0)
    agent.commands.rollback(agent.step, None)
    assert agent.fetch() == version(B)
    held = agent.commands.manual_override().held
    assert held is not None
    assert held.held_back == version(A)
    assert agent.log.keys_of("rolled_back")["reason"] == "asked"


def test_a_version_that_the_kernel_refuses_is_not_held_back(machine: Machine) -> None:
    """It is the source's, whose turn it is now; what it was before is no news any more."""
    agent = Agent(machine)
    agent.apply(B)
    machine.source.write(C)
    machine.dataplane.refusal = KernelRefusedError("no")
    agent.fetch()
    assert agent.commands.manual_override().held is None


def test_one_trial_at_a_time(machine: Machine) -> None:
    """What else could be ordered is refused, and changes nothing."""
    agent = Agent(machine)
    agent.apply(B, 60.0)
    for command in (
        lambda: agent.apply(C),
        lambda: agent.apply(C, 60.0),
        lambda: agent.commands.rollback(agent.step, 1),
    ):
        with pytest.raises(UsageError, match="a trial is running"):
            command()
    assert agent.fetch() == version(B)


@pytest.mark.parametrize("seconds", (None, 60.0))
def test_what_the_kernel_refuses_changes_nothing(machine: Machine, seconds: float | None) -> None:
    """What was in force is, and nothing is left of the command."""
    agent = Agent(machine)
    machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
    with pytest.raises(KernelRefusedError, match="No space"):
        agent.apply(B, seconds)
    machine.dataplane.refusal = None
    assert (agent.fetch(), history(machine), leftovers(machine)) == (version(A), [version(A)], set())
    assert agent.commands.manual_override() == Agent(machine).commands.manual_override()


@pytest.mark.parametrize("seconds", (None, 60.0))
def test_what_can_not_be_enforced_is_not_even_tried(machine: Machine, seconds: float | None) -> None:
    """All that is wrong is told."""
    agent = Agent(machine)
    wrong = B.replace("0.0.0.0/0", "sg-nowhere").replace("policy: accept", "policy: drop")
    with pytest.raises(DocumentError, match="sg-nowhere"):
        agent.apply(wrong, seconds)
    assert (agent.fetch(), history(machine), leftovers(machine)) == (version(A), [version(A)], set())


def test_a_step_that_can_not_be_done_takes_the_order_back(machine: Machine) -> None:
    """Nobody knows how far the kernel came; the next step goes back."""
    agent = Agent(machine)
    machine.dataplane.fault = NotPermittedError("the table can't be seen")
    with pytest.raises(SgagentError, match="seen"):
        agent.apply(B, 60.0)
    machine.dataplane.fault = None
    assert (agent.fetch(), leftovers(machine)) == (version(A), set())


def test_a_first_trial_leaves_nothing_behind(machine: Machine) -> None:
    """A host that enforced nothing is open again; one that has to be closed is closed."""
    machine.source.remove()
    agent = Agent(machine)
    agent.apply(B, 60.0)
    assert has_table(machine)
    machine.clock.pass_seconds(60.0)
    agent.commands.expire(agent.step)
    assert not has_table(machine)
    assert (agent.in_force, leftovers(machine)) == (None, set())
    assert not machine.state.has_enforced()
    strict = machine.reconciler("[enforcement]\nfail_closed = true\n")
    commands = machine.commands(strict, FakeLog())
    commands.begin(partial(strict.step, fetch=True))
    commands.apply(partial(strict.step, fetch=False), delivery(B), 60.0)
    commands.end(partial(strict.step, fetch=False))
    assert strict.step(fetch=False).is_closed


def test_there_is_no_trial_over_rules_that_nobody_knows(machine: Machine) -> None:
    """A table of an earlier agent whose definitions are lost could not be put back; for good it gives way."""
    Agent(machine)
    machine.source.remove()
    for path in (machine.state.directory / "history").iterdir():
        path.write_text("scribble")
    agent = Agent(machine)
    assert agent.last is not None
    assert agent.last.is_standing
    with pytest.raises(UsageError, match="nothing to go back to"):
        agent.apply(B, 60.0)
    agent.apply(B)
    assert agent.fetch() == version(B)


def test_going_back_and_forth(machine: Machine) -> None:
    """Without a number it is to the newest that is not in force, so twice is where it began."""
    agent = Agent(machine)
    machine.source.write(B)
    assert agent.fetch() == version(B)
    for expected in (A, B, A):
        assert agent.commands.rollback(agent.step, None).version == version(expected)
        assert agent.fetch() == version(expected)
        assert Agent(machine).in_force == version(expected)
    assert history(machine) == [version(text) for text in (A, B, A, B, A)]


def test_going_back_while_the_source_is_away(machine: Machine) -> None:
    """What it said last, as far as anybody knows, is held back when it comes again."""
    agent = Agent(machine)
    machine.source.write(B)
    agent.fetch()
    machine.source.remove()
    agent = Agent(machine)
    agent.commands.rollback(agent.step, 1)
    machine.source.write(B)
    assert agent.fetch() == version(A)
    held = agent.commands.manual_override().held
    assert held is not None
    assert held.origin is Trigger.ROLLBACK
    machine.source.write(C)
    assert agent.fetch() == version(C)


def test_numbers_that_mean_nothing_are_refused(machine: Machine) -> None:
    """The message says which there are, or what is wrong with this one."""
    agent = Agent(machine)
    with pytest.raises(UsageError, match="no other version than the active one"):
        agent.commands.rollback(agent.step, None)
    machine.source.write(B)
    agent.fetch()
    with pytest.raises(UsageError, match=r"no number 7 .it has: 1, 2"):
        agent.commands.rollback(agent.step, 7)
    with pytest.raises(UsageError, match="number 2 is already active"):
        agent.commands.rollback(agent.step, 2)
    machine.state.history.path(1).write_text("scribble")
    with pytest.raises(UsageError, match="number 1 can't be read"):
        agent.commands.rollback(agent.step, 1)


def break_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk keep no change of a directory from now on, while the kernel shows it to everybody."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_confirmation_that_is_not_kept_is_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial goes on, for the next agent too, and can be confirmed once the disk keeps it."""
    agent = Agent(machine)
    agent.apply(B, seconds=60)
    with monkeypatch.context() as patched:
        break_directories(patched)
        with pytest.raises(SgagentError, match="the trial goes on"):
            agent.commands.confirm(agent.step)
    assert (history(machine), leftovers(machine)) == ([version(A)], {"pending.json"})
    agent = Agent(machine)
    assert agent.commands.manual_override().pending is not None
    agent.commands.confirm(agent.step)
    assert (history(machine), leftovers(machine)) == ([version(A), version(B)], set())


def test_a_confirmation_not_taken_back_stands(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fault of the disk the file system may be read-only; the next agent finds what this one says."""
    agent = Agent(machine)
    agent.apply(B, seconds=60)
    rename = os.replace

    def rename_once(path: Path, target: Path) -> None:
        if path.name != "pending.json":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(path, target)

    with monkeypatch.context() as patched:
        break_directories(patched)
        patched.setattr(os, "replace", rename_once)
        assert agent.commands.confirm(agent.step).is_confirmed
    assert agent.commands.manual_override().pending is None
    assert (history(machine), leftovers(machine)) == ([version(A), version(B)], set())
    assert Agent(machine).in_force == version(B)


def test_a_trial_that_is_not_kept_is_none_later(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command was refused, and the kernel got nothing of it."""
    agent = Agent(machine)
    with monkeypatch.context() as patched:
        break_directories(patched)
        with pytest.raises(SgagentError, match="they were not enforced"):
            agent.apply(B, seconds=60)
    assert agent.fetch() == version(A)
    assert (Agent(machine).in_force, leftovers(machine)) == (version(A), set())


def test_a_history_that_is_full_still_goes_back(machine: Machine) -> None:
    """What is gone back to is the newest then, and the oldest gives way."""
    agent = Agent(machine)
    for number in range(10, 10 + MOST_ENTRIES):
        machine.source.write(document(number))
        agent.fetch()
    agent.commands.rollback(agent.step, 2)
    assert Agent(machine).in_force == version(document(10))


def test_modes_switch_at_once_and_outlive_the_agent(machine: Machine) -> None:
    """A boot honours them; leaving observe raises the generation: sessions are judged again (§9.1)."""
    agent = Agent(machine)
    answer = agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.OBSERVE, interface=None))
    assert [(mode.interface, mode.mode, mode.is_overridden) for mode in answer.interfaces] == [
        ("eth0", Mode.OBSERVE, True)
    ]
    observed = machine.dataplane.ruleset
    agent = Agent(machine)
    assert machine.dataplane.ruleset == observed
    dataplane = FakeDataplane()
    state = LastGood(machine.state.directory)
    step = enforce_last_good(Settings(), machine.host, dataplane, state, machine.clock)
    assert step.policy is not None
    assert [interface.mode for interface in step.policy.interfaces] == [Mode.OBSERVE]
    agent.commands.switch_mode(agent.step, ModeCommand(mode=None, interface=None))
    assert agent.last is not None
    assert agent.last.state is not None
    assert agent.last.state.generation == 2
    assert not Agent(machine).commands.manual_override().overrides


@pytest.mark.parametrize("seconds", (None, 60.0))
def test_modes_that_the_kernel_refuses_are_what_they_were(machine: Machine, seconds: float | None) -> None:
    """In the agent and on disk; a trial of one never began."""
    agent = Agent(machine)
    machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
    command = ModeCommand(mode=Mode.OBSERVE, interface="eth0", confirm_within=seconds)
    with pytest.raises(KernelRefusedError):
        agent.commands.switch_mode(agent.step, command)
    machine.dataplane.refusal = None
    assert agent.commands.deadline is None
    assert (agent.step().outcome, modes(agent)) == (StepEnd.UNCHANGED, [Mode.ENFORCE])
    assert not agent.commands.manual_override().overrides
    assert not Agent(machine).commands.manual_override().overrides


def test_modes_that_no_step_brings_about_are_what_they_were(machine: Machine) -> None:
    """In the agent and on disk, also where the kernel does not list the links."""
    agent = Agent(machine)
    machine.host.fault = OSError(errno.ENOBUFS, "No buffer space available")
    with pytest.raises(SgagentError, match=r"links .* No buffer space"):
        agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.OBSERVE, interface=None))
    machine.host.fault = None
    assert agent.step().outcome is StepEnd.UNCHANGED
    assert not agent.commands.manual_override().overrides
    assert not Agent(machine).commands.manual_override().overrides


def test_the_name_of_an_interface_that_nobody_knows_is_refused(machine: Machine) -> None:
    """A typing mistake would go unnoticed; clearing is always allowed."""
    agent = Agent(machine)
    with pytest.raises(UsageError, match=r"no interface eth7 .there are: eth0"):
        agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.OBSERVE, interface="eth7"))
    agent.commands.switch_mode(agent.step, ModeCommand(mode=None, interface="eth7"))


def modes(agent: Agent) -> list[Mode]:
    """Return the modes of the bound interfaces."""
    policy = agent.step().policy
    return [one.mode for one in policy.interfaces] if policy else []


def try_mode(agent: Agent, mode: Mode | None = Mode.OBSERVE, seconds: float | None = 60.0) -> None:
    """Command a mode on trial."""
    agent.commands.switch_mode(agent.step, ModeCommand(mode=mode, confirm_within=seconds))


def test_a_mode_on_trial_ends_unless_it_is_confirmed(machine: Machine) -> None:
    """In the kernel as well; what is pending is told until then."""
    agent = Agent(machine)
    try_mode(agent)
    assert modes(agent) == [Mode.OBSERVE]
    pending = agent.commands.manual_override().pending_mode
    assert pending is not None
    assert (pending.mode, pending.status(machine.clock.monotonic()).seconds_left) == (Mode.OBSERVE, 60.0)
    machine.clock.pass_seconds(59)
    agent.commands.expire(agent.step)
    assert modes(agent) == [Mode.OBSERVE]
    machine.clock.pass_seconds(1)
    agent.commands.expire(agent.step)
    assert modes(agent) == [Mode.ENFORCE]
    assert agent.commands.manual_override().pending_mode is None
    assert agent.log.keys_of("mode_rolled_back")["reason"] == "unconfirmed"


def test_a_mode_on_trial_can_be_confirmed(machine: Machine) -> None:
    """It outlives the agent then."""
    agent = Agent(machine)
    try_mode(agent)
    answer = agent.commands.confirm(agent.step)
    assert (answer.is_confirmed, answer.is_of_mode, answer.mode) == (True, True, Mode.OBSERVE)
    machine.clock.pass_seconds(120)
    agent.commands.expire(agent.step)
    assert modes(Agent(machine)) == [Mode.OBSERVE]
    assert not agent.commands.confirm(agent.step).is_confirmed


@pytest.mark.parametrize("is_stopped", (True, False))
def test_a_mode_on_trial_ends_with_the_agent(machine: Machine, *, is_stopped: bool) -> None:
    """At a stop in the kernel too; after a crash when the next one starts."""
    agent = Agent(machine)
    try_mode(agent)
    if is_stopped:
        agent.commands.end(agent.step)
        assert modes(agent) == [Mode.ENFORCE]
    assert modes(Agent(machine)) == [Mode.ENFORCE]


def test_a_rollback_ends_a_mode_on_trial(machine: Machine) -> None:
    """Not the definitions."""
    agent = Agent(machine)
    agent.apply(B)
    try_mode(agent)
    agent.commands.rollback(agent.step, None)
    assert modes(agent) == [Mode.ENFORCE]
    assert agent.in_force == version(B)


def test_another_mode_ends_a_trial(machine: Machine) -> None:
    """A permanent one takes its place; another trial goes back to what was before the first."""
    agent = Agent(machine)
    try_mode(agent)
    try_mode(agent, Mode.ENFORCE)
    agent.commands.rollback(agent.step, None)
    assert not agent.commands.manual_override().overrides
    try_mode(agent)
    try_mode(agent, Mode.OBSERVE, None)
    machine.clock.pass_seconds(120)
    agent.commands.expire(agent.step)
    assert modes(Agent(machine)) == [Mode.OBSERVE]


def test_a_mode_and_definitions_are_not_on_trial_at_once(machine: Machine) -> None:
    """Nobody would know what a confirmation keeps."""
    agent = Agent(machine)
    try_mode(agent)
    with pytest.raises(UsageError, match="a trial is running"):
        agent.apply(B, 60.0)
    agent.commands.confirm(agent.step)
    agent.apply(B, 60.0)
    with pytest.raises(UsageError, match="a trial is running"):
        try_mode(agent, Mode.ENFORCE)
    assert agent.fetch() == version(B)


def prepare_apply(agent: Agent) -> Callable[[], object]:
    """Return a command for good."""
    return lambda: agent.apply(B)


def prepare_trial(agent: Agent) -> Callable[[], object]:
    """Return a command on trial."""
    return lambda: agent.apply(B, 60.0)


def prepare_confirm(agent: Agent) -> Callable[[], object]:
    """Put B on trial, and return the command that confirms it."""
    agent.apply(B, 60.0)
    return lambda: agent.commands.confirm(agent.step)


def prepare_giving_up(agent: Agent) -> Callable[[], object]:
    """Put B on trial, and return the command that gives it up."""
    agent.apply(B, 60.0)
    return lambda: agent.commands.rollback(agent.step, None)


def prepare_rollback(agent: Agent) -> Callable[[], object]:
    """Put B in force, and return the command that goes back."""
    agent.apply(B)
    return lambda: agent.commands.rollback(agent.step, None)


@pytest.mark.one_python
@pytest.mark.parametrize(
    ("prepare", "before", "after", "is_fresh"),
    (
        (prepare_apply, {A}, {A, B}, False),
        (prepare_trial, {A, B}, {A}, False),
        (prepare_confirm, {A, B}, {A, B}, False),
        (prepare_giving_up, {A, B}, {A}, False),
        (prepare_rollback, {A, B}, {A, B}, False),
        (prepare_apply, {B}, {B}, True),
        (prepare_trial, {B}, set(), True),
        (prepare_confirm, {B}, {B}, True),
        (prepare_giving_up, {B}, set(), True),
    ),
)
def test_an_agent_may_die_anywhere(
    tmp_path: Path,
    prepare: Callable[[Agent], Callable[[], object]],
    before: set[str],
    after: set[str],
    is_fresh: bool,  # noqa: FBT001 - what the table says
) -> None:
    """The next one has the old intention or the new; when a trial's time is up, only what was confirmed."""
    nothing = set[str | None]({None} if is_fresh else ())
    for death in range(MOST_DEATHS):
        machine = Machine(tmp_path / str(death))
        if not is_fresh:
            machine.source.write(A)
        act = prepare(Agent(machine))
        died = crashes_at(machine.state.directory, death, act)
        assert boot(machine) in {version(text) for text in after} | nothing
        at_once = Agent(machine).in_force
        assert at_once in {version(text) for text in before | after} | nothing
        machine.clock.pass_seconds(60.0)
        later = Agent(machine)
        assert later.in_force in {version(text) for text in after} | nothing
        assert Agent(machine).in_force == later.in_force
        assert later.last is not None
        assert has_table(machine) is (later.last.is_standing or later.in_force is not None)
        assert not later.last.is_standing or prepare is prepare_apply
        assert leftovers(machine) == set()
        if not died:
            return
    pytest.fail("it never came to an end")


@pytest.mark.parametrize("is_fresh", (False, True), ids=("with a policy", "fresh"))
def test_going_back_may_be_interrupted_anywhere(tmp_path: Path, *, is_fresh: bool) -> None:
    """By a second death while the agent after the first goes back."""
    for death in range(MOST_DEATHS):
        machine = Machine(tmp_path / str(death))
        if not is_fresh:
            machine.source.write(A)
        Agent(machine).apply(B, 60.0)
        machine.clock.pass_seconds(60.0)
        died = crashes_at(machine.state.directory, death, partial(Agent, machine))
        assert Agent(machine).in_force == (None if is_fresh else version(A))
        assert has_table(machine) is not is_fresh
        assert leftovers(machine) == set()
        if not died:
            return
    pytest.fail("it never came to an end")


@pytest.mark.parametrize("is_fresh", (False, True), ids=("with a policy", "fresh"))
def test_a_reboot_ends_a_trial(machine: Machine, *, is_fresh: bool) -> None:
    """Before the first packet, and in the agent that starts then."""
    if is_fresh:
        machine.source.remove()
    Agent(machine).apply(B, 3600.0)
    confirmed = None if is_fresh else version(A)
    assert boot(machine) == confirmed
    machine.dataplane.ruleset = None
    agent = Agent(machine, boot_id="the next boot")
    assert (agent.in_force, leftovers(machine)) == (confirmed, set())
    assert agent.log.keys_of("rolled_back")["reason"] == "rebooted"


def test_booting_by_hand_enforces_no_trial_and_ends_none(machine: Machine) -> None:
    """The agent takes up a trial of the same boot; until then what it would go back to is in force."""
    Agent(machine).apply(B, 3600.0)
    assert boot(machine) == version(A)
    assert Agent(machine).in_force == version(B)


def test_a_trial_that_can_not_be_read_is_over(machine: Machine) -> None:
    """What is doubtful is not in force."""
    Agent(machine).apply(B, 3600.0)
    path = machine.state.directory / "pending.json"
    path.write_bytes(path.read_bytes()[:-9])
    agent = Agent(machine)
    assert (agent.in_force, leftovers(machine)) == (version(A), set())
    assert agent.log.keys_of("rolled_back")["reason"] == "damaged"
    assert str(path) in str(agent.log.keys_of("state_damaged")["reason"])


def test_a_trial_that_can_not_be_enforced_after_a_restart_is_over(machine: Machine) -> None:
    """The agent goes back to what can."""
    Agent(machine).apply(B, 3600.0)
    machine.dataplane.ruleset = None
    machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
    agent = Agent(machine)
    machine.dataplane.refusal = None
    assert agent.log.keys_of("rolled_back")["reason"] == "refused"
    assert agent.fetch() == version(A)


def test_definitions_that_could_not_be_saved_are_a_fault_while_they_are_in_force(machine: Machine) -> None:
    """Those before are saved already."""
    agent = Agent(machine)
    (machine.state.directory / "history" / ".00000002.json.new").mkdir()
    machine.source.write(B)
    assert agent.fetch() == version(B)
    (fault,) = agent.reconciler.state_faults
    assert "could not be saved" in fault
    machine.source.write(A)
    assert agent.fetch() == version(A)
    assert agent.reconciler.state_faults == ()


def test_a_state_directory_that_takes_nothing(machine: Machine) -> None:
    """A trial is not begun; for good it is, and the answer says that it will not last."""
    agent = Agent(machine)
    directory = machine.state.directory
    shutil.rmtree(directory)
    directory.write_text("no directory")
    with pytest.raises(SgagentError, match="were not enforced"):
        agent.apply(B, 60.0)
    assert agent.fetch() == version(A)
    answer = agent.commands.apply(agent.step, delivery(B), None)
    assert "could not be saved" in (answer.fault or "")
    assert agent.fetch() == version(B)
    agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.OBSERVE, interface=None))
    assert "modes could not be saved" in agent.reconciler.state_faults[-1]


def test_what_could_not_be_saved_is_saved_once_there_is_room(machine: Machine) -> None:
    """By the next step; a mode on trial is none of it."""
    agent = Agent(machine)
    directory = machine.state.directory
    kept = directory.rename(directory.with_name("kept"))
    directory.write_text("no directory")
    agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.OBSERVE, interface=None))
    agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.ENFORCE, interface=None, confirm_within=60))
    machine.source.write(B)
    assert agent.fetch() == version(B)
    definitions_fault, mode_fault = agent.reconciler.state_faults
    assert "definitions could not be saved" in definitions_fault
    assert "modes could not be saved" in mode_fault
    directory.unlink()
    kept.rename(directory)
    agent.fetch()
    assert not agent.reconciler.state_faults
    assert history(machine) == [version(A), version(B)]
    assert Agent(machine).reconciler.overrides.everywhere is Mode.OBSERVE


def test_the_end_of_a_trial_is_noted_once_the_disk_keeps_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another trial."""
    agent = Agent(machine)
    agent.apply(B, seconds=60)
    with monkeypatch.context() as patched:
        break_directories(patched)
        agent.commands.rollback(agent.step, None)
    assert any("the end" in fault for fault in agent.reconciler.state_faults)
    agent.fetch()
    assert (agent.reconciler.state_faults, leftovers(machine)) == ((), set())
