"""Tables in the state directory: the digest of the one that stands, and the boot's fallback.

The kernel numbers the states of a ruleset. While the number is the same, in the same boot and network
namespace, nobody has changed anything, our table included. The next agent compiles what it would enforce; if
the digest agrees, that is what stands. Where anything differs, or there is no file, the table is listed. An
agent that ends in order writes the digest, and the next one removes it at once.

The fallback is what nft loads at a boot without the agent's program.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from sgagent.agent.state.directory import (
    SealedFile,
    StateDirectory,
    fault_of,
    remove_durably,
    write_durably,
)
from sgagent.compiler.compilation import compile_
from sgagent.compiler.enforce import renamed_maps
from sgagent.compiler.fallback import compile_fallback
from sgagent.core.memo import Memo
from sgagent.core.policy import ResolvedPolicy
from sgagent.json_model import from_json, to_json
from sgagent.nft import ruleset as nft
from sgagent.nft.marks import MarkLayout, decode_state
from sgagent.nft.names import STATE_CHAIN
from sgagent.nft.text import render, write_additions
from sgagent.nft.transactions import AddChain, AddRule, AddTable, DeclarationVerb, Operation
from sgagent.settings import Settings

STANDING_FILE = "standing-table.json"
FALLBACK_FILE = "boot-fallback.nft"


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
    def of(cls, ruleset: nft.Ruleset, boot_id: str, namespace: int, generation: int) -> Self:
        """Return the identity of a table."""
        return cls(
            boot_id=boot_id,
            namespace=namespace,
            generation=generation,
            state=ruleset.chain_by_name[STATE_CHAIN].comment,
            renamed=tuple(sorted(renamed_maps(ruleset))),
            sha256=_digest(ruleset),
        )

    def compiled(self, policy: ResolvedPolicy, settings: Settings, memo: Memo) -> nft.Ruleset | None:
        """Return the table that enforces a policy under the state of this one.

        None where another configuration gives marks another meaning.
        """
        layout = MarkLayout(settings.enforcement.mark_mask)
        state, logging = decode_state(self.state, layout), settings.flow_log.logging
        if state is None:
            return None
        return compile_(policy, layout, state, logging, memo, renamed=frozenset(self.renamed)).ruleset

    def is_of(self, ruleset: nft.Ruleset) -> bool:
        """Return whether a ruleset is that table."""
        return self.sha256 == _digest(ruleset)


def _digest(ruleset: nft.Ruleset) -> str:
    return hashlib.sha256(render(ruleset, persist=True).encode()).hexdigest()


class StandingTableFile:
    """The file."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        """Take the state directory, and the id of this boot."""
        self._file = SealedFile(directory / STANDING_FILE, "file of the standing table")
        self._boot_id = boot_id

    def take(self) -> StandingTable | None:
        """Return the table that an earlier agent of this boot left, and remove the file; None if damaged."""
        try:
            found, _ = self._file.load(partial(from_json, StandingTable))
            self._file.remove()
        except OSError:
            return None  # what can't be removed could be believed again
        return found if found is not None and found.boot_id == self._boot_id else None

    def keep(self, ruleset: nft.Ruleset, namespace: int, generation: int) -> None:
        """Write down the table's identity; without the file, the next agent lists the table."""
        with suppress(OSError):
            self._file.save(to_json(StandingTable.of(ruleset, self._boot_id, namespace, generation)))


class BootFallback:
    """The file, which follows the policy in force and is written only if it changes."""

    def __init__(self, state: StateDirectory) -> None:
        """Take the state directory, whose file stays as it is until the first policy."""
        self._path = state.directory / FALLBACK_FILE
        self._is_written = state.is_changed
        self.fault: str | None = None

    def follow(self, policy: ResolvedPolicy) -> None:
        """Have the file close the links on which a policy is enforced; without any, there is no file."""
        if self._is_written:
            self.fault = fault_of(
                partial(self._replace, render_fallback(policy)), "the fallback of the boot could not be saved"
            )

    def _replace(self, text: str | None) -> None:
        content = self._path.read_bytes() if self._path.exists() else None
        if text is None and content is not None:
            remove_durably(self._path)
        elif text is not None and content != text.encode():
            write_durably(self._path, text.encode())


def render_fallback(policy: ResolvedPolicy) -> str | None:
    """Return the commands that make the fallback table; None where there is nothing to close.

    The kernel refuses them where a table of ours is in force: its chains stand already. The first line
    declares the table, so that the script can declare it to persist where nft and kernel know that.
    """
    table = compile_fallback(policy)
    return None if table is None else write_additions(_operations(table), verb=DeclarationVerb.CREATE)


def _operations(table: nft.Ruleset) -> list[Operation]:
    empty = [nft.Chain(name=chain.name, hook=chain.hook) for chain in table.chains]
    rules = (AddRule(chain.name, rule) for chain in table.chains for rule in chain.rules)
    return [AddTable(), *map(AddChain, empty), *rules]
