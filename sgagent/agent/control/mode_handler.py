"""The handler of mode commands: modes that stand before the configuration's, permanently or on trial (§9.1).

A mode on trial is stored nowhere: the next agent, whatever ended this one, has the modes before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.agent.control import requests
from sgagent.agent.inbox import Stepping
from sgagent.agent.manual_override import ModeOverrides, PendingMode
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.core.errors import KernelRefusedError, SgagentError, UsageError
from sgagent.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeTrial:
    """Modes that are given up unless they are confirmed."""

    before: ModeOverrides
    """The mode that holds again then."""

    pending: PendingMode


class ModeHandler:
    """Switch modes, and go back from those that nobody confirms; the agent's loop calls it."""

    def __init__(self, reconciler: Reconciler, clock: Clock, log: EventLog) -> None:
        """Start without a trial."""
        self._reconciler = reconciler
        self._clock = clock
        self._log = log
        self.trial: ModeTrial | None = None

    @property
    def deadline(self) -> float | None:
        """Return when to go back, by the monotonic clock; None where nothing is on trial."""
        return self.trial.pending.deadline if self.trial else None

    def switch(self, step: Stepping, command: requests.ModeCommand) -> requests.ModeAnswer:
        """Let a mode precede the configuration's, or no longer; the mode on trial before is kept.

        Raises:
            UsageError: there is no such interface.
            KernelRefusedError: the kernel refused; the modes are what they were.
            SgagentError: the step could not be done; likewise.
        """
        self._refuse_unknown(command)
        before = self._reconciler.overrides
        done = self._bring(step, before.switched(command.interface, command.mode))
        if command.confirm_within is None:
            self.trial = None
            self._reconciler.keep_modes()
        else:
            deadline = self._clock.monotonic() + command.confirm_within
            pending = PendingMode(mode=command.mode, interface=command.interface, deadline=deadline)
            self.trial = ModeTrial(before=self.trial.before if self.trial else before, pending=pending)
        if command.mode is None:
            self._log.info(
                "mode_override_cleared", interface=command.interface, seconds=command.confirm_within
            )
        else:
            mode = command.mode.value
            self._log.warning(
                "mode_overridden", interface=command.interface, mode=mode, seconds=command.confirm_within
            )
        return requests.ModeAnswer(
            interfaces=tuple(self._modes(done)),
            fault=self._reconciler.mode_fault,
            seconds_left=command.confirm_within,
            sessions_cut=done.sessions_cut,
        )

    def confirm(self) -> requests.ConfirmAnswer:
        """Keep the modes that are on trial, of which there are some."""
        assert self.trial is not None  # noqa: S101 - the caller has checked
        mode, self.trial = self.trial.pending.mode, None
        self._reconciler.keep_modes()
        self._log.info("trial_confirmed", mode=mode.value if mode else None)
        return requests.ConfirmAnswer(
            is_confirmed=True, is_of_mode=True, mode=mode, fault=self._reconciler.mode_fault
        )

    def go_back(self, step: Stepping, reason: str) -> Step:
        """Give up the modes that are on trial.

        Raises:
            SgagentError: the step could not be done; the next one goes back.
        """
        assert self.trial is not None  # noqa: S101 - the caller has checked
        trial, self.trial = self.trial, None
        self._reconciler.overrides = trial.before
        mode = trial.pending.mode
        self._log.warning("mode_rolled_back", reason=reason, mode=mode.value if mode else None)
        return step()

    def _refuse_unknown(self, command: requests.ModeCommand) -> None:
        if command.interface is None or command.mode is None:
            return
        known = self._reconciler.interface_names()
        if command.interface not in known:  # a typing mistake would go unnoticed
            names = ", ".join(sorted(known)) or "none"
            raise UsageError(f"there is no interface {command.interface} (there are: {names})")

    def _bring(self, step: Stepping, overrides: ModeOverrides) -> Step:
        before, self._reconciler.overrides = self._reconciler.overrides, overrides
        try:
            done = step()
        except SgagentError:
            self._reconciler.overrides = before
            raise
        if done.outcome is StepEnd.REFUSED:
            self._reconciler.overrides = before
            step()
            raise KernelRefusedError(done.kernel_error or "no reason is known")
        return done

    def _modes(self, done: Step) -> Iterator[requests.InterfaceMode]:
        overrides = self._reconciler.overrides
        for judge in done.policy.judges if done.policy else ():
            is_overridden = overrides.of(judge) is not None
            yield requests.InterfaceMode(interface=judge.name, mode=judge.mode, is_overridden=is_overridden)
