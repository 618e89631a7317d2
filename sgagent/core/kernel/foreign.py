"""Sort what somebody else put into our table, so that a plan can remove it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObjects:
    """What is in the table and can't be read as what sgagent makes."""

    is_asleep: bool
    """Whether the table has the flag ``dormant``: the kernel calls none of its chains."""

    rules_in: frozenset[str]
    """Chains with a rule that can't be read."""

    policies_of: frozenset[str]
    """Base chains that don't accept by default."""

    chains: tuple[str, ...]
    others: tuple[tuple[str, str], ...]
    """Kind and name."""

    @classmethod
    def parse(cls, foreign: Iterable[str]) -> ForeignObjects:
        """Sort the names of foreign things by kind."""
        named = [_kind_and_name(text) for text in sorted(foreign)]
        return cls(
            is_asleep=any(kind == "table" for kind, _ in named),
            rules_in=frozenset(name for kind, name in named if kind == "rule"),
            policies_of=frozenset(name for kind, name in named if kind == "policy"),
            chains=tuple(name for kind, name in named if kind == "chain"),
            others=tuple(
                (kind, name) for kind, name in named if kind not in ("table", "rule", "policy", "chain")
            ),
        )


def _kind_and_name(text: str) -> tuple[str, str]:
    """Return the kind and the name; the kinds of connection tracking's objects are two words."""
    kind, _, name = text.partition(" ")
    if kind == "ct":
        second, _, name = name.partition(" ")
        return f"ct {second}", name
    return kind, name
