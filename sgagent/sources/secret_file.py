"""Files with secrets, and the check that not everybody can read them."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from sgagent.core.errors import SourceUnavailableError

_LONGEST_TOKEN = 16 * 1024
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1; other characters could have a meaning in a header."""


def require_private(path: Path) -> None:
    """Refuse a file that others than its owner and group can read.

    Raises:
        SourceUnavailableError: others can read the file, or it does not exist.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceUnavailableError(f"{path}: can't be read: {error.strerror}") from error
    if mode & stat.S_IRWXO:
        raise SourceUnavailableError(f"{path}: everybody can read this secret (chmod o= {path})")


def read_token(path: Path) -> str:
    """Return the bearer token in a file, without surrounding white space.

    Raises:
        SourceUnavailableError: the file can't be read, everybody can read it, or it has no token. The message
            never includes the content.
    """
    require_private(path)
    try:
        with path.open("rb") as file:
            token = file.read(_LONGEST_TOKEN + 1).strip()
    except OSError as error:
        raise SourceUnavailableError(f"{path}: can't be read: {error.strerror}") from error
    if len(token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
        raise SourceUnavailableError(
            f"{path}: not a bearer token (one line of letters, digits and - . _ ~ + / =)"
        )
    return token.decode("ascii")
