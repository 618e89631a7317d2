"""Verification and parsing of fetched documents, in this order.

The results are cached until the documents or their signature change; only the age is checked each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from sgagent.core.errors import DocumentError, Problem, SourceUnavailableError
from sgagent.core.memo import Memo
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, RefusedDocumentsError, parse_documents
from sgagent.ports import Delivery
from sgagent.signatures import Manifest, Signed, check_contents
from sgagent.sources.signature_policy import SignaturePolicy, VerifiedManifest


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source has no delivery, as a value that any thread may read.

    Sources keep this, and raise a new exception from it each time. An exception that is kept and raised again
    keeps every frame alive that it passed, and what these frames refer to.
    """

    message: str
    problems: tuple[Problem, ...] | None = None
    """Of refused documents; None where the source is unavailable."""

    unavailable: type[SourceUnavailableError] = SourceUnavailableError
    """How the source is unavailable: a class that takes the message."""

    readable: Snapshot | None = field(default=None, compare=False)
    """The part of the refused documents without errors, if they were parsed."""

    has_left_out: bool = False

    @classmethod
    def of(cls, error: DocumentError | SourceUnavailableError) -> Self:
        """Return what an exception says."""
        match error:
            case RefusedDocumentsError():
                problems, readable = error.problems, error.readable
                return cls(str(error), problems, readable=readable, has_left_out=error.has_left_out)
            case DocumentError():
                return cls(str(error), error.problems)
            case _:
                return cls(str(error), unavailable=type(error))

    def exception(self) -> DocumentError | SourceUnavailableError:
        """Return a new exception that says the same."""
        if self.problems is None:
            return self.unavailable(self.message)
        if self.readable is None:
            return DocumentError(self.problems)
        return RefusedDocumentsError(self.problems, self.readable, has_left_out=self.has_left_out)


def delivered(outcome: Delivery | Failure) -> Delivery:
    """Return the delivery of a source.

    Raises:
        DocumentError: the documents are refused.
        SourceUnavailableError: the source is unavailable.
    """
    if isinstance(outcome, Failure):
        raise outcome.exception()
    return outcome


class VerifiedParser:
    """Parser of documents that verifies their signature first."""

    def __init__(
        self,
        limits: Limits,
        signature_policy: SignaturePolicy | None = None,
        version: str | None = None,
        memo: Memo | None = None,
    ) -> None:
        """Store the requirements.

        Args:
            limits: the largest accepted documents.
            signature_policy: the signature policy; None requires no signature.
            version: the version of every delivery; None derives it from the content.
            memo: the parsed documents of before; None for a memo that only this parser uses.
        """
        self._limits = limits
        self._version = version
        self._signature_policy = signature_policy or SignaturePolicy()
        self._verified: _CachedVerification | None = None
        self._read: _Read | None = None
        self._memo = memo or Memo()
        self._newest: Delivery | None = None

    @property
    def wants_signature(self) -> bool:
        """Return whether keys are pinned, so that sources must fetch signatures."""
        return self._signature_policy.wants_signature

    def take(self, documents: tuple[DocumentFile, ...], signature: bytes | None, place: str) -> Delivery:
        """Return the delivery of documents; the identical object if nothing has changed.

        Args:
            documents: all documents.
            signature: the content of the signature file; None if there is none.
            place: the place of the signature file, for messages.

        Raises:
            MismatchError: the signature is valid, but the documents differ.
            DocumentError: no valid signature of a pinned key, or syntax or schema errors.
        """
        signed: Signed | None = None
        unsigned: tuple[Problem, ...] = ()
        if self.wants_signature and signature is not None:
            signed = self._verify(documents, signature, place)
        elif self.wants_signature:
            unsigned = (self._signature_policy.missing(place),)
        snapshot, problems = self._parse(documents)
        delivery = Delivery(
            snapshot=snapshot, problems=(*unsigned, *problems), documents=documents, signed=signed
        )
        if self._newest is None or not _is_same(self._newest, delivery):
            self._newest = delivery
        return self._newest

    def _verify(self, documents: tuple[DocumentFile, ...], signature: bytes, place: str) -> Signed:
        """Return the verified signature of the documents.

        Raises:
            DocumentError: no pinned key signed them, or the signature is expired or replayed.
        """
        if self._verified is None or not self._verified.is_for(documents, signature):
            contents = {base_name(file.name): file.content for file in documents}
            places = {base_name(file.name): file.name for file in documents}

            def hold_against(manifest: Manifest) -> None:
                check_contents(manifest, contents)

            verified = self._signature_policy.verify(
                signature, place, hold_against, lambda name: places.get(name, name)
            )
            self._verified = _CachedVerification(documents, signature, verified)
        self._signature_policy.check_age(self._verified.verified, place)
        return self._verified.verified.signed

    def _parse(self, documents: tuple[DocumentFile, ...]) -> _Reading:
        """Return the snapshot and the warnings, cached while the documents are unchanged.

        Raises:
            DocumentError: syntax or schema errors, which are cached too.
        """
        if self._read is None or self._read.documents != documents:
            try:
                self._read = _Read(
                    documents, parse_documents(documents, self._limits, self._version, self._memo)
                )
            except DocumentError as error:
                self._read = _Read(documents, Failure.of(error))
        reading = self._read.reading
        if isinstance(reading, Failure):
            raise reading.exception()
        return reading


_Reading = tuple[Snapshot, tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class _Read:
    """The cached result of parsing documents."""

    documents: tuple[DocumentFile, ...]
    reading: _Reading | Failure


@dataclass(frozen=True, slots=True)
class _CachedVerification:
    """The cached result of verifying a signature."""

    documents: tuple[DocumentFile, ...]
    signature: bytes
    verified: VerifiedManifest

    def is_for(self, documents: tuple[DocumentFile, ...], signature: bytes) -> bool:
        """Return whether this is the result for these documents and this signature."""
        return self.signature == signature and self.documents == documents


def base_name(name: str) -> str:
    """Return a document's name without its directory, as manifests have it."""
    return name.rpartition("/")[2]


def _is_same(one: Delivery, other: Delivery) -> bool:
    """Return whether two deliveries have the identical snapshot and equal signatures and problems."""
    return one.snapshot is other.snapshot and one.signed == other.signed and one.problems == other.problems
