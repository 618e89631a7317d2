"""Ed25519 keys: signing, and verification of signature files against pinned keys.

Verification checks the key, then the documents, then the age, because each check depends on the one before.
Each raises an error with a code for scripts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sgagent.signatures.manifest import (
    MalformedSignatureError,
    Manifest,
    Signature,
    SignatureFile,
    Signed,
    sha256_of,
    time_in_words,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PREFIX = "ed25519:"
_BYTES = 32
KEY_FORM = "ed25519: and 44 characters of base64, as `sgagent keygen` prints it"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key (RFC 8032)."""

    raw: bytes
    """32 bytes."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a text like ``ed25519:MCowBQ…=``.

        Raises:
            ValueError: it is not a public key; the message omits the text, because it may be a secret.
        """
        if not text.startswith(_PREFIX):
            raise ValueError("not a public key")
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("not a public key") from None
        if len(raw) != _BYTES:
            raise ValueError("not a public key of 32 bytes")
        return cls(raw)

    @property
    def key_id(self) -> str:
        """Return the short id by which signatures name the key; it proves nothing."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        """Return the key as the configuration has it."""
        return _PREFIX + base64.b64encode(self.raw).decode()


def is_by(key: PublicKey, manifest: Manifest, signature: Signature) -> bool:
    """Return whether the key's owner signed the manifest."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 15 ms, for hosts that pin no key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature.value, manifest.render().encode())
    except InvalidSignature:
        return False
    return True


class SignatureFaultError(Exception):
    """A failed check of a signature."""

    def __init__(self, code: str, message: str, remedy: str, *, name: str | None = None) -> None:
        """Store the fields of a problem; ``name`` is the document at fault, None for the signature itself."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.name = name


def check_signature(content: bytes, keys: Collection[PublicKey]) -> tuple[Manifest, Signed]:
    """Return the manifest of a signature file after verifying that one of the keys signed it.

    Raises:
        SignatureFaultError: ``signature_malformed``, ``signature_unknown_key`` or ``signature_wrong``.
    """
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
        f"the signature of {known[0].key_id} does not match the signed text",
        "the text was changed after signing; sign again",
    )


def check_contents(manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Compare documents with a manifest.

    If both have exactly one document, its name does not matter.

    Args:
        manifest: the signed list.
        contents: the documents by name.

    Raises:
        SignatureFaultError: ``signature_mismatch``, with the first document that is unsigned, changed or
            missing.
    """
    hashes = {file.name: file.sha256 for file in manifest.files}
    if len(hashes) == len(contents) == 1:
        hashes = dict(zip(contents, hashes.values(), strict=True))
    _compare(hashes, contents)


def check_part(
    manifest: Manifest, contents: Mapping[str, bytes], is_asked_for: Callable[[str], bool]
) -> None:
    """Compare a subset of documents with a manifest.

    Args:
        manifest: the signed list.
        contents: the documents of the subset by name.
        is_asked_for: returns whether a name belongs to the subset, so that its document must be present.

    Raises:
        SignatureFaultError: as for :func:`check_contents`.
    """
    _compare({file.name: file.sha256 for file in manifest.files if is_asked_for(file.name)}, contents)


def _compare(hashes: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
    """Refuse the first document that is unsigned, changed or missing."""
    for name, content in sorted(contents.items()):
        if name not in hashes:
            raise _mismatch(name, "the document is not in the signed list")
        if hashes[name] != sha256_of(content):
            raise _mismatch(name, "the document differs from the one that was signed")
    missing = sorted(hashes.keys() - contents.keys())
    if missing:
        raise _mismatch(missing[0], "a signed document is missing")


def check_age(signed: Signed, *, now: float, enforced: Signed | None) -> None:
    """Refuse an expired signature, and one older than the last that this host enforced.

    Args:
        signed: the verified signature.
        now: seconds since the epoch.
        enforced: the newest signature that this host enforced; None for none.

    Raises:
        SignatureFaultError: ``signature_expired``, ``serial_older`` or ``serial_reused``.
    """
    if signed.expires_at is not None and now >= signed.expires_at:
        raise SignatureFaultError(
            "signature_expired",
            f"expired at {time_in_words(signed.expires_at)}",
            "sign again; if it should still be valid, check this host's clock",
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
            f"serial {signed.serial} belongs to another publication, which this host enforced",
            f"sign with a serial above {enforced.serial}",
        )


def _signed(manifest: Manifest, key_id: str) -> Signed:
    digest = sha256_of(manifest.render().encode())
    return Signed(serial=manifest.serial, digest=digest, key_id=key_id, expires_at=manifest.expires_at)


def _mismatch(name: str, message: str) -> SignatureFaultError:
    remedy = "restore the signed documents, or sign the present ones"
    return SignatureFaultError("signature_mismatch", message, remedy, name=name)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An Ed25519 private key."""

    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - as for checks
            Ed25519PrivateKey,
        )

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, pem: bytes) -> Self:
        """Parse a PEM file: PKCS #8, without a password.

        Raises:
            ValueError: it has no private key, a key of another type, or a password.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as for checks
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as for checks
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - as for checks
            Ed25519PrivateKey,
        )

        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the key has a password; expected one without") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("not a private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - what is wrong is the file, not the program
        return cls(key)

    def dump(self) -> bytes:
        """Return the key as PEM."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as for checks

        form = serialization.PrivateFormat.PKCS8
        return self._key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    @property
    def public(self) -> PublicKey:
        """Return the public key, which hosts pin."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, manifest: Manifest) -> Signature:
        """Sign a manifest."""
        return Signature(key_id=self.public.key_id, value=self._key.sign(manifest.render().encode()))
