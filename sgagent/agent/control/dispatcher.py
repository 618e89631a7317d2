"""The dispatcher: parse commands from other threads, and pass them to the agent's loop."""

from __future__ import annotations

from functools import partial
from typing import assert_never

from sgagent.agent.control.commands import (
    LONGEST_TRIAL_SECONDS,
    SHORTEST_TRIAL_SECONDS,
    ApplyOrder,
    ConfirmOrder,
    HistoryAnswer,
    HistoryEntry,
    ModeOrder,
    Order,
    OrderAnswer,
    ReloadOrder,
    RollbackOrder,
)
from sgagent.agent.control.handlers import Execution
from sgagent.agent.inbox import Inbox, Job, NotBegunError, NotDoneError
from sgagent.agent.state.directory import HistoryFile, StateDirectory
from sgagent.core.errors import SgagentError, UsageError
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import Delivery

PATIENCE_SECONDS = 120.0
"""For the loop to come to an order and to carry it out."""


class Desk:
    """Stand between those who order and the loop; called from several threads."""

    def __init__(self, inbox: Inbox, execution: Execution, state: StateDirectory, limits: Limits) -> None:
        """Take the parts.

        Args:
            inbox: leads to the loop.
            execution: carries out, in the loop.
            state: where the history is; it is read without the loop.
            limits: what documents may cost.
        """
        self._inbox = inbox
        self._execution = execution
        self._state = state
        self._limits = limits

    def carry_out(self, order: Order) -> OrderAnswer:
        """Have an order carried out, and return what came of it.

        Raises:
            SgagentError: it was not, or is not yet; says which.
        """
        job = self._job(order)
        try:
            return self._inbox.have_done(job, PATIENCE_SECONDS)
        except NotBegunError:
            raise SgagentError("the agent is busy: nothing was done, and nothing will be") from None
        except NotDoneError:
            raise SgagentError(
                "the agent is still at it: 'sgagent status' will say what came of it"
            ) from None

    def _job(self, order: Order) -> Job[OrderAnswer]:
        """Return what the loop has to do.

        Raises:
            DocumentError: the documents have errors of form.
            UsageError: the time to confirm makes no sense.
        """
        execution = self._execution
        match order:
            case ApplyOrder():
                seconds = _checked(order.confirm_within)
                delivery = self._read(order)
                return lambda step: execution.apply(step, delivery, seconds)
            case ReloadOrder():
                return execution.reload
            case RollbackOrder():
                return lambda step: execution.rollback(step, order.number)
            case ConfirmOrder():
                return execution.confirm
            case ModeOrder():
                return partial(execution.switch_mode, mode=order.mode, interface=order.interface)
            case _:
                assert_never(order)

    def _read(self, order: ApplyOrder) -> Delivery:
        documents = tuple(DocumentFile(sent.name, sent.content.encode()) for sent in order.documents)
        snapshot, problems = parse_documents(documents, self._limits)
        return Delivery(snapshot=snapshot, problems=problems, documents=documents)

    def history(self, version: str | None) -> HistoryAnswer:
        """Return what was enforced; damaged files are named.

        Args:
            version: what is in force now.
        """
        entries = tuple(self._state.history.entries())
        newest = next((entry for entry in entries if entry.head is not None), None)
        in_force = newest if newest and newest.head and newest.head.version == version else None
        return HistoryAnswer(
            entries=tuple(_as_entry(entry, is_in_force=entry is in_force) for entry in entries)
        )


def _checked(seconds: float | None) -> float | None:
    if seconds is not None and not SHORTEST_TRIAL_SECONDS <= seconds <= LONGEST_TRIAL_SECONDS:
        raise UsageError(
            f"confirm_within is from {SHORTEST_TRIAL_SECONDS:.0f} to {LONGEST_TRIAL_SECONDS:.0f} seconds,"
            f" not {seconds:g}"
        )
    return seconds


def _as_entry(entry: HistoryFile, *, is_in_force: bool) -> HistoryEntry:
    head = entry.head
    if head is None:
        return HistoryEntry(number=entry.number, fault=entry.fault)
    return HistoryEntry(
        number=entry.number,
        version=head.version,
        origin=head.record.origin,
        enforced_at=head.record.enforced_at,
        documents=head.documents,
        bytes=head.bytes,
        extent=head.record.extent,
        is_in_force=is_in_force,
    )
