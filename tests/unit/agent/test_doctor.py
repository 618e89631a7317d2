"""The doctor in the agent looks after the first step and after changes, and says what is new once."""

from __future__ import annotations

from sgagent.agent.doctor import Doctor
from sgagent.agent.step import Step, StepEnd
from sgagent.analysis.doctor.findings import Diagnosis, DoctorCode, DoctorFinding, DoctorSeverity
from sgagent.analysis.doctor.policy_fact import PolicyFact
from sgagent.core.binding import HostFacts, Link
from sgagent.core.policy import InvalidPackets, ResolvedInterface, ResolvedPolicy
from tests.fakes.log import FakeLog
from tests.waiting import wait_until

FOUND = DoctorFinding(
    code=DoctorCode.NOTRACK, severity=DoctorSeverity.MEDIUM, evidence="e", effect="f", remedy="r"
)
POLICY = ResolvedPolicy(interfaces=(ResolvedInterface(name="eth0", invalid=InvalidPackets.EVALUATE),))


def step(policy: ResolvedPolicy | None = POLICY, *links: str) -> Step:
    """Return a step with a policy and links."""
    found = tuple(Link(name=name, index=number) for number, name in enumerate(links, start=1))
    return Step(outcome=StepEnd.APPLIED, policy=policy, facts=HostFacts(links=found))


class Patient:
    """A host, and the doctor that looks at it."""

    def __init__(self, shortest_seconds: float = 0.0) -> None:
        """Find nothing yet."""
        self.looks: list[tuple[PolicyFact, HostFacts]] = []
        self.found: tuple[DoctorFinding, ...] = ()
        self.log = FakeLog()
        self.doctor = Doctor(
            examine=self._examine, mark_mask=0xFF000000, event_log=self.log, shortest_seconds=shortest_seconds
        )

    def _examine(self, policy: PolicyFact, facts: HostFacts) -> Diagnosis:
        self.looks.append((policy, facts))
        return Diagnosis(findings=self.found)


def test_it_looks_with_the_first_policy_and_after_each_change() -> None:
    """Of the policy, the links, or the ruleset; a step that changes nothing is no reason."""
    patient = Patient()
    with patient.doctor.running():
        patient.doctor.follow(step(None))
        patient.doctor.follow(step())
        wait_until(lambda: len(patient.looks) == 1, "the first look")
        patient.doctor.follow(step())
        patient.doctor.follow(step(POLICY, "eth0"))
        wait_until(lambda: len(patient.looks) == 2, "the second look")
        patient.doctor.notify()
        wait_until(lambda: len(patient.looks) == 3, "the third look")
    policy, facts = patient.looks[-1]
    assert [(link.name, link.evaluates_invalid) for link in policy.bound] == [("eth0", True)]
    assert (policy.mark_mask, [link.name for link in facts.links]) == (0xFF000000, ["eth0"])


def test_it_rests_between_two_looks() -> None:
    """However often the ruleset changes; somebody who asks gets a look at once."""
    patient = Patient(shortest_seconds=3600.0)
    with patient.doctor.running():
        patient.doctor.follow(step())
        wait_until(lambda: len(patient.looks) == 1, "the first look")
        for _ in range(100):
            patient.doctor.notify()
        assert len(patient.looks) == 1
        patient.doctor.poll()
        assert len(patient.looks) == 2


def test_who_asks_again_and_again_gets_the_same_answer() -> None:
    """For a moment; then the doctor looks anew."""
    patient = Patient()
    first = patient.doctor.answer()
    assert patient.doctor.answer() is first or len(patient.looks) == 2
    wait_until(lambda: patient.doctor.answer() is not first, "a new look")


def test_what_is_new_is_logged_once() -> None:
    """And again after it was gone."""
    patient = Patient()
    for found in ((FOUND,), (FOUND,), (), (FOUND,)):
        patient.found = found
        patient.doctor.poll()
    assert patient.log.events().count("neighbour_found") == 2
    assert patient.doctor.newest == Diagnosis(findings=(FOUND,))


def test_it_can_be_asked_before_the_first_step() -> None:
    """Then no link is bound."""
    patient = Patient()
    patient.doctor.poll()
    assert patient.looks[0][0].bound == ()
