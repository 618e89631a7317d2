"""Measure the time to compare two policies in meaning, and to find fault with one.

``python -m bench.answers`` measures only this, needs no privilege, and keeps nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from bench.packetcost import OURS
from bench.policies import BenchPolicy, invent, with_member, with_rule
from bench.results import Duration, Spread
from bench.sizes import SIZES, Size
from sgagent.analysis.compare import compare
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import make_subject
from sgagent.core.cloud_limits import MOST_RULES_PER_INTERFACE
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions
from sgagent.documents import DocumentFile, Limits, parse_documents

OTHER_SEED = 2
"""Of a policy that has nothing in common with the first but its size."""

LINT = "lint, in process"
PLAN_A_RULE = "plan, in process: one rule comes"


def measure_answers(policy: BenchPolicy, repeats: int) -> Iterator[Duration]:
    """Measure plans of several changes, and lint; reading the documents is not in it.

    What looks at everything is left out where a policy is larger than the cloud lets an interface have.
    """
    there = policy.resolved
    for operation, other in (
        ("plan, in process: nothing changes", invent(policy.size).resolved),
        ("plan, in process: one member joins", with_member(policy).resolved),
        (PLAN_A_RULE, with_rule(policy).resolved),
    ):
        yield _duration(policy.size, operation, repeats, _comparing(there, other))
    if policy.size.rules <= MOST_RULES_PER_INTERFACE:
        other, snapshot = invent(policy.size, OTHER_SEED).resolved, _snapshot(policy)
        operation = "plan, in process: everything is other"
        yield _duration(policy.size, operation, repeats, _comparing(there, other))
        yield _duration(policy.size, LINT, repeats, lambda: lint(make_subject(snapshot, Exemptions())))


def _comparing(there: ResolvedPolicy, other: ResolvedPolicy) -> Callable[[], object]:
    return lambda: compare(there, other)


def _snapshot(policy: BenchPolicy) -> Snapshot:
    return parse_documents([DocumentFile("bench.json", policy.document().encode())], Limits())[0]


def _duration(size: Size, operation: str, repeats: int, measured: Callable[[], object]) -> Duration:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        measured()
        seconds.append(time.perf_counter() - began)
    return Duration(size=size, operation=operation, contender=OURS, seconds=Spread.of(seconds))


def main() -> None:
    """Print a table."""
    print("| rules / members | | milliseconds |\n|---|---|---|")
    for size in SIZES:
        for duration in measure_answers(invent(size), repeats=3):
            milliseconds = duration.seconds.median * 1000
            print(f"| {size} | {duration.operation} | {milliseconds:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
