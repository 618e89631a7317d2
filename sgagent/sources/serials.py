"""Know which signature this host enforced last, so that no older publication takes its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sgagent.signatures import Signed

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
