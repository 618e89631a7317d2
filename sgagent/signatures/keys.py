"""Write and read public keys as the configuration holds them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

_PREFIX = "ed25519:"
_BYTES = 32
KEY_FORM = "ed25519: and 44 characters of base64, as `sgagent keygen` prints it"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key (RFC 8032) that tells whether a signature is its owner's."""

    raw: bytes
    """32 of them."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that a text like ``ed25519:MCowBQ…=`` stands for.

        Raises:
            ValueError: it stands for none; the message never repeats it, as it may be a secret by mistake.
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
        """Return a short name for the key: what a signature says it is by, never a proof."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        """Return the key as the configuration holds it."""
        return _PREFIX + base64.b64encode(self.raw).decode()
