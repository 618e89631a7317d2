"""Values as consoles, guides and people write them, and the documents' form of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"
_NAMED_PORTS = re.compile(r"[A-Za-z][A-Za-z /_-]*\(([0-9]{1,5}(?:/[0-9]{1,5})?)\)")
_MASK = re.compile(r"\*{2,}|^[0-9]{1,3}\.(?:[0-9]{1,3}\.)*[Xx]{1,3}(?=[./]|$)")
_ADDRESS = r"(?:[0-9]+(?:\.[0-9]+){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)"
_ADDRESS_RANGE = re.compile(f"{_ADDRESS} ?- ?{_ADDRESS}")
_PREFIX = re.compile(r"([0-9A-Fa-f.:]+)/([0-9]{1,5})")

CONSOLE_WORDS: Mapping[str, str] = {
    "inbound": "ingress",
    "outbound": "egress",
    "custom tcp": "tcp",
    "custom udp": "udp",
    "custom icmp": "icmp, with port_range -1/-1",
    "custom icmp (ipv4)": "icmp, with port_range -1/-1",
    "custom icmp (ipv6)": "icmpv6, with port_range -1/-1",
    "all tcp": "tcp, with port_range 1/65535",
    "all udp": "udp, with port_range 1/65535",
    "all icmp": "icmp, with port_range -1/-1",
    "all icmp (ipv4)": "icmp, with port_range -1/-1",
    "all icmp (ipv6)": "icmpv6, with port_range -1/-1",
    "all gre": "gre, with port_range -1/-1",
    "all traffic": "all, with port_range -1/-1",
    "all protocols": "all, with port_range -1/-1",
}
"""What the cloud's console and other tools write, in lower case, and what documents write for it."""

Slip = tuple[str, str]
"""What a value is, as a clause, and what is right."""


def console_word(text: str) -> Slip | None:
    """Return the documents' form of a word of the console."""
    named = _NAMED_PORTS.fullmatch(text.strip())
    meant = CONSOLE_WORDS.get(" ".join(text.lower().split())) or (
        f"tcp, with port_range {named[1]}" if named else None
    )
    return ("a word of the console, not of documents", meant) if meant else None


def ports_slip(text: str) -> Slip | None:
    """Return the slip in ports that have another form."""
    named = _NAMED_PORTS.fullmatch(text.strip())
    if named:
        return "a word of the console, not of documents", named[1]
    if any(dash in text for dash in _DASHES):
        plain = "".join("-" if one in _DASHES else one for one in text)
        return "a dash that is no hyphen", plain.replace(" ", "")
    if "," in text:
        return "several ranges in one text", f"a list: {_as_list(text)}"
    return None


def object_slip(text: str) -> Slip | None:
    """Return the slip in an authorization object that has another form."""
    if _MASK.search(text):
        return "masked, as examples and screenshots are", "the whole value that is meant"
    if "," in text:
        return "several objects in one text", f"a list: {_as_list(text)}"
    if _ADDRESS_RANGE.fullmatch(text):
        return "a range of addresses", "the CIDRs that it is made of, as a list"
    prefix = _PREFIX.fullmatch(text)
    if prefix:
        longest, family = (128, "IPv6") if ":" in text else (32, "IPv4")
        if int(prefix[2]) > longest:
            return (
                f"the largest prefix of {family} is /{longest}",
                f"{prefix[1]}/{longest}, or a smaller prefix",
            )
    return None


def _as_list(text: str) -> str:
    return f"[{', '.join(filter(None, map(str.strip, text.split(','))))}]"
