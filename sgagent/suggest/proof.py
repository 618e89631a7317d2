"""The proof of a suggestion: all observations pass, and nothing beyond its statements does.

The policy is what an agent would make of the document's text. What it may admit is put together anew, from
the observations and the stated widenings, and compared with it in the header space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from sgagent.analysis.header_space import Columns, find_box
from sgagent.core.addresses import AddressSet
from sgagent.core.binding import bind_everywhere
from sgagent.core.clauses import Clause, DecidedBy, list_clauses
from sgagent.core.errors import DocumentError
from sgagent.core.evaluate import Decision, Packet, evaluate
from sgagent.core.model import ALL_PORTS, CidrBlock, Direction, Family, Policy, PortSet, Snapshot
from sgagent.core.policy import ResolvedInterface, ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.suggest.conversations import UnprovedSuggestionError
from sgagent.suggest.far_ends import Widening, far_text
from sgagent.suggest.observations import FarEnd, Observation, Service
from sgagent.suggest.roles import Role
from sgagent.suggest.suggestion import ClientPorts, Draft, StatedWidening

Judges = Mapping[str, ResolvedInterface]
"""By the ids of network interfaces."""


def judges_of(snapshot: Snapshot, exemptions: Exemptions = Exemptions()) -> Judges:  # noqa: B008 - it is frozen
    """Resolve definitions on each of their network interfaces.

    Args:
        snapshot: the definitions.
        exemptions: the traffic that no group can block; none of it needs a rule.

    Raises:
        DocumentError: they make no sense.
    """
    resolution = resolve(snapshot, bind_everywhere(snapshot), exemptions)
    if resolution.errors:
        raise DocumentError(resolution.errors)
    return {one.name: one for one in resolution.policy.interfaces}


@dataclass(frozen=True, slots=True)
class Judged:
    """An observation, and the suggested policy's decision on its sessions."""

    observation: Observation
    decision: Decision


def judge(judges: Judges, observations: Iterable[Observation]) -> Iterator[Judged]:
    """Yield the decisions on observed sessions; of their clients' ports the lowest and the highest count."""
    alone = {name: ResolvedPolicy(interfaces=(one,)) for name, one in judges.items()}
    asking = {name for name, one in judges.items() if _asks_for_clients_ports(one)}
    for one in observations:
        policy = alone.get(one.interface, ResolvedPolicy())
        packets = islice(_packets(one), None if one.interface in asking else 1)
        decisions = [evaluate(policy, packet) for packet in packets]
        refused = (decision for decision in decisions if decision.verdict is Policy.DROP)
        yield Judged(one, next(refused, decisions[0]))


def _asks_for_clients_ports(one: ResolvedInterface) -> bool:
    rules = (rule for way in Direction for rule in one.toward(way).rules)
    return any(not rule.source_ports.is_all for rule in rules)


def _packets(one: Observation) -> Iterator[Packet]:
    family, far = one.far
    is_ingress = one.service.direction is Direction.INGRESS
    ports = one.tally.client_ports if one.service.port is not None else None
    for source_port in {None} if ports is None else set(ports):
        yield Packet(
            interface=one.interface,
            direction=one.service.direction,
            family=family,
            source=far if is_ingress else one.near,
            destination=one.near if is_ingress else far,
            protocol=one.service.protocol,
            source_port=source_port,
            destination_port=one.service.port,
        )


def prove(draft: Draft, judges: Judges, judged: Sequence[Judged]) -> None:
    """Refuse a suggestion that drops traffic without a question, or admits traffic without a statement.

    Args:
        draft: what was suggested, and states of itself.
        judges: the policy of the document as it was written.
        judged: all observations.

    Raises:
        UnprovedSuggestionError: it does not hold; a fault of ours.
    """
    for one in judged:
        if one.observation.doubt is None and one.decision.verdict is Policy.DROP:
            raise UnprovedSuggestionError(
                f"the suggestion drops a session that was seen: {_text(one.observation)} at"
                f" {one.observation.interface}; nothing is suggested, please report this"
            )
    for role in draft.roles:
        for name in role.interfaces:
            for direction in draft.directions:
                _prove_closed(draft, role, judges[name], direction)


def _prove_closed(draft: Draft, role: Role, found: ResolvedInterface, direction: Direction) -> None:
    """Refuse if an interface admits a packet that is neither seen nor stated."""
    stated = tuple(_stated(draft, role, direction))
    for family in Family:
        everyone = ((0, family.last_address),)
        allowed = [
            Clause(
                DecidedBy.RULE,
                Policy.ACCEPT,
                addresses.ranges(family),
                (service.protocol,),
                ports=ALL_PORTS if service.port is None else PortSet.of((service.port, service.port)),
                source_ports=ALL_PORTS if ports is None else PortSet.of(ports),
            )
            for service, addresses, ports in stated
            if addresses.ranges(family)
        ]
        clauses = list_clauses(found, direction, family)
        allowed += (one for one in clauses if one.rule is not None and one.rule.rule_id in draft.kept)
        allowed.append(Clause(DecidedBy.DEFAULT, Policy.DROP, everyone))
        box = find_box((clauses, allowed), family, _beyond)
        if box is not None:
            far = CidrBlock.around(family, box.peers[0][0], family.bits)
            raise UnprovedSuggestionError(
                f"the suggestion admits more than it states: protocol {box.protocols[0][0]}, port"
                f" {box.ports[0][0]}, {direction.value}, {far}, at {found.name}; nothing is suggested, please"
                " report this"
            )


def _beyond(columns: Columns) -> bool | None:
    """Return True for packets that the policy accepts and the statements do not, else None."""
    (found, *_), (allowed, *_) = columns
    is_beyond = found.policy is Policy.ACCEPT and allowed.policy is Policy.DROP
    return True if is_beyond else None


_Stated = tuple[Service, AddressSet, ClientPorts | None]


def _stated(draft: Draft, role: Role, direction: Direction) -> Iterator[_Stated]:
    """Yield the traffic that a role's interfaces may admit: observations, and its groups' statements."""

    def ports(group: str, service: Service) -> ClientPorts | None:
        return draft.sources.get((group, service))

    def ported(service: Service) -> list[ClientPorts | None]:
        """Return the clients' ports that the role's groups name for a service; None is any."""
        found = [ports(group, service) for group in role.groups]
        return [one for one in found if one is not None] or [None]

    for service, fars in role.seen.items():
        if service.direction is direction:
            yield from ((service, _addresses(fars), one) for one in ported(service))
    for statement in draft.statements:
        if statement.group in role.groups and statement.service.direction is direction:
            addresses = statement.addresses
            if statement.widening is Widening.MEMBERS:
                addresses = addresses.union(*_seen_elsewhere(draft, statement))
            yield statement.service, addresses, ports(statement.group, statement.service)


def _seen_elsewhere(draft: Draft, statement: StatedWidening) -> Iterator[AddressSet]:
    """Yield the observed needs of other members of a group for a service."""
    for role in draft.roles:
        if statement.group in role.groups:
            yield _addresses(role.seen.get(statement.service, ()))


def _addresses(fars: Iterable[FarEnd]) -> AddressSet:
    return AddressSet.of(CidrBlock.around(family, address, family.bits) for family, address in fars)


def _text(one: Observation) -> str:
    port = "" if one.service.port is None else f" port {one.service.port}"
    way = "from" if one.service.direction is Direction.INGRESS else "to"
    return f"protocol {one.service.protocol}{port} {way} {far_text(one.far)}"


def with_descriptions(snapshot: Snapshot, texts: Mapping[str, str]) -> Snapshot:
    """Return definitions whose rules, by their ids, describe the evidence they rest on."""
    groups = (
        replace(
            group,
            rules=tuple(
                replace(rule, description=texts.get(rule.rule_id, rule.description)) for rule in group.rules
            ),
        )
        for group in snapshot.security_groups
    )
    return replace(snapshot, security_groups=tuple(groups))
