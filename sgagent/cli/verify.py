"""``sgagent verify``: prove that a table enforces the policy, for every packet."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from sgagent.agent.clock import moment
from sgagent.analysis import flow_text
from sgagent.analysis.header_space import Box
from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.guardrails import Keeper, add_guardrails_argument
from sgagent.cli.main import option_adder
from sgagent.cli.output import format_json, warn
from sgagent.core.clauses import Clause
from sgagent.core.errors import KernelRefusedError, UsageError, printable
from sgagent.core.expected_links import ExpectedLink
from sgagent.core.guardrails import resolve_guardrails
from sgagent.core.model import ALL_PORTS, Policy, Snapshot
from sgagent.core.policy import Peer, ResolvedPolicy
from sgagent.nft.ruleset import FAMILY, TABLE
from sgagent.nft.transactions import Json
from sgagent.settings import Settings
from sgagent.verify import Outcome
from sgagent.verify.foreign import MOST_DIFFERENCES, FilterChange, FilterComparison, compare_filters
from sgagent.verify.guardrails import GuardrailsOnTable, evaluate_guardrails
from sgagent.verify.programs import read_filters, read_table
from sgagent.verify.proof import Proof, closes_strangers, links_of, prove
from sgagent.verify.report import as_json, guardrail_lines, guardrails_as_json, lines
from sgagent.verify.verified_table import VerifiedTable

_LARGEST_RULESET = 256 * 1024 * 1024
_NO_DEFINITIONS = "no definitions are in force, as on a closed host: name some to compare the table with"
_NO_PAUSE = "table or definitions changed again and again while they were read"
MOST_REREADS = 5
REREADS_AT_REST = 2
"""Readings in a row that find the same: under changes each other moment, one may do so by chance."""

ProofSubject = tuple[VerifiedTable, ResolvedPolicy | None]
"""The table, and the policy that it has to enforce; None where no definitions are in force."""

Proved = tuple[Proof, FilterComparison | None, float]
"""What came of it, the comparison if one was asked for, and how many seconds it took."""

EXIT_CODES = {Outcome.PROVED: 0, Outcome.REFUTED: 1, Outcome.UNKNOWN: 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add(
        "--ruleset FILE",
        "a ruleset as nft writes it, or in JSON, instead of the kernel's table; - is standard input",
    )
    add("--compare", "FILE is of another firewall: list the packets that the policy opens and closes")
    add("--json", "print one JSON object")
    inputs.add_policy_arguments(parser)
    inputs.add_dns_argument(parser)
    add_guardrails_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Prove, or print a packet; the exit code says which."""
    if options.compare and options.ruleset is None:
        raise UsageError("--compare needs a ruleset to compare with: add --ruleset FILE")
    settings = load_settings(options)
    is_live = options.ruleset is None
    (table, policy), (proof, comparison, seconds) = prove_at_rest(
        partial(_read, settings, options), partial(_prove, options), rereads=MOST_REREADS if is_live else 0
    )
    kept = _guardrails_on(table, policy, settings, options)
    names = flow_text.ObjectNames.of(policy if policy and comparison else ResolvedPolicy())
    if options.json:
        changes = _comparison_json(comparison, names) if comparison else {}
        print(format_json(as_json(proof, seconds) | guardrails_as_json(kept) | changes))
    else:
        what = f"table {FAMILY} {TABLE}" if is_live else _name(options.ruleset)
        compared = _comparison_lines(comparison, names) if comparison else ()
        said = (*lines(proof, seconds, what), *guardrail_lines(kept, what), *compared)
        print("\n".join(map(printable, said)))
    if is_live and options.definitions is None and proof.outcome is Outcome.REFUTED:
        _warn_of_other_documents(settings)
    return EXIT_CODES[kept.outcome_after(proof.outcome)]


def prove_at_rest(
    read: Callable[[], ProofSubject], prove_subject: Callable[[ProofSubject], Proved], *, rereads: int
) -> tuple[ProofSubject, Proved]:
    """Prove a table, and read it twice more before it is called refuted.

    Table and definitions are read one after the other, and one may change in between.

    Args:
        read: returns both.
        prove_subject: returns what comes of them.
        rereads: how often at most; 0 takes the first result.

    Returns:
        Both as last read, and what came of it: unknown if it was refuted still, and did not stay the same.
    """
    subject, unchanged = read(), 0
    found = prove_subject(subject)
    for _ in range(rereads):
        if found[0].outcome is not Outcome.REFUTED or unchanged == REREADS_AT_REST:
            return subject, found
        before, subject = subject, read()
        if subject == before:
            unchanged += 1
        else:
            found, unchanged = prove_subject(subject), 0
    if rereads and found[0].outcome is Outcome.REFUTED and unchanged < REREADS_AT_REST:
        found = _unknown(_NO_PAUSE)
    return subject, found


def _unknown(*reasons: str) -> Proved:
    return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=reasons), None, 0.0


def _read(settings: Settings, options: argparse.Namespace) -> ProofSubject:
    """Return the table, and the policy that it has to enforce; None where no definitions are in force."""
    try:
        if options.ruleset is not None:
            table = _table_of_file(options)
        else:
            from sgagent.dataplane.table import list_anew  # noqa: PLC0415 - offline does without

            table = read_table(list_anew().dump or b"")  # one that is not there has no chains
    except KernelRefusedError as refusal:
        table = VerifiedTable(chains={}, verdict_maps={}, unread=(str(refusal),))
    return table, _policy(settings, options, table)


def _guardrails_on(
    table: VerifiedTable, policy: ResolvedPolicy | None, settings: Settings, options: argparse.Namespace
) -> GuardrailsOnTable:
    """Return the result of the guardrails on the table that was read (§13.4)."""
    keeper = Keeper.of(settings, options)
    if policy is None or not keeper.read.guardrails:
        return GuardrailsOnTable()
    if options.ruleset is None and options.definitions is None and not _is_of_source(settings, table):
        from sgagent.cli import agent_client  # noqa: PLC0415 - offline does without

        delivery = agent_client.enforced_now(settings).parse(settings)
    else:
        delivery = inputs.fetch(settings, options.definitions, inputs.UNNAMED)
    snapshot = delivery.snapshot if delivery else Snapshot(version=inputs.UNNAMED)
    resolved, problems = resolve_guardrails(keeper.read.guardrails, snapshot, keeper.names())
    for problem in problems:
        warn(problem.message)
    return evaluate_guardrails(table, policy, resolved)


def _policy(settings: Settings, options: argparse.Namespace, table: VerifiedTable) -> ResolvedPolicy | None:
    """Return the policy of the given definitions, else of those in force, if there are any."""
    if options.ruleset is not None:
        return _given_policy(settings, options)
    from sgagent.cli import agent_client  # noqa: PLC0415 - offline does without

    in_table = links_of(table, ResolvedPolicy())
    expected = () if options.interface else agent_client.expected_links(settings, in_table)
    is_followed = agent_client.is_agent_running(settings) or closes_strangers(table)
    if options.definitions is not None or _is_of_source(settings, table):
        policy = _given_policy(settings, options, expected, is_followed=is_followed)
    else:
        delivery, dns = agent_client.enforced_now(settings).parse(settings), inputs.dns_answers(settings)
        if delivery is None:
            return None
        links = options.interface
        policy = inputs.resolve_for_host(
            settings, delivery, links, dns=dns, expected=expected, is_followed=is_followed
        ).policy
    return agent_client.modes_of_host(settings).over(policy)


def _is_of_source(settings: Settings, table: VerifiedTable) -> bool:
    """Return whether the configured source says what the table does: no agent runs, or ever enforced."""
    from sgagent.cli import agent_client  # noqa: PLC0415 - offline does without

    if not table.chains or agent_client.is_agent_running(settings):
        return False
    return agent_client.enforced_now(settings).documents is None


def _warn_of_other_documents(settings: Settings) -> None:
    """Say which policy refuted a table that no agent keeps: ``compile`` may have applied another."""
    from sgagent.cli import agent_client  # noqa: PLC0415 - offline does without

    if agent_client.is_agent_running(settings):
        return
    known = agent_client.enforced_now(settings)
    origin = "the configured source" if known.documents is None else known.origin
    when = f", enforced first {moment(known.enforced_at, time.time())}" if known.enforced_at else ""
    warn(
        f"compared with {origin}{when}; if 'compile' applied other documents since,"
        " name them: sgagent verify PATH"
    )


def _given_policy(
    settings: Settings,
    options: argparse.Namespace,
    expected: Iterable[ExpectedLink] = (),
    *,
    is_followed: bool = False,
) -> ResolvedPolicy:
    """Return the policy of the named definitions, else of the configured source."""
    delivery = inputs.fetch(settings, options.definitions, inputs.UNNAMED)
    dns = inputs.dns_answers(settings, options)
    resolution = inputs.resolve_for_host(
        settings, delivery, options.interface, dns=dns, expected=expected, is_followed=is_followed
    )
    inputs.accept_or_refuse(resolution.problems, settings, options)
    return resolution.policy


def _prove(options: argparse.Namespace, subject: ProofSubject) -> Proved:
    table, policy = subject
    if policy is None:
        return _unknown(*table.unread, _NO_DEFINITIONS)
    started = time.perf_counter()
    comparison = compare_filters(table, policy) if options.compare else None
    proof = comparison.proof if comparison else prove(table, policy)
    return proof, comparison, time.perf_counter() - started


def _table_of_file(options: argparse.Namespace) -> VerifiedTable:
    """Return the table that the kernel runs if it loads a file.

    Raises:
        UsageError: the file can't be read, or is no ruleset.
        KernelRefusedError: the kernel can't be asked.
    """
    from sgagent.dataplane.libnftables import dump_text  # noqa: PLC0415 - what verifies the kernel does without

    path: Path = options.ruleset
    most = _LARGEST_RULESET + 1
    read = inputs.read_standard_input if str(path) == "-" else partial(inputs.read_bounded, path)
    content = read(most, "the ruleset")
    if len(content) > _LARGEST_RULESET or b"\0" in content:
        raise UsageError(f"{_name(path)}: expected a ruleset of at most 256 MiB, without NUL characters")
    dump = dump_text(content, _name(path))
    table = read_filters(dump) if options.compare else read_table(dump)
    if not table.chains and not options.compare:
        warn(f"{_name(path)} has no table {FAMILY} {TABLE} with chains (--compare reads other tables)")
    return table


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


MOST_SHOWN = 40
"""Changes that people are shown; the rest is counted."""


def _comparison_lines(comparison: FilterComparison, names: flow_text.ObjectNames) -> Iterator[str]:
    """Yield which packets would change if the policy took the place of filters, as ``plan`` shows it."""
    for verdict, title in ((Policy.ACCEPT, "the policy opens"), (Policy.DROP, "the policy closes")):
        found = [one for one in comparison.changes if one.verdict is verdict]
        shown = [one for one in found if one.kinds != ("untracked",)][:MOST_SHOWN] or found[:MOST_SHOWN]
        if found:
            yield from ("", title, *(f"  {_change_text(one, names)}" for one in shown))
        if len(found) > len(shown):
            yield f"  … and {len(found) - len(shown)} more: --json shows all"
    if not comparison.is_whole and comparison.proof.outcome is not Outcome.UNKNOWN:
        yield f"there are more: the comparison ended after {MOST_DIFFERENCES:,} parts"
    if comparison.not_compared:
        yield f"NAT is not looked at: {', '.join(comparison.not_compared)}"
    if not comparison.with_forwarded:
        yield "forwarded packets are not compared, as no base chain is at forward"


def _change_text(change: FilterChange, names: flow_text.ObjectNames) -> str:
    box = _box(change)
    peers = flow_text.peers_text(box, names, _objects(change), (change.interface,))
    words = [flow_text.traffic_text(box, change.direction, peers), *_particulars(change)]
    was = "accepted" if change.verdict is Policy.DROP else "dropped"
    where = f"{change.interface} {change.direction.value}"
    return f"{where}: {', '.join(words)}: {flow_text.decision_text(box.label)} (was {was})"


def _comparison_json(comparison: FilterComparison, names: flow_text.ObjectNames) -> Json:
    """Return the comparison's fields for scripts besides the proof."""
    return {
        "changes": [_change_json(change, names) for change in comparison.changes],
        "changes_are_whole": comparison.is_whole,
        "not_compared": [
            *comparison.not_compared,
            *(() if comparison.with_forwarded else ("forwarded packets",)),
        ],
    }


def _change_json(change: FilterChange, names: flow_text.ObjectNames) -> Json:
    box = _box(change)
    opens = change.verdict is Policy.ACCEPT
    return {
        "effect": "opens" if opens else "closes",
        "interface": change.interface,
        "direction": change.direction.value,
        **flow_text.box_as_json(box, names, _objects(change), (change.interface,)),
        "kinds": list(change.kinds),
        "ways": list(change.ways),
        "other_interfaces": list(change.other_links),
        "particulars": dict(_named_particulars(change)),
        "before": {"verdict": (Policy.DROP if opens else Policy.ACCEPT).value},
        "after": flow_text.clause_as_json(box.label),
    }


def _box(change: FilterChange) -> Box[Clause]:
    """Return the packets, and their decider in the policy."""
    decision, everywhere = change.decision, ((0, change.family.last_address),)
    return Box(
        family=change.family,
        peers=change.far_ends,
        protocols=change.protocols,
        ports=change.ports or ALL_PORTS.ranges,
        source_ports=change.source_ports or ALL_PORTS.ranges,
        locals=change.near_ends or everywhere,
        label=Clause(
            decided_by=decision.decided_by,
            policy=change.verdict,
            addresses=change.far_ends,
            rule=decision.rule,
        ),
    )


def _objects(change: FilterChange) -> tuple[Peer, ...]:
    rule = change.decision.rule
    return () if rule is None else rule.peer.objects


def _particulars(change: FilterChange) -> Iterator[str]:
    """Yield the packets' other properties, in words."""
    if "new" not in change.kinds:
        yield f"only {' and '.join(_KINDS[kind] for kind in change.kinds)}"
    yield from (f"only {way}" for way in change.ways)
    if change.other_links:
        others = ", ".join(name or "any other link" for name in change.other_links)
        yield f"with {others} on the other side"
    yield from (f"{name} {text}" for name, text in _named_particulars(change))


def _named_particulars(change: FilterChange) -> Iterator[tuple[str, str]]:
    yield from ((name, flow_text.port_text(ranges)) for name, ranges in change.others.items())
    if change.marks:
        yield "mark", change.marks


_KINDS = {
    "established": "later packets",
    "reply": "replies",
    "related": "related sessions",
    "error": "ICMP errors",
    "untracked": "untracked packets",
    "invalid": "invalid packets",
}
