"""State the promised costs of the compiled ruleset, and whether it keeps them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from bench.answers import LINT, PLAN_A_RULE
from bench.linear import Order
from bench.packetcost import ESTABLISHED_ONLY, OURS
from bench.results import Results
from bench.sizes import SIZES, Size
from bench.traffic import Aim

MOST_GROWTH = 3.0
"""A new session under 10,000 rules and 100,000 members, against one under 10 rules and 100 members."""

LEAST_GAINS = {Order.ADDRESS_FIRST: 50.0, Order.PORT_FIRST: 20.0}
"""A list of 1,000 rules, in either order, against our ruleset of the same policy."""

LEAST_GAIN_OF_FEW = 1.0
"""A list of 10 rules, likewise: where it is shortest, ours is not slower."""

MOST_OF_KNOWN = 1.1
"""A packet of a known session, against a firewall of one rule that accepts it."""

MOST_ANSWER_SECONDS = 1.0
"""A plan, and lint, of 1,000 rules and 10,000 members."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise and its measurement."""

    text: str
    limit: str
    measured: float

    is_met: bool

    @classmethod
    def at_most(cls, limit: float, text: str, measured: float, unit: str = "") -> Goal:
        """Promise no more than the limit."""
        return cls(text, _with_unit(f"≤ {limit:g}", unit), measured, measured <= limit)

    @classmethod
    def at_least(cls, limit: float, text: str, measured: float, unit: str = "") -> Goal:
        """Promise no less than the limit."""
        return cls(text, _with_unit(f"≥ {limit:g}", unit), measured, measured >= limit)


def _with_unit(limit: str, unit: str) -> str:
    return f"{limit}×" if unit == "times" else f"{limit} {unit}".rstrip()


def judge_goals(results: Results) -> tuple[Goal, ...]:
    """Return the goals that the measured sizes allow to judge."""
    return (*_growth(results), *_gain(results), *_known(results), *_answers(results))


def _growth(results: Results) -> Iterator[Goal]:
    """Judge it above connection tracking, and with it, as packets pay it."""
    small, large = SIZES[0], SIZES[-1]
    for aim in (Aim.SPREAD, Aim.NONE):
        before, after = results.cost(small, aim.value, OURS), results.cost(large, aim.value, OURS)
        if before and after:
            yield Goal.at_most(
                MOST_GROWTH,
                f"new session without tracking, {large} against {small}, {aim.value}",
                after.above.median / before.above.median,
                "times",
            )
            yield Goal.at_most(
                MOST_GROWTH,
                f"new session with tracking, {large} against {small}, {aim.value}",
                after.whole.median / before.whole.median,
                "times",
            )


def least_gain(size: Size, aim: Aim, order: Order) -> float | None:
    """Return how many times ours a list has to cost; None where there is no goal."""
    if aim not in (Aim.SPREAD, Aim.NONE) or order not in LEAST_GAINS:
        return None
    return {SIZES[0]: LEAST_GAIN_OF_FEW, SIZES[2]: LEAST_GAINS[order]}.get(size)


_GAIN = ", against sgagent, "


def is_gain(goal: Goal) -> bool:
    """Tell whether a goal is about a list; the table of new sessions shows these."""
    return _GAIN in goal.text


def _gain(results: Results) -> Iterator[Goal]:
    for size, aim, order in itertools.product(SIZES, Aim, Order):
        least = least_gain(size, aim, order)
        linear = results.cost(size, aim.value, order.value)
        ours = results.cost(size, aim.value, OURS)
        if least is not None and linear and ours:
            text = f"{order.value}{_GAIN}{size}, {aim.value}"
            yield Goal.at_least(least, text, linear.above.median / ours.above.median, "times")


def _known(results: Results) -> Iterator[Goal]:
    size = SIZES[2]
    least, ours = (results.cost(size, "known sessions", name) for name in (ESTABLISHED_ONLY, OURS))
    if least and ours:
        yield Goal.at_most(
            MOST_OF_KNOWN,
            f"known session at {size}, against one accept rule",
            ours.whole.median / least.whole.median,
            "times",
        )


def _answers(results: Results) -> Iterator[Goal]:
    size = SIZES[2]
    for operation in (PLAN_A_RULE, LINT):
        duration = results.duration(size, operation, OURS)
        if duration:
            text = f"{operation}, {size}"
            yield Goal.at_most(MOST_ANSWER_SECONDS, text, duration.seconds.median, "s")
