"""Find out whether somebody who is trusted vouches for what a source got, now and not some other time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.settings import SignatureSettings
from sgagent.signatures import Manifest, SignatureFaultError, Signed, check_age, check_signature

ReadEnforced = Callable[[], Signed | None]
"""Return the newest signature that this host enforced, None if it never did; raise OSError or ValueError
where that is not known."""

HoldAgainst = Callable[[Manifest], None]
"""Hold what was got against a manifest; raise :class:`SignatureFaultError` where it differs."""

NameOf = Callable[[str], str]
"""Return how messages call what a manifest calls by some name."""


class MismatchError(DocumentError):
    """Say that documents and signature do not belong together; one of the two may still be on its way."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """What somebody who is trusted vouches for."""

    manifest: Manifest
    signed: Signed


class Vouching:
    """Know whose signatures count, and what this host enforced before."""

    def __init__(
        self,
        settings: SignatureSettings | None = None,
        *,
        read_enforced: ReadEnforced = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take who may vouch.

        Args:
            settings: the pinned keys; None asks for nobody.
            read_enforced: tells which signature this host enforced.
            now: tells seconds since the epoch.
        """
        self._settings = settings or SignatureSettings()
        self._read_enforced = read_enforced
        self._now = now

    @property
    def wants_signature(self) -> bool:
        """Return whether signatures are looked at, so that they have to be fetched."""
        return bool(self._settings.public_keys)

    def verify(self, signature: bytes, place: str, hold_against: HoldAgainst, name_of: NameOf) -> Vouched:
        """Return what a signature vouches for, whatever its age.

        Args:
            signature: the content of a signature file.
            place: of the signature, for messages.
            hold_against: holds what was got against the manifest.
            name_of: tells how messages call what the manifest calls by some name.

        Raises:
            MismatchError: the signature is good, but for something else.
            DocumentError: nobody who is trusted signed.
        """
        try:
            manifest, signed = check_signature(signature, self._settings.public_keys)
            hold_against(manifest)
        except SignatureFaultError as fault:
            raise _refused(fault, place if fault.name is None else name_of(fault.name)) from None
        return Vouched(manifest, signed)

    def check_age(self, vouched: Vouched, place: str) -> None:
        """Refuse what has expired, or is older than what this host enforced.

        Raises:
            DocumentError: it is one of these, or what was enforced is not known.
        """
        enforced = self._enforced(place)
        try:
            check_age(vouched.manifest, vouched.signed, now=self._now(), enforced=enforced)
        except SignatureFaultError as fault:
            raise _refused(fault, place) from None

    def missing(self, place: str) -> Problem:
        """Return the warning that there is no signature.

        Raises:
            DocumentError: there has to be one.
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
                message=f"which serial this host enforced can't be read: {error}",
                remedy="mend the file; without it, anything ever signed would be taken",
            )
            raise DocumentError([problem]) from error


def _refused(fault: SignatureFaultError, place: str) -> DocumentError:
    """Return a fault as the refusal of what is at a place."""
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
    """Return where it is kept."""
    return state_directory / _NAME


def read_signature(path: Path) -> Signed | None:
    """Return the signature of what was enforced last; None if nothing signed ever was.

    Raises:
        OSError: it can't be read.
        ValueError: the file does not hold what it should.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return _decode(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a file of a kept signature: {error!r}") from error


def _decode(kept: Any) -> Signed:  # noqa: ANN401 - what JSON makes of a file that may hold anything
    """Return what the file says, or raise whatever comes of what it does not."""
    if kept["format"] != _FORMAT:
        raise ValueError("it has another format")
    expires_at = kept["expires_at"]
    return Signed(
        serial=int(kept["serial"]),
        digest=str(kept["digest"]),
        key_id=str(kept["key_id"]),
        expires_at=None if expires_at is None else int(expires_at),
    )


def encode_signature(signed: Signed) -> bytes:
    """Return the content of the file."""
    kept = {
        "format": _FORMAT,
        "serial": signed.serial,
        "digest": signed.digest,
        "key_id": signed.key_id,
        "expires_at": signed.expires_at,
    }
    return json.dumps(kept).encode() + b"\n"
