r"""Names for kernel objects, made from ids of documents, which may be any text.

An unquoted nft identifier is a letter followed by letters, digits and ``/ \ _ . -``, at most 255 bytes. Every
name starts with a word of ours (``rule/…``) and continues with parts. A part that is a valid identifier is
kept, so that a person finds it again; any other becomes ``x/stem/digest``. No kept part starts with ``x/`` or
is ``x``, so two different ids never share a name.
"""

from __future__ import annotations

import hashlib
import re

from sgagent.core.model import Direction, Family, Protocol

OTHER_INTERFACES = "*"
"""Stands in for the name of every link that is not bound."""

_HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_LONGEST_PART = 80
_STEM = 24
_DIGEST = 16
_LONGEST_PREFIX = 127
"""Of a log statement, as the kernel has it."""


def part(text: str) -> str:
    """Return the text as a part of a name: itself where harmless, else ``x/stem/digest``; injective."""
    if len(text) <= _LONGEST_PART and _HARMLESS.fullmatch(text) and text.split("/", 1)[0] != "x":
        return text
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", text[:_STEM]).strip("-.") or "other"
    return f"x/{stem}/{digest(text)}"


def digest(text: str) -> str:
    """Return 16 hexadecimal digits that stand for the text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]


def entry_chain(direction: Direction, interface: str) -> str:
    """Return the chain that packets of one direction of an interface enter: ``ingress/eth0``."""
    return f"{direction.value}/{part(interface)}"


def live_session_chain(direction: Direction, interface: str) -> str:
    """Return the chain that judges live sessions opened in the direction: ``live/session/eth0/ingress``."""
    return live_chain(f"session/{part(interface)}/{direction.value}")


def live_chain(chain: str) -> str:
    """Return the chain that judges live sessions as another judges new ones: ``live/everyone/eth0/…``."""
    return f"live/{chain}"


def invalid_chain(direction: Direction, interface: str) -> str:
    """Return the chain and counter for what conntrack calls invalid: ``invalid/eth0/ingress``."""
    return f"invalid/{part(interface)}/{direction.value}"


def accept_chain(direction: Direction, interface: str) -> str:
    """Return the chain that remembers a session as allowed and accepts: ``accept/eth0/ingress``."""
    return f"accept/{part(interface)}/{direction.value}"


def default_chain(direction: Direction, interface: str) -> str:
    """Return the chain and counter of the default verdict: ``default/eth0/ingress``."""
    return f"default/{part(interface)}/{direction.value}"


def inner_chain(interface: str) -> str:
    """Return the chain and counter of traffic between fellow members: ``inner/eth0``."""
    return f"inner/{part(interface)}"


def exemption_chain(kind: str, direction: Direction, interface: str) -> str:
    """Return the chain and counter of a list of the configuration: ``failsafe/eth0/ingress``."""
    return f"{kind}/{part(interface)}/{direction.value}"


def rule_chain(interface: str, rule_id: str) -> str:
    """Return the chain and counter of a rule on an interface: ``rule/eth0/sgr-bp1``."""
    return f"rule/{part(interface)}/{part(rule_id)}"


def log_prefix(leaf: str) -> str:
    """Return what a leaf's log statement says: its name, or for the longest ids a digest of it."""
    return leaf if len(leaf) <= _LONGEST_PREFIX else f"x/{digest(leaf)}"


def peers_chain(direction: Direction, interface: str, family: Family) -> str:
    """Return the chain that looks the far end's address up, and one name of its map of addresses.

    For example ``peers/eth0/ingress/ipv4``.
    """
    return f"{PEERS}{part(interface)}/{direction.value}/{family.value}"


PEERS = "peers/"
"""How the names of maps of addresses begin, and of no other maps."""


def second_map(peers: str) -> str:
    """Return the other name of the map of addresses, which it takes in turns with the first."""
    return f"{peers}/2"


def first_map(name: str) -> str:
    """Return the first name of a map of addresses, whichever of the two is given."""
    return name.removesuffix("/2")


def judges(chain: str) -> bool:
    """Return True if a chain decides about packets; others remember sessions, or lead to such chains."""
    return chain.partition("/")[0] not in {"prerouting", "postrouting", "ingress", "egress", "accept"}


def others_chain(direction: Direction, interface: str, family: Family, protocol: Protocol) -> str:
    """Return the chain that all protocols but one leave a list for: ``not-tcp/eth0/ingress/ipv4``."""
    return f"not-{protocol}/{part(interface)}/{direction.value}/{family.value}"


def networks_map(direction: Direction, interface: str, family: Family) -> str:
    """Return the first part of the map that looks networks up: ``networks/eth0/ingress/ipv4``."""
    return f"networks/{part(interface)}/{direction.value}/{family.value}"


def far_end_map(direction: Direction, interface: str, family: Family) -> str:
    """Return the first part of maps with an object's addresses: ``objects/eth0/ingress/ipv4``."""
    return f"objects/{part(interface)}/{direction.value}/{family.value}"


def links_map(direction: Direction) -> str:
    """Return the first part of the map that sends each link's packets to its chain: ``links/ingress``."""
    return f"links/{direction.value}"


def everyone_chain(direction: Direction, interface: str, family: Family) -> str:
    """Return the chain of the rules that hold for any address: ``everyone/eth0/ingress/ipv4``."""
    return f"everyone/{part(interface)}/{direction.value}/{family.value}"


def class_chain(direction: Direction, interface: str, family: Family, peers: tuple[str, ...]) -> str:
    """Return the chain for addresses that are in exactly these peers: ``class/eth0/ingress/ipv4/sg-app``."""
    label = part(peers[0]) if len(peers) == 1 else part("\n".join(peers))
    return f"class/{part(interface)}/{direction.value}/{family.value}/{label}"


def ports_map(class_name: str) -> str:
    """Return the first part of the map of a class or everyone chain's ports: ``ports/class/eth0/…``."""
    return f"ports/{class_name}"


def port_ranges_map(class_name: str, protocol: Protocol) -> str:
    """Return the first part of the map of such a chain's ranges of ports: ``tcp/class/eth0/…``."""
    return f"{protocol}/{class_name}"


def cell_chain(direction: Direction, interface: str, family: Family, content: str) -> str:
    """Return the chain for rules that look at more than peer, protocol and port, named by its content."""
    return f"cell/{part(interface)}/{direction.value}/{family.value}/{digest(content)}"


def split_map(cell_name: str) -> str:
    """Return the first part of the map that tells the lines of a cell apart: ``split/cell/eth0/…``."""
    return f"split/{cell_name}"


STATE_CHAIN = "generation"
"""An empty chain whose comment keeps the policy generation and the slots."""

NEIGHBOURS_CHAIN = "neighbours"
"""The chain that lets neighbour discovery and listener reports pass, which conntrack never follows."""
