"""Signatures of documents: keys, signature files and their verification."""

from __future__ import annotations

from sgagent.signatures.keys import (
    PublicKey,
    SignatureFaultError,
    check_age,
    check_contents,
    check_part,
    check_signature,
)
from sgagent.signatures.manifest import Manifest, Signature, SignatureFile, Signed, SignedFile

__all__ = [
    "Manifest",
    "PublicKey",
    "Signature",
    "SignatureFaultError",
    "SignatureFile",
    "Signed",
    "SignedFile",
    "check_age",
    "check_contents",
    "check_part",
    "check_signature",
]
