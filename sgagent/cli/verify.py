"""``sgagent verify``: prove that a table does what the policy says, for every packet."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sgagent.analysis import flow_text
from sgagent.analysis.header_space import Box, Clause
from sgagent.cli import inputs
from sgagent.cli.output import format_json, warn
from sgagent.core.binding import ExpectedLink
from sgagent.core.errors import KernelRefusedError, UsageError, printable
from sgagent.core.model import ALL_PORTS, Policy
from sgagent.core.policy import Peer, ResolvedPolicy
from sgagent.nft.ruleset import FAMILY, TABLE
from sgagent.nft.transactions import Json
from sgagent.ports import Delivery
from sgagent.settings import Settings
from sgagent.verify import Outcome
from sgagent.verify.foreign import MOST_DIFFERENCES, FilterChange, FilterComparison, compare_filters
from sgagent.verify.listing import FAULTS, read_filters, read_listing
from sgagent.verify.proof import Proof, links_of, prove
from sgagent.verify.report import as_json, lines
from sgagent.verify.verified_table import VerifiedTable

_LARGEST_RULESET = 256 * 1024 * 1024
_NO_DEFINITIONS = "no definitions are in force, as on a closed host: name some to compare the table with"
_NO_PAUSE = "table or definitions changed each time that they were read"
MOST_REREADS = 5
Subject = tuple[VerifiedTable, ResolvedPolicy | None]
"""The table, and the policy that it has to enforce; None where no definitions are in force."""

Proved = tuple[Proof, FilterComparison | None, float]
"""What came of it, the comparison if one was asked for, and how many seconds it took."""

EXIT_CODES = {Outcome.PROVED: 0, Outcome.REFUTED: 1, Outcome.UNKNOWN: 3}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    add(
        "--ruleset",
        metavar="FILE",
        type=Path,
        help="a ruleset as nft writes it, or in JSON, instead of the kernel's table; - is standard input",
    )
    add(
        "--compare",
        action="store_true",
        help="FILE is of another firewall: list the packets that the policy opens and closes",
    )
    add("--json", action="store_true", help="print one JSON object")
    inputs.add_policy_arguments(parser)
    inputs.add_dns_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Prove, or print a packet; the exit code says which."""
    if options.compare and options.ruleset is None:
        raise UsageError("--compare needs a ruleset to compare with: add --ruleset FILE")
    settings = inputs.load_settings(options)
    is_live = options.ruleset is None
    (_, policy), (proof, comparison, seconds) = prove_at_rest(
        partial(_read, settings, options), partial(_prove, options), rereads=MOST_REREADS if is_live else 0
    )
    shown = (
        None
        if comparison is None
        else _ShownComparison(comparison, flow_text.ObjectNames.of(policy or ResolvedPolicy()))
    )
    if options.json:
        print(format_json(as_json(proof, seconds) | (shown.as_json() if shown else {})))
    else:
        what = f"table {FAMILY} {TABLE}" if options.ruleset is None else _name(options.ruleset)
        print("\n".join(map(printable, (*lines(proof, seconds, what), *(shown.lines() if shown else ())))))
    return EXIT_CODES[proof.outcome]


def prove_at_rest(
    read: Callable[[], Subject], prove_subject: Callable[[Subject], Proved], *, rereads: int
) -> tuple[Subject, Proved]:
    """Prove what is read, and read it again before it is called refuted.

    Table and definitions are read one after the other, and one may change in between.

    Args:
        read: returns both.
        prove_subject: returns what comes of them.
        rereads: how often at most.
    """
    subject = read()
    found = prove_subject(subject)
    for _ in range(rereads):
        before = subject
        if found[0].outcome is not Outcome.REFUTED or (subject := read()) == before:
            return subject, found
        found = prove_subject(subject)
    if rereads and found[0].outcome is Outcome.REFUTED:
        found = _unknown(_NO_PAUSE)
    return subject, found


def _unknown(*reasons: str) -> Proved:
    return Proof(outcome=Outcome.UNKNOWN, cells=0, unsupported=reasons), None, 0.0


def _read(settings: Settings, options: argparse.Namespace) -> Subject:
    """Return the table, and the policy that it has to enforce; None where no definitions are in force."""
    try:
        table = _live_table() if options.ruleset is None else _table_of_file(options)
    except KernelRefusedError as refusal:
        table = VerifiedTable(chains={}, verdict_maps={}, unread=(str(refusal),))
    return table, _policy(settings, options, table)


def _policy(settings: Settings, options: argparse.Namespace, table: VerifiedTable) -> ResolvedPolicy | None:
    """Return the policy of the given definitions, else of those in force, if there are any."""
    is_live = options.ruleset is None
    delivery, dns = None, inputs.dns_answers(settings)
    if options.definitions is not None or not is_live:
        delivery, dns = (
            inputs.fetch(settings, options.definitions, inputs.UNNAMED),
            inputs.dns_answers(settings, options),
        )
    else:
        delivery = _delivery_in_force(settings)
    if delivery is None:
        return None
    expected: tuple[ExpectedLink, ...] = ()
    if is_live and not options.interface:
        from sgagent.cli.agent_client import expected_links  # noqa: PLC0415 - offline does without

        expected = expected_links(settings, links_of(table, ResolvedPolicy()))
    resolution = inputs.resolve_for_host(settings, delivery, options.interface, dns=dns, expected=expected)
    if options.definitions is not None or not is_live:
        inputs.accept_or_refuse(resolution.problems, settings, options)
    return _in_modes_of_host(resolution.policy, settings) if is_live else resolution.policy


def _delivery_in_force(settings: Settings) -> Delivery | None:
    """Return the definitions that are enforced on this host; None if there are none."""
    from sgagent.cli.agent_client import enforced_now  # noqa: PLC0415 - offline does without
    from sgagent.documents import parse_documents  # noqa: PLC0415 - likewise

    present = enforced_now(settings)
    if present.documents is None:
        return None
    snapshot, _ = parse_documents(present.documents, settings.limits, present.version)
    return Delivery(snapshot=snapshot, documents=present.documents)


def _in_modes_of_host(policy: ResolvedPolicy, settings: Settings) -> ResolvedPolicy:
    from sgagent.cli.agent_client import modes_of_host  # noqa: PLC0415 - offline does without

    return modes_of_host(settings).over(policy)


def _prove(options: argparse.Namespace, subject: Subject) -> Proved:
    table, policy = subject
    if policy is None:
        return _unknown(*table.unread, _NO_DEFINITIONS)
    started = time.perf_counter()
    comparison = compare_filters(table, policy) if options.compare else None
    proof = comparison.proof if comparison else prove(table, policy)
    return proof, comparison, time.perf_counter() - started


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
    file = Path("/dev/stdin") if str(path) == "-" else path
    content = inputs.read_bounded(file, _LARGEST_RULESET + 1, "the ruleset")
    if len(content) > _LARGEST_RULESET or b"\0" in content:
        raise UsageError(f"{_name(path)}: expected a ruleset of at most 256 MiB, without NUL characters")
    listing: Json = list_text(content, _name(path))
    try:
        table = read_filters(listing) if options.compare else read_listing(listing)
    except FAULTS as error:
        expected = "expected a ruleset like 'nft --json list ruleset' prints it"
        raise UsageError(f"{_name(path)}: {expected}, found {type(error).__name__}: {error}") from error
    if not table.chains and not options.compare:
        hint = f"has no table {FAMILY} {TABLE} with chains (--compare reads other tables)"
        warn(f"{_name(path)} {hint}")
    return table


def _name(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


MOST_SHOWN = 40
"""Changes that people are shown; the rest is counted."""


@dataclass(frozen=True, slots=True)
class _ShownComparison:
    """Which packets would change if the policy took the place of filters, as ``plan`` shows it."""

    comparison: FilterComparison
    names: flow_text.ObjectNames

    def lines(self) -> Iterator[str]:
        """Yield what people read."""
        changes = self.comparison.changes
        for verdict, title in ((Policy.ACCEPT, "the policy opens"), (Policy.DROP, "the policy closes")):
            found = [one for one in changes if one.verdict is verdict]
            shown = [one for one in found if one.kinds != ("untracked",)][:MOST_SHOWN] or found[:MOST_SHOWN]
            if found:
                yield ""
                yield title
                yield from (f"  {self._text(one)}" for one in shown)
            if len(found) > len(shown):
                yield f"  … and {len(found) - len(shown)} more: --json shows all"
        if not self.comparison.is_whole:
            yield f"there are more: the comparison ended after {MOST_DIFFERENCES:,} parts"
        if self.comparison.not_compared:
            yield f"NAT is not looked at: {', '.join(self.comparison.not_compared)}"

    def _text(self, change: FilterChange) -> str:
        box, links = _box(change), (change.interface,)
        peers = flow_text.peers_text(box, self.names, _objects(change), links)
        words = [flow_text.traffic_text(box, change.direction, peers), *_particulars(change)]
        was = "accepted" if change.verdict is Policy.DROP else "dropped"
        where = f"{change.interface} {change.direction.value}"
        return f"{where}: {', '.join(words)}: {flow_text.decision_text(box.label)} (was {was})"

    def as_json(self) -> Json:
        """Return what scripts read besides the proof."""
        comparison = self.comparison
        return {
            "changes": [self._change_as_json(change) for change in comparison.changes],
            "changes_are_whole": comparison.is_whole,
            "not_compared": list(comparison.not_compared),
        }

    def _change_as_json(self, change: FilterChange) -> Json:
        box = _box(change)
        opens = change.verdict is Policy.ACCEPT
        return {
            "effect": "opens" if opens else "closes",
            "interface": change.interface,
            "direction": change.direction.value,
            **flow_text.box_as_json(box, self.names, _objects(change), (change.interface,)),
            "kinds": list(change.kinds),
            "ways": list(change.ways),
            "other_interfaces": list(change.other_links),
            "particulars": dict(_named_particulars(change)),
            "before": {"verdict": (Policy.DROP if opens else Policy.ACCEPT).value},
            "after": flow_text.clause_as_json(box.label),
        }


def _box(change: FilterChange) -> Box[Clause]:
    """Return the packets, and what decides about them in the policy."""
    decision = change.decision
    everywhere = ((0, change.family.last_address),)
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
    """Yield what else the packets are, in words."""
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
