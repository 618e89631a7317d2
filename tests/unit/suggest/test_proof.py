"""The proof of a suggestion refuses what does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.model import Policy, Snapshot
from sgagent.suggest.conversations import Conversation, Traffic, UnprovedSuggestionError
from sgagent.suggest.far_ends import Measures
from sgagent.suggest.flow_lines import FlowLineReader
from sgagent.suggest.observations import Observation, observe
from sgagent.suggest.proof import Judges, judge, judges_of, prove
from sgagent.suggest.suggestion import Draft, draft
from tests.flow_records import as_log, incoming, outgoing

HOST = "10.0.0.11"
CUSTOMERS = tuple(f"{net}.{last}" for net in ("198.51.100", "203.0.113", "192.0.2") for last in range(1, 9))
SESSIONS = (*(incoming(HOST, far, 443) for far in CUSTOMERS), outgoing(HOST, "10.0.1.5", 5432))


@pytest.fixture
def drafted() -> tuple[Draft, list[Observation]]:
    """Return a suggestion that is not proved yet: a port for everyone, and a way out."""
    traffic = Traffic()
    FlowLineReader(traffic, "web.log", "web").read(as_log(SESSIONS).splitlines(keepends=True))
    observations, snapshot = observe(traffic.passed, Snapshot(version=""))
    return draft(observations, snapshot, Measures()), observations


def without(judges: Judges, policy: Policy) -> Judges:
    """Return judges without the rules that accept, or without those that drop."""
    return {name: one.with_rules(lambda rule: rule.policy is not policy) for name, one in judges.items()}


def test_what_holds_is_proved(drafted: tuple[Draft, list[Observation]]) -> None:
    """Nothing is raised."""
    made, observations = drafted
    judges = judges_of(made.snapshot)
    prove(made, judges, list(judge(judges, observations)))


def test_a_session_that_is_dropped_refutes(drafted: tuple[Draft, list[Observation]]) -> None:
    """And the message names it."""
    made, observations = drafted
    judges = without(judges_of(made.snapshot), Policy.ACCEPT)
    with pytest.raises(
        UnprovedSuggestionError, match=r"drops a session that was seen: protocol 6 port 443 from"
    ):
        prove(made, judges, list(judge(judges, observations)))


def test_what_is_admitted_and_not_stated_refutes(drafted: tuple[Draft, list[Observation]]) -> None:
    """Without its statements, the port for everyone is wider than what was seen."""
    made, observations = drafted
    judges = judges_of(made.snapshot)
    silent = replace(made, statements=())
    with pytest.raises(
        UnprovedSuggestionError, match=r"admits more than it states: protocol 6, port 443, ingress"
    ):
        prove(silent, judges, list(judge(judges, observations)))


def test_a_way_out_that_is_left_open_refutes(drafted: tuple[Draft, list[Observation]]) -> None:
    """Without the closing rule, the default of a basic group lets everything out."""
    made, observations = drafted
    judges = without(judges_of(made.snapshot), Policy.DROP)
    with pytest.raises(UnprovedSuggestionError, match="egress"):
        prove(made, judges, list(judge(judges, observations)))


def test_a_group_address_belongs_to_the_interface_that_recorded_it() -> None:
    """Multicast is nobody's own address, and makes no interface of its own."""
    log = as_log([incoming(HOST, "10.0.0.9", 443), incoming("ff02::fb", "2001:db8::9", 5353, "udp")])
    traffic = Traffic()
    FlowLineReader(traffic, "web.log", "web").read(log.splitlines(keepends=True))
    observations, snapshot = observe(traffic.passed, Snapshot(version=""))
    assert {one.interface for one in observations} == {"eni-web-eth0"}
    assert list(map(str, snapshot.network_interfaces[0].addresses)) == [HOST]
    assert all(isinstance(one, Conversation) for one in traffic.passed)
