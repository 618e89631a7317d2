"""Commit-confirm: the file of the definitions that are enforced on trial.

The file lies beside the history, and is written before the kernel gets any of it. Confirming renames it into
the history. Going back renames it first, and removes it once the kernel has gone back. So an agent that
starts after a crash in between completes the way back.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from sgagent.agent.definitions import Definitions, Proposal
from sgagent.agent.state.atomic_file import remove_durably, rename_durably, write_durably
from sgagent.agent.state.history import History
from sgagent.agent.state.snapshot_file import (
    DamagedStateError,
    KeptDocuments,
    Terms,
    decode_kept,
    encode_kept,
)

_PENDING = "pending.json"
_UNCONFIRMED = "unconfirmed.json"


class TrialFile:
    """The file of what is on trial. Each command takes the definitions and returns those after it."""

    def __init__(self, directory: Path) -> None:
        """Take the state directory; it is made when a trial begins."""
        self._pending = directory / _PENDING
        self._unconfirmed = directory / _UNCONFIRMED

    def load(self) -> KeptDocuments | None:
        """Return what an earlier agent had on trial; None if that was nothing.

        Raises:
            DamagedStateError: there was something, but the file can't be read.
        """
        try:
            return decode_kept(self._pending.read_bytes(), str(self._pending))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedStateError(f"{self._pending}: {error.strerror}") from error

    @property
    def is_going_back(self) -> bool:
        """Return whether the kernel has to go back, or did and that is not noted yet."""
        return self._unconfirmed.exists()

    def proposed(self, definitions: Definitions, proposal: Proposal) -> Definitions:
        """Make a proposal the first candidate; one on trial is written down before.

        Raises:
            OSError: it could not be written, and nothing was changed.
        """
        if proposal.is_trial:
            self._write(definitions, proposal)
        return replace(definitions, proposal=proposal)

    def begun_again(self, definitions: Definitions, terms: Terms) -> Definitions:
        """Count the time of a trial from now, as the kernel holds it; if that can't be kept, from before."""
        proposal = definitions.proposal
        if proposal is None or proposal.record.terms == terms:
            return definitions
        proposal = replace(proposal, record=replace(proposal.record, terms=terms))
        with contextlib.suppress(OSError):
            self._write(definitions, proposal)
        return replace(definitions, proposal=proposal)

    def _write(self, definitions: Definitions, proposal: Proposal) -> None:
        delivery, record = proposal.delivery, proposal.record
        links = definitions.written[1] if definitions.written else ()
        kept = KeptDocuments(
            version=delivery.snapshot.version, documents=delivery.documents, links=links, record=record
        )
        self._pending.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(self._pending, encode_kept(kept))

    def confirmed(self, definitions: Definitions, history: History) -> Definitions:
        """Make what is on trial the newest of the history.

        Raises:
            OSError: it is still on trial.
        """
        assert definitions.proposal is not None  # noqa: S101 - the caller has checked
        history.take(self._pending)
        proposal = definitions.proposal
        return replace(
            definitions,
            good=proposal.delivery,
            record=replace(proposal.record, terms=None),
            proposal=None,
            is_trial_in_force=False,
            kept=None,
            written=None,
        )

    def withdrawn(self, definitions: Definitions) -> Definitions:
        """Give up a proposal that the kernel refused: what was in force still is."""
        return self.forgotten(replace(definitions, proposal=None, is_trial_in_force=False))

    def given_up(self, definitions: Definitions) -> Definitions:
        """End a trial, and note that the kernel has to go back: from now on it is no candidate."""
        fault = None
        try:
            if self._pending.exists():
                rename_durably(self._pending, self._unconfirmed)
        except OSError as error:
            fault = f"the end of a trial could not be noted: {error}"
        return replace(
            definitions, proposal=None, is_trial_in_force=False, is_going_back=True, trial_fault=fault
        )

    def forgotten(self, definitions: Definitions) -> Definitions:
        """Note that the kernel holds nothing of a trial any more."""
        fault = None
        try:
            remove_durably(self._pending)
            remove_durably(self._unconfirmed)
        except OSError as error:
            fault = f"the end of a trial could not be noted: {error}"
        return replace(definitions, trial_fault=fault)


def is_running(terms: Terms | None, boot_id: str, monotonic: float) -> bool:
    """Return whether a trial still runs; whatever is doubtful has ended it.

    The monotonic clock is the same for all processes of one boot, and nobody can set it.
    """
    return terms is not None and terms.boot_id == boot_id and terms.began <= monotonic < terms.deadline
