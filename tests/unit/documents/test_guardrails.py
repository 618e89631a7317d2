"""Files of guardrails: every field, and every error of form (§13.4)."""

from __future__ import annotations

from textwrap import dedent

import pytest

from sgagent.core.errors import DocumentError, Problem
from sgagent.core.guardrails import Guardrail, GuardrailKind
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    TCP,
    UDP,
    Direction,
    GroupReference,
    NameReference,
    PortListReference,
    PortSet,
    PrefixListReference,
)
from sgagent.core.rule_values import EVERYTHING
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.guardrails import parse_guardrails
from tests.words import peers


def parse(*texts: str) -> tuple[Guardrail, ...]:
    """Return the statements of files without warnings."""
    files = [DocumentFile(f"{place}.yaml", dedent(text).encode()) for place, text in enumerate(texts)]
    found, warnings = parse_guardrails(files, Limits())
    assert warnings == ()
    return found


def statement(text: str) -> Guardrail:
    """Return the one statement of a scope, written on one line, that begins with its kind."""
    (found,) = parse(f"guardrails: [{{id: g, reason: r, {text}}}]")
    return found


def refused(*texts: str) -> list[Problem]:
    """Return the problems of files that must be refused."""
    with pytest.raises(DocumentError) as caught:
        parse(*texts)
    return list(caught.value.problems)


def test_every_field_is_read() -> None:
    """A statement holds what its fields say, in the words of rules."""
    (found,) = parse(
        """
        version: 1
        guardrails:
          - id: no-db
            reason: customers' data
            never:
              direction: egress
              from: sg-db
              to: [sg-app, 1000000000000001/sg-x, pl-office, 'dns:mirror.example.org', 10.0.0.0/8]
              protocol: [tcp, udp]
              ports: [5432, 8000-8100]
              except: 10.1.0.0/16
        """
    )
    assert (found.guardrail_id, found.reason, found.kind) == ("no-db", "customers' data", GuardrailKind.NEVER)
    assert found.direction is Direction.EGRESS
    assert set(found.far_ends) == {
        GroupReference("sg-app"),
        GroupReference("sg-x", "1000000000000001"),
        PrefixListReference("pl-office"),
        NameReference("mirror.example.org"),
        *peers("10.0.0.0/8"),
    }
    assert found.near_ends == (GroupReference("sg-db"),)
    assert found.protocols == (TCP, UDP)
    assert found.ports == PortSet.of((5432, 5432), (8000, 8100))
    assert found.exceptions == peers("10.1.0.0/16")
    assert (found.origin.line, found.origin.path) == (6, "guardrails[0].never")


@pytest.mark.parametrize("near", ("", "to: any, ", "to: every bound interface, "))
def test_every_bound_interface_is_the_near_end_unless_said(near: str) -> None:
    """Whoever names none means all."""
    assert statement(f"never: {{{near}from: any, ports: 25}}").near_ends is None


def test_ports_alone_are_those_of_all_protocols_with_ports() -> None:
    """Without a protocol and ports it is every protocol."""
    assert statement("never: {ports: 25}").protocols == (TCP, UDP)
    assert statement("never: {from: any}").protocols == (ALL_PROTOCOLS,)
    assert statement("never: {from: any}").ports == ALL_PORTS
    assert statement("never: {}").far_ends == EVERYTHING


def test_ports_may_be_a_port_list() -> None:
    """By its id."""
    assert statement("never: {protocol: tcp, ports: prl-db}").ports == PortListReference("prl-db")


@pytest.mark.parametrize(
    "text",
    (
        "[{id: g, reason: r, never: {from: any}}]",
        "guardrails: [{never: {id: g, reason: r, from: any}}]",
        "never: [{id: g, reason: r, from: any}]",
    ),
)
def test_a_statement_may_stand_in_several_places(text: str) -> None:
    """In a list of all, in one of its kind, with its id beside the kind or in it."""
    (found,) = parse(text)
    assert (found.guardrail_id, found.kind, found.far_ends) == ("g", GuardrailKind.NEVER, EVERYTHING)


def test_statements_are_sorted_by_id() -> None:
    """In whichever file they stand."""
    found = parse("never: [{id: b, reason: r}]", "always: [{id: a, reason: r}]", "guardrails: []")
    assert [one.guardrail_id for one in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "code", "path"),
    (
        ("never: {form: any}", "unknown_field", "guardrails[0].never.form"),
        ("never: {from: 10.0.0.300}", "bad_address", "guardrails[0].never.from"),
        ("never: {from: [sg-a, db.example.org]}", "bad_address", "guardrails[0].never.from[1]"),
        ("never: {from: []}", "missing_object", "guardrails[0].never.from"),
        ("never: {protocol: icmp, ports: 80}", "ports_do_not_fit", "guardrails[0].never.ports"),
        ("never: {ports: 90-80}", "reversed_ports", "guardrails[0].never.ports"),
        ("never: {direction: in}", "bad_value", "guardrails[0].never.direction"),
        ("never: {from: 10.0.0.0/8, protocol: icmpv6}", "family_of_protocol", "guardrails[0].never"),
        ("only: {to: sg-db}", "missing_field", "guardrails[0].only.from"),
        ("only: {direction: egress, from: sg-db}", "missing_field", "guardrails[0].only.to"),
        ("never: any", "wrong_type", "guardrails[0].never"),
        ("never: {}, always: {}", "bad_statement", "guardrails[0]"),
        ("nevr: {}", "unknown_field", "guardrails[0].nevr"),
    ),
)
def test_what_is_wrong_is_named(text: str, code: str, path: str) -> None:
    """By code and field."""
    found = refused(f"guardrails: [{{id: g, reason: r, {text}}}]")
    assert (found[0].code, found[0].origin.path) == (code, path)
    assert found[0].remedy


def test_a_problem_names_file_line_field_value_and_what_is_right() -> None:
    """As those of documents do."""
    (problem,) = refused("guardrails:\n  - id: g\n    reason: r\n    never:\n      ports: 99999\n")
    assert str(problem) == (
        "error: 0.yaml:5: guardrails[0].never.ports: the port is out of range: '99999'"
        " (443, 443/443, 8000-8100 or -1/-1, from 1 to 65535; ICMP has -1/-1)"
    )


def test_all_problems_are_reported_at_once() -> None:
    """Of all statements and files."""
    text = "guardrails: [{id: g, never: {ports: x}}, {reason: r, never: {from: y/}}]"
    codes = sorted(problem.code for problem in refused(text, "guardrails: 1"))
    assert codes == ["bad_address", "bad_port_range", "missing_field", "missing_field", "wrong_type"]


def test_a_wrong_id_is_one_problem() -> None:
    """It is neither missing in the scope nor the same as another wrong one."""
    found = refused("guardrails: [{id: a b, reason: r, never: {}}, {id: c d, reason: r, never: {}}]")
    assert [problem.origin.path for problem in found] == ["guardrails[0].id", "guardrails[1].id"]


def test_an_empty_reason_is_missing() -> None:
    """A statement has to say why it is made."""
    (problem,) = refused("guardrails: [{id: g, reason: '', never: {}}]")
    assert (problem.code, problem.origin.path) == ("missing_field", "guardrails[0].never.reason")


def test_an_id_is_unique_among_all_files() -> None:
    """The problem names the other one."""
    (problem,) = refused("never: [{id: g, reason: r}]", "only: [{id: g, reason: r, from: any}]")
    assert (problem.code, problem.value) == ("duplicate_id", "g")
    assert "0.yaml:1" in problem.message


@pytest.mark.parametrize("text", ("", "version: 1", "version: 2\nguardrails: []"))
def test_a_file_without_a_list_is_refused(text: str) -> None:
    """Who wants no statement says so: an emptied file demands nothing by mistake."""
    assert refused(text)


def test_a_hostile_file_is_bounded() -> None:
    """Statements and addresses count as rules and addresses of documents do."""
    text = "never: [" + ", ".join(f"{{id: g{place}, reason: r}}" for place in range(20)) + "]"
    with pytest.raises(DocumentError) as caught:
        parse_guardrails([DocumentFile("a.yaml", text.encode())], Limits(rules=10))
    assert [problem.code for problem in caught.value.problems] == ["too_many_rules"]
