"""Cells say of each packet what the specification says."""

from __future__ import annotations

from hypothesis import given

from sgagent.analysis.cells import Cells, code_of, first_of, places_of
from sgagent.core.addresses import holds
from sgagent.core.clauses import Clause, dhcp_clause, list_clauses
from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.model import Direction, Family
from tests.generators import Case
from tests.points import every_point
from tests.strategies import cases, examples

FEW_RULES = 6


def cells_of(case: Case, direction: Direction, family: Family) -> Cells:
    """Return the cells of one direction and family of a case."""
    judge = case.policy.judge("eth0")
    return Cells((dhcp_clause(direction, family), *list_clauses(judge, direction, family)), family)


def names(clause: Clause) -> tuple[object, ...]:
    """Return what decides, as decisions name it."""
    return (clause.decided_by, clause.rule)


@examples(12)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_cells_say_who_decides(case: Case) -> None:
    """Each packet's decider decides in a cell of it; nothing else decides anywhere."""
    for direction in Direction:
        for family in Family:
            packets = every_point([case.policy], "eth0", direction, family)
            decisions = [(packet, evaluate(case.policy, packet)) for packet in packets]
            says_who_decides(cells_of(case, direction, family), decisions)


def says_who_decides(cells: Cells, decisions: list[tuple[Packet, Decision]]) -> None:
    """Check cells with what was decided about packets."""
    found = list(cells.each())
    for packet, decision in decisions:
        code = code_of(packet.protocol, packet.destination_port or 0)
        here = {
            names(cells.clauses[cell.decider])
            for cell in found
            if cell.first <= code <= cell.last and holds(cell.far.ranges, packet.peer)
        }
        assert (decision.decided_by, decision.rule) in here
        only = {names(cells.clauses[cell.decider]) for cell in cells.each(((code, code),))}
        assert here <= only
    deciding = {names(cells.clauses[cell.decider]) for cell in found}
    assert deciding == {(decision.decided_by, decision.rule) for _, decision in decisions}


@examples(15)
@given(cases(interfaces=("eth0",), most_rules=12))
def test_precedence_is_of_all_cells(case: Case) -> None:
    """It holds for each decider what else matches in its cells, and what would decide without it."""
    cells = cells_of(case, Direction.INGRESS, Family.IPV4)
    matching, following = dict[int, int](), dict[int, int]()
    for cell in cells.each():
        decider, *others = places_of(cell.bits)
        matching[1 << decider] = matching.get(1 << decider, 0) | cell.bits
        following[1 << decider] = following.get(1 << decider, 0) | first_of(cell.bits ^ 1 << decider)
        assert cell.decider == decider < min(others, default=decider + 1)
    found = cells.precedence()
    assert (found.matching, found.following, found.unfinished) == (matching, following, None)


@examples(5)
@given(cases(interfaces=("eth0",), most_rules=FEW_RULES))
def test_too_many_cells_are_left(case: Case) -> None:
    """Where there are more cells than are to be looked at, it is said how many classes were."""
    cells = cells_of(case, Direction.INGRESS, Family.IPV4)
    assert cells.precedence(0).unfinished == (0, len(cells.classes))
    assert cells.precedence(None) == cells.precedence()
