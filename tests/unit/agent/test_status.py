"""How the status follows the steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.posture import InterfaceState, InterfaceStatus, Posture, state_in_words
from sgagent.agent.status import BOUNDS, Durations, Status, status_after
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import BridgeHooks, HostFacts, Link
from sgagent.core.errors import NOWHERE, Problem, Severity
from sgagent.core.lockout import NamedCut, SessionKind
from sgagent.core.model import Direction, Family, Mode
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy

APPLIED = Step(
    outcome=StepEnd.APPLIED, version="v1", compile_seconds=0.02, apply_seconds=0.2, policy=ResolvedPolicy()
)
UNCHANGED = Step(outcome=StepEnd.UNCHANGED, version="v1", compile_seconds=0.02, policy=ResolvedPolicy())
WAITING = Step(outcome=StepEnd.WAITING, source_error="not there")
KERNEL_REFUSED = Step(outcome=StepEnd.REFUSED, version="v2", compile_seconds=0.02, kernel_error="no room")


def problem(severity: Severity) -> Problem:
    """Return a problem of that weight."""
    return Problem(severity=severity, code="code", origin=NOWHERE, message="wrong")


def after(*steps: Step, is_fetched: bool = True) -> Status:
    """Return the status after steps at 100, 200, 300 … seconds."""
    status = Status()
    for number, step in enumerate(steps, start=1):
        status = status_after(status, step, is_fetched=is_fetched, now=100.0 * number)
    return status


def test_before_the_first_step_nothing_is_known() -> None:
    """What nobody found out is not zero."""
    status = Status()
    assert status.is_source_up is None
    assert status.last_success_at is None
    assert status.snapshot_version is None
    assert status.warnings is None


def test_an_applied_snapshot_is_a_success() -> None:
    """Its version and times are kept."""
    status = after(APPLIED)
    assert (status.snapshot_version, status.snapshot_since, status.last_success_at) == ("v1", 100.0, 100.0)
    assert status.is_source_up
    assert status.source_errors == 0


def test_the_age_of_a_version_is_that_of_its_first_step() -> None:
    """Steps that change nothing are successes, but make the snapshot no younger."""
    status = after(APPLIED, UNCHANGED, UNCHANGED)
    assert (status.snapshot_since, status.last_success_at) == (100.0, 300.0)


def test_a_new_version_starts_a_new_age() -> None:
    """Even if it changes nothing in the kernel."""
    status = after(APPLIED, replace(UNCHANGED, version="v2"))
    assert (status.snapshot_version, status.snapshot_since) == ("v2", 200.0)


def test_a_version_that_the_kernel_refused_is_not_the_one_in_force() -> None:
    """What is told is what the kernel holds."""
    status = after(APPLIED, KERNEL_REFUSED)
    assert (status.snapshot_version, status.snapshot_since) == ("v1", 100.0)


def test_steps_are_counted_by_outcome() -> None:
    """Waiting for a first snapshot is no comparison."""
    status = after(WAITING, APPLIED, UNCHANGED, UNCHANGED, KERNEL_REFUSED)
    assert status.outcomes == {StepEnd.APPLIED: 1, StepEnd.UNCHANGED: 2, StepEnd.REFUSED: 1}


def test_only_what_was_done_is_timed() -> None:
    """A step without a transaction has no apply time."""
    status = after(WAITING, APPLIED, UNCHANGED)
    assert sum(status.compile_durations.counts) == 2
    assert sum(status.apply_durations.counts) == 1
    assert status.apply_durations.sum_seconds == pytest.approx(0.2)


@pytest.mark.parametrize(
    "failed",
    (
        WAITING,
        KERNEL_REFUSED,
        replace(APPLIED, is_refused=True),
        replace(APPLIED, source_error="not there"),
        replace(APPLIED, is_closed=True),
    ),
)
def test_what_did_not_go_well_is_no_success(failed: Step) -> None:
    """An old snapshot in force, a refusing kernel and a closed host leave the last success where it was."""
    assert after(APPLIED, failed).last_success_at == 100.0


def test_fetches_that_fail_are_counted() -> None:
    """A source that is away and documents that are broken both count, each time they are asked."""
    steps = (APPLIED, replace(APPLIED, source_error="not there"), replace(APPLIED, is_refused=True))
    assert after(*steps).source_errors == 2


def test_a_step_without_a_fetch_says_nothing_about_the_source() -> None:
    """A failure that is only remembered is not counted again."""
    status = after(replace(APPLIED, source_error="not there"), is_fetched=False)
    assert status.source_errors == 0
    assert status.is_source_up is None


def test_a_source_that_is_away_is_down_and_one_with_errors_is_not() -> None:
    """Broken documents were reached."""
    assert after(replace(APPLIED, source_error="not there")).is_source_up is False
    refused = after(replace(APPLIED, is_refused=True))
    assert refused.is_source_up
    assert refused.step.is_refused


def test_warnings_are_counted_and_errors_are_not() -> None:
    """What is refused shows as refused."""
    problems = (problem(Severity.WARNING), problem(Severity.ERROR), problem(Severity.WARNING))
    assert after(replace(APPLIED, problems=problems)).warnings == 2


def test_drift_is_repaired_when_it_was_applied() -> None:
    """What the kernel refused to mend is not repaired."""
    assert (
        after(replace(APPLIED, was_drift=True), replace(KERNEL_REFUSED, was_drift=True)).drift_repaired == 1
    )


def test_every_link_has_a_state() -> None:
    """Bound, without groups, absent, unbound; loopback has none."""
    facts = HostFacts(
        links=tuple(
            Link(name=name, index=n, is_loopback=name == "lo") for n, name in enumerate(("lo", "a", "b", "d"))
        )
    )
    policy = ResolvedPolicy(
        interfaces=(
            ResolvedInterface(name="a", network_interface_id="eni-1", security_group_ids=("sg-web",)),
            ResolvedInterface(name="b", mode=Mode.OBSERVE),
            ResolvedInterface(name="c", security_group_ids=("sg-web",)),
        )
    )
    found = after(replace(APPLIED, policy=policy, facts=facts)).interfaces
    assert [(s.name, s.network_interface_id, s.state, s.mode) for s in found] == [
        ("a", "eni-1", InterfaceState.BOUND, Mode.ENFORCE),
        ("b", None, InterfaceState.WITHOUT_GROUPS, Mode.OBSERVE),
        ("c", None, InterfaceState.ABSENT, Mode.ENFORCE),
        ("d", None, InterfaceState.UNBOUND, None),
    ]


def test_a_bridge_whose_ports_frames_are_judged_too_says_so() -> None:
    """Where br_netfilter is on (§9.4); it is bound all the same."""
    ports = (Link(name=f"p{n}", index=n, master="br0", master_kind="bridge") for n in (3, 4))
    links = (Link(name="br0", index=2, kind="bridge"), *ports)
    policy = ResolvedPolicy(interfaces=(ResolvedInterface(name="br0", security_group_ids=("sg-web",)),))
    for hooks in (BridgeHooks(), BridgeHooks(families=(Family.IPV6,))):
        facts = HostFacts(links=links, bridge_hooks=hooks)
        found, *_ = after(replace(APPLIED, policy=policy, facts=facts)).interfaces
        told = "bridge-nf-call-ip6tables" in (found.bridged_frames or "")
        assert (found.state, told) == (InterfaceState.BOUND, bool(hooks.families))
        assert state_in_words(found) == ("bound, frames between its ports too" if told else "bound")


def test_links_that_are_closed_until_they_are_identified_say_so() -> None:
    """With unbound interfaces closed, an unknown link is closed."""
    facts = HostFacts(links=(Link(name="eth0", index=2),))
    policy = ResolvedPolicy(unbound=ResolvedInterface(name="*"))
    (found,) = after(replace(APPLIED, policy=policy, facts=facts)).interfaces
    assert found.state is InterfaceState.CLOSED


def test_a_host_that_is_closed_for_lack_of_a_snapshot_says_so() -> None:
    """It looks different from an interface without groups."""
    facts = HostFacts(links=(Link(name="eth0", index=2),))
    policy = ResolvedPolicy(interfaces=(ResolvedInterface(name="eth0"),))
    (found,) = after(replace(APPLIED, policy=policy, facts=facts, is_closed=True)).interfaces
    assert found == InterfaceStatus(
        name="eth0", network_interface_id=None, state=InterfaceState.CLOSED, mode=Mode.ENFORCE
    )


@pytest.mark.parametrize(
    ("seconds", "bucket"), ((0.0, 0), (0.005, 0), (0.0051, 1), (10.0, len(BOUNDS) - 1), (10.1, len(BOUNDS)))
)
def test_a_duration_falls_into_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    """Bounds belong to their bucket."""
    durations = Durations().with_one(seconds)
    assert durations.counts.index(1) == bucket
    assert sum(durations.counts) == 1
    assert durations.sum_seconds == seconds


ENFORCING = ResolvedInterface(name="eth0", security_group_ids=("sg-1",))
OBSERVING = ResolvedInterface(name="eth1", security_group_ids=("sg-1",), mode=Mode.OBSERVE)


@pytest.mark.parametrize(
    ("step", "posture"),
    (
        (WAITING, Posture.NOTHING),
        (replace(WAITING, is_standing=True), Posture.STANDING),
        (KERNEL_REFUSED, Posture.NOTHING),
        (replace(KERNEL_REFUSED, policy=ResolvedPolicy(interfaces=(ENFORCING,))), Posture.ENFORCING),
        (APPLIED, Posture.IDLE),
        (replace(APPLIED, policy=ResolvedPolicy(interfaces=(ENFORCING, OBSERVING))), Posture.ENFORCING),
        (replace(APPLIED, policy=ResolvedPolicy(interfaces=(OBSERVING,))), Posture.OBSERVING),
        (replace(APPLIED, policy=ResolvedPolicy(unbound=ResolvedInterface(name="*"))), Posture.ENFORCING),
        (replace(APPLIED, policy=ResolvedPolicy(interfaces=(ENFORCING,)), is_closed=True), Posture.CLOSED),
    ),
)
def test_the_posture_says_in_a_word_what_is_done(step: Step, posture: Posture) -> None:
    """Enforcing is only what drops by a snapshot."""
    assert after(step).posture is posture


JUDGING = replace(APPLIED, policy=ResolvedPolicy(interfaces=(OBSERVING,)))


@pytest.mark.parametrize(
    ("status", "is_well"),
    (
        (Status(), False),
        (after(APPLIED), False),
        (after(JUDGING), True),
        (after(JUDGING, replace(JUDGING, is_refused=True)), False),
        (after(JUDGING, replace(JUDGING, kernel_error="no room")), False),
        (after(JUDGING, replace(JUDGING, source_error="not there")), False),
        (replace(after(JUDGING), is_drift_unhealed=True), False),
        (replace(after(JUDGING), is_drift_contested=True), False),
        (after(JUDGING, replace(JUDGING, is_refused=True), JUDGING), True),
    ),
)
def test_a_host_is_well_that_follows_the_newest_definitions(status: Status, *, is_well: bool) -> None:
    """Nothing refuses them, the source is there, and nobody else changes the table."""
    assert status.is_well is is_well


def test_a_posture_is_as_old_as_its_first_step() -> None:
    """It begins anew when it changes, also if it was had before."""
    assert after(WAITING).posture_since == 100.0
    assert after(WAITING, WAITING, APPLIED, APPLIED).posture_since == 300.0
    assert after(APPLIED, WAITING, APPLIED).posture_since == 300.0


def test_interfaces_without_bits_in_the_mark_are_judged_at_every_packet() -> None:
    """So are links that are closed until they are identified."""
    facts = HostFacts(
        links=(Link(name="eth0", index=2), Link(name="eth1", index=3), Link(name="new", index=4))
    )
    policy = ResolvedPolicy(interfaces=(ENFORCING, OBSERVING), unbound=ResolvedInterface(name="*"))
    found = after(replace(APPLIED, policy=policy, facts=facts, uncached=("eth1",))).interfaces
    assert [(i.name, i.is_judged_at_every_packet) for i in found] == [
        ("eth0", False),
        ("eth1", True),
        ("new", True),
    ]


LOGIN = NamedCut(
    interface="eth0",
    kind=SessionKind.MANAGEMENT,
    opened=Direction.INGRESS,
    peer="198.51.100.7",
    peer_port=40_000,
    local="10.0.0.11",
    local_port=22,
    decided_by="default",
    rule_id=None,
)


def test_sessions_that_were_cut_are_counted_and_remembered() -> None:
    """Their number grows; what a person is shown are those of the newest change that cut any."""
    status = after(
        replace(APPLIED, sessions_cut=(LOGIN, LOGIN)),
        APPLIED,
        replace(APPLIED, sessions_cut=(LOGIN,)),
        APPLIED,
    )
    assert status.sessions_cut == {SessionKind.MANAGEMENT: 3, SessionKind.SOURCE: 0, SessionKind.OTHER: 0}
    assert (status.last_cut, status.last_cut_at) == ((LOGIN,), 300.0)
