"""Commit-confirm: the file of the definitions that are enforced on trial.

The file lies beside the history, and is written before the kernel gets any of it. Confirming renames it into
the history. Going back renames it first, and removes it once the kernel has gone back. So an agent that
starts after a crash in between completes the way back.
"""

from __future__ import annotations

from pathlib import Path

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
    """The file of what is on trial, in the state directory."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is made when a trial begins."""
        self._pending = directory / _PENDING
        self._unconfirmed = directory / _UNCONFIRMED

    def begin(self, kept: KeptDocuments) -> None:
        """Keep what is about to be enforced on trial.

        Raises:
            OSError: nothing was changed.
        """
        self._pending.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(self._pending, encode_kept(kept))

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

    def confirm(self, history: History) -> None:
        """Make what is on trial the newest of the history.

        Raises:
            OSError: it is still on trial.
        """
        history.take(self._pending)

    def end(self) -> None:
        """Note that the trial is over and the kernel has to go back.

        Raises:
            OSError: nothing was changed.
        """
        if self._pending.exists():
            rename_durably(self._pending, self._unconfirmed)

    @property
    def is_going_back(self) -> bool:
        """Return whether the kernel has to go back, or did and that is not noted yet."""
        return self._unconfirmed.exists()

    def forget(self) -> None:
        """Note that nothing of a trial is in force.

        Raises:
            OSError: it is not noted.
        """
        remove_durably(self._pending)
        remove_durably(self._unconfirmed)


def is_running(terms: Terms | None, boot_id: str, monotonic: float) -> bool:
    """Return whether a trial still runs; whatever is doubtful has ended it.

    The monotonic clock is the same for all processes of one boot, and nobody can set it.
    """
    return terms is not None and terms.boot_id == boot_id and terms.began <= monotonic < terms.deadline
