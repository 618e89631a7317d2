"""Handlers of the commands; the agent's loop calls them between two steps.

A handler stores its intention first. A crash at any point leaves the old intention or the new one, and never
keeps definitions that nobody confirmed: ``docs/design.md`` has the table.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import assert_never

from sgagent.agent.control import requests
from sgagent.agent.control.mode_handler import ModeHandler
from sgagent.agent.control.requests import CommandAnswer, ControlCommand, EnforcedAnswer
from sgagent.agent.definitions import Definitions, Proposal
from sgagent.agent.inbox import Job, Stepping
from sgagent.agent.manual_override import HeldBack, ManualOverride, Pending, is_running
from sgagent.agent.reconciler import Reconciler
from sgagent.agent.state.directory import (
    DamagedStateError,
    KeptDocuments,
    Record,
    StateDirectory,
    Terms,
    Trigger,
)
from sgagent.agent.step import EventLog, Step, StepEnd
from sgagent.core.errors import (
    DocumentError,
    KernelRefusedError,
    SgagentError,
    SourceUnavailableError,
    UsageError,
)
from sgagent.documents import DocumentFile
from sgagent.ports import Clock, Delivery


class BackReason(enum.Enum):
    """Why the agent gave up definitions on trial."""

    UNCONFIRMED = "unconfirmed"
    ASKED = "asked"
    STOPPED = "stopped"
    """The agent was asked to stop."""

    REBOOTED = "rebooted"
    DAMAGED = "damaged"
    """Their file could not be read after a restart."""

    REFUSED = "refused"
    """After a restart they could not be enforced."""


class CommandHandler:
    """Carry out commands, and go back when the time of a trial is up."""

    def __init__(
        self, *, reconciler: Reconciler, state: StateDirectory, clock: Clock, boot_id: str, log: EventLog
    ) -> None:
        """Take the parts; nothing is read before :meth:`begin`.

        Args:
            reconciler: holds the definitions and modes that commands change.
            state: the directory with the history.
            clock: its monotonic time decides when a trial ends.
            boot_id: shows whether the host has rebooted since a trial began.
            log: the log.
        """
        self.reconciler = reconciler
        self._trial_file = reconciler.trial_file
        self._state = state
        self._clock = clock
        self._boot_id = boot_id
        self._log = log
        self._modes = ModeHandler(reconciler, clock, log)

    def begin(self, step: Stepping) -> None:
        """Do the first step of an agent, after taking up or giving up an earlier agent's trial.

        Raises:
            SgagentError: the step could not be done.
        """
        reason, version = self._take_up()
        done = step()
        if reason is not None:
            self._log_return(reason, version, done.version)
        elif version is not None and not self._definitions.is_trial_in_force:
            self._go_back(step, BackReason.REFUSED)

    def _take_up(self) -> tuple[BackReason | None, str | None]:
        """Decide about a trial that an earlier agent began.

        Returns:
            why it is over, and which version was on trial; neither where there was none.
        """
        definitions = replace(self._definitions, is_going_back=self._trial_file.is_going_back)
        self._replace(definitions)
        try:
            kept = self._trial_file.load()
            if kept is None:
                return None, None
            reason = self._reason_to_leave(kept)
            if reason is None:
                delivery = self.reconciler.parse(kept.documents, kept.version)
                self._replace(replace(definitions, proposal=Proposal(delivery=delivery, record=kept.record)))
                self._log_pending(kept.version, resumed=True)
                return None, kept.version
        except (DamagedStateError, DocumentError) as error:
            self._log.error("state_damaged", reason=str(error))
            kept, reason = None, BackReason.DAMAGED
        self._replace(self._trial_file.given_up(definitions))
        return reason, kept.version if kept else None

    def _reason_to_leave(self, kept: KeptDocuments) -> BackReason | None:
        terms = kept.record.terms
        if is_running(terms, self._boot_id, self._clock.monotonic()):
            return None
        is_same_boot = terms is not None and terms.boot_id == self._boot_id
        return BackReason.UNCONFIRMED if is_same_boot else BackReason.REBOOTED

    @property
    def deadline(self) -> float | None:
        """Return when to go back, by the monotonic clock; None where nothing is on trial."""
        return self._modes.deadline if self._modes.trial else self._definitions_deadline

    @property
    def _definitions_deadline(self) -> float | None:
        proposal = self._definitions.proposal
        terms = proposal.record.terms if proposal else None
        return terms.deadline if terms else None

    def expire(self, step: Stepping) -> None:
        """Go back, if the time of a trial is up.

        Raises:
            SgagentError: the step could not be done; the next one goes back.
        """
        if self.deadline is not None and self._clock.monotonic() >= self.deadline:
            self._end_trial(step, BackReason.UNCONFIRMED)

    def end(self, step: Stepping) -> None:
        """Go back from a trial before the agent ends.

        Raises:
            SgagentError: the step could not be done; the next agent goes back.
        """
        if self.deadline is not None:
            self._end_trial(step, BackReason.STOPPED)

    def job(self, command: ControlCommand, patience_seconds: float) -> Job[CommandAnswer]:
        """Return the job that a command gives the loop; called from any thread.

        Args:
            command: what to do.
            patience_seconds: how long a reload waits here for the source.

        Raises:
            DocumentError: the documents have errors of form.
            UsageError: the time to confirm makes no sense.
            SourceUnavailableError: the source has not looked in time.
        """
        match command:
            case requests.ApplyCommand(held=str() as held):
                seconds = _checked(command.confirm_within)
                return lambda step: self.apply(step, self._held_delivery(held), seconds)
            case requests.ApplyCommand():
                files = (DocumentFile(sent.name, sent.content.encode()) for sent in command.documents)
                delivery, seconds = self.reconciler.parse(tuple(files)), _checked(command.confirm_within)
                return lambda step: self.apply(step, delivery, seconds)
            case requests.ReloadCommand():
                version = self._definitions.committed_version
                if not self.reconciler.source.refresh(patience_seconds):
                    raise SourceUnavailableError(
                        f"the source has not answered within {patience_seconds:.0f} seconds; the previous"
                        " rules stay active, and its answer is enforced when it comes"
                    )
                return partial(self.reload, version=version)
            case requests.RollbackCommand():
                return lambda step: self.rollback(step, command.number)
            case requests.ConfirmCommand():
                return self.confirm
            case requests.ModeCommand():
                _checked(command.confirm_within)
                return lambda step: self.switch_mode(step, command)
            case _:
                assert_never(command)

    def apply(self, step: Stepping, delivery: Delivery, seconds: float | None) -> EnforcedAnswer:
        """Enforce definitions instead of the source's.

        Args:
            step: does a step.
            delivery: the definitions.
            seconds: after which the agent goes back unless they are confirmed; None applies them permanently.
                Definitions that are already in force need no confirmation.

        Raises:
            DocumentError: they can't be enforced on this host; nothing was changed.
            KernelRefusedError: the kernel refused; the previous rules stay active.
            UsageError: something is on trial, or there is nothing to go back to.
            SgagentError: they could not be kept, or the step could not be done.
        """
        if self.deadline is not None:
            raise UsageError(_ONE_AT_A_TIME)
        if seconds is None or delivery.snapshot.version == self._definitions.committed_version:
            return self._put_in_force(step, delivery, Trigger.APPLY)
        if self.reconciler.state.is_standing:
            raise UsageError(
                "there is nothing to go back to: the rules in force are an earlier agent's, whose definitions"
                " are lost; apply without --confirm-within"
            )
        answer = self._put_in_force(step, delivery, Trigger.APPLY, seconds)
        self._log_pending(delivery.snapshot.version, resumed=False)
        return answer

    def reload(self, step: Stepping, version: str | None) -> EnforcedAnswer:
        """Enforce the newest delivery of the source.

        Args:
            step: does a step.
            version: what was committed before the source looked; its change may have made a step of its own.

        Raises:
            DocumentError: that can't be enforced; the previous rules stay active.
            SourceUnavailableError: it said nothing; likewise. Of several, the others are followed.
            KernelRefusedError: the kernel refused; the previous rules stay active.
            SgagentError: the step could not be done.
        """
        done = step(fetch=True)
        if done.source_error is not None:
            stays = "its older part stays active" if len(done.parts) > 1 else "the previous rules stay active"
            raise SourceUnavailableError(f"{done.source_error}; {stays}")
        if done.is_refused:
            raise DocumentError(done.problems)
        if done.outcome is StepEnd.REFUSED:
            raise KernelRefusedError(done.kernel_error or "no reason is known")
        answer = self._answer(done)
        return replace(answer, is_changed=answer.is_changed or self._definitions.committed_version != version)

    def rollback(self, step: Stepping, number: int | None) -> EnforcedAnswer:
        """Go back to earlier definitions; from a trial, to those in force before it.

        Raises:
            UsageError: there is no such number, it is damaged, or in force already.
            DocumentError: the definitions can't be enforced on this host any more.
            KernelRefusedError: the kernel refused; the previous rules stay active.
            SgagentError: the step could not be done.
        """
        if self.deadline is not None:
            if number is not None:
                raise UsageError(_ONE_AT_A_TIME)
            return self._answer(self._end_trial(step, BackReason.ASKED))
        before = self._definitions.committed_version
        kept = self._kept(number)
        delivery = self.reconciler.parse(kept.documents, kept.version)
        answer = self._put_in_force(step, delivery, Trigger.ROLLBACK)
        self._log_return(BackReason.ASKED, before, answer.version)
        return answer

    def confirm(self, step: Stepping) -> requests.ConfirmAnswer:
        """Keep the definitions that are on trial.

        Raises:
            UsageError: it is not in force at this moment.
            SgagentError: it could not be kept, and is still on trial.
        """
        if self._modes.trial is not None:
            return self._modes.confirm()
        proposal = self._definitions.proposal
        if proposal is None:
            return requests.ConfirmAnswer(is_confirmed=False)
        if not self._definitions.is_trial_in_force:
            raise UsageError("the trial is not active: 'sgagent status' says why")
        version = proposal.delivery.snapshot.version
        try:
            self._replace(self._trial_file.confirmed(self._definitions, self._state.history))
        except OSError as error:
            raise SgagentError(
                f"the trial goes on, as its definitions could not be saved: {error}"
            ) from error
        self._log.info("trial_confirmed", version=version)
        in_force = version
        with suppress(SgagentError):  # the next step does what this one could not
            in_force = step().version or version
        overtaken_by = None if in_force == version else in_force
        return requests.ConfirmAnswer(is_confirmed=True, version=version, overtaken_by=overtaken_by)

    def switch_mode(self, step: Stepping, command: requests.ModeCommand) -> requests.ModeAnswer:
        """Let a mode stand before the configuration's, or no longer.

        Raises:
            UsageError: there is no such interface, or definitions are on trial and this would be, too.
            KernelRefusedError: the kernel refused; the modes are what they were.
            SgagentError: the step could not be done; likewise.
        """
        if command.confirm_within is not None and self._definitions_deadline is not None:
            raise UsageError(_ONE_AT_A_TIME)
        return self._modes.switch(step, command)

    def manual_override(self) -> ManualOverride:
        """Return the modes and definitions that commands put before the configuration and the source."""
        definitions, held = replace(self._definitions, fetched=self.reconciler.fetched), None
        version, held_back = self._definitions.committed_version, definitions.held_back
        if held_back is not None and version is not None and definitions.proposal is None:
            record = definitions.record
            held = HeldBack(
                version=version,
                origin=record.origin,
                since=record.enforced_at,
                held_back=held_back,
                remedy=self.reconciler.settings.source.hold_remedy,
            )
        trial = self._modes.trial
        return ManualOverride(
            held=held,
            pending=self._pending(),
            pending_mode=trial.pending if trial else None,
            overrides=self.reconciler.overrides,
        )

    def _pending(self) -> Pending | None:
        proposal, deadline = self._definitions.proposal, self._definitions_deadline
        if proposal is None or deadline is None:
            return None
        return Pending(
            version=proposal.delivery.snapshot.version,
            deadline=deadline,
            goes_back_to=self._definitions.committed_version,
        )

    def _put_in_force(
        self, step: Stepping, delivery: Delivery, origin: Trigger, seconds: float | None = None
    ) -> EnforcedAnswer:
        """Enforce definitions, on trial for so many seconds or permanently; on failure change nothing."""
        version = delivery.snapshot.version
        problems = self.reconciler.refusal_of(delivery)
        if problems:
            raise DocumentError(problems)
        try:
            record = Record(
                origin=origin,
                enforced_at=self._clock.now(),
                held_back=self._definitions.version_to_hold(version, self.reconciler.fetched.newest),
                terms=None if seconds is None else self._terms(seconds),
            )
            proposal = Proposal(delivery=delivery, record=record)
            self._replace(self._trial_file.proposed(self._definitions, proposal))
        except OSError as error:
            raise SgagentError(
                f"the definitions could not be saved, so they were not enforced: {error}"
            ) from error
        try:
            done = step()
        except SgagentError:
            # Nobody knows how far the kernel came.
            self._replace(self._trial_file.given_up(self._definitions))
            raise
        if done.outcome is StepEnd.REFUSED or done.version != version:
            self._replace(self._trial_file.withdrawn(self._definitions))
            step()
            if done.kernel_error is None:
                raise DocumentError(done.problems)
            raise KernelRefusedError(done.kernel_error)
        if seconds is not None:
            terms = self._terms(seconds)  # the largest tables take seconds themselves
            self._replace(self._trial_file.begun_again(self._definitions, terms))
        if origin is Trigger.APPLY:
            self._log.warning("applied_by_hand", version=version, held_back=self._definitions.held_back)
        return self._answer(done)

    @property
    def _definitions(self) -> Definitions:
        return self.reconciler.definitions

    def _replace(self, definitions: Definitions) -> None:
        self.reconciler.replace_definitions(definitions)

    def _terms(self, seconds: float) -> Terms:
        """Return the terms of a trial that begins now."""
        now = self._clock.monotonic()
        return Terms(boot_id=self._boot_id, began=now, deadline=now + seconds)

    def _answer(self, done: Step) -> EnforcedAnswer:
        """Return a step's outcome."""
        pending, held_back = self._pending(), self._definitions.held_back
        held_change = done.held_change
        return EnforcedAnswer(
            version=done.version,
            is_changed=done.outcome is StepEnd.APPLIED,
            interfaces=tuple(i.name for i in done.policy.bound) if done.policy else (),
            held_back=held_back,
            remedy=None if held_back is None else self.reconciler.settings.source.hold_remedy,
            seconds_left=None if pending is None else pending.seconds_left(self._clock.monotonic()),
            goes_back_to=None if pending is None else pending.goes_back_to,
            warnings=() if done.is_refused else done.problems,
            sessions_cut=done.sessions_cut,
            fault=next(iter(self._definitions.faults), None),
            held_change=None if held_change is None else held_change.status(self._clock.monotonic()),
        )

    def _end_trial(self, step: Stepping, reason: BackReason) -> Step:
        """Give up the mode or the definitions that are on trial."""
        if self._modes.trial is not None:
            return self._modes.go_back(step, reason.value)
        return self._go_back(step, reason)

    def _go_back(self, step: Stepping, reason: BackReason) -> Step:
        """Give up the definitions that are on trial."""
        if self.reconciler.lockout_hold is not None:
            self.reconciler.lockout_hold.begin_again()
        proposal = self._definitions.proposal
        version = proposal.delivery.snapshot.version if proposal else None
        self._replace(self._trial_file.given_up(self._definitions))
        done = step()
        self._log_return(reason, version, done.version)
        return done

    def _log_return(self, reason: BackReason, version: str | None, in_force: str | None) -> None:
        self._log.warning("rolled_back", reason=reason.value, version=version, in_force=in_force)

    def _log_pending(self, version: str, *, resumed: bool) -> None:
        pending = self._pending()
        assert pending is not None  # noqa: S101 - the caller has started a trial
        left = round(pending.seconds_left(self._clock.monotonic()), 1)
        self._log.warning("confirmation_pending", version=version, seconds_left=left, resumed=resumed)

    def _held_delivery(self, version: str) -> Delivery:
        """Return the source's definitions that wait.

        Raises:
            UsageError: they do not, or others do.
        """
        delivery = self.reconciler.held_delivery
        if delivery is None or delivery.snapshot.version != version:
            raise UsageError(f"{version} does not wait any more: 'sgagent status' shows what is in force")
        return delivery

    def _kept(self, number: int | None) -> KeptDocuments:
        """Return the definitions that a number of the history means.

        Raises:
            UsageError: it means none that are not in force.
        """
        history, in_force = self._state.history, self._definitions.committed_version
        if number is None:
            earlier = (e for e in history.entries() if e.head is not None and e.head.version != in_force)
            entry = next(earlier, None)
            if entry is None:
                raise UsageError("the history has no other version than the active one")
            number = entry.number
        numbers = history.numbers()
        if number not in numbers:
            known = ", ".join(map(str, numbers)) or "none"
            raise UsageError(f"the history has no number {number} (it has: {known})")
        try:
            kept = history.read(number)
        except (OSError, DamagedStateError) as error:
            raise UsageError(f"number {number} can't be read: {error}") from error
        if kept.version == in_force:
            raise UsageError(f"number {number} is already active: {in_force}")
        return kept


def _checked(seconds: float | None) -> float | None:
    shortest, longest = requests.SHORTEST_TRIAL_SECONDS, requests.LONGEST_TRIAL_SECONDS
    if seconds is not None and not shortest <= seconds <= longest:
        raise UsageError(f"confirm_within is from {shortest:.0f} to {longest:.0f} seconds, not {seconds:g}")
    return seconds


_ONE_AT_A_TIME = "a trial is running: run 'sgagent confirm' or 'sgagent rollback' first"
