"""Signature policy: pinned keys, replay protection, and the file with the last enforced signature."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.json_model import UNREADABLE, from_json, to_json
from sgagent.settings import SignatureSettings
from sgagent.signatures import Manifest, SignatureFaultError, Signed, check_age, check_signature

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
class VerifiedManifest:
    """A manifest with a verified signature of a pinned key."""

    manifest: Manifest
    signed: Signed


class SignaturePolicy:
    """The pinned keys, and the newest signature that this host enforced."""

    def __init__(
        self,
        settings: SignatureSettings | None = None,
        *,
        read_enforced: ReadEnforced = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Store the policy.

        Args:
            settings: the pinned keys; None requires no signature.
            read_enforced: reads the newest signature that this host enforced.
            now: returns seconds since the epoch.
        """
        self._settings = settings or SignatureSettings()
        self._read_enforced = read_enforced
        self._now = now

    @property
    def wants_signature(self) -> bool:
        """Return whether keys are pinned, so that sources must fetch signatures."""
        return bool(self._settings.public_keys)

    def verify(
        self, signature: bytes, place: str, hold_against: HoldAgainst, name_of: NameOf
    ) -> VerifiedManifest:
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
            manifest, signed = check_signature(signature, self._settings.public_keys)
            hold_against(manifest)
        except SignatureFaultError as fault:
            raise _refused(fault, place if fault.name is None else name_of(fault.name)) from None
        return VerifiedManifest(manifest, signed)

    def check_age(self, verified: VerifiedManifest, place: str) -> None:
        """Refuse an expired manifest, and one older than the last that this host enforced.

        Raises:
            DocumentError: the manifest is expired or older, or the last enforced signature can't be read.
        """
        enforced = self._enforced(place)
        try:
            check_age(verified.manifest, verified.signed, now=self._now(), enforced=enforced)
        except SignatureFaultError as fault:
            raise _refused(fault, place) from None

    def missing(self, place: str) -> Problem:
        """Return the warning that the signature is missing.

        Raises:
            DocumentError: the configuration requires a signature.
        """
        problem = Problem(
            severity=Severity.ERROR if self._settings.required else Severity.WARNING,
            code="signature_missing",
            origin=Origin(file=place),
            message="there is no signature",
            remedy="sign with `sgagent sign`, or `sgagent publish --key` where definitions are in etcd",
        )
        if self._settings.required:
            raise DocumentError([problem])
        return problem

    def _enforced(self, place: str) -> Signed | None:
        try:
            return self._read_enforced()
        except (OSError, ValueError) as error:
            problem = Problem(
                severity=Severity.ERROR,
                code="serial_unknown",
                origin=Origin(file=place),
                message=f"can't read the serial that this host enforced last: {error}",
                remedy="repair the file; without it, the host can't detect replayed publications",
            )
            raise DocumentError([problem]) from error


def _refused(fault: SignatureFaultError, place: str) -> DocumentError:
    """Return a failed check as the error of the documents at a place."""
    kind = MismatchError if fault.code == "signature_mismatch" else DocumentError
    problem = Problem(
        severity=Severity.ERROR,
        code=fault.code,
        origin=Origin(file=place),
        message=fault.message,
        remedy=fault.remedy,
    )
    return kind([problem])


_NAME = "signature.json"
_FORMAT = 1


def signature_file(state_directory: Path) -> Path:
    """Return the path of the file with the last enforced signature."""
    return state_directory / _NAME


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
