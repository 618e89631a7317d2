"""Definitions that break a guardrail are refused on this host, and what was in force stays (§13.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.agent.reconciler import Reconciler
from sgagent.agent.status import Status, status_after
from sgagent.agent.step import Step, StepEnd
from sgagent.core.evaluate import evaluate
from sgagent.core.model import TCP, Policy
from sgagent.documents import DocumentFile
from sgagent.sources.files.collector import signature_path
from sgagent.sources.verified_parse import guardrails_signature_file
from tests.signing import KEY, signature_of
from tests.unit.agent.machine import MAC, Machine
from tests.words import IN, packet

RAILS = "never: [{id: no-db, reason: customers' data, from: any, protocol: tcp, ports: 5432}]"
OPEN = "0.0.0.0/0"


def documents(port: int = 80, far_end: str = OPEN, mac: str = MAC) -> str:
    """Return definitions that accept a TCP port from far ends."""
    return f"""
version: 1
security_groups:
  - security_group_id: sg-1
    inner_access_policy: drop
    rules:
      - {{rule_id: r1, direction: ingress, policy: accept, protocol: tcp, port_range: {port},
         authorization_object: {far_end}}}
network_interfaces:
  - {{network_interface_id: eni-1, mac_address: '{mac}', addresses: [10.0.0.11], security_group_ids: [sg-1]}}
"""


class Host:
    """A machine with guardrails."""

    def __init__(self, directory: Path) -> None:
        """Start with one statement and definitions that keep it."""
        self.machine = Machine(directory / "state")
        self.rails = directory / "guardrails.yaml"
        self.rails.write_text(RAILS, encoding="utf-8")
        self.machine.source.write(documents())
        self.configuration = f'[guardrails]\npath = "{self.rails}"\n'
        self.agent = self.started()

    def started(self) -> Reconciler:
        """Return the reconciler of an agent that was just started."""
        return self.machine.reconciler(self.configuration)

    def step(self, text: str | None = None) -> Step:
        """Deliver definitions, unless None, and do a step."""
        if text is not None:
            self.machine.source.write(text)
        return self.agent.step(fetch=True)

    def sign(self, serial: int) -> None:
        """Sign the statements."""
        contents = {self.rails.name: self.rails.read_bytes()}
        signature_path(self.rails).write_bytes(signature_of(contents, serial=serial))

    def accepts(self, step: Step, port: int, link: str = "eth0") -> bool:
        """Return whether the policy in force accepts a TCP port from everywhere."""
        assert step.policy is not None
        judged = packet(IN, "203.0.113.1", TCP, port, link=link)
        return evaluate(step.policy, judged).verdict is Policy.ACCEPT


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a machine with guardrails, and definitions that keep them in force."""
    made = Host(tmp_path)
    assert made.step().outcome is StepEnd.APPLIED
    return made


def test_what_keeps_them_is_enforced(host: Host) -> None:
    """The report says so."""
    step = host.step(documents(443))
    assert host.accepts(step, 443)
    assert step.guardrails.known.guardrails is not None
    assert (step.guardrails.violations, step.guardrails.refused, step.is_refused) == ((), None, False)


def test_what_breaks_one_is_refused(host: Host) -> None:
    """The last good version stays; statement, rule and packet are named."""
    before = host.step()
    step = host.step(documents(5432))
    assert step.is_refused
    assert (step.version, step.outcome) == (before.version, StepEnd.UNCHANGED)
    assert host.accepts(step, 80)
    assert not host.accepts(step, 5432)
    (problem,) = (one for one in step.problems if one.code == "guardrail_broken")
    assert problem.value == "no-db"
    (found,) = step.guardrails.violations
    assert found.rule is not None
    assert (found.rule.rule_id, found.packet.destination_port) == ("r1", 5432)
    assert step.guardrails.refused not in (None, before.version)


def test_a_version_that_keeps_them_again_is_enforced(host: Host) -> None:
    """Nothing stays of the refusal."""
    host.step(documents(5432))
    step = host.step(documents(8080))
    assert host.accepts(step, 8080)
    assert step.guardrails.violations == ()


def test_members_that_come_can_break_one(host: Host) -> None:
    """The same rule, with another object behind it."""
    host.rails.write_text(RAILS.replace("any,", "any, except: 10.0.0.0/8,"), encoding="utf-8")
    lists = "\nprefix_lists: [{prefix_list_id: pl-1, address_family: ipv4, entries: ['%s']}]"
    assert not host.step(documents(5432, "pl-1") + lists % "10.1.0.0/16").is_refused
    assert host.step(documents(5432, "pl-1") + lists % "192.0.2.0/24").is_refused


def test_an_order_is_refused_too(host: Host) -> None:
    """An exception is for who holds the guardrails' key."""
    delivery = host.agent.parse((DocumentFile("a.yaml", documents(5432).encode()),))
    assert [one.code for one in host.agent.refusal_of(delivery)] == ["guardrail_broken"]


def test_observing_refuses_nothing(host: Host) -> None:
    """It reports."""
    host.configuration += '[enforcement]\nmode = "observe"\n'
    host.agent = host.started()
    step = host.step(documents(5432))
    assert not step.is_refused
    assert [one.guardrail.guardrail_id for one in step.guardrails.violations] == ["no-db"]
    assert [one.severity.value for one in step.problems] == ["warning"]


def test_a_new_statement_leaves_in_force_what_breaks_it(host: Host) -> None:
    """Nobody is locked out by an edit of the guardrails; the report says what is wrong."""
    host.rails.write_text(RAILS.replace("5432", "80"), encoding="utf-8")
    for step in (host.step(), host.step()):
        assert host.accepts(step, 80)
        assert step.is_refused
        assert step.guardrails.violations
    host.agent = host.started()
    assert host.accepts(host.step(), 80)


def test_guardrails_that_can_not_be_read_any_more_hold_on(host: Host) -> None:
    """The ones before are in force; the fault is told."""
    host.rails.write_text("never: [{}]", encoding="utf-8")
    step = host.step(documents(5432))
    assert step.is_refused
    assert step.guardrails.known.fault is not None
    assert host.accepts(host.step(documents(8443)), 8443)


def test_without_any_that_were_read_nothing_new_is_enforced(host: Host) -> None:
    """Statements that nobody knows can't be kept; what an earlier agent left in force stays."""
    host.rails.unlink()
    host.agent = host.started()
    step = host.step(documents(8443))
    assert [one.code for one in step.problems] == ["guardrails_unread"]
    assert host.accepts(step, 80)
    assert not host.accepts(step, 8443)


def test_a_host_that_never_enforced_anything_stays_open(tmp_path: Path) -> None:
    """As with definitions that have errors (§9.2)."""
    host = Host(tmp_path)
    step = host.step(documents(5432))
    assert (step.policy, step.outcome, step.is_refused) == (None, StepEnd.WAITING, True)


def test_a_link_that_comes_is_closed_where_good_definitions_break_one(host: Host) -> None:
    """It was not judged before, so nothing that was in force can stay on it."""
    two = documents() + (
        "  - {network_interface_id: eni-2, mac_address: '02:00:00:00:00:02', addresses: [10.0.0.12],"
        " security_group_ids: [sg-2]}\n"
    )
    two = two.replace(
        "network_interfaces:",
        "  - security_group_id: sg-2\n    rules:\n      - {direction: ingress, policy: accept, protocol: tcp,"
        " port_range: 5432, authorization_object: 0.0.0.0/0}\nnetwork_interfaces:",
        1,
    )
    assert not host.step(two).is_refused
    host.machine.host.add_link("eth1", "02:00:00:00:00:02")
    step = host.step()
    assert step.is_refused
    assert host.accepts(step, 80)
    assert not host.accepts(step, 5432, "eth1")
    assert not host.accepts(step, 80, "eth1")


TIMED = "{{direction: ingress, policy: {}, port_range: {}, protocol: tcp, authorization_object: any, {}}}"


def timed_documents(lasts: str) -> str:
    """Return definitions that accept port 5432 behind a drop that ends, and port 81 as long as that."""
    timed = (TIMED.format("drop", 5432, lasts), TIMED.format("accept", 81, lasts))
    return documents(5432).replace("rules:", "\n      - ".join(("rules:", *timed)), 1)


@pytest.mark.parametrize(
    "lasts", ("expires: 1970-01-01T00:30:00Z", "active: {from: '00:00', to: '00:30', zone: UTC}")
)
@pytest.mark.parametrize("clones", ((), ("eth1",)))
def test_a_drop_whose_end_would_break_one_stays(host: Host, lasts: str, clones: tuple[str, ...]) -> None:
    """What ends besides does so, and a version that keeps the statement is enforced as it is.

    So it is while no definitions can be enforced, as several links have the interface's address.
    """
    step = host.step(timed_documents(lasts))
    assert (step.is_refused, host.accepts(step, 5432), host.accepts(step, 81)) == (False, False, True)
    for name in clones:
        host.machine.host.add_link(name, MAC)
    host.machine.clock.pass_seconds(800.0)
    for step in (host.step(), host.step()):
        assert (step.is_refused, host.accepts(step, 5432), host.accepts(step, 81)) == (True, False, False)
    for name in clones:
        host.machine.host.remove_link(name)
    step = host.step(documents(8080))
    assert (step.is_refused, host.accepts(step, 8080)) == (False, True)


def test_each_refused_version_counts_once(host: Host) -> None:
    """By the statement, however often it is fetched."""
    status = Status()
    for text in (documents(), documents(5432), documents(5432), documents(5432, "192.0.2.0/24")):
        status = status_after(status, host.step(text), is_fetched=True, now=0.0)
    assert status.guardrail_refusals == {"no-db": 2}


def test_a_signature_of_their_own_key_is_needed(host: Host) -> None:
    """Statements without one are none; an older signed file is refused, also after a restart."""
    host.configuration += f'keys = ["{KEY.public}"]\n'
    host.agent = host.started()
    step = host.step(documents(8443))
    assert [one.code for one in step.problems] == ["guardrails_unread"]
    host.sign(serial=2)
    assert not host.step(documents(8443)).is_refused
    assert guardrails_signature_file(host.machine.state.directory).exists()
    host.rails.write_text("guardrails: []", encoding="utf-8")
    host.sign(serial=1)
    host.agent = host.started()
    step = host.step(documents(5432))
    assert step.is_refused
    assert "older" in (step.guardrails.known.fault or "")
