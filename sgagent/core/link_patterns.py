"""Patterns of links' names, and the prefixes by which the kernel knows a link that has just come (§12.5).

``*`` stands for any characters, also none, and ``?`` for one; nothing else is special. The kernel compares
whole names, and prefixes of names. So each pattern has a guard: it judges the links whose names begin as the
pattern does and that no rule names yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


def is_pattern(text: str) -> bool:
    """Return whether the text stands for several names."""
    return "*" in text or "?" in text


def is_of_any_name(text: str) -> bool:
    """Return whether the text says nothing about names but how long they are at least, like ``*``."""
    return "*" in text and not text.strip("*?")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LinkPattern:
    """The links that one ``[[interface]]`` means."""

    text: str
    """Holds ``*`` or ``?``."""

    exclude: tuple[str, ...] = ()
    """Sorted names and patterns that it does not mean."""

    @property
    def prefix(self) -> str:
        """Return how all the names begin; may be empty."""
        return _literal_prefix(self.text)

    @property
    def excluded_names(self) -> tuple[str, ...]:
        """Return what is excluded by its very name."""
        return tuple(text for text in self.exclude if not is_pattern(text))

    def matches(self, name: str) -> bool:
        """Return whether it means a link of the name."""
        return _matches(self.text, name) and not any(_matches(text, name) for text in self.exclude)

    def covers(self, other: LinkPattern) -> bool:
        """Return whether this one means every link that the other one does, as the texts show."""
        return _covers(self.text, other.text) and not any(_covers(text, other.text) for text in self.exclude)

    def may_match(self, prefix: str) -> bool:
        """Return whether it may mean a link whose name begins so."""
        some = f"{prefix}*"
        return _overlap(self.text, some) and not any(_covers(text, some) for text in self.exclude)

    def matches_all(self, prefix: str, longer: Iterable[str]) -> bool:
        """Return whether it means every link whose name begins so, names and longer prefixes apart.

        Args:
            prefix: of the names.
            longer: prefixes that have guards of their own.
        """
        apart = {f"{one}*" for one in longer}
        wild = (text for text in self.exclude if is_pattern(text) and text not in apart)
        some = f"{prefix}*"
        return _covers(self.text, some) and not any(_overlap(text, some) for text in wild)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixGuard:
    """What is known of a link by the first characters of its name alone."""

    prefix: str
    patterns: tuple[LinkPattern, ...]
    """Those that may mean such a link; none where all exclude it."""

    is_certain: bool
    """Whether the one pattern means every such link, those that are excluded by name apart."""


@cache
def guards_of(patterns: tuple[LinkPattern, ...]) -> tuple[PrefixGuard, ...]:
    """Return the guards of patterns. The first whose prefix a name begins with is the one for the name."""
    prefixes = {pattern.prefix for pattern in patterns}
    for pattern in patterns:
        prefixes |= {
            text[:-1] for text in pattern.exclude if _literal_prefix(text) == text[:-1] and text[-1] == "*"
        }
    ordered = sorted(prefixes, key=lambda prefix: (-len(prefix), prefix))
    found = []
    for prefix in ordered:
        longer = [one for one in ordered if one.startswith(prefix) and one != prefix]
        meant = tuple(p for p in patterns if prefix.startswith(p.prefix) and p.may_match(prefix))
        is_certain = len(meant) == 1 and meant[0].matches_all(prefix, longer)
        found.append(PrefixGuard(prefix=prefix, patterns=meant, is_certain=is_certain))
    return tuple(found)


def _literal_prefix(text: str) -> str:
    return re.split(r"[*?]", text, maxsplit=1)[0]


def _matches(text: str, name: str) -> bool:
    return _expression(text).fullmatch(name) is not None


@cache
def _expression(text: str) -> re.Pattern[str]:
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(sign) or re.escape(sign) for sign in text), re.DOTALL)


@cache
def _overlap(one: str, other: str) -> bool:
    """Return whether there may be a name that both patterns match."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return _overlap(one[1:], other) or _overlap(one, other[1:])
    if other[0] == "*":
        return _overlap(other, one)
    return (one[0] == other[0] or "?" in (one[0], other[0])) and _overlap(one[1:], other[1:])


@cache
def _covers(one: str, other: str) -> bool:
    """Return whether every name that the other pattern matches is matched by this one, as the texts show."""
    if not one:
        return not other
    if one[0] == "*":
        return _covers(one[1:], other) or (bool(other) and _covers(one, other[1:]))
    if not other or other[0] == "*" or one[0] not in ("?", other[0]):
        return False
    return _covers(one[1:], other[1:])
