"""Refuse documents, and hand over what could be read of them all the same."""

from __future__ import annotations

from collections.abc import Iterable

from sgagent.core.errors import DocumentError, Problem
from sgagent.core.model import Snapshot


class RefusedDocumentsError(DocumentError):
    """Say that documents have errors of form; errors of meaning may be looked for in what could be read."""

    def __init__(self, problems: Iterable[Problem], readable: Snapshot, *, has_left_out: bool) -> None:
        """Keep the problems and what could be read.

        Args:
            problems: all that was found.
            readable: never to be enforced.
            has_left_out: whether objects are missing there, so that references may seem to lead nowhere.
        """
        super().__init__(problems)
        self.readable = readable
        self.has_left_out = has_left_out
