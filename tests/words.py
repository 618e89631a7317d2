"""Say groups, policies and packets in few words, so that a test reads like the clause that it is about."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from sgagent.core.binding import Bindings, HandBinding, HostFacts, bind
from sgagent.core.counter_keys import RuleCounter
from sgagent.core.evaluate import Decision, Packet, Tracking, evaluate
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    AuthorizationObject,
    AuthorizationObjects,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    Mode,
    NetworkInterface,
    Policy,
    PortList,
    PortListReference,
    PortSet,
    PrefixList,
    PrefixListReference,
    Protocol,
    Protocols,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
)
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, Scope, resolve
from sgagent.core.rule_values import ANY, EVERYTHING, canonical_objects

IN, OUT = Direction.INGRESS, Direction.EGRESS
ACCEPT, DROP = Policy.ACCEPT, Policy.DROP
BASIC, ADVANCED = GroupType.BASIC, GroupType.ADVANCED

METADATA = Exemption(direction=OUT, peer=CidrBlock.parse("100.100.100.200/32"), protocol=ALL_PROTOCOLS)
PLATFORM = Exemptions(platform=(METADATA,))


def block(text: str) -> CidrBlock:
    """Return a CIDR block."""
    return CidrBlock.parse(text)


def blocks(*texts: str) -> tuple[CidrBlock, ...]:
    """Return several CIDR blocks."""
    return tuple(map(CidrBlock.parse, texts))


def ports(text: str) -> PortSet:
    """Return ports: ``80``, ``80,443`` or ``1-65535``; the empty text is every port."""
    pairs = [part.partition("-") for part in text.split(",") if part]
    return PortSet.of(*((int(first), int(last or first)) for first, _, last in pairs)) if pairs else ALL_PORTS


def peer(text: str) -> AuthorizationObject:
    """Return the object that the text names, as in a document."""
    if text.startswith("pl-"):
        return PrefixListReference(text)
    account, _, group_id = text.rpartition("/")
    if group_id.startswith("sg-"):
        return GroupReference(group_id, account or None)
    return CidrBlock.parse(text)


def peers(text: str) -> AuthorizationObjects:
    """Return the objects that the text names, with commas between them; ``any`` is all."""
    return EVERYTHING if text == ANY else canonical_objects(map(peer, text.replace(" ", "").split(",")))


def rule(
    rule_id: str,
    policy: Policy,
    protocol: Protocol | Protocols,
    port: str,
    other_end: str,
    *,
    direction: Direction = IN,
    priority: int = 1,
    source_ports: str = "",
    local: str | None = None,
) -> SecurityGroupRule:
    """Return a rule; a port that starts with ``prl-`` is a port list, and a comma separates objects."""
    return SecurityGroupRule(
        rule_id=rule_id,
        direction=direction,
        policy=policy,
        priority=priority,
        protocols=(protocol,) if isinstance(protocol, Protocol) else protocol,
        ports=PortListReference(port) if port.startswith("prl-") else ports(port),
        authorization_objects=peers(other_end),
        source_ports=ports(source_ports),
        local_address=None if local is None else block(local),
    )


def group(
    security_group_id: str,
    *rules: SecurityGroupRule,
    group_type: GroupType = BASIC,
    inner: Policy = ACCEPT,
    members: Iterable[str] = (),
    account: str | None = None,
    vpc: str | None = None,
) -> SecurityGroup:
    """Return a security group, basic unless said."""
    return SecurityGroup(
        security_group_id=security_group_id,
        group_type=group_type,
        inner_access_policy=inner,
        account_id=account,
        vpc_id=vpc,
        member_addresses=blocks(*members),
        rules=rules,
    )


def rule_counter(
    rule_id: str,
    policy: Policy = ACCEPT,
    *,
    group_id: str = "sg-1",
    link: str = "eth0",
    direction: Direction = IN,
) -> RuleCounter:
    """Return the key of a rule's counter."""
    return RuleCounter(
        interface=link, security_group_id=group_id, rule_id=rule_id, direction=direction, policy=policy
    )


def interface(
    network_interface_id: str,
    groups: Iterable[str] = (),
    addresses: Iterable[str] = (),
    *,
    mac: str | None = None,
    vpc: str | None = None,
) -> NetworkInterface:
    """Return a network interface."""
    return NetworkInterface(
        network_interface_id=network_interface_id,
        mac_address=mac,
        addresses=blocks(*addresses),
        security_group_ids=tuple(groups),
        vpc_id=vpc,
    )


def snapshot(*objects: SecurityGroup | NetworkInterface | PrefixList | PortList) -> Snapshot:
    """Return definitions that hold these objects."""
    groups = [one for one in objects if isinstance(one, SecurityGroup)]
    interfaces = [one for one in objects if isinstance(one, NetworkInterface)]
    prefix_lists = [one for one in objects if isinstance(one, PrefixList)]
    port_lists = [one for one in objects if isinstance(one, PortList)]
    return Snapshot(
        version="test",
        security_groups=tuple(sorted(groups, key=lambda one: one.security_group_id)),
        network_interfaces=tuple(sorted(interfaces, key=lambda one: one.network_interface_id)),
        prefix_lists=tuple(sorted(prefix_lists, key=lambda one: one.prefix_list_id)),
        port_lists=tuple(sorted(port_lists, key=lambda one: one.port_list_id)),
    )


def by_hand(definitions: Snapshot, on: Mapping[str, str]) -> Bindings:
    """Return the bindings of links to groups, ``{"eth0": "sg-1,sg-2"}``."""
    hands = [
        HandBinding(interface=link, security_group_ids=tuple(filter(None, groups.split(","))))
        for link, groups in on.items()
    ]
    return bind(definitions, hands, HostFacts(), automatically=False)


def resolution(
    definitions: Snapshot,
    *,
    on: Mapping[str, str] | None = None,
    exemptions: Exemptions = PLATFORM,
    mode: Mode = Mode.ENFORCE,
    unbound_closed: bool = False,
    scope: Scope = Scope.HOST,
) -> Resolution:
    """Return what definitions come to on links bound by hand; on ``eth0`` with every group unless said."""
    bound = by_hand(definitions, {"eth0": ",".join(definitions.group_by_id)} if on is None else on)
    return resolve(
        definitions, bound, exemptions, default_mode=mode, unbound_closed=unbound_closed, scope=scope
    )


def policy_of(
    *objects: SecurityGroup | NetworkInterface | PrefixList | PortList, on: Mapping[str, str] | None = None
) -> ResolvedPolicy:
    """Return the policy of objects that have no errors."""
    found = resolution(snapshot(*objects), on=on)
    assert not found.errors, found.errors
    return found.policy


def packet(
    direction: Direction,
    far_end: str,
    protocol: Protocol | int,
    port: int | None = None,
    *,
    near_end: str | None = None,
    source_port: int = 40_000,
    link: str = "eth0",
    icmp_type: int | None = None,
    hop_limit: int = 64,
    tracking: Tracking = Tracking.NEW,
) -> Packet:
    """Return a packet between the far end and this host; without a port it has no ports at all."""
    far = ipaddress.ip_address(far_end)
    near = ipaddress.ip_address(near_end or ("10.0.0.1" if far.version == 4 else "2001:db8::1"))
    source, destination = (far, near) if direction is IN else (near, far)
    number = protocol.number if isinstance(protocol, Protocol) else protocol
    assert number is not None
    return Packet(
        interface=link,
        direction=direction,
        family=Family.IPV4 if far.version == 4 else Family.IPV6,
        source=int(source),
        destination=int(destination),
        protocol=number,
        source_port=None if port is None else source_port,
        destination_port=port,
        icmp_type=icmp_type,
        hop_limit=hop_limit,
        tracking=tracking,
    )


def verdict(policy: ResolvedPolicy, judged: Packet) -> Policy:
    """Return the verdict of the specification."""
    return evaluate(policy, judged).verdict


def decision(policy: ResolvedPolicy, judged: Packet) -> Decision:
    """Return the verdict of the specification and how it came about."""
    return evaluate(policy, judged)
