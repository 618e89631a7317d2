"""Say in the log what a step found and did: one line for it, and one for each new finding."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Protocol, assert_never

from sgagent.agent.step import Outcome, Step
from sgagent.agent.telling.status import ports_of_masters
from sgagent.core.errors import Problem, Severity

_MOST_PROBLEMS = 50
"""Problems of one delivery that are logged one by one; beyond, their number has to do."""


class EventLog(Protocol):
    """The part of a structlog logger that is used here."""

    def info(self, event: str, **keys: object) -> object:
        """Log what is normal."""
        ...

    def warning(self, event: str, **keys: object) -> object:
        """Log what somebody should look at."""
        ...

    def error(self, event: str, **keys: object) -> object:
        """Log what is wrong."""
        ...


class StepLog:
    """Log steps; what stays as it was is not said again."""

    def __init__(self, log: EventLog) -> None:
        """Take the log to write to."""
        self._log = log
        self._problems: tuple[Problem, ...] = ()
        self._source_error: str | None = None
        self._kernel_error: str | None = None
        self._lack: _Lack | None = None
        self._groupless: tuple[str, ...] = ()
        self._ports: Mapping[str, str] = {}
        self._uncached: tuple[str, ...] = ()

    def say(self, step: Step) -> None:
        """Log what is new in this step."""
        self._say_source(step)
        self._say_problems(step)
        self._say_kernel(step)
        self._say_waiting(step)
        self._say_opened(step)
        self._say_groupless(step)
        self._say_ports(step)
        self._say_uncached(step)
        if step.was_drift and step.outcome is Outcome.APPLIED:
            self._log.warning(
                "drift_repaired",
                differed=list(step.differed),
                operations=step.operations,
                process_id=step.tamperer.process_id if step.tamperer else None,
                process_name=step.tamperer.process_name if step.tamperer else None,
            )
        elif step.outcome is Outcome.APPLIED:
            self._log.info(
                "ruleset_applied",
                version=step.version,
                interfaces=[interface.name for interface in step.policy.interfaces] if step.policy else [],
                operations=step.operations,
                compile_seconds=round(step.compile_seconds, 6),
                apply_seconds=round(step.apply_seconds, 6),
            )

    def _say_source(self, step: Step) -> None:
        if step.source_error != self._source_error:
            self._source_error = step.source_error
            if step.source_error:
                self._log.error("source_failed", reason=step.source_error)
            else:
                self._log.info("source_recovered")

    def _say_problems(self, step: Step) -> None:
        """Log a refusal and each problem once, not at every step that finds them again."""
        if step.problems == self._problems:
            return
        self._problems = step.problems
        for problem in step.problems[:_MOST_PROBLEMS]:
            say = self._log.error if problem.severity is Severity.ERROR else self._log.warning
            say("problem_found", code=problem.code, problem=str(problem))
        if step.is_refused:
            errors = sum(problem.severity is Severity.ERROR for problem in step.problems)
            self._log.error("snapshot_refused", errors=errors, in_force=step.version)
        elif len(step.problems) > _MOST_PROBLEMS:
            self._log.warning("more_problems_found", problems=len(step.problems))

    def _say_kernel(self, step: Step) -> None:
        if step.kernel_error != self._kernel_error:
            self._kernel_error = step.kernel_error
            if step.kernel_error:
                self._log.error("ruleset_refused", reason=step.kernel_error)

    def _say_waiting(self, step: Step) -> None:
        """Say loudly, once, what becomes of the host for lack of a snapshot (§9.2)."""
        lack = _lack(step)
        if lack is not self._lack:
            self._lack = lack
            match lack:
                case None:
                    pass
                case _Lack.DOCUMENTS:
                    self._log.warning(
                        "nothing_enforced", reason="the source holds no document yet; the host is as it was"
                    )
                case _Lack.OPEN:
                    self._log.error(
                        "nothing_enforced", reason="there is no snapshot yet; the host is as it was"
                    )
                case _Lack.STANDING:
                    self._log.error("older_rules_kept", reason="there is no snapshot that can be enforced")
                case _Lack.CLOSED:
                    self._log.error("host_closed", reason="there is no snapshot that can be enforced")
                case _:
                    assert_never(lack)

    def _say_opened(self, step: Step) -> None:
        """Say what was changed in rules that an earlier agent left (§7.4)."""
        if step.opened_to:
            places = sorted(
                {f"{one.address.network.network_address} {one.protocol} {one.port}" for one in step.opened_to}
            )
            self._log.warning("source_way_opened", endpoints=places)

    def _say_uncached(self, step: Step) -> None:
        """Say where sessions are judged, and counted, at every packet, for lack of mark bits."""
        if step.uncached != self._uncached:
            self._uncached = step.uncached
            for name in step.uncached:
                self._log.warning("interface_judged_at_every_packet", interface=name)

    def _say_groupless(self, step: Step) -> None:
        """Say loudly that an interface has no group and lets nothing through (§3)."""
        groupless = (
            tuple(i.name for i in step.policy.interfaces if not i.security_group_ids) if step.policy else ()
        )
        if groupless != self._groupless:
            self._groupless = groupless
            for name in groupless:
                self._log.error("interface_without_group", interface=name)

    def _say_ports(self, step: Step) -> None:
        """Say loudly that a bound link became a port, whose packets nobody judges, and when that ends."""
        before, self._ports = self._ports, ports_of_masters(step)
        for name, master in self._ports.items():
            if before.get(name) != master:
                self._log.error("interface_not_judged", interface=name, port_of=master)
        for name in before.keys() - self._ports.keys():
            self._log.info("interface_no_port_any_more", interface=name)


class _Lack(Enum):
    """What becomes of a host for which there is no snapshot."""

    DOCUMENTS = auto()
    """There are none yet, and it is open."""

    OPEN = auto()
    STANDING = auto()
    CLOSED = auto()


def _lack(step: Step) -> _Lack | None:
    if step.is_closed:
        return None if step.outcome is Outcome.REFUSED else _Lack.CLOSED
    if step.awaits_documents:
        return _Lack.DOCUMENTS
    if step.outcome is Outcome.WAITING:
        return _Lack.STANDING if step.is_standing else _Lack.OPEN
    return None
