"""Try a verifier on planted faults: does it find what an arbiter finds, and does its packet show it?"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sgagent.verify import Outcome
from sgagent.verify.expectation import SessionMemory, expect, stated_memory
from sgagent.verify.fate_comparison import Counterexample
from sgagent.verify.interpreter import run
from sgagent.verify.proof import Proof, prove
from sgagent.verify.verified_table import table_of
from tests.alterable import AlterableTable
from tests.differential import find_difference
from tests.draws import SeededDraws
from tests.encounters import Encounter
from tests.planted_faults import NoPlaceError, PlantedFault, draw_fault
from tests.verified_cases import VerifiedCase, verified_case


class Finding(enum.Enum):
    """What a trial showed."""

    REFUTED = "refuted"
    """The fault changes something, by the arbiter as well, and the verifier found it."""

    FOUND_ALONE = "refuted, though the arbiter found nothing"
    """The verifier's packet shows that the fault changes something."""

    EQUIVALENT = "proved, and nothing changed"
    UNKNOWN = "unknown"
    MISSED = "missed"
    """The verifier proved a table for which the arbiter has a packet."""

    FALSE = "a refutation whose packet shows nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A planted fault and what the verifier made of it."""

    seed: int
    number: int
    fault: PlantedFault
    finding: Finding
    difference: Encounter | None
    counterexample: Counterexample | None
    unsupported: Sequence[str] = ()

    @property
    def is_failure(self) -> bool:
        """Return whether the verifier is wrong, or does not understand what it should."""
        return self.finding in (Finding.MISSED, Finding.FALSE, Finding.UNKNOWN)

    def __str__(self) -> str:
        """Return what makes the trial again, and what came of it."""
        shown = self.counterexample or self.difference or self.unsupported
        return f"seed {self.seed}, fault {self.number}: {self.finding.value}: {self.fault}\n  {shown}"


def trials(
    seed: int,
    number: int,
    *,
    kinds: Sequence[str] = (),
    tries: int = 400,
    most_rules: int = 40,
    layers: int = 1,
) -> list[Trial]:
    """Return trials of so many faults, one at a time, in the table of a seed.

    Args:
        seed: names the case and the faults.
        number: of faults.
        kinds: of faults; all if none is named.
        tries: packets with which the arbiter looks for a difference.
        most_rules: of a group.
        layers: how many faults are planted in one table.
    """
    case, draws = verified_case(seed, most_rules=most_rules), SeededDraws(seed)
    alterable = AlterableTable(case.table)
    memory = stated_memory(table_of(case.table))
    found: list[Trial] = []
    for place in range(number):
        try:
            fault = draw_fault(alterable, draws, kinds)
            for _ in range(layers - 1):
                fault = fault.with_another(draw_fault(AlterableTable(fault.table), draws, kinds))
        except NoPlaceError:
            break
        difference = find_difference(case.table, fault, draws, tries)
        proof = prove(fault.verified_table, case.policy, memory=memory)
        found.append(_trial(case, memory, fault, difference, proof, number=place))
    return found


def _trial(
    case: VerifiedCase,
    memory: SessionMemory,
    fault: PlantedFault,
    difference: Encounter | None,
    proof: Proof,
    *,
    number: int,
) -> Trial:
    finding = Finding.UNKNOWN
    if proof.outcome is Outcome.PROVED:
        finding = Finding.EQUIVALENT if difference is None else Finding.MISSED
    elif proof.counterexample is not None:
        is_shown = _shows_something(case, memory, fault, proof.counterexample)
        alone = Finding.FOUND_ALONE if difference is None else Finding.REFUTED
        finding = alone if is_shown else Finding.FALSE
    return Trial(
        seed=case.seed,
        number=number,
        fault=fault,
        finding=finding,
        difference=difference,
        counterexample=proof.counterexample,
        unsupported=proof.unsupported,
    )


def _shows_something(
    case: VerifiedCase, memory: SessionMemory, fault: PlantedFault, counterexample: Counterexample
) -> bool:
    """Return whether the packet is treated otherwise than by the table that was compiled, and as is said."""
    packet = counterexample.packet
    found, compiled = run(fault.verified_table, packet), run(table_of(case.table), packet)
    expected = expect(case.policy, memory, packet)
    return (
        found == counterexample.found
        and expected == counterexample.expected
        and (found.verdict, sorted(found.counters), found.mark)
        != (compiled.verdict, sorted(compiled.counters), compiled.mark)
    )
