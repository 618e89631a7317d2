"""Inspection of the definitions in force: findings and a graph, cached for each policy.

The first request starts a thread and waits a moment for it; if that was too short, the page asks the user to
refresh. Large definitions are refused, so that an inspection never slows the main loop for long.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from sgagent.agent.control.hits import Hit
from sgagent.agent.names.name_table import NameState
from sgagent.agent.published_status import PublishedStatus
from sgagent.analysis.graph.edges import make_graph
from sgagent.analysis.graph.elements import Graph
from sgagent.analysis.graph.svg import as_svg
from sgagent.analysis.lint.findings import Finding
from sgagent.analysis.lint.registry import lint
from sgagent.analysis.lint.subject import LiveHost, make_subject
from sgagent.core.addresses import AddressSet
from sgagent.core.binding import HostFacts, HostListener, bind
from sgagent.core.counter_keys import InnerCounter, RuleCounter
from sgagent.core.errors import SgagentError
from sgagent.core.model import CidrBlock, SecurityGroup, SecurityGroupRule, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions
from sgagent.documents import DocumentFile, parse_documents
from sgagent.host.links import has_links_behind, read_forwarding
from sgagent.ports import Clock
from sgagent.settings import Settings

MOST_RULES = 3_000
"""Counted as often as groups are combined; lint takes a second for 1,000."""

MOST_BYTES = 2 * 1024 * 1024
"""Of all documents, which are parsed again: about 1 MB a second."""

MOST_EDGES = 250
"""Of a drawing; more take seconds to lay out, and nobody can read them."""

FRESH_SECONDS = 600.0
"""The age at which the cache is dropped, as listeners and use may have changed."""

PATIENCE_SECONDS = 2.0
"""For which a request waits."""


_NO_GRAPH = Graph(nodes=(), edges=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The result of an inspection, or why there is none."""

    reason: str = ""
    """Why there is no result, as a sentence; empty where there is one."""

    findings: tuple[Finding, ...] = ()
    groups: Mapping[str, SecurityGroup] = field(default_factory=dict)
    """All defined groups by id."""

    rules: Mapping[tuple[str | None, str | None], SecurityGroupRule] = field(default_factory=dict)
    """All defined rules by the ids of group and rule."""

    graph: Graph = _NO_GRAPH
    """Who may talk to whom."""

    drawing: bytes | None = None
    """The graph as an SVG; None if it has too many edges."""

    at: float = 0.0
    """Seconds since the epoch."""

    def rule_of(self, hit: Hit) -> SecurityGroupRule | None:
        """Return the definition of a rule that counts; None where it is not known."""
        return self.rules.get((hit.security_group_id, hit.rule_id))


_USE_COMMANDS = "use sgagent lint and sgagent graph"
_LATER = Inspected(reason="The definitions are still being inspected: refresh in a moment.")


_Subject = tuple[str, ResolvedPolicy]
"""The key of the cache: the version and the policy in force."""


class Inspection:
    """Inspect the definitions in force, and cache the result. Several threads may ask."""

    def __init__(
        self,
        published: PublishedStatus,
        settings: Settings,
        clock: Clock,
        list_listeners: Callable[[], tuple[HostListener, ...]],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Inspect nothing yet.

        Args:
            published: holds what is in force.
            settings: the configuration.
            clock: measures the age of the result.
            list_listeners: lists the ports that programs of this host listen on; may raise OSError.
            patience_seconds: for which a request waits.
        """
        self._published = published
        self._settings = settings
        self._clock = clock
        self._list_listeners = list_listeners
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._idle = threading.Event()
        """Set while no inspection runs."""

        self._idle.set()
        self._started_at = 0.0
        self._cached: tuple[_Subject | None, Inspected] = (None, _LATER)

    def result(self) -> Inspected:
        """Return the result, or why there is none.

        An expired result is returned until the next is there.
        """
        version, files = self._published.definitions
        if version is None:
            return Inspected(reason="No definitions are in force.")
        subject = (version, self._published.policy)
        is_cached = self._cached[0] == subject
        if not is_cached or self._clock.monotonic() - self._started_at > FRESH_SECONDS:
            self._start(subject, files)
        if not is_cached:
            self._idle.wait(self._patience_seconds)
        cached, result = self._cached
        return result if cached == subject else _LATER

    def _start(self, subject: _Subject, files: tuple[DocumentFile, ...]) -> None:
        """Start an inspection, unless one runs."""
        with self._lock:
            if self._idle.is_set():
                self._idle.clear()
                self._started_at = self._clock.monotonic()
                thread = threading.Thread(target=self._run, args=[subject, files], name="page", daemon=True)
                thread.start()

    def _run(self, subject: _Subject, files: tuple[DocumentFile, ...]) -> None:
        result = Inspected(reason="The inspection of the definitions failed: see the agent’s log.")
        try:
            result = self._inspect(subject[1], files)
        except SgagentError as error:
            _LOG.error("inspection_failed", reason=str(error))
        finally:
            self._cached = (subject, result)
            self._idle.set()

    def _inspect(self, policy: ResolvedPolicy, files: tuple[DocumentFile, ...]) -> Inspected:
        size = sum(len(file.content) for file in files)
        if size > MOST_BYTES:
            return Inspected(
                reason=f"The definitions are too large to inspect here ({size} bytes): {_USE_COMMANDS}."
            )
        snapshot, _ = parse_documents(files, self._settings.limits)
        rules = _count_rules(snapshot)
        if rules > MOST_RULES:
            return Inspected(reason=f"There are too many rules to inspect here ({rules}): {_USE_COMMANDS}.")
        by_hand = bind(snapshot, self._settings.interfaces, HostFacts(), automatically=False)
        at = datetime.fromtimestamp(self._clock.now(), UTC)
        names = {
            one.name: AddressSet.of(map(CidrBlock.parse, one.addresses))
            for one in self._published.status.names
            if one.state is not NameState.UNRESOLVED
        }
        subject = make_subject(
            snapshot,
            Exemptions(platform=self._settings.platform, failsafe=self._settings.failsafe),
            by_hand=by_hand.all,
            most_rules=self._settings.lint.most_rules,
            offices=self._settings.lint.offices,
            host=self._live_host(policy),
            at=at,
            names=names,
        )
        findings = lint(subject, frozenset(self._settings.lint.disable))
        graph = make_graph(make_subject(snapshot, Exemptions(), at=at, names=names))
        groups = snapshot.security_groups
        return Inspected(
            findings=findings,
            groups={group.security_group_id: group for group in groups},
            rules={(group.security_group_id, rule.rule_id): rule for group in groups for rule in group.rules},
            graph=graph,
            drawing=draw_graph(graph),
            at=self._clock.now(),
        )

    def _live_host(self, policy: ResolvedPolicy) -> LiveHost:
        present = {interface.name for interface in self._published.status.interfaces}
        unused = self._settings.lint.unused
        times = {} if unused is None else self._published.times
        listeners = None
        with contextlib.suppress(OSError):
            listeners = self._list_listeners()
        return LiveHost(
            bound=policy.judges_of(present),
            usage={key: usage for key, usage in times.items() if isinstance(key, RuleCounter)},
            inner_usage={
                key.interface: usage for key, usage in times.items() if isinstance(key, InnerCounter)
            },
            now=self._clock.now(),
            listeners=listeners,
            forwarded=read_forwarding() if has_links_behind(self._published.status.step.facts) else (),
            unused_seconds=unused,
        )


def draw_graph(graph: Graph, group: str = "") -> bytes | None:
    """Return the drawing, or None where it has too many edges.

    Args:
        graph: who may talk to whom.
        group: stands out with its edges; of a graph that is too large, these alone are drawn. Empty is none.
    """
    edges = tuple(edge for edge in graph.edges if group in {edge.source.name, edge.target.name})
    if group:
        ends = frozenset((edge.source, edge.target) for edge in edges)
        own = {end for pair in ends for end in pair if end.name == group}
        graph = replace(graph, highlighted=ends | {(end, end) for end in own})
    if group and len(graph.edges) > MOST_EDGES:
        near = {end for edge in edges for end in (edge.source, edge.target)}
        nodes = tuple(node for node in graph.nodes if node.node_id in near)
        graph = replace(graph, nodes=nodes, edges=edges)
    return as_svg(graph).encode() if len(graph.edges) <= MOST_EDGES else None


def _count_rules(snapshot: Snapshot) -> int:
    """Return the number of rules over all combinations of groups on interfaces, and of other groups."""
    rules = {group.security_group_id: len(group.rules) for group in snapshot.security_groups}
    together = {frozenset(interface.security_group_ids) for interface in snapshot.network_interfaces}
    attached = frozenset[str]().union(*together)
    alone = sum(number for group, number in rules.items() if group not in attached)
    return alone + sum(rules.get(group, 0) for groups in together for group in groups)


_LOG = structlog.get_logger(__name__)
