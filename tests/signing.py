"""Keys and signatures for tests."""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.signatures import Manifest, PrivateKey, SignatureFile

NOW = 1_800_000_000
KEY, OTHER_KEY = PrivateKey.generate(), PrivateKey.generate()


def signature_of(
    contents: Mapping[str, bytes],
    *keys: PrivateKey,
    serial: int = 1,
    signed_at: int = NOW,
    expires_at: int | None = None,
) -> bytes:
    """Return the content of a signature file; by :data:`KEY` unless other keys are named."""
    manifest = Manifest.of(contents, serial=serial, signed_at=signed_at, expires_at=expires_at)
    signatures = tuple(key.sign(manifest) for key in keys or (KEY,))
    return SignatureFile(manifest, signatures).render().encode()
