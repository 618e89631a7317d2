"""The field ``limit_per_source`` of a rule (§13.1): its forms, errors, and what is derived from it."""

from __future__ import annotations

import pytest

from sgagent.core.conditions import SourceLimit
from sgagent.documents.writer import as_json, write_document
from tests.unit.documents.reading import codes, refused, rule_text, snapshot, the_rule


def limited(limit: str, policy: str = "accept") -> str:
    """Return a document with a rule that has such a field."""
    return rule_text(f"limit_per_source: {limit}", policy=policy)


@pytest.mark.parametrize(
    ("written", "limit"),
    (
        ("10/minute", SourceLimit(rate=10, seconds=60, burst=10)),
        ("5 / second", SourceLimit(rate=5, seconds=1, burst=5)),
        ("{rate: 10/minute, burst: 20}", SourceLimit(rate=10, seconds=60, burst=20)),
        ("{rate: 10000/day}", SourceLimit(rate=10_000, seconds=86_400, burst=10_000)),
    ),
)
def test_forms(written: str, limit: SourceLimit) -> None:
    """A rate alone has the burst of its number."""
    found = snapshot(limited(written))
    assert the_rule(found).conditions.limit == limit
    assert snapshot(as_json(write_document(found)), name="a.json") == found


@pytest.mark.parametrize(
    ("written", "said"),
    (
        ("10", "expected a rate"),
        ("0/minute", "not a rate"),
        ("10001/minute", "not a rate"),
        ("10/week", "not a rate"),
        ("1 0/minute", "not a rate"),
        ("{burst: 20}", "missing"),
        ("{rate: 10/minute, burst: 0}", "not a burst"),
        ("{rate: 10/minute, burst: 10001}", "not a burst"),
        ("{rate: 1/day, burst: 1158}", "at most 1157 at this rate"),
        ("{rate: 10/minute, per: host}", "unknown field"),
        ("[10/minute]", "expected"),
    ),
)
def test_what_is_wrong_is_said(written: str, said: str) -> None:
    """With the place of the field."""
    (problem,) = refused(limited(written))
    assert said in str(problem)
    assert ".limit_per_source" in str(problem)


def test_a_drop_rule_has_none() -> None:
    """It lets no session through anyway."""
    assert codes(refused(limited("10/minute", "drop"))) == ["limit_of_drop"]


@pytest.mark.parametrize(
    ("rate", "seconds", "burst", "refill"), ((10, 60, 20, 120), (3, 1, 1, 1), (1, 86_400, 2, 172_800))
)
def test_when_a_bucket_is_full_again(rate: int, seconds: int, burst: int, refill: int) -> None:
    """Then it need not be remembered."""
    assert SourceLimit(rate=rate, seconds=seconds, burst=burst).refill == refill
