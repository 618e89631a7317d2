"""Take documents as a source got them: check who vouches for them first, and only then read them.

What was taken or refused is not looked at again until it changes; only whether it is still valid is.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.errors import DocumentError, Problem
from sgagent.core.memo import Memory
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import Delivery
from sgagent.signatures import Manifest, Signed, check_contents
from sgagent.sources.signature_policy import Vouched, Vouching


class Acceptance:
    """Decide what becomes of documents."""

    def __init__(self, limits: Limits, vouching: Vouching | None = None, version: str | None = None) -> None:
        """Take what documents have to be like.

        Args:
            limits: what they may cost.
            vouching: tells who may vouch for them; None asks for nobody.
            version: what all content is called; None names each by a digest.
        """
        self._limits = limits
        self._version = version
        self._vouching = vouching or Vouching()
        self._vouched: _Vouched | None = None
        self._read: _Read | None = None
        self._memory = Memory()
        self._newest: Delivery | None = None

    @property
    def wants_signature(self) -> bool:
        """Return whether signatures are looked at, so that they have to be fetched."""
        return self._vouching.wants_signature

    def take(self, documents: tuple[DocumentFile, ...], signature: bytes | None, place: str) -> Delivery:
        """Return what documents come to; the very same delivery if nothing has changed.

        Args:
            documents: all of them.
            signature: the content of the signature file; None where there is none.
            place: of the signature file, for messages.

        Raises:
            MismatchError: the signature is good, but for other documents.
            DocumentError: nobody who is trusted vouches for them, not any more, or they have errors of form.
        """
        signed: Signed | None = None
        unsigned: tuple[Problem, ...] = ()
        if self.wants_signature and signature is not None:
            signed = self._verify(documents, signature, place)
        elif self.wants_signature:
            unsigned = (self._vouching.missing(place),)
        snapshot, problems = self._parse(documents)
        delivery = Delivery(
            snapshot=snapshot, problems=(*unsigned, *problems), documents=documents, signed=signed
        )
        if self._newest is None or not _is_same(self._newest, delivery):
            self._newest = delivery
        return self._newest

    def _verify(self, documents: tuple[DocumentFile, ...], signature: bytes, place: str) -> Signed:
        """Return who vouches for the documents.

        Raises:
            DocumentError: nobody who is trusted does, or not any more.
        """
        if self._vouched is None or not self._vouched.is_for(documents, signature):
            contents = {base_name(file.name): file.content for file in documents}
            places = {base_name(file.name): file.name for file in documents}

            def hold_against(manifest: Manifest) -> None:
                check_contents(manifest, contents)

            vouched = self._vouching.verify(
                signature, place, hold_against, lambda name: places.get(name, name)
            )
            self._vouched = _Vouched(documents, signature, vouched)
        self._vouching.check_age(self._vouched.vouched, place)
        return self._vouched.vouched.signed

    def _parse(self, documents: tuple[DocumentFile, ...]) -> _Reading:
        """Return the snapshot and the warnings; documents that are what they were are not parsed again.

        Raises:
            DocumentError: they have errors of form; the very same as long as they are what they were.
        """
        if self._read is None or self._read.documents != documents:
            try:
                self._read = _Read(
                    documents, parse_documents(documents, self._limits, self._version, self._memory)
                )
            except DocumentError as error:
                self._read = _Read(documents, error)
        reading = self._read.reading
        if isinstance(reading, DocumentError):
            raise reading.with_traceback(None)  # it is raised again and again, and would remember each time
        return reading


_Reading = tuple[Snapshot, tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class _Read:
    """What documents came to when they were parsed."""

    documents: tuple[DocumentFile, ...]
    reading: _Reading | DocumentError


@dataclass(frozen=True, slots=True)
class _Vouched:
    """What a signature came to when it was verified."""

    documents: tuple[DocumentFile, ...]
    signature: bytes
    vouched: Vouched

    def is_for(self, documents: tuple[DocumentFile, ...], signature: bytes) -> bool:
        """Return whether the very same would be verified again."""
        return self.signature == signature and self.documents == documents


def base_name(name: str) -> str:
    """Return a document's name without its directory, as manifests know it."""
    return name.rpartition("/")[2]


def _is_same(one: Delivery, other: Delivery) -> bool:
    """Return whether two deliveries come of the same reading, with the same signature."""
    return one.snapshot is other.snapshot and one.signed == other.signed and one.problems == other.problems
