"""The table that nft loads at a boot without the agent's program, kept in the state directory."""

from __future__ import annotations

from functools import partial

from sgagent.agent.state.directory import StateDirectory, fault_of, remove_durably, write_durably
from sgagent.compiler.fallback import compile_fallback
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft import ruleset as nft
from sgagent.nft.text import write_additions
from sgagent.nft.transactions import AddChain, AddRule, AddTable, DeclarationVerb, Operation

FILE_NAME = "boot-fallback.nft"


class BootFallback:
    """The file, which follows the policy in force and is written only if it changes."""

    def __init__(self, state: StateDirectory) -> None:
        """Take the state directory, whose file stays as it is until the first policy."""
        self._path = state.directory / FILE_NAME
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
