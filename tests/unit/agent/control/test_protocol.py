"""The lines of the control protocol."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sgagent.agent.control.explain_requests import ExplainAnswer, ExplainQuery
from sgagent.agent.control.hits import Hit, HitsAnswer, HitsQuery, InterfaceHits
from sgagent.agent.control.protocol import (
    MalformedRequestError,
    Refusal,
    Refusals,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from sgagent.agent.control.requests import (
    ApplyCommand,
    ConfirmAnswer,
    ConfirmCommand,
    ControlAnswer,
    ControlCommand,
    Document,
    DocumentsAnswer,
    DocumentsQuery,
    EnforcedAnswer,
    HistoryAnswer,
    HistoryEntry,
    HistoryQuery,
    InterfaceMode,
    ModeAnswer,
    ModeCommand,
    Query,
    RollbackCommand,
    StatusAnswer,
    StatusQuery,
)
from sgagent.agent.posture import InterfaceState, InterfaceStatus, Posture
from sgagent.agent.state.directory import Extent, Trigger
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import HitStep
from sgagent.core.errors import Origin, Problem, Severity, UsageError
from sgagent.core.explanation import ExplainedRule, Explanation
from sgagent.core.model import Direction, Mode, Policy

RULE = ExplainedRule(
    rule_id="sgr-1",
    security_group_id="sg-1",
    policy=Policy.ACCEPT,
    priority=1,
    authorization_object="10.0.0.0/8",
)
STATUS = StatusAnswer(
    agent_version="1.2.3",
    pid=42,
    posture=Posture.ENFORCING,
    posture_since=1000.0,
    is_ready=False,
    not_ready_because=("the source is away",),
    snapshot_version="v1",
    snapshot_since=1000.5,
    source="file /etc/sgagent/groups.d",
    is_source_up=False,
    source_reached_at=None,
    source_error="not there",
    is_refused=False,
    errors=0,
    first_errors=(),
    kernel_error=None,
    warnings=1,
    unknown_objects=0,
    drift_repaired=2,
    is_drift_unhealed=False,
    faults=(),
    interfaces=(
        InterfaceStatus(
            name="eth0",
            network_interface_id="eni-1",
            state=InterfaceState.BOUND,
            mode=Mode.OBSERVE,
            security_group_ids=("sg-1", "sg-2"),
        ),
        InterfaceStatus(name="eth1", network_interface_id=None, state=InterfaceState.UNBOUND, mode=None),
    ),
)
HITS = HitsAnswer(
    snapshot_version=None,
    interfaces=(
        InterfaceHits(
            interface="eth0",
            direction=Direction.INGRESS,
            mode=Mode.ENFORCE,
            hits=(
                Hit(step=HitStep.DEFAULT, verdict=Policy.DROP, packets=3, bytes=120),
                Hit(
                    step=HitStep.RULE, verdict=Policy.ACCEPT, packets=0, bytes=0, rule_id="sgr-1", priority=1
                ),
            ),
        ),
    ),
)
EXPLAIN = ExplainQuery(
    direction=Direction.EGRESS,
    source="2001:db8::1",
    destination="2001:db8::2",
    protocol=6,
    destination_port=80,
)
EXPLANATION = ExplainAnswer(
    snapshot_version="v1",
    explanation=Explanation(
        verdict=Policy.ACCEPT, decided_by=DecidedBy.RULE, rule=RULE, shadowed=(RULE, RULE), interface="eth0"
    ),
)
DOCUMENTS = DocumentsAnswer(
    snapshot_version="v1", documents=(Document(name="a\udcff.yaml", content="version: 1\n# \u00fc\n"),)
)

PROBLEM = Problem(
    severity=Severity.ERROR,
    code="unknown_field",
    origin=Origin(file="a\udcff.yaml", line=3, path="security_groups[0].typ"),
    message="unknown field",
    value="basic",
    remedy="did you mean type?",
)
COMMANDS: tuple[ControlCommand, ...] = (
    ApplyCommand(
        documents=(Document(name="a\udcff.yaml", content="version: 1\n# ü\n"),), confirm_within=60.0
    ),
    RollbackCommand(number=7),
    ConfirmCommand(),
    ModeCommand(mode=Mode.OBSERVE, interface="eth0"),
)
ENFORCED = EnforcedAnswer(
    version="v2",
    is_changed=True,
    interfaces=("eth0",),
    held_back="v1",
    seconds_left=59.5,
    goes_back_to="v1",
    warnings=(replace(PROBLEM, severity=Severity.WARNING, value=None),),
    fault="no space",
)
ORDER_ANSWERS: tuple[ControlAnswer, ...] = (
    ENFORCED,
    EnforcedAnswer(version=None, is_changed=False, interfaces=(), held_back=None),
    ConfirmAnswer(is_confirmed=True, version="v2", overtaken_by="v3"),
    ModeAnswer(interfaces=(InterfaceMode(interface="eth0", mode=Mode.OBSERVE, is_overridden=True),)),
)
HISTORY = HistoryAnswer(
    entries=(
        HistoryEntry(number=2, fault="history/2: damaged"),
        HistoryEntry(
            number=1,
            version="v1",
            origin=Trigger.ROLLBACK,
            enforced_at=1.5,
            documents=1,
            bytes=10,
            extent=Extent(interfaces=1, rules=2, chains=3, elements=4),
            is_in_force=True,
        ),
    )
)


@pytest.mark.parametrize(
    "query",
    (
        StatusQuery(),
        HitsQuery(),
        HitsQuery(interface="eth0"),
        EXPLAIN,
        DocumentsQuery(),
        HistoryQuery(),
        *COMMANDS,
    ),
)
def test_questions_survive_the_wire(query: Query) -> None:
    """A query is one line, and reads as what was asked."""
    line = encode_question(query)
    assert line.count(b"\n") == 1
    assert decode_question(line) == query


@pytest.mark.parametrize(
    ("query", "answer"),
    (
        (StatusQuery(), STATUS),
        (HitsQuery(), HITS),
        (EXPLAIN, EXPLANATION),
        (DocumentsQuery(), DOCUMENTS),
        (HistoryQuery(), HISTORY),
        *zip(COMMANDS, ORDER_ANSWERS, strict=True),
    ),
)
def test_answers_survive_the_wire(query: Query, answer: ControlAnswer) -> None:
    """An answer is one line, and reads as what was said."""
    line = encode_answer(answer)
    assert line.count(b"\n") == 1
    assert decode_answer(query, line) == answer


def test_all_that_is_wrong_with_documents_arrives() -> None:
    """With file, line, field, value and remedy, so that the client can say it as if it had looked itself."""
    refused = Refusals(reason=Refusal.DOCUMENTS, message="there are errors", problems=(PROBLEM,))
    assert decode_answer(COMMANDS[0], encode_answer(refused)) == refused


@pytest.mark.parametrize("message", ("no such interface", "a\udcff.yaml: a file whose name is no text"))
def test_a_refusal_answers_any_question(message: str) -> None:
    """Its reason and its words arrive."""
    refused = Refusals(reason=Refusal.WRONG_USE, message=message)
    assert decode_answer(HitsQuery(), encode_answer(refused)) == refused


def test_what_a_newer_agent_adds_is_passed_over() -> None:
    """A client goes on to understand an agent of the same protocol that says more."""
    outer = json.loads(encode_answer(STATUS))
    outer["answer"]["mood"] = "good"
    outer["answer"]["interfaces"][0]["speed"] = 10
    assert decode_answer(StatusQuery(), json.dumps(outer).encode()) == STATUS


@pytest.mark.parametrize(
    ("line", "reason"),
    (
        (b"status\n", "not a line of JSON"),
        (b"\xff\xfe\n", "not a line of JSON"),
        (b"[" * 10_000, "not a line of JSON"),
        (b"[1]\n", "not a JSON object"),
        (b"{}\n", "version 1"),
        (b'{"version": 2, "question": "status"}\n', "version 1"),
        (b'{"version": 1}\n', "expected one of status, doctor, hits, explain"),
        (b'{"version": 1, "question": "flush"}\n', "expected one of"),
        (b'{"version": 1, "question": ["hits"]}\n', "expected one of"),
        (b'{"version": 1, "question": "hits", "iface": "eth0"}\n', "unknown field: iface"),
        (b'{"version": 1, "question": "hits", "interface": 7}\n', "interface: expected a text"),
        (b'{"version": 1, "question": "explain"}\n', "direction: missing"),
    ),
)
def test_what_is_no_question_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    """Whoever writes a client is told what is wrong with it."""
    with pytest.raises(MalformedRequestError, match=reason):
        decode_question(line)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    (
        ("direction", "sideways", "direction: expected one of ingress, egress"),
        ("protocol", True, "protocol: expected a whole number"),
        ("protocol", 6.0, "protocol: expected a whole number"),
        ("source", None, "source: expected a text"),
    ),
)
def test_a_wrong_value_is_named(field: str, value: object, reason: str) -> None:
    """Types are not bent: true is no number."""
    outer = json.loads(encode_question(EXPLAIN)) | {field: value}
    with pytest.raises(MalformedRequestError, match=reason):
        decode_question(json.dumps(outer).encode())


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    (
        ("interfaces", {}, "interfaces: expected a list"),
        ("interfaces", [7], r"interfaces\[0\]: expected an object"),
        ("interfaces", [{"name": "eth0"}], r"interfaces\[0\]\.network_interface_id: missing"),
        ("is_ready", 1, "is_ready: expected true or false"),
        ("posture_since", "now", "posture_since: expected a number"),
    ),
)
def test_an_answer_that_makes_no_sense_is_none(place: str, value: object, reason: str) -> None:
    """The client says which field it could not read."""
    outer = json.loads(encode_answer(STATUS))
    outer["answer"][place] = value
    with pytest.raises(MalformedRequestError, match=reason):
        decode_answer(StatusQuery(), json.dumps(outer).encode())


@pytest.mark.parametrize("line", (b"{}\n", b'{"version": 1}\n', b'{"version": 1, "answer": []}\n'))
def test_what_is_no_answer_is_told_apart(line: bytes) -> None:
    """Something else may listen on a socket of that name."""
    with pytest.raises(MalformedRequestError):
        decode_answer(StatusQuery(), line)


def test_the_packet_that_is_asked_about_is_the_packet_that_is_judged() -> None:
    """The query keeps every field of a packet."""
    packet = EXPLAIN.packet("eth0")
    assert ExplainQuery.about(packet).packet("eth0") == packet
    assert packet.destination_port == 80


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    (
        ("source", "somewhere", "somewhere"),
        ("source", "10.0.0.1", "different address families"),
        ("destination_port", 65536, "a port is"),
        ("protocol", 256, "numbers from 0 to 255"),
        ("hop_limit", -1, "numbers from 0 to 255"),
    ),
)
def test_a_packet_that_cannot_be_is_wrong_use(field: str, value: object, reason: str) -> None:
    """No rule is asked about it."""
    outer = json.loads(encode_question(EXPLAIN)) | {field: value}
    query = decode_question(json.dumps(outer).encode())
    assert isinstance(query, ExplainQuery)
    with pytest.raises(UsageError, match=reason):
        query.packet("eth0")
