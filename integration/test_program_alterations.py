"""Rules that are altered by netlink itself are not kept and not proved, unless they do as before."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from integration.namespaces import network_namespace
from integration.rule_messages import StandingRule, replace_rule, rules_in
from sgagent.dataplane.libnftables import Context
from sgagent.dataplane.table import list_anew
from sgagent.nft.diff import make_plan
from sgagent.nft.own_table import decode_ruleset
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.transactions import encode_plan
from sgagent.verify import Outcome
from sgagent.verify.packets import PacketAtHook
from sgagent.verify.programs import read_table
from sgagent.verify.proof import prove
from tests.bytecode_machine import Machine, NotModelledError
from tests.draws import SeededDraws
from tests.program_faults import CONDITIONS, INNER, alterations, split, with_condition
from tests.property.test_programs import NOT_LOADED, packets_for
from tests.verified_cases import VerifiedCase, verified_case

pytestmark = pytest.mark.long

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
SEEDS = range(500 if IS_FULL else 3)
ALTERATIONS = 12
"""Of each table."""


@pytest.fixture
def kernel() -> Iterator[Context]:
    """Enter a namespace, and open libnftables in it."""
    with network_namespace() as namespace, namespace.entered():
        yield Context()


def case_with_rules(seed: int) -> VerifiedCase:
    """Return the first case from a seed on whose table has rules: others bind no link."""
    cases = (verified_case(number, most_rules=5) for number in itertools.count(seed))
    return next(case for case in cases if any(chain.rules for chain in case.table.chains))


def load(kernel: Context, table: Ruleset) -> bytes:
    """Put a table into the kernel, and return its dump."""
    kernel.load("destroy table inet sgagent")
    kernel.run(encode_plan(make_plan(table, None)))
    return list_anew().dump or b""


def run(program: bytes, packet: PacketAtHook) -> object:
    """Return what a program does with a packet, as far as a meter, which the machine has not."""
    try:
        return Machine(program).run(packet)
    except NotModelledError as meter:
        return str(meter)


def does_as_before(case: VerifiedCase, before: bytes, after: bytes) -> bool:
    """Return whether packets at and beside all that the table compares find no difference."""
    packets = packets_for(case.table, case.seed)
    try:
        return all(run(before, one) == run(after, one) for one in packets)
    except NOT_LOADED:
        return False


def check(case: VerifiedCase, before: bytes, where: str) -> None:
    """Make sure that a table that was altered is neither kept nor proved, unless it does as before."""
    after = list_anew().dump or b""
    is_kept = decode_ruleset(after) == (case.table, ())
    if is_kept:
        assert does_as_before(case, before, after), f"kept: {where}"
    elif prove(read_table(after), case.policy).outcome is Outcome.PROVED:
        assert does_as_before(case, before, after), f"proved: {where}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rule_that_netlink_altered(kernel: Context, seed: int) -> None:
    """A condition more, a field of an instruction changed, an instruction gone, twice, or of a tunnel."""
    draws, case = SeededDraws(seed), case_with_rules(seed)
    before = load(kernel, case.table)
    assert decode_ruleset(before) == (case.table, ())
    taken = 0
    for _ in range(ALTERATIONS):
        rule = draws.choice(list(rules_in(before)))
        (altered,) = alterations(rule.instructions, draws, 1)
        if altered != rule.instructions and replace_rule(rule, altered):
            taken += 1
            check(case, before, f"{rule.chain}: {altered}")
            before = load(kernel, case.table)
    assert taken


TABLE_SEED = 3


@pytest.mark.parametrize("number", range(len(CONDITIONS) + 1))
def test_a_condition_beside_each_kind_of_rule(kernel: Context, number: int) -> None:
    """At each place of one rule of each shape; of a tunnel's header as well."""
    case = verified_case(TABLE_SEED, most_rules=5)
    before = load(kernel, case.table)
    added = CONDITIONS[number] if number < len(CONDITIONS) else INNER + CONDITIONS[-2]
    shapes: dict[tuple[bytes, ...], StandingRule] = {}
    for rule in rules_in(before):
        shapes.setdefault(tuple(one[:20] for one in rule.instructions), rule)
    for rule in list(shapes.values())[:: 1 if IS_FULL else 4]:
        for place in range(len(rule.instructions)):
            if replace_rule(rule, with_condition(rule.instructions, place, added)):
                check(case, before, f"{rule.chain}, place {place}")
                assert replace_rule(rule, rule.instructions)
    assert decode_ruleset(list_anew().dump or b"") == (case.table, ())
    assert split(added)
