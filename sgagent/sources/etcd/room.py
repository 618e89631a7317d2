"""Bound how much is held of a store, which may send without end.

What files may hold together, the keys of a store may that concern somebody, with their values. Those that
hold nothing count too, as holding them costs something.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sgagent.documents import Limits
from sgagent.documents.limits import FULL_DOCUMENTS
from sgagent.sources.etcd.failures import TooLargeError
from sgagent.sources.etcd.messages import KeyValue

KEY_BYTES = 100
"""For which a key counts beside its name and value: about half of what it costs to hold one."""

_AROUND_BYTES = 1 << 20
"""What may stand in a message around a document."""


def largest_message(limits: Limits) -> int:
    """Return how many bytes a message may have: one document fits into it that is as large as is allowed."""
    return limits.document_bytes + _AROUND_BYTES


def weight(item: KeyValue) -> int:
    """Return for how many bytes a key counts with its value."""
    return KEY_BYTES + len(item.key) + len(item.value)


@dataclass(slots=True)
class Room:
    """How much may still be taken in of what is read together."""

    most_bytes: int
    """For all of it."""

    taken_bytes: int = 0

    def take(self, items: Iterable[KeyValue]) -> None:
        """Count keys that have arrived.

        Raises:
            TooLargeError: they are too many, or too large.
        """
        self.taken_bytes += sum(map(weight, items))
        if self.taken_bytes > self.most_bytes:
            raise too_large(self.most_bytes)


def too_large(most_bytes: int) -> TooLargeError:
    """Return the error of keys that come to more than is held."""
    reason = f"the keys with their values come to more than {most_bytes} bytes"
    return TooLargeError(f"{reason}, {FULL_DOCUMENTS} times limits.document_bytes")
