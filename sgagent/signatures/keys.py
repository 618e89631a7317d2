"""Ed25519 key pairs: text and PEM forms, signing, and verification of one signature."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sgagent.signatures.manifest import Manifest, Signature

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


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An Ed25519 private key."""

    _key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, pem: bytes) -> Self:
        """Parse a PEM file: PKCS #8, without a password.

        Raises:
            ValueError: it has no private key, a key of another type, or a password.
        """
        try:
            key = load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the key has a password; expected one without") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("not a private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")  # noqa: TRY004 - what is wrong is the file, not the program
        return cls(key)

    def dump(self) -> bytes:
        """Return the key as PEM."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> PublicKey:
        """Return the public key, which hosts pin."""
        return PublicKey(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, manifest: Manifest) -> Signature:
        """Sign a manifest."""
        return Signature(key_id=self.public.key_id, value=self._key.sign(manifest.render().encode()))


def is_by(key: PublicKey, manifest: Manifest, signature: Signature) -> bool:
    """Return whether the key's owner signed the manifest."""
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature.value, manifest.render().encode())
    except InvalidSignature:
        return False
    return True
