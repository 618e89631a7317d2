"""Say what the compiled ruleset has promised to cost, and whether it keeps its word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.answers import LINT, PLAN_A_RULE
from bench.linear import Order
from bench.packetcost import OURS
from bench.results import Results
from bench.sizes import SIZES
from bench.traffic import Aim

MOST_GROWTH = 3.0
"""A new session under 10,000 rules and 100,000 members, against one under 10 rules and 100 members.

Connection tracking is in both. Above it the small one costs so little that what makes it cheaper still would
look like a loss of the large one.
"""

LEAST_GAIN = 30.0
"""A list of 1,000 rules walked to its end, against our ruleset of the same policy."""

LEAST_GAIN_OF_FEW = 1.0
"""A list of 10 rules, likewise: where it is shortest, ours is not slower."""

MOST_ANSWER_SECONDS = 1.0
"""A plan, and lint, of 1,000 rules and 10,000 members."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise and what was measured of it."""

    text: str
    limit: str
    measured: float

    is_met: bool


def judge_goals(results: Results) -> tuple[Goal, ...]:
    """Return the goals that the measured sizes allow to judge."""
    return (*_growth(results), *_gain(results), *_answers(results))


def _growth(results: Results) -> Iterator[Goal]:
    small, large = SIZES[0], SIZES[-1]
    for aim in (Aim.SPREAD, Aim.NONE):
        before, after = results.cost(small, aim.value, OURS), results.cost(large, aim.value, OURS)
        if before and after:
            text = f"a new session with its tracking at {large} against one at {small}, packets {aim.value}"
            ratio = after.whole.median / before.whole.median
            yield Goal(text, f"at most {MOST_GROWTH:g} times", ratio, ratio <= MOST_GROWTH)


def _gain(results: Results) -> Iterator[Goal]:
    for size, least, aims in (
        (SIZES[0], LEAST_GAIN_OF_FEW, (Aim.SPREAD, Aim.NONE)),
        (SIZES[2], LEAST_GAIN, (Aim.NONE, Aim.LAST)),
    ):
        for aim in aims:
            linear = results.cost(size, aim.value, Order.ADDRESS_FIRST.value)
            ours = results.cost(size, aim.value, OURS)
            if linear and ours:
                text = f"linear rules, address first, against sgagent at {size}, packets {aim.value}"
                ratio = linear.above.median / ours.above.median
                yield Goal(text, f"at least {least:g} times", ratio, ratio >= least)


def _answers(results: Results) -> Iterator[Goal]:
    size = SIZES[2]
    for operation in (PLAN_A_RULE, LINT):
        duration = results.duration(size, operation, OURS)
        if duration:
            seconds = duration.seconds.median
            is_met = seconds <= MOST_ANSWER_SECONDS
            yield Goal(
                f"{operation}, at {size}, in seconds", f"at most {MOST_ANSWER_SECONDS:g}", seconds, is_met
            )
