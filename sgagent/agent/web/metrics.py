"""The metrics of ``docs/metrics.md``, from the status and the counters, in Prometheus' text formats.

A value that is not known has no sample, rather than zero.
"""

from __future__ import annotations

import enum
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sgagent import __version__
from sgagent.agent.flowlog.flowlog import FlowTally, Loss
from sgagent.agent.names.name_table import NameState
from sgagent.agent.published_status import Board
from sgagent.agent.status import BOUNDS, Durations, Status
from sgagent.core.model import Policy
from sgagent.nft.names import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
    SpoofedCounter,
)
from sgagent.ports import Clock, CounterValue
from sgagent.verify import Outcome

_Values = Mapping[Any, float]


def page_type(accepted: str) -> str:
    """Return the content type of :func:`write_page` for a header ``Accept``."""
    return choose_encoder(accepted)[1]


def write_page(registry: CollectorRegistry, accepted: str) -> tuple[bytes, str]:
    """Return all metrics in the format that the client prefers, and their content type.

    Args:
        registry: of the metrics.
        accepted: the client's header ``Accept``; may be empty.
    """
    encode, content_type = choose_encoder(accepted)
    return encode(registry), content_type


CounterTotals = Mapping[CounterKey, CounterValue]


@dataclass(frozen=True, slots=True)
class _CounterFamily:
    """A metric of one kind of kernel counter."""

    kind: type[CounterKey]
    name: str
    documentation: str
    labels: tuple[str, ...]
    """Fields of the counter's key."""

    counts_bytes: bool = False
    """Rather than packets."""


_OF_RULE = ("direction", "interface", "policy", "rule_id", "security_group_id")

_COUNTER_FAMILIES = (
    _CounterFamily(
        RuleCounter,
        "sgagent_rule_packets",
        "Sessions that the rule decided, by the packet that was judged.",
        _OF_RULE,
    ),
    _CounterFamily(
        RuleCounter,
        "sgagent_rule_bytes",
        "Bytes of the packets by which the rule decided sessions.",
        _OF_RULE,
        counts_bytes=True,
    ),
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
        SpoofedCounter,
        "sgagent_spoofed_packets",
        "Packets whose source the source check found on the wrong side of the interface.",
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
    """Yield the families of the kernel's counters."""
    by_kind: dict[type[CounterKey], list[CounterKey]] = {}
    for key in totals:
        by_kind.setdefault(type(key), []).append(key)
    for each in _COUNTER_FAMILIES:
        family = CounterMetricFamily(each.name, each.documentation, labels=each.labels)
        for key in by_kind.get(each.kind, ()):
            total = totals[key]
            value = total.bytes if each.counts_bytes else total.packets
            family.add_metric([_label(key, name) for name in each.labels], value)
        yield family


def _label(key: CounterKey, name: str) -> str:
    value = getattr(key, name)
    return str(value.value if isinstance(value, enum.Enum) else value)


def make_registry(board: Board, clock: Clock) -> CollectorRegistry:
    """Return a registry of all metrics.

    Args:
        board: the published status; threads of the server read it.
        clock: measures the age of the snapshot.
    """
    registry = CollectorRegistry()
    registry.register(_AgentCollector(board, clock))
    return registry


class _AgentCollector(Collector):
    """Make the metric families at each scrape."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Return the families with samples."""
        board = self._board
        totals, status = board.totals(), board.status
        families = (
            _build(),
            *counter_families(totals),
            *_applies(status),
            *_snapshot(status, self._clock.now()),
            *_source(status),
            *_names(status),
            *_interfaces(status),
            *(_flows(board.flow_log.tally()) if board.flow_log else ()),
            *(_log(board.log_queue.dropped_lines) if board.log_queue else ()),
        )
        return (family for family in families if family.samples)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the families are known at a scrape only."""
        return ()


def _build() -> Metric:
    build = InfoMetricFamily("sgagent_build", "The version of sgagent and of the Python that runs it.")
    build.add_metric([], {"version": __version__, "python": platform.python_version()})
    return build


def _applies(status: Status) -> Iterator[Metric]:
    """Return the families of what the agent applied and repaired."""
    text = "Comparisons of the kernel with the policy, by outcome."
    yield _by_word(CounterMetricFamily, "sgagent_apply", text, "outcome", status.outcomes)
    yield _durations(
        "sgagent_apply_duration_seconds", "Time to bring a change to the kernel.", status.apply_durations
    )
    yield _durations(
        "sgagent_compile_duration_seconds", "Time to compile the policy.", status.compile_durations
    )
    yield CounterMetricFamily(
        "sgagent_drift_repaired",
        "Times that someone else changed the table and the agent repaired it.",
        value=status.drift_repaired,
    )
    yield from _verification(status)
    yield GaugeMetricFamily(
        "sgagent_drift_contested",
        "1 while someone else changes the table so often that the agent waits before each repair.",
        value=status.is_drift_contested,
    )
    text = "Open sessions that changes of the policy cut, of those that the agent checked before."
    yield _by_word(CounterMetricFamily, "sgagent_sessions_cut", text, "kind", status.sessions_cut)


def _verification(status: Status) -> Iterator[Metric]:
    """Return the families of the newest proof; none before the first."""
    verified = status.verified
    if verified is None:
        return
    text = "1 for the outcome of the newest proof of the kernel's table."
    outcomes = {each: each is verified.outcome for each in Outcome}
    yield _by_word(GaugeMetricFamily, "sgagent_verified", text, "outcome", outcomes)
    if verified.generation is not None:
        yield GaugeMetricFamily(
            "sgagent_verified_generation",
            "The generation of the policy that the newest proof was about.",
            value=verified.generation,
        )
    yield _durations("sgagent_verify_duration_seconds", "Time to prove the table.", status.verify_durations)


_DAY_SECONDS = 86_400.0


def _durations(name: str, documentation: str, durations: Durations) -> Metric:
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=durations.sum_seconds)


def _snapshot(status: Status, now: float) -> Iterator[Metric]:
    """Return the families of the enforced snapshot."""
    snapshot = InfoMetricFamily("sgagent_snapshot", "The snapshot that is enforced.")
    if status.snapshot_version is not None:
        snapshot.add_metric([], {"version": status.snapshot_version})
    yield snapshot
    yield _gauge(
        "sgagent_snapshot_age_seconds",
        "Time since the agent enforced this version first.",
        None if status.snapshot_since is None else max(0.0, now - status.snapshot_since),
    )
    yield _gauge(
        "sgagent_snapshot_refused",
        "Whether the newest definitions have errors, so that older ones stay active.",
        None if status.is_source_up is None else float(status.step.is_refused),
    )
    yield _gauge(
        "sgagent_last_success_timestamp_seconds",
        "When the source last delivered and the kernel held what it delivered, since the epoch.",
        status.last_success_at,
    )
    yield _gauge(
        "sgagent_unknown_objects",
        "Groups and lists that rules of this host name and the definitions lack.",
        status.unknown_objects,
    )
    yield _gauge("sgagent_warnings", "Warnings about the newest definitions.", status.warnings)
    yield _gauge(
        "sgagent_rules_expiring",
        "Rules of this host that expire within a day.",
        None
        if status.step.policy is None
        else sum(rule.expires_at - now <= _DAY_SECONDS for rule in status.expiring),
    )
    yield _gauge(
        "sgagent_source_held_back",
        "Whether a manual override keeps the source's definitions from being enforced.",
        None if status.is_source_up is None else float(status.standing.held is not None),
    )
    yield _gauge(
        "sgagent_confirmation_pending",
        "Whether the agent will revert the snapshot unless someone confirms it.",
        None if status.is_source_up is None else float(status.standing.pending is not None),
    )


def _source(status: Status) -> Iterator[Metric]:
    """Return the families of the source of definitions."""
    yield _gauge(
        "sgagent_source_up",
        "Whether the source could be reached at the last try.",
        None if status.is_source_up is None else float(status.is_source_up),
    )
    yield CounterMetricFamily(
        "sgagent_source_errors",
        "Fetches that delivered no definitions that can be enforced.",
        value=status.source_errors,
    )


def _names(status: Status) -> Iterator[Metric]:
    """Return the families of names that the DNS resolves; none before the first step."""
    if status.step.policy is not None:
        counts = Counter(one.state for one in status.names)
        states = {state: counts[state] for state in NameState}
        text = "Names of rules of this host, by what is known of them."
        yield _by_word(GaugeMetricFamily, "sgagent_dns_names", text, "state", states)
        text = "Look-ups of names that failed, or failed for one family."
        yield CounterMetricFamily("sgagent_dns_failures", text, value=status.dns_failures)


def _interfaces(status: Status) -> Iterator[Metric]:
    """Return the families of this host's links."""
    interfaces = InfoMetricFamily("sgagent_interface", "The state of an interface.", labels=["interface"])
    modes = GaugeMetricFamily(
        "sgagent_mode",
        "Whether verdicts on the interface are carried out or only counted; 1 for the mode that it is in.",
        labels=["interface", "mode"],
    )
    for interface in status.interfaces:
        interfaces.add_metric(
            [interface.name],
            {"network_interface_id": interface.network_interface_id or "", "state": interface.state.value},
        )
        if interface.mode is not None:
            modes.add_metric([interface.name, interface.mode.value], 1)
    yield interfaces
    yield modes


def _flows(tally: FlowTally) -> Iterator[Metric]:
    """Return the families of the flow log."""
    text = "Flows that the kernel reported to the agent, by verdict."
    logged = {verdict: tally.logged.get(verdict, 0) for verdict in Policy}
    yield _by_word(CounterMetricFamily, "sgagent_flow_log_flows", text, "verdict", logged)
    text = "Flows that the flow log lacks, by where they were lost."
    lost = {loss: tally.lost.get(loss, 0) for loss in Loss}
    yield _by_word(CounterMetricFamily, "sgagent_flow_log_lost", text, "reason", lost)


def _log(dropped_lines: int) -> Iterator[Metric]:
    """Return the family of the agent's own log."""
    yield CounterMetricFamily(
        "sgagent_log_lines_dropped",
        "Lines of the agent's log that were dropped, as no reader took them or writing failed.",
        value=dropped_lines,
    )


def _by_word(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, label: str, values: _Values
) -> Metric:
    """Return a family with a sample for each member of an enumeration."""
    found = kind(name, text, labels=[label])
    for word, value in values.items():
        found.add_metric([word.value], value)
    return found


def _gauge(name: str, documentation: str, value: float | None) -> Metric:
    """Return a gauge; without a sample if the value is not known."""
    gauge = GaugeMetricFamily(name, documentation)
    if value is not None:
        gauge.add_metric([], value)
    return gauge
