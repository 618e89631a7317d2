r"""Names for kernel objects, and maps named by content.

Names are made from ids of documents, which may be any text. An unquoted nft identifier is a letter followed
by letters, digits and ``/ \ _ . -``, at most 255 bytes. Every name starts with a word of ours (``rule/…``)
and continues with parts. A part that is a valid identifier is kept, so that a person finds it again; any
other becomes ``x/stem/digest``. No kept part starts with ``x/`` or is ``x``, so two different ids never share
a name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import partial

from sgagent.core.conditions import ControlGroup, SourceLimit
from sgagent.core.counter_keys import InnerCounter, KernelCounterKey, OverLimitCounter, RuleCounter
from sgagent.core.model import Direction, Family
from sgagent.nft.ruleset import Element, Goto, Interval, Jump, KeyType, VerdictMap, sort_key

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


def step_chain(step: str, direction: Direction, interface: str) -> str:
    """Return the chain and counter of a step of §3, like ``failsafe/eth0/ingress``."""
    return f"{step}/{part(interface)}/{direction.value}"


invalid_chain = partial(step_chain, "invalid")
"""The chain and counter for what conntrack calls invalid: ``invalid/eth0/ingress``."""

default_chain = partial(step_chain, "default")
"""The chain and counter of the default verdict: ``default/eth0/ingress``."""

accept_chain = partial(step_chain, "accept")
"""The chain that remembers a session as allowed and accepts: ``accept/eth0/ingress``."""

tracked_chain = partial(step_chain, "tracked")
"""The chain for packets that conntrack knows and the mark does not: ``tracked/eth0/ingress``."""

live_session_chain = partial(step_chain, "live/session")
"""The chain that judges live sessions opened in the direction: ``live/session/eth0/ingress``."""


def entry_chain(direction: Direction, interface: str) -> str:
    """Return the chain that packets of one direction of an interface enter: ``ingress/eth0``."""
    return f"{direction.value}/{part(interface)}"


def answers_of(interface: str) -> str:
    """Return the name in whose chains answers of sessions outwards are judged that have rules for units."""
    return f"{interface}/answers"


def live_chain(chain: str) -> str:
    """Return the chain that judges live sessions as another judges new ones: ``live/everyone/eth0/…``."""
    return f"live/{chain}"


def inner_chain(interface: str) -> str:
    """Return the chain and counter of traffic between fellow members: ``inner/eth0``."""
    return f"inner/{part(interface)}"


def rule_chain(interface: str, rule_id: str) -> str:
    """Return the chain and counter of a rule on an interface: ``rule/eth0/sgr-bp1``."""
    return f"rule/{part(interface)}/{part(rule_id)}"


def unit_chain(interface: str, rule_id: str, group: ControlGroup) -> str:
    """Return the chain that asks for a unit's control group for a rule; another with each start of it."""
    return f"unit/{part(interface)}/{part(rule_id)}/{digest(f'{group.identity} {group.path}')}"


def over_limit_chain(interface: str, rule_id: str) -> str:
    """Return the chain and counter of the packets over a rule's limit: ``over_limit/eth0/sgr-bp1``."""
    return f"over_limit/{part(interface)}/{part(rule_id)}"


def within_chain(interface: str, rule_id: str) -> str:
    """Return the chain of the packets within a rule's limit: ``within/eth0/sgr-bp1``."""
    return f"within/{part(interface)}/{part(rule_id)}"


def meter_set(interface: str, rule_id: str, family: Family, limit: SourceLimit) -> str:
    """Return the set of a rule's buckets, whose name changes with the limit: a bucket keeps its rate."""
    where = f"limit/{part(interface)}/{part(rule_id)}/{family.value}"
    return f"{where}/{limit.rate}-{limit.seconds}-{limit.burst}"


def limit_of_set(name: str) -> tuple[int, int, int] | None:
    """Return rate, its seconds and burst in the name of a set of buckets; None where it is no such name."""
    found = _LIMIT.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


_LIMIT = re.compile(r"limit/.+/([0-9]+)-([0-9]+)-([0-9]+)")


def counter_name(key: KernelCounterKey) -> str:
    """Return the name of the kernel's counter with a key; it does not depend on the policy or verdict."""
    match key:
        case RuleCounter():
            return rule_chain(key.interface, key.rule_id)
        case OverLimitCounter():
            return over_limit_chain(key.interface, key.rule_id)
        case InnerCounter():
            return inner_chain(key.interface)
        case _:
            return step_chain(key.step.value, key.direction, key.interface)


def log_prefix(leaf: str) -> str:
    """Return the prefix of a leaf's log statement: its name, or for the longest ids a digest of it."""
    return leaf if len(leaf) <= _LONGEST_PREFIX else f"x/{digest(leaf)}"


def of_family(word: str, direction: Direction, interface: str, family: Family) -> str:
    """Return a name of one direction and family of a link: ``peers/eth0/ingress/ipv4``."""
    return f"{word}/{part(interface)}/{direction.value}/{family.value}"


sources_chain = partial(of_family, "sources")
"""The chain that checks sources."""

checked_chain = partial(of_family, "checked")
"""The chain for what comes from one of the host's own networks."""

peers_chain = partial(of_family, "peers")
"""The chain that looks the far end's address up, and one name of its map of addresses."""

PEERS = "peers/"
"""How the names of maps of addresses begin, and of no other maps."""

OF_CLASSES = (PEERS, "networks/")
"""How the names of maps begin that lead to classes, be it by networks."""

everyone_chain = partial(of_family, "everyone")
"""The chain of the rules that hold for any address."""


def second_map(peers: str) -> str:
    """Return the other name of the map of addresses, which it takes in turns with the first."""
    return f"{peers}/2"


def first_map(name: str) -> str:
    """Return the first name of a map of addresses, whichever of the two is given."""
    return name.removesuffix("/2")


def decides(chain: str) -> bool:
    """Return True if a chain decides about packets; others remember sessions, or lead to such chains."""
    return chain.partition("/")[0] not in _MERELY_LEAD


_MERELY_LEAD = {"prerouting", "postrouting", "ingress", "egress", "tracked", "accept", "elsewhere"}


def class_chain(direction: Direction, interface: str, family: Family, peers: tuple[str, ...]) -> str:
    """Return the chain for addresses that are in exactly these peers: ``class/eth0/ingress/ipv4/sg-app``."""
    return "/".join((of_family("class", direction, interface, family), part("\n".join(peers))))


def cell_chain(direction: Direction, interface: str, family: Family, content: str) -> str:
    """Return the chain for rules that look at more than peer, protocol and port, named by its content."""
    return f"{of_family('cell', direction, interface, family)}/{digest(content)}"


STATE_CHAIN = "generation"
"""An empty chain whose comment keeps the policy generation and the slots."""

NEIGHBOURS_CHAIN = "neighbours"
"""The chain that lets neighbour discovery and listener reports pass, which conntrack never follows."""

ELSEWHERE_CHAIN = "elsewhere"
"""The chain that marks entries that are opened over links that nothing judges."""

UNBOUND_CHAIN = "unbound"
"""The chain of what comes in by such links."""

_MAP_DIGEST = 12
"""Hexadecimal digits; a clash would need millions of maps of one prefix."""


def fixed_map(
    prefix: str, key_types: tuple[KeyType, ...], elements: Iterable[Element], *, is_interval: bool
) -> VerdictMap:
    """Return a map whose name is a prefix and a digest of its elements.

    Args:
        prefix: of the name, which says what is looked up and where.
        key_types: of the fields of the key.
        elements: in any order.
        is_interval: whether keys may be ranges.
    """
    ordered = tuple(sorted(elements, key=lambda element: sort_key(element.key)))
    content = "\n".join(map(_element_text, ordered))
    name = f"{prefix}/{digest(content)[:_MAP_DIGEST]}"
    return VerdictMap(name=name, key_types=key_types, is_interval=is_interval, elements=ordered)


def _element_text(element: Element) -> str:
    keys = (f"{v.first}-{v.last}" if isinstance(v, Interval) else f"={v.word}" for v in element.key)
    verdict, kind = element.verdict, type(element.verdict).__name__
    return f"{','.join(keys)} {kind}" + (f" {verdict.chain}" if isinstance(verdict, (Goto, Jump)) else "")
