"""A page of metrics is what the library's parsers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.registry import Collector

from sgagent.agent.web.metrics import counter_families
from sgagent.core.counter_keys import CounterKey, RuleCounter
from sgagent.core.model import Policy
from sgagent.ports import CounterValue
from tests.words import rule_counter

OPEN = "application/openmetrics-text; version=1.0.0"


class Collected(Collector):
    """Families that there are."""

    def __init__(self, *families: Metric) -> None:
        """Take them."""
        self.families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self.families

    def describe(self) -> Iterable[Metric]:
        """Return nothing."""
        return ()


def key(rule_id: str, interface: str = "eth0") -> RuleCounter:
    """Return the key of a rule."""
    return rule_counter(rule_id, Policy.DROP, link=interface)


def registry_of(hits: dict[RuleCounter, int]) -> CollectorRegistry:
    """Return a registry of a gauge and of the hits of rules."""
    registry = CollectorRegistry()
    Gauge("sgagent_answer", "The answer.", registry=registry).set(42)
    totals: dict[CounterKey, CounterValue] = {
        key: CounterValue(packets=number, bytes=0) for key, number in hits.items()
    }
    registry.register(Collected(*(family for family in counter_families(totals) if family.samples)))
    return registry


HITS = {key("sgr-1"): 0, key("sgr-2"): 999_999, key('a"} 1\nsgagent_answer 0\n\\'): 2**63}


@pytest.mark.parametrize(
    ("accepted", "parse"), (("", parse_plain), ("text/plain; version=0.0.4", parse_plain), (OPEN, parse_open))
)
def test_a_page_reads_as_what_was_counted(accepted: str, parse: Callable[[str], Any]) -> None:
    """Each rule has its value under its labels, whatever is in them, and the rest stands beside."""
    encode, _ = choose_encoder(accepted)
    page = encode(registry_of(HITS))
    families = {family.name: family for family in parse(page.decode())}
    hits = families["sgagent_rule_packets"]
    found = [(sample.name, sample.labels["rule_id"], sample.value) for sample in hits.samples]
    assert found == [("sgagent_rule_packets_total", rule.rule_id, float(hits)) for rule, hits in HITS.items()]
    assert hits.type == "counter"
    assert hits.documentation == "Sessions that the rule decided, by the packet that was judged."
    assert [sample.value for sample in families["sgagent_answer"].samples] == [42]


def test_an_open_page_ends_as_it_must() -> None:
    """The mark of the end comes once, behind everything."""
    encode, _ = choose_encoder(OPEN)
    page = encode(registry_of(HITS))
    assert page.endswith(b"# EOF\n")
    assert page.count(b"# EOF") == 1
