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
DRAWS, QUICK_DRAWS = (5_000, 2_000, 40), (50, 40, 5)
"""Faults that change something for some packet, random policies, and the most rules of each."""

FAULTS_OF_A_POLICY = 3
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


def lines_of_times(times: Sequence[ProofTime], goals: Sequence[Goal]) -> Iterator[str]:
    """Yield the tables of times."""
    yield ""
    yield from table(
        ("rules/members", "compile", "proof", "cells"),
        (
            (one.policy, milliseconds(one.compile_seconds), milliseconds(one.proof), f"{one.cells:,}")
            for one in times
        ),
    )
    yield from goal_table(goals)


def lines_of_quality(quality: Quality, goals: Sequence[Goal]) -> Iterator[str]:
    """Yield the tables of planted faults."""
    yield ""
    yield from table(
        ("planted faults", ""), ((name, f"{number:,}") for name, number in sorted(quality.findings.items()))
    )
    yield from goal_table(goals)


def judge_times(times: Sequence[ProofTime]) -> list[Goal]:
    """Return the goals of times and the measurement of each."""
    limits = [(one, PROOF_SECONDS[one.size]) for one in times if one.size in PROOF_SECONDS]
    return [Goal.at_most(limit, f"proof, {one.policy}", one.proof, "s") for one, limit in limits]


def judge_quality(quality: Quality) -> list[Goal]:
    """Return the goals of quality and the measurement of each."""
    policies = quality.proved + len(quality.not_proved)
    return [
        Goal.at_most(
            0, f"of {quality.changing:,} faults that change something, not found", len(quality.failed)
        ),
        Goal.at_most(0, f"of {policies:,} random policies, not proved", len(quality.not_proved)),
    ]


def main(argv: Sequence[str]) -> int:
    """Measure, and print the tables."""
    parser = parser_of(NAME, "Measure how long a proof takes, and how good it is.")
    parser.add_argument("--seed", type=int, default=1, help="of the first random policy (default: 1)")
    parser.add_argument("--part", choices=("times", "faults"), help="measure this alone")
    options = parser.parse_args(argv)
    gc.set_threshold(*_COLLECTOR)
    ended = 0
    if options.part != "faults":
        times = [measure_time(*one) for one in _policies(is_quick=options.quick)]
        goals = judge_times(times)
        section = Section(NAME, list(lines_of_times(times, goals)), times, COSTS_PAGE)
        ended |= finish(section, goals, writes=options.write)
    if options.part != "times":
        quality = measure_quality(options.seed, *(QUICK_DRAWS if options.quick else DRAWS))
        goals = judge_quality(quality)
        section = Section("faults", list(lines_of_quality(quality, goals)), (quality,), COSTS_PAGE)
        ended |= finish(section, goals, writes=options.write)
    return ended


def _policies(*, is_quick: bool) -> Iterator[tuple[BenchPolicy | OverlappingPolicy, int]]:
    """Yield what is proved, and how often."""
    repeats = QUICK_REPEATS if is_quick else REPEATS
    yield invent(SIZES[2]), repeats
    yield invent_overlapping(SIZES[2]), repeats
    if not is_quick:
        yield invent(SIZES[3]), repeats


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
