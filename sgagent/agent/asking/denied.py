"""Name what can be asked about drops, and answer it from what the flow log remembers."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.agent.flows.flow import Flow, FlowsLeftOut
from sgagent.agent.flows.flowlog import FlowLog
from sgagent.core.errors import UsageError
from sgagent.core.model import Direction, Policy
from sgagent.core.policy import ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedQuestion:
    """Ask who was dropped; what is null restricts nothing."""

    after: int = 0
    """Only flows behind the one of this number."""

    interface: str | None = None
    direction: Direction | None = None
    rule_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedAnswer:
    """Who was dropped, or would have been; as many of the newest as are remembered."""

    begun_at: float
    """When the agent began to count flows from 1, in seconds since the epoch."""

    newest: int
    """The number of the newest drop that is remembered, whether it was asked for or not; 0 without any."""

    flows: tuple[Flow, ...]
    """The oldest first."""

    left_out: tuple[FlowsLeftOut, ...]
    """How many more there were since the agent started, for each that decided, as far as was asked."""

    rate_per_second: int
    """How many of each rule and default are told of at most."""

    unavailable: str | None = None
    """Why nobody is told of; null where it works."""


def denied_answer(flow_log: FlowLog | None, question: DeniedQuestion, policy: ResolvedPolicy) -> DeniedAnswer:
    """Return who was dropped.

    Args:
        flow_log: what is remembered; None where nothing is.
        question: what is asked for.
        policy: what is in force.

    Raises:
        UsageError: the interface or the rule that is asked for is not there, and nothing of it is remembered.
    """
    if flow_log is None:
        return DeniedAnswer(
            begun_at=0.0, newest=0, flows=(), left_out=(), rate_per_second=0, unavailable=_SWITCHED_OFF
        )
    remembered = flow_log.drops.recent()
    flows = [flow for flow in remembered if flow.number > question.after and _is_meant(flow, question)]
    is_off = Policy.DROP not in flow_log.logging.verdicts
    left_out = tuple(entry for entry in flow_log.left_out() if _is_meant(entry, question))
    if not flows and not left_out and not question.after:
        _refuse_unknown(question, policy)
    return DeniedAnswer(
        begun_at=flow_log.begun_at,
        newest=remembered[-1].number if remembered else 0,
        flows=tuple(flows),
        left_out=left_out,
        rate_per_second=flow_log.logging.rate_per_second,
        unavailable=flow_log.unavailable or (_SWITCHED_OFF if is_off else None),
    )


_SWITCHED_OFF = "flow_log.dropped is false in the configuration"


def _refuse_unknown(question: DeniedQuestion, policy: ResolvedPolicy) -> None:
    """Refuse names that nothing has: "no drop" would be true of them, and mislead.

    Raises:
        UsageError: names what there is.
    """
    judges = policy.judges
    if not judges:
        return  # the agent has yet to enforce something, and may come to know the name
    if question.interface is not None and all(judge.name != question.interface for judge in judges):
        names = ", ".join(judge.name for judge in judges)
        raise UsageError(f"nothing is judged on {question.interface} (judged: {names})")
    rules = (rule for judge in judges for toward in (judge.ingress, judge.egress) for rule in toward.rules)
    if question.rule_id is not None and all(rule.rule_id != question.rule_id for rule in rules):
        raise UsageError(
            f"no rule {question.rule_id} is in force on this host: 'sgagent hits' lists those that are"
        )


def _is_meant(entry: Flow | FlowsLeftOut, question: DeniedQuestion) -> bool:
    """Tell whether an entry is among what is asked for."""
    return (
        question.interface in (None, entry.interface)
        and question.direction in (None, entry.direction)
        and question.rule_id in (None, entry.rule_id)
    )
