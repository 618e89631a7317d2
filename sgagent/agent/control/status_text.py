"""The status as text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.agent.clock import age, clock_time, count, moment, time_left
from sgagent.agent.control.requests import StatusAnswer
from sgagent.agent.names.name_table import NameState
from sgagent.agent.state.directory import Trigger
from sgagent.agent.status import Posture

_MEANINGS = {
    Posture.ENFORCING: ("enforcing", ""),
    Posture.OBSERVING: ("observing", "nothing is dropped"),
    Posture.IDLE: ("idle", "no interface of this host is bound"),
    Posture.CLOSED: ("closed", "no policy that can be enforced is loaded"),
    Posture.STANDING: ("not enforcing", "no policy loaded; the previous run's rules stay active"),
    Posture.NOTHING: ("not enforcing", "no policy loaded"),
}
"""In a word or two, and what that means."""

_MOST_NAMES = 10
_MOST_ADDRESSES = 4
"""Of a name."""


def headline(answer: StatusAnswer, now: float) -> str:
    """Return in one line what the agent does to traffic, since when, and what that means."""
    words, meaning = _MEANINGS[answer.posture]
    if answer.awaits_documents:
        meaning = "the source holds no document yet"
    since = "" if answer.posture_since is None else f" since {moment(answer.posture_since, now)}"
    return f"{words}{since}" + (f": {meaning}" if meaning else "")


def facts(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield what else there is to say, each with a label; an empty one goes on with the fact before.

    Args:
        answer: what the agent said.
        now: seconds since the epoch.
    """
    yield from _enforcement(answer, now)
    yield from _expiring(answer, now)
    yield from _names(answer)
    yield from _platform(answer)
    yield from _orders(answer, now)
    yield from _sessions_cut(answer, now)
    yield from _source(answer, now)
    yield from _agent(answer)


def _enforcement(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield what is in force, and why nothing newer is."""
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
        for error in answer.first_errors:
            yield "", error
        if answer.errors > len(answer.first_errors):
            yield "", f"… and {answer.errors - len(answer.first_errors)} more"
    elif answer.errors:
        yield "errors", f"{answer.errors} on this host"
        for error in answer.first_errors:
            yield "", error
    if answer.kernel_error is not None:
        yield "kernel", f"refused the newest rules: {answer.kernel_error}"
    if answer.warnings or answer.unknown_objects:
        unknown = count(answer.unknown_objects or 0, "unknown object")
        yield "warnings", f"{answer.warnings or 0}, with {unknown} in the rules of this host"
        for warning in answer.first_warnings:
            yield "", warning
        if answer.warnings and answer.first_warnings and answer.warnings > len(answer.first_warnings):
            yield "", f"… and {answer.warnings - len(answer.first_warnings)} more"
    yield from _drift(answer, now)
    yield from _verification(answer, now)


def _verification(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield whether the table in the kernel was proved to do what the policy says."""
    if answer.verified_at is None:
        return
    if answer.verified_outcome == "proved":
        yield "verified", f"proved {moment(answer.verified_at, now)}: the table does what the policy says"
    else:
        first, *others = answer.verified_in_words
        yield "verified", f"{first} ({moment(answer.verified_at, now)})"
        yield from (("", line.strip()) for line in others)


def _drift(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield what another process changed in the rules, and which process."""
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
    for number, rule in enumerate(answer.first_expiring):
        left = age(max(0.0, rule.expires_at - now))
        name = f"{rule.rule_id} of {rule.security_group_id} ({rule.policy.value})"
        yield "" if number else "expires", f"{clock_time(rule.expires_at)}, in {left}: {name}"
    if answer.expiring > len(answer.first_expiring):
        yield "", f"… and {answer.expiring - len(answer.first_expiring)} more"


def _names(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield what the DNS says of names in rules; first those of which there is something to say."""
    names = sorted(answer.names, key=lambda one: one.state is NameState.RESOLVED and one.fault is None)
    for number, one in enumerate(names[:_MOST_NAMES]):
        more = f" and {len(one.addresses) - _MOST_ADDRESSES} more" * (len(one.addresses) > _MOST_ADDRESSES)
        found = f": {', '.join(one.addresses[:_MOST_ADDRESSES])}{more}" if one.addresses else ""
        authenticated = " (authenticated by DNSSEC)" if one.is_authenticated else ""
        fault = f"; {one.fault}" if one.fault else ""
        yield "" if number else "names", f"{one.name} {one.state.value}{found}{authenticated}{fault}"
    if len(names) > _MOST_NAMES:
        yield "", f"… and {len(names) - _MOST_NAMES} more"


def _platform(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield what passes although no group accepts it, and how to end that."""
    for number, entry in enumerate(answer.platform):
        yield "" if number else "platform", f"{entry}: always allowed, whatever the groups say"
    if answer.platform:
        yield "", "platform = [] in the configuration switches that off"


def _orders(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield what was applied by hand, and until when."""
    if answer.pending is not None:
        back = answer.pending.goes_back_to or "nothing, as before"
        yield "pending", f"{answer.pending.version} is on trial: goes back to {back} in"
        yield "", f"{time_left(answer.pending.seconds_left)}, unless 'sgagent confirm' runs"
    if answer.held is not None:
        done = "rolled back to" if answer.held.origin is Trigger.ROLLBACK else "applied"
        since = "" if answer.held.since is None else f" {moment(answer.held.since, now)}"
        yield "by hand", f"{done} {answer.held.version}{since};"
        yield "", f"the source's {answer.held.held_back} is held back until it delivers another"
    for override in answer.mode_overrides:
        where = "every interface" if override.interface is None else override.interface
        yield "mode", f"{override.mode.value} on {where}, by 'sgagent mode'"


def _sessions_cut(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield whom the policy locked out while they were in."""
    if answer.sessions_cut_at is not None:
        sessions = count(answer.sessions_cut, "open session")
        yield "cut", f"{sessions}, by the change at {moment(answer.sessions_cut_at, now)}"
        for cut in answer.first_sessions_cut:
            yield "", str(cut)
        if answer.sessions_cut > len(answer.first_sessions_cut):
            yield "", f"… and {answer.sessions_cut - len(answer.first_sessions_cut)} more"


def _source(answer: StatusAnswer, now: float) -> Iterator[tuple[str, str]]:
    """Yield where definitions come from, and whether they can be had."""
    match answer.is_source_up:
        case True if answer.awaits_documents:
            yield "source", f"{answer.source}, up, without a document yet"
        case True:
            yield "source", f"{answer.source}, up"
        case False:
            reached = answer.source_reached_at
            last = "never reached" if reached is None else f"reached last {moment(reached, now)}"
            yield "source", f"{answer.source}, down: {answer.source_error or 'no reason is known'} ({last})"
        case None:
            yield "source", f"{answer.source}, not asked yet"


def _agent(answer: StatusAnswer) -> Iterator[tuple[str, str]]:
    """Yield how the program itself is doing."""
    ready = "ready" if answer.is_ready else "not ready"
    yield "agent", f"sgagent {answer.agent_version}, process {answer.pid}, {ready}"
    for reason in answer.not_ready_because:
        yield "", reason
    for fault in answer.faults:
        yield "fault", fault
