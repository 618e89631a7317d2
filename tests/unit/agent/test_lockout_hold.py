"""A change that would cut a login waits, whatever happens in between, and only such a change (§7.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from sgagent.agent.control.handlers import CommandHandler
from sgagent.agent.control.requests import ApplyCommand, ModeCommand
from sgagent.agent.daemon import FIRST_RETRY_SECONDS
from sgagent.agent.inbox import LoopEvent
from sgagent.agent.lockout_hold import LockoutHold
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.step import Step, StepEnd, StepLog
from sgagent.cli.boot import LastGood, enforce_last_good
from sgagent.core.errors import KernelRefusedError, UsageError
from sgagent.core.lockout import LiveSession, SessionKind
from sgagent.core.model import Family, Mode
from sgagent.settings import Settings, parse_settings
from tests.fakes.dataplane import FakeDataplane
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import MAC, Machine
from tests.unit.agent.running import Running
from tests.waiting import wait_until

SECONDS = 600.0
THIS_BOOT, NEXT_BOOT = "this boot", "next boot"
BLOCKS = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


def document(*ports: int, family: Family = Family.IPV4) -> str:
    """Return a document that admits everybody to some ports."""
    rules = "".join(
        "\n      - {direction: ingress, policy: accept, priority: 1, protocol: tcp,"
        f" port_range: {port}, authorization_object: '{BLOCKS[family]}'}}"
        for port in ports
    )
    return (
        "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n"
        f"    rules: {rules or '[]'}\n"
        "network_interfaces:\n"
        f"  - {{network_interface_id: eni-1, mac_address: '{MAC}', security_group_ids: [sg-1]}}\n"
    )


def session(local: str, peer: str, port: int, kind: SessionKind = SessionKind.MANAGEMENT) -> LiveSession:
    """Return a live session from a peer."""
    near, far = ipaddress.ip_address(local), ipaddress.ip_address(peer)
    return LiveSession(
        family=Family.IPV4 if near.version == 4 else Family.IPV6,
        local_address=int(near),
        local_port=port,
        peer_address=int(far),
        peer_port=50_000,
        kind=kind,
    )


LOGIN = session("10.0.0.11", "198.51.100.7", 22)
LOGIN_6 = session("2001:db8::11", "2001:db8:7::1", 22)
WITH_SSH, WITHOUT_SSH, WITH_WEB_TOO, OTHER_WITHOUT = (
    document(22),
    document(80),
    document(22, 80),
    document(443),
)


def hold_on(machine: Machine, boot_id: str, told: list[str]) -> LockoutHold:
    """Return the hold of an agent on a host."""
    return LockoutHold(
        seconds=SECONDS,
        directory=machine.state.directory,
        clock=machine.clock,
        boot_id=boot_id,
        list_sessions=lambda: machine.logins,
        find=lambda packets: [None for _ in packets],
        tell=told.append,
    )


class Agent:
    """An agent that was just started, with a hold."""

    def __init__(self, machine: Machine, boot_id: str = THIS_BOOT, configuration: str = "") -> None:
        """Do its first step."""
        self.told: list[str] = []
        self.log = FakeLog()
        self.hold = hold_on(machine, boot_id, self.told)
        self.reconciler: Reconciler = machine.reconciler(configuration, hold=self.hold)
        self.commands: CommandHandler = machine.commands(self.reconciler, self.log, boot_id)
        self._step_log = StepLog(self.log)
        self.last: Step | None = None
        self.commands.begin(partial(self.step, fetch=True))

    def step(self, *, fetch: bool = False) -> Step:
        """Do a step."""
        self.last = self.reconciler.step(fetch=fetch)
        self._step_log.log(self.last)
        return self.last

    def ports(self) -> set[int]:
        """Do a step that asks the source, and return the ports that are open then."""
        step = self.step(fetch=True)
        judge = step.policy.judge("eth0") if step.policy else None
        if judge is None:
            return set()
        return {first for rule in judge.ingress.rules for first, _ in rule.ports.ranges}

    def waiting(self) -> float | None:
        """Return how long the change still waits that waits."""
        held = self.reconciler.held_change
        return None if held is None else held.terms.deadline - self.reconciler.clock.monotonic()

    def apply_held(self, seconds: float | None = None) -> None:
        """Command what ``sgagent apply`` without documents commands."""
        held = self.reconciler.held_change
        command = ApplyCommand(
            documents=(), held=held.version if held else "sha256:none", confirm_within=seconds
        )
        self.commands.job(command, 0.0)(self.step)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a host whose source admits SSH."""
    made = Machine(tmp_path / "state")
    for address in ("10.0.0.11", "2001:db8::11"):
        made.host.add_address("eth0", address)
    made.source.write(WITH_SSH)
    return made


@pytest.fixture
def agent(machine: Machine) -> Agent:
    """Return an agent that enforces SSH, on a host where somebody is logged in."""
    machine.logins = (LOGIN,)
    return Agent(machine)


@pytest.fixture
def holding(machine: Machine, agent: Agent) -> Agent:
    """Return the agent while a change waits that would cut the login."""
    machine.source.write(WITHOUT_SSH)
    agent.ports()
    return agent


def test_a_change_that_cuts_a_login_waits(machine: Machine, agent: Agent) -> None:
    """What was in force still is; the log and the terminals have the login, the rule and the way out."""
    machine.source.write(WITHOUT_SSH)
    assert agent.ports() == {22}
    assert agent.waiting() == SECONDS
    (told,) = agent.told
    assert "the login from 198.51.100.7 port 50000 to port 22 on eth0, by the default" in told
    assert "'sgagent apply'" in told
    assert agent.log.keys_of("change_held")["sessions"] == [
        "the login from 198.51.100.7 port 50000 to port 22 on eth0, by the default"
    ]
    assert agent.ports() == {22}
    assert len(agent.told) == 1


def test_it_is_enforced_when_its_time_is_up(machine: Machine, holding: Agent) -> None:
    """Not a moment before, and for good."""
    machine.clock.pass_seconds(SECONDS - 1)
    assert holding.ports() == {22}
    machine.clock.pass_seconds(1)
    assert holding.ports() == {80}
    assert holding.waiting() is None
    assert holding.ports() == {80}
    assert Agent(machine).ports() == {80}


def test_apply_enforces_it_at_once(machine: Machine, holding: Agent) -> None:
    """The source is followed as before."""
    holding.apply_held()
    assert holding.ports() == {80}
    assert holding.waiting() is None
    assert holding.commands.manual_override().held is None
    machine.source.write(WITH_WEB_TOO)
    assert holding.ports() == {22, 80}


@pytest.mark.parametrize(
    ("logins", "after", "waits"),
    (
        ((LOGIN,), WITH_WEB_TOO, False),
        ((LOGIN_6,), WITHOUT_SSH, False),  # it was not allowed before
        ((session("10.0.0.11", "198.51.100.7", 22, SessionKind.OTHER),), WITHOUT_SSH, False),
        ((session("10.9.9.9", "198.51.100.7", 22),), WITHOUT_SSH, False),  # on no link
        ((), WITHOUT_SSH, False),
        ((session("10.0.0.11", "198.51.100.7", 2222), LOGIN), WITHOUT_SSH, True),
    ),
)
def test_only_a_change_that_cuts_a_login_waits(
    machine: Machine, logins: Iterable[LiveSession], after: str, *, waits: bool
) -> None:
    """Not one that leaves it, that cuts another session, or one that was not allowed before."""
    agent = Agent(machine)
    machine.logins = tuple(logins)
    machine.source.write(after)
    agent.ports()
    assert (agent.waiting() is not None) is waits


def test_a_login_over_ipv6_counts_as_well(machine: Machine) -> None:
    """By its own family's rules."""
    machine.source.write(document(22, family=Family.IPV6))
    machine.logins = (LOGIN_6,)
    agent = Agent(machine)
    machine.source.write(WITH_SSH)
    agent.ports()
    assert agent.waiting() == SECONDS


def test_the_end_of_the_login_does_not_end_the_wait(machine: Machine, holding: Agent) -> None:
    """Who was in would not get in again."""
    machine.logins = ()
    assert holding.ports() == {22}
    assert holding.waiting() == SECONDS


def test_a_change_that_is_taken_back_is_forgotten(machine: Machine, holding: Agent) -> None:
    """Made again later, it waits for its whole time."""
    machine.clock.pass_seconds(SECONDS / 2)
    machine.source.write(WITH_SSH)
    assert holding.ports() == {22}
    assert holding.waiting() is None
    assert not (machine.state.directory / "held-change.json").exists()
    machine.source.write(WITHOUT_SSH)
    holding.ports()
    assert holding.waiting() == SECONDS


def test_a_further_change_takes_its_place(machine: Machine, holding: Agent) -> None:
    """One that cuts waits for its own time; one that does not is enforced at once."""
    machine.clock.pass_seconds(SECONDS / 2)
    machine.source.write(OTHER_WITHOUT)
    assert holding.ports() == {22}
    assert holding.waiting() == SECONDS
    assert len(holding.told) == 2
    machine.source.write(WITH_WEB_TOO)
    assert holding.ports() == {22, 80}
    assert holding.waiting() is None


def test_a_version_with_errors_changes_nothing(machine: Machine, holding: Agent) -> None:
    """It is refused as ever, and the one that waits is no candidate meanwhile."""
    machine.source.write("version: 1\ntypo: 7\n")
    assert holding.ports() == {22}
    assert holding.last is not None
    assert holding.last.is_refused


@pytest.mark.usefixtures("holding")
def test_a_restart_neither_enforces_nor_forgets_it(machine: Machine) -> None:
    """Its time goes on, also where the login has ended meanwhile."""
    machine.clock.pass_seconds(SECONDS / 2)
    again = Agent(machine)
    assert again.ports() == {22}
    assert again.waiting() == SECONDS / 2
    assert again.told == []
    machine.clock.pass_seconds(SECONDS / 2)
    assert again.ports() == {80}


def test_a_reboot_neither_enforces_nor_forgets_it(machine: Machine, holding: Agent) -> None:
    """The boot unit enforces what was in force, and the next holding waits for the whole time again."""
    in_force = holding.last.version if holding.last else None
    machine.logins = ()
    state = LastGood(machine.state.directory)
    booted = enforce_last_good(Settings(), machine.host, FakeDataplane(), state, machine.clock)
    assert booted.version == in_force
    machine.clock.pass_seconds(SECONDS * 2)
    again = Agent(machine, NEXT_BOOT)
    assert again.ports() == {22}
    assert again.waiting() == SECONDS
    machine.clock.pass_seconds(SECONDS)
    assert again.ports() == {80}


@pytest.mark.usefixtures("holding")
def test_a_source_that_is_away_forgets_nothing(machine: Machine) -> None:
    """When it is back, the change still waits."""
    machine.source.remove()
    again = Agent(machine)
    assert again.ports() == {22}
    machine.source.write(WITHOUT_SSH)
    assert again.ports() == {22}
    assert again.waiting() == SECONDS


def test_observe_mode_cuts_nothing_so_nothing_waits(machine: Machine, agent: Agent) -> None:
    """Neither a change that comes then, nor one that waited."""
    machine.source.write(WITHOUT_SSH)
    assert agent.ports() == {22}
    agent.commands.switch_mode(agent.step, ModeCommand(mode=Mode.OBSERVE))
    assert agent.waiting() is None
    assert agent.ports() == {80}


def test_the_first_documents_wait_as_well(machine: Machine) -> None:
    """The host stays as it was: open (§9.2)."""
    machine.logins = (LOGIN,)
    machine.source.write(WITHOUT_SSH)
    agent = Agent(machine)
    assert machine.dataplane.ruleset is None
    assert agent.waiting() == SECONDS
    machine.clock.pass_seconds(SECONDS)
    assert agent.ports() == {80}


@pytest.mark.parametrize("is_closed_by", ("configuration", "lost state"))
def test_where_the_host_would_be_closed_nothing_waits(machine: Machine, is_closed_by: str) -> None:
    """That would cut the login as well (§9.2)."""
    if is_closed_by == "lost state":
        Agent(machine)
        for path in machine.state.directory.glob("history/*"):
            path.write_bytes(b"damaged")
        machine.dataplane.ruleset = None
    machine.logins = (LOGIN,)
    machine.source.write(WITHOUT_SSH)
    configuration = "[enforcement]\nfail_closed = true\n" if is_closed_by == "configuration" else ""
    assert Agent(machine, configuration=configuration).ports() == {80}


def test_a_trial_of_it_that_nobody_confirms_has_it_wait_again(machine: Machine, holding: Agent) -> None:
    """For the whole time, although the trial has cut the login."""
    holding.apply_held(60.0)
    assert holding.ports() == {80}
    machine.clock.pass_seconds(60)
    holding.commands.expire(holding.step)
    assert holding.ports() == {22}
    assert holding.waiting() == SECONDS


def test_a_trial_of_it_can_be_confirmed(holding: Agent) -> None:
    """Then it is in force, and nothing waits."""
    holding.apply_held(60.0)
    holding.commands.confirm(holding.step)
    assert holding.ports() == {80}
    assert holding.waiting() is None


def test_what_does_not_wait_can_not_be_applied(machine: Machine, agent: Agent) -> None:
    """Another version may have come since it was looked at."""
    with pytest.raises(UsageError, match="does not wait any more"):
        agent.apply_held()
    assert machine.dataplane.ruleset is not None


def test_a_rollback_holds_it_back_for_good(machine: Machine, agent: Agent) -> None:
    """Until the source delivers another version."""
    machine.source.write(WITH_WEB_TOO)
    agent.ports()
    machine.source.write(WITHOUT_SSH)
    agent.ports()
    agent.commands.rollback(agent.step, None)
    machine.clock.pass_seconds(SECONDS * 2)
    assert agent.ports() == {22}
    assert agent.waiting() is None


def test_what_cannot_be_listed_holds_nothing(machine: Machine, agent: Agent) -> None:
    """A kernel that can't tell of sessions must not freeze the policy."""

    def fail() -> tuple[LiveSession, ...]:
        raise OSError("no socket diagnosis")

    agent.hold.list_sessions = fail
    machine.source.write(WITHOUT_SSH)
    assert agent.ports() == {80}


def test_zero_seconds_hold_nothing(machine: Machine, agent: Agent) -> None:
    """As by default, for fleets."""
    agent.hold.seconds = 0
    machine.source.write(WITHOUT_SSH)
    assert agent.ports() == {80}
    assert parse_settings("", "sgagent.toml").enforcement.hold_lockout_seconds == 0


def test_an_unwritable_state_is_a_fault_and_holds_all_the_same(machine: Machine, agent: Agent) -> None:
    """It is told, as a restart would begin anew."""
    (machine.state.directory / ".held-change.json.new").mkdir()
    machine.source.write(WITHOUT_SSH)
    assert agent.ports() == {22}
    assert any("the held change could not be saved" in fault for fault in agent.reconciler.state_faults)
    (machine.state.directory / ".held-change.json.new").rmdir()
    assert agent.ports() == {22}
    assert agent.reconciler.state_faults == ()


def test_a_change_refused_by_the_kernel_is_tried_again_later(machine: Machine, tmp_path: Path) -> None:
    """After the backoff of any refused step; its deadline, which has passed, keeps nobody busy."""
    machine.logins = (LOGIN,)
    running = Running(machine, tmp_path, hold=hold_on(machine, THIS_BOOT, []))

    def refusals() -> int:
        for _ in range(3):  # turns of the loop, of which the first may have been under way
            assert running.inbox.wait_for_reading(20.0)
        return running.published.status.outcomes[StepEnd.REFUSED]

    def script() -> None:
        machine.source.write(WITHOUT_SSH)
        running.inbox.put(LoopEvent.SOURCE_CHANGED)
        wait_until(lambda: running.published.status.step.held_change is not None, "the hold")
        machine.dataplane.refusal = KernelRefusedError("No space left on device", "chain x")
        running.clock.pass_seconds(SECONDS)
        running.wait_for("ruleset_refused")
        assert refusals() == 1
        machine.dataplane.refusal = None
        running.clock.pass_seconds(FIRST_RETRY_SECONDS)
        running.wait_for("ruleset_applied", 2)

    running.while_it_runs(script)
