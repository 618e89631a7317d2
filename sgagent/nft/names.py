r"""Names for kernel objects, maps named by content, and the keys of counters.

Names are made from ids of documents, which may be any text. An unquoted nft identifier is a letter followed
by letters, digits and ``/ \ _ . -``, at most 255 bytes. Every name starts with a word of ours (``rule/…``)
and continues with parts. A part that is a valid identifier is kept, so that a person finds it again; any
other becomes ``x/stem/digest``. No kept part starts with ``x/`` or is ``x``, so two different ids never share
a name.

A counter's key says in the cloud's words what the kernel's counter of a name counts. The compiler gives each
counter that it declares a key. Totals are kept by key instead of the name, so they continue when names
change.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, assert_never

from sgagent.core.model import Direction, Family, Policy, Protocol
from sgagent.nft.ruleset import Element, Goto, Interval, Jump, KeyType, Value, VerdictMap, sort_key

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


def sources_chain(direction: Direction, interface: str, family: Family) -> str:
    """Return the chain that checks sources: ``sources/eth0/egress/ipv4``."""
    return f"sources/{part(interface)}/{direction.value}/{family.value}"


def checked_chain(direction: Direction, interface: str, family: Family) -> str:
    """Return the chain for what comes from one of the host's own networks: ``checked/eth0/egress/ipv6``."""
    return f"checked/{part(interface)}/{direction.value}/{family.value}"


def accept_chain(direction: Direction, interface: str) -> str:
    """Return the chain that remembers a session as allowed and accepts: ``accept/eth0/ingress``."""
    return f"accept/{part(interface)}/{direction.value}"


def default_chain(direction: Direction, interface: str) -> str:
    """Return the chain and counter of the default verdict: ``default/eth0/ingress``."""
    return f"default/{part(interface)}/{direction.value}"


def inner_chain(interface: str) -> str:
    """Return the chain and counter of traffic between fellow members: ``inner/eth0``."""
    return f"inner/{part(interface)}"


def step_chain(step: str, direction: Direction, interface: str) -> str:
    """Return the chain and counter of a step of §3, like ``failsafe/eth0/ingress``."""
    return f"{step}/{part(interface)}/{direction.value}"


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


def prefixes_map(direction: Direction, interface: str, family: Family) -> str:
    """Return the first part of the map of the host's own networks: ``prefixes/eth0/egress/ipv6``."""
    return f"prefixes/{part(interface)}/{direction.value}/{family.value}"


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
    return VerdictMap(
        name=f"{prefix}/{_digest(ordered)}", key_types=key_types, is_interval=is_interval, elements=ordered
    )


def _digest(elements: tuple[Element, ...]) -> str:
    lines = (f"{','.join(map(_key_text, element.key))} {_verdict_text(element)}" for element in elements)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:_MAP_DIGEST]


def _key_text(value: Value) -> str:
    return f"{value.first}-{value.last}" if isinstance(value, Interval) else f"={value.word}"


def _verdict_text(element: Element) -> str:
    verdict = element.verdict
    kind = type(verdict).__name__
    return f"{kind} {verdict.chain}" if isinstance(verdict, (Goto, Jump)) else kind


def differing_elements(
    elements: Sequence[Element], others: Sequence[Element]
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return the elements that are not among the others, and those of the others that are not among these.

    Both are sorted, so what they have in common at either end is left out first: of 100,000 elements of which
    one changed, comparing takes a moment where hashing them all would take a second.
    """
    if elements is others:
        return (), ()
    left, right = _between_common_ends(tuple(elements), tuple(others))
    among_left, among_right = set(left), set(right)
    gone = tuple(element for element in left if element not in among_right)
    return gone, tuple(element for element in right if element not in among_left)


def _between_common_ends(
    elements: tuple[Element, ...], others: tuple[Element, ...]
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return what both have between the elements that they begin with, and those that they end with."""
    shorter = min(len(elements), len(others))
    head = _common(elements, others, shorter)
    tail = _common(elements[head:][::-1], others[head:][::-1], shorter - head)
    return elements[head : len(elements) - tail], others[head : len(others) - tail]


def _common(elements: tuple[Element, ...], others: tuple[Element, ...], most: int) -> int:
    """Return the length of the common prefix, limited to ``most``.

    This is a binary search over slices: most elements are identical objects, and tuples of identical objects
    compare fast.
    """
    start, stop = 0, most
    while start < stop:
        middle = (start + stop + 1) // 2
        if elements[start:middle] == others[start:middle]:
            start = middle
        else:
            stop = middle - 1
    return start


class HitStep(enum.Enum):
    """What counted: the steps of §3 in their order."""

    INVALID = "invalid"
    SPOOFED = "spoofed"
    PLATFORM = "platform"
    FAILSAFE = "failsafe"
    INNER = "inner"
    RULE = "rule"
    DEFAULT = "default"


class ExemptionKind(enum.Enum):
    """Why traffic passes that no group was asked about (§7)."""

    PLATFORM = "platform"
    """The platform list of the configuration: the metadata service (§7.3)."""

    FAILSAFE = "failsafe"
    """The fail-safe list of the configuration (§7.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCounter:
    """Count the sessions that a rule decided on an interface."""

    step: ClassVar = HitStep.RULE

    interface: str
    """The link's name, as in every key here."""

    security_group_id: str
    rule_id: str
    direction: Direction
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultCounter:
    """Count the sessions that no rule decided (§3.6)."""

    step: ClassVar = HitStep.DEFAULT

    interface: str
    direction: Direction
    verdict: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerCounter:
    """Count the sessions from fellow members (§3.4)."""

    step: ClassVar = HitStep.INNER

    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCounter:
    """Count the packets that conntrack calls invalid (§6.6)."""

    step: ClassVar = HitStep.INVALID

    interface: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoofedCounter:
    """Count the packets that the source check drops (§12.6)."""

    step: ClassVar = HitStep.SPOOFED

    interface: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptionCounter:
    """Count what passes without a group being asked (§7)."""

    interface: str
    direction: Direction
    kind: ExemptionKind

    @property
    def step(self) -> HitStep:
        """Return the step of the list."""
        return HitStep(self.kind.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDropCounter:
    """Count what enforcing would have dropped, while the interface was only observed (§9.1).

    No counter of the kernel has this key: the same packets are counted for the rule or default that decided.
    """

    step: ClassVar = HitStep.DEFAULT

    interface: str
    direction: Direction


KernelCounterKey = (
    RuleCounter | DefaultCounter | InnerCounter | InvalidCounter | SpoofedCounter | ExemptionCounter
)
"""What a counter of the kernel counts."""

CounterKey = KernelCounterKey | ObservedDropCounter
"""What one total is kept for."""


def counter_name(key: KernelCounterKey) -> str:
    """Return the name of the kernel's counter with a key; it does not depend on the policy or verdict."""
    match key:
        case RuleCounter():
            return rule_chain(key.interface, key.rule_id)
        case InnerCounter():
            return inner_chain(key.interface)
        case _:
            return step_chain(key.step.value, key.direction, key.interface)


PLAIN_STEPS = (HitStep.INVALID, HitStep.SPOOFED, HitStep.PLATFORM, HitStep.FAILSAFE, HitStep.INNER)
"""Those with one counter for an interface and direction, whatever the policy says."""


def plain_key(step: HitStep, interface: str, direction: Direction) -> KernelCounterKey:
    """Return the key of one of the plain steps."""
    match step:
        case HitStep.INVALID:
            return InvalidCounter(interface=interface, direction=direction)
        case HitStep.SPOOFED:
            return SpoofedCounter(interface=interface, direction=direction)
        case HitStep.PLATFORM | HitStep.FAILSAFE:
            kind = ExemptionKind(step.value)
            return ExemptionCounter(interface=interface, direction=direction, kind=kind)
        case _:
            return InnerCounter(interface=interface)


def is_of_drops(key: CounterKey) -> bool:
    """Return whether what is counted is dropped where verdicts are carried out."""
    match key:
        case RuleCounter():
            return key.policy is Policy.DROP
        case DefaultCounter():
            return key.verdict is Policy.DROP
        case InvalidCounter() | SpoofedCounter():
            return True
        case InnerCounter() | ExemptionCounter() | ObservedDropCounter():
            return False
        case _:
            assert_never(key)


def under_other_policy(key: CounterKey) -> CounterKey | None:
    """Return the key of the same rule or default under the other policy; None for what has no policy."""
    match key:
        case RuleCounter():
            return replace(key, policy=_OTHER[key.policy])
        case DefaultCounter():
            return replace(key, verdict=_OTHER[key.verdict])
        case _:
            return None


_OTHER = {Policy.ACCEPT: Policy.DROP, Policy.DROP: Policy.ACCEPT}


def observed_drop(key: CounterKey) -> ObservedDropCounter | None:
    """Return the key of what would have been dropped that counts what this key counts; None for no drop."""
    match key:
        case RuleCounter() | DefaultCounter() | InvalidCounter() | SpoofedCounter() if is_of_drops(key):
            return ObservedDropCounter(interface=key.interface, direction=key.direction)
        case _:
            return None
