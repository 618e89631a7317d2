"""Checks of links: how they stand on each other, programs that see packets first, and routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sgagent.analysis.doctor.conditions import Narrowing
from sgagent.analysis.doctor.drop_checks import INWARDS, families_of
from sgagent.analysis.doctor.facts import EarlyProgram, HookKind, HostEvidence
from sgagent.analysis.doctor.findings import DoctorCode, DoctorFinding, DoctorSeverity
from sgagent.analysis.doctor.reach import ReachedRule
from sgagent.analysis.doctor.rule_checks import EVALUATE
from sgagent.core.binding import IpvlanMode, Link
from sgagent.core.link_topology import FindingCode, findings, lower_devices
from sgagent.core.model import Family
from sgagent.core.rule_values import FAMILY_NAMES
from sgagent.nft import ruleset as nft

_TOPOLOGY = {
    FindingCode.LOWER_DEVICE: (
        DoctorCode.LOWER_DEVICE,
        DoctorSeverity.HIGH,
        "rules of a port judge nothing: packets pass as the master's, by its rules or by none",
    ),
    FindingCode.OTHER_NAME: (
        DoctorCode.OTHER_NAME,
        DoctorSeverity.HIGH,
        "denied packets to the link pass as those of the other link, or allowed ones are lost by its rules",
    ),
    FindingCode.BRIDGED_FRAMES: (
        DoctorCode.OTHER_NAME,
        DoctorSeverity.MEDIUM,
        "what guests say to each other over the bridge is lost where its groups do not accept it",
    ),
    FindingCode.LINK_ABOVE: (
        DoctorCode.LINK_ABOVE,
        DoctorSeverity.MEDIUM,
        "packets of the link above pass, in both directions, whatever the groups of the link under it say",
    ),
}


def find_topology(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield bound links whose packets show elsewhere, and open links above bound ones (§9.4 to §9.6)."""
    for one in findings(evidence.host, evidence.bound_names):
        if one.code is FindingCode.LINK_ABOVE and not evidence.policy.is_open_to_unbound:
            continue
        code, severity, effect = _TOPOLOGY[one.code]
        yield DoctorFinding(
            code=code,
            severity=severity,
            link=one.link,
            evidence=one.message,
            effect=effect,
            remedy=one.remedy,
        )


def find_foreign_links(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield links of containers that stand on a bound link, or on a lower device of one."""
    for one in evidence.foreign_links:
        bound = _judging(evidence, one.lower)
        if bound is not None:
            yield DoctorFinding(
                code=DoctorCode.LINK_ABOVE,
                severity=DoctorSeverity.MEDIUM,
                link=bound,
                evidence=f"{one.name} ({one.kind}) of {one.owner} stands on {one.lower}",
                effect="what passes by it meets no hook of this host: no group judges it, either way",
                remedy="filter inside of that namespace, or give the container a bridge",
            )


def _judging(evidence: HostEvidence, name: str) -> str | None:
    """Return the bound link that judges for a link: itself, or its master."""
    links = {link.name: link for link in evidence.host.links}
    if name in evidence.bound_names:
        return name
    return lower_devices(links, evidence.bound_names.__contains__).get(name)


def find_ipvlans(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield ipvlans of mode l3 above a bound link, of whose sessions conntrack sees one direction."""
    evaluating = {link.name for link in evidence.policy.bound if link.evaluates_invalid}
    for link in evidence.host.links:
        lower = link.lower
        if link.ipvlan_mode is not IpvlanMode.L3 or lower not in evidence.bound_names - evaluating:
            continue
        yield DoctorFinding(
            code=DoctorCode.INVALID_BY_DESIGN,
            severity=DoctorSeverity.MEDIUM,
            link=lower,
            evidence=f"{link.name} is an ipvlan of mode l3 above {lower}",
            effect=f"packets out of it leave as those of {lower}, and what answers them does not come in so:"
            " conntrack sees one direction, and drops its TCP as invalid",
            remedy=f"{EVALUATE}, or give the ipvlan mode l2",
        )


def find_programs(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield programs at bound links, and at their lower devices."""
    for one in evidence.programs:
        bound = _judging(evidence, one.link)
        if bound is not None:
            yield _program(one, bound)


def _program(one: EarlyProgram, bound: str) -> DoctorFinding:
    where = one.link if one.link == bound else f"{one.link}, a lower device of {bound}"
    is_late = one.hook is HookKind.TC_EGRESS
    return DoctorFinding(
        code=DoctorCode.EARLY_PROGRAM,
        severity=DoctorSeverity.LOW if is_late else DoctorSeverity.MEDIUM,
        link=bound,
        evidence=f"{one.hook.value} at {where}: {one.what}",
        effect="it gets packets behind the groups, and may drop, change or redirect what they accepted"
        if is_late
        else "it gets packets before the groups: what it redirects to a link, guest or socket is never"
        " judged, what it drops is not counted, and what it rewrites is judged as rewritten",
        remedy="make sure that it is yours and only drops or passes on; what it redirects, it has to judge",
    )


_STRICT = 1


def find_asymmetry(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield bound links whose answers may go another way than the requests, by several default routes."""
    for family, links, bound in _several_ways(evidence):
        strict = [name for name in bound if evidence.settings.reverse_path_of(name) == _STRICT]
        if family is Family.IPV4 and strict:
            yield _strict(strict, links)
        else:
            yield from _asymmetric(evidence, family, bound, links)


def _several_ways(evidence: HostEvidence) -> Iterator[tuple[Family, list[str], list[str]]]:
    """Yield families with default routes over several links, these links, and the bound ones of them."""
    for family in Family:
        routes = [route for route in evidence.routing.defaults if route.family is family]
        links = sorted({name for route in routes for name in route.links})
        bound = [name for name in links if name in evidence.bound_names]
        if len(links) > 1 and bound and family not in evidence.routing.is_by_policy:
            yield family, links, bound


def find_way_back_rules(evidence: HostEvidence, rules: Sequence[ReachedRule]) -> Iterator[DoctorFinding]:
    """Yield rules that drop as a strict rp_filter does, where default routes lead over several links."""
    dropping = {
        (str(one.base.table), one.chain, one.rule.handle): one
        for one in rules
        if isinstance(one.effect.verdict, nft.Drop) and one.base.hook.name in INWARDS
        if Narrowing.WAY_BACK in one.conditions.narrowings
    }
    for family, links, bound in _several_ways(evidence):
        for one in dropping.values():
            met = [name for name in one.links if name in bound]
            of_rule = one.conditions.families or {_NUMBERS[family]}
            if met and family in families_of(one.base.table) and _NUMBERS[family] in of_rule:
                routes = f"default routes of {FAMILY_NAMES[family]} lead over {', '.join(links)}"
                yield _way_back(one, met, routes)


def _way_back(one: ReachedRule, met: list[str], routes: str) -> DoctorFinding:
    return DoctorFinding(
        code=DoctorCode.REVERSE_PATH,
        severity=DoctorSeverity.MEDIUM,
        link=met[0] if len(met) == 1 else None,
        table=str(one.base.table),
        chain=one.chain,
        evidence=f"rule with handle {one.rule.handle} drops what comes in over a link by which its source is"
        f" not routed, and {routes}",
        effect="what comes in over the other way is dropped, though the policy accepts it",
        remedy="test without the link ('fib saddr oif missing', rpfilter --loose), route by source ('ip rule"
        " add from …'), or remove the rule",
    )


_NUMBERS = {Family.IPV4: 2, Family.IPV6: 10}
"""The kernel's numbers of families."""


def find_marked_routes(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield bound links with strict rp_filter where routes are chosen by a mark that it does not look at."""
    settings = evidence.settings
    strict = sorted(name for name in evidence.bound_names if settings.reverse_path_of(name) == _STRICT)
    if strict and Family.IPV4 in evidence.routing.is_by_mark and not settings.reverse_path_by_mark:
        yield DoctorFinding(
            code=DoctorCode.REVERSE_PATH,
            severity=DoctorSeverity.MEDIUM,
            link=strict[0] if len(strict) == 1 else None,
            evidence=f"rp_filter is 1 (strict) on {', '.join(strict)}, 'ip rule' chooses routes by mark, and"
            " src_valid_mark is 0",
            effect="the kernel looks the way back up without the mark, and drops what the groups accepted",
            remedy="set net.ipv4.conf.all.src_valid_mark to 1, or rp_filter of the link to 2 (loose)",
        )


def _strict(strict: list[str], links: list[str]) -> DoctorFinding:
    return DoctorFinding(
        code=DoctorCode.REVERSE_PATH,
        severity=DoctorSeverity.MEDIUM,
        link=strict[0] if len(strict) == 1 else None,
        evidence=f"rp_filter is 1 (strict) on {', '.join(strict)}, and default routes lead over"
        f" {', '.join(links)}",
        effect="the kernel drops what comes in over a link by which its source is not routed, after the"
        " groups accepted and counted it",
        remedy="set net.ipv4.conf.LINK.rp_filter to 2 (loose), or route by source ('ip rule add from …')",
    )


def _asymmetric(
    evidence: HostEvidence, family: Family, bound: list[str], links: list[str]
) -> Iterator[DoctorFinding]:
    evaluating = {link.name for link in evidence.policy.bound if link.evaluates_invalid}
    left = [name for name in bound if name not in evaluating]
    if not left:
        return
    is_forwarding = family in evidence.settings.forwarding
    yield DoctorFinding(
        code=DoctorCode.INVALID_BY_DESIGN,
        severity=DoctorSeverity.MEDIUM if is_forwarding else DoctorSeverity.LOW,
        link=left[0] if len(left) == 1 else None,
        evidence=f"default routes of {FAMILY_NAMES[family]} lead over {', '.join(links)}, without rules that"
        " choose one by source",
        effect="answers may leave over another link than the requests came in by; where the host forwards and"
        " conntrack sees one direction alone, the rest of an allowed session is invalid and dropped",
        remedy=f"route by source ('ip rule add from …'), or {EVALUATE}",
    )


def find_refusals(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield routes on the network of a bound link, and rules, that refuse packets."""
    for one in evidence.routing.refusals:
        bound = [name for name in one.links or sorted(evidence.bound_names) if name in evidence.bound_names]
        if bound:
            yield DoctorFinding(
                code=DoctorCode.REFUSING_ROUTE,
                severity=DoctorSeverity.MEDIUM,
                link=bound[0] if len(bound) == 1 else None,
                evidence=one.text,
                effect="packets that the policy accepts, or their answers, have no route and are lost",
                remedy="delete it with 'ip route' or 'ip rule', or let the groups deny these peers",
            )


def find_transforms(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield bound links over which IPsec sends packets in others, or whose packets it blocks."""
    for link in evidence.host.links:
        if link.name not in evidence.bound_names:
            continue
        own = [one for one in evidence.transforms if any(one.is_at(address) for address in link.addresses)]
        for blocks in (False, True):
            if some := [one.text for one in own if one.blocks is blocks]:
                more = f" and {len(some) - 1} more" if len(some) > 1 else ""
                yield _transforms(link.name, f"{some[0]}{more}", blocks=blocks)


def _transforms(link: str, policies: str, *, blocks: bool) -> DoctorFinding:
    return DoctorFinding(
        code=DoctorCode.IPSEC,
        severity=DoctorSeverity.MEDIUM if blocks else DoctorSeverity.LOW,
        link=link,
        evidence=f"policies of xfrm {'block' if blocks else 'put into ESP or AH'}: {policies}",
        effect="what the groups accept of them is dropped"
        if blocks
        else "each packet passes the groups twice, both ways: in ESP or AH, and as what is inside; a rule for"
        " one of both alone lets nothing pass",
        remedy="delete the policy ('ip xfrm policy'), or let the groups deny these peers"
        if blocks
        else "accept protocol 50 (behind NAT udp 4500) from and to the gateway, and what its network may send"
        " inside; or give the tunnel an interface of type xfrm, and bind that",
    )


_BEHIND = frozenset({None, "veth", "vlan", "bond", "team", "macvlan", "ipvlan", "netkit"})
"""Kinds of link with a network behind them; bridges and tunnels are of guests, containers and peers."""


def find_forwarding(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield whether rules of bound links admit to hosts behind another link, which nothing judges."""
    for family in evidence.settings.forwarding:
        behind = [link.name for link in evidence.host.links if _leads_on(evidence, link, family)]
        if not behind or not evidence.bound_names:
            continue
        bound = sorted(evidence.bound_names)
        yield DoctorFinding(
            code=DoctorCode.FORWARDING,
            severity=DoctorSeverity.LOW,
            link=bound[0] if len(bound) == 1 else None,
            evidence=f"this host forwards {FAMILY_NAMES[family]}, and {', '.join(behind)} leads to others",
            effect="a rule without local_address admits to this host, and to every host behind it",
            remedy="give rules for this host its address as local_address, bind the other link too, or set"
            " forwarding to 0",
        )


def _leads_on(evidence: HostEvidence, link: Link, family: Family) -> bool:
    """Return whether a link that is not bound leads to a network of its own."""
    bound = evidence.bound_names
    is_other = link.name not in bound and not link.is_loopback and link.master is None
    leads = (family, link.name) in evidence.routing.networks
    return is_other and leads and link.kind in _BEHIND and link.lower not in bound
