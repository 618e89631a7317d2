"""Take documents as a source got them: check who vouches for them first, and only then read them.

What was taken or refused is not looked at again until it changes; only whether it is still valid is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.ports import Delivery
from sgagent.settings import SignatureSettings
from sgagent.signatures import (
    Manifest,
    SignatureFaultError,
    Signed,
    check_age,
    check_contents,
    check_signature,
)

ReadEnforced = Callable[[], Signed | None]
"""Return the newest signature that this host enforced, None if it never did; raise OSError or ValueError
where that is not known."""


class MismatchError(DocumentError):
    """Say that documents and signature do not belong together; one of the two may still be on its way."""


class Acceptance:
    """Decide what becomes of documents."""

    def __init__(
        self,
        limits: Limits,
        signature: SignatureSettings | None = None,
        *,
        read_enforced: ReadEnforced = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take what documents have to be like.

        Args:
            limits: what they may cost.
            signature: who may vouch for them; None asks for nobody.
            read_enforced: tells which signature this host enforced.
            now: tells seconds since the epoch.
        """
        self._limits = limits
        self._signature = signature or SignatureSettings()
        self._read_enforced = read_enforced
        self._now = now
        self._vouched: _Vouched | None = None
        self._read: _Read | None = None
        self._newest: Delivery | None = None

    @property
    def wants_signature(self) -> bool:
        """Tell whether signatures are looked at, so that they have to be fetched."""
        return bool(self._signature.public_keys)

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
            unsigned = (self._missing(place),)
            if self._signature.required:
                raise DocumentError(unsigned)
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
        try:
            if self._vouched is None or not self._vouched.is_for(documents, signature):
                manifest, signed = check_signature(signature, self._signature.public_keys)
                check_contents(manifest, {base_name(file.name): file.content for file in documents})
                self._vouched = _Vouched(documents, signature, manifest, signed)
            manifest, signed = self._vouched.manifest, self._vouched.signed
            check_age(manifest, signed, now=self._now(), enforced=self._enforced(place))
        except SignatureFaultError as fault:
            kind = MismatchError if fault.code == "signature_mismatch" else DocumentError
            raise kind([_problem(fault, documents, place)]) from None
        return signed

    def _enforced(self, place: str) -> Signed | None:
        try:
            return self._read_enforced()
        except (OSError, ValueError) as error:
            problem = Problem(
                severity=Severity.ERROR,
                code="serial_unknown",
                origin=Origin(file=place),
                message=f"which serial this host enforced can't be read: {error}",
                remedy="mend the file; without it, anything ever signed would be taken",
            )
            raise DocumentError([problem]) from error

    def _missing(self, place: str) -> Problem:
        return Problem(
            severity=Severity.ERROR if self._signature.required else Severity.WARNING,
            code="signature_missing",
            origin=Origin(file=place),
            message="there is no signature",
            remedy="sign with `sgagent sign`",
        )

    def _parse(self, documents: tuple[DocumentFile, ...]) -> _Reading:
        """Return the snapshot and the warnings; documents that are what they were are not parsed again.

        Raises:
            DocumentError: they have errors of form; the very same as long as they are what they were.
        """
        if self._read is None or self._read.documents != documents:
            try:
                self._read = _Read(documents, parse_documents(documents, self._limits))
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
    manifest: Manifest
    signed: Signed

    def is_for(self, documents: tuple[DocumentFile, ...], signature: bytes) -> bool:
        """Tell whether the very same would be verified again."""
        return self.signature == signature and self.documents == documents


def base_name(name: str) -> str:
    """Return a document's name without its directory, as manifests know it."""
    return name.rpartition("/")[2]


def _problem(fault: SignatureFaultError, documents: tuple[DocumentFile, ...], place: str) -> Problem:
    """Return a fault as a problem of the document that it is about, or of the signature file."""
    about = next((file.name for file in documents if base_name(file.name) == fault.name), fault.name)
    return Problem(
        severity=Severity.ERROR,
        code=fault.code,
        origin=Origin(file=about or place),
        message=fault.message,
        remedy=fault.remedy,
    )


def _is_same(one: Delivery, other: Delivery) -> bool:
    """Tell whether two deliveries come of the same reading, with the same signature."""
    return one.snapshot is other.snapshot and one.signed == other.signed and one.problems == other.problems
