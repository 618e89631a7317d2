"""Tables say of each packet what the specification says, however many of them there are."""

from __future__ import annotations

from hypothesis import given

from sgagent.analysis.header_space import Clause, dhcp_clause, list_clauses
from sgagent.analysis.packet_tables import make_tables
from sgagent.analysis.redundancy import Area, Index, Table, code_of, common_area
from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.model import Direction, Family, Policy
from tests.generators import Case
from tests.points import every_point
from tests.strategies import cases, examples

FEW_RULES = 6
SIZES = (1, 3, 1 << 14)


def tables_of(case: Case, direction: Direction, family: Family, most: int) -> tuple[Table, ...]:
    """Return the tables of one direction and family of a case."""
    judge = case.policy.judge("eth0")
    return make_tables(
        (dhcp_clause(direction, family), *list_clauses(judge, direction, family)), family, most
    )


@examples(12)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_tables_say_who_decides(case: Case) -> None:
    """Each packet's decider decides in its row, about its far end; nothing else decides anywhere."""
    for direction in Direction:
        for family in Family:
            packets = every_point([case.policy], "eth0", direction, family)
            decisions = [(packet, evaluate(case.policy, packet)) for packet in packets]
            for most in SIZES:
                say_who_decides(tables_of(case, direction, family, most), decisions)


def say_who_decides(tables: tuple[Table, ...], decisions: list[tuple[Packet, Decision]]) -> None:
    """Check tables with what was decided about packets."""
    for packet, decision in decisions:
        peer = ((packet.peer, packet.peer),)
        code = code_of(packet.protocol, packet.destination_port or 0)
        holding = [(table, column) for table in tables if (column := table.columns_with(peer))]
        assert holding
        found = {
            (clause.decided_by, clause.rule): clause.policy
            for table, column in holding
            for clause, columns in table.deciders(table.row_of(code))
            if table.far_columns(columns) & column
        }
        assert found[decision.decided_by, decision.rule] is decision.verdict
    deciding = {(area.clause.decided_by, area.clause.rule) for table in tables for area in table.deciding()}
    assert deciding == {(decision.decided_by, decision.rule) for _, decision in decisions}


def _accepted(areas: list[Area], row: int, column: int) -> tuple[bool, bool]:
    """Return whether a cell is accepted, and whether the first two that match it disagree."""
    matching: list[Clause] = [
        area.clause
        for area in areas
        if area.columns >> column & 1 and any(first <= row <= last for first, last in area.rows)
    ]
    is_critical = len(matching) > 1 and matching[0].policy is not matching[1].policy
    return matching[0].policy is Policy.ACCEPT, is_critical


@examples(15)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_verdicts_are_those_of_the_first_that_match(case: Case) -> None:
    """In every cell: what it comes to, and whether that hangs on one clause."""
    for table in tables_of(case, Direction.INGRESS, Family.IPV4, 64):
        verdicts, areas = table.verdicts(), list(table.areas)
        for row in range(len(table.starts)):
            for column in range(table.every_column.bit_length()):
                found = (verdicts.accepted[row] >> column & 1, verdicts.critical[row] >> column & 1)
                assert (bool(found[0]), bool(found[1])) == _accepted(areas, row, column)


@examples(15)
@given(cases(interfaces=("eth0",), most_rules=12))
def test_the_index_finds_all_that_meet_an_area(case: Case) -> None:
    """As looking at each other area does."""
    for table in tables_of(case, Direction.INGRESS, Family.IPV4, 64):
        index = Index(table)
        for area in table.areas:
            meeting = {
                number for number, other in enumerate(table.areas) if all(map(bool, common_area(area, other)))
            }
            assert {
                number for number in range(len(table.areas)) if index.meeting(area) >> number & 1
            } == meeting
