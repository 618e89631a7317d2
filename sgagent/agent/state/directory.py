"""Keep the last good definitions over restarts and reboots (§9.2).

The files hold the documents as the source delivered them; they are parsed again when they are loaded. Each
file is replaced atomically. A file whose checksum does not agree is reported and left, and the one before is
used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sgagent.agent.state.atomic_file import write_durably
from sgagent.agent.state.history import History
from sgagent.agent.state.snapshot_file import DamagedStateError, KeptDocuments, decode_kept
from sgagent.core.errors import NotPermittedError

_OLD_NEWEST = "last-good.json"
_OLD_BEFORE = "last-good.previous.json"
"""Where earlier versions kept definitions."""

_CONFIGURATION = "last-good.toml"
_HISTORY = "history"


class StateDirectory:
    """The directory that outlives the agent."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is made when something is kept."""
        self.directory = directory
        self.history = History(directory / _HISTORY)

    def refuse_unreadable(self) -> None:
        """Make sure that this process may look at what an earlier one kept.

        Raises:
            NotPermittedError: it may not, since that was another user.
        """
        for directory in (self.directory, self.directory / _HISTORY):
            if directory.is_dir() and not os.access(directory, os.R_OK | os.X_OK):
                raise NotPermittedError(
                    f"{directory}: user {directory.stat().st_uid} keeps the state there, and an agent of user"
                    f" {os.geteuid()}, without privilege as it is, may not read it: run it as that user, or"
                    " have the directory belong to this one"
                )

    def has_enforced(self) -> bool:
        """Return whether this host ever enforced a snapshot: whether anything was kept, readable or not.

        Where the directory can't be read, something may be there, and so the answer is yes.
        """
        try:
            return any(path.exists() for path in self._newest_first())
        except OSError:
            return True

    def keep(self, kept: KeptDocuments) -> None:
        """Keep these documents as those that are enforced; those before are the fallback.

        Raises:
            OSError: nothing was changed.
        """
        self.take_over_old_files()
        self.history.keep(kept)

    def take_over_old_files(self) -> None:
        """Make what an earlier version kept the beginning of the history.

        Raises:
            OSError: what was not taken over is still where it was.
        """
        for name in (_OLD_BEFORE, _OLD_NEWEST):
            if (self.directory / name).exists():
                self.history.take(self.directory / name)

    def load(self) -> tuple[KeptDocuments | None, tuple[str, ...]]:
        """Return the newest documents that can be read, and what was wrong with those that can't."""
        faults: list[str] = []
        try:
            paths = tuple(self._newest_first())
        except OSError as error:
            return None, (str(error),)
        for path in paths:
            try:
                return decode_kept(path.read_bytes(), str(path)), tuple(faults)
            except FileNotFoundError:
                continue
            except (OSError, DamagedStateError) as error:
                faults.append(str(error))
        return None, tuple(faults)

    def _newest_first(self) -> Iterator[Path]:
        """Yield where documents may be kept. Old files go before a new one comes, the newest of them last."""
        yield self.directory / _OLD_NEWEST
        yield from (self.history.path(number) for number in reversed(self.history.numbers()))
        yield self.directory / _OLD_BEFORE

    def keep_configuration(self, text: str) -> None:
        """Keep the configuration that an agent started with, should it be broken at the next boot.

        Raises:
            OSError: nothing was changed.
        """
        if text != self.configuration():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self.directory / _CONFIGURATION, text.encode())

    def configuration(self) -> str | None:
        """Return the configuration that was kept; None where there is none that can be read."""
        try:
            return (self.directory / _CONFIGURATION).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return None
