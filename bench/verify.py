"""Measure the verifier: how long a proof takes, and how good it is.

``python -m bench.verify``; ``--write`` keeps it. It needs neither privilege nor a kernel. The time is that of
the processor, beside what compiling the same policy takes in the same run. How good it is: planted faults in
tables of random policies, until so many changed something for a packet, and random policies to be proved.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

from bench.goals import Goal
from bench.overlapping import OverlappingPolicy, invent_overlapping
from bench.policies import INTERFACE, BenchPolicy, invent
from bench.section import COSTS_PAGE, Section, finish, goal_table, milliseconds, parser_of, table
from bench.sizes import SIZES, Size
from sgagent.compiler.compilation import compile_
from sgagent.core.memo import Memo
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import Ruleset
from sgagent.verify import Outcome
from sgagent.verify.proof import Proof, prove
from sgagent.verify.verified_table import table_of
from tests.fault_trials import Finding, trials
from tests.verified_cases import verified_case

NAME = "verify"
REPEATS, QUICK_REPEATS = 3, 1
FAULTS, QUICK_FAULTS = 5_000, 50
"""That change something for some packet."""

POLICIES, QUICK_POLICIES = 2_000, 40
FAULTS_OF_A_POLICY = 3
QUICK_RULES = 5
PROOF_SECONDS = {SIZES[2]: 3.0, SIZES[3]: 30.0}

_LAYOUT = MarkLayout(0xFFFF0000)
_COLLECTOR = (100_000, 20, 100)
"""As sgagent's own commands set it."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofTime:
    """The costs of the proof of one size, in seconds of the processor: the least of the repeats."""

    size: Size
    is_overlapping: bool
    """Whether the objects of its rules overlap (:mod:`bench.overlapping`)."""

    compile_seconds: float
    proof: float
    cells: int

    @property
    def policy(self) -> str:
        """Return the policy in words."""
        return f"{self.size}, overlapping" if self.is_overlapping else str(self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The results for planted faults and for random policies."""

    findings: dict[str, int]
    """Of planted faults, by :class:`tests.fault_trials.Finding`."""

    proved: int
    not_proved: tuple[int, ...]
    """Seeds of policies whose own tables were not proved."""

    failed: tuple[str, ...]
    """Faults that were missed, not understood, or refuted by a packet that shows nothing."""

    @property
    def changing(self) -> int:
        """Return how many faults changed something for some packet, and were understood."""
        others = (Finding.EQUIVALENT, Finding.UNKNOWN)
        return sum(self.findings.values()) - sum(self.findings.get(one.value, 0) for one in others)


def measure_time(policy: BenchPolicy | OverlappingPolicy, repeats: int) -> ProofTime:
    """Measure compiling and proving a policy.

    Raises:
        AssertionError: a table was not proved.
    """
    resolved = policy.resolved
    table, compile_seconds = _least(repeats, partial(_compiled, resolved))
    proof, seconds = _least(repeats, partial(_proved, table, resolved))
    return ProofTime(
        size=policy.size,
        is_overlapping=isinstance(policy, OverlappingPolicy),
        compile_seconds=compile_seconds,
        proof=seconds,
        cells=proof.cells,
    )


def _compiled(policy: ResolvedPolicy) -> Ruleset:
    return compile_(policy, _LAYOUT, first_state([INTERFACE], _LAYOUT), memo=Memo()).ruleset


def _proved(table: Ruleset, policy: ResolvedPolicy) -> Proof:
    proof = prove(table_of(table), policy)
    assert proof.outcome is Outcome.PROVED, proof
    return proof


def _least(repeats: int, work: Callable[[], _T]) -> tuple[_T, float]:
    """Return the work's result, and the seconds of the processor of its fastest repeat."""
    found: list[tuple[float, _T]] = []
    for _ in range(repeats):
        gc.collect()
        began = time.process_time()
        result = work()
        found.append((time.process_time() - began, result))
    seconds, result = min(found, key=lambda one: one[0])
    return result, seconds


def measure_quality(first_seed: int, faults: int, policies: int, most_rules: int) -> Quality:
    """Plant faults until so many change something, and prove so many policies."""
    findings: Counter[str] = Counter()
    failed: list[str] = []
    for seed in count(first_seed):
        for trial in trials(seed, FAULTS_OF_A_POLICY, most_rules=most_rules):
            findings[trial.finding.value] += 1
            if trial.is_failure:
                failed.append(str(trial))
                print(trial, file=sys.stderr, flush=True)
        if findings[Finding.REFUTED.value] + findings[Finding.FOUND_ALONE.value] >= faults:
            break
    not_proved = [
        seed for seed in range(first_seed, first_seed + policies) if not _is_proved(seed, most_rules)
    ]
    return Quality(
        findings=dict(findings),
        proved=policies - len(not_proved),
        not_proved=tuple(not_proved),
        failed=tuple(failed),
    )


def _is_proved(seed: int, most_rules: int) -> bool:
    case = verified_case(seed, most_rules=most_rules)
    return prove(table_of(case.table), case.policy).outcome is Outcome.PROVED


def lines(times: Sequence[ProofTime], quality: Quality, goals: Sequence[Goal]) -> Iterator[str]:
    """Yield the tables."""
    yield ""
    yield from table(
        ("rules/members", "compile", "proof", "cells"),
        (
            (one.policy, milliseconds(one.compile_seconds), milliseconds(one.proof), f"{one.cells:,}")
            for one in times
        ),
    )
    yield from table(
        ("planted faults", ""), ((name, f"{number:,}") for name, number in sorted(quality.findings.items()))
    )
    yield from goal_table(goals)


def judge(times: Sequence[ProofTime], quality: Quality) -> list[Goal]:
    """Return the goals and the measurement of each."""
    found = [
        Goal.at_most(limit, f"proof, {one.policy}", one.proof, "s")
        for one in times
        if (limit := PROOF_SECONDS.get(one.size)) is not None
    ]
    return [
        *found,
        Goal.at_most(
            0, f"of {quality.changing:,} faults that change something, not found", len(quality.failed)
        ),
        Goal.at_most(
            0,
            f"of {quality.proved + len(quality.not_proved):,} random policies, not proved",
            len(quality.not_proved),
        ),
    ]


def main(argv: Sequence[str]) -> int:
    """Measure, and print the tables."""
    parser = parser_of(NAME, "Measure how long a proof takes, and how good it is.")
    parser.add_argument("--seed", type=int, default=1, help="of the first random policy (default: 1)")
    options = parser.parse_args(argv)
    gc.set_threshold(*_COLLECTOR)
    is_quick = options.quick
    policies = (invent(SIZES[2]), invent_overlapping(SIZES[2]), *(() if is_quick else (invent(SIZES[3]),)))
    times = [measure_time(policy, QUICK_REPEATS if is_quick else REPEATS) for policy in policies]
    quality = measure_quality(
        options.seed,
        QUICK_FAULTS if is_quick else FAULTS,
        QUICK_POLICIES if is_quick else POLICIES,
        QUICK_RULES if is_quick else 40,
    )
    goals = judge(times, quality)
    section = Section(NAME, list(lines(times, quality, goals)), (*times, quality), COSTS_PAGE)
    return finish(section, goals, writes=options.write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
