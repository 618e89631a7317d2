"""Bound what a document may cost before anything of it is believed (§8.1)."""

from __future__ import annotations

from dataclasses import dataclass

FULL_DOCUMENTS = 4
"""All documents together may be as large as this many of the largest allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest documents that are read; beyond is an error, never a slow machine."""

    document_bytes: int = 64 * 1024 * 1024
    """Of one file."""

    depth: int = 32
    """Lists and mappings inside each other, YAML aliases expanded."""

    rules: int = 100_000
    """Of the whole snapshot."""

    addresses: int = 1_000_000
    """Of the whole snapshot: of interfaces and members, entries of lists, objects of rules."""

    problems: int = 10_000
    """Errors that are told one by one, and warnings likewise; of more only the number is told."""

    @property
    def all_bytes(self) -> int:
        """Return how many bytes all documents may have together, those of a source as of a directory."""
        return FULL_DOCUMENTS * self.document_bytes

    @property
    def nodes(self) -> int:
        """Return how many values one file may hold with YAML aliases expanded.

        A rule of an API document has some twenty fields, an entry of a list up to two.
        """
        return 20 * self.rules + 2 * self.addresses
