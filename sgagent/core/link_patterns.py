"""Patterns of links' names: the beginning that the names have in common, and one ``*`` (§12.5).

The kernel compares beginnings of names itself, so a link is judged from its first packet on.
"""

from __future__ import annotations

from dataclasses import dataclass


def is_pattern(text: str) -> bool:
    """Return whether the text stands for several names."""
    return "*" in text


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LinkPattern:
    """The links that one ``[[interface]]`` means."""

    text: str
    """Ends in its only ``*``."""

    exclude: tuple[str, ...] = ()
    """Sorted names and patterns that it does not mean."""

    @property
    def prefix(self) -> str:
        """Return how all the names begin."""
        return self.text[:-1]

    @property
    def excluded_names(self) -> tuple[str, ...]:
        """Return the names that are excluded without a pattern."""
        return tuple(text for text in self.exclude if not is_pattern(text))

    @property
    def prefixes(self) -> frozenset[str]:
        """Return the beginnings that tell which links it means, excluded names apart."""
        excluded = (text[:-1] for text in self.exclude if is_pattern(text))
        return frozenset((self.prefix, *(prefix for prefix in excluded if prefix.startswith(self.prefix))))

    def matches(self, name: str) -> bool:
        """Return whether it means a link of the name."""
        return name not in self.exclude and self.matches_prefix(name)

    def matches_prefix(self, prefix: str) -> bool:
        """Return whether it means links whose names begin so, as far as no longer prefix is excluded."""
        excluded = (text[:-1] for text in self.exclude if is_pattern(text))
        return prefix.startswith(self.prefix) and not any(map(prefix.startswith, excluded))

    def overlaps(self, other: LinkPattern) -> bool:
        """Return whether a link could be meant by both."""
        narrow = max(self.prefix, other.prefix, key=len)
        return self.matches_prefix(narrow) and other.matches_prefix(narrow)
