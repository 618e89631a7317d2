"""The resolved policy of this host's interfaces: references resolved, rules in order.

``resolve`` makes it; ``evaluate`` and the compiler read it. It contains no trace of documents: addresses are
sets of integers, port lists are ranges, and the rules of all groups of an interface are one list in the order
of §3.5. What no group can block stands here too: a host's own needs (§7.1), and exemptions (§7.3, §7.4).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.link_patterns import LinkPattern
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    CidrBlock,
    Direction,
    Family,
    GroupType,
    Mode,
    Policy,
    PortSet,
    Protocol,
    Protocols,
    SecurityGroupRule,
)
from sgagent.core.rule_values import has_ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end of a rule: its authorization objects and the addresses that they stand for."""

    name: str
    """The objects as documents write them: ``10.0.0.0/8``, ``1000000000000001/sg-x``, ``pl-a, sg-app``."""

    addresses: AddressSet
    """Of all of them."""

    parts: tuple[Peer, ...] = ()
    """The objects one by one, where there are several."""

    is_dynamic: bool = False
    """Whether the DNS says which addresses they are: these change while the policy stays."""

    @property
    def key(self) -> str:
        """Return the names of the objects that stand for addresses: equal keys have equal addresses."""
        return ", ".join(part.name for part in self.parts if part.addresses) or self.name

    @property
    def objects(self) -> tuple[Peer, ...]:
        """Return the objects one by one."""
        return self.parts or (self,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRule(SecurityGroupRule):
    """A rule whose references are resolved; where it equals the one before in all, that one is kept.

    So it has neither description nor origin, which are not compared.
    """

    security_group_id: str
    ports: PortSet
    """Destination ports; empty for an unknown or empty port list."""

    peer: Peer

    def exists_at(self, time: datetime | None) -> bool:
        """Return whether the rule has not ended (§12.4) and its hours hold (§13.2)."""
        return not has_ended(self, time) and self.conditions.hold_at(time)

    def can_match(self, family: Family) -> bool:
        """Return whether any packet of the family matches."""
        return (
            bool(self.peer.addresses.ranges(family) and self.ports and self.source_ports)
            and bool(self.protocols_of(family))
            and (self.local_address is None or self.local_address.family is family)
        )

    def protocols_of(self, family: Family) -> Protocols:
        """Return the protocols that packets of the family can have."""
        return tuple(one for one in self.protocols if one.only_family in (None, family))

    @property
    def near_ends(self) -> tuple[int, int] | None:
        """Return the first and last address of the near end; None if it may be any of the family."""
        block = self.local_address
        return None if block is None or block.is_everything else (block.first, block.last)

    @property
    def user(self) -> int | None:
        """Return the user whose sockets of this host it is for; None if it is for no one user (§13.3)."""
        return self.conditions.user

    @property
    def units(self) -> tuple[int, int] | None:
        """Return the numbers of control groups whose sockets it is for; None if it is for no one unit."""
        return self.conditions.group.numbers if self.conditions.group else None

    @property
    def local_text(self) -> str | None:
        """Return in words whose sockets of this host it is for; None if anyone's."""
        return None if self.conditions.local is None else str(self.conditions.local)


def precedence(rule: ResolvedRule) -> tuple[int, bool, str, str]:
    """Return a sort key that puts the rule that decides first (§3.5).

    Among rules of one priority drop comes first. The ids come last: they make the order total, name the
    rule that gets the hit, and cannot change a verdict.
    """
    return (rule.priority, rule.policy is Policy.ACCEPT, rule.rule_id, rule.security_group_id)


DHCP: Mapping[Family, tuple[int, int]] = {Family.IPV4: (67, 68), Family.IPV6: (547, 546)}
"""Server and client port of each family's DHCP (RFC 2131, RFC 8415)."""

NEIGHBOUR_DISCOVERY_TYPES = (133, 134, 135, 136)
"""ICMPv6 types of router and neighbour solicitations and advertisements (RFC 4861)."""

MULTICAST_LISTENER_TYPES = (130, 131, 132, 143)
"""ICMPv6 types of multicast listener queries and reports (RFC 2710, RFC 3810)."""

LINK_LOCAL = (0xFE80 << 112, (0xFEC0 << 112) - 1)
"""First and last address of fe80::/10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """Traffic of the configuration's platform or fail-safe list, which no group can block (§7.3, §7.4)."""

    direction: Direction
    peer: CidrBlock
    protocol: Protocol
    ports: PortSet = ALL_PORTS
    """Destination ports."""

    def can_match(self, family: Family) -> bool:
        """Return whether any packet of the family matches."""
        return bool(self.ports) and self.peer.family is family and self.protocol.only_family in (None, family)

    def __str__(self) -> str:
        """Return the entry's traffic, for people: ``egress to 192.0.2.1, tcp 443/443``."""
        way = "from" if self.direction is Direction.INGRESS else "to"
        ports = "" if self.ports.is_all else f" {self.ports}"
        traffic = "" if self.protocol == ALL_PROTOCOLS else f", {self.protocol}{ports}"
        return f"{self.direction.value} {way} {self.peer}{traffic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedDirection:
    """All that decides about sessions opened in one direction through one interface, in the order of §3."""

    platform: tuple[Exemption, ...] = ()
    """Step 2, beyond what every interface always allows."""

    failsafe: tuple[Exemption, ...] = ()
    """Step 3."""

    inner: AddressSet = NO_ADDRESSES
    """Step 4: fellow members of the basic groups that let their members talk. Always empty for egress."""

    rules: tuple[ResolvedRule, ...] = ()
    """Step 5, sorted by :func:`precedence`."""

    dormant: tuple[ResolvedRule, ...] = field(default=(), repr=False)
    """Rules that do not exist at this time, but will by their hours (§13.2); sorted likewise."""

    default: Policy = Policy.DROP
    """Step 6."""

    @property
    def has_users(self) -> bool:
        """Return whether a rule is for a user or unit, so that answers do not show what decides (§6.3)."""
        return any(rule.conditions.local is not None for rule in self.rules)

    def at(self, time: datetime | None) -> ResolvedDirection:
        """Return the direction's rules at a time: rules have ended, and hours hold or not."""
        lasting = (rule for rule in (*self.rules, *self.dormant) if not has_ended(rule, time))
        return self.with_sorted(tuple(sorted(lasting, key=precedence)), time)

    def with_sorted(self, rules: tuple[ResolvedRule, ...], time: datetime | None) -> ResolvedDirection:
        """Return the direction with these rules, each where it belongs at a time by its hours."""
        if not any(rule.conditions.are_timed for rule in rules):
            return replace(self, rules=rules, dormant=())
        hold = cache(lambda conditions: conditions.hold_at(time))  # many rules have the same hours
        parts = [tuple(rule for rule in rules if hold(rule.conditions) is held) for held in (True, False)]
        return replace(self, rules=parts[0], dormant=parts[1])


class InvalidPackets(enum.Enum):
    """Whether packets that conntrack calls invalid are dropped, or evaluated as untracked (§6.6)."""

    DROP = "drop"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedInterface:
    """One interface of this host and the rules that are enforced on it."""

    name: str
    """The link's name; it need not exist."""

    network_interface_id: str | None = None
    mode: Mode = Mode.ENFORCE
    security_group_ids: tuple[str, ...] = ()
    """Sorted. Empty: the interface is closed but for steps 1 to 3 of §3."""

    group_type: GroupType | None = None
    """None where there is no group."""

    own_addresses: AddressSet | None = None
    """Of the link and the network interface, where sources are checked (§12.6); None where they are not."""

    invalid: InvalidPackets = InvalidPackets.DROP

    pattern: str | None = field(default=None, repr=False)
    """Which pattern means the link, if its links do not have one judge together (§12.5)."""

    ingress: ResolvedDirection = ResolvedDirection()
    egress: ResolvedDirection = ResolvedDirection()

    def toward(self, direction: Direction) -> ResolvedDirection:
        """Return the rules for sessions opened in the direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def with_side(self, direction: Direction, side: ResolvedDirection) -> ResolvedInterface:
        """Return the interface with something else that decides about sessions opened in the direction."""
        is_ingress = direction is Direction.INGRESS
        return replace(self, ingress=side) if is_ingress else replace(self, egress=side)

    def with_rules(self, is_kept: Callable[[ResolvedRule], bool]) -> ResolvedInterface:
        """Return the interface with some of the rules."""
        ingress, egress = (
            replace(toward, rules=tuple(filter(is_kept, toward.rules)))
            for toward in (self.ingress, self.egress)
        )
        return replace(self, ingress=ingress, egress=egress)

    def at(self, time: datetime | None) -> ResolvedInterface:
        """Return the interface with its rules at a time."""
        return replace(self, ingress=self.ingress.at(time), egress=self.egress.at(time))


RATE_PER_SECOND = 10
LOG_GROUP = 9469


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLogging:
    """Which verdicts the kernel logs, and the rate limit."""

    verdicts: frozenset[Policy] = frozenset()
    """In observe mode the kernel logs a drop that it does not carry out (§9.1)."""

    rate_per_second: int = RATE_PER_SECOND
    """Packets of each counter chain. After an idle second it may be twice as many, because of the burst."""

    group: int = LOG_GROUP
    """Of nfnetlink's log."""


SILENT = FlowLogging()

LOOPBACK = "lo"
"""The kernel's link from the host to itself. Nothing judges it, whether bound or not (§2.3)."""


UNIDENTIFIED = "*?"
"""Stands in for the names of links that are closed until they are identified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPattern:
    """The interface that is enforced on the links that a pattern means (§12.5)."""

    pattern: LinkPattern
    judge: ResolvedInterface
    """Has the pattern for its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPolicy:
    """The interfaces, patterns and rules that this host enforces."""

    interfaces: tuple[ResolvedInterface, ...] = ()
    """Sorted by name; names are unique."""

    unbound: ResolvedInterface | None = None
    """Judges every link that nothing else judges, loopback apart; None leaves them open (§9.3)."""

    patterns: tuple[ResolvedPattern, ...] = field(default=(), repr=False)
    """Judge links that are not in ``interfaces``. Sorted by name; names are unique."""

    identified: tuple[str, ...] = field(default=(), repr=False)
    """Sorted names of links that are judged otherwise than a prefix of their name says."""

    guard: ResolvedInterface | None = field(default=None, repr=False)
    """Judges a link until its addresses are known, or whether it is a lower device; closed."""

    lower_devices: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names of lower devices of bound links, each with the name of the bound link that is judged for it; or
    :data:`UNIDENTIFIED`, where it is not known which one is (§9.5)."""

    masters: tuple[str, ...] = field(default=(), repr=False)
    """Sorted names of the judges of links that are masters, or may become some, while an agent identifies
    links that come."""

    passed: tuple[str, ...] = field(default=(), repr=False)
    """Sorted names of VRFs: what passes one is judged at its port (§9.5)."""

    unseen: tuple[str, ...] = field(default=(), repr=False)
    """Why packets of bound links pass the hooks under another link's name: no table judges these (§9.6)."""

    def interface(self, name: str) -> ResolvedInterface | None:
        """Return the bound interface of that name."""
        return next((interface for interface in self.interfaces if interface.name == name), None)

    @property
    def bound(self) -> tuple[ResolvedInterface, ...]:
        """Return the judges that have groups, or could have: bound interfaces, then patterns."""
        return (*self.interfaces, *(pattern.judge for pattern in self.patterns))

    @property
    def remembering(self) -> tuple[str, ...]:
        """Return the names of those that may remember the sessions that they accepted (§6.3).

        Where sources are checked, each link of a pattern has a judge of its own, and the pattern's has none.
        """
        patterns = (pattern.judge for pattern in self.patterns if pattern.judge.own_addresses is None)
        return tuple(judge.name for judge in (*self.interfaces, *patterns))

    @property
    def judges(self) -> tuple[ResolvedInterface, ...]:
        """Return whatever judges packets, bound interfaces first."""
        return (*self.bound, *(judge for judge in (self.guard, self.unbound) if judge))

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Return the beginnings of names that patterns compare, the longest first: it decides."""
        found = frozenset().union(*(one.pattern.prefixes for one in self.patterns))
        return tuple(sorted(found, key=lambda prefix: (-len(prefix), prefix)))

    def behind(self, prefix: str) -> ResolvedInterface | None:
        """Return the judge of the links whose names begin so and that are not identified.

        Which sources are right depends on a link's addresses, so where they are checked a link is closed
        until it is identified; but in observe mode it is open, as nothing is dropped (§9.1).
        """
        judge = self._judge_of(prefix)
        if judge is None or judge.own_addresses is None:
            return judge or self.stranger
        return self.stranger if judge.mode is Mode.OBSERVE else self.guard

    def _judge_of(self, prefix: str) -> ResolvedInterface | None:
        """Return the judge of the pattern that means links whose names begin so."""
        return next((one.judge for one in self.patterns if one.pattern.matches_prefix(prefix)), None)

    @property
    def stranger(self) -> ResolvedInterface | None:
        """Return the judge of unidentified links that no pattern means: these may be lower devices (§9.5).

        In observe mode the master drops nothing either.
        """
        judges = (judge for judge in self.bound if judge.name in self.masters)
        is_guarded = any(judge.mode is Mode.ENFORCE for judge in judges)
        return self.guard if self.unbound is None and is_guarded else self.unbound

    @property
    def drops_frames_of_ports(self) -> bool:
        """Return whether frames that masters leave to their ports are dropped where nothing judges (§9.5)."""
        return self.unbound is None and self.stranger is not None

    @property
    def knows_all_by_prefix(self) -> bool:
        """Return whether no link has to be identified, because the beginnings of names say enough."""
        return all(one.judge.own_addresses is None for one in self.patterns)

    @property
    def platform(self) -> tuple[Exemption, ...]:
        """Return the exemptions on judged links by the platform list of the configuration (§7.3)."""
        found = (
            entry
            for judge in self.judges
            for toward in (judge.ingress, judge.egress)
            for entry in toward.platform
        )
        return tuple(dict.fromkeys(found))

    @property
    def observed(self) -> frozenset[str]:
        """Return the names of those that judge and carry nothing out (§9.1)."""
        return frozenset(judge.name for judge in self.judges if judge.mode is Mode.OBSERVE)

    @property
    def expiring(self) -> tuple[ResolvedRule, ...]:
        """Return the rules that will end, each once, the one that ends first at the front."""
        found = {
            (rule.expires, rule.security_group_id, rule.rule_id): rule
            for judge in self.bound
            for toward in (judge.ingress, judge.egress)
            for rule in toward.rules
            if rule.expires is not None
        }
        return tuple(found[key] for key in sorted(found))

    @property
    def recurring(self) -> tuple[tuple[ResolvedRule, bool], ...]:
        """Return the rules that have hours, each once, and whether these hold now (§13.2)."""
        found = {
            (rule.security_group_id, rule.rule_id): (rule, rules is toward.rules)
            for judge in self.bound
            for toward in (judge.ingress, judge.egress)
            for rules in (toward.rules, toward.dormant)
            for rule in rules
            if rule.conditions.active is not None
        }
        return tuple(found[key] for key in sorted(found))

    def at(self, time: datetime | None) -> ResolvedPolicy:
        """Return the policy with the rules that exist at a time."""
        have_ended = any(has_ended(rule, time) for rule in self.expiring)
        return self.with_judges(lambda judge: judge.at(time)) if have_ended or self.recurring else self

    def without_limits(self) -> ResolvedPolicy:
        """Return the policy as it is for sources that exceed nothing (§13.1)."""

        def unlimited(rule: ResolvedRule) -> ResolvedRule:
            limit = rule.conditions.limit
            return rule if limit is None else replace(rule, conditions=replace(rule.conditions, limit=None))

        def without(side: ResolvedDirection) -> ResolvedDirection:
            return replace(side, rules=tuple(map(unlimited, side.rules)))

        return self.with_judges(
            lambda judge: replace(judge, ingress=without(judge.ingress), egress=without(judge.egress))
        )

    def without_ended(self, time: datetime | None) -> ResolvedPolicy:
        """Return the policy without accept rules that do not exist at a time any more; no rule begins.

        Drop rules stay: without one, packets would pass that the policy drops.
        """
        sides = (side for judge in self.bound for side in (judge.ingress, judge.egress))
        if all(rule.exists_at(time) for side in sides for rule in side.rules):
            return self
        return self.with_judges(
            lambda judge: judge.with_rules(lambda rule: rule.policy is Policy.DROP or rule.exists_at(time))
        )

    def with_judges(self, change: Callable[[ResolvedInterface], ResolvedInterface]) -> ResolvedPolicy:
        """Return the policy with each of its judges changed; the names stay."""
        return replace(
            self,
            interfaces=tuple(map(change, self.interfaces)),
            patterns=tuple(replace(one, judge=change(one.judge)) for one in self.patterns),
            guard=self.guard and change(self.guard),
            unbound=self.unbound and change(self.unbound),
        )

    def judge(self, name: str) -> ResolvedInterface | None:
        """Return the judge of a link's packets; None where nothing judges them (§2.3)."""
        master = self.lower_devices.get(name)
        if master is not None:
            return self.guard if master == UNIDENTIFIED else self.interface(master) or self.meant(master)
        bound = self.interface(name)
        if bound is not None or name == LOOPBACK:
            return bound
        return self.meant(name) if name in self.identified else self.behind(name)

    def meant(self, name: str) -> ResolvedInterface | None:
        """Return the judge of an identified link that is not in ``interfaces``."""
        found = next((one.judge for one in self.patterns if one.pattern.matches(name)), None)
        return found or (None if name in self.passed else self.unbound)

    def judges_of(self, links: Iterable[str]) -> tuple[ResolvedInterface, ...]:
        """Return the bound interfaces and patterns that judge any of these links."""
        judges = {id(self.judge(name)) for name in links}
        return tuple(judge for judge in self.bound if id(judge) in judges)

    def identifying(self, names: Iterable[str]) -> ResolvedPolicy:
        """Return the policy when the agent knows links of these names, too."""
        identified = set(self.identified)
        for name in names:
            if self.interface(name) or name in self.lower_devices:
                continue
            judge = self._judge_of(name)
            is_apart = bool(self.masters) if self.unbound is None else name in self.passed
            is_checked = judge is not None and judge.own_addresses is not None
            if is_apart if judge is None else is_checked or judge is not self.meant(name):
                identified.add(name)
        return replace(self, identified=tuple(sorted(identified - {LOOPBACK})))
