"""Hold the check of guardrails to brute force: every packet at every border of policy and statements.

``python -m tests.guardrail_trials FIRST COUNT`` tries so many seeds, and prints the first that is wrong. Each
is a random policy with 20 random statements.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product

from sgagent.analysis.guardrails import find_violations
from sgagent.core.addresses import AddressSet
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.guardrails import Guardrail, GuardrailKind, Violation, resolve_guardrails
from sgagent.core.members import members_by_group
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    GRE,
    ICMP,
    ICMPV6,
    LAST_PORT,
    TCP,
    UDP,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    Policy,
    PortListReference,
    PortSet,
    PrefixListReference,
    Protocol,
    Protocols,
    Snapshot,
)
from sgagent.core.policy import Peer, ResolvedDirection, ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.core.rule_values import EVERYTHING, canonical_objects
from tests.draws import Draws, SeededDraws
from tests.generators import Case, described, random_block, random_case
from tests.points import every_point

STATEMENTS = 20
"""Of each policy."""


def random_guardrails(draws: Draws, snapshot: Snapshot, number: int = STATEMENTS) -> tuple[Guardrail, ...]:
    """Return random statements that speak of what a policy speaks of; some objects are unknown."""
    make = partial(_guardrail, snapshot=snapshot)
    return tuple(draws.item(partial(make, guardrail_id=f"g-{place}")) for place in range(number))


def _guardrail(draws: Draws, *, snapshot: Snapshot, guardrail_id: str) -> Guardrail:
    protocols = draws.choice(_PROTOCOLS)
    has_ports = all(protocol.has_ports for protocol in protocols)
    return Guardrail(
        guardrail_id=guardrail_id,
        reason="drawn",
        kind=draws.choice(tuple(GuardrailKind)),
        direction=draws.choice(tuple(Direction)),
        far_ends=_objects(draws, snapshot),
        near_ends=_objects(draws, snapshot) if draws.chance(40) else None,
        protocols=protocols,
        ports=_ports(draws, snapshot) if has_ports else ALL_PORTS,
        exceptions=_objects(draws, snapshot) if draws.chance(40) else (),
    )


_PROTOCOLS: tuple[Protocols, ...] = (
    (TCP,),
    (TCP,),
    (UDP,),
    (TCP, UDP),
    (ICMP,),
    (ICMP, ICMPV6),
    (TCP, GRE),
    (Protocol(132),),
    (ALL_PROTOCOLS,),
)


def _objects(draws: Draws, snapshot: Snapshot) -> tuple[AuthorizationObject, ...]:
    if draws.chance(25):
        return EVERYTHING
    return canonical_objects([_object(draws, snapshot) for _ in range(draws.choice((1, 1, 2, 3)))])


def _object(draws: Draws, snapshot: Snapshot) -> AuthorizationObject:
    kind = draws.randint(0, 9)
    if kind >= 6:
        group = draws.choice(snapshot.security_groups)
        account = group.account_id if draws.chance(30) else None
        return GroupReference(group.security_group_id, account)
    if kind >= 4:
        return PrefixListReference(draws.choice(snapshot.prefix_lists).prefix_list_id)
    if kind >= 3:
        return GroupReference("sg-unknown") if draws.chance(50) else PrefixListReference("pl-unknown")
    return random_block(draws, draws.choice(tuple(Family)))


def _ports(draws: Draws, snapshot: Snapshot) -> PortSet | PortListReference:
    kind = draws.randint(0, 9)
    if kind >= 8:
        return PortListReference(draws.choice(snapshot.port_lists).port_list_id)
    if kind >= 7:
        return PortListReference("prl-unknown")
    if kind >= 5:
        return ALL_PORTS
    first = draws.choice((1, 22, 80, 443, 1024, 8080, 65535))
    return PortSet.of((first, min(LAST_PORT, first + draws.choice((0, 0, 1, 1000)))))


Objects = tuple[AuthorizationObject, ...]


@dataclass(frozen=True)
class Meaning:
    """What statements mean, read from their text and the definitions, object by object."""

    snapshot: Snapshot

    def addresses(self, one: AuthorizationObject) -> AddressSet | None:
        """Return what an object stands for; None if it is unknown."""
        match one:
            case CidrBlock():
                return AddressSet.of((one,))
            case GroupReference(security_group_id=name, account_id=account):
                known = self.snapshot.group_by_id.get(name)
                is_known = known is not None and (account is None or account == known.account_id)
                return members_by_group(self.snapshot)[name] if is_known else None
            case PrefixListReference(prefix_list_id=name):
                found = self.snapshot.prefix_list_by_id.get(name)
                return None if found is None else AddressSet.of(found.entries)
        raise AssertionError(one)

    def is_checked(self, rail: Guardrail) -> bool:
        """Return whether a statement can be checked: ``always`` needs to know its objects."""
        named = (*rail.far_ends, *(rail.near_ends or ()))
        is_known = all(self.addresses(one) is not None for one in named) and self.ports(rail) is not None
        return rail.kind is not GuardrailKind.ALWAYS or is_known

    def ports(self, rail: Guardrail) -> PortSet | None:
        """Return the ports; None if their list is unknown."""
        if isinstance(rail.ports, PortSet):
            return rail.ports
        found = self.snapshot.port_list_by_id.get(rail.ports.port_list_id)
        return None if found is None else found.entries

    def has_far_end(self, rail: Guardrail, family: Family, address: int) -> bool:
        """Return whether a statement speaks of a far end."""
        if any(self._is_in(one, family, address) for one in rail.exceptions):
            return False
        is_named = any(self._is_in(one, family, address) for one in rail.far_ends)
        if rail.kind is GuardrailKind.ONLY:
            return not is_named
        return is_named or any(self.addresses(one) is None for one in rail.far_ends)

    def has_near_end(self, rail: Guardrail, judge: ResolvedInterface, family: Family, address: int) -> bool:
        """Return whether a statement speaks of a near end at an interface."""
        for one in rail.near_ends or EVERYTHING:
            if self.addresses(one) is None:
                return True
            if isinstance(one, GroupReference):
                if one.security_group_id in judge.security_group_ids:
                    return True
            elif self._is_in(one, family, address):
                return True
        return False

    def _is_in(self, one: AuthorizationObject, family: Family, address: int) -> bool:
        found = self.addresses(one)
        return found is not None and found.contains(family, address)


Broken = set[tuple[str, str]]
"""Statement and interface."""


def broken_by_brute_force(case: Case, rails: Sequence[Guardrail]) -> Broken:
    """Return which statements are broken where, as the specification decides every packet at every border."""
    meaning = Meaning(case.snapshot)
    return {
        (rail.guardrail_id, judge.name)
        for rail in rails
        if meaning.is_checked(rail)
        for judge in case.policy.bound
        if any(is_broken_by(rail, case.policy, packet) for packet in _packets(meaning, rail, case, judge))
    }


def is_broken_by(rail: Guardrail, policy: ResolvedPolicy, packet: Packet) -> bool:
    """Return whether a packet that a statement speaks of is decided otherwise than the statement demands."""
    is_always = rail.kind is GuardrailKind.ALWAYS
    decision = evaluate(policy, replace(packet, is_over_limit=is_always))  # §13.1: it has to pass even then
    if is_always:
        return decision.verdict is Policy.DROP and decision.decided_by is not DecidedBy.SPOOFED
    beyond = (DecidedBy.ALWAYS, DecidedBy.FAILSAFE)
    return decision.verdict is Policy.ACCEPT and decision.decided_by not in beyond


def _packets(meaning: Meaning, rail: Guardrail, case: Case, judge: ResolvedInterface) -> Iterator[Packet]:
    """Yield every packet that a statement speaks of and that may be decided otherwise than its neighbours."""
    borders = _borders(meaning, rail, judge)
    ports = meaning.ports(rail)
    for family in Family:
        far = cache(partial(meaning.has_far_end, rail, family))
        near = cache(partial(meaning.has_near_end, rail, judge, family))
        for packet in every_point([case.policy, borders], judge.name, rail.direction, family):
            if (
                far(packet.peer)
                and near(packet.local)
                and any(_is_of(packet, protocol) for protocol in rail.protocols)
                and (ports is None or ports.matches(packet.destination_port))
            ):
                yield packet


def _is_of(packet: Packet, protocol: Protocol) -> bool:
    is_of_family = protocol.only_family in (None, packet.family)
    return protocol.number is None or (protocol.number == packet.protocol and is_of_family)


def _borders(meaning: Meaning, rail: Guardrail, judge: ResolvedInterface) -> ResolvedPolicy:
    """Return a policy that has borders where a statement has some."""
    far = [found for one in (*rail.far_ends, *rail.exceptions) if (found := meaning.addresses(one))]
    near = [found for one in rail.near_ends or () if (found := meaning.addresses(one))]
    blocks = {
        CidrBlock(family, first, last, 0)
        for family in Family
        for found in near
        for first, last in found.ranges(family)
    }
    rules = tuple(
        ResolvedRule(
            rule_id=f"border-{place}",
            security_group_id="sg-border",
            direction=rail.direction,
            authorization_objects=(),
            policy=Policy.DROP,
            priority=1,
            protocols=rail.protocols,
            ports=meaning.ports(rail) or ALL_PORTS,
            peer=Peer(name="border", addresses=addresses),
            local_address=block,
        )
        for place, (addresses, block) in enumerate(product(far or [AddressSet()], [None, *blocks]))
    )
    side = ResolvedDirection(rules=rules)
    return ResolvedPolicy(interfaces=(ResolvedInterface(name=judge.name, ingress=side, egress=side),))


def checked(case: Case, rails: tuple[Guardrail, ...]) -> tuple[Violation, ...]:
    """Return what the check finds."""
    return find_violations(resolve_guardrails(rails, case.snapshot)[0], case.policy)


def difference(case: Case, rails: tuple[Guardrail, ...]) -> str:
    """Return what is wrong with what the check finds, in words; nothing if it is what brute force finds."""
    found = checked(case, rails)
    pairs = {(one.guardrail.guardrail_id, one.interface) for one in found}
    expected = broken_by_brute_force(case, rails)
    wrong = [f"missed: {one}" for one in sorted(expected - pairs)]
    wrong += [f"wrongly: {one}" for one in sorted(pairs - expected)]
    for one in found:
        decision = evaluate(case.policy, one.packet)
        if not is_broken_by(one.guardrail, case.policy, one.packet) or decision.rule != one.rule:
            wrong.append(f"a packet that breaks nothing: {one.guardrail}: {described(one.packet)}")
    return "\n".join(wrong)


def trial(seed: int) -> tuple[Case, tuple[Guardrail, ...]]:
    """Return the policy and the statements of a seed."""
    draws = SeededDraws(seed)
    case = random_case(draws, interfaces=("eth0",), most_rules=6)
    return case, random_guardrails(draws, case.snapshot)


def main(arguments: Sequence[str]) -> int:
    """Try seeds; print how many statements were broken, or the first that the check is wrong about."""
    first, number = map(int, arguments)
    broken = 0
    for seed in range(first, first + number):
        case, rails = trial(seed)
        if wrong := difference(case, rails):
            print(f"seed {seed}: {wrong}", case, *rails, sep="\n")  # noqa: T201 - what it is for
            return 1
        broken += len(checked(case, rails))
    counts = f"{number} policies, {number * STATEMENTS} statements, {broken} broken, 0 wrong"
    print(f"seeds {first} to {first + number - 1}: {counts}")  # noqa: T201 - as above
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
