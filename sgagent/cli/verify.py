"""``sgagent verify``: prove that a table does what the policy says, for every packet."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sgagent.cli.inputs import (
    UNNAMED,
    accept_or_refuse,
    add_policy_arguments,
    fetch,
    load_settings,
    read_bounded,
    resolve_for_host,
)
from sgagent.cli.output import format_json
from sgagent.core.errors import KernelRefusedError, UsageError, printable
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.json_commands import Json
from sgagent.nft.ruleset import FAMILY, TABLE
from sgagent.ports import Delivery
from sgagent.settings import Settings
from sgagent.verify.foreign import compare_filters
from sgagent.verify.listing import read_filters, read_listing
from sgagent.verify.proof import Outcome, Proof, prove
from sgagent.verify.report import as_json, lines
from sgagent.verify.table import VerifiedTable

_LARGEST_RULESET = 256 * 1024 * 1024
EXIT_CODES = {Outcome.PROVED: 0, Outcome.REFUTED: 1, Outcome.UNKNOWN: 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--ruleset",
        metavar="FILE",
        type=Path,
        help="a ruleset as nft writes it, or in JSON, instead of the kernel's table; - is standard input",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="FILE is of another firewall: compare the verdicts of all its filter chains",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_policy_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Prove, or print a packet; the exit code says which."""
    if options.compare and options.ruleset is None:
        raise UsageError("--compare needs a ruleset to compare with: add --ruleset FILE")
    settings = load_settings(options)
    policy = _policy(settings, options)
    started = time.perf_counter()
    proof = _prove(policy, options)
    seconds = time.perf_counter() - started
    if options.json:
        print(format_json(as_json(proof, seconds)))
    else:
        what = f"table {FAMILY} {TABLE}" if options.ruleset is None else _name(options.ruleset)
        print("\n".join(map(printable, lines(proof, seconds, what))))
    return EXIT_CODES[proof.outcome]


def _policy(settings: Settings, options: argparse.Namespace) -> ResolvedPolicy:
    """Return the policy that the table has to enforce: of the given definitions, else of those in force."""
    if options.definitions is None and options.ruleset is None:
        return _policy_in_force(settings, options)
    resolution = resolve_for_host(settings, fetch(settings, options.definitions, UNNAMED), options.interface)
    accept_or_refuse(resolution.problems, strict=options.strict or settings.enforcement.strict)
    return resolution.policy


def _policy_in_force(settings: Settings, options: argparse.Namespace) -> ResolvedPolicy:
    """Return what the agent enforces on this host, in the modes that it enforces it in."""
    from sgagent.cli.agent_client import enforced_now, modes_in_force  # noqa: PLC0415 - offline does without
    from sgagent.documents import parse_documents  # noqa: PLC0415 - likewise

    present = enforced_now(settings)
    if present.documents is None:
        return ResolvedPolicy()
    snapshot, _ = parse_documents(present.documents, settings.limits, present.version)
    delivery = Delivery(snapshot=snapshot, documents=present.documents)
    policy = resolve_for_host(settings, delivery, options.interface).policy
    overrides, fault = modes_in_force(settings)
    if fault is not None:
        print(printable(f"warning: the modes of this host are not known: {fault}"), file=sys.stderr)
    return overrides.over(policy)


def _prove(policy: ResolvedPolicy, options: argparse.Namespace) -> Proof:
    try:
        table = _live_table() if options.ruleset is None else _table_of_file(options)
    except KernelRefusedError as refusal:
        return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=(str(refusal),))
    return compare_filters(table, policy) if options.compare else prove(table, policy)


def _live_table() -> VerifiedTable:
    """Return the table in the kernel; one that is not there has no chains.

    Raises:
        NotPermittedError: CAP_NET_ADMIN is lacking.
        KernelRefusedError: it can't be listed.
    """
    from sgagent.dataplane.dataplane import list_live_table  # noqa: PLC0415 - offline does without

    return read_listing(list_live_table())


def _table_of_file(options: argparse.Namespace) -> VerifiedTable:
    """Return the table that a file states, read by the kernel where it is no listing already.

    Raises:
        UsageError: the file can't be read, or is no ruleset.
        KernelRefusedError: the kernel can't be asked.
    """
    from sgagent.dataplane.libnftables import list_text  # noqa: PLC0415 - what verifies the kernel does without

    path: Path = options.ruleset
    content = read_bounded(Path("/dev/stdin") if str(path) == "-" else path, _LARGEST_RULESET, "the ruleset")
    listing: Json = list_text(content, _name(path))
    return read_filters(listing) if options.compare else read_listing(listing)


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)
