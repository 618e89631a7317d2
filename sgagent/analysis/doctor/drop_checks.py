"""Checks of other tables' drops of packets that the policy accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sgagent.analysis.doctor.conditions import Narrowing, PacketConditions
from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.findings import DoctorCode, DoctorFinding, DoctorSeverity
from sgagent.analysis.doctor.reach import BaseChain, ReachedRule
from sgagent.core.model import Family
from sgagent.nft import ruleset as nft
from sgagent.nft.kernel_table import KernelTable

_OF_CONTAINERS = ("DOCKER", "KUBE-", "CNI-", "cali-", "CILIUM_", "NETAVARK", "LIBVIRT_", "FLANNEL", "docker-")
"""Beginnings of names of chains and tables of programs that run containers and guests, and filter what they
forward."""

INWARDS = frozenset({"ingress", "prerouting", "input"})
"""Hooks at which nearly all packets are to this host; outwards such packets stay in it."""


def find_drops(
    evidence: HostEvidence, bases: Sequence[BaseChain], rules: Sequence[ReachedRule]
) -> Iterator[DoctorFinding]:
    """Yield a finding for each base chain that drops packets that the policy may accept.

    Args:
        evidence: of the host.
        bases: the base chains that packets of bound links pass.
        rules: what they reach.
    """
    by_base: dict[BaseChain, list[ReachedRule]] = {}
    for one in rules:
        by_base.setdefault(one.base, []).append(one)
    for base in bases:
        found = by_base.get(base, [])
        if base.hook.name == "forward" and not _is_forwarding(evidence, base):
            continue
        if base.hook.drops and not _accepts_all(base, found):
            yield _by_policy(base)
        elif base.hook.name != "forward" and (dropping := _plain_drops(evidence, found)):
            yield _by_rules(dropping)


def _is_forwarding(evidence: HostEvidence, base: BaseChain) -> bool:
    """Return whether a base chain at forward has packets, and filters for no containers or guests."""
    names = [base.table.name, *(one.name for one in base.table.chains)]
    is_of_containers = any(name.startswith(_OF_CONTAINERS) for name in names)
    return bool(families_of(base.table) & set(evidence.settings.forwarding)) and not is_of_containers


def families_of(table: KernelTable) -> frozenset[Family]:
    """Return the families whose packets a table may see."""
    one = _FAMILIES.get(table.family)
    return frozenset(Family) if one is None else frozenset({one})


_FAMILIES = {"ip": Family.IPV4, "ip6": Family.IPV6}


def _accepts_all(base: BaseChain, found: Sequence[ReachedRule]) -> bool:
    """Return whether rules of the base chain itself accept all packets of bound links before its policy."""
    accepted = {
        link
        for one in found
        if isinstance(one.effect.verdict, nft.Accept) and one.chain == one.base.name
        if not (one.conditions.narrowings or one.conditions.destinations)
        for link in one.links
    }
    return accepted >= set(base.links)


def _plain_drops(evidence: HostEvidence, found: Sequence[ReachedRule]) -> list[ReachedRule]:
    """Return the rules that drop packets that the policy may accept, the widest first, each once."""
    own = {
        address.first.to_bytes(address.family.bits // 8)
        for link in evidence.host.links
        if link.name in evidence.bound_names
        for address in link.addresses
    }
    dropping = {
        (one.chain, one.rule.handle): one
        for one in found
        if isinstance(one.effect.verdict, nft.Drop) and _may_be_accepted(one, own)
    }
    return sorted(dropping.values(), key=lambda one: (_width(one.conditions), one.chain, one.rule.handle))


def _may_be_accepted(one: ReachedRule, own: set[bytes]) -> bool:
    """Return whether a drop may hit packets that the policy accepts; to other addresses it may not."""
    conditions = one.conditions
    is_local = Narrowing.LOCAL not in conditions.narrowings or one.base.hook.name in INWARDS
    is_to_host = all(any(address.startswith(one) for address in own) for one in conditions.destinations)
    return conditions.is_plain and is_local and is_to_host


def _width(conditions: PacketConditions) -> int:
    return len(conditions.narrowings - {Narrowing.LOCAL}) + bool(conditions.destinations)


def _by_policy(base: BaseChain) -> DoctorFinding:
    is_forward = base.hook.name == "forward"
    return _finding(
        base.table,
        base.name,
        DoctorSeverity.LOW if is_forward else DoctorSeverity.MEDIUM,
        link=base.links[0] if len(base.links) == 1 else None,
        evidence=f"base chain at {base.hook.name}, priority {base.hook.priority}, with policy drop",
        effect="what the policy accepts is dropped here unless a rule of this table accepts it as well:"
        f" {'forwarded packets' if is_forward else 'sessions'} die though explain says accept",
    )


def _by_rules(dropping: Sequence[ReachedRule]) -> DoctorFinding:
    first = dropping[0]
    more = f"; {len(dropping) - 1} more rules drop" if len(dropping) > 1 else ""
    is_arp = first.base.table.family == "arp"
    return _finding(
        first.base.table,
        first.chain,
        DoctorSeverity.LOW if _width(first.conditions) else DoctorSeverity.MEDIUM,
        link=first.link,
        evidence=f"rule with handle {first.rule.handle} drops {_picked(first.conditions, is_arp=is_arp)}"
        f" at {first.base.hook.name}{more}",
        effect="neighbours and this host do not find each other: what the policy accepts does not arrive"
        if is_arp
        else "what the policy accepts of them is dropped here: explain says accept, and the session dies",
    )


def _picked(conditions: PacketConditions, *, is_arp: bool) -> str:
    is_share = Narrowing.SHARE in conditions.narrowings
    words = [word for one, word in _WORDS.items() if one in conditions.narrowings]
    amount = "some (by rate, number, volume, chance or time) of the" if is_share else "all"
    which = f"of certain {' and '.join(words)}" if words else "that reach it"
    return f"{amount} {'ARP messages' if is_arp else 'packets'} {which}"


_WORDS = {Narrowing.SOURCE: "sources", Narrowing.PROTOCOL: "protocols or ports"}


def _finding(
    table: KernelTable,
    chain: str,
    severity: DoctorSeverity,
    *,
    link: str | None,
    evidence: str,
    effect: str,
) -> DoctorFinding:
    return DoctorFinding(
        code=DoctorCode.OTHER_TABLE_DROPS,
        severity=severity,
        link=link,
        table=str(table),
        chain=chain,
        evidence=evidence,
        effect=effect,
        remedy=f"list it by 'nft -a list chain {table} {chain}'; accept there what the groups decide"
        " (the links that are bound), or remove that filter",
    )
