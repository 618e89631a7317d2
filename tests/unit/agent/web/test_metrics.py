"""What a scrape shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sgagent.agent.posture import InterfaceState, InterfaceStatus
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.state.counter_file import Totals
from sgagent.agent.status import Durations, ProofReport, Status
from sgagent.agent.step import Step, StepEnd
from sgagent.agent.timed_rules import ExpiringRule
from sgagent.agent.web.metrics import HELP, make_registry
from sgagent.core.counter_keys import (
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
)
from sgagent.core.model import TCP, Direction, Mode, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.ports import CounterValue
from sgagent.verify import Outcome
from tests.fakes.clock import FakeClock
from tests.words import ACCEPT, group, interface, rule, rule_counter, snapshot

TOTALS: Totals = {
    rule_counter("sgr-web", group_id="sg-web"): CounterValue(packets=3, bytes=180),
    DefaultCounter(interface="eth0", direction=Direction.INGRESS, verdict=Policy.DROP): CounterValue(4, 240),
    InnerCounter(interface="eth0"): CounterValue(5, 300),
    InvalidCounter(interface="eth0", direction=Direction.EGRESS): CounterValue(6, 360),
    ExemptionCounter(interface="eth0", direction=Direction.EGRESS, kind=ExemptionKind.PLATFORM): CounterValue(
        7, 420
    ),
    ObservedDropCounter(interface="eth0", direction=Direction.INGRESS): CounterValue(8, 480),
}
STATUS = Status(
    snapshot_version="sha256:0123",
    snapshot_since=900.0,
    last_success_at=950.0,
    is_source_up=True,
    source_errors=2,
    outcomes={StepEnd.APPLIED: 3, StepEnd.UNCHANGED: 5, StepEnd.REFUSED: 0},
    apply_durations=Durations().with_one(0.02).with_one(20.0),
    drift_repaired=1,
    verified=ProofReport(outcome=Outcome.PROVED, version="sha256:0123", generation=7, seconds=0.1, at=1.0),
    unknown_objects=0,
    warnings=7,
    interfaces=(
        InterfaceStatus(
            name="eth0", network_interface_id="eni-1", state=InterfaceState.BOUND, mode=Mode.OBSERVE
        ),
        InterfaceStatus(name="eth1", network_interface_id=None, state=InterfaceState.UNBOUND, mode=None),
    ),
)


def scrape(status: Status = STATUS, totals: Totals = TOTALS) -> str:
    """Return the text that a reader gets."""
    published = PublishedStatus(FakeClock(1000.0), lambda _: True)
    published.status = status
    published.note_totals(totals)
    return generate_latest(make_registry(published, FakeClock(1000.0))).decode()


def samples(text: str) -> dict[str, float]:
    """Return the value of each series."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


@pytest.mark.parametrize(
    ("series", "value"),
    (
        (
            'sgagent_rule_packets_total{direction="ingress",interface="eth0",policy="accept",rule_id="sgr-web",security_group_id="sg-web"}',
            3,
        ),
        (
            'sgagent_rule_bytes_total{direction="ingress",interface="eth0",policy="accept",rule_id="sgr-web",security_group_id="sg-web"}',
            180,
        ),
        ('sgagent_default_packets_total{direction="ingress",interface="eth0",verdict="drop"}', 4),
        ('sgagent_inner_packets_total{interface="eth0"}', 5),
        ('sgagent_invalid_packets_total{direction="egress",interface="eth0"}', 6),
        ('sgagent_would_drop_packets_total{direction="ingress",interface="eth0"}', 8),
        ('sgagent_exempt_packets_total{direction="egress",interface="eth0",kind="platform"}', 7),
        ('sgagent_apply_total{outcome="applied"}', 3),
        ('sgagent_apply_total{outcome="refused"}', 0),
        ('sgagent_apply_duration_seconds_bucket{le="0.01"}', 0),
        ('sgagent_apply_duration_seconds_bucket{le="0.025"}', 1),
        ('sgagent_apply_duration_seconds_bucket{le="+Inf"}', 2),
        ("sgagent_apply_duration_seconds_count", 2),
        ("sgagent_apply_duration_seconds_sum", 20.02),
        ("sgagent_compile_duration_seconds_count", 0),
        ('sgagent_snapshot_info{version="sha256:0123"}', 1),
        ("sgagent_snapshot_age_seconds", 100),
        ("sgagent_snapshot_refused", 0),
        ("sgagent_last_success_timestamp_seconds", 950),
        ("sgagent_source_up", 1),
        ('sgagent_verified{outcome="proved"}', 1),
        ('sgagent_verified{outcome="refuted"}', 0),
        ("sgagent_verified_generation", 7),
        ("sgagent_source_errors_total", 2),
        ("sgagent_drift_repaired_total", 1),
        ("sgagent_unknown_objects", 0),
        ("sgagent_warnings", 7),
        ('sgagent_interface_info{interface="eth0",network_interface_id="eni-1",state="bound"}', 1),
        ('sgagent_interface_info{interface="eth1",network_interface_id="",state="unbound"}', 1),
        ('sgagent_mode{interface="eth0",mode="observe"}', 1),
    ),
)
def test_a_scrape_shows(series: str, value: float) -> None:
    """Every metric of the contract is there under its name, with its labels and value."""
    assert samples(_with_sorted_labels(scrape()))[series] == pytest.approx(value)


@pytest.mark.parametrize(
    "name",
    (
        "sgagent_snapshot_info",
        "sgagent_snapshot_age_seconds",
        "sgagent_snapshot_refused",
        "sgagent_last_success_timestamp_seconds",
        "sgagent_source_up",
        "sgagent_unknown_objects",
        "sgagent_warnings",
        "sgagent_rule_packets_total",
        "sgagent_interface_info",
        "sgagent_mode",
    ),
)
def test_what_is_not_known_is_absent(name: str) -> None:
    """Before the first step a zero would be a lie."""
    assert name in scrape()
    assert name not in scrape(Status(), {})


def test_counters_of_the_agent_start_at_zero() -> None:
    """A rate can be taken from the first event on."""
    found = samples(scrape(Status(), {}))
    assert found["sgagent_source_errors_total"] == 0
    assert found['sgagent_apply_total{outcome="applied"}'] == 0


def test_the_build_is_told() -> None:
    """Whoever reads the metrics knows which version made them."""
    assert "sgagent_build_info{" in scrape(Status(), {})


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    """An age is never below zero."""
    found = samples(scrape(replace(STATUS, snapshot_since=2000.0)))
    assert found["sgagent_snapshot_age_seconds"] == 0


def test_label_values_are_escaped() -> None:
    """An id with quotes and line breaks can't forge another series."""
    hostile = 'a"} 1\nsgagent_source_up 0\n\\'
    totals: Totals = {InnerCounter(interface=hostile): CounterValue(1, 1)}
    families = {family.name: family for family in text_string_to_metric_families(scrape(totals=totals))}
    (sample,) = families["sgagent_inner_packets"].samples
    assert sample.labels == {"interface": hostile}
    assert [up.value for up in families["sgagent_source_up"].samples] == [1]


def test_every_metric_is_documented() -> None:
    """The document names each metric, also one that this scrape does not show; and each label shown."""
    document = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()
    assert [name for name in HELP if not re.search(f"`{name}(_total|_info)?`", document)] == []
    for family in text_string_to_metric_families(scrape()):
        assert family.documentation
        for sample in family.samples:
            name = sample.name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            assert f"`{name}`" in document
            assert all(f"`{label}`" in document for label in sample.labels if label != "le")


def _with_sorted_labels(text: str) -> str:
    """Return the text with the labels of each series in one order, which the library is free to choose."""
    return "\n".join(map(_sorted_labels, text.splitlines()))


def _sorted_labels(line: str) -> str:
    if line.startswith("#") or "{" not in line:
        return line
    name, _, rest = line.partition("{")
    labels, _, value = rest.rpartition("}")
    return f"{name}{{{','.join(sorted(labels.split(',')))}}}{value}"


def test_rules_that_end_within_a_day_are_counted() -> None:
    """Of what is in force; later ones are not."""
    ends = (
        ExpiringRule(rule_id="r", security_group_id="sg-1", policy=Policy.ACCEPT, expires_at=1_000.0 + at)
        for at in (1.0, 86_400.0, 86_401.0)
    )
    step = Step(outcome=StepEnd.UNCHANGED, policy=ResolvedPolicy())
    assert samples(scrape(replace(STATUS, step=step, expiring=tuple(ends))))["sgagent_rules_expiring"] == 2
    assert samples(scrape(replace(STATUS, step=step)))["sgagent_rules_expiring"] == 0
    assert "sgagent_rules_expiring" not in samples(scrape())


def test_a_table_that_is_not_proved_yet_has_no_outcome() -> None:
    """Each is 0 then, and no generation is named; where nothing is ever proved there is no series."""
    found = samples(scrape(replace(STATUS, verified=None)))
    outcomes = {series: value for series, value in found.items() if series.startswith("sgagent_verified")}
    assert outcomes == {f'sgagent_verified{{outcome="{one.value}"}}': 0.0 for one in Outcome}
    published = PublishedStatus(FakeClock(1000.0), lambda _: True, is_verifying=False)
    text = generate_latest(make_registry(published, FakeClock(1000.0))).decode()
    assert "sgagent_verif" not in text


def test_the_use_of_the_clouds_limits_is_that_of_the_snapshot_in_force() -> None:
    """As the greatest share that anything uses; without a snapshot there is none."""
    rules = [rule(f"r-{port}", ACCEPT, TCP, f"{port}", "0.0.0.0/0") for port in range(1, 11)]
    definitions = snapshot(group("sg-a", *rules), interface("eni-1", ["sg-a"], ["10.0.0.1"]))
    step = Step(outcome=StepEnd.UNCHANGED, snapshot=definitions)
    found = samples(scrape(replace(STATUS, step=step)))
    assert found['sgagent_cloud_quota_ratio{limit="rules_per_interface"}'] == 0.01
    without = samples(scrape(replace(STATUS, step=Step(outcome=StepEnd.WAITING))))
    assert not any("cloud_quota" in name for name in without)
