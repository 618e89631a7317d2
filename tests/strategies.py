"""Let Hypothesis draw what the generators make, and shrink it."""

from __future__ import annotations

from hypothesis import note, settings, strategies as st

from sgagent.core.model import SecurityGroup, Snapshot
from tests.draws import Draws, HypothesisDraws
from tests.generators import Case, ShownDocument, random_case, random_snapshot


def examples(percent: int) -> settings:
    """Return the settings of a test that looks at more or fewer examples than others do."""
    usual = settings.get_profile(settings.get_current_profile_name()).max_examples
    return settings(max_examples=max(1, usual * percent // 100))


@st.composite
def draws(draw: st.DrawFn) -> Draws:
    """Draw what can go on to draw inside a test."""
    return HypothesisDraws(draw)


@st.composite
def cases(draw: st.DrawFn, *, interfaces: tuple[str, ...] = ("eth0", "eth1"), most_rules: int = 20) -> Case:
    """Draw definitions bound to the interfaces."""
    return random_case(HypothesisDraws(draw), interfaces=interfaces, most_rules=most_rules)


def noted_case(draws: Draws, *, interfaces: tuple[str, ...] = ("eth0", "eth1"), most_rules: int = 20) -> Case:
    """Draw a case inside a test, and print it if the test fails."""
    case = random_case(draws, interfaces=interfaces, most_rules=most_rules)
    note(case)
    return case


def noted_groups(*groups: SecurityGroup) -> tuple[SecurityGroup, ...]:
    """Return groups that were drawn inside a test, and print them if the test fails."""
    note(ShownDocument(Snapshot(version="", security_groups=groups)))
    return groups


def noted_snapshot(draws: Draws, *, most_rules: int) -> Snapshot:
    """Draw definitions inside a test, and print them if the test fails."""
    snapshot = random_snapshot(draws, most_rules=most_rules)
    note(ShownDocument(snapshot))
    return snapshot
