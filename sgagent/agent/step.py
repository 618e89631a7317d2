"""The result of one reconcile step, and the sessions it cut, for the log, the status and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sgagent.core.binding import NO_FACTS, HostFacts
from sgagent.core.errors import Problem
from sgagent.core.lockout import NamedCut
from sgagent.core.policy import Endpoint, ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.nft.marks import EnforcementState
from sgagent.nft.names import CounterKey


class StepEnd(Enum):
    """How a step ended."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """The kernel refused; the previous rules stay active."""

    WAITING = "waiting"
    """There is nothing to enforce yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tamperer:
    """The process that changed our table."""

    process_id: int
    """As the host numbers processes, whatever namespace it is in."""

    process_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step found and did."""

    outcome: StepEnd
    policy: ResolvedPolicy | None = None
    """What is enforced now, as far as this agent knows."""

    version: str | None = None
    """The snapshot that is enforced."""

    documents: tuple[DocumentFile, ...] = ()
    """What that snapshot was read from."""

    held_back: str | None = None
    """The source's newest snapshot, if a command has put another one in force."""

    problems: tuple[Problem, ...] = ()
    """Of the newest delivery: the warnings of one that is enforced, the errors of one that was refused."""

    is_refused: bool = False
    """Whether the newest delivery has errors, so that an older one stays in force."""

    source_error: str | None = None
    """Why the source can't be reached."""

    awaits_documents: bool = False
    """Whether the host never enforced anything and the source holds no document yet, as after an install."""

    kernel_error: str | None = None
    unknown_objects: int = 0
    counters: Mapping[str, CounterKey] | None = None
    """What the counters of the table count; None where it was not compiled."""

    was_drift: bool = False
    """Whether the step found changes by another process and repaired them."""

    differed: tuple[str, ...] = ()
    """The first few objects that another process had changed, like ``chain ingress/eth0``."""

    tamperer: Tamperer | None = None
    """The process that made the last change, if it is known."""

    is_closed: bool = False
    """Whether the host is closed for lack of any snapshot (§9.2)."""

    is_standing: bool = False
    """Whether, for lack of any snapshot, rules that an earlier agent left stay in force."""

    opened_to: tuple[Endpoint, ...] = ()
    """Where the way to the source was opened in rules that an earlier agent left (§7.4)."""

    uncached: tuple[str, ...] = ()
    """Bound interfaces whose sessions are judged at every packet, as the mark has no bits for them."""

    state: EnforcementState | None = None
    """Under which accepted sessions are remembered now; None where that did not change or is not known."""

    is_first_table: bool = False
    """Whether there was no table before."""

    facts: HostFacts = NO_FACTS
    compile_seconds: float = 0.0
    apply_seconds: float = 0.0
    operations: int = 0
    sessions_cut: tuple[NamedCut, ...] = ()
    """Open sessions that the change cuts, of those that were looked at."""


def summary(step: Step) -> str:
    """Return in one line what is enforced."""
    if step.is_standing:
        return "no policy loaded; the previous run's rules stay active"
    if step.awaits_documents:
        return "nothing is enforced: the source holds no document yet"
    if step.policy is None:
        return "nothing is enforced: no policy loaded"
    names = ", ".join(interface.name for interface in step.policy.bound) or "no interface"
    if step.is_closed:
        return f"closed, as no policy is loaded: {names}"
    refused = "; a newer one was refused" if step.is_refused else ""
    held = f"; the source's {step.held_back} is held back" if step.held_back else ""
    return f"enforcing {step.version} on {names}{refused}{held}"
