"""A live table is called refuted only if neither it nor the definitions changed meanwhile."""

from __future__ import annotations

import pytest

from sgagent.cli.verify import MOST_REREADS, ProofSubject, Proved, prove_at_rest
from sgagent.core.policy import ResolvedPolicy
from sgagent.verify import Outcome
from sgagent.verify.proof import Proof
from sgagent.verify.verified_table import VerifiedTable

REFUTED, PROVED, UNKNOWN = Outcome.REFUTED, Outcome.PROVED, Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("read", "outcomes", "expected"),
    (
        ("a", [PROVED], PROVED),
        ("a", [UNKNOWN], UNKNOWN),
        ("aaa", [REFUTED], REFUTED),
        ("ab", [REFUTED, PROVED], PROVED),
        ("aab", [REFUTED, PROVED], PROVED),
        ("abbb", [REFUTED, REFUTED], REFUTED),
        ("aabaaa", [REFUTED] * 3, REFUTED),
        ("aabaab", [REFUTED] * 4, UNKNOWN),
        ("abcdef", [REFUTED] * MOST_REREADS + [PROVED], PROVED),
        ("abcdef", [REFUTED] * MOST_REREADS + [REFUTED], UNKNOWN),
    ),
)
def test_a_refutation_is_of_what_rests(read: str, outcomes: list[Outcome], expected: Outcome) -> None:
    """What was read is proved once each, also the last time, and nothing is read in vain."""
    subjects, comes = iter(map(subject_of, read)), iter(map(proved, outcomes))
    last, found = prove_at_rest(lambda: next(subjects), lambda _: next(comes), rereads=MOST_REREADS)
    assert (last, found[0].outcome) == (subject_of(read[-1]), expected)
    assert [*subjects, *comes] == []


def test_a_text_is_read_once() -> None:
    """Standard input can't be read again, and does not change."""
    subjects = iter([subject_of("a")])
    _, found = prove_at_rest(lambda: next(subjects), lambda _: proved(REFUTED), rereads=0)
    assert found[0].outcome is REFUTED


def subject_of(name: str) -> ProofSubject:
    """Return a table that differs from others by its name."""
    return VerifiedTable(chains={}, verdict_maps={}, unread=(name,)), ResolvedPolicy()


def proved(outcome: Outcome) -> Proved:
    """Return what a proof came to."""
    return Proof(outcome=outcome, cells=0), None, 0.0
