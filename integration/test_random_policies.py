"""On random policies the kernel decides every packet as the specification does, and as its text does.

``SGAGENT_FULL=1`` judges over 100,000 packets of each kind; ``SGAGENT_SEED`` sets the first seed.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from integration.enforcer import enforcer
from integration.kernel_verdicts import NOTRACK, enforce, judge
from integration.lab import lab
from sgagent.core.counter_keys import CounterKey, InnerCounter, RuleCounter
from sgagent.core.evaluate import Tracking, evaluate
from sgagent.core.model import Direction, Mode, Policy
from tests.draws import Draws, SeededDraws
from tests.generators import Case, described, random_case, random_packets, without_limits
from tests.oracle import Attempt, Judgement, judge as judge_by_text
from tests.oracle_documents import TIMES, drawn_attempt, drawn_document, drawn_edges, packet_of, policy_of

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
CASES = 160 if IS_FULL else 12
PACKETS_OF_A_CASE = 800 if IS_FULL else 450
FIRST_SEED = int(os.environ.get("SGAGENT_SEED", "1"))

DOCUMENTS = 160 if IS_FULL else 10
PACKETS_OF_A_DOCUMENT = 650 if IS_FULL else 400

INTERFACES = ("eth0", "eth1")
METADATA = ip_address("100.100.100.200")


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
    return found, Counter(f"{one.verdict.value} by {one.decided_by.value}" for one in decisions)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("tracked", (True, False), ids=("tracked", "untracked"))
def test_kernel_and_specification_agree(*, tracked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the groups are, each packet passes or not as ``evaluate`` says; both ways, both families."""
    judged: Counter[str] = Counter()
    found: list[str] = []
    share = 1 if tracked else 3
    for seed in range(FIRST_SEED, FIRST_SEED + CASES // share):
        draws = SeededDraws(seed)
        case = without_limits(random_case(draws, interfaces=INTERFACES))
        wrong, decided = mismatches(case, draws, PACKETS_OF_A_CASE, tracked=tracked)
        found += [f"seed {seed}: {text}" for text in wrong]
        judged += decided
    with capsys.disabled():
        print(f"\n  {judged.total()} packets, {len(found)} mismatches: {dict(judged.most_common())}")
    assert not found, "\n".join(found[:10])
    assert len(judged) >= 7, "the packets did not reach every step of the specification"


def text_mismatches(seed: int) -> tuple[list[str], Counter[str]]:
    """Return where kernel or ``evaluate`` say otherwise than the text, and how often which step decided.

    Each packet counts for the rule or step that decided, also where it is only observed (§3, §9.1).
    """
    draws = SeededDraws(seed)
    document, edges, at = drawn_document(draws), drawn_edges(draws), draws.choice(TIMES)
    modes = {link: Mode.OBSERVE if draws.chance(15) else Mode.ENFORCE for link in edges}
    attempts = [(draws.choice(INTERFACES), drawn_attempt(draws)) for _ in range(PACKETS_OF_A_DOCUMENT)]
    said = [judge_by_text(document, edges[link], attempt, at) for link, attempt in attempts]
    policy = policy_of(document, edges, at, modes)
    packets = [packet_of(attempt, link) for link, attempt in attempts]
    with lab(*INTERFACES) as built:
        keys = enforce(built, policy)
        passed = judge(built, packets)
        counted = Counter({_counted(keys[name]): hits for name, (hits, _) in built.counters().items()})
    found, expected = [], Counter[Counted]()
    for (link, attempt), packet, passes, one in zip(attempts, packets, passed, said, strict=True):
        # Where sources are checked, each link that a pattern matches has its own addresses, and counters.
        judge_name = link if edges[link].is_source_checked else edges[link].bound_as
        expected.update(_counts_for(judge_name, attempt, one))
        evaluated = evaluate(policy, packet).verdict.value
        if passes is not (one.verdict == "accept" or modes[link] is Mode.OBSERVE) or evaluated != one.verdict:
            found.append(f"{link} {attempt}: {one}, but {evaluated} evaluated, {passes=}")
    found += [f"{place} counts {counted[place]}, not {expected[place]}" for place in counted - expected]
    found += [f"{place} counts {counted[place]}, not {expected[place]}" for place in expected - counted]
    return found, Counter(f"{one.verdict} by {one.step}" for one in said)


Counted = tuple[str, str, str]
"""An interface or pattern, a direction, and the rule or step that decided."""


def _counted(key: CounterKey) -> Counted:
    direction = Direction.INGRESS if isinstance(key, InnerCounter) else key.direction
    return key.interface, direction.value, key.rule_id if isinstance(key, RuleCounter) else key.step.value


def _counts_for(judge_name: str, attempt: Attempt, said: Judgement) -> list[Counted]:
    """Return a packet's counters: nothing where a host needs it to have an address (§3.2)."""
    step = said.step
    if step == "always":
        if attempt.destination != METADATA:
            return []
        step = "platform"
    return [(judge_name, attempt.direction, said.rule_id or step)]


def test_the_kernel_agrees_with_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, names, ends, patterns, source checks: verdicts and hits are those of the text (§12)."""
    judged: Counter[str] = Counter()
    found: list[str] = []
    for seed in range(FIRST_SEED, FIRST_SEED + DOCUMENTS):
        wrong, decided = text_mismatches(seed)
        found += [f"seed {seed}: {text}" for text in wrong]
        judged += decided
    with capsys.disabled():
        print(f"\n  {judged.total()} packets, {len(found)} mismatches: {dict(judged.most_common())}")
    assert not found, "\n".join(found[:10])
    assert len(judged) == 7, "the packets did not reach every step of the text"


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + (60 if IS_FULL else 12)))
def test_what_is_listed_is_what_was_compiled(seed: int) -> None:
    """Read back afresh, the table of any policy is the one that was meant: there is nothing left to do."""
    case = random_case(SeededDraws(seed), interfaces=INTERFACES)
    with lab(*INTERFACES) as built, enforcer(built) as agent:
        agent.enforce(case.policy)
        built.host.nft("add", "table", "inet", "somebody_elses")
        assert not agent.remaining(case.policy)
