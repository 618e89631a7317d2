"""A page of metrics is what the library would make of them, and what its parsers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.registry import Collector

from sgagent.agent.web.metrics import RuleHits, RuleLabels, labels_of, write_page
from sgagent.core.model import Direction, Policy
from sgagent.nft.names import RuleCounter

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
    return RuleCounter(
        interface=interface,
        security_group_id="sg-1",
        rule_id=rule_id,
        direction=Direction.INGRESS,
        policy=Policy.DROP,
    )


def registry_of(hits: dict[RuleCounter, int]) -> CollectorRegistry:
    """Return a registry of a gauge and of the hits of rules."""
    registry = CollectorRegistry()
    Gauge("sgagent_answer", "The answer.", registry=registry).set(42)
    rules = RuleLabels.of(tuple(hits))
    registry.register(Collected(RuleHits("sgagent_hits", "Hits.", rules, list(hits.values()))))
    return registry


HITS = {key("sgr-1"): 0, key("sgr-2"): 999_999, key('a"} 1\nsgagent_answer 0\n\\'): 2**63}


@pytest.mark.parametrize(
    ("accepted", "parse"), (("", parse_plain), ("text/plain; version=0.0.4", parse_plain), (OPEN, parse_open))
)
def test_a_page_reads_as_what_was_counted(accepted: str, parse: Callable[[str], Any]) -> None:
    """Each rule has its value under its labels, whatever is in them, and the rest stands beside."""
    page, _ = write_page(registry_of(HITS), accepted)
    families = {family.name: family for family in parse(page.decode())}
    found = [(sample.name, sample.labels, sample.value) for sample in families["sgagent_hits"].samples]
    assert found == [("sgagent_hits_total", labels_of(rule), float(count)) for rule, count in HITS.items()]
    assert families["sgagent_hits"].type == "counter"
    assert families["sgagent_hits"].documentation == "Hits."
    assert [sample.value for sample in families["sgagent_answer"].samples] == [42]


@pytest.mark.parametrize("accepted", ("", OPEN))
@given(ids=st.sets(st.text(min_size=1), min_size=1, max_size=5))
def test_the_lines_are_those_of_the_library(accepted: str, ids: set[str]) -> None:
    """It would write the same ones, of the same type of content."""
    registry = registry_of({key(rule_id): number for number, rule_id in enumerate(sorted(ids))})
    encode, content_type = choose_encoder(accepted)
    page, found_type = write_page(registry, accepted)
    assert found_type == content_type
    assert sorted(page.split(b"\n")) == sorted(encode(registry).split(b"\n"))


def test_an_open_page_ends_as_it_must() -> None:
    """The mark of the end comes once, behind everything."""
    page, _ = write_page(registry_of(HITS), OPEN)
    assert page.endswith(b"# EOF\n")
    assert page.count(b"# EOF") == 1
