"""Verdict maps: which packets their elements are for, as far as that matters here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgagent.analysis.doctor.conditions import (
    ANY_PACKET,
    LINK_NAMES,
    NAME_OCTETS,
    PacketConditions,
    compared,
    narrowed,
    other_than,
)
from sgagent.nft import ruleset as nft
from sgagent.nft.expressions import PacketBytes, ValueSource
from sgagent.nft.sets import KernelElement, KernelSet, padded

WORD_OCTETS = 4


@dataclass(frozen=True, slots=True)
class Branch:
    """The verdict of some elements of a map."""

    conditions: PacketConditions
    verdict: nft.Verdict


@dataclass(frozen=True, slots=True)
class KeyField:
    """A field of the key that is looked up."""

    place: int
    """Octets of the key before it."""

    source: ValueSource | None
    mask: bytes = b""

    @property
    def octets(self) -> int:
        """Return how many it takes in the key; a word where that is not known."""
        if isinstance(self.source, PacketBytes):
            return padded(self.source.length)
        return NAME_OCTETS if self.source in LINK_NAMES else WORD_OCTETS

    def cut(self, key: bytes) -> bytes:
        """Return the field's part of a key."""
        return key[self.place : self.place + self.octets]


def branches_of(one: KernelSet, fields: Sequence[KeyField]) -> tuple[Branch, ...]:
    """Return the verdicts of a map, each for the packets that meet it, once."""
    found = (
        Branch(_conditions(one, entry, fields), entry.verdict)
        for entry in one.entries
        if entry.verdict is not None and not entry.is_end
    )
    return tuple(dict.fromkeys(found))


def _conditions(one: KernelSet, entry: KernelElement, fields: Sequence[KeyField]) -> PacketConditions:
    conditions = ANY_PACKET if fields else narrowed(None)
    for part in _parts(one, entry, fields):
        conditions = conditions.and_(part)
    return conditions


def _parts(one: KernelSet, entry: KernelElement, fields: Sequence[KeyField]) -> Iterator[PacketConditions]:
    for at in fields:
        if not entry.key and len(fields) == 1 and not one.is_interval:
            yield other_than(at.source, [other.key for other in one.entries if other.key])
        elif _is_single(one, entry, at):
            yield compared(at.source, at.cut(entry.key), at.mask)
        elif entry.key and at.source in LINK_NAMES:
            yield compared(at.source, at.cut(entry.key).rstrip(b"\0"))  # a range of names that begin so
        else:
            yield narrowed(at.source)


def _is_single(one: KernelSet, entry: KernelElement, at: KeyField) -> bool:
    """Return whether an element has one value in a field."""
    is_range = one.is_interval if entry.last is None else at.cut(entry.key) != at.cut(entry.last)
    return bool(entry.key) and not is_range
