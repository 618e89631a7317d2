"""Let hypothesis draw what the generators make; a seed names a case, and a failing one is printed."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from tests.generators import Case, random_case

seeds = st.integers(min_value=0, max_value=2**32 - 1)


@st.composite
def cases(
    draw: st.DrawFn, *, interfaces: tuple[str, ...] = ("eth0", "eth1"), most_rules: int = 20
) -> tuple[Case, Random]:
    """Draw definitions bound to the interfaces, and the randomness to go on with."""
    random = Random(draw(seeds))
    return random_case(random, interfaces=interfaces, most_rules=most_rules), random
