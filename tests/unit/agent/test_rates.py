"""What was counted in each minute of the last hour, and the samples of the page's first screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sgagent.agent.published_status import (
    MOST_KEYS,
    MOST_SAMPLES,
    MOST_STEPS,
    SAMPLE_SECONDS,
    STEP_SECONDS,
    PublishedStatus,
    Sample,
    Samples,
    Trend,
)
from sgagent.agent.status import Durations, ProofReport
from sgagent.agent.step import Step, StepEnd
from sgagent.core.counter_keys import (
    CounterKey,
    DefaultCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
)
from sgagent.core.model import Direction, Policy
from sgagent.ports import CounterValue
from sgagent.verify import Outcome
from tests.fakes.clock import FakeClock
from tests.words import rule_counter

KEY, OTHER = InnerCounter(interface="eth0"), InnerCounter(interface="eth1")


def totals(**packets: int) -> dict[CounterKey, CounterValue]:
    """Return totals by interface."""
    return {
        InnerCounter(interface=name): CounterValue(packets=number, bytes=0)
        for name, number in packets.items()
    }


def test_a_step_is_what_was_counted_in_a_minute() -> None:
    """Readings in between change nothing, and what was there at first is no growth."""
    begun = Trend().after(totals(eth0=5), 100.0)
    assert begun.packets(KEY) == ()
    assert begun.after(totals(eth0=7), 100.0 + STEP_SECONDS - 1) is begun
    first = begun.after(totals(eth0=7), 100.0 + STEP_SECONDS)
    second = first.after(totals(eth0=7, eth1=3), 100.0 + 2 * STEP_SECONDS)
    assert second.packets(KEY) == (2, 0)
    assert second.packets(OTHER) == (0, 0), "what is new begins with the reading in which it is seen"


def test_minutes_without_a_reading_are_empty() -> None:
    """A loop that was held up finds in the last minute what came in all of them, and shifts nothing."""
    begun = Trend().after(totals(eth0=0), 0.0)
    late = begun.after(totals(eth0=9), 3.5 * STEP_SECONDS)
    assert late.packets(KEY) == (0, 0, 9)
    assert late.after(totals(eth0=10), 4 * STEP_SECONDS).packets(KEY) == (0, 0, 9, 1)


def test_no_more_than_an_hour_is_remembered() -> None:
    """The oldest step makes room, also for very many at once."""
    trend = Trend().after(totals(eth0=0), 0.0)
    for number in range(1, MOST_STEPS + 3):
        trend = trend.after(totals(eth0=number * number), number * STEP_SECONDS)
    assert len(trend.packets(KEY)) == MOST_STEPS
    assert trend.packets(KEY)[-1] == 2 * (MOST_STEPS + 2) - 1
    after_a_day = trend.after(totals(eth0=99_999), 86_400.0)
    assert after_a_day.packets(KEY)[:-1] == (0,) * (MOST_STEPS - 1)


def test_a_step_remembers_what_grew_most() -> None:
    """Its size is bounded, however many counters there are."""
    names = [f"v{number}" for number in range(MOST_KEYS + 10)]
    begun = Trend().after(totals(**dict.fromkeys(names, 0)), 0.0)
    grown = begun.after(totals(**{name: number for number, name in enumerate(names)}), STEP_SECONDS)
    assert len(grown.steps[0]) == MOST_KEYS
    assert grown.packets(InnerCounter(interface="v1")) == (0,)
    assert grown.packets(InnerCounter(interface=names[-1])) == (len(names) - 1,)


def test_what_shrank_is_no_growth() -> None:
    """A total that began anew counts from there."""
    begun = Trend().after(totals(eth0=50), 0.0)
    assert begun.after(totals(eth0=1), STEP_SECONDS).packets(KEY) == (0,)


RULE = rule_counter("sgr-1")
DEFAULT = DefaultCounter(interface="eth0", direction=Direction.INGRESS, verdict=Policy.DROP)
WOULD = ObservedDropCounter(interface="eth0", direction=Direction.INGRESS)
INVALID = InvalidCounter(interface="eth0", direction=Direction.INGRESS)


def counted(
    accepted: int = 0, dropped: int = 0, would: int = 0, invalid: int = 0
) -> Mapping[CounterKey, CounterValue]:
    """Return totals of a host."""
    packets: dict[CounterKey, int] = {RULE: accepted, DEFAULT: dropped, WOULD: would, INVALID: invalid}
    return {key: CounterValue(packets=number, bytes=0) for key, number in packets.items()}


def test_a_sample_is_what_was_counted_in_ten_seconds() -> None:
    """Accepted sessions and dropped packets are judged; what passed in observe mode is among the drops."""
    state = Sample(is_well=True, enforced=1, warnings=2, policy_age=9.0)
    begun = Samples().after(counted(accepted=100, dropped=50), state, 0.0)
    assert begun.taken == ()
    assert begun.after(counted(accepted=101), state, SAMPLE_SECONDS - 1) is begun
    (sample,) = begun.after(counted(104, 57, 2, 1), state, SAMPLE_SECONDS).taken
    assert sample == replace(state, dropped=8, would_drop=2, judged=11)


def test_samples_without_a_reading_are_not_well() -> None:
    """A loop that was held up counts in the newest sample what came in all of them; an hour is kept."""
    state = Sample(is_well=True)
    begun = Samples().after(counted(), state, 0.0)
    late = begun.after(counted(accepted=7), state, 3.5 * SAMPLE_SECONDS)
    assert [sample.judged for sample in late.taken] == [0, 0, 7]
    assert [sample.is_well for sample in late.taken] == [False, False, True]
    assert len(late.after(counted(accepted=8), state, 4 * SAMPLE_SECONDS).taken) == 4
    after_a_day = late.after(counted(accepted=8), state, 86_400.0)
    assert len(after_a_day.taken) == MOST_SAMPLES


def test_a_board_counts_its_changes_and_takes_samples() -> None:
    """Readings that find the same objects change nothing; a step, a fault and new totals do."""
    clock = FakeClock()
    published = PublishedStatus(clock, lambda _: True)
    totals = counted(accepted=1)
    proof = ProofReport(outcome=Outcome.PROVED, version="v1", generation=1, seconds=0.1, at=1.0)
    durations = Durations().with_one(0.1)
    revisions = [published.revision]
    changes: tuple[Callable[[], None], ...] = (
        lambda: published.note_totals(totals),
        lambda: published.note_totals(totals, step_fault="no room"),
        lambda: published.note_totals(totals),
        lambda: published.note_totals(counted(accepted=2)),
        lambda: published.note_contest(is_contested=True),
        lambda: published.note_step(Step(outcome=StepEnd.WAITING), is_fetched=True),
        lambda: published.note_verified(proof, durations),
        published.withdraw_proof,
        lambda: published.note_verified(proof, durations),
    )
    for change in changes:
        change()
        revisions.append(published.revision)
    assert revisions == sorted(set(revisions))
    published.note_contest(is_contested=True)
    published.note_verified(proof, durations)
    assert published.revision == revisions[-1]
    clock.pass_seconds(SAMPLE_SECONDS)
    published.note_totals(counted(accepted=5))
    (sample,) = published.samples.taken
    assert sample == Sample(judged=4)


def test_what_went_with_its_rule_is_no_growth() -> None:
    """Totals that are gone, new or began anew add nothing to a sample."""
    begun = Samples().after(counted(accepted=9, dropped=4), Sample(), 0.0)
    only_new: Mapping[CounterKey, CounterValue] = {
        KEY: CounterValue(packets=30, bytes=0),
        RULE: CounterValue(packets=3, bytes=0),
    }
    (sample,) = begun.after(only_new, Sample(), SAMPLE_SECONDS).taken
    assert sample == Sample()
