"""On random policies the kernel decides every packet as the specification does.

``SGAGENT_FULL=1`` judges over 100,000 packets; ``SGAGENT_SEED`` sets the first seed.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest

from integration.enforcer import enforcer
from integration.judging import NOTRACK, enforce, judge
from integration.lab import lab
from sgagent.core.evaluate import Tracking, evaluate
from sgagent.core.model import Policy
from tests.draws import Draws, SeededDraws
from tests.generators import Case, described, random_case, random_packets

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
CASES = 160 if IS_FULL else 12
PACKETS_OF_A_CASE = 800 if IS_FULL else 450
FIRST_SEED = int(os.environ.get("SGAGENT_SEED", "1"))

INTERFACES = ("eth0", "eth1")


def mismatches(case: Case, draws: Draws, number: int, *, tracked: bool) -> tuple[list[str], Counter[str]]:
    """Return the packets that the kernel judges otherwise, and how often the specification decided what."""
    packets = random_packets(draws, case.policy, number)
    if not tracked:
        packets = [replace(packet, tracking=Tracking.UNTRACKED) for packet in packets]
    decisions = [evaluate(case.policy, packet) for packet in packets]
    with lab(*INTERFACES) as built:
        if not tracked:
            built.load(NOTRACK)
        enforce(built, case.policy)
        passed = judge(built, packets)
    found = [
        f"{described(packet)} {'passes' if passes else 'is dropped'}, but {decision}"
        for packet, decision, passes in zip(packets, decisions, passed, strict=True)
        if passes is not (decision.verdict is Policy.ACCEPT)
    ]
    return found, Counter(
        f"{decision.verdict.value} by {decision.decided_by.value}" for decision in decisions
    )


@pytest.mark.parametrize("tracked", (True, False), ids=("tracked", "untracked"))
def test_the_kernel_agrees_with_the_specification(
    *, tracked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the groups are, each packet passes or not as ``evaluate`` says; both ways, both families."""
    judged: Counter[str] = Counter()
    found: list[str] = []
    share = 1 if tracked else 4
    for seed in range(FIRST_SEED, FIRST_SEED + CASES // share):
        draws = SeededDraws(seed)
        case = random_case(draws, interfaces=INTERFACES)
        wrong, decided = mismatches(case, draws, PACKETS_OF_A_CASE, tracked=tracked)
        found += [f"seed {seed}: {text}" for text in wrong]
        judged += decided
    with capsys.disabled():
        print(f"\n  {judged.total()} packets, {len(found)} mismatches: {dict(judged.most_common())}")
    assert not found, "\n".join(found[:10])
    assert len(judged) >= 7, "the packets did not reach every step of the specification"


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + (60 if IS_FULL else 12)))
def test_what_is_listed_is_what_was_compiled(seed: int) -> None:
    """Read back afresh, the table of any policy is the one that was meant: there is nothing left to do."""
    case = random_case(SeededDraws(seed), interfaces=INTERFACES)
    with lab(*INTERFACES) as built, enforcer(built) as agent:
        agent.enforce(case.policy)
        built.host.nft("add", "table", "inet", "somebody_elses")
        assert not agent.remaining(case.policy)
