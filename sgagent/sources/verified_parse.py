"""Verification and parsing of fetched documents, in this order.

Verification checks pinned keys and refuses replayed publications. The results are cached until the documents
or their signature change; only the age is checked each time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from sgagent import signatures
from sgagent.core.errors import DocumentError, Problem, SourceUnavailableError, refusal
from sgagent.core.memo import Memo
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, RefusedDocumentsError, parse_documents
from sgagent.json_model import UNREADABLE, from_json, to_json
from sgagent.ports import Delivery
from sgagent.settings import SignatureSettings
from sgagent.signatures import Manifest, SignatureFaultError, Signed

ReadEnforced = Callable[[], Signed | None]
"""Returns the newest signature that this host enforced; None for none. Raises OSError or ValueError if it
can't be read."""

HoldAgainst = Callable[[Manifest], None]
"""Compares the fetched documents with a manifest; raises :class:`SignatureFaultError` if they differ."""

NameOf = Callable[[str], str]
"""Returns the name for messages of a document in a manifest."""


class MismatchError(DocumentError):
    """Documents that do not match their signature; the publisher may still be writing one of the two."""


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """The pinned keys, and the newest signature that this host enforced."""

    settings: SignatureSettings = field(default_factory=SignatureSettings)
    """The pinned keys; without any, no signature is required."""

    read_enforced: ReadEnforced = lambda: None
    """Reads the newest signature that this host enforced."""

    now: Callable[[], float] = time.time
    """Returns seconds since the epoch."""

    @property
    def wants_signature(self) -> bool:
        """Return whether keys are pinned, so that sources must fetch signatures."""
        return bool(self.settings.public_keys)

    def verify(self, signature: bytes, place: str, hold_against: HoldAgainst, name_of: NameOf) -> Signed:
        """Verify a signature file and its documents; ignore its age.

        Args:
            signature: the content of the signature file.
            place: the place of the signature, for messages.
            hold_against: compares the fetched documents with the manifest.
            name_of: returns the name for messages of a document in the manifest.

        Raises:
            MismatchError: the signature is valid, but the documents differ.
            DocumentError: no pinned key signed.
        """
        try:
            manifest, signed = signatures.check_signature(signature, self.settings.public_keys)
            hold_against(manifest)
        except SignatureFaultError as fault:
            raise _refused(fault, place if fault.name is None else name_of(fault.name)) from None
        return signed

    def verify_whole(self, contents: Mapping[str, bytes], signature: bytes, place: str) -> Signed:
        """Verify a signature file and the documents that it has to be of; ignore its age.

        Args:
            contents: of all documents, by their names in messages.
            signature: the content of the signature file.
            place: the place of the signature, for messages.

        Raises:
            MismatchError: the signature is valid, but the documents differ.
            DocumentError: no pinned key signed.
        """
        signed_contents = {base_name(name): content for name, content in contents.items()}
        names = {base_name(name): name for name in contents}
        return self.verify(
            signature,
            place,
            lambda manifest: signatures.check_contents(manifest, signed_contents),
            lambda name: names.get(name, name),
        )

    def check_age(self, signed: Signed, place: str) -> None:
        """Refuse an expired signature, and one older than the last that this host enforced.

        Raises:
            DocumentError: the signature is expired or older, or the last enforced one can't be read.
        """
        try:
            enforced = self.read_enforced()
        except (OSError, ValueError) as error:
            message = f"can't read the serial that this host enforced last: {error}"
            remedy = "repair the file; without it, the host can't detect replayed publications"
            raise refusal("serial_unknown", place, message, remedy) from error
        try:
            signatures.check_age(signed, now=self.now(), enforced=enforced)
        except SignatureFaultError as fault:
            raise _refused(fault, place) from None

    def missing(self, place: str) -> Problem:
        """Return the warning that the signature is missing.

        Raises:
            DocumentError: the configuration requires a signature.
        """
        remedy = "sign with `sgagent sign`, or `sgagent publish --key` where definitions are in etcd"
        error = refusal("signature_missing", place, "there is no signature", remedy)
        if self.settings.required:
            raise error
        return error.problems[0].as_warning()


def _refused(fault: SignatureFaultError, place: str) -> DocumentError:
    """Return a failed check as the error of the documents at a place."""
    error = refusal(fault.code, place, fault.message, fault.remedy)
    return MismatchError(error.problems) if fault.code == "signature_mismatch" else error


_NAME = "signature.json"
_FORMAT = 1


def signature_file(state_directory: Path, place: str | None = None) -> Path:
    """Return the path of the file with the last enforced signature: of all, or of one source's place."""
    if place is None:
        return state_directory / _NAME
    return state_directory / f"source-{hashlib.sha256(place.encode()).hexdigest()[:16]}-{_NAME}"


def guardrails_signature_file(state_directory: Path) -> Path:
    """Return the path of the file with the last signature of guardrails that this host took (§13.4)."""
    return state_directory / f"guardrails-{_NAME}"


def read_signature(path: Path) -> Signed | None:
    """Return the signature that this host enforced last; None if it never enforced a signed publication.

    Raises:
        OSError: the file can't be read.
        ValueError: the file is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return from_json(Signed, json.loads(content), _FORMAT)
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a file of a kept signature: {error}") from error


def encode_signature(signed: Signed) -> bytes:
    """Return the content of the file."""
    return json.dumps({"format": _FORMAT, **to_json(signed)}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source has no delivery, as a value that any thread may read.

    Sources keep this, and raise a new exception from it each time. An exception that is kept and raised again
    keeps every frame alive that it passed, and what these frames refer to.
    """

    message: str
    make: Callable[[], DocumentError | SourceUnavailableError] | None = field(default=None, compare=False)
    """Makes the exception; None makes that of an unavailable source."""

    about: tuple[object, ...] = ()
    """What the exception holds besides; messages are cut, so that two refusals may read alike."""

    @classmethod
    def of(cls, error: DocumentError | SourceUnavailableError) -> Self:
        """Return the failure of an exception."""
        message = str(error)
        match error:
            case RefusedDocumentsError():
                parsed, left_out = (error.readable, error.documents), error.has_left_out
                make = partial(RefusedDocumentsError, error.problems, *parsed, has_left_out=left_out)
                return cls(message, make, (error.problems, left_out))
            case DocumentError():
                return cls(message, partial(DocumentError, error.problems), (error.problems,))
            case _:
                return cls(message, partial(type(error), *error.args), (type(error),))

    def exception(self) -> DocumentError | SourceUnavailableError:
        """Return a new exception that says the same."""
        return SourceUnavailableError(self.message) if self.make is None else self.make()


@dataclass(slots=True)
class VerifiedParser:
    """Parser of documents that verifies their signature first."""

    limits: Limits
    signature_policy: SignaturePolicy = field(default_factory=SignaturePolicy)
    version: str | None = None
    """The version of every delivery; None derives it from the content."""

    memo: Memo = field(default_factory=Memo)
    """The documents parsed before."""

    _verified: tuple[tuple[DocumentFile, ...], bytes, Signed] | None = None
    """Of the newest documents and their signature."""

    _read: tuple[tuple[DocumentFile, ...], _Reading | Failure] | None = None
    """Of the newest documents."""

    _newest: Delivery | None = None

    @property
    def wants_signature(self) -> bool:
        """Return whether keys are pinned, so that sources must fetch signatures."""
        return self.signature_policy.wants_signature

    def take(
        self,
        documents: tuple[DocumentFile, ...],
        signature: bytes | None,
        place: str,
        *,
        warnings: tuple[Problem, ...] = (),
        signed: Signed | None = None,
    ) -> Delivery:
        """Return the delivery of documents; the identical object if nothing has changed.

        Args:
            documents: all documents.
            signature: the content of the signature file; None if there is none.
            place: that of the signature file, for messages.
            warnings: those of the source.
            signed: the signature of documents that the source has verified.

        Raises:
            MismatchError: the signature is valid, but the documents differ.
            DocumentError: no valid signature of a pinned key, or syntax or schema errors.
        """
        if self.wants_signature and signature is not None:
            signed = self._verify(documents, signature, place)
        elif self.wants_signature:
            warnings = (self.signature_policy.missing(place), *warnings)
        snapshot, problems = self._parse(documents)
        problems = (*warnings, *problems)
        newest = self._newest
        is_same = newest is not None and newest.snapshot is snapshot
        if newest is None or not is_same or (newest.signed, newest.problems) != (signed, problems):
            newest = Delivery(
                snapshot=snapshot, problems=problems, warnings=warnings, documents=documents, signed=signed
            )
            self._newest = newest
        return newest

    def _verify(self, documents: tuple[DocumentFile, ...], signature: bytes, place: str) -> Signed:
        """Return the verified signature of the documents.

        Raises:
            DocumentError: no pinned key signed them, or the signature is expired or replayed.
        """
        if self._verified is None or self._verified[:2] != (documents, signature):
            contents = {file.name: file.content for file in documents}
            signed = self.signature_policy.verify_whole(contents, signature, place)
            self._verified = (documents, signature, signed)
        *_, signed = self._verified
        self.signature_policy.check_age(signed, place)
        return signed

    def _parse(self, documents: tuple[DocumentFile, ...]) -> _Reading:
        """Return the snapshot and the warnings, cached while the documents are unchanged.

        Raises:
            DocumentError: syntax or schema errors, which are cached too.
        """
        if self._read is None or self._read[0] != documents:
            try:
                parsed = parse_documents(documents, self.limits, self.version, self.memo)
                self._read = (documents, parsed)
            except DocumentError as error:
                self._read = (documents, Failure.of(error))
        reading = self._read[1]
        if isinstance(reading, Failure):
            raise reading.exception()
        return reading


_Reading = tuple[Snapshot, tuple[Problem, ...]]


def base_name(name: str) -> str:
    """Return a document's name without its directory, as manifests have it."""
    return name.rpartition("/")[2]
