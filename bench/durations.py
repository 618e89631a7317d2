"""Measure how long it takes to compile, to apply, to change one thing and to read the counters.

Beside each stands what ``nft`` takes for the same: with the finished text of our ruleset, with a linear one
of the same policy, and with the very transactions of a change on a copy that nobody owns.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.answers import measure_answers
from bench.installed import INTERPRETER
from bench.linear import TABLE, Order, render_linear
from bench.packetcost import LAYOUT, OURS, compiled_text
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy, with_member, with_rule
from bench.results import Duration, Spread
from bench.sizes import Size
from integration.namespaces import Namespace, network_namespace
from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, Enforcement, enforce
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.nft.marks import first_state
from sgagent.nft.transactions import encode_plan

ROOT = Path(__file__).resolve().parents[1]
BY_NFT = "nft, the same"
FIRST_APPLY = "first apply, as a command"
LINEAR = Order.ADDRESS_FIRST.value

_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Files:
    """One policy as the files that commands read."""

    definitions: Path
    ours: Path
    linear: Path

    @classmethod
    def write(cls, policy: BenchPolicy, directory: Path) -> Files:
        """Write the files into a directory."""
        files = cls(directory / "definitions.json", directory / "ours.nft", directory / "linear.nft")
        files.definitions.write_text(policy.document(), encoding="utf-8")
        files.ours.write_text(compiled_text(policy), encoding="utf-8")
        linear = render_linear(policy.resolved, Order.ADDRESS_FIRST)
        files.linear.write_text(linear, encoding="utf-8")
        return files


def measure_durations(policy: BenchPolicy, files: Files, repeats: int) -> Iterator[Duration]:
    """Measure all operations at one size."""
    yield _duration(policy.size, "compile, in process", OURS, _compile_seconds(policy, repeats))
    yield from measure_answers(policy, repeats)
    yield from _measure_loads(policy.size, files, repeats)
    yield from _measure_changes(policy, files, repeats)


def _duration(size: Size, operation: str, contender: str, seconds: list[float]) -> Duration:
    return Duration(size=size, operation=operation, contender=contender, seconds=Spread.of(seconds))


def _compile_seconds(policy: BenchPolicy, repeats: int) -> list[float]:
    state, resolved = first_state([INTERFACE], LAYOUT), policy.resolved
    return [_seconds(lambda: compile_(resolved, LAYOUT, state)) for _ in range(repeats)]


def _measure_loads(size: Size, files: Files, repeats: int) -> Iterator[Duration]:
    """Measure whole commands, process start included: into an empty namespace, and once more."""
    commands = {
        OURS: sgagent("compile", "--definitions", str(files.definitions), *BINDING),
        BY_NFT: ("nft", "-f", str(files.ours)),
        LINEAR: ("nft", "-f", str(files.linear)),
    }
    first: dict[str, list[float]] = {name: [] for name in commands}
    again: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, argv in commands.items():
            with network_namespace("load") as namespace:
                first[name].append(run_in(namespace, argv))
                again[name].append(run_in(namespace, argv))
    for operation, found in ((FIRST_APPLY, first), ("the same once more", again)):
        for name, seconds in found.items():
            yield _duration(size, operation, name, seconds)


BINDING = ("--interface", f"{INTERFACE}={GROUP_ID}")


def sgagent(*arguments: str) -> tuple[str, ...]:
    """Return the command line of sgagent, with an empty configuration."""
    return (INTERPRETER, "-m", "sgagent", "--config", "/dev/null", *arguments)


def run_in(namespace: Namespace, argv: tuple[str, ...], stdin: str = "") -> float:
    """Run a command in a namespace and return the seconds from its start to its end.

    Raises:
        subprocess.CalledProcessError: it failed; what it said is in ``stderr``.
    """
    with namespace.entered():
        began = time.perf_counter()
        subprocess.run(
            argv, input=stdin, text=True, capture_output=True, check=True, cwd=ROOT, timeout=_SECONDS
        )
        return time.perf_counter() - began


def _seconds(operation: Callable[[], object]) -> float:
    began = time.perf_counter()
    operation()
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class _Change:
    """A change to and fro, and its commands in a linear ruleset."""

    name: str
    policy: ResolvedPolicy
    linear_there: str
    linear_back: str
    """``HANDLE`` stands for that of the first rule."""


def _measure_changes(policy: BenchPolicy, files: Files, repeats: int) -> Iterator[Duration]:
    """Measure changes of one thing where the policy stands, and reading the counters."""
    with contextlib.ExitStack() as stack:
        host, copy, linear = (stack.enter_context(network_namespace(n)) for n in ("ours", "copy", "linear"))
        agent = stack.enter_context(_agent(host, policy.resolved))
        run_in(copy, ("nft", "-f", str(files.ours)))
        run_in(linear, ("nft", "-f", str(files.linear)))
        for change in _changes(policy):
            seconds = [_change_once(agent, change, policy.resolved, copy, linear) for _ in range(repeats)]
            yield _duration(policy.size, f"{change.name}: decide", OURS, [found.decide for found in seconds])
            for contender in (OURS, BY_NFT, LINEAR):
                found = [one.transaction[contender] for one in seconds]
                yield _duration(policy.size, f"{change.name}: transaction", contender, found)
        yield from _measure_reading(policy.size, agent, copy, linear, repeats)


def _changes(policy: BenchPolicy) -> tuple[_Change, _Change]:
    group = policy.groups[-1]
    address = f"{{ {IPv4Address(group.numbers.stop)} }}"
    rule = "ip saddr 203.0.113.0/24 tcp dport 443 counter accept"
    return (
        _Change(
            "one member joins",
            with_member(policy).resolved,
            f"add element inet {TABLE} {group.group_id} {address}",
            f"delete element inet {TABLE} {group.group_id} {address}",
        ),
        _Change(
            "one rule comes",
            with_rule(policy).resolved,
            f"insert rule inet {TABLE} ingress {rule}",
            # What it takes to find the rule's handle again is not counted.
            f"delete rule inet {TABLE} ingress handle HANDLE",
        ),
    )


@dataclass(frozen=True, slots=True)
class _Seconds:
    """The durations of one change."""

    decide: float
    """To compile and to compare with what stands."""

    transaction: dict[str, float]
    """By contender."""


def _change_once(
    agent: _Agent, change: _Change, back: ResolvedPolicy, copy: Namespace, linear: Namespace
) -> _Seconds:
    """Carry a change out everywhere, and take it back."""
    there = agent.enforce(change.policy)
    by_nft = run_in(copy, ("nft", "-j", "-f", "-"), there.commands)
    in_list = run_in(linear, ("nft", "-f", "-"), change.linear_there)
    returned = agent.enforce(back)
    run_in(copy, ("nft", "-j", "-f", "-"), returned.commands)
    back_again = change.linear_back.replace("HANDLE", str(_handle_of_new_rule(linear)))
    run_in(linear, ("nft", "-f", "-"), back_again)
    return _Seconds(there.decide, {OURS: there.apply, BY_NFT: by_nft, LINEAR: in_list})


def _handle_of_new_rule(linear: Namespace) -> int:
    """Return the handle of the first rule of the list."""
    listing = json.loads(linear.nft("-j", "-a", "list", "chain", "inet", TABLE, "ingress"))
    return int(next(item["rule"]["handle"] for item in listing["nftables"] if "rule" in item))


def _measure_reading(
    size: Size, agent: _Agent, copy: Namespace, linear: Namespace, repeats: int
) -> Iterator[Duration]:
    """Measure reading all counters; those of a linear ruleset are nowhere but in its rules."""
    of_copy = ("nft", "-j", "list", "counters", "table", "inet", "sgagent")
    of_linear = ("nft", "-j", "list", "table", "inet", TABLE)
    found: dict[str, list[float]] = {OURS: [], BY_NFT: [], LINEAR: []}
    for _ in range(repeats):
        found[OURS].append(_seconds(agent.dataplane.read_counters))
        found[BY_NFT].append(run_in(copy, of_copy))
        found[LINEAR].append(run_in(linear, of_linear))
    for contender, seconds in found.items():
        yield _duration(size, "read all counters", contender, seconds)


@dataclass(frozen=True, slots=True)
class _Step:
    """The durations and the transaction of one step of the agent."""

    decide: float
    apply: float
    commands: str
    """Its transaction, for ``nft -j -f -``."""


@dataclass(slots=True)
class _Agent:
    """The daemon's work with a policy, without the daemon."""

    dataplane: LibnftablesDataplane
    enforced: Enforced | None = None

    def enforce(self, policy: ResolvedPolicy) -> _Step:
        """Decide and apply, as a step of the reconciler does."""
        began = time.perf_counter()
        found = self._decide(policy)
        decided = time.perf_counter()
        self.dataplane.apply(found.plan)
        self.dataplane.remove(found.plan)
        applied = time.perf_counter()
        self.enforced = found.enforcing(policy)
        commands = json.dumps(encode_plan(found.plan, []))
        return _Step(decided - began, applied - decided, commands)

    def _decide(self, policy: ResolvedPolicy) -> Enforcement:
        observed = self.dataplane.observe()
        return enforce(policy, observed.ruleset, observed.foreign, LAYOUT, enforced=self.enforced)


@contextlib.contextmanager
def _agent(host: Namespace, policy: ResolvedPolicy) -> Iterator[_Agent]:
    """Own the table in a namespace, with a policy enforced."""
    with host.entered():
        dataplane = LibnftablesDataplane(owned=True)
    try:
        agent = _Agent(dataplane)
        agent.enforce(policy)
        yield agent
    finally:
        dataplane.close()
