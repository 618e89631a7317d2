"""Answers to requests of the control protocol.

Queries are answered from the published status, and commands are passed to the agent's loop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from sgagent import __version__
from sgagent.agent.clock import timestamp
from sgagent.agent.control import requests
from sgagent.agent.control.explain_requests import ExplainAnswer, ExplainQuery
from sgagent.agent.control.handlers import CommandHandler
from sgagent.agent.control.hits import Hit, HitsAnswer, HitsQuery, InterfaceHits
from sgagent.agent.control.requests import CommandAnswer, ControlAnswer, ControlCommand, Query
from sgagent.agent.flowlog.flow import Flow, FlowsLeftOut
from sgagent.agent.flowlog.flowlog import FlowLog
from sgagent.agent.guardrails import GuardrailReport
from sgagent.agent.inbox import Inbox, NotBegunError, NotDoneError, Wanted, always
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.sessions import LiveSessions
from sgagent.agent.state.counter_file import Times, Totals
from sgagent.agent.state.directory import HistoryFile, StateDirectory
from sgagent.agent.status import (
    MOST_CUTS_SHOWN,
    MOST_ERRORS_SHOWN,
    MOST_EXPIRING_SHOWN,
    MOST_MISSING_SHOWN,
    ProofReport,
)
from sgagent.analysis.doctor.findings import Diagnosis, DiagnosisSummary
from sgagent.core.counter_keys import (
    PLAIN_STEPS,
    CounterKey,
    DefaultCounter,
    HitStep,
    ObservedDropCounter,
    OverLimitCounter,
    RuleCounter,
    counter_of_rule,
    is_of_drops,
    over_limit_of,
    plain_key,
)
from sgagent.core.errors import SgagentError, UsageError
from sgagent.core.explanation import choose_interface, explain
from sgagent.core.guardrails import named
from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.core.rule_values import protocols_text
from sgagent.ports import Clock, CounterValue, DeliveredPart

PATIENCE_SECONDS = 120.0
"""For the source to look, and for the loop to come to a command and to carry it out."""


class Dispatcher:
    """Dispatch commands to the loop, and read the history; called from several threads."""

    def __init__(self, inbox: Inbox, commands: CommandHandler, state: StateDirectory) -> None:
        """Take the parts.

        Args:
            inbox: leads to the loop.
            commands: carries out, in the loop.
            state: where the history is; it is read without the loop.
        """
        self._inbox = inbox
        self._commands = commands
        self._state = state

    def carry_out(self, command: ControlCommand, is_wanted: Wanted = always) -> CommandAnswer:
        """Have a command carried out, and return its answer.

        Args:
            command: what to do.
            is_wanted: returns whether the client is still there, before the loop begins.

        Raises:
            SgagentError: it was not, or is not yet; says which.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        job = self._commands.job(command, PATIENCE_SECONDS)
        try:
            return self._inbox.have_done(job, max(0.0, deadline - time.monotonic()), is_wanted)
        except NotBegunError:
            raise SgagentError("the agent was busy; the request was cancelled and nothing changed") from None
        except NotDoneError:
            raise SgagentError(
                "timed out, but the agent still works on it: 'sgagent status' will show the result"
            ) from None

    def history(self, version: str | None) -> requests.HistoryAnswer:
        """Return the history of enforced definitions; damaged files are named.

        Args:
            version: what is in force now.
        """
        entries = tuple(self._state.history.entries())
        newest = next((entry for entry in entries if entry.head is not None), None)
        in_force = newest if newest and newest.head and newest.head.version == version else None
        known = (_as_entry(entry, is_in_force=entry is in_force) for entry in entries)
        return requests.HistoryAnswer(entries=tuple(known))


def _as_entry(entry: HistoryFile, *, is_in_force: bool) -> requests.HistoryEntry:
    head = entry.head
    if head is None:
        return requests.HistoryEntry(number=entry.number, fault=entry.fault)
    return requests.HistoryEntry(
        number=entry.number,
        version=head.version,
        origin=head.record.origin,
        enforced_at=head.record.enforced_at,
        documents=head.documents,
        bytes=head.bytes,
        extent=head.record.extent,
        is_in_force=is_in_force,
    )


class Answering(Protocol):
    """Answers; called from several threads."""

    def __call__(self, query: Query, is_wanted: Wanted = always, /) -> ControlAnswer:
        """Return the answer to a query or a command.

        Args:
            query: or command.
            is_wanted: returns whether the client is still there. A command whose client has gone before the
                loop comes to it is not carried out.

        Raises:
            SgagentError: it makes no sense, or can't be done.
        """


_NOTHING = CounterValue(packets=0, bytes=0)


def answering(
    published: PublishedStatus,
    clock: Clock,
    source: str,
    sessions: LiveSessions,
    dispatcher: Dispatcher,
    *,
    look: Callable[[], Diagnosis],
) -> Answering:
    """Return a function that answers queries and dispatches commands.

    Args:
        published: the published status of the loop.
        clock: for the age of data.
        source: where definitions come from, in words.
        sessions: the sessions in the kernel's conntrack table.
        dispatcher: dispatches commands to the loop.
        look: has the doctor look at the host.
    """

    def answer(query: Query, is_wanted: Wanted = always, /) -> ControlAnswer:
        match query:
            case requests.StatusQuery():
                return status_answer(published, clock, source)
            case requests.DoctorQuery():
                return look()
            case HitsQuery():
                return hits_answer(published, query)
            case ExplainQuery():
                return explain_answer(published, query, sessions)
            case requests.DeniedQuery():
                return denied_answer(published.flow_log, query, published.policy)
            case requests.DocumentsQuery():
                return documents_answer(published, is_held=query.held)
            case requests.HistoryQuery():
                return dispatcher.history(published.status.snapshot_version)
            case _:
                return dispatcher.carry_out(query, is_wanted)

    return answer


def _named(part: DeliveredPart, source: str, error: str | None) -> DeliveredPart:
    """Return the state of one of several sources; that of the only one has its name and the step's error."""
    return part if part.place else replace(part, place=source, fault=error)


def status_answer(published: PublishedStatus, clock: Clock, source: str) -> requests.StatusAnswer:
    """Return how the agent is doing."""
    status = published.status
    reasons = published.reasons_not_ready()
    step_fault, pending = published.step_fault, status.manual_override.pending
    pending_mode, held_change = status.manual_override.pending_mode, status.step.held_change
    return requests.StatusAnswer(
        agent_version=__version__,
        pid=os.getpid(),
        posture=status.posture,
        posture_since=status.posture_since,
        is_ready=not reasons,
        not_ready_because=reasons,
        snapshot_version=status.snapshot_version,
        snapshot_since=status.snapshot_since,
        source=source,
        is_source_up=status.is_source_up,
        source_reached_at=status.source_reached_at,
        source_error=status.step.source_error,
        sources=tuple(_named(part, source, status.step.source_error) for part in status.step.parts),
        is_refused=status.step.is_refused,
        errors=status.errors,
        first_errors=status.first_errors,
        kernel_error=status.step.kernel_error,
        warnings=status.warnings,
        unknown_objects=status.unknown_objects,
        first_warnings=status.first_warnings,
        drift_repaired=status.drift_repaired,
        is_drift_unhealed=status.is_drift_unhealed,
        last_drift=status.last_drift,
        is_drift_contested=status.is_drift_contested,
        faults=(*((step_fault,) if step_fault else ()), *published.faults),
        interfaces=status.interfaces,
        sessions_cut=len(status.last_cut),
        first_sessions_cut=status.last_cut[:MOST_CUTS_SHOWN],
        sessions_cut_at=status.last_cut_at,
        flow_tables=tuple(map(str, published.swept.flow_tables)),
        held=status.manual_override.held,
        pending=pending.status(clock.monotonic()) if pending else None,
        unbound_expected=len(status.step.missing_links),
        first_unbound_expected=status.step.missing_links[:MOST_MISSING_SHOWN],
        pending_mode=pending_mode.status(clock.monotonic()) if pending_mode else None,
        held_change=held_change.status(clock.monotonic()) if held_change else None,
        mode_overrides=tuple(status.manual_override.overrides.listed()),
        awaits_documents=status.step.awaits_documents,
        expiring=len(status.expiring),
        first_expiring=status.expiring[:MOST_EXPIRING_SHOWN],
        recurring=len(status.recurring),
        first_recurring=tuple(one.status(clock.now()) for one in status.recurring[:MOST_EXPIRING_SHOWN]),
        names=status.names,
        platform=tuple(map(str, published.policy.platform)),
        verified=_proof_status(status.verified) if status.verified else None,
        is_verifying=published.is_verifying,
        counters_reset=status.resets.count,
        counters_reset_at=status.resets.last_at,
        verified_outcome=status.verified.outcome.value if status.verified else None,
        verified_at=status.verified.at if status.verified else None,
        verified_in_words=status.verified.description if status.verified else (),
        guardrails=_guardrails_status(status.step.guardrails),
        doctor=DiagnosisSummary.of(status.diagnosis) if status.diagnosis else None,
    )


def _guardrails_status(report: GuardrailReport) -> requests.GuardrailsStatus | None:
    if not report.known.place:
        return None
    return requests.GuardrailsStatus(
        statements=len(report.known.guardrails or ()),
        refused=report.refused,
        fault=report.known.fault,
        broken=tuple(map(named, report.violations[:MOST_ERRORS_SHOWN])),
    )


def _proof_status(proof: ProofReport) -> requests.ProofStatus:
    return requests.ProofStatus(
        outcome=proof.outcome.value, generation=proof.generation, version=proof.version, at=proof.at
    )


def explain_answer(published: PublishedStatus, query: ExplainQuery, sessions: LiveSessions) -> ExplainAnswer:
    """Explain the verdict on a packet under the policy that is in force.

    Raises:
        UsageError: there is no such packet, or it is not clear on which interface.
    """
    policy = published.policy
    links = (link.name for link in published.status.step.facts.links)
    packet = query.packet(choose_interface(policy, query.interface, links) or "")
    packet = sessions.as_met(packet, policy, published.state)
    return ExplainAnswer(
        snapshot_version=published.status.snapshot_version, explanation=explain(policy, packet)
    )


def documents_answer(published: PublishedStatus, *, is_held: bool = False) -> requests.DocumentsAnswer:
    """Return the definitions that are in force, or that wait, as they were delivered."""
    version, files = published.definitions
    if is_held:
        step = published.status.step
        version, files = step.held_change.version if step.held_change else None, step.held_documents
    return requests.DocumentsAnswer(
        snapshot_version=version,
        documents=tuple(requests.Document(name=file.name, content=file.content.decode()) for file in files),
    )


def hits_answer(published: PublishedStatus, query: HitsQuery) -> HitsAnswer:
    """Return the totals since the host came up, for each present counter.

    Raises:
        UsageError: nothing is judged on the interface that is asked for.
    """
    totals, times, policy = published.totals(), published.times, published.policy
    judges = [judge for judge in policy.judges if query.interface is None or judge.name == query.interface]
    if query.interface is not None and not judges:
        raise _not_bound(query.interface, policy)
    return HitsAnswer(
        snapshot_version=published.status.snapshot_version,
        interfaces=tuple(
            _interface_hits(judge, direction, totals, times) for judge in judges for direction in Direction
        ),
    )


def _interface_hits(
    judge: ResolvedInterface, direction: Direction, totals: Totals, times: Times
) -> InterfaceHits:
    observed = totals.get(ObservedDropCounter(interface=judge.name, direction=direction))
    return InterfaceHits(
        interface=judge.name,
        direction=direction,
        mode=judge.mode,
        hits=tuple(_hits(judge, direction, totals, times)),
        would_drop_packets=None if observed is None else observed.packets,
    )


def _hits(judge: ResolvedInterface, direction: Direction, totals: Totals, times: Times) -> Iterator[Hit]:
    """Yield the hits on an interface in a direction, in the order of §3."""
    toward = judge.toward(direction)

    def hit(key: CounterKey) -> Hit:
        total, seen = totals.get(key, _NOTHING), times.get(key)
        return Hit(
            step=key.step,
            verdict=Policy.DROP if is_of_drops(key) else Policy.ACCEPT,
            packets=total.packets,
            bytes=total.bytes,
            counted_since=seen.counted_since if seen else None,
            last_hit_at=seen.last_hit_at if seen else None,
        )

    for step in PLAIN_STEPS:
        key = plain_key(step, judge.name, direction)
        # Inner access that accepts nothing may have a counter left of an earlier policy.
        if key in totals and (step is not HitStep.INNER or toward.inner):
            yield hit(key)
    for rule in toward.rules:
        counter = counter_of_rule(judge.name, direction, rule)
        yield replace(
            hit(counter),
            rule_id=rule.rule_id,
            security_group_id=rule.security_group_id,
            priority=rule.priority,
            protocol=protocols_text(rule.protocols),
            ports=None if rule.ports.is_all else str(rule.ports),
            authorization_object=rule.peer.name,
            expires_at=timestamp(rule.expires) if rule.expires else None,
        )
        if rule.conditions.limit is not None:
            over = hit(over_limit_of(judge.name, direction, rule))
            yield replace(over, rule_id=rule.rule_id, security_group_id=rule.security_group_id)
    yield hit(DefaultCounter(interface=judge.name, direction=direction, verdict=toward.default))


def counter_of(part: InterfaceHits, hit: Hit) -> CounterKey:
    """Return the key of the total that a hit of an interface and direction shows."""
    interface, direction = part.interface, part.direction
    match hit.step:
        case HitStep.RULE:
            return RuleCounter(
                interface=interface,
                security_group_id=hit.security_group_id or "",
                rule_id=hit.rule_id or "",
                direction=direction,
                policy=hit.verdict,
            )
        case HitStep.OVER_LIMIT:
            return OverLimitCounter(
                interface=interface,
                security_group_id=hit.security_group_id or "",
                rule_id=hit.rule_id or "",
                direction=direction,
            )
        case HitStep.DEFAULT:
            return DefaultCounter(interface=interface, direction=direction, verdict=hit.verdict)
        case _:
            return plain_key(hit.step, interface, direction)


def denied_answer(
    flow_log: FlowLog | None, query: requests.DeniedQuery, policy: ResolvedPolicy
) -> requests.DeniedAnswer:
    """Return who was dropped.

    Args:
        flow_log: the flow log; None if it is switched off.
        query: the filters.
        policy: the policy in force.

    Raises:
        UsageError: the policy has no such interface or rule, and the flow log has no entry of it.
    """
    if flow_log is None:
        return requests.DeniedAnswer(
            begun_at=0.0, newest=0, flows=(), left_out=(), rate_per_second=0, unavailable=_SWITCHED_OFF
        )
    remembered = flow_log.drops
    flows = [flow for flow in remembered if flow.number > query.after and _is_meant(flow, query)]
    is_off = Policy.DROP not in flow_log.logging.verdicts
    left_out = tuple(entry for entry in flow_log.left_out() if _is_meant(entry, query))
    if not flows and not left_out and not query.after:
        _refuse_unknown(query, policy)
    return requests.DeniedAnswer(
        begun_at=flow_log.begun_at,
        newest=remembered[-1].number if remembered else 0,
        flows=tuple(flows),
        left_out=left_out,
        rate_per_second=flow_log.logging.rate_per_second,
        unavailable=flow_log.unavailable or (_SWITCHED_OFF if is_off else None),
    )


_SWITCHED_OFF = "flow_log.dropped is false in the configuration"


def _refuse_unknown(query: requests.DeniedQuery, policy: ResolvedPolicy) -> None:
    """Refuse names that nothing has: "no drop" would be true of them, and mislead.

    Raises:
        UsageError: names what there is.
    """
    judges = policy.judges
    if not judges:
        return  # the agent has yet to enforce something, and may come to know the name
    if query.interface is not None and all(judge.name != query.interface for judge in judges):
        raise _not_bound(query.interface, policy)
    rules = (rule for judge in judges for toward in (judge.ingress, judge.egress) for rule in toward.rules)
    if query.rule_id is not None and all(rule.rule_id != query.rule_id for rule in rules):
        raise UsageError(
            f"no rule {query.rule_id} is active on this host ('sgagent hits' lists those that are)"
        )


def _not_bound(interface: str, policy: ResolvedPolicy) -> UsageError:
    names = ", ".join(judge.name for judge in policy.judges) or "none"
    return UsageError(f"{interface} is not bound (bound: {names})")


def _is_meant(entry: Flow | FlowsLeftOut, query: requests.DeniedQuery) -> bool:
    """Return whether an entry matches the query."""
    return (
        query.interface in (None, entry.interface)
        and query.direction in (None, entry.direction)
        and query.rule_id in (None, entry.rule_id)
    )
