"""What the running agent answers, from its published status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.control.answers import answering
from sgagent.agent.control.explain_requests import ExplainAnswer, ExplainQuery
from sgagent.agent.control.hits import HitsAnswer, HitsQuery
from sgagent.agent.control.requests import (
    ControlAnswer,
    Document,
    DocumentsAnswer,
    DocumentsQuery,
    Query,
    StatusAnswer,
    StatusQuery,
)
from sgagent.agent.inbox import Inbox
from sgagent.agent.posture import InterfaceState, Posture
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.sessions import LiveSessions
from sgagent.agent.step import Step, StepEnd
from sgagent.analysis.doctor.findings import Diagnosis
from sgagent.core.addresses import AddressSet
from sgagent.core.binding import HostFacts, Link
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    HitStep,
    HitTimes,
    InnerCounter,
    InvalidCounter,
)
from sgagent.core.errors import NOWHERE, Problem, Severity, UsageError
from sgagent.core.evaluate import Packet
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    TCP,
    CidrBlock,
    Direction,
    Mode,
    Policy,
    PortSet,
    Protocol,
)
from sgagent.core.policy import Peer, ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.dataplane.conntrack import TrackedSession
from sgagent.documents import DocumentFile
from sgagent.nft.marks import EnforcementState, MarkLayout
from sgagent.ports import CounterValue
from sgagent.settings.tables import METADATA_SERVICE
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.unit.agent.machine import Machine
from tests.words import rule_counter

IN, OUT = Direction.INGRESS, Direction.EGRESS
LAYOUT = MarkLayout(0xFFFF0000)
STATE = EnforcementState(generation=7, slots=("eth0", "eth1", None))


def rule(number: int, policy: Policy, protocol: Protocol = TCP, ports: PortSet = ALL_PORTS) -> ResolvedRule:
    """Return a rule about every IPv4 address, of that priority."""
    everyone = CidrBlock.parse("0.0.0.0/0")
    return ResolvedRule(
        rule_id=f"sgr-{number}",
        security_group_id="sg-1",
        direction=IN,
        authorization_objects=(),
        policy=policy,
        priority=number,
        protocols=(protocol,),
        ports=ports,
        peer=Peer(name="0.0.0.0/0", addresses=AddressSet.of((everyone,))),
    )


ETH0 = ResolvedInterface(
    name="eth0",
    network_interface_id="eni-1",
    security_group_ids=("sg-1",),
    ingress=ResolvedDirection(
        rules=(
            rule(1, Policy.ACCEPT, ports=PortSet.of((80, 80), (443, 443))),
            rule(2, Policy.DROP, ALL_PROTOCOLS),
        )
    ),
    egress=ResolvedDirection(default=Policy.ACCEPT),
)
ETH1 = replace(ETH0, name="eth1", mode=Mode.OBSERVE)
APPLIED = Step(
    outcome=StepEnd.APPLIED,
    version="v1",
    policy=ResolvedPolicy(interfaces=(ETH0,)),
    state=STATE,
    facts=HostFacts(links=(Link(name="docker0", index=3), Link(name="eth0", index=2))),
)
WEB = ExplainQuery(
    direction=IN,
    source="198.51.100.7",
    destination="10.0.0.11",
    protocol=6,
    source_port=1024,
    destination_port=80,
)


class Agent:
    """A status that is published as the loop does, and asked as a client does."""

    def __init__(self, directory: Path) -> None:
        """Start with nothing known."""
        self.dispatcher = Machine(directory).dispatcher(Inbox(), FakeLog())
        self.clock = FakeClock()
        self.totals: dict[CounterKey, CounterValue] = {}
        self.times: dict[CounterKey, HitTimes] = {}
        self.published = PublishedStatus(self.clock, self._read)
        self.session: TrackedSession | None = None
        sessions = LiveSessions(LAYOUT, lambda _: [self.session])
        self._answer = answering(
            self.published, self.clock, "file groups.d", sessions, self.dispatcher, look=Diagnosis
        )

    def _read(self, _seconds: float) -> bool:
        self.published.note_totals(dict(self.totals), times=dict(self.times))
        return True

    def ask(self, query: Query) -> ControlAnswer:
        """Return the answer."""
        return self._answer(query)

    def status(self) -> StatusAnswer:
        """Return the answer to the query of the status."""
        found = self.ask(StatusQuery())
        assert isinstance(found, StatusAnswer)
        return found

    def hits(self, interface: str | None = None) -> HitsAnswer:
        """Return the answer to the query of hits."""
        found = self.ask(HitsQuery(interface=interface))
        assert isinstance(found, HitsAnswer)
        return found


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """Give an agent that has enforced its first snapshot."""
    agent = Agent(tmp_path)
    agent.published.note_step(APPLIED, is_fetched=True)
    return agent


def test_the_status_says_what_passes_whatever_the_groups_say(agent: Agent) -> None:
    """It is the platform list of what is in force, each entry once; nothing where no group judges (§7.3)."""
    assert agent.status().platform == ()
    opened = ResolvedDirection(platform=(METADATA_SERVICE,))
    policy = ResolvedPolicy(interfaces=(replace(ETH0, egress=opened), replace(ETH1, egress=opened)))
    agent.published.note_step(replace(APPLIED, policy=policy), is_fetched=True)
    assert agent.status().platform == ("egress to 100.100.100.200",)


def test_the_definitions_in_force_are_handed_out(agent: Agent) -> None:
    """They are those of the newest step that the kernel did not refuse."""
    delivered = replace(APPLIED, version="v2", documents=(DocumentFile("a.yaml", b"version: 1\n"),))
    agent.published.note_step(delivered, is_fetched=True)
    agent.published.note_step(replace(delivered, outcome=StepEnd.REFUSED, version="v3"), is_fetched=True)
    found = agent.ask(DocumentsQuery())
    assert found == DocumentsAnswer(
        snapshot_version="v2", documents=(Document(name="a.yaml", content="version: 1\n"),)
    )


def test_without_a_snapshot_there_are_no_definitions(agent: Agent) -> None:
    """A host that waits for its first snapshot has none in force."""
    agent.published.note_step(Step(outcome=StepEnd.WAITING), is_fetched=True)
    assert agent.ask(DocumentsQuery()) == DocumentsAnswer(snapshot_version=None, documents=())


def test_the_status_says_what_is_enforced_and_since_when(agent: Agent) -> None:
    """Steps that change nothing make nothing younger."""
    agent.clock.pass_seconds(60)
    agent.published.note_step(replace(APPLIED, outcome=StepEnd.UNCHANGED), is_fetched=True)
    agent.published.note_totals({})
    found = agent.status()
    assert (found.posture, found.posture_since) == (Posture.ENFORCING, 1000.0)
    assert (found.snapshot_version, found.snapshot_since) == ("v1", 1000.0)
    assert (found.is_source_up, found.source_reached_at) == (True, 1060.0)
    assert found.is_ready
    assert [(i.name, i.state, i.security_group_ids) for i in found.interfaces] == [
        ("docker0", InterfaceState.UNBOUND, ()),
        ("eth0", InterfaceState.BOUND, ("sg-1",)),
    ]


def test_the_status_names_the_first_errors_of_what_was_refused(agent: Agent) -> None:
    """All are counted, a few are shown."""
    errors = tuple(
        Problem(severity=Severity.ERROR, code="code", origin=NOWHERE, message=f"error {n}") for n in range(9)
    )
    agent.published.note_step(replace(APPLIED, is_refused=True, problems=errors), is_fetched=True)
    found = agent.status()
    assert (found.is_refused, found.errors, len(found.first_errors)) == (True, 9, 5)
    assert "error 0" in found.first_errors[0]
    assert not found.is_ready
    assert found.posture is Posture.ENFORCING


def test_the_status_names_unknown_objects_before_other_warnings(agent: Agent) -> None:
    """All are counted, a few are shown; those that narrow what is allowed come first."""
    warnings = tuple(
        Problem(severity=Severity.WARNING, code=code, origin=NOWHERE, message="unknown group", value=value)
        for code, value in (*(("code", f"sg-{n}") for n in range(6)), ("unknown_object", "sg-gone"))
    )
    agent.published.note_step(replace(APPLIED, problems=warnings, unknown_objects=1), is_fetched=True)
    found = agent.status()
    assert (found.warnings, found.unknown_objects, len(found.first_warnings)) == (7, 1, 5)
    assert "'sg-gone'" in found.first_warnings[0]
    assert "'sg-0'" in found.first_warnings[1]


def test_the_status_shows_what_is_wrong_with_the_agent_itself(agent: Agent) -> None:
    """A step that could not be done comes first."""
    agent.published.note_totals({}, step_fault="links can't be read", faults=("counters: no space",))
    assert agent.status().faults == ("links can't be read", "counters: no space")


def test_hits_come_in_the_order_in_which_things_decide(agent: Agent) -> None:
    """As in §3: invalid, exempt, inner, the rules by precedence, the default; zeros included."""
    one = CounterValue(packets=1, bytes=40)
    agent.totals = {
        DefaultCounter(interface="eth0", direction=IN, verdict=Policy.DROP): CounterValue(
            packets=5, bytes=200
        ),
        rule_counter("sgr-2", Policy.DROP): CounterValue(packets=7, bytes=280),
        InnerCounter(interface="eth0"): one,
        ExemptionCounter(interface="eth0", direction=IN, kind=ExemptionKind.FAILSAFE): one,
        ExemptionCounter(interface="eth0", direction=OUT, kind=ExemptionKind.PLATFORM): one,
        InvalidCounter(interface="eth0", direction=IN): one,
    }
    fellow = AddressSet.of([CidrBlock.parse("10.0.0.12")])
    policy = ResolvedPolicy(interfaces=(replace(ETH0, ingress=replace(ETH0.ingress, inner=fellow)),))
    agent.published.note_step(replace(APPLIED, policy=policy), is_fetched=True)
    ingress, egress = agent.hits().interfaces
    assert [(hit.step, hit.rule_id, hit.verdict, hit.packets) for hit in ingress.hits] == [
        (HitStep.INVALID, None, Policy.DROP, 1),
        (HitStep.FAILSAFE, None, Policy.ACCEPT, 1),
        (HitStep.INNER, None, Policy.ACCEPT, 1),
        (HitStep.RULE, "sgr-1", Policy.ACCEPT, 0),
        (HitStep.RULE, "sgr-2", Policy.DROP, 7),
        (HitStep.DEFAULT, None, Policy.DROP, 5),
    ]
    assert [(hit.step, hit.verdict, hit.packets) for hit in egress.hits] == [
        (HitStep.PLATFORM, Policy.ACCEPT, 1),
        (HitStep.DEFAULT, Policy.ACCEPT, 0),
    ]


def test_a_hit_of_a_rule_that_matches_no_port(agent: Agent) -> None:
    """A rule whose port list is empty or unknown is not shown as one for any port."""
    closed = replace(ETH0, ingress=ResolvedDirection(rules=(rule(1, Policy.ACCEPT, ports=PortSet()),)))
    agent.published.note_step(replace(APPLIED, policy=ResolvedPolicy(interfaces=(closed,))), is_fetched=True)
    assert [hit.ports for hit in agent.hits().interfaces[0].hits if hit.rule_id] == ["none"]


def test_the_inner_step_is_shown_only_where_it_accepts(agent: Agent) -> None:
    """Where all inner policies are drop, what was counted before is no step of the policy (§3.4)."""
    agent.totals = {InnerCounter(interface="eth0"): CounterValue(packets=9, bytes=360)}
    ingress, _ = agent.hits().interfaces
    assert HitStep.INNER not in [hit.step for hit in ingress.hits]


def test_a_hit_says_what_its_rule_is_about(agent: Agent) -> None:
    """Group, priority, protocol, ports and object, as documents write them."""
    first, second, _ = agent.hits().interfaces[0].hits
    assert (first.security_group_id, first.priority, first.authorization_object) == ("sg-1", 1, "0.0.0.0/0")
    assert (first.protocol, first.ports) == ("tcp", "80/80,443/443")
    assert (second.protocol, second.ports) == ("all", None)


def test_hits_of_one_interface_can_be_had_alone(agent: Agent) -> None:
    """Each has two parts; for one that nobody judges, those that are judged are named."""
    unbound = ResolvedInterface(name="*")
    policy = ResolvedPolicy(interfaces=(ETH0, ETH1), unbound=unbound)
    agent.published.note_step(replace(APPLIED, policy=policy), is_fetched=True)
    assert [part.interface for part in agent.hits().interfaces] == ["eth0"] * 2 + ["eth1"] * 2 + ["*"] * 2
    (ingress, egress) = agent.hits("eth1").interfaces
    assert (ingress.direction, egress.direction, ingress.mode) == (IN, OUT, Mode.OBSERVE)
    with pytest.raises(UsageError, match=r"eth7 is not bound \(bound: eth0, eth1, \*\)"):
        agent.hits("eth7")


def test_a_packet_is_explained_by_the_policy_in_force(agent: Agent) -> None:
    """The interface is the bound one; the rules behind the first are named."""
    found = agent.ask(WEB)
    assert isinstance(found, ExplainAnswer)
    assert found.snapshot_version == "v1"
    assert (found.explanation.verdict, found.explanation.decided_by) == (Policy.ACCEPT, DecidedBy.RULE)
    assert found.explanation.rule is not None
    assert found.explanation.rule.rule_id == "sgr-1"
    assert [shadowed.rule_id for shadowed in found.explanation.shadowed] == ["sgr-2"]
    assert (found.explanation.interface, found.explanation.mode) == ("eth0", Mode.ENFORCE)


def test_what_the_kernel_refused_explains_nothing(agent: Agent) -> None:
    """The policy that is asked is the one that stands."""
    agent.published.note_step(
        replace(APPLIED, outcome=StepEnd.REFUSED, kernel_error="no room"), is_fetched=True
    )
    found = agent.ask(WEB)
    assert isinstance(found, ExplainAnswer)
    assert found.explanation.decided_by is DecidedBy.RULE


def test_without_a_policy_nothing_is_bound(agent: Agent) -> None:
    """A host that is as it was lets everything through."""
    agent.published.note_step(Step(outcome=StepEnd.WAITING), is_fetched=True)
    found = agent.ask(WEB)
    assert isinstance(found, ExplainAnswer)
    assert (found.explanation.decided_by, found.explanation.interface) == (DecidedBy.UNBOUND, None)


def test_among_several_interfaces_one_has_to_be_named(agent: Agent) -> None:
    """As with definitions that are not in force."""
    policy = ResolvedPolicy(interfaces=(ETH0, ETH1))
    agent.published.note_step(replace(APPLIED, policy=policy), is_fetched=True)
    with pytest.raises(UsageError, match="--on"):
        agent.ask(WEB)
    found = agent.ask(replace(WEB, interface="eth1"))
    assert isinstance(found, ExplainAnswer)
    assert found.explanation.mode is Mode.OBSERVE


def mark(generation: int = 7, interface: str = "eth0", opened: Direction = IN) -> int:
    """Return the mark of a session that was allowed under a generation at an interface."""
    slot = STATE.slot(interface)
    assert slot is not None
    return LAYOUT.generation_bits(generation) | LAYOUT.direction_bit(slot, opened) | 0x1234


def explained(agent: Agent, query: ExplainQuery) -> tuple[DecidedBy, Policy]:
    """Return the step that decided, and how."""
    found = agent.ask(query)
    assert isinstance(found, ExplainAnswer)
    return found.explanation.decided_by, found.explanation.verdict


ANSWER = replace(
    WEB,
    direction=OUT,
    source=WEB.destination,
    destination=WEB.source,
    source_port=WEB.destination_port,
    destination_port=WEB.source_port,
)


def test_a_packet_of_an_allowed_session_is_decided_by_it(agent: Agent) -> None:
    """So are the answers; what would match besides is that of the packet that opened the session."""
    agent.session = TrackedSession(mark(), IN)
    for query in (WEB, ANSWER):
        found = agent.ask(query)
        assert isinstance(found, ExplainAnswer)
        assert (found.explanation.decided_by, found.explanation.verdict) == (DecidedBy.SESSION, Policy.ACCEPT)
        assert [shadowed.rule_id for shadowed in found.explanation.shadowed] == ["sgr-1", "sgr-2"]


@pytest.mark.parametrize(
    "session",
    (
        TrackedSession(mark(generation=6), IN),
        TrackedSession(mark(interface="eth1"), IN),
        TrackedSession(mark(opened=OUT), IN),
        TrackedSession(0, IN),
    ),
)
def test_a_session_not_allowed_by_this_policy_here_is_judged(agent: Agent, session: TrackedSession) -> None:
    """It is judged as it was opened: the answer of a forbidden session is not taken for a new one (§6.4)."""
    agent.session = session
    assert explained(agent, WEB) == (DecidedBy.RULE, Policy.ACCEPT)
    policy = ResolvedPolicy(interfaces=(replace(ETH0, ingress=ResolvedDirection()),))
    agent.published.note_step(replace(APPLIED, policy=policy), is_fetched=True)
    assert explained(agent, ANSWER) == (DecidedBy.DEFAULT, Policy.DROP)
    agent.session = None
    assert explained(agent, ANSWER) == (DecidedBy.DEFAULT, Policy.ACCEPT)


def test_an_answer_of_an_entry_that_was_opened_elsewhere_is_a_packet_of_its_own(agent: Agent) -> None:
    """Though conntrack takes it for the answer of a session that is forbidden, or would be allowed (§6.4)."""
    slot = STATE.slot("eth0")
    assert slot is not None
    elsewhere = sum(LAYOUT.elsewhere_bit(slot, opened) for opened in (IN, OUT))
    agent.session = TrackedSession(elsewhere | LAYOUT.generation_bits(6), IN)
    assert explained(agent, ANSWER) == (DecidedBy.DEFAULT, Policy.ACCEPT)
    agent.session = TrackedSession(elsewhere, OUT)
    assert explained(agent, WEB) == (DecidedBy.RULE, Policy.ACCEPT)
    agent.session = TrackedSession(elsewhere | mark(), IN)
    assert explained(agent, ANSWER) == (DecidedBy.SESSION, Policy.ACCEPT)


def test_in_observe_mode_a_session_proves_nothing(agent: Agent) -> None:
    """It may be one that enforcing would have dropped."""
    policy = ResolvedPolicy(interfaces=(replace(ETH0, mode=Mode.OBSERVE),))
    agent.published.note_step(replace(APPLIED, policy=policy), is_fetched=True)
    agent.session = TrackedSession(mark(), IN)
    assert explained(agent, WEB) == (DecidedBy.RULE, Policy.ACCEPT)


def test_what_the_kernel_refused_leaves_the_generation_as_it_is(agent: Agent) -> None:
    """Marks mean what they meant."""
    agent.published.note_step(
        replace(APPLIED, outcome=StepEnd.REFUSED, kernel_error="no room", state=None), is_fetched=True
    )
    agent.session = TrackedSession(mark(), IN)
    assert explained(agent, WEB) == (DecidedBy.SESSION, Policy.ACCEPT)


def test_a_kernel_that_can_not_be_asked_is_done_without(agent: Agent) -> None:
    """Rules can be explained without sessions."""

    def fail(_packets: Sequence[Packet]) -> list[TrackedSession | None]:
        raise PermissionError

    sessions = LiveSessions(LAYOUT, fail)
    answer = answering(
        agent.published, agent.clock, "file groups.d", sessions, agent.dispatcher, look=Diagnosis
    )
    found = answer(WEB)
    assert isinstance(found, ExplainAnswer)
    assert found.explanation.decided_by is DecidedBy.RULE


def test_hits_say_when_there_was_the_last(agent: Agent) -> None:
    """Of each counter that is known of: from when on it counts, and when it grew."""
    key = rule_counter("sgr-1")
    agent.times[key] = HitTimes(counted_since=1000.0, last_hit_at=2000.0)
    ingress = agent.hits().interfaces[0].hits
    times = {hit.rule_id: (hit.counted_since, hit.last_hit_at) for hit in ingress if hit.rule_id}
    assert times == {"sgr-1": (1000.0, 2000.0), "sgr-2": (None, None)}
