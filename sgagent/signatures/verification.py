"""Decide whether documents are what somebody who is trusted vouches for, now and not some other time.

Each check raises what is wrong with a code for scripts; the order in which they are made is that in which
they mean something: who signed, what was signed, and whether that is the newest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from sgagent.signatures.keys import PublicKey
from sgagent.signatures.manifest import (
    MalformedSignatureError,
    Manifest,
    SignatureFile,
    Signed,
    sha256_of,
    time_in_words,
)


class SignatureFaultError(Exception):
    """Say why documents are not vouched for."""

    def __init__(self, code: str, message: str, remedy: str, *, name: str | None = None) -> None:
        """Keep what a problem needs; ``name`` is the document that is meant, None the signature itself."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.name = name


def check_signature(content: bytes, keys: Collection[PublicKey]) -> tuple[Manifest, Signed]:
    """Return the manifest of a signature file that one of the keys has signed.

    Raises:
        SignatureFaultError: ``signature_malformed``, ``signature_unknown_key`` or ``signature_wrong``.
    """
    from sgagent.signatures.keys import is_by  # noqa: PLC0415 - takes long, and only who pins keys needs it

    try:
        file = SignatureFile.parse(content)
    except MalformedSignatureError as error:
        raise SignatureFaultError(
            "signature_malformed", f"not a signature file: {error}", "write it with `sgagent sign`"
        ) from error
    by_id = {key.key_id: key for key in keys}
    known = [signature for signature in file.signatures if signature.key_id in by_id]
    if not known:
        by = ", ".join(signature.key_id for signature in file.signatures) or "nobody"
        raise SignatureFaultError(
            "signature_unknown_key",
            f"signed by {by}, none of which is pinned",
            f"sign with one of {', '.join(sorted(by_id))}, or pin the key in signature.public_keys",
        )
    for signature in known:
        if is_by(by_id[signature.key_id], file.manifest, signature):
            return file.manifest, _signed(file.manifest, signature.key_id)
    raise SignatureFaultError(
        "signature_wrong",
        f"the signature of {known[0].key_id} does not fit what it stands under",
        "somebody changed it; sign again",
    )


def check_contents(manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Hold documents against a manifest.

    Where there is one document on both sides, its name does not matter: it is the same by any other.

    Args:
        manifest: what is vouched for.
        contents: the documents by name.

    Raises:
        SignatureFaultError: ``signature_mismatch``, with the first document that is not vouched for, or is
            not there.
    """
    hashes = {file.name: file.sha256 for file in manifest.files}
    if len(hashes) == len(contents) == 1:
        hashes = dict(zip(contents, hashes.values(), strict=True))
    _compare(hashes, contents)


def check_part(
    manifest: Manifest, contents: Mapping[str, bytes], is_asked_for: Callable[[str], bool]
) -> None:
    """Hold a part of what a manifest vouches for against it.

    Args:
        manifest: what is vouched for.
        contents: all that there is of the part, by name.
        is_asked_for: tells of a name whether it belongs to the part, so that it has to be there.

    Raises:
        SignatureFaultError: as :func:`check_contents`.
    """
    _compare({file.name: file.sha256 for file in manifest.files if is_asked_for(file.name)}, contents)


def _compare(hashes: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
    """Refuse the first document that nobody vouches for, or is not there."""
    for name, content in sorted(contents.items()):
        if name not in hashes:
            raise _mismatch(name, "nobody vouches for this document")
        if hashes[name] != sha256_of(content):
            raise _mismatch(name, "the document differs from the one that was signed")
    missing = sorted(hashes.keys() - contents.keys())
    if missing:
        raise _mismatch(missing[0], "a document that was signed is not there")


def check_age(manifest: Manifest, signed: Signed, *, now: float, enforced: Signed | None) -> None:
    """Hold a manifest against the time, and against what this host enforced before.

    Args:
        manifest: what is vouched for.
        signed: the same, in short.
        now: seconds since the epoch.
        enforced: the newest that this host enforced; None if nothing signed.

    Raises:
        SignatureFaultError: ``signature_expired``, ``serial_older`` or ``serial_reused``.
    """
    if manifest.expires_at is not None and now >= manifest.expires_at:
        raise SignatureFaultError(
            "signature_expired",
            f"expired at {time_in_words(manifest.expires_at)}",
            "sign again; if it should still be good, look at this host's clock",
        )
    if enforced is not None and signed.serial < enforced.serial:
        raise SignatureFaultError(
            "serial_older",
            f"serial {signed.serial} is older than {enforced.serial}, which this host enforced",
            f"sign with a serial above {enforced.serial}; `sgagent rollback` goes back on purpose",
        )
    if enforced is not None and signed.serial == enforced.serial and signed.digest != enforced.digest:
        raise SignatureFaultError(
            "serial_reused",
            f"serial {signed.serial} was another publication's, which this host enforced",
            f"sign with a serial above {enforced.serial}",
        )


def _signed(manifest: Manifest, key_id: str) -> Signed:
    digest = sha256_of(manifest.render().encode())
    return Signed(serial=manifest.serial, digest=digest, key_id=key_id, expires_at=manifest.expires_at)


def _mismatch(name: str, message: str) -> SignatureFaultError:
    remedy = "bring back what was signed, or sign what is there, if it is meant"
    return SignatureFaultError("signature_mismatch", message, remedy, name=name)
