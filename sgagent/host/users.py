"""The users of this host."""

from __future__ import annotations

import pwd


def find_user(name: str) -> int | None:
    """Return the id of a user, as the name services know it; None if there is no such user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None
