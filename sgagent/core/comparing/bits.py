"""Reckon with sets of small whole numbers as one large number, one bit for each, so that all go at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def bits_of(number: int) -> Iterator[int]:
    """Yield the places of the bits that are set, the lowest first."""
    text = bin(number)[:1:-1]
    place = text.find("1")
    while place >= 0:
        yield place
        place = text.find("1", place + 1)


def number_of(places: Sequence[int]) -> int:
    """Return the number whose bits at some places are set; the places rise."""
    if len(places) < 8:
        return sum(1 << place for place in places)
    octets = bytearray(places[-1] // 8 + 1)
    for place in places:
        octets[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(octets, "little")
