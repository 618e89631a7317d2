"""``sgagent compile``: print the ruleset for this host, or apply it once."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from contextlib import closing

import structlog

from sgagent.agent.reconciler import Outcome, Step
from sgagent.agent.sessions.foresight import Foresight
from sgagent.agent.sessions.opensessions import open_sessions
from sgagent.agent.sessions.reckoning import end_forbidden_sessions
from sgagent.agent.telling.log import configure_log
from sgagent.cli.inputs import accept_or_refuse, add_policy_arguments, load_settings, read_policy
from sgagent.cli.ownsession import refuse_to_cut_own_session
from sgagent.core.compiling.compiler import compile_
from sgagent.core.compiling.enforcement import enforce
from sgagent.core.compiling.marks import UNCACHED, EnforcementState, MarkLayout, first_state
from sgagent.core.errors import KernelRefusedError
from sgagent.core.kernel.nftjson import encode_plan
from sgagent.core.kernel.nfttext import render
from sgagent.core.kernel.plan import DestroyTable, Plan, make_plan
from sgagent.core.kernel.ruleset import Ruleset
from sgagent.core.model import Sessions
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.nftables import LibnftablesDataplane
from sgagent.dataplane.sockets import destroy, sessions_at_listeners
from sgagent.dataplane.verify import Refused, knows_persist, verify
from sgagent.host.links import NetlinkHost
from sgagent.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--dry-run", action="store_true", help="print the ruleset and touch nothing")
    parser.add_argument(
        "--output", choices=("nft", "json"), default="nft", help="what --dry-run prints (default: nft)"
    )
    parser.add_argument(
        "--json",
        dest="output",
        action="store_const",
        const="json",
        help="as --output json; applied, say what was done",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not have the kernel check what is printed"
    )
    parser.add_argument(
        "--yes", action="store_true", help="apply, also if that cuts the session that you are in"
    )
    add_policy_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Compile, then print or apply."""
    settings = load_settings(options)
    resolution = read_policy(settings, options.definitions, options.interface)
    accept_or_refuse(resolution.problems, strict=options.strict or settings.enforcement.strict)
    if options.dry_run:
        _print(resolution.policy, settings, options)
    else:
        _apply(resolution.policy, settings, options)
    return 0


def _print(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> None:
    """Print the ruleset, which the kernel has checked where that needs no privilege."""
    ruleset = compile_offline(policy, MarkLayout(settings.enforcement.mark_mask))
    persist = knows_persist()
    text = render(ruleset, persist=persist)
    if not options.no_verify:
        checked = verify(text)
        if isinstance(checked, Refused):
            raise KernelRefusedError(f"this is a fault of sgagent: {checked.reason}", "the compiled ruleset")
    if options.output == "json":
        plan = Plan((DestroyTable(), *make_plan(ruleset, None).operations))
        print(json.dumps(encode_plan(plan, ["persist"] if persist else [])))
    else:
        sys.stdout.write(text)


def compile_offline(policy: ResolvedPolicy, layout: MarkLayout) -> Ruleset:
    """Return the ruleset under a generation that follows from the policy.

    So the same policy always gives the same bytes, and loading a changed one has live sessions judged again.
    """
    state = first_state([interface.name for interface in policy.interfaces], layout)
    if state == UNCACHED:
        return compile_(policy, layout, state).ruleset
    content = repr((policy, layout))  # all of it is sorted, and its parts are numbers, words and networks
    number = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    generation = 1 + number % layout.last_generation
    state = EnforcementState(generation=generation, slots=state.slots, reused=True)
    return compile_(policy, layout, state).ruleset


def _apply(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> None:
    """Enforce once, judging live sessions by the new policy, and say what was done."""
    with closing(LibnftablesDataplane(owned=False)) as dataplane:
        dataplane.refuse_another_owner()
        facts = NetlinkHost().facts()
        if not options.yes:
            refuse_to_cut_own_session(policy, facts)
        is_first = dataplane.observe().ruleset is None
        is_rejudged = settings.enforcement.sessions is Sessions.REJUDGE
        if is_rejudged:
            configure_log()
        if is_rejudged and not is_first:
            Foresight(structlog.get_logger(), open_sessions).look(None, policy, facts)
        operations = _bring(policy, settings, dataplane)
    if is_rejudged and is_first:
        step = Step(outcome=Outcome.APPLIED, policy=policy, facts=facts)
        end_forbidden_sessions(step, structlog.get_logger(), sessions_at_listeners, destroy)
    names = [interface.name for interface in policy.interfaces]
    if options.output == "json":
        outcome = "applied" if operations else "unchanged"
        print(json.dumps({"outcome": outcome, "interfaces": names, "operations": operations}))
    else:
        print(_summary(names, operations))


def _bring(policy: ResolvedPolicy, settings: Settings, dataplane: LibnftablesDataplane) -> int:
    """Bring the kernel to the policy; return how many operations that took."""
    layout, operations = MarkLayout(settings.enforcement.mark_mask), 0
    while True:
        observed = dataplane.observe()
        sessions = settings.enforcement.sessions
        step = enforce(policy, observed.ruleset, observed.foreign, layout, sessions=sessions)
        if step.plan and step.clearance:
            dataplane.clear_marks(step.clearance.mask, step.clearance.value)
        if step.plan:
            dataplane.apply(step.plan)
        operations += len(step.plan.operations)
        if not step.is_interim or not step.plan:
            return operations


def _summary(names: list[str], operations: int) -> str:
    interfaces = ", ".join(names) or "no interface"
    if not operations:
        return f"unchanged: {interfaces}"
    return f"applied: {interfaces} ({operations} operation{'s' * (operations != 1)})"
