"""A step that was given up leaves nothing behind, wherever it failed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from sgagent.agent.clock import FILE_NAME as LATEST_TIME
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.step import Step, StepEnd
from sgagent.core.errors import KernelRefusedError, NotPermittedError, SgagentError
from sgagent.core.model import Mode
from sgagent.nft import names
from sgagent.nft.ruleset import Ruleset
from sgagent.ports import Dataplane, Host, Source
from sgagent.settings import Settings
from tests.unit.agent.machine import GOOD, MAC, Machine

RULE = """    rules:
      - {direction: ingress, policy: %s, priority: 1, protocol: tcp, port_range: %d/%d, rule_id: r%d,
         authorization_object: 192.0.2.0/24}
"""


def document(policy: str, port: int) -> str:
    """Return definitions with one rule."""
    return GOOD.replace("sg-1\n", "sg-1\n" + RULE % (policy, port, port, port), 1)


DOCUMENTS = (
    GOOD,
    document("accept", 80),
    document("drop", 80),
    document("accept", 443),
    GOOD.replace("sg-1]", "sg-2]"),
    "version: 1\nnonsense: true\n",
    None,
)
"""Definitions that can be enforced, that are refused when they are resolved and when they are read; none."""

REFUSALS = (KernelRefusedError, NotPermittedError)
ERRORS = (SgagentError, OSError, RuntimeError, *REFUSALS)


@dataclass(slots=True)
class Fuse:
    """Has one call of a port fail."""

    calls_left: int = 0
    """None fails at 0."""

    error: type[Exception] = SgagentError
    is_late: bool = False
    """Whether the call has had its effect; what refuses has none."""

    burnt: str | None = None
    """The call that failed."""

    def arm(self, calls: int, error: type[Exception], *, is_late: bool) -> None:
        """Have that call from now on fail."""
        self.calls_left, self.error, self.burnt = calls, error, None
        self.is_late = is_late and error not in REFUSALS

    def call(self, name: str, work: Callable[..., object], *arguments: object) -> object:
        """Do the work, unless this is the call that fails."""
        self.calls_left -= 1
        if self.calls_left != 0:
            return work(*arguments)
        self.burnt = name
        if self.is_late:
            work(*arguments)
        raise self.error(f"{name} failed")


@dataclass(slots=True)
class Fused:
    """A port, each call of which may fail."""

    port: Any
    fuse: Fuse

    def __getattr__(self, name: str) -> Callable[..., object]:
        """Return a method of the port."""
        return partial(self.fuse.call, name, getattr(self.port, name))


class Pair:
    """A host whose agent may fail, and its twin, whose agent never does."""

    def __init__(self, directory: Path) -> None:
        """Start without definitions."""
        self.fuse = Fuse()
        self.machine, self.twin_machine = Machine(directory / "host"), Machine(directory / "twin")
        self.agent = agent_of(self.machine, self.fuse)
        self.twin = agent_of(self.twin_machine, Fuse())
        self.has_touched = False
        """Whether a step that failed changed the table: generations may differ from then on."""

        self.is_drift = False

    def both(self, act: Callable[[Machine], object]) -> None:
        """Do something to both hosts."""
        act(self.machine)
        act(self.twin_machine)

    def override(self, mode: Mode | None) -> None:
        """Set the mode of all interfaces by hand."""
        for agent in (self.agent, self.twin):
            agent.overrides = agent.overrides.switched(None, mode)

    def tamper(self, edit: Callable[[Ruleset], Ruleset | None]) -> None:
        """Let another process change the table, if there is one."""
        for dataplane in (self.machine.dataplane, self.twin_machine.dataplane):
            if dataplane.ruleset is not None:
                self.is_drift, dataplane.ruleset = True, edit(dataplane.ruleset)

    def fail(self, calls: int, error: type[Exception], *, is_late: bool, fetch: bool) -> None:
        """Do a step in which a call fails; if it was given up, nothing of it is visible."""
        state, files, applied = self.agent.state, self.files(), len(self.machine.dataplane.applied)
        self.fuse.arm(calls, error, is_late=is_late)
        step = None
        with suppress(*ERRORS):
            step = self.agent.step(fetch=fetch)
        self.fuse.calls_left = 0
        if step is not None and step.outcome is not StepEnd.REFUSED:
            # The next step removes what is left, as another process must have changed something.
            is_left = self.fuse.burnt in ("before_counters_go", "remove")
            self.has_touched |= is_left
            self.compare(step, fetch=fetch)
            self.is_drift = is_left
            return
        assert self.agent.state is state
        assert self.files() == files
        self.has_touched |= len(self.machine.dataplane.applied) != applied

    def good(self, *, fetch: bool) -> None:
        """Do a step that ends as if none had failed before, and leaves nothing to do."""
        self.compare(self.agent.step(fetch=fetch), fetch=fetch)
        assert self.agent.step(fetch=False).outcome in (StepEnd.UNCHANGED, StepEnd.WAITING)
        self.twin.step(fetch=False)

    def compare(self, step: Step, *, fetch: bool) -> None:
        """Compare what a step ended with to the twin's, which has heard the same of the source."""
        self.twin.fetched = self.agent.fetched
        twin, state, expected = self.twin.step(fetch=fetch), self.agent.state, self.twin.state
        for name in ("policy", "version", "problems", "is_refused", "held_back", "source_error"):
            assert getattr(step, name) == getattr(twin, name), name
        for name in ("definitions", "known_links", "is_closed", "is_standing"):
            assert getattr(state, name) == getattr(expected, name), name
        assert (state.in_force is None) == (expected.in_force is None)
        if not self.has_touched:
            assert step == twin
            assert self.machine.dataplane.ruleset == self.twin_machine.dataplane.ruleset
        assert not step.was_drift or self.is_drift
        self.is_drift = False

    def files(self) -> list[tuple[str, bytes]]:
        """Return what is stored, but for the latest time known, which a step that is given up knows too."""
        every = self.machine.state.directory.rglob("*")
        paths = sorted(path for path in every if path.is_file() and path.name != LATEST_TIME)
        return [(path.name, path.read_bytes()) for path in paths]


def agent_of(machine: Machine, fuse: Fuse) -> Reconciler:
    """Return the agent of a host, whose ports may fail."""
    source, host, dataplane = (
        Fused(port, fuse) for port in (machine.source, machine.host, machine.dataplane)
    )
    return Reconciler(
        settings=Settings(),
        source=cast("Source", source),
        host=cast("Host", host),
        dataplane=cast("Dataplane", dataplane),
        directory=machine.state,
        clock=machine.clock,
        before_counters_go=cast("Any", partial(fuse.call, "before_counters_go", lambda _: None)),
        counters_gone=cast("Any", partial(fuse.call, "counters_gone", machine.counters_at_zero.append)),
        preview_cuts=cast("Any", partial(fuse.call, "preview_cuts", lambda _old, _new, _facts: ())),
    )


def write(machine: Machine, content: str | None) -> None:
    """Have the source deliver definitions, or be away."""
    if content is None:
        machine.source.remove()
    else:
        machine.source.write(content)


def plug(machine: Machine) -> None:
    """Unplug the link, or plug it in again."""
    if any(link.name == "eth0" for link in machine.host.facts().links):
        machine.host.remove_link("eth0")
    else:
        machine.host.add_link("eth0", MAC)


def delete(_table: Ruleset) -> None:
    """Leave no table."""


def spoil(table: Ruleset) -> Ruleset:
    """Make the state of a table unreadable: the next step takes two changes."""
    chains = (replace(c, comment="?") if c.name == names.STATE_CHAIN else c for c in table.chains)
    return replace(table, chains=tuple(chains))


Action = Callable[[Pair], None]


def acts() -> st.SearchStrategy[Action]:
    """Draw what happens to a host and to its agent."""
    return st.one_of(
        st.sampled_from(DOCUMENTS).map(lambda text: lambda pair: pair.both(partial(write, content=text))),
        st.just(lambda pair: pair.both(plug)),
        st.sampled_from([None, *Mode]).map(lambda mode: lambda pair: pair.override(mode)),
        st.sampled_from([delete, spoil]).map(lambda edit: lambda pair: pair.tamper(edit)),
        st.booleans().map(lambda fetch: lambda pair: pair.good(fetch=fetch)),
        failures(),
        failures(),
    )


@st.composite
def failures(draw: st.DrawFn) -> Action:
    """Draw a step in which a call fails."""
    calls, error = draw(st.integers(1, 14)), draw(st.sampled_from(ERRORS))
    is_late, fetch = draw(st.booleans()), draw(st.booleans())
    return lambda pair: pair.fail(calls, error, is_late=is_late, fetch=fetch)


@settings(max_examples=60, deadline=None)
@given(st.lists(acts(), max_size=12))
def test_nothing_of_a_step_that_was_given_up_is_visible(drawn: list[Action]) -> None:
    """The state is the very same one, the files too, and the next good step ends as if it had never been."""
    with tempfile.TemporaryDirectory() as directory:
        pair = Pair(Path(directory))
        for act in drawn:
            act(pair)
        pair.good(fetch=True)


@pytest.mark.parametrize(
    ("error", "moment"),
    (
        (SgagentError, "before"),
        (SgagentError, "after"),
        (RuntimeError, "after"),
        (KernelRefusedError, "before"),
        (NotPermittedError, "before"),
    ),
)
def test_a_change_may_fail_at_any_call(tmp_path: Path, error: type[Exception], moment: str) -> None:
    """Each call of a step that makes the table, of one that changes it, and of one that ends observing."""
    burnt: set[str] = set()
    for calls in range(1, 40):
        pair = Pair(tmp_path / str(calls))
        for text, mode in ((DOCUMENTS[1], Mode.OBSERVE), (DOCUMENTS[3], Mode.OBSERVE), (GOOD, None)):
            pair.both(partial(write, content=text))
            pair.override(mode)
            pair.fail(calls, error, is_late=moment == "after", fetch=True)
            if pair.fuse.burnt is not None:
                burnt.add(pair.fuse.burnt)
            pair.good(fetch=True)
        if pair.fuse.burnt is None:
            break
    expected = {"fetch", "endpoints", "facts", "observe", "preview_cuts", "before_counters_go", "clear_marks"}
    assert burnt == {*expected, "apply", "counters_gone", "remove", "share"}
