"""The result of one reconcile step, for the log, the status and the metrics; and its lines in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, assert_never

from sgagent.agent.definitions import MissingLink
from sgagent.agent.guardrails import NO_REPORT, GuardrailReport
from sgagent.agent.manual_override import HeldBack
from sgagent.agent.names.name_table import NameState, NameStatus
from sgagent.core.binding import NO_FACTS, HostFacts, Link, is_hidden
from sgagent.core.counter_keys import CounterKey
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import Problem, Severity
from sgagent.core.guardrails import named, packet_text
from sgagent.core.link_topology import fault_of
from sgagent.core.lockout import NamedCut
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.nft.marks import EnforcementState
from sgagent.ports import DeliveredPart

if TYPE_CHECKING:  # 50 ms for 'sgagent status', which names steps and makes none
    from sgagent.agent.lockout_hold import HeldChange


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
    """The process that changed our table, as far as the kernel named it."""

    process_id: int | None = None
    """As the host numbers processes, whatever namespace it is in."""

    process_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step's inputs and results."""

    outcome: StepEnd
    policy: ResolvedPolicy | None = None
    """The policy that is enforced now, as far as this agent knows."""

    version: str | None = None
    """The snapshot that is enforced."""

    documents: tuple[DocumentFile, ...] = ()
    """The documents of that snapshot."""

    parts: tuple[DeliveredPart, ...] = ()
    """What each source delivered last; with one source alone one that has no place."""

    held_back: str | None = None
    """The source's newest snapshot, if a command has put another one in force."""

    problems: tuple[Problem, ...] = ()
    """Of the newest delivery: the warnings of one that is enforced, the errors of one that was refused."""

    is_refused: bool = False
    """Whether the newest delivery has errors, so that an older one stays in force."""

    guardrails: GuardrailReport = NO_REPORT
    """The result of the guardrails' statements (§13.4)."""

    held_change: HeldChange | None = None
    """The source's newest snapshot, if it waits, as it would cut a login."""

    held_documents: tuple[DocumentFile, ...] = ()
    """Its documents."""

    source_error: str | None = None
    """Why the source can't be reached."""

    awaits_documents: bool = False
    """Whether the host never enforced anything and the source holds no document yet, as after an install."""

    kernel_error: str | None = None
    unknown_objects: int = 0
    snapshot: Snapshot | None = None
    """The enforced definitions, as parsed; None without any."""

    counters: Mapping[str, CounterKey] | None = None
    """The keys of the table's counters; None where it was not compiled."""

    was_drift: bool = False
    """Whether the step found changes by another process and repaired them."""

    differed: tuple[str, ...] = ()
    """The first few objects that another process had changed, like ``chain ingress/eth0``."""

    tamperer: Tamperer = field(default_factory=Tamperer)
    """The process that made the last change."""

    is_closed: bool = False
    """Whether the host is closed for lack of any snapshot (§9.2)."""

    is_standing: bool = False
    """Whether, for lack of any snapshot, rules that an earlier agent left stay in force."""

    opened_to: tuple[Endpoint, ...] = ()
    """Where the way to the source was opened in rules that an earlier agent left (§7.4)."""

    missing_links: tuple[MissingLink, ...] = ()
    """The bindings of this host that no link has."""

    uncached: tuple[str, ...] = ()
    """Bound interfaces whose sessions are judged at every packet, as the mark has no bits for them."""

    state: EnforcementState | None = None
    """Under which accepted sessions are remembered now; None where that did not change or is not known."""

    is_interim: bool = False
    """Whether a table stays that should have been an interim one, as the kernel refused the one after it."""

    is_first_table: bool = False
    """Whether there was no table before, or one of an unfinished step, which remembers no session."""

    facts: HostFacts = NO_FACTS
    compile_seconds: float = 0.0
    apply_seconds: float = 0.0
    operations: int = 0
    may_cut: bool = False
    """Whether the change may cut open sessions."""

    sessions_cut: tuple[NamedCut, ...] = ()
    """Open sessions that the change cuts, of those that were looked at."""


def summary(step: Step) -> str:
    """Return in one line the policy that is enforced."""
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
    waits = f"; {step.held_change.version} waits, as it would cut a login" if step.held_change else ""
    return f"enforcing {step.version} on {names}{refused}{held}{waits}"


def ports_of_masters(step: Step) -> Mapping[str, str]:
    """Return the bound links that are ports of a bridge, bond or the like, and kind and name of that."""
    bound = bound_links(step)
    links = (link for link in step.facts.links if link.name in bound)
    return {link.name: _master_in_words(link) for link in links if is_hidden(link)}


def lower_devices(step: Step) -> Mapping[str, str]:
    """Return the links that are judged as a bound link that they are lower devices of, and their masters."""
    policy, bound = step.policy or ResolvedPolicy(), ports_of_masters(step)
    links = (link for link in step.facts.links if link.name in policy.lower_devices)
    return {link.name: _master_in_words(link) for link in links if link.name not in bound}


def _master_in_words(link: Link) -> str:
    return f"{link.master_kind or 'link'} {link.master}"


def bound_links(step: Step) -> frozenset[str]:
    """Return the links that there are and that are bound by name or pattern."""
    policy = step.policy or ResolvedPolicy()
    names = (link.name for link in step.facts.links if not link.is_loopback)
    return frozenset(name for name in names if (policy.interface(name) or policy.meant(name)) in policy.bound)


def unenforceable_links(step: Step) -> Mapping[str, str]:
    """Return the bound links whose rules do not see all their packets right, and why (§9.5, §9.6)."""
    bound = bound_links(step)
    links = (link for link in step.facts.links if link.name in bound)
    found = ((link.name, fault_of(step.facts, link)) for link in links if not is_hidden(link))
    return {name: fault for name, fault in found if fault is not None}


_MOST_PROBLEMS = 50
"""Problems of one delivery that are logged one by one; beyond, their number has to do."""


class EventLog(Protocol):
    """The part of a structlog logger that is used here."""

    def info(self, event: str, **keys: object) -> object:
        """Log a normal event."""

    def warning(self, event: str, **keys: object) -> object:
        """Log an event that needs attention."""

    def error(self, event: str, **keys: object) -> object:
        """Log an error."""


class FaultLog:
    """Log each fault once, until it is gone."""

    def __init__(self, log: Callable[..., object]) -> None:
        """Take the method that logs an event with a reason."""
        self._log = log
        self._logged: dict[str, tuple[str, ...]] = {}

    def log(self, event: str, *faults: str | None) -> None:
        """Log the faults of an event that it did not have before; None is no fault."""
        found, before = tuple(fault for fault in faults if fault), self._logged.get(event, ())
        for fault in found:
            if fault not in before:
                self._log(event, reason=fault)
        self._logged[event] = found


class StepLog:
    """Log steps; repeated findings are logged once."""

    def __init__(self, log: EventLog) -> None:
        """Take the log to write to."""
        self._log = log
        self._faults = FaultLog(log.error)
        self._before = Step(outcome=StepEnd.UNCHANGED)
        self._names: Mapping[str, NameStatus] = {}
        self._held: tuple[str, str] | None = None
        """What was in force and what was held back when that was logged last."""

    def log_names(self, names: Iterable[NameStatus]) -> None:
        """Log which names have another state, or fail in another way, than before."""
        before, self._names = self._names, {one.name: one for one in names}
        for name, one in self._names.items():
            known = before.get(name)
            if known is None or (known.state, known.fault) != (one.state, one.fault):
                is_bad = one.state in (NameState.STALE, NameState.EXPIRED) or one.fault is not None
                log = self._log.warning if is_bad else self._log.info
                log("name_state_changed", name=name, state=one.state.value, reason=one.fault)

    def log_hold(self, held: HeldBack | None) -> None:
        """Log that the source's version is not enforced, when that begins and when it was asked for anew."""
        if held is None or (held.version, held.held_back) == self._held:
            return
        self._held = held.version, held.held_back
        self._log.warning(
            "source_held_back", version=held.version, held_back=held.held_back, remedy=held.remedy
        )

    def forget_hold(self) -> None:
        """Log the next hold again, even if it is the one before."""
        self._held = None

    def log(self, step: Step) -> None:
        """Log the differences from the step before."""
        before, self._before = self._before, step
        is_back = _has_new_definitions(step) and not _has_new_definitions(before)
        if step.held_back is None or is_back:
            self.forget_hold()
        if before.source_error and not step.source_error:
            self._log.info("source_recovered")
        self._faults.log("source_failed", step.source_error)
        self._log_held_change(step, before)
        if step.problems != before.problems:
            self._log_problems(step)
        self._faults.log("guardrails_failed", step.guardrails.known.fault)
        self._log_guardrails(step, before)
        self._faults.log("ruleset_refused", step.kernel_error)
        self._log_waiting(step, before)
        if step.opened_to:  # in rules that an earlier agent left (§7.4)
            ways = {f"{to.address.network.network_address} {to.protocol} {to.port}" for to in step.opened_to}
            self._log.warning("source_way_opened", endpoints=sorted(ways))
        if (groupless := _groupless(step)) != _groupless(before):
            for name in groupless:
                self._log.error("interface_without_group", interface=name)
        self._log_ports(ports_of_masters(step), ports_of_masters(before))
        self._faults.log("interface_not_enforced", *unenforceable_links(step).values())
        for name in _unbound_since(step, before):
            self._log.error("interface_unbound", interface=name, missing=list(map(str, step.missing_links)))
        if step.uncached != before.uncached:
            for name in step.uncached:
                self._log.warning("interface_judged_at_every_packet", interface=name)
        if step.was_drift and step.outcome is StepEnd.APPLIED:
            self._log.warning(
                "drift_repaired",
                differed=list(step.differed),
                operations=step.operations,
                **asdict(step.tamperer),
            )
        elif step.outcome is StepEnd.APPLIED:
            self._log.info(
                "ruleset_applied",
                version=step.version,
                interfaces=[interface.name for interface in step.policy.bound] if step.policy else [],
                operations=step.operations,
                compile_seconds=round(step.compile_seconds, 6),
                apply_seconds=round(step.apply_seconds, 6),
            )

    def _log_held_change(self, step: Step, before: Step) -> None:
        """Log that a version begins to wait, as it would cut a login, and that none does any more."""
        held, held_before = step.held_change, before.held_change
        if held is not None and (held_before is None or held_before.version != held.version):
            self._log.warning(
                "change_held",
                version=held.version,
                in_force=step.version,
                seconds=round(held.terms.deadline - held.terms.began),
                sessions=list(map(str, held.cuts)),
                remedy="sgagent apply",
            )
        elif held is None and held_before is not None:
            self._log.info("change_held_no_longer", version=held_before.version, in_force=step.version)

    def _log_problems(self, step: Step) -> None:
        """Log a refusal and each problem."""
        for problem in step.problems[:_MOST_PROBLEMS]:
            log = self._log.error if problem.severity is Severity.ERROR else self._log.warning
            log("problem_found", code=problem.code, problem=str(problem))
        if step.is_refused:
            errors = sum(problem.severity is Severity.ERROR for problem in step.problems)
            self._log.error("snapshot_refused", errors=errors, in_force=step.version)
        elif len(step.problems) > _MOST_PROBLEMS:
            self._log.warning("more_problems_found", problems=len(step.problems))

    def _log_guardrails(self, step: Step, before: Step) -> None:
        """Log which statements are broken by now, and by what."""
        known = {(step.guardrails.refused, one) for one in before.guardrails.violations}
        if before.guardrails.refused != step.guardrails.refused:
            known = set()
        for one in step.guardrails.violations:
            if (step.guardrails.refused, one) in known:
                continue
            broken = named(one)
            log = self._log.error if one.is_refusal else self._log.warning
            log(
                "guardrail_broken",
                id=broken.id,
                reason=broken.reason,
                statement=broken.statement,
                interface=broken.interface,
                decided_by=broken.decided_by,
                rule_id=broken.rule_id,
                security_group_id=broken.security_group_id,
                packet=packet_text(one.packet),
                refused=step.guardrails.refused,
            )

    def _log_waiting(self, step: Step, before: Step) -> None:
        """Log once how the host's traffic is treated for lack of a snapshot (§9.2)."""
        missing = _missing(step)
        if missing is _missing(before):
            return
        reason = "no policy that can be enforced is loaded"
        match missing:
            case None:
                pass
            case _Missing.DOCUMENTS:
                reason = "the source holds no document yet; the host is unchanged"
                self._log.warning("nothing_enforced", reason=reason)
            case _Missing.OPEN:
                self._log.error("nothing_enforced", reason="no policy loaded yet; the host is unchanged")
            case _Missing.STANDING:
                self._log.error("older_rules_kept", reason=reason)
            case _Missing.CLOSED:
                self._log.error("host_closed", reason=reason)
            case _:
                assert_never(missing)

    def _log_ports(self, ports: Mapping[str, str], before: Mapping[str, str]) -> None:
        """Log as an error that a bound link became a port, which no policy applies to, and when that ends."""
        for name, master in ports.items():
            if before.get(name) != master:
                self._log.error("interface_not_judged", interface=name, port_of=master)
        for name in before.keys() - ports.keys():
            self._log.info("interface_no_port_any_more", interface=name)


def _unbound_since(step: Step, before: Step) -> tuple[str, ...]:
    """Return the links that are there, were bound, perhaps by another name, and that nothing filters now."""
    policy, former = step.policy, before.policy
    is_same = policy is former and step.facts is before.facts
    if policy is None or former is None or is_same:
        return ()
    renamed = {link.index for link in before.facts.links if former.judge(link.name) in former.bound}
    return tuple(
        link.name
        for link in step.facts.links
        if policy.judge(link.name) is None
        and (link.index in renamed or former.judge(link.name) in former.bound)
    )


def _has_new_definitions(step: Step) -> bool:
    """Return whether the source was reached and its newest delivery not refused."""
    return step.source_error is None and not step.is_refused


def _groupless(step: Step) -> tuple[str, ...]:
    """Return the interfaces that have no group and let nothing through (§3)."""
    return tuple(one.name for one in step.policy.bound if not one.security_group_ids) if step.policy else ()


class _Missing(Enum):
    """How a host is treated for which there is no snapshot."""

    DOCUMENTS = auto()
    """There are none yet, and it is open."""

    OPEN = auto()
    STANDING = auto()
    CLOSED = auto()


def _missing(step: Step) -> _Missing | None:
    if step.is_closed:
        return None if step.outcome is StepEnd.REFUSED else _Missing.CLOSED
    if step.awaits_documents:
        return _Missing.DOCUMENTS
    if step.outcome is StepEnd.WAITING:
        return _Missing.STANDING if step.is_standing else _Missing.OPEN
    return None
