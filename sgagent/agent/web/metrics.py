"""Turn status and totals into the metrics that ``docs/metrics.md`` describes.

Nothing is counted here: each scrape reads two values, and what they don't know is left out rather than zero.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeVar

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
from sgagent.agent.flowlog.flowlog import FlowTally, Loss
from sgagent.agent.status import BOUNDS, Durations, Status
from sgagent.agent.web.exposition import RuleHits, RuleLabels
from sgagent.core.model import Policy
from sgagent.nft.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
)
from sgagent.ports import Clock, CounterValue

Totals = Mapping[CounterKey, CounterValue]


def make_registry(
    read_status: Callable[[], Status],
    read_totals: Callable[[], Totals],
    clock: Clock,
    read_tally: Callable[[], FlowTally] | None = None,
    read_dropped_lines: Callable[[], int] | None = None,
) -> CollectorRegistry:
    """Return a registry of all metrics.

    Args:
        read_status: returns the newest status; called from the threads of the metrics server.
        read_totals: returns totals as fresh as can be had in a short time; called likewise.
        clock: tells how old a snapshot is.
        read_tally: returns how many flows were told of, if any are; called likewise.
        read_dropped_lines: returns how many lines of the log were dropped; called likewise.
    """
    registry = CollectorRegistry()
    registry.register(_AgentCollector(read_status, read_totals, clock, read_tally, read_dropped_lines))
    return registry


class _AgentCollector(Collector):
    """Make metric families at each scrape."""

    def __init__(
        self,
        read_status: Callable[[], Status],
        read_totals: Callable[[], Totals],
        clock: Clock,
        read_tally: Callable[[], FlowTally] | None,
        read_dropped_lines: Callable[[], int] | None,
    ) -> None:
        self._read_tally = read_tally
        self._read_dropped_lines = read_dropped_lines
        self._read_status = read_status
        self._read_totals = read_totals
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Return the families that have samples."""
        totals, status = self._read_totals(), self._read_status()
        families = (
            _build(),
            *_hits(totals),
            *_applies(status),
            *_snapshot(status, self._clock.now()),
            *_source(status),
            *_interfaces(status),
            *(_flows(self._read_tally()) if self._read_tally else ()),
            *(_log(self._read_dropped_lines()) if self._read_dropped_lines else ()),
        )
        return (family for family in families if isinstance(family, RuleHits) or family.samples)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is to be had is known at a scrape only."""
        return ()


def _build() -> Metric:
    build = InfoMetricFamily("sgagent_build", "The version of sgagent and of the Python that runs it.")
    build.add_metric([], {"version": __version__, "python": platform.python_version()})
    return build


def _hits(totals: Totals) -> Iterator[Metric]:
    """Return the families of what was counted in the kernel."""
    yield from _rule_hits(_of_kind(totals, RuleCounter))
    defaults = CounterMetricFamily(
        "sgagent_default_packets",
        "Sessions that no rule decided, by the packet that was judged.",
        labels=["interface", "direction", "verdict"],
    )
    for key, total in _of_kind(totals, DefaultCounter):
        defaults.add_metric([key.interface, key.direction.value, key.verdict.value], total.packets)
    yield defaults
    inner = CounterMetricFamily(
        "sgagent_inner_packets",
        "Sessions accepted as they come from a fellow member of a group, by the packet that was judged.",
        labels=["interface"],
    )
    for inner_key, total in _of_kind(totals, InnerCounter):
        inner.add_metric([inner_key.interface], total.packets)
    yield inner
    invalid = CounterMetricFamily(
        "sgagent_invalid_packets",
        "Packets that connection tracking calls invalid.",
        labels=["interface", "direction"],
    )
    for invalid_key, total in _of_kind(totals, InvalidCounter):
        invalid.add_metric([invalid_key.interface, invalid_key.direction.value], total.packets)
    yield invalid
    drops = CounterMetricFamily(
        "sgagent_would_drop_packets",
        "Packets that were let through because the interface is only observed.",
        labels=["interface", "direction"],
    )
    for drop_key, total in _of_kind(totals, ObservedDropCounter):
        drops.add_metric([drop_key.interface, drop_key.direction.value], total.packets)
    yield drops
    exempt = CounterMetricFamily(
        "sgagent_exempt_packets",
        "Packets that no group was asked about, by the list that lets them pass.",
        labels=["interface", "direction", "kind"],
    )
    for exempt_key, total in _of_kind(totals, ExemptionCounter):
        labels = [exempt_key.interface, exempt_key.direction.value, exempt_key.kind.value]
        exempt.add_metric(labels, total.packets)
    yield exempt


def _rule_hits(hits: Iterable[tuple[RuleCounter, CounterValue]]) -> Iterator[Metric]:
    totals = dict(hits)
    if not totals:
        return
    rules = RuleLabels.of(tuple(totals))
    packets = [total.packets for total in totals.values()]
    octets = [total.bytes for total in totals.values()]
    yield RuleHits(
        "sgagent_rule_packets",
        "Sessions that the rule decided, by the packet that was judged.",
        rules,
        packets,
    )
    yield RuleHits(
        "sgagent_rule_bytes", "Bytes of the packets by which the rule decided sessions.", rules, octets
    )


_Key = TypeVar("_Key")


def _of_kind(totals: Totals, kind: type[_Key]) -> Iterator[tuple[_Key, CounterValue]]:
    return ((key, total) for key, total in totals.items() if isinstance(key, kind))


def _applies(status: Status) -> Iterator[Metric]:
    """Return the families of what the agent did to the kernel."""
    outcomes = CounterMetricFamily(
        "sgagent_apply",
        "Comparisons of the kernel with the policy, by what came of them.",
        labels=["outcome"],
    )
    for outcome, count in status.outcomes.items():
        outcomes.add_metric([outcome.value], count)
    yield outcomes
    yield _durations(
        "sgagent_apply_duration_seconds", "Time to bring a change to the kernel.", status.apply_durations
    )
    yield _durations(
        "sgagent_compile_duration_seconds", "Time to compile the policy.", status.compile_durations
    )
    yield CounterMetricFamily(
        "sgagent_drift_repaired",
        "Times that the table was found changed by someone else, and mended.",
        value=status.drift_repaired,
    )
    yield GaugeMetricFamily(
        "sgagent_drift_contested",
        "1 while someone else changes the table so often that mending waits between one time and the next.",
        value=status.is_drift_contested,
    )
    cuts = CounterMetricFamily(
        "sgagent_sessions_cut",
        "Open sessions that changes of the policy cut, of those that were looked at before.",
        labels=["kind"],
    )
    for kind, count in status.sessions_cut.items():
        cuts.add_metric([kind.value], count)
    yield cuts


def _durations(name: str, documentation: str, durations: Durations) -> Metric:
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=durations.sum_seconds)


def _snapshot(status: Status, now: float) -> Iterator[Metric]:
    """Return the families of what is enforced."""
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
        "Whether the newest definitions have errors, so that older ones stay in force.",
        None if status.is_source_up is None else float(status.is_refused),
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
        "sgagent_source_held_back",
        "Whether what the source says is not enforced, as something else is by hand.",
        None if status.is_source_up is None else float(status.standing.held is not None),
    )
    yield _gauge(
        "sgagent_confirmation_pending",
        "Whether what is enforced will be given up unless somebody confirms it.",
        None if status.is_source_up is None else float(status.standing.pending is not None),
    )


def _source(status: Status) -> Iterator[Metric]:
    """Return the families of where definitions come from."""
    yield _gauge(
        "sgagent_source_up",
        "Whether the source could be reached at the last try.",
        None if status.is_source_up is None else float(status.is_source_up),
    )
    yield CounterMetricFamily(
        "sgagent_source_errors",
        "Fetches that delivered nothing that can be enforced.",
        value=status.source_errors,
    )


def _interfaces(status: Status) -> Iterator[Metric]:
    """Return the families of the host's links."""
    interfaces = InfoMetricFamily(
        "sgagent_interface", "What becomes of an interface's traffic.", labels=["interface"]
    )
    modes = GaugeMetricFamily(
        "sgagent_mode",
        "Whether verdicts on the interface are carried out or only counted; 1 for the mode that it is in.",
        labels=["interface", "mode"],
    )
    for interface in status.interfaces:
        interfaces.add_metric(
            [interface.name],
            {
                "network_interface_id": interface.network_interface_id or "",
                "state": interface.state.value,
            },
        )
        if interface.mode is not None:
            modes.add_metric([interface.name, interface.mode.value], 1)
    yield interfaces
    yield modes


def _flows(tally: FlowTally) -> Iterator[Metric]:
    """Return the families of the flow log."""
    told = CounterMetricFamily(
        "sgagent_flow_log_flows",
        "Flows that the kernel told the agent of, by the verdict on them.",
        labels=["verdict"],
    )
    for verdict in Policy:
        told.add_metric([verdict.value], tally.told.get(verdict, 0))
    yield told
    lost = CounterMetricFamily(
        "sgagent_flow_log_lost",
        "Flows that were judged and are not in the flow log, by where they were lost.",
        labels=["reason"],
    )
    for loss in Loss:
        lost.add_metric([loss.value], tally.lost.get(loss, 0))
    yield lost


def _log(dropped_lines: int) -> Iterator[Metric]:
    """Return the family of the agent's own log."""
    yield CounterMetricFamily(
        "sgagent_log_lines_dropped",
        "Lines of the agent's log that were dropped, as nobody read the log or it could not be written.",
        value=dropped_lines,
    )


def _gauge(name: str, documentation: str, value: float | None) -> Metric:
    """Return a gauge, without a sample if the value is not known."""
    gauge = GaugeMetricFamily(name, documentation)
    if value is not None:
        gauge.add_metric([], value)
    return gauge
