"""What the agent knows of the machine it runs on, as values."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.model import CidrBlock, Mode


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Link:
    """A network link of this host."""

    name: str
    """As :func:`link_name` returns it."""

    index: int
    mac_address: str | None = None
    """Lower case with colons; None for links without one."""

    addresses: tuple[CidrBlock, ...] = ()
    """The addresses that it carries, as single addresses, sorted."""

    is_loopback: bool = False
    has_hardware: bool = False
    """Whether a device stands under it: no bridge, tunnel, veth, dummy or other software link (§9.2)."""

    master: str | None = None
    """The bridge, bond or VRF that it is a port of."""

    master_kind: str | None = None
    """``bridge``, ``bond``, ``team``, ``vrf`` …; None without a master."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The links of this host at one moment, sorted by name."""

    links: tuple[Link, ...] = ()


NO_FACTS = HostFacts()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ExpectedLink:
    """Where a network interface was found before, by MAC or address, and so is expected again."""

    interface: str
    network_interface_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBinding:
    """A binding that the configuration or the command line makes: it wins over what the documents name."""

    interface: str
    network_interface_id: str | None = None
    security_group_ids: tuple[str, ...] = ()
    """Sorted; ignored where an interface id is given."""

    mode: Mode | None = None
    """None is the default of the configuration."""

    origin: str = ""
    """Where it was written, for messages: ``sgagent.toml: interface[0]`` or ``--interface eth0=sg-web``."""


def link_name(octets: bytes) -> str:
    r"""Return the name of a link as printable text; two links never get the same text.

    Linux takes any bytes for a name, except NUL, white space, ``/`` and ``:``. Bytes that are not UTF-8,
    characters that are not printable, and the backslash become ``\xNN``, one for each byte.
    """
    text = octets.decode("utf-8", "surrogateescape")
    return "".join(sign if sign.isprintable() and sign != "\\" else _escaped(sign) for sign in text)


def _escaped(character: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in character.encode("utf-8", "surrogateescape"))


def check_interface_name(word: str) -> None:
    """Refuse a name that nft would read as something else: a pattern, a set, or a text with an end in it.

    Raises:
        ValueError: the name is one of those.
    """
    if not word or word[0] == "@" or word[-1] == "*" or any(sign in word for sign in '"\\\n\0'):
        raise ValueError(f"not an interface name that nftables can match: {word!r}")
