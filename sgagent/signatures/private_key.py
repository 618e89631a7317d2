"""The private key that signs manifests. Hosts do without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sgagent.signatures.keys import PublicKey
from sgagent.signatures.manifest import Manifest, Signature


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
