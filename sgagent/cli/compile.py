"""``sgagent compile``: print the ruleset for this host, or apply it once."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable

from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.guardrails import Keeper, add_guardrails_argument
from sgagent.cli.main import option_adder
from sgagent.cli.output import warn
from sgagent.compiler.compilation import compile_
from sgagent.core.errors import KernelRefusedError, count, printable
from sgagent.core.policy import FlowLogging, ResolvedPolicy
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import UNCACHED, EnforcementState, MarkLayout, first_state
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import render
from sgagent.nft.transactions import (
    DestroyTable,
    Json,
    Operation,
    Plan,
    asks_for_group,
    encode_plan,
    without_destroy,
)
from sgagent.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("--dry-run", "print the ruleset, change nothing")
    add("--output", "what --dry-run prints (default: nft)", choices=("nft", "json"), default="nft")
    text = "as --output json; without --dry-run, print the result as JSON"
    add("--json", text, dest="output", action="store_const", const="json")
    add("--no-verify", "don't let the kernel check the text")
    add("--verify", "prove the table first, and print or apply it only then")
    add("--yes", "apply even if that cuts your own session")
    inputs.add_policy_arguments(parser)
    inputs.add_dns_argument(parser)
    add_guardrails_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Compile, then print or apply."""
    settings = load_settings(options)
    resolution = inputs.read_policy(settings, options, keep=Keeper.of(settings, options).here)
    inputs.accept_or_refuse(resolution.problems, settings, options)
    policy = resolution.policy
    if not options.dry_run:
        from sgagent.cli.agent_client import modes_of_host  # noqa: PLC0415 - printing does without

        policy = modes_of_host(settings).over(policy)
    verified = None
    if options.verify:
        is_in_json = options.output == "json" and not options.dry_run
        logging = settings.flow_log.logging_without_agent
        code, verified = prove_compiled(policy, settings, logging, is_printed=not is_in_json)
        if code:
            if is_in_json:
                _print_result("not_proved", policy, 0, verified)
            return code
    if options.dry_run:
        _print(policy, settings, options)
    else:
        from sgagent.cli.apply import apply_once  # noqa: PLC0415 - it needs what printing does without

        operations = apply_once(policy, settings, options)
        outcome = "applied" if operations else "unchanged"
        if options.output == "json":
            _print_result(outcome, policy, operations, verified)
        else:
            names = ", ".join(interface.name for interface in policy.bound) or "no interface"
            print(f"{outcome}: {names}" + (f" ({count(operations, 'operation')})" if operations else ""))
    return 0


def _print_result(outcome: str, policy: ResolvedPolicy, operations: int, verified: Json | None) -> None:
    """Print the result of ``compile --json``; ``verified`` is there if ``--verify`` was given."""
    names = [interface.name for interface in policy.bound]
    result = {"outcome": outcome, "interfaces": names, "operations": operations}
    print(json.dumps(result if verified is None else result | {"verified": verified}))


def _print(policy: ResolvedPolicy, settings: Settings, options: argparse.Namespace) -> None:
    """Print the ruleset, which the kernel has checked where that needs no privilege."""
    from sgagent.dataplane.libnftables import Refused, check_text, text_features  # noqa: PLC0415 - to apply does without

    layout = MarkLayout(settings.enforcement.mark_mask)
    ruleset = compile_offline(policy, layout, settings.flow_log.logging_without_agent)
    if any(asks_for_group(rule) for chain in ruleset.chains for rule in chain.rules):
        warn("nft can't write rules for units: loaded from this text, they match nothing")
    known = text_features()
    text = render(ruleset, persist=known.persist, destroys=known.destroy)
    if not options.no_verify:
        checked = check_text(text)
        if isinstance(checked, Refused):
            raise KernelRefusedError(f"this is a fault of sgagent: {checked.reason}", "the compiled ruleset")
    if options.output == "json":
        operations: Iterable[Operation] = (DestroyTable(), *make_plan(ruleset, None).operations)
        plan = Plan(tuple(operations if known.destroy else without_destroy(operations)))
        print(json.dumps(encode_plan(plan, ["persist"] if known.persist else [])))
    else:
        sys.stdout.write(text)


def prove_compiled(
    policy: ResolvedPolicy, settings: Settings, flow_logging: FlowLogging, *, is_printed: bool
) -> tuple[int, Json]:
    """Prove the table of a policy.

    Args:
        policy: what is compiled.
        settings: of the marks.
        flow_logging: of the table.
        is_printed: whether to say on standard error what came of it.

    Returns:
        The exit code, and the object that ``sgagent verify --json`` would print.
    """
    from sgagent.cli.verify import EXIT_CODES  # noqa: PLC0415 - few ask for a proof
    from sgagent.verify.proof import prove  # noqa: PLC0415 - likewise
    from sgagent.verify.report import as_json, lines  # noqa: PLC0415 - likewise
    from sgagent.verify.verified_table import table_of  # noqa: PLC0415 - likewise

    ruleset = compile_offline(policy, MarkLayout(settings.enforcement.mark_mask), flow_logging)
    started = time.perf_counter()
    proof = prove(table_of(ruleset), policy)
    seconds = time.perf_counter() - started
    if is_printed:
        print("\n".join(map(printable, lines(proof, seconds, "the compiled table"))), file=sys.stderr)
    return EXIT_CODES[proof.outcome], as_json(proof, seconds)


def compile_offline(policy: ResolvedPolicy, layout: MarkLayout, logging: FlowLogging) -> Ruleset:
    """Return the ruleset under a generation that follows from the policy.

    So the same policy always gives the same bytes, and loading a changed one has live sessions judged again.
    """
    state = first_state(policy.remembering, layout)
    if state == UNCACHED:
        return compile_(policy, layout, state, logging).ruleset
    content = repr((policy, layout))  # all of it is sorted, and its parts are numbers, words and networks
    if policy.patterns:
        content += repr((policy.patterns, policy.identified))
    number = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    generation = 1 + number % layout.last_generation
    state = EnforcementState(generation=generation, slots=state.slots, reused=True)
    return compile_(policy, layout, state, logging).ruleset
