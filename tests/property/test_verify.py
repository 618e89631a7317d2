"""The verifier reads tables as the tracer does, and expects what compiled tables do."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.core.addresses import holds
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import Direction, Family, Policy
from sgagent.nft.marks import UNCACHED, MarkLayout
from sgagent.nft.ruleset import Ruleset
from sgagent.verify import Outcome
from sgagent.verify.expectation import JUDGED_HOOKS, expect, list_box_clauses, stated_memory
from sgagent.verify.fate_comparison import dimensions_decided
from sgagent.verify.foreign import FilterChange, compare_filters
from sgagent.verify.interpreter import run
from sgagent.verify.packets import is_disjoint, meet
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import table_of
from sgagent.verify.views import NEVER_TRACKED, views_of
from tests.aimed_packets import Edges, Search, Target
from tests.alterable import AlterableTable, Place
from tests.differential import find_difference
from tests.draws import Draws, SeededDraws
from tests.edits import edited
from tests.encounters import Encounter, outcome_at
from tests.fault_trials import Finding, trials
from tests.generators import random_case
from tests.planted_faults import KINDS, NoPlaceError, PlantedFault, draw_fault
from tests.points import every_point
from tests.verified_cases import at_hook, verified_case

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
FIRST_SEED = int(os.environ.get("SGAGENT_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + (400 if IS_FULL else 12))
PACKETS = 80
CHANGING_FAULTS = 5_000 if IS_FULL else 40
PROVED_POLICIES = 2_000 if IS_FULL else 8


def aimed(draws: Draws, table: Ruleset, number: int) -> Iterator[Encounter]:
    """Yield packets that are aimed at rules of a table."""
    search = Search(table, Edges(table))
    places = AlterableTable(table).places["rule"]
    for _ in range(number):
        place = draws.choice(places) if places else None
        yield search.aimed(draws, Target(place.chain, place.rule)) if place else search.anything(draws)


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_tables_do_what_is_expected(seed: int) -> None:
    """Whatever the packet and its session, a compiled table does what the verifier expects of it."""
    case = verified_case(seed)
    table = table_of(case.table)
    memory = stated_memory(table)
    for encounter in aimed(SeededDraws(seed), case.table, PACKETS):
        packet = at_hook(encounter)
        trace, expected = run(table, packet), expect(case.policy, memory, packet)
        assert (trace.verdict, trace.mark) == (expected.verdict, expected.mark), packet
        assert trace.counters == expected.counters, packet


def alone(encounter: Encounter) -> Encounter:
    """Return a packet as its hook knows it: at prerouting there is no other link yet."""
    if encounter.packet.hook == "postrouting":
        return encounter
    return replace(encounter, packet=replace(encounter.packet, other_interface=""))


@pytest.mark.parametrize("seed", SEEDS)
def test_altered_tables_are_read_as_the_tracer_reads_them(seed: int) -> None:
    """Verdict, counters and mark of the verifier's reading are the tracer's, whatever was done to a table."""
    draws, case = SeededDraws(seed), verified_case(seed)
    altered = [draw_fault(AlterableTable(case.table), draws) for _ in range(4)]
    for fault in altered:
        table = fault.verified_table
        assert table.unsupported == ()
        for encounter in map(alone, aimed(draws, fault.table, PACKETS // 4)):
            trace = run(table, at_hook(encounter))
            traced = outcome_at(fault.table, encounter, foreign=fault.foreign)
            assert (trace.verdict is Policy.ACCEPT) is traced.accepted, f"{fault}\n{encounter}"
            counters = (one for one in trace.counters if not one.startswith(("within ", "over ")))
            assert (tuple(sorted(counters)), trace.mark) == (traced.counted, traced.mark), fault


def test_planted_faults_are_found() -> None:
    """What changes something for some packet is refuted, by a packet that shows it; nothing else is."""
    tally: Counter[Finding] = Counter()
    for seed in itertools.count(FIRST_SEED):
        for trial in trials(seed, 3, most_rules=40 if IS_FULL else 5):
            assert not trial.is_failure, trial
            tally[trial.finding] += 1
        if tally[Finding.REFUTED] + tally[Finding.FOUND_ALONE] >= CHANGING_FAULTS:
            break
    assert tally[Finding.FOUND_ALONE] < CHANGING_FAULTS / 4, "the arbiter finds too little"


@pytest.mark.parametrize("start", range(FIRST_SEED, FIRST_SEED + PROVED_POLICIES, 8))
def test_compiled_tables_are_proved(start: int) -> None:
    """There is no false alarm, whatever the policy, as compiled and as the kernel would list it."""
    for seed in range(start, start + 8):
        case = verified_case(seed, most_rules=40 if IS_FULL else 5)
        proof = prove(table_of(case.table), case.policy)
        assert proof.outcome is Outcome.PROVED, f"seed {seed}: {proof.counterexample} {proof.unsupported}"


@pytest.mark.parametrize("seed", (800_230, pytest.param(800_237, marks=pytest.mark.long)))
def test_own_addresses_may_be_those_that_stand_for_others(seed: int) -> None:
    """A source check of them is no part of what is compared for far ends that nothing singles out."""
    case = verified_case(seed)
    proof = prove(table_of(case.table), case.policy)
    assert proof.outcome is Outcome.PROVED, proof.unsupported


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_policies_are_proved_and_stale_tables_are_not(seed: int) -> None:
    """After an edit of the policy its new table is proved; the old one only if no packet tells them apart."""
    draws, before = SeededDraws(seed), verified_case(seed, most_rules=40 if IS_FULL else 5)
    policy, found = before.case.policy, edited(draws, before.case)
    if found is None:
        return
    changed, words = found[0].policy, " ".join(found[1])
    old, new = (compile_(one, before.layout, before.state).ruleset for one in (policy, changed))
    memory = stated_memory(table_of(old))
    assert prove(table_of(new), changed, memory=memory).outcome is Outcome.PROVED, words
    difference = find_difference(old, PlantedFault("policy", Place(), words, new), draws)
    stale = prove(table_of(old), changed, memory=memory)
    assert difference is None or stale.outcome is Outcome.REFUTED, f"{words}: {difference}"


def is_in(change: FilterChange, packet: Packet) -> bool:
    """Return whether a packet that opens a session is one of those that change."""
    numbers = (
        (change.far_ends, packet.peer),
        (change.protocols, packet.protocol),
        (change.ports, packet.destination_port),
        (change.source_ports, packet.source_port),
        (change.near_ends, packet.local),
    )
    return (change.interface, change.direction, change.family) == (
        packet.interface,
        packet.direction,
        packet.family,
    ) and all(ranges is None or (number is not None and holds(ranges, number)) for ranges, number in numbers)


@pytest.mark.parametrize("seed", SEEDS)
def test_filters_differ_from_a_policy_where_their_own_does(seed: int) -> None:
    """The packets that would change are those about which two policies differ, at all of their borders."""
    draws, case = SeededDraws(seed), verified_case(seed, most_rules=5).case
    found = edited(draws, case)
    if found is None:
        return
    policy, filters = found[0].policy, compile_(case.policy, MarkLayout(0xFFFF0000), UNCACHED).ruleset
    comparison = compare_filters(table_of(filters), policy)
    changes = [change for change in comparison.changes if "new" in change.kinds]
    assert comparison.is_whole
    judges = [judge.name for judge in policy.interfaces if case.policy.judge(judge.name)]
    for name, direction, family in itertools.product(judges, Direction, Family):
        for packet in itertools.islice(every_point((case.policy, policy), name, direction, family), 2_000):
            if holds(NEVER_TRACKED[family], packet.protocol):
                continue
            before, after = (evaluate(one, packet).verdict for one in (case.policy, policy))
            holding = [change for change in changes if is_in(change, packet)]
            assert [one.verdict for one in holding] == ([after] if before is not after else []), packet


@pytest.mark.parametrize("seed", SEEDS[: 100 if IS_FULL else 1])
def test_a_sequence_of_applies_is_proved(seed: int) -> None:
    """Each table that the agent puts in the place of the one before is proved."""
    draws, layout = SeededDraws(seed), MarkLayout(SeededDraws(seed).choice((0xFFFF0000, 0x7FFF)))
    case = random_case(draws, most_rules=10)
    table: Ruleset | None = None
    enforced: Enforced | None = None
    for number in range(100 if IS_FULL else 6):
        step = enforce(case.policy, table, (), layout, enforced=draws.choice((enforced, None)))
        table = step.compiled.ruleset
        enforced = Enforced(policy=case.policy, ruleset=table)
        proof = prove(table_of(table), case.policy)
        assert proof.outcome is Outcome.PROVED, f"step {number}: {proof.counterexample}"
        if not step.is_interim:
            case = (edited(draws, case) or (case,))[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_table_of_another_generation_is_refuted(seed: int) -> None:
    """What the agent knows of generation and slots counts, not what the table states."""
    case = verified_case(seed, most_rules=5)
    table = table_of(case.table)
    memory = stated_memory(table)
    links = [judge.name for judge in case.policy.judges]
    if memory.generation is None or not set(memory.slots) & set(links):
        return
    first, second, third = memory.slots
    others = [replace(memory, generation=1 if memory.generation > 1 else 2), replace(memory, generation=None)]
    if first != second:
        others.append(replace(memory, slots=(second, first, third)))
    for other in others:
        assert prove(table, case.policy, memory=other).outcome is Outcome.REFUTED, other


def test_every_kind_of_fault_can_be_planted_and_be_found() -> None:
    """Each kind changes something somewhere, and a packet shows it; two may not."""
    left = set(KINDS)
    for seed in range(1, 40):
        draws, case = SeededDraws(seed), verified_case(seed, most_rules=10)
        for kind in sorted(left):
            with contextlib.suppress(NoPlaceError):
                fault = draw_fault(AlterableTable(case.table), draws, [kind])
                assert fault.kind == kind
                assert (fault.table, fault.foreign) != (case.table, ())
                if find_difference(case.table, fault, draws, most=100):
                    left.discard(kind)
    assert left <= {"statement moved", "rule duplicated"}


@pytest.mark.parametrize("seed", SEEDS)
def test_clauses_cut_packets_only_by_the_dimensions_that_decisions_are_kept_by(seed: int) -> None:
    """What was decided for one view holds for another that has the same values in these."""
    policy = verified_case(seed).policy
    for judge, hook, family in itertools.product(policy.judges, JUDGED_HOOKS, Family):
        for view in views_of(hook, judge.name, family, ""):
            for clause in list_box_clauses(judge, view.opened, family):
                if not is_disjoint(view.box, clause.constraints):
                    ends = ((one, view.box[one], wanted) for one, wanted in clause.constraints)
                    cutting = {one for one, have, wanted in ends if meet(have, wanted) != have}
                    assert cutting <= set(dimensions_decided(view)), (view, clause)
