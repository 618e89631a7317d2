"""Sign what is published, and hold what was read against that.

One signature vouches for all published keys: a manifest as :mod:`sgagent.signatures` writes it, whose names
are the keys. A host reads only some of the keys, and holds those against the manifest, with what is missing
among them. So whoever can write to the store can withhold a publication, and change none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.signatures import Manifest, SignatureFile, check_part
from sgagent.sources.etcd.documents import Composed
from sgagent.sources.etcd.key_selection import Interest
from sgagent.sources.etcd.keys import MEMBERS, PUBLISHED, SIGNATURE, KeyLayout, Values
from sgagent.sources.etcd.messages import KeyRange, KeyValue
from sgagent.sources.signature_policy import Vouched, Vouching

PART_BYTES = 512 << 10
"""Of a signature in one key: etcd takes values of 1.5 MiB, and a transaction of as much."""

Sign = Callable[[Mapping[str, bytes], int], SignatureFile]
"""Vouch for contents by their names, as a publication of some serial."""


def signature_keys(
    contents: Mapping[str, bytes], layout: KeyLayout, serial: int, sign: Sign
) -> dict[str, bytes]:
    """Return the keys that vouch for published ones, with their values."""
    named = {layout.relative(key): value for key, value in contents.items()}
    text = sign(named, serial).render().encode()
    parts = (text[at : at + PART_BYTES] for at in range(0, len(text), PART_BYTES))
    return {layout.key(SIGNATURE, f"{number:04}"): part for number, part in enumerate(parts)}


def signature_in(items: Iterable[KeyValue], layout: KeyLayout) -> bytes | None:
    """Return the signature that stands among keys; None if there is none."""
    parts = {item.key: item.value for item in items if layout.parts(item.key)[0] == SIGNATURE}
    return b"".join(parts[key] for key in sorted(parts)) if parts else None


@dataclass(frozen=True, slots=True)
class SignedInterest:
    """Want to know what somebody else wants to know, and who vouches for it."""

    inner: Interest
    layout: KeyLayout

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return what has to be read, the signature with it."""
        return self.inner.wanted(values) | {self.layout.all_of(SIGNATURE)}

    def documents(self, values: Values) -> Composed:
        """Return what was read as documents, of which the signature is none."""
        return self.inner.documents(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedContent:
    """What was read, as far as it counts."""

    values: Values
    vouched: Vouched | None = None
    """By what; None where nobody is asked, or where there is no signature and none is required."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


def hold(
    values: Values, is_read: Callable[[str], bool], layout: KeyLayout, vouching: Vouching
) -> SignedContent:
    """Return what somebody who is trusted vouches for, whatever its age.

    Args:
        values: what was read.
        is_read: tells of a key whether it would be among them if it were there.
        layout: the keys.
        vouching: knows whose signatures count.

    Raises:
        DocumentError: nobody who is trusted vouches for what was read.
    """
    if not vouching.wants_signature:
        return SignedContent(values=values)
    place = place_of(layout)
    signature = signature_in(values.values(), layout)
    if signature is None:
        return SignedContent(values=values, problems=(vouching.missing(place),))
    kept = {key: item for key, item in values.items() if not _is_announced(item, layout)}
    contents = {layout.relative(key): item.value for key, item in kept.items() if _is_signed(key, layout)}

    def is_asked_for(name: str) -> bool:
        return is_read(layout.root + name)

    def hold_against(manifest: Manifest) -> None:
        check_part(manifest, contents, is_asked_for)

    vouched = vouching.verify(signature, place, hold_against, lambda name: f"etcd:{layout.root}{name}")
    left_out = len(values) - len(kept)
    problems = (_left_out(left_out, layout),) if left_out else ()
    return SignedContent(values=kept, vouched=vouched, problems=problems)


def place_of(layout: KeyLayout) -> str:
    """Return how messages call the signature."""
    return f"etcd:{layout.key(SIGNATURE)}"


def _is_signed(key: str, layout: KeyLayout) -> bool:
    """Return whether a key is one for which somebody has to vouch."""
    kind = layout.parts(key)[0]
    return kind in PUBLISHED and kind != SIGNATURE


def _is_announced(item: KeyValue, layout: KeyLayout) -> bool:
    """Return whether a host wrote a key of itself, for which nobody vouches."""
    return item.lease != 0 and layout.parts(item.key)[0] == MEMBERS


def _left_out(number: int, layout: KeyLayout) -> Problem:
    return Problem(
        severity=Severity.WARNING,
        code="member_unsigned",
        origin=Origin(file=f"etcd:{layout.key(MEMBERS)}"),
        message=f"members that hosts announced of themselves are left out, as nobody signed them: {number}",
        remedy="publish members, signed; or pin no key, and trust whoever may write",
    )
