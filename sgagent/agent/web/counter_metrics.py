"""Metrics of the kernel counters: two families for rules, and one for each other kind of counter."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, Metric

from sgagent.agent.web.exposition import RuleHits, RuleLabels
from sgagent.nft.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
)
from sgagent.ports import CounterValue

CounterTotals = Mapping[CounterKey, CounterValue]


@dataclass(frozen=True, slots=True)
class _CounterFamily:
    """A metric of one kind of kernel counter."""

    kind: type[CounterKey]
    name: str
    documentation: str
    labels: tuple[str, ...]
    """Fields of the counter's key."""


_COUNTER_FAMILIES = (
    _CounterFamily(
        DefaultCounter,
        "sgagent_default_packets",
        "Sessions that no rule decided, by the packet that was judged.",
        ("interface", "direction", "verdict"),
    ),
    _CounterFamily(
        InnerCounter,
        "sgagent_inner_packets",
        "Sessions accepted as they come from a fellow member of a group, by the packet that was judged.",
        ("interface",),
    ),
    _CounterFamily(
        InvalidCounter,
        "sgagent_invalid_packets",
        "Packets that connection tracking calls invalid.",
        ("interface", "direction"),
    ),
    _CounterFamily(
        ObservedDropCounter,
        "sgagent_would_drop_packets",
        "Packets that were let through because the interface is only observed.",
        ("interface", "direction"),
    ),
    _CounterFamily(
        ExemptionCounter,
        "sgagent_exempt_packets",
        "Packets that an exemption list accepted before any group, by the list.",
        ("interface", "direction", "kind"),
    ),
)


def counter_families(totals: CounterTotals) -> Iterator[Metric]:
    """Yield a family for each kind of counter."""
    yield from _rule_hits(totals)
    families = {
        each.kind: (each, CounterMetricFamily(each.name, each.documentation, labels=each.labels))
        for each in _COUNTER_FAMILIES
    }
    for key, total in totals.items():
        if type(key) in families:
            each, family = families[type(key)]
            family.add_metric([_label(key, name) for name in each.labels], total.packets)
    yield from (family for _, family in families.values())


def _label(key: CounterKey, name: str) -> str:
    value = getattr(key, name)
    return str(value.value if isinstance(value, enum.Enum) else value)


def _rule_hits(totals: CounterTotals) -> Iterator[Metric]:
    by_rule = {key: total for key, total in totals.items() if isinstance(key, RuleCounter)}
    if not by_rule:
        return
    rules = RuleLabels.of(tuple(by_rule))
    packets = [total.packets for total in by_rule.values()]
    octets = [total.bytes for total in by_rule.values()]
    yield RuleHits(
        "sgagent_rule_packets",
        "Sessions that the rule decided, by the packet that was judged.",
        rules,
        packets,
    )
    yield RuleHits(
        "sgagent_rule_bytes", "Bytes of the packets by which the rule decided sessions.", rules, octets
    )
