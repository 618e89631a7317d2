"""Apply a policy once, without a daemon: ``sgagent compile`` where it is no dry run."""

from __future__ import annotations

import argparse
import json
from contextlib import closing

from sgagent.agent.sessions.foresight import Foresight
from sgagent.agent.sessions.opensessions import open_sessions
from sgagent.agent.sessions.reckoning import end_forbidden_sessions
from sgagent.agent.step import Outcome, Step
from sgagent.agent.telling.steplog import EventLog
from sgagent.cli.ownsession import refuse_to_cut_own_session
from sgagent.core.compiling.enforcement import enforce
from sgagent.core.compiling.marks import MarkLayout
from sgagent.core.errors import KernelRefusedError
from sgagent.core.model import Sessions
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.nftables import LibnftablesDataplane
from sgagent.dataplane.sockets import destroy, sessions_at_listeners
from sgagent.host.links import NetlinkHost
from sgagent.settings import Settings

_TRIES = 20
"""How often a change is planned anew before what the kernel says of it is taken for the last word."""


def apply_once(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> None:
    """Enforce once, judging live sessions by the new policy, and say what was done."""
    with closing(LibnftablesDataplane(owned=False)) as dataplane:
        dataplane.refuse_another_owner()
        facts = NetlinkHost().facts()
        if not options.yes:
            refuse_to_cut_own_session(policy, facts)
        is_first = dataplane.observe().ruleset is None
        is_rejudged = settings.enforcement.sessions is Sessions.REJUDGE
        if is_rejudged and not is_first:
            Foresight(_LateLog(), open_sessions).look(None, policy, facts)
        operations = _bring(policy, settings, dataplane)
    if is_rejudged and is_first:
        step = Step(outcome=Outcome.APPLIED, policy=policy, facts=facts)
        end_forbidden_sessions(step, _LateLog(), sessions_at_listeners, destroy)
    names = [interface.name for interface in policy.interfaces]
    if options.output == "json":
        outcome = "applied" if operations else "unchanged"
        print(json.dumps({"outcome": outcome, "interfaces": names, "operations": operations}))
    else:
        print(_summary(names, operations))


def _bring(policy: ResolvedPolicy, settings: Settings, dataplane: LibnftablesDataplane) -> int:
    """Bring the kernel to the policy; return how many operations that took.

    Where others change the table meanwhile, like another of these commands, it is looked at again and planned
    for anew: the last one to look leaves a table that is wholly its own.
    """
    layout, operations = MarkLayout(settings.enforcement.mark_mask), 0
    for is_last in (*(False,) * _TRIES, True):
        observed = dataplane.observe()
        step = enforce(
            policy,
            observed.ruleset,
            observed.foreign,
            layout,
            sessions=settings.enforcement.sessions,
            flow_logging=settings.flow_log.logging_without_agent,
        )
        if step.plan and step.clearance:
            dataplane.clear_marks(step.clearance.mask, step.clearance.tests)
        if not step.plan:
            break
        try:
            dataplane.apply(step.plan)
            dataplane.remove(step.plan)
        except KernelRefusedError:
            if is_last or dataplane.observe() == observed:
                raise
            continue
        operations += len(step.plan.operations)
        if not step.is_interim and dataplane.is_known:
            break
    return operations


def _summary(names: list[str], operations: int) -> str:
    interfaces = ", ".join(names) or "no interface"
    if not operations:
        return f"unchanged: {interfaces}"
    return f"applied: {interfaces} ({operations} operation{'s' * (operations != 1)})"


class _LateLog:
    """A log that is opened when there is something to say: most often there is not, and it takes a moment."""

    def info(self, event: str, **keys: object) -> object:
        """Log what is normal."""
        return _opened().info(event, **keys)

    def warning(self, event: str, **keys: object) -> object:
        """Log what somebody should look at."""
        return _opened().warning(event, **keys)

    def error(self, event: str, **keys: object) -> object:
        """Log what is wrong."""
        return _opened().error(event, **keys)


def _opened() -> EventLog:
    import structlog  # noqa: PLC0415 - see above

    from sgagent.agent.telling.log import configure_log  # noqa: PLC0415 - see above

    configure_log()
    log: EventLog = structlog.get_logger()
    return log
