"""What would have been dropped is said, and no more than once a minute for each interface."""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.agent.counters import MOST_RULES_NAMED, SECONDS_BETWEEN_LINES, ObservationLog
from sgagent.core.counter_keys import (
    CounterKey,
    DefaultCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
)
from sgagent.core.model import Direction, Policy
from sgagent.ports import CounterValue
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.words import rule_counter

IN, OUT = Direction.INGRESS, Direction.EGRESS
OBSERVED = frozenset({"eth0"})


def rule(rule_id: str, policy: Policy = Policy.DROP, interface: str = "eth0") -> RuleCounter:
    """Return the key of a rule's counter."""
    return rule_counter(rule_id, policy, link=interface)


BAN, WEB = rule("sgr-ban"), rule("sgr-web", Policy.ACCEPT)
DEFAULT = DefaultCounter(interface="eth0", direction=OUT, verdict=Policy.DROP)
INVALID = InvalidCounter(interface="eth0", direction=IN)


def totals(counts: Mapping[CounterKey, int]) -> dict[CounterKey, CounterValue]:
    """Return totals of these packets, and what they come to."""
    sums: dict[CounterKey, int] = {}
    for key, packets in counts.items():
        match key:
            case RuleCounter(policy=Policy.DROP) | DefaultCounter() | InvalidCounter():
                drop = ObservedDropCounter(interface=key.interface, direction=key.direction)
                sums[drop] = sums.get(drop, 0) + packets
            case _:
                pass
    return {key: CounterValue(packets, 60 * packets) for key, packets in {**counts, **sums}.items()}


def test_a_line_says_what_was_counted_since_the_one_before() -> None:
    """By rule or step, the most first; what accepts is none of it, nor what was counted before we looked."""
    log, clock = FakeLog(), FakeClock()
    observing = ObservationLog(log, clock)
    observing.follow(totals({BAN: 5, WEB: 7}), OBSERVED)
    assert not log.lines
    clock.pass_seconds(3)
    observing.follow(
        totals({BAN: 6, WEB: 9, DEFAULT: 2, INVALID: 3, InnerCounter(interface="eth0"): 4}), OBSERVED
    )
    assert log.lines == [
        (
            "would_have_dropped",
            {
                "interface": "eth0",
                "packets": 6,
                "seconds": 3.0,
                "drops": [
                    {"direction": "ingress", "by": "invalid", "packets": 3},
                    {"direction": "egress", "by": "default", "packets": 2},
                    {"direction": "ingress", "by": "sgr-ban", "packets": 1},
                ],
                "others": 0,
            },
        )
    ]


def test_a_flood_is_one_line_a_minute() -> None:
    """What came meanwhile is in the next one, and a quiet minute has none."""
    log, clock = FakeLog(), FakeClock()
    observing = ObservationLog(log, clock)
    observing.follow(totals({BAN: 0}), OBSERVED)
    for second in range(1, 100):
        observing.follow(totals({BAN: 10 * second}), OBSERVED)
        clock.pass_seconds(1)
    assert [keys["packets"] for _, keys in log.lines] == [10, 600]
    clock.pass_seconds(SECONDS_BETWEEN_LINES)
    observing.follow(totals({BAN: 990}), OBSERVED)
    observing.follow(totals({BAN: 990}), OBSERVED)
    assert [keys["packets"] for _, keys in log.lines] == [10, 600, 380]


def test_each_interface_has_its_line() -> None:
    """And one that is not observed has none."""
    log = FakeLog()
    observing = ObservationLog(log, FakeClock())
    both = frozenset({"eth0", "eth1"})
    on = {name: rule("sgr-ban", interface=name) for name in ("eth0", "eth1", "eth2")}
    observing.follow({}, both)
    observing.follow(totals({on["eth0"]: 1, on["eth1"]: 2, on["eth2"]: 4}), both)
    assert [(keys["interface"], keys["packets"]) for _, keys in log.lines] == [("eth0", 1), ("eth1", 2)]


def test_very_many_rules_are_summed_up() -> None:
    """The line does not grow with the policy."""
    log = FakeLog()
    observing = ObservationLog(log, FakeClock())
    observing.follow({}, OBSERVED)
    observing.follow(totals({rule(f"sgr-{n:03}"): 1 for n in range(100)}), OBSERVED)
    ((_, keys),) = log.lines
    drops = keys["drops"]
    assert isinstance(drops, list)
    assert [drop["by"] for drop in drops] == [f"sgr-{n:03}" for n in range(MOST_RULES_NAMED)]
    assert (keys["packets"], keys["others"]) == (100, 100 - MOST_RULES_NAMED)


def test_observing_anew_begins_anew() -> None:
    """What was dropped for real between is none of it."""
    log = FakeLog()
    observing = ObservationLog(log, FakeClock())
    observing.follow(totals({BAN: 1}), OBSERVED)
    observing.follow(totals({BAN: 5}), frozenset())
    observing.follow({BAN: CounterValue(9, 0)}, OBSERVED)
    assert not log.lines
