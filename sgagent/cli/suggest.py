"""``sgagent suggest``: suggest a policy for recorded traffic, with proof that it admits no other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from sgagent.agent.control.hits import HitsAnswer, HitsQuery
from sgagent.agent.state.counter_file import CounterFile, read_boot_id
from sgagent.analysis.compare import compare
from sgagent.analysis.flow_text import ObjectNames
from sgagent.cli import inputs, plan
from sgagent.cli.agent_client import NoAgentError, ask
from sgagent.cli.configuration import load_settings
from sgagent.cli.flow_files import read_flows
from sgagent.cli.main import add_option, option_adder
from sgagent.cli.output import problem_text, replace_file, warn
from sgagent.core.counter_keys import HitTimes, RuleCounter
from sgagent.core.errors import (
    DocumentError,
    NoDocumentError,
    SourceUnavailableError,
    UsageError,
    count,
    printable,
)
from sgagent.core.model import CidrBlock, Direction, Policy, Protocol, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.settings import Settings
from sgagent.suggest.conversations import Traffic
from sgagent.suggest.far_ends import Measures, Widening, far_text
from sgagent.suggest.outcome import Question, SuggestedRule, Suggestion, instant, suggest
from sgagent.suggest.proof import judge, judges_of
from sgagent.suggest.suggestion import StatedWidening

_MEASURES = Measures()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("--flows FILE", "flow logs of hosts, or of a cloud's VPC; - is standard input", nargs="+", type=str)
    add("--now", "this host's sessions and listeners, as they are")
    text = "the definitions at hand, instead of the configured source"
    add("--definitions PATH", text, action="append")
    text = f"sessions that an address needs (default: {_MEASURES.least_sessions})"
    add("--least-sessions N", text, type=inputs.whole_number, default=_MEASURES.least_sessions)
    text = f"members from which on a group is meant (default: {_MEASURES.group_from})"
    add("--group-from N", text, type=inputs.whole_number, default=_MEASURES.group_from)
    text = f"addresses from which on their network is meant (default: {_MEASURES.network_from})"
    add("--network-from N", text, type=inputs.whole_number, default=_MEASURES.network_from)
    text = f"addresses of many networks from which on everyone is meant (default: {_MEASURES.everyone_from})"
    add("--everyone-from N", text, type=inputs.whole_number, default=_MEASURES.everyone_from)
    add(
        "--network CIDR",
        "a network whose addresses belong together; repeatable",
        type=_block,
        action="append",
        default=[],
    )
    names = [one.value for one in Widening]
    add("--no-widening", "do not widen so; repeatable", choices=names, action="append", default=[])
    add("--ingress-only", "look at what comes in only, and leave what goes out as it is")
    add("--skip-malformed", "leave records out that can't be understood, and count them")
    add(
        "--explain",
        "first say what is wider than what was seen, what changes, and what is unused",
    )
    add_option(parser, "--output PATH", "write the documents to this file, or into this existing directory")
    add("--json", "print one JSON object")


def _block(text: str) -> CidrBlock:
    try:
        return CidrBlock.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no network, like 203.0.113.0/24") from None


def run(options: argparse.Namespace) -> int:
    """Print documents for the traffic; ask on standard error about traffic that they do not admit."""
    settings = load_settings(options)
    definitions = definitions_at_hand(settings, options.definitions)
    traffic = Traffic()
    notes: list[str] = []
    if options.now:
        from sgagent.cli.live_traffic import LiveTraffic  # noqa: PLC0415 - who reads files does without

        live = LiveTraffic(settings, definitions, traffic)
        live.poll()
        definitions, notes = live.definitions, live.notes()
    read_flows(_logs(settings, options), traffic, definitions)
    _accept_or_refuse(traffic, skips=options.skip_malformed)
    directions = (Direction.INGRESS,) if options.ingress_only else tuple(Direction)
    outcome = suggest(traffic, definitions, _measures(options), settings.limits, directions=directions)
    notes += _notes(traffic, outcome)
    place = _write(options.output, outcome)
    if options.json:
        fields = _as_json(outcome, definitions, settings, explains=options.explain)
        print(json.dumps(fields | {"notes": notes, "output": None if place is None else str(place)}))
        return 0
    for line in (*map(str, outcome.questions), *(f"note: {note}" for note in notes)):
        print(printable(line), file=sys.stderr)
    if options.explain:
        print("\n".join(f"# {line}".rstrip() for line in _explanation(outcome, definitions, settings)))
    if place is None:
        sys.stdout.write(outcome.text)
    else:
        print(printable(f"wrote {count(len(outcome.rules), 'rule')}: {place}"))
    return 0


def definitions_at_hand(settings: Settings, path: Path | None) -> Snapshot:
    """Return the definitions of a path, or of the configured source; empty ones where that has none.

    Raises:
        UsageError: the path does not exist.
        DocumentError: they have errors.
    """
    try:
        return inputs.fetch(settings, path, inputs.UNNAMED).snapshot
    except NoDocumentError:
        return Snapshot(version="")
    except SourceUnavailableError as error:
        warn(f"no definitions at hand, so addresses have no names: {error}")
        return Snapshot(version="")


def _measures(options: argparse.Namespace) -> Measures:
    return Measures(
        least_sessions=options.least_sessions,
        group_from=options.group_from,
        network_from=options.network_from,
        everyone_from=options.everyone_from,
        widenings=frozenset(Widening) - {Widening(name) for name in options.no_widening},
        networks=tuple(options.network),
    )


def _logs(settings: Settings, options: argparse.Namespace) -> list[str]:
    """Return the logs to read: those that are named, else this host's own, unless it is looked at now."""
    if options.flows or options.now:
        return options.flows or []
    place = settings.flow_log.output
    if not isinstance(place, Path):
        raise UsageError(
            "there is nothing to read: name flow logs by --flows, look at this host by --now, or set output"
            " and accepted = true under [flow_log]"
        )
    kept = [
        place.with_name(f"{place.name}.{number}") for number in range(settings.flow_log.keep_files, 0, -1)
    ]
    return [str(one) for one in (*kept, place) if one == place or one.exists()]


def _accept_or_refuse(traffic: Traffic, *, skips: bool) -> None:
    """Refuse records that can't be understood, unless the options leave them out.

    Raises:
        DocumentError: there are some.
    """
    if traffic.problems and not skips:
        more = traffic.wrong - len(traffic.problems)
        if more:
            warn(f"{more} more records can't be understood")
        warn("nothing is suggested; --skip-malformed leaves such records out")
        raise DocumentError(traffic.problems)
    for problem in traffic.problems:
        print(problem_text(problem.as_warning()), file=sys.stderr)
    if traffic.wrong:
        traffic.left_out["records that can't be understood"] += traffic.wrong


def _notes(traffic: Traffic, outcome: Suggestion) -> list[str]:
    """Return a person's notes on the record and on unexamined parts."""
    notes = [f"left out: {number} {what}" for what, number in sorted(traffic.left_out.items())]
    observed = {name for role in outcome.draft.roles for name in role.interfaces}
    if not observed:
        notes.append("no session was seen, so nothing is suggested")
    unseen: dict[str, int] = {}
    for interface in outcome.snapshot.network_interfaces:
        if interface.network_interface_id not in observed:
            for group in outcome.draft.rewritten.intersection(interface.security_group_ids):
                unseen[group] = unseen.get(group, 0) + 1
    notes += [
        f"no traffic was read of {count(number, 'member')} of {group}: the suggested rules are theirs, too"
        for group, number in sorted(unseen.items())
    ]
    return notes


def _write(path: Path | None, outcome: Suggestion) -> Path | None:
    """Write the documents where the options say, and return the file."""
    if path is None:
        return None
    place = path / "suggested.yaml" if path.is_dir() else path
    replace_file(place, f"# Written by `sgagent suggest`.\n{outcome.text}")
    return place


def _explanation(outcome: Suggestion, definitions: Snapshot, settings: Settings) -> Iterator[str]:
    """Yield the explanation of a suggestion for people."""
    yield "wider than what was seen"
    yield from (
        f"  {one.rule.rule_id} of {one.group}: {_statement_text(statement)}"
        for one in outcome.rules
        for statement in one.widened
    )
    yield ""
    yield from plan.lines(_plan(outcome, definitions, settings), None)
    yield ""
    yield from _unused_lines(outcome, definitions, settings)


def _statement_text(one: StatedWidening) -> str:
    port = "" if one.service.port is None else f" {one.service.port}"
    return f"{one.widening.value}: {Protocol(one.service.protocol)}{port}: {one.before} → {one.after}"


def _policies(
    outcome: Suggestion, definitions: Snapshot, settings: Settings
) -> tuple[ResolvedPolicy, ResolvedPolicy]:
    """Return the policy by the definitions at hand, and the suggested one, where traffic was seen."""
    observed = sorted(name for role in outcome.draft.roles for name in role.interfaces)
    exemptions = inputs.exemptions(settings)
    before, after = judges_of(definitions, exemptions), judges_of(outcome.snapshot, exemptions)
    old = tuple(before[name] for name in observed if name in before)
    new = tuple(after[name] for name in observed)
    return ResolvedPolicy(interfaces=old), ResolvedPolicy(interfaces=new)


def _plan(outcome: Suggestion, definitions: Snapshot, settings: Settings) -> plan.PlanReport:
    old, new = _policies(outcome, definitions, settings)
    comparison = compare(old, new)
    return plan.PlanReport(
        origin="the definitions at hand",
        comparison=comparison,
        names=ObjectNames.of(old, new, definitions=outcome.snapshot),
        sessions=(),
        operations=None,
        changes=not comparison.is_nothing,
    )


def _unused_lines(outcome: Suggestion, definitions: Snapshot, settings: Settings) -> Iterator[str]:
    unused, accepting = _unused(outcome, definitions, settings)
    yield f"rules in force that nothing seen needs: {len(unused)} of {accepting} that accept"
    hits = _hits(settings) if unused else {}
    for group, rule_id in unused:
        yield f"  {rule_id} of {group}: {_hits_text(hits.get((group, rule_id)))}"


def _unused(
    outcome: Suggestion, definitions: Snapshot, settings: Settings
) -> tuple[list[tuple[str, str]], int]:
    """Return the accepting rules in force that decided nothing that was seen, and how many accept."""
    old, _ = _policies(outcome, definitions, settings)
    judges = {one.name: one for one in old.interfaces}
    rules = {
        (rule.security_group_id, rule.rule_id)
        for one in old.interfaces
        for way in outcome.draft.directions
        for rule in one.toward(way).rules
        if rule.policy is Policy.ACCEPT
    }
    seen = [one for one in outcome.observations if one.interface in judges]
    decided = (found.decision.rule for found in judge(judges, seen))
    used = {(rule.security_group_id, rule.rule_id) for rule in decided if rule is not None}
    return sorted(rules - used), len(rules)


def _hits(settings: Settings) -> dict[tuple[str, str], HitTimes]:
    """Return the hits of rules: by the running agent's counters, else by those that the last one kept."""
    try:
        parts = ask(settings, HitsQuery(), HitsAnswer).interfaces
    except NoAgentError:
        kept, _ = CounterFile(settings.state.directory, read_boot_id()).load()
        counted = [
            (key.security_group_id, key.rule_id, times)
            for key, times in kept.times
            if isinstance(key, RuleCounter)
        ]
    else:
        counted = [
            (hit.security_group_id, hit.rule_id, hit.times)
            for part in parts
            for hit in part.hits
            if hit.rule_id and hit.security_group_id and hit.times is not None
        ]
    found: dict[tuple[str, str], HitTimes] = {}
    for group, rule_id, times in counted:
        known = found.get((group, rule_id), times)
        hits = [one.last_hit_at for one in (known, times) if one.last_hit_at is not None]
        since = max(known.counted_since, times.counted_since)
        found[group, rule_id] = HitTimes(counted_since=since, last_hit_at=max(hits, default=None))
    return found


def _hits_text(times: HitTimes | None) -> str:
    if times is None:
        return "not counted here"
    last = "no hit" if times.last_hit_at is None else f"last hit {instant(int(times.last_hit_at))}"
    return f"{last}, counted since {instant(int(times.counted_since))}"


def _as_json(
    outcome: Suggestion, definitions: Snapshot, settings: Settings, *, explains: bool
) -> dict[str, object]:
    fields: dict[str, object] = {
        "document": outcome.native,
        "rules": list(map(_rule_as_json, outcome.rules)),
        "questions": list(map(_question_as_json, outcome.questions)),
    }
    if explains:
        unused, accepting = _unused(outcome, definitions, settings)
        hits = _hits(settings)
        rules = [_unused_as_json(*key, hits.get(key)) for key in unused]
        fields["plan"] = plan.as_json(_plan(outcome, definitions, settings))
        fields["unused"] = {"accepting": accepting, "rules": rules}
    return fields


def _unused_as_json(group: str, rule_id: str, times: HitTimes | None) -> dict[str, object]:
    return {
        "security_group_id": group,
        "rule_id": rule_id,
        "counted_since": instant(int(times.counted_since)) if times else None,
        "last_hit_at": instant(int(times.last_hit_at)) if times and times.last_hit_at else None,
    }


def _rule_as_json(one: SuggestedRule) -> dict[str, object]:
    evidence = one.evidence
    return {
        "rule_id": one.rule.rule_id,
        "security_group_id": one.group,
        "sessions": evidence.sessions,
        "peers": len(evidence.peers),
        "first_seen": None if evidence.first is None else instant(evidence.first),
        "last_seen": None if evidence.last is None else instant(evidence.last),
        "widened": [
            {
                "widening": statement.widening.value,
                "protocol": str(Protocol(statement.service.protocol)),
                "port": statement.service.port,
                "from": statement.before,
                "to": statement.after,
            }
            for statement in one.widened
        ],
    }


def _question_as_json(one: Question) -> dict[str, object]:
    return {
        "reason": one.doubt.value,
        "network_interface_id": one.interface,
        "direction": one.direction.value,
        "protocol": str(Protocol(one.protocol)),
        "ports": list(one.ports),
        "peers": list(map(far_text, one.peers)),
        "sessions": one.sessions,
        "first_seen": instant(one.first),
        "last_seen": instant(one.last),
        "message": str(one),
    }
