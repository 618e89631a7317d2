"""The outcome: proved documents, the evidence of each rule, and the questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sgagent.core.errors import count
from sgagent.core.model import Direction, Policy, Protocol, SecurityGroupRule, Snapshot
from sgagent.core.rule_values import instant_text
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writer import Native, as_yaml, write_document
from sgagent.suggest.conversations import Traffic, UnprovedSuggestionError
from sgagent.suggest.far_ends import Measures, far_text
from sgagent.suggest.observations import SCANNED_PORTS, Doubt, FarEnd, Observation, Service, observe
from sgagent.suggest.proof import Judged, judge, judges_of, prove, with_descriptions
from sgagent.suggest.suggestion import Draft, StatedWidening, draft


@dataclass(slots=True)
class Evidence:
    """The observations that a rule rests on."""

    sessions: int = 0
    peers: set[FarEnd] = field(default_factory=set)
    first: int | None = None
    last: int | None = None

    def add(self, one: Observation) -> None:
        """Count an observation."""
        tally = one.tally
        self.sessions += tally.sessions
        self.peers.add(one.far)
        self.first = tally.first if self.first is None else min(self.first, tally.first)
        self.last = tally.last if self.last is None else max(self.last, tally.last)

    def __str__(self) -> str:
        """Return it in words."""
        if self.first is None or self.last is None:
            return "nothing was seen that needs it"
        span = f"{instant(self.first)} to {instant(self.last)}"
        return f"{count(self.sessions, 'session')} of {count(len(self.peers), 'peer')}, {span}"


def instant(second: int) -> str:
    """Return a second in RFC 3339, in UTC."""
    return instant_text(datetime.fromtimestamp(second, UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedRule:
    """A rule with its evidence, and how it is wider than that."""

    group: str
    rule: SecurityGroupRule
    evidence: Evidence
    widened: tuple[StatedWidening, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Doubtful sessions of one kind, which nothing admits."""

    doubt: Doubt
    interface: str
    direction: Direction
    protocol: int
    ports: tuple[int, ...]
    """Sorted; none for protocols without ports."""

    peers: tuple[FarEnd, ...]
    sessions: int
    first: int
    last: int

    def __str__(self) -> str:
        """Return the question."""
        peers = [far_text(far) for far in self.peers[:_FEW]]
        more = len(self.peers) - len(peers)
        ports = " ".join(map(str, self.ports[:_FEW])) + (" …" if len(self.ports) > _FEW else "")
        way = "from" if self.direction is Direction.INGRESS else "to"
        who = ", ".join(peers) + (f" and {more} more" if more else "")
        what = f"{Protocol(self.protocol)} {ports}".rstrip()
        when = (
            instant(self.first)
            if self.first == self.last
            else f"{instant(self.first)} to {instant(self.last)}"
        )
        sessions = count(self.sessions, "session")
        question = _QUESTIONS[self.doubt]
        if self.doubt in (Doubt.ONCE, Doubt.FEW) and len(self.peers) >= Measures().everyone_from:
            question += " --least-sessions 1 counts them"
        return f"{what} {way} {who} at {self.interface}: {sessions}, {when}: {question}"


_FEW = 5
_QUESTIONS = {
    Doubt.ONCE: "seen once each; is it needed?",
    Doubt.FEW: "seen too seldom; is it needed?",
    Doubt.SCAN: "looks like a scan; is it wanted?",
    Doubt.REFUSED: "it was refused; is it missed?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A suggestion that is proved."""

    draft: Draft
    snapshot: Snapshot
    """As it was read back from the text."""

    native: Native
    text: str
    rules: tuple[SuggestedRule, ...]
    questions: tuple[Question, ...]
    observations: tuple[Observation, ...]


def suggest(
    traffic: Traffic,
    definitions: Snapshot,
    measures: Measures,
    limits: Limits,
    *,
    directions: Collection[Direction] = tuple(Direction),
    kept: frozenset[str] = frozenset(),
) -> Suggestion:
    """Return documents that admit the traffic, and nothing beyond their statements.

    Args:
        traffic: what was read.
        definitions: at hand; they name addresses, and their rules are replaced where something was seen.
        measures: from when on something is admitted, or widened.
        limits: of documents.
        directions: that are looked at; rules of the other one stay.
        kept: the ids of rules that stay, too. What they admit needs no other rule.

    Raises:
        DocumentError: the definitions at hand make no sense.
        UnprovedSuggestionError: the suggestion does not hold what it states.
    """
    passed = {one: tally for one, tally in traffic.passed.items() if one.direction in directions}
    refused = {one: tally for one, tally in traffic.refused.items() if one.direction in directions}
    observations, whole = observe(passed, definitions)
    needing = list(_not_admitted(observations, whole, kept)) if kept else observations
    drafted = draft(needing, whole, measures, directions, kept)
    first = tuple(judge(judges_of(drafted.snapshot), observations))
    evidence = _evidence(first)
    texts = {
        rule.rule_id: str(evidence.get(rule.rule_id, Evidence()))
        if rule.policy is Policy.ACCEPT
        else "all else that leaves"
        for _, rule in _rules_of(drafted)
        if rule.rule_id not in kept
    }
    native = write_document(with_descriptions(drafted.snapshot, texts))
    text = as_yaml(native)
    written, _ = parse_documents([DocumentFile("<suggested>", text.encode())], limits, "")
    if replace(written, version="") != replace(drafted.snapshot, version=""):
        raise UnprovedSuggestionError(
            "the document does not say what was suggested; nothing is suggested, please report this"
        )
    judges = judges_of(written)
    prove(drafted, judges, first)
    for one in observe(refused, whole)[0]:
        one.doubt = Doubt.REFUSED
        observations.append(one)
    known = {one.network_interface_id for one in whole.network_interfaces}
    asked = [one for one in observations if one.doubt and one.interface in known]
    return Suggestion(
        draft=drafted,
        snapshot=written,
        native=native,
        text=text,
        rules=tuple(_suggested(drafted, evidence)),
        questions=tuple(_questions(judge(judges, asked))),
        observations=tuple(one for one in observations if one.doubt is not Doubt.REFUSED),
    )


def _not_admitted(
    observations: Iterable[Observation], definitions: Snapshot, kept: frozenset[str]
) -> Iterator[Observation]:
    """Yield the observations that remaining rules do not admit."""
    groups = (
        replace(group, rules=tuple(rule for rule in group.rules if rule.rule_id in kept))
        for group in definitions.security_groups
    )
    judges = judges_of(replace(definitions, security_groups=tuple(groups)))
    for one in judge(judges, observations):
        if one.decision.rule is None:
            yield one.observation


def _evidence(judged: Iterable[Judged]) -> dict[str, Evidence]:
    """Return the evidence of each rule; scans are no evidence, even where they are admitted."""
    found: dict[str, Evidence] = defaultdict(Evidence)
    for one in judged:
        rule = one.decision.rule
        if rule is not None and rule.policy is Policy.ACCEPT and one.observation.doubt is not Doubt.SCAN:
            found[rule.rule_id].add(one.observation)
    return found


def _rules_of(drafted: Draft) -> list[tuple[str, SecurityGroupRule]]:
    """Return the suggested rules and those that stay, with their groups."""
    return [
        (group.security_group_id, rule)
        for group in drafted.snapshot.security_groups
        for rule in group.rules
        if rule.direction in drafted.directions
        and (group.security_group_id in drafted.rewritten or rule.rule_id in drafted.kept)
    ]


def _suggested(drafted: Draft, evidence: Mapping[str, Evidence]) -> Iterable[SuggestedRule]:
    by_service: dict[tuple[str, Service], list[StatedWidening]] = defaultdict(list)
    for one in drafted.statements:
        by_service[one.group, one.service].append(one)
    for group, rule in _rules_of(drafted):
        widened: list[StatedWidening] = []
        if rule.policy is Policy.ACCEPT:
            widened = [
                one
                for service in services_of(rule)
                for one in by_service.get((group, service), ())
                if one.named is None or one.named in rule.authorization_objects
            ]
        found = evidence.get(rule.rule_id, Evidence())
        yield SuggestedRule(group=group, rule=rule, evidence=found, widened=tuple(widened))


def services_of(rule: SecurityGroupRule) -> Iterable[Service]:
    """Yield the services of a suggested rule."""
    for protocol in rule.protocols:
        if not protocol.has_ports:
            yield Service(rule.direction, protocol.wire_number, None)
        for first, last in getattr(rule.ports, "ranges", ()) if protocol.has_ports else ():
            yield from (
                Service(rule.direction, protocol.wire_number, port) for port in range(first, last + 1)
            )


def _questions(judged: Iterable[Judged]) -> list[Question]:
    """Return questions about denied traffic, the most sessions first; the ports of a scan are one."""
    asked = [
        found.observation
        for found in judged
        if found.decision.verdict is Policy.DROP or found.observation.doubt in (Doubt.SCAN, Doubt.REFUSED)
    ]
    refused = Counter((one.interface, one.far) for one in asked if one.doubt is Doubt.REFUSED)
    parts: dict[tuple[object, ...], list[Observation]] = defaultdict(list)
    for one in asked:
        is_scan = one.doubt is Doubt.SCAN or refused[one.interface, one.far] >= SCANNED_PORTS
        common = one.far if is_scan else one.service.port
        parts[one.doubt, one.interface, one.service.direction, one.service.protocol, common].append(one)
    questions = [_question(some) for some in parts.values()]
    return sorted(questions, key=lambda one: (one.doubt.value, -one.sessions, str(one)))


def _question(some: Sequence[Observation]) -> Question:
    first = some[0]
    assert first.doubt is not None  # noqa: S101 - only doubtful ones are asked about; for the type checker
    return Question(
        doubt=first.doubt,
        interface=first.interface,
        direction=first.service.direction,
        protocol=first.service.protocol,
        ports=tuple(sorted({one.service.port for one in some if one.service.port is not None})),
        peers=tuple(sorted({one.far for one in some}, key=lambda far: (far[0].bits, far[1]))),
        sessions=sum(one.tally.sessions for one in some),
        first=min(one.tally.first for one in some),
        last=max(one.tally.last for one in some),
    )
