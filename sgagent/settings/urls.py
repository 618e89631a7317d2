"""Take URLs of the configuration apart, and refuse what they must not hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import SplitResult, urlsplit

from sgagent.documents.field import Field

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class UrlParts:
    """What a URL names."""

    scheme: str
    host: str
    """A name in lower case, or an address; IPv6 without brackets."""

    port: int | None
    target: str
    """Path and query as they are written; may be empty."""


def split_url(field: Field, schemes: tuple[str, ...], form: str) -> UrlParts | None:
    """Return the parts of a URL; None, with an error noted, if it is none or holds more than that.

    Args:
        field: the URL.
        schemes: one of them it must have.
        form: an example, for the error.
    """
    text = field.text()
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets that do not match, a port that is no number or too large
        field.error("bad_url", "not a URL", form)
        return None
    fault = _url_fault(text, parts, port, schemes, form)
    if fault is not None:
        field.error("bad_url", *fault)
        return None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return UrlParts(parts.scheme, parts.hostname or "", port, target)


def _url_fault(
    text: str, parts: SplitResult, port: int | None, schemes: tuple[str, ...], form: str
) -> tuple[str, str] | None:
    """Return what is wrong with a URL and what would be right; None if nothing is."""
    if parts.scheme not in schemes:
        return f"not an {' or '.join(schemes)} URL", form
    if not _VISIBLE.fullmatch(text):
        return (
            "blanks, control characters or letters beyond ASCII in a URL",
            "percent-encode them; xn-- in a host",
        )
    if "@" in parts.netloc:
        return "a user or password in a URL", "remove it; secrets go into files of their own"
    if parts.fragment or text.endswith("#"):
        return "a fragment in a URL", "remove what begins with #"
    if port == 0 or not _is_host(parts.hostname or ""):
        return "no host, or none that there can be", form
    return None


def _is_host(host: str) -> bool:
    """Return whether the host of a URL, without brackets, can be a name or an address."""
    if ":" not in host:
        return bool(_HOST.fullmatch(host))
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
