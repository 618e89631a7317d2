"""The status as text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sgagent.agent.clock import age, clock_time, moment, time_left
from sgagent.agent.control.requests import StatusAnswer
from sgagent.agent.names.name_table import NameState, NameStatus
from sgagent.agent.posture import Posture
from sgagent.agent.state.directory import Trigger
from sgagent.analysis.doctor.findings import DoctorCode
from sgagent.core.errors import count, reason_at
from sgagent.ports import DeliveredPart

_MEANINGS = {
    Posture.ENFORCING: ("enforcing", ""),
    Posture.OBSERVING: ("observing", "nothing is dropped"),
    Posture.IDLE: ("idle", "no interface of this host is bound"),
    Posture.CLOSED: ("closed", "no policy that can be enforced is loaded"),
    Posture.STANDING: ("not enforcing", "no policy loaded; the previous run's rules stay active"),
    Posture.NOTHING: ("not enforcing", "no policy loaded"),
}
"""In a word or two, and what that means."""

_STARTING = ("starting", "it waits for its source; the previous run's rules, if any, stay active until then")
"""Before the first step."""

_WITHOUT_PROOF = (Posture.STANDING, Posture.NOTHING)
"""In which there is no policy that a table could be proved to follow."""

_MOST_NAMES = 10
_MOST_ADDRESSES = 4
"""Of a name."""


def headline(answer: StatusAnswer, now: float) -> str:
    """Return in one line how the agent treats traffic, since when, and the meaning of that."""
    words, meaning = _STARTING if answer.posture_since is None else _MEANINGS[answer.posture]
    if answer.awaits_documents:
        meaning = "the source holds no document yet"
    since = "" if answer.posture_since is None else f" since {moment(answer.posture_since, now)}"
    return f"{words}{since}" + (f": {meaning}" if meaning else "")


def facts(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield the other facts, each with a label; an empty one goes on with the fact before.

    Args:
        answer: what the agent said.
        now: seconds since the epoch.
    """
    yield from _enforcement(answer, now)
    yield from _expiring(answer, now)
    yield from _recurring(answer)
    yield from _names(answer)
    yield from _platform(answer)
    yield from _commands(answer, now)
    yield from _sessions_cut(answer, now)
    yield from _source(answer, now)
    yield from _agent(answer)


def _enforcement(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield the snapshot in force, and why nothing newer is."""
    if answer.snapshot_version is None:
        yield "snapshot", "none"
    else:
        since = "" if answer.snapshot_since is None else f", since {moment(answer.snapshot_since, now)}"
        yield "snapshot", f"{answer.snapshot_version}{since}"
    if answer.is_refused:
        yield (
            "refused",
            f"the newest definitions have {count(answer.errors, 'error')}; the previous ones stay active",
        )
        yield from _listed("", answer.first_errors, answer.errors)
    elif answer.errors:
        yield from _listed("errors", (f"{answer.errors} on this host", *answer.first_errors))
    if answer.kernel_error is not None:
        yield "kernel", f"refused the newest rules: {answer.kernel_error}"
    if answer.warnings or answer.unknown_objects:
        unknown = count(answer.unknown_objects or 0, "unknown object")
        yield "warnings", f"{answer.warnings or 0}, with {unknown} in the rules of this host"
        yield from _listed("", answer.first_warnings, answer.warnings if answer.first_warnings else None)
    yield from _guardrails(answer)
    missing = [f"no link is {one}" for one in answer.first_unbound_expected]
    yield from _listed("unbound", missing, answer.unbound_expected)
    yield from _drift(answer, now)
    yield from _verification(answer, now)
    yield from _doctor(answer)
    if answer.counters_reset_at is not None:
        times, last = count(answer.counters_reset, "time"), moment(answer.counters_reset_at, now)
        yield "counters", f"another process reset them {times} since the agent started, last {last};"
        yield "", "what was counted since the reading before, a second at most, is missing from the totals"


def _guardrails(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield whether the statements are kept that no policy may break."""
    found = answer.guardrails
    if found is None:
        return
    statements = count(found.statements, "statement")
    if found.broken:
        whose = f"version {found.refused}, which is refused" if found.refused else "what is in force"
        yield from _listed(
            "guardrails", (f"{statements}, broken by {whose}:", *(one.text for one in found.broken))
        )
    else:
        yield "guardrails", f"{statements}, kept"
    if found.fault is not None:
        yield "", f"newer ones can't be read: {found.fault}"


def _doctor(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield the doctor's findings: whatever else touches the policy."""
    if answer.doctor is not None and answer.doctor.codes:
        numbers = {"high": answer.doctor.high, "medium": answer.doctor.medium, "low": answer.doctor.low}
        counts = ", ".join(f"{number} {word}" for word, number in numbers.items() if number)
        yield "doctor", f"{counts}: {', '.join(answer.doctor.codes)} ('sgagent doctor' shows them)"
        if DoctorCode.KERNEL_FEATURE.value in answer.doctor.codes:
            yield "owner", "none before Linux 6.9: every process with CAP_NET_ADMIN can change the table"


def _verification(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield whether the table in the kernel was proved equal to the policy."""
    proof = answer.verified
    if answer.posture in _WITHOUT_PROOF:
        return
    if not answer.is_verifying:
        yield "verified", "no: the configuration says verify.after_apply = false"
    elif proof is None:
        yield "verified", "not yet: the proof of this table is under way"
    elif proof.outcome == "proved":
        by = "" if proof.generation is None else f" (generation {proof.generation})"
        says = f"{proof.version or 'the policy'} says{by}"
        yield "verified", f"proved {moment(proof.at, now)}: the table does what {says}"
    else:
        first, *others = map(str.strip, answer.verified_in_words)
        yield from _listed("verified", (f"{first} ({moment(proof.at, now)})", *others))


def _drift(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield other processes' changes of the rules, and which process made them."""
    if answer.is_drift_contested:
        yield "drift", "another process keeps changing the rules; the agent waits between repairs"
    elif answer.is_drift_unhealed:
        yield "drift", "another process changed the rules, and the agent could not repair them"
    elif answer.drift_repaired:
        yield "drift", f"repaired {count(answer.drift_repaired, 'time')} since the agent started"
    last = answer.last_drift
    if last is not None:
        who = "someone" if last.process_id is None else f"{last.process_name} (process {last.process_id})"
        yield "", f"{moment(last.at, now)}: {who} changed {', '.join(last.differed)}"


def _expiring(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield which rules end, and when."""
    lines = [
        f"{clock_time(rule.expires_at)}, in {age(max(0.0, rule.expires_at - now))}: {rule.rule_id} of"
        f" {rule.security_group_id} ({rule.policy.value})"
        for rule in answer.first_expiring
    ]
    yield from _listed("expires", lines, answer.expiring)


def _recurring(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield which rules have hours, and until when these hold or not."""
    lines = [
        f"{rule.rule_id} of {rule.security_group_id} ({rule.policy.value}),"
        f" {rule.hours}: {'on' if rule.is_active else 'off'}"
        + (f" until {clock_time(rule.changes_at)}" if rule.changes_at is not None else "")
        for rule in answer.first_recurring
    ]
    yield from _listed("hours", lines, answer.recurring)


def _names(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield the DNS's answers for names in rules, names with a fault or without addresses first."""
    names = sorted(answer.names, key=lambda one: one.state is NameState.RESOLVED and one.fault is None)
    yield from _listed("names", [_name(one) for one in names[:_MOST_NAMES]], len(names))


def _name(one: NameStatus) -> str:
    more = f" and {len(one.addresses) - _MOST_ADDRESSES} more" * (len(one.addresses) > _MOST_ADDRESSES)
    found = f": {', '.join(one.addresses[:_MOST_ADDRESSES])}{more}" if one.addresses else ""
    authenticated = " (authenticated by DNSSEC)" if one.is_authenticated else ""
    fault = f"; {one.fault}" if one.fault else ""
    return f"{one.name} {one.state.value}{found}{authenticated}{fault}"


def _platform(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield the traffic that passes although no group accepts it, and how to end that."""
    if answer.platform:
        lines = (f"{entry}: always allowed, whatever the groups say" for entry in answer.platform)
        yield from _listed("platform", (*lines, "platform = [] in the configuration switches that off"))


def _commands(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield the definitions and modes that were set by hand, and until when."""
    if answer.pending is not None:
        back = answer.pending.goes_back_to or "nothing, as before"
        yield "pending", f"{answer.pending.version} is on trial: goes back to {back} in"
        yield "", f"{time_left(answer.pending.seconds_left)}, unless 'sgagent confirm' runs"
    if answer.pending_mode is not None:
        what = answer.pending_mode.mode.value if answer.pending_mode.mode else "the configuration's mode"
        where = answer.pending_mode.interface or "every interface"
        left = time_left(answer.pending_mode.seconds_left)
        yield "pending", f"{what} on {where} is on trial: ends in {left}, unless 'sgagent confirm' runs"
    if answer.held_change is not None:
        yield "waiting", f"the source's {answer.held_change.version}, which would cut"
        yield from _listed("", list(map(str, answer.held_change.sessions)))
        yield "", answer.held_change.remedy
    if answer.held is not None:
        done = "rolled back to" if answer.held.origin is Trigger.ROLLBACK else "applied"
        since = "" if answer.held.since is None else f" {moment(answer.held.since, now)}"
        yield "by hand", f"{done} {answer.held.version}{since};"
        yield "", f"the source's {answer.held.held_back} is held back until it delivers another;"
        yield "", answer.held.remedy
    for override in answer.mode_overrides:
        where = "every interface" if override.interface is None else override.interface
        yield "mode", f"{override.mode.value} on {where}, by 'sgagent mode'"


def _sessions_cut(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield whom the policy locked out while they were in."""
    yield from _listed("flow tables", answer.flow_tables)
    if answer.sessions_cut_at is not None:
        sessions = count(answer.sessions_cut, "open session")
        yield "cut", f"{sessions}, by the change at {moment(answer.sessions_cut_at, now)}"
        yield from _listed("", list(map(str, answer.first_sessions_cut)), answer.sessions_cut)


def _source(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield where definitions come from, and whether they can be had."""
    if answer.is_source_up is None:
        how = "not asked yet"
    elif answer.is_source_up:
        how = "up, without a document yet" if answer.awaits_documents else "up"
    else:
        reached = answer.source_reached_at
        last = "never reached" if reached is None else f"reached last {moment(reached, now)}"
        how = f"down: {reason_at(answer.source, answer.source_error or 'no reason is known')} ({last})"
    if len(answer.sources) < _SEVERAL:
        signed = "".join(map(_signature, answer.sources))
        yield "source", f"{answer.source}, {how}{signed}"
        return
    yield "sources", how
    for one in answer.sources:
        state = "up" if one.fault is None else f"its older part stays: {reason_at(one.place, one.fault)}"
        since = "" if one.delivered_at is None else f", delivered {moment(one.delivered_at, now)}"
        yield "", f"{one.place}, {state}{since}{_signature(one)}"


_SEVERAL = 2


def _signature(one: DeliveredPart) -> str:
    """Return the serial of a source's signature and its key in words; nothing without."""
    return f", serial {one.signed.serial} signed by {one.signed.key_id}" if one.signed else ""


def _agent(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield how the program itself is doing."""
    ready = "ready" if answer.is_ready else "not ready"
    program = f"sgagent {answer.agent_version}, process {answer.pid}, {ready}"
    yield from _listed("agent", (program, *answer.not_ready_because))
    for fault in answer.faults:
        yield "fault", fault


def _listed(label: str, lines: Sequence[str], number: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield lines under a label, and how many more there are of a number; None is no more."""
    for place, line in enumerate(lines):
        yield "" if place else label, line
    if number is not None and number > len(lines):
        yield "", f"… and {number - len(lines)} more"
