"""The names of an agent: asked for, enforced, kept over restarts (§12.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sgagent.agent.names.name_table import DnsAnswer, NameLookUp, NameState
from sgagent.agent.names.resolver import FILE_NAME, DnsAnswers, NameWatch
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import NO_FACTS
from sgagent.core.model import TCP, UDP, Family, Policy
from sgagent.nft.transactions import AddElements, DeleteElements
from sgagent.settings import parse_settings
from tests.unit.agent.machine import MAC, Machine
from tests.unit.agent.running import Running
from tests.waiting import wait_until
from tests.words import OUT, blocks, packet, verdict

NAME = "mirror.example.org"
SERVER = "192.0.2.53"
A, B = "192.0.2.80", "192.0.2.81"
DAY = 86_400.0


def policy(*objects: str, more: str = "") -> str:
    """Return definitions that let out to objects alone."""
    return f"""
version: 1
security_groups:
  - security_group_id: sg-1
    type: advanced
    rules:
      - rule_id: sgr-out
        direction: egress
        policy: accept
        protocol: tcp
        port_range: 443
        authorization_object: [{", ".join(f"'{one}'" for one in objects)}]
{more}
network_interfaces:
  - {{network_interface_id: eni-1, mac_address: '{MAC}', addresses: [10.0.0.11], security_group_ids: [sg-1]}}
"""


class FakeResolver:
    """Answers what a test says; implements :class:`sgagent.agent.names.resolver.Resolver`."""

    def __init__(self) -> None:
        """Know no name and fail."""
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.is_silent = False
        self.ttl_seconds = 60.0
        self._found: list[NameLookUp] = []

    def ask(self, name: str, servers: Sequence[str]) -> None:
        """Have an answer at once."""
        self.asked.append((name, tuple(servers)))
        if self.is_silent:
            self._found.append(NameLookUp(name, {}, f"no answer from {SERVER}"))
            return
        known = blocks(*self.addresses.get(name, ()))
        answers = {
            family: DnsAnswer(frozenset(b for b in known if b.family is family), self.ttl_seconds)
            for family in Family
        }
        self._found.append(NameLookUp(name, answers))

    def found(self) -> list[NameLookUp]:
        """Return the answers."""
        found, self._found = self._found, []
        return found


class Agent:
    """An agent of a machine in memory, and its name servers."""

    def __init__(self, machine: Machine, resolver: FakeResolver, configuration: str = "") -> None:
        """Start it."""
        state = f"[state]\ndirectory = '{machine.state.directory}'"
        text = f"{configuration}\n[dns]\nservers = ['{SERVER}']\n{state}"
        self.machine = machine
        self.names = NameWatch(parse_settings(text, "sgagent.toml"), machine.clock, self.latest(), resolver)
        self.reconciler: Reconciler = machine.reconciler(text, names=self.names)

    def latest(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self.machine.clock.now(), UTC)

    def step(self) -> Step:
        """Do a step."""
        return self.reconciler.step(fetch=True)

    def run_once(self) -> bool:
        """Take in answers and ask for what is due, as the loop does once a second."""
        self.machine.clock.pass_seconds(1)
        return self.names.run_once(self.latest)

    def settle(self) -> Step:
        """Do a step, have the names resolved, and do another."""
        self.step()
        self.run_once()
        self.run_once()
        return self.step()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine."""
    made = Machine(tmp_path)
    made.source.write(policy(f"dns:{NAME}"))
    return made


@pytest.fixture
def resolver() -> FakeResolver:
    """Return name servers that know the name."""
    made = FakeResolver()
    made.addresses[NAME] = (A,)
    return made


def leaves(step: Step, address: str, port: int = 443) -> bool:
    """Return whether a session may be opened to an address."""
    assert step.policy is not None
    protocol = UDP if port == 53 else TCP
    return verdict(step.policy, packet(OUT, address, protocol, port)) is Policy.ACCEPT


def codes(step: Step) -> list[str]:
    """Return what is wrong."""
    return [problem.code for problem in step.problems]


def test_a_name_is_closed_until_resolved_its_servers_open(machine: Machine, resolver: FakeResolver) -> None:
    """The first step waits for nobody."""
    agent = Agent(machine, resolver)
    first = agent.step()
    assert (leaves(first, A), leaves(first, SERVER, 53), codes(first)) == (False, True, ["unresolved_name"])
    assert first.unknown_objects == 1
    assert not agent.run_once()
    assert agent.run_once()
    second = agent.step()
    assert (leaves(second, A), leaves(second, B), codes(second)) == (True, False, [])
    assert resolver.asked == [(NAME, (SERVER,))]


def test_a_changed_answer_is_a_change_of_elements(machine: Machine, resolver: FakeResolver) -> None:
    """No chain, map or rule is made for it, and sessions need not be judged again."""
    agent = Agent(machine, resolver)
    agent.settle()
    before = machine.dataplane.observe().ruleset
    resolver.addresses[NAME] = (A, B)
    machine.clock.pass_seconds(60)
    agent.run_once()
    assert agent.run_once()
    machine.dataplane.applied.clear()
    step = agent.step()
    assert (step.outcome, leaves(step, A), leaves(step, B)) == (StepEnd.APPLIED, True, True)
    (plan,) = machine.dataplane.applied
    assert {type(operation) for operation in plan.operations} <= {AddElements, DeleteElements}
    after = machine.dataplane.observe().ruleset
    assert before is not None
    assert after is not None
    assert after.chains == before.chains


def test_an_equal_answer_is_no_change(machine: Machine, resolver: FakeResolver) -> None:
    """However often it comes."""
    agent = Agent(machine, resolver)
    agent.settle()
    for _ in range(10):
        machine.clock.pass_seconds(60)
        assert not agent.run_once()
    assert agent.step().outcome is StepEnd.UNCHANGED
    assert len(resolver.asked) > 5


def agent_with_leaving_address(machine: Machine, resolver: FakeResolver) -> Agent:
    """Return an agent that knows a name's new address, B, and lets packets to the old one, A, pass yet."""
    agent = Agent(machine, resolver)
    agent.settle()
    resolver.addresses[NAME] = (B,)
    machine.clock.pass_seconds(60)
    agent.run_once()
    agent.run_once()
    assert leaves(agent.step(), A)
    return agent


def test_an_old_address_passes_for_ten_minutes(machine: Machine, resolver: FakeResolver) -> None:
    """Then the loop hears that it is gone without an answer that says so."""
    agent = agent_with_leaving_address(machine, resolver)
    resolver.is_silent = True
    machine.clock.pass_seconds(595)
    assert leaves(agent.step(), A)
    machine.clock.pass_seconds(10)
    assert agent.run_once()
    step = agent.step()
    assert (leaves(step, A), leaves(step, B)) == (False, True)


def test_a_refused_order_hides_no_address_that_has_gone(machine: Machine, resolver: FakeResolver) -> None:
    """To judge its documents takes what names stand for, too, and no step follows."""
    agent = agent_with_leaving_address(machine, resolver)
    resolver.is_silent = True
    machine.clock.pass_seconds(605)
    assert not agent.reconciler.refusal_of(machine.source.fetch())
    assert agent.run_once()
    assert not leaves(agent.reconciler.step(fetch=False), A)
    assert not agent.run_once()


def test_a_clock_that_jumps_takes_no_address_from_commands(machine: Machine, resolver: FakeResolver) -> None:
    """They read what the agent keeps, and measure ages by the wall clock: so a jump has it written anew."""
    agent = agent_with_leaving_address(machine, resolver)
    machine.clock.set_back(-3600)
    agent.run_once()
    settings = parse_settings(f"[state]\ndirectory = '{machine.state.directory}'", "sgagent.toml")
    answers = DnsAnswers(settings, machine.clock, agent.latest(), is_asked=False)
    known = answers.of([NAME], NO_FACTS).addresses[NAME]
    assert known.ipv4 == tuple((block.first, block.last) for block in blocks(A, B))


def test_silence_changes_nothing_for_a_day_over_restarts(machine: Machine, resolver: FakeResolver) -> None:
    """After it the name matches nothing, and a warning says so."""
    Agent(machine, resolver).settle()
    resolver.is_silent = True
    for hour in range(23):
        machine.clock.pass_seconds(3_600)
        agent = Agent(machine, resolver)
        assert leaves(agent.step(), A), hour
        agent.run_once()
        agent.run_once()
    machine.clock.pass_seconds(3_600)
    agent = Agent(machine, resolver)
    step = agent.step()
    assert (leaves(step, A), codes(step)) == (False, ["name_expired"])
    assert [one.state for one in agent.names.report()] == [NameState.EXPIRED]
    assert step.unknown_objects == 0


def test_the_hours_are_configurable(machine: Machine, resolver: FakeResolver) -> None:
    """Of a running agent too."""
    text = "[dns]\nkeep_hours = 1\nservers = ['192.0.2.53']"
    settings = parse_settings(f"{text}\n[state]\ndirectory = '{machine.state.directory}'", "sgagent.toml")
    names = NameWatch(settings, machine.clock, datetime.now(UTC), resolver)
    names.want(frozenset({NAME}))
    names.run_once(lambda: datetime.now(UTC))
    machine.clock.pass_seconds(1)
    names.run_once(lambda: datetime.now(UTC))
    resolver.is_silent = True
    machine.clock.pass_seconds(3_599)
    assert names.resolved(NO_FACTS).addresses[NAME]
    machine.clock.pass_seconds(2)
    assert not names.resolved(NO_FACTS).addresses[NAME]


def test_what_is_known_is_in_force_before_anything_is_asked(machine: Machine, resolver: FakeResolver) -> None:
    """As at a boot, where the source is away too."""
    Agent(machine, resolver).settle()
    machine.source.remove()
    boot = machine.reconciler(f"[state]\ndirectory = '{machine.state.directory}'")
    step = boot.step(fetch=True)
    assert leaves(step, A)
    assert not boot.names.run_once(lambda: datetime.now(UTC))


def test_a_wrong_clock_at_boot_revives_and_forgets_nothing(machine: Machine, resolver: FakeResolver) -> None:
    """The latest time known counts, and while an agent runs the monotonic clock."""
    Agent(machine, resolver).settle()
    resolver.is_silent = True
    machine.clock.set_back(30 * DAY)
    agent = Agent(machine, resolver)
    assert leaves(agent.step(), A)
    machine.clock.pass_seconds(DAY)
    assert not leaves(agent.step(), A)


def test_a_damaged_file_is_a_fault_and_names_are_asked_for(machine: Machine, resolver: FakeResolver) -> None:
    """The agent starts without it, and goes on to say so after it has written the file anew."""
    (machine.state.directory / FILE_NAME).write_text("{}")
    agent = Agent(machine, resolver)
    agent.step()
    (fault,) = agent.reconciler.state_faults
    assert "not a file of names" in fault
    assert leaves(agent.settle(), A)
    assert agent.reconciler.state_faults == (fault,)
    assert Agent(machine, resolver).reconciler.state_faults == ()


def test_strict_does_not_refuse_for_want_of_a_name_server(machine: Machine, resolver: FakeResolver) -> None:
    """The definitions are not at fault, and while they were refused nobody would ask."""
    agent = Agent(machine, resolver, "[enforcement]\nstrict = true")
    step = agent.step()
    assert (step.is_refused, leaves(step, SERVER, 53)) == (False, True)


def test_addresses_of_the_host_are_ignored_with_a_warning(machine: Machine, resolver: FakeResolver) -> None:
    """Who controls a name must not reach the host's inside by it."""
    machine.host.add_address("eth0", "10.0.0.11")
    resolver.addresses[NAME] = ("10.0.0.11", "127.0.0.1", A)
    step = Agent(machine, resolver).settle()
    assert (leaves(step, "10.0.0.11"), leaves(step, "127.0.0.1"), leaves(step, A)) == (False, False, True)
    assert codes(step) == ["name_of_inside"]


def test_a_name_that_no_rule_names_is_not_asked_for(machine: Machine, resolver: FakeResolver) -> None:
    """Nor are its servers let through; a rule that comes back finds its addresses."""
    agent = Agent(machine, resolver)
    agent.settle()
    machine.source.write(policy("10.9.9.9"))
    step = agent.step()
    assert not leaves(step, SERVER, 53)
    asked = len(resolver.asked)
    machine.clock.pass_seconds(3_600)
    agent.run_once()
    assert (len(resolver.asked), agent.names.report()) == (asked, ())
    machine.source.write(policy(f"dns:{NAME}"))
    assert leaves(agent.step(), A)


def test_the_hosts_servers_are_followed(machine: Machine, resolver: FakeResolver) -> None:
    """A changed resolv.conf changes whom to ask, and what is fail-safe; loopback needs no way."""
    servers = ["127.0.0.53", SERVER]
    settings = parse_settings(f"[state]\ndirectory = '{machine.state.directory}'", "sgagent.toml")
    names = NameWatch(settings, machine.clock, datetime.now(UTC), resolver, lambda: tuple(servers))
    agent = machine.reconciler(names=names)
    step = agent.step(fetch=True)
    assert (leaves(step, SERVER, 53), leaves(step, "198.51.100.53", 53)) == (True, False)
    servers[:] = ["198.51.100.53"]
    assert names.run_once(lambda: datetime.now(UTC))
    assert resolver.asked == [(NAME, ("198.51.100.53",))]
    step = agent.step(fetch=False)
    assert (leaves(step, SERVER, 53), leaves(step, "198.51.100.53", 53)) == (False, True)
    machine.clock.pass_seconds(61)
    assert len({str(endpoint) for endpoint in names.endpoints()}) == 2


def test_servers_changed_at_a_start_pass(machine: Machine, resolver: FakeResolver, tmp_path: Path) -> None:
    """As at a boot, where resolv.conf is written meanwhile; no other event brings a step about."""
    servers = iter([(SERVER,)])
    settings = parse_settings(f"[state]\ndirectory = '{machine.state.directory}'", "sgagent.toml")
    now = datetime.fromtimestamp(machine.clock.now(), UTC)
    names = NameWatch(settings, machine.clock, now, resolver, lambda: next(servers, ("198.51.100.53",)))
    running = Running(machine, tmp_path / "counters", names)
    running.while_it_runs(
        lambda: wait_until(
            lambda: leaves(running.published.status.step, "198.51.100.53", 53), "the other server"
        )
    )
    assert machine.source.fetches == 1
