"""The digest of the table that the agent left as it ended, so that the next one need not list it.

The kernel numbers the states of a ruleset. While the number is the same, in the same boot and network
namespace, nobody has changed anything, our table included. The next agent compiles what it would enforce; if
the digest agrees, that is what stands. Where anything differs, or there is no file, the table is listed. An
agent that ends in order writes the file, and the next one removes it at once.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from sgagent.agent.state.directory import SealedFile
from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import renamed_maps
from sgagent.core.memo import Memo
from sgagent.core.policy import ResolvedPolicy
from sgagent.json_model import from_json, to_json
from sgagent.nft.marks import MarkLayout, decode_state
from sgagent.nft.names import STATE_CHAIN
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import render
from sgagent.settings import Settings

FILE_NAME = "standing-table.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingTable:
    """A table that stands, and the ruleset's number then."""

    boot_id: str
    namespace: int
    generation: int
    state: str
    """The comment of the chain that keeps what marks mean."""

    renamed: tuple[str, ...]
    """Maps of addresses that have their second name. Sorted."""

    sha256: str
    """Of the table's text."""

    @classmethod
    def of(cls, ruleset: Ruleset, boot_id: str, namespace: int, generation: int) -> Self:
        """Return the identity of a table."""
        return cls(
            boot_id=boot_id,
            namespace=namespace,
            generation=generation,
            state=ruleset.chain_by_name[STATE_CHAIN].comment,
            renamed=tuple(sorted(renamed_maps(ruleset))),
            sha256=_digest(ruleset),
        )

    def compiled(self, policy: ResolvedPolicy, settings: Settings, memo: Memo) -> Ruleset | None:
        """Return the table that enforces a policy under the state of this one.

        None where another configuration gives marks another meaning.
        """
        layout = MarkLayout(settings.enforcement.mark_mask)
        state, logging = decode_state(self.state, layout), settings.flow_log.logging
        if state is None:
            return None
        return compile_(policy, layout, state, logging, memo, renamed=frozenset(self.renamed)).ruleset

    def is_of(self, ruleset: Ruleset) -> bool:
        """Return whether a ruleset is that table."""
        return self.sha256 == _digest(ruleset)


def _digest(ruleset: Ruleset) -> str:
    return hashlib.sha256(render(ruleset, persist=True).encode()).hexdigest()


class StandingTableFile:
    """The file."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        """Take the state directory, and the id of this boot."""
        self._file = SealedFile(directory / FILE_NAME, "file of the standing table")
        self._boot_id = boot_id

    def take(self) -> StandingTable | None:
        """Return the table that an earlier agent of this boot left, and remove the file; None if damaged."""
        try:
            found, _ = self._file.load(partial(from_json, StandingTable))
            self._file.remove()
        except OSError:
            return None  # what can't be removed could be believed again
        return found if found is not None and found.boot_id == self._boot_id else None

    def keep(self, ruleset: Ruleset, namespace: int, generation: int) -> None:
        """Write down the table's identity; without the file, the next agent lists the table."""
        with suppress(OSError):
            self._file.save(to_json(StandingTable.of(ruleset, self._boot_id, namespace, generation)))
