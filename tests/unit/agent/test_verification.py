"""The proofs in the background: what of them counts, and what the agent says of it."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import pytest

from sgagent.agent.prover import ProofRequest, Prover
from sgagent.agent.step import Step, StepEnd
from sgagent.agent.verification import Verification
from sgagent.core.errors import KernelRefusedError, SgagentError
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.libnftables import DONE, REFUSED
from sgagent.nft.marks import MarkLayout
from sgagent.verify import Outcome
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import GOOD, Machine
from tests.waiting import wait_until

NO_TABLE = DONE
OTHER = GOOD.replace(
    "  - security_group_id: sg-1\n",
    """  - security_group_id: sg-1
    rules:
      - {direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 80/80,
         authorization_object: 0.0.0.0/0}
""",
)
"""Another policy."""


UNUSED_LIST = "prefix_lists: [{prefix_list_id: pl-1, address_family: ipv4, entries: [203.0.113.0/24]}]\n"


@dataclass
class Listings:
    """What is listed next; each is written when the test says so."""

    contents: list[bytes] = field(default_factory=list)
    opened: list[socket.socket] = field(default_factory=list)
    is_held: bool = False
    """Whether what is opened waits for :meth:`release`."""

    def open(self) -> socket.socket:
        """Return where the next listing comes from."""
        reading, writing = socket.socketpair()
        self.opened.append(writing)
        if not self.is_held:
            self.release()
        return reading

    def release(self) -> None:
        """Write the newest listing."""
        with self.opened[-1] as writing:
            writing.sendall(self.contents[min(len(self.opened), len(self.contents)) - 1])


@dataclass
class Stage:
    """A verification that runs, and what it is given."""

    verification: Verification
    listings: Listings
    log: FakeLog
    machine: Machine

    def step(self) -> Step:
        """Have the agent do a step, which is followed."""
        with self.verification.stepping():
            step = self.machine.reconciler().step(fetch=True)
            self.verification.follow(step)
        return step

    def wait_for(self, outcome: Outcome) -> None:
        """Wait until the newest proof came to something."""
        wait_until(
            lambda: self.verification.newest is not None and self.verification.newest.outcome is outcome,
            f"{outcome}, not {self.verification.newest}",
        )

    def events(self, name: str) -> int:
        """Return how often something was logged."""
        return sum(event == name for event, _ in self.log.lines)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Run a verification beside an agent with definitions that bind its link."""
    machine = Machine(tmp_path / "state")
    machine.source.write(GOOD)
    listings, log = Listings(), FakeLog()
    made = Verification(listings.open, MarkLayout(0xFFFF0000), log, quiet_seconds=0.01)
    with made.running():
        yield Stage(made, listings, log, machine)


def test_a_table_that_is_not_there_is_refuted(stage: Stage) -> None:
    """The log has the packet, and in words."""
    stage.listings.contents = [NO_TABLE]
    stage.step()
    stage.wait_for(Outcome.REFUTED)
    newest = stage.verification.newest
    assert newest is not None
    assert newest.counterexample is not None
    assert newest.counterexample["found"]["path"] == []
    assert newest.description[0].startswith("refuted: the table in the kernel")
    assert stage.events("table_refuted") == 1


@pytest.mark.parametrize(
    ("listing", "reason"),
    (
        (REFUSED + b"Operation not permitted", "listing of the table: Operation not permitted"),
        (b"", "listing of the table: the process that lists has ended"),
        (DONE + b"{", "the dump of the table: a message that is cut off"),
        (DONE + bytes(16), "the dump of the table: a message that is cut off"),
    ),
)
def test_what_can_not_be_read_is_unknown(stage: Stage, listing: bytes, reason: str) -> None:
    """And the next proof is made all the same."""
    stage.listings.contents = [listing, NO_TABLE]
    stage.step()
    stage.wait_for(Outcome.UNKNOWN)
    newest = stage.verification.newest
    assert newest is not None
    assert newest.unsupported[0].startswith(reason)
    assert stage.events("table_not_verified") == 1
    stage.machine.source.write(OTHER)
    stage.step()
    stage.wait_for(Outcome.REFUTED)


def test_a_guardrail_that_the_table_breaks_is_told(stage: Stage, tmp_path: Path) -> None:
    """First of all, with a packet; another statement has the same table asked again (§13.4)."""
    rails = tmp_path / "guardrails.yaml"
    rails.write_text("never: [{id: no-db, reason: d, from: any, protocol: tcp, ports: 5432, except: sg-1}]")
    stage.listings.contents = [NO_TABLE]
    reconciler = stage.machine.reconciler(f'[guardrails]\npath = "{rails}"\n')
    said = []
    for name in ("no-db", "no-dump"):
        rails.write_text(rails.read_text().replace("no-db", name))
        with stage.verification.stepping():
            stage.verification.follow(reconciler.step(fetch=True))
        stage.wait_for(Outcome.REFUTED)
        assert stage.verification.newest is not None
        said.append(stage.verification.newest.description[0].partition(":")[0])
    assert said == [f"guardrail {name} is broken by the table in the kernel" for name in ("no-db", "no-dump")]


def test_a_listing_of_another_moment_does_not_count(stage: Stage) -> None:
    """What came while the agent was in a step that changed the table says nothing of either policy."""
    stage.listings.contents = [NO_TABLE, REFUSED + b"later"]
    stage.listings.is_held = True
    stage.step()
    wait_until(lambda: len(stage.listings.opened) == 1, "the first listing")
    with stage.verification.stepping():
        stage.listings.release()
        stage.machine.source.write(OTHER)
        stage.verification.follow(stage.machine.reconciler().step(fetch=True))
    wait_until(lambda: len(stage.listings.opened) == 2, "the second listing")
    assert stage.verification.newest is None
    stage.listings.release()
    stage.wait_for(Outcome.UNKNOWN)
    assert stage.events("table_refuted") == 0


def test_a_listing_of_another_moment_is_not_proved() -> None:
    """A proof of a large table takes a minute, and of one that the policy is not of up to half an hour."""
    request = ProofRequest(policy=ResolvedPolicy(), mask=0, state=None)
    listings = Listings(contents=[NO_TABLE])
    with closing(Prover()) as prover:
        assert prover.prove(request, listings.open(), lambda: False) is None
        answer = prover.prove(request, listings.open(), lambda: True)
    assert answer is not None
    assert answer.outcome is Outcome.PROVED


def test_an_unchanged_step_proves_nothing_anew(stage: Stage) -> None:
    """One listing serves them all."""
    stage.listings.contents = [NO_TABLE]
    agent = stage.machine.reconciler()
    for _ in range(3):
        with stage.verification.stepping():
            stage.verification.follow(agent.step(fetch=True))
        stage.wait_for(Outcome.REFUTED)
    assert len(stage.listings.opened) == 1


def test_changes_that_never_pause_are_proved_between_two(tmp_path: Path) -> None:
    """A pause would last an hour: without a longest wait nothing was ever listed."""
    machine = Machine(tmp_path / "state")
    listings, log = Listings(contents=[NO_TABLE]), FakeLog()
    made = Verification(
        listings.open, MarkLayout(0xFFFF0000), log, quiet_seconds=3600.0, longest_seconds=0.05
    )
    with made.running():
        stage, texts = Stage(made, listings, log, machine), cycle((GOOD, OTHER))

        def change_again() -> bool:
            machine.source.write(next(texts))
            stage.step()
            return bool(listings.opened)

        wait_until(change_again, "a listing between two changes")
        stage.wait_for(Outcome.REFUTED)
    assert stage.events("table_refuted") >= 1


def test_a_change_takes_the_proof_of_the_table_before(stage: Stage) -> None:
    """From the step on, until the new table is proved; a step that changes nothing leaves it."""
    stage.listings.contents = [NO_TABLE, REFUSED + b"later"]
    stage.step()
    stage.wait_for(Outcome.REFUTED)
    before = stage.verification.newest
    stage.step()
    assert stage.verification.newest == before
    stage.listings.is_held = True
    stage.machine.source.write(OTHER)
    stage.step()
    assert stage.verification.newest is None
    wait_until(lambda: len(stage.listings.opened) == 2, "the second listing")
    stage.listings.release()
    stage.wait_for(Outcome.UNKNOWN)


def test_a_proof_names_its_snapshot(stage: Stage) -> None:
    """One that comes to the same policy here takes the proof over, as nothing else has to be proved."""
    stage.listings.contents = [NO_TABLE]
    agent = stage.machine.reconciler()
    versions = list[str | None]()
    for text in (GOOD, GOOD + UNUSED_LIST):
        stage.machine.source.write(text)
        with stage.verification.stepping():
            step = agent.step(fetch=True)
            stage.verification.follow(step)
        stage.wait_for(Outcome.REFUTED)
        newest = stage.verification.newest
        assert newest is not None
        assert newest.version == step.version
        assert newest.generation is not None
        versions.append(newest.version)
    assert len(set(versions)) == 2
    assert len(stage.listings.opened) == 1


def test_what_the_kernel_refuses_leaves_the_proof(stage: Stage) -> None:
    """No verdict was changed: the table in force is still the one that was proved."""
    stage.listings.contents = [NO_TABLE]
    agent = stage.machine.reconciler()
    with stage.verification.stepping():
        stage.verification.follow(agent.step(fetch=True))
    stage.wait_for(Outcome.REFUTED)
    before = stage.verification.newest
    stage.machine.source.write(OTHER)
    stage.machine.dataplane.refusal = KernelRefusedError("no room")
    with stage.verification.stepping():
        step = agent.step(fetch=True)
        stage.verification.follow(step)
    assert step.outcome is StepEnd.REFUSED
    assert stage.verification.newest == before


def test_a_step_that_did_not_end_leaves_no_proof(stage: Stage) -> None:
    """Nobody knows what the table is then; the next step has it proved, although it changes nothing."""
    stage.listings.contents = [NO_TABLE]
    agent = stage.machine.reconciler()
    with stage.verification.stepping():
        stage.verification.follow(agent.step(fetch=True))
    stage.wait_for(Outcome.REFUTED)
    with pytest.raises(SgagentError), stage.verification.stepping():
        raise SgagentError("the links can't be listed")
    assert stage.verification.newest is None
    with stage.verification.stepping():
        stage.verification.follow(agent.step(fetch=True))
    stage.wait_for(Outcome.REFUTED)
    assert len(stage.listings.opened) == 2


def test_an_interim_table_that_stays_is_not_proved(stage: Stage) -> None:
    """The kernel refused the table after it, so the one that was proved is gone."""
    stage.listings.contents = [NO_TABLE]
    step = stage.step()
    stage.wait_for(Outcome.REFUTED)
    with stage.verification.stepping():
        stage.verification.follow(replace(step, outcome=StepEnd.REFUSED, is_interim=True))
    assert stage.verification.newest is None


def test_the_process_that_proves_ends_when_it_is_idle(tmp_path: Path) -> None:
    """What it took of memory is free; the next change has another one started."""
    machine = Machine(tmp_path / "state")
    machine.source.write(GOOD)
    listings, log = Listings(contents=[NO_TABLE]), FakeLog()
    made = Verification(listings.open, MarkLayout(0xFFFF0000), log, quiet_seconds=0.01, idle_seconds=0.01)
    with made.running():
        stage = Stage(made, listings, log, machine)
        for text in (GOOD, OTHER):
            machine.source.write(text)
            stage.step()
            stage.wait_for(Outcome.REFUTED)
            wait_until(lambda: not processes_that_prove(), "the end of the process that proves")
    assert stage.events("verification_ended") == 0
    assert stage.events("table_refuted") == 2


def test_steps_that_change_nothing_keep_no_process_that_proves(tmp_path: Path) -> None:
    """It ends though steps come more often than it may be idle."""
    machine = Machine(tmp_path / "state")
    machine.source.write(GOOD)
    listings, log = Listings(contents=[NO_TABLE]), FakeLog()
    made = Verification(listings.open, MarkLayout(0xFFFF0000), log, quiet_seconds=0.01, idle_seconds=0.5)
    with made.running():
        stage = Stage(made, listings, log, machine)
        stage.step()
        stage.wait_for(Outcome.REFUTED)
        wait_until(lambda: (stage.step(), not processes_that_prove())[1], "the end of the prover")


def test_a_proof_that_takes_too_much_memory_is_unknown(stage: Stage) -> None:
    """It never takes the host's; a smaller one is made by the same process."""
    stage.listings.contents = [NO_TABLE]
    stage.step()
    stage.wait_for(Outcome.REFUTED)
    (pid,) = processes_that_prove()
    resource.prlimit(pid, resource.RLIMIT_DATA, (LITTLE, LITTLE))
    stage.listings.contents = [NO_TABLE, DONE + bytes(2 * LITTLE), NO_TABLE]
    stage.listings.is_held = True
    stage.machine.source.write(OTHER)
    stage.step()
    wait_until(lambda: len(stage.listings.opened) == 2, "the second listing")
    with suppress(BrokenPipeError):
        stage.listings.release()
    stage.wait_for(Outcome.UNKNOWN)
    newest = stage.verification.newest
    assert newest is not None
    assert newest.unsupported[0].startswith(f"the proof needs more than {LITTLE >> 20} MiB")
    stage.listings.is_held = False
    stage.machine.source.write(GOOD)
    stage.step()
    stage.wait_for(Outcome.REFUTED)
    assert processes_that_prove() == [pid]


LITTLE = 64 << 20
"""Bytes; the program itself takes less."""


def processes_that_prove() -> list[int]:
    """Return the process ids of this test's children that prove."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    found = (int(child) for path in children for child in path.read_text(encoding="ascii").split())
    return [child for child in found if _name(child) == "sgagent-prover"]


def _name(pid: int) -> str:
    """Return the name of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except OSError:
        return ""
