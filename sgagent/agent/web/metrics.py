"""The metrics of ``docs/metrics.md``, from the status and the counters, as families of the Prometheus client.

A value that is not known has no sample, rather than zero.
"""

from __future__ import annotations

import enum
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate, product
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sgagent import __version__
from sgagent.agent.flowlog.flowlog import Loss
from sgagent.agent.names.name_table import NameState
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.state.counter_file import Totals
from sgagent.agent.status import BOUNDS, Durations, Status
from sgagent.analysis.doctor.findings import DoctorCode, DoctorSeverity
from sgagent.core.cloud_quotas import CloudLimit, cloud_ratios
from sgagent.core.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    OverLimitCounter,
    RuleCounter,
    SpoofedCounter,
)
from sgagent.core.memo import Memo
from sgagent.core.model import Policy
from sgagent.ports import Clock, CounterValue
from sgagent.verify import Outcome

_COUNTED: Mapping[str, tuple[type[CounterKey], str]] = {
    "sgagent_rule_packets": (RuleCounter, "packets"),
    "sgagent_rule_bytes": (RuleCounter, "bytes"),
    "sgagent_default_packets": (DefaultCounter, "packets"),
    "sgagent_inner_packets": (InnerCounter, "packets"),
    "sgagent_invalid_packets": (InvalidCounter, "packets"),
    "sgagent_spoofed_packets": (SpoofedCounter, "packets"),
    "sgagent_over_limit_packets": (OverLimitCounter, "packets"),
    "sgagent_would_drop_packets": (ObservedDropCounter, "packets"),
    "sgagent_exempt_packets": (ExemptionCounter, "packets"),
}
"""The metrics of the kernel's counters: the kind of key, whose fields are the labels, and what is counted."""

HELP = {
    "sgagent_build": "The version of sgagent and of the Python that runs it.",
    "sgagent_rule_packets": "Sessions that the rule decided, by the packet that was judged.",
    "sgagent_rule_bytes": "Bytes of the packets by which the rule decided sessions.",
    "sgagent_default_packets": "Sessions that no rule decided, by the packet that was judged.",
    "sgagent_inner_packets": "Sessions accepted as they come from a fellow member of a group, by the packet"
    " that was judged.",
    "sgagent_invalid_packets": "Packets that connection tracking calls invalid.",
    "sgagent_spoofed_packets": "Packets whose source the source check found on the wrong side of the"
    " interface.",
    "sgagent_over_limit_packets": "Packets whose source had opened as many sessions as the rule lets it.",
    "sgagent_would_drop_packets": "Packets that were let through because the interface is only observed.",
    "sgagent_exempt_packets": "Packets that an exemption list accepted before any group, by the list.",
    "sgagent_apply": "Comparisons of the kernel with the policy, by outcome.",
    "sgagent_apply_duration_seconds": "Time to bring a change to the kernel.",
    "sgagent_compile_duration_seconds": "Time to compile the policy.",
    "sgagent_drift_repaired": "Times that someone else changed the table and the agent repaired it.",
    "sgagent_verified": "1 for the outcome of the proof of the table in force; all 0 until that is proved.",
    "sgagent_verified_generation": "The generation of the policy in the proof of the table in force.",
    "sgagent_verify_duration_seconds": "Time to prove the table.",
    "sgagent_drift_contested": "1 while someone else changes the table so often that the agent waits before"
    " each repair.",
    "sgagent_counters_reset": "Readings that showed that another process had reset the kernel's counters.",
    "sgagent_flow_tables": "Flow tables of other tables: they forward packets past our hooks.",
    "sgagent_conntrack_entries_ended": "Revoked sessions that were ended in conntrack.",
    "sgagent_sessions_cut": "Open sessions that changes of the policy cut, of those that the agent checked"
    " before.",
    "sgagent_snapshot": "The snapshot that is enforced.",
    "sgagent_snapshot_age_seconds": "Time since the agent enforced this version first.",
    "sgagent_snapshot_refused": "Whether the newest definitions have errors, so that older ones stay active.",
    "sgagent_guardrail_refused": "Versions of the definitions that were refused as they break the guardrail.",
    "sgagent_last_success_timestamp_seconds": "When the source last delivered and the kernel held what it"
    " delivered, since the epoch.",
    "sgagent_unknown_objects": "Groups and lists that rules of this host name and the definitions lack.",
    "sgagent_cloud_quota_ratio": "The greatest share of a limit of the cloud that anything uses.",
    "sgagent_warnings": "Warnings about the newest definitions.",
    "sgagent_rules_expiring": "Rules of this host that expire within a day.",
    "sgagent_source_held_back": "Whether a manual override keeps the source's definitions from being"
    " enforced.",
    "sgagent_confirmation_pending": "Whether the agent will revert the snapshot or the mode unless someone"
    " confirms it.",
    "sgagent_change_held": "Whether the source's snapshot waits, as it would cut a login.",
    "sgagent_source_up": "Whether the source could be reached at the last try.",
    "sgagent_source_errors": "Fetches that delivered no definitions that can be enforced.",
    "sgagent_dns_names": "Names of rules of this host, by what is known of them.",
    "sgagent_dns_failures": "Look-ups of names that failed, or failed for one family.",
    "sgagent_interface": "The state of an interface.",
    "sgagent_doctor_findings": "What on this host can bypass, break or be broken by the policy, as"
    " sgagent doctor finds it.",
    "sgagent_mode": "Whether verdicts on the interface are carried out or only counted; 1 for the mode that"
    " it is in.",
    "sgagent_bound_links": "Links of this host that are bound.",
    "sgagent_unbound_expected": "Links that the definitions or the configuration bind here, and no link is.",
    "sgagent_flow_log_flows": "Flows that the kernel reported to the agent, by verdict.",
    "sgagent_flow_log_lost": "Flows that the flow log lacks, by where they were lost.",
    "sgagent_log_lines_dropped": "Lines of the agent's log that were dropped, as no reader took them or"
    " writing failed.",
}

_DAY_SECONDS = 86_400.0


def make_registry(published: PublishedStatus, clock: Clock) -> CollectorRegistry:
    """Return a registry of all metrics.

    Args:
        published: the published status; threads of the server read it.
        clock: measures the age of the snapshot.
    """
    registry = CollectorRegistry()
    registry.register(_AgentCollector(published, clock))
    return registry


class _AgentCollector(Collector):
    """Make the metric families at each scrape."""

    def __init__(self, published: PublishedStatus, clock: Clock) -> None:
        self._published = published
        self._clock = clock
        self._memo = Memo()

    def collect(self) -> Iterator[Metric]:
        """Return the families with samples."""
        published = self._published
        totals, status = published.totals(), published.status
        build = {"version": __version__, "python": platform.python_version()}
        families = (
            InfoMetricFamily("sgagent_build", HELP["sgagent_build"], value=build),
            *counter_families(totals),
            *_applies(status, is_verifying=published.is_verifying),
            *_definitions(status, self._clock.now()),
            _quotas(status, self._memo),
            *_interfaces(status),
            *_doctor(status),
            *_logs(published),
            *_sessions(published),
        )
        return (family for family in families if family.samples)


def counter_families(totals: Totals) -> Iterator[Metric]:
    """Yield the families of the kernel's counters."""
    counted: dict[type[CounterKey], list[tuple[tuple[str, ...], CounterValue]]] = {}
    for key, total in totals.items():
        counted.setdefault(type(key), []).append((_labels(key), total))
    for name, (kind, unit) in _COUNTED.items():
        family = CounterMetricFamily(name, HELP[name], labels=_label_names(kind))
        sums = Counter[tuple[str, ...]]()  # of a rule that had another direction before
        for labels, total in counted.get(kind, ()):
            sums[labels] += getattr(total, unit)
        for labels, value in sums.items():
            family.add_metric(labels, value)
        yield family


def _label_names(kind: type[CounterKey]) -> tuple[str, ...]:
    names: tuple[str, ...] = kind.__slots__
    return tuple(name for name in names if name != "direction") if kind is OverLimitCounter else names


def _labels(key: CounterKey) -> tuple[str, ...]:
    values = (getattr(key, name) for name in _label_names(type(key)))
    return tuple(value.value if isinstance(value, enum.Enum) else value for value in values)


def _applies(status: Status, *, is_verifying: bool) -> Iterator[Metric]:
    """Yield the families of applied tables, proofs and repairs."""
    yield _by_word(CounterMetricFamily, "sgagent_apply", "outcome", status.outcomes)
    yield _durations("sgagent_apply_duration_seconds", status.apply_durations)
    yield _durations("sgagent_compile_duration_seconds", status.compile_durations)
    yield _counter("sgagent_drift_repaired", status.drift_repaired)
    if is_verifying:
        proof = status.verified
        outcomes = {outcome: proof is not None and outcome is proof.outcome for outcome in Outcome}
        yield _by_word(GaugeMetricFamily, "sgagent_verified", "outcome", outcomes)
        yield _gauge("sgagent_verified_generation", proof.generation if proof else None)
        yield _durations("sgagent_verify_duration_seconds", status.verify_durations)
    yield _gauge("sgagent_drift_contested", status.is_drift_contested)
    yield _counter("sgagent_counters_reset", status.resets.count)
    yield _by_word(CounterMetricFamily, "sgagent_sessions_cut", "kind", status.sessions_cut)


def _quotas(status: Status, memo: Memo) -> Metric:
    """Return the family of the cloud's limits, worked out once for each snapshot, as it takes a while."""
    snapshot = status.step.snapshot
    ratios: Mapping[CloudLimit, float] = {}
    if snapshot is not None:
        ratios = memo.get("cloud ratios", (snapshot,), lambda: cloud_ratios(snapshot))
    return _by_word(GaugeMetricFamily, "sgagent_cloud_quota_ratio", "limit", ratios)


def _definitions(status: Status, now: float) -> Iterator[Metric]:
    """Yield the families of the source, of its deliveries, and of the names that the DNS resolves."""
    snapshot = InfoMetricFamily("sgagent_snapshot", HELP["sgagent_snapshot"])
    if status.snapshot_version is not None:
        snapshot.add_metric([], {"version": status.snapshot_version})
    yield snapshot
    since, is_asked = status.snapshot_since, status.is_source_up is not None
    yield _gauge("sgagent_snapshot_age_seconds", None if since is None else max(0.0, now - since))
    yield _gauge("sgagent_snapshot_refused", status.step.is_refused if is_asked else None)
    refused = "sgagent_guardrail_refused"
    refusals = CounterMetricFamily(refused, HELP[refused], labels=["id"])
    for rail in status.step.guardrails.known.guardrails or ():
        number = status.guardrail_refusals.get(rail.guardrail_id, 0)
        refusals.add_metric([rail.guardrail_id], number)
    yield refusals
    yield _gauge("sgagent_last_success_timestamp_seconds", status.last_success_at)
    yield _gauge("sgagent_unknown_objects", status.unknown_objects)
    yield _gauge("sgagent_warnings", status.warnings)
    expiring = sum(rule.expires_at - now <= _DAY_SECONDS for rule in status.expiring)
    yield _gauge("sgagent_rules_expiring", None if status.step.policy is None else expiring)
    override = status.manual_override
    yield _gauge("sgagent_source_held_back", override.held is not None if is_asked else None)
    is_pending = override.pending is not None or override.pending_mode is not None
    yield _gauge("sgagent_confirmation_pending", is_pending if is_asked else None)
    yield _gauge("sgagent_change_held", status.step.held_change is not None if is_asked else None)
    yield _gauge("sgagent_source_up", status.is_source_up)
    yield _counter("sgagent_source_errors", status.source_errors)
    if status.step.policy is not None:
        counts = Counter(one.state for one in status.names)
        states = {state: counts[state] for state in NameState}
        yield _by_word(GaugeMetricFamily, "sgagent_dns_names", "state", states)
        yield _counter("sgagent_dns_failures", status.dns_failures)


def _doctor(status: Status) -> Iterator[Metric]:
    """Yield the family of findings of the doctor."""
    name = "sgagent_doctor_findings"
    family = GaugeMetricFamily(name, HELP[name], labels=["code", "severity"])
    if status.diagnosis is not None:
        counts = Counter((one.code, one.severity) for one in status.diagnosis.findings)
        for code, severity in product(DoctorCode, DoctorSeverity):
            family.add_metric([code.value, severity.value], counts[code, severity])
    yield family


def _interfaces(status: Status) -> Iterator[Metric]:
    """Yield the families of this host's links."""
    states = InfoMetricFamily("sgagent_interface", HELP["sgagent_interface"], labels=["interface"])
    modes = GaugeMetricFamily("sgagent_mode", HELP["sgagent_mode"], labels=["interface", "mode"])
    for interface in status.interfaces:
        of_cloud = {"network_interface_id": interface.network_interface_id or ""}
        states.add_metric([interface.name], {**of_cloud, "state": interface.state.value})
        if interface.mode is not None:
            modes.add_metric([interface.name, interface.mode.value], 1)
    yield states
    yield modes
    bound = status.bound_links
    yield _gauge("sgagent_bound_links", bound)
    yield _gauge("sgagent_unbound_expected", None if bound is None else len(status.step.missing_links))


def _sessions(published: PublishedStatus) -> Iterator[Metric]:
    """Yield the families of changes to sessions in conntrack."""
    if published.sweep is not None:
        yield _gauge("sgagent_flow_tables", len(published.swept.flow_tables))
        yield _counter("sgagent_conntrack_entries_ended", published.swept.ended)


def _logs(published: PublishedStatus) -> Iterator[Metric]:
    """Yield the families of the flow log and of the agent's own log."""
    if published.flow_log:
        logged, lost = published.flow_log.tally()
        flows = {verdict: logged[verdict] for verdict in Policy}
        yield _by_word(CounterMetricFamily, "sgagent_flow_log_flows", "verdict", flows)
        missing = {loss: lost[loss] for loss in Loss}
        yield _by_word(CounterMetricFamily, "sgagent_flow_log_lost", "reason", missing)
    if published.log_queue:
        yield _counter("sgagent_log_lines_dropped", published.log_queue.dropped_lines)


def _by_word(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, label: str, values: Mapping[Any, float]
) -> Metric:
    """Return a family with a sample for each member of an enumeration."""
    family = kind(name, HELP[name], labels=[label])
    for word, value in values.items():
        family.add_metric([word.value], value)
    return family


def _counter(name: str, value: float) -> Metric:
    return CounterMetricFamily(name, HELP[name], value=value)


def _gauge(name: str, value: float | None) -> Metric:
    """Return a gauge; without a sample if the value is not known."""
    return GaugeMetricFamily(name, HELP[name], value=value)


def _durations(name: str, durations: Durations) -> Metric:
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
    return HistogramMetricFamily(name, HELP[name], buckets=buckets, sum_value=durations.sum_seconds)
