"""Checks of other tables' rules on sessions: marks, zones, untracked packets, SYNPROXY, flow tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sgagent.analysis.doctor.effects import End
from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.findings import DoctorCode, DoctorFinding, DoctorSeverity
from sgagent.analysis.doctor.reach import ReachedRule, is_among, tracking_rules
from sgagent.core.model import Family

MOST_OF_A_CHAIN = 5
"""Rules of a chain that are findings of their own; the last of them counts the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCheck:
    """A finding about rules that do something to sessions or packets of bound links."""

    code: DoctorCode
    is_meant: Callable[[ReachedRule, HostEvidence], bool]
    severity: Callable[[ReachedRule, int], DoctorSeverity]
    """Of a rule, and the bits of the session's mark that are ours."""

    evidence: Callable[[ReachedRule, int], str]
    effect: str
    remedy: str

    def run(self, rules: Sequence[ReachedRule], evidence: HostEvidence) -> Iterator[DoctorFinding]:
        """Yield a finding for each rule that is meant, by whatever way it is reached."""
        by_rule = {
            (str(one.base.table), one.chain, one.rule.handle): one
            for one in rules
            if self.is_meant(one, evidence)
        }
        by_chain: dict[tuple[str, str], list[ReachedRule]] = {}
        for (table, chain, _), one in sorted(by_rule.items()):
            by_chain.setdefault((table, chain), []).append(one)
        for found in by_chain.values():
            yield from self._of_chain(found, evidence.policy.mark_mask)

    def _of_chain(self, found: Sequence[ReachedRule], mask: int) -> Iterator[DoctorFinding]:
        shown = [self._finding(one, mask) for one in found[:MOST_OF_A_CHAIN]]
        if (more := len(found) - len(shown)) > 0:
            shown[-1] = replace(
                shown[-1], evidence=f"{shown[-1].evidence}; {more} more rules of this chain do so"
            )
        yield from shown

    def _finding(self, one: ReachedRule, mask: int) -> DoctorFinding:
        return DoctorFinding(
            code=self.code,
            severity=self.severity(one, mask),
            link=one.link,
            table=str(one.base.table),
            chain=one.chain,
            evidence=f"rule with handle {one.rule.handle} {self.evidence(one, mask)}",
            effect=self.effect,
            remedy=self.remedy,
        )


def _always(severity: DoctorSeverity) -> Callable[[ReachedRule, int], DoctorSeverity]:
    return lambda _one, _mask: severity


def _writer_severity(one: ReachedRule, mask: int) -> DoctorSeverity:
    """Return a heavier one for a rule that sets bits of ours, as these may say that a session is accepted."""
    return DoctorSeverity.HIGH if one.effect.sets & mask else DoctorSeverity.MEDIUM


def _packet_writer_severity(one: ReachedRule, _mask: int) -> DoctorSeverity:
    """Return a heavier one where a judged packet changes, or an arriving one gets another sender before."""
    base = one.base
    is_inwards = base.hook.name in {"ingress", "prerouting"} or (base.is_of_frames and base.is_before_groups)
    forges = is_inwards and End.SOURCE in one.effect.rewrites
    return DoctorSeverity.HIGH if forges or not base.is_before_groups else DoctorSeverity.MEDIUM


def _diverts(one: ReachedRule) -> bool:
    """Return whether a rule at a hook of IP takes or copies packets, and picks them by no mark of its own."""
    takes = one.effect.tproxy or one.effect.sends_elsewhere
    return takes and not one.base.is_at_link and one.conditions.is_plain


def _evaluates_invalid(one: ReachedRule, evidence: HostEvidence) -> bool:
    """Return whether every link that the rule concerns judges invalid packets by their header."""
    evaluating = {link.name for link in evidence.policy.bound if link.evaluates_invalid}
    return set(one.links) <= evaluating


EVALUATE = 'set invalid = "evaluate" for the link in [[interface]]'

RULE_CHECKS = (
    RuleCheck(
        code=DoctorCode.MARK_WRITER,
        is_meant=lambda one, evidence: bool(one.effect.writes & evidence.policy.mark_mask),
        severity=_writer_severity,
        evidence=lambda one, mask: (
            f"may change the bits {one.effect.writes & mask:#010x} of the session mark,"
            f" which are of mark_mask {mask:#010x}"
        ),
        effect="it erases acceptances, so that each packet is judged anew and counted again; or it sets bits"
        " like those of a current acceptance, by which a denied session passes",
        remedy="leave the bits of mark_mask alone: 'ct mark set ct mark & MASK | VALUE', or --nfmask and"
        " --ctmask with CONNMARK; or move mark_mask in [enforcement], or leave the mark"
        " alone: mark_mask = 0x1",
    ),
    RuleCheck(
        code=DoctorCode.MARK_READER,
        is_meant=lambda one, evidence: bool(one.effect.reads & evidence.policy.mark_mask),
        severity=_always(DoctorSeverity.MEDIUM),
        evidence=lambda one, mask: (
            f"depends on the bits {one.effect.reads & mask:#010x} of the session mark,"
            f" which are of mark_mask {mask:#010x}"
        ),
        effect="accepted sessions have bits there: the rule takes them for marked, or does not find its own"
        " value, and what it restores or routes by goes elsewhere",
        remedy="read with a mask: 'ct mark & MASK == VALUE', 'meta mark set ct mark & MASK', or --ctmask with"
        " CONNMARK, without the bits of mark_mask; where that can't be, leave the mark alone: mark_mask = 0x1"
        " in [enforcement]",
    ),
    RuleCheck(
        code=DoctorCode.CONNTRACK_ZONE,
        is_meant=lambda one, _: one.effect.zone,
        severity=_always(DoctorSeverity.MEDIUM),
        evidence=lambda _one, _mask: "puts sessions into a conntrack zone",
        effect="a session that is in the zone at one link and outside of it at another has two entries, each"
        " judged by itself, as opened by the first packet of it that came there",
        remedy="give both directions of a session the same zone, at all links that it passes",
    ),
    RuleCheck(
        code=DoctorCode.NOTRACK,
        is_meant=lambda one, _: one.effect.notrack,
        severity=_always(DoctorSeverity.MEDIUM),
        evidence=lambda _one, _mask: "exempts packets from connection tracking",
        effect="each packet is judged by its own header (§6.6): answers in allowed sessions are dropped"
        " unless a rule of their own direction accepts them, and every packet counts as a hit",
        remedy="drop the notrack rule, narrow it to an unbound link, or add rules for both directions",
    ),
    RuleCheck(
        code=DoctorCode.SESSION_TIMEOUT,
        is_meant=lambda one, _: one.effect.timeout,
        severity=_always(DoctorSeverity.LOW),
        evidence=lambda _one, _mask: "gives sessions a timeout of its own",
        effect="a session that is silent for longer is forgotten: what its far end sends next is judged as"
        " new, and dropped if only this end may open it",
        remedy="leave the timeouts to net.netfilter, or make that one longer than sessions are silent",
    ),
    RuleCheck(
        code=DoctorCode.PACKET_WRITER,
        is_meant=lambda one, _: bool(one.effect.rewrites) and one.base.table.family != "arp",
        severity=_packet_writer_severity,
        evidence=lambda one, _mask: (
            f"writes {' and '.join(sorted(end.value for end in one.effect.rewrites))} (address or port) of"
            f" packets at {one.base.hook.name}, priority {one.base.hook.priority}"
        ),
        effect="what is judged is not what was sent, or not what arrives: behind the groups' hook denied"
        " ports and addresses are reached, before it packets pass as another sender's, or allowed ones are"
        " lost",
        remedy="translate by dnat, snat or redirect in a chain of type nat, which conntrack and the groups"
        " follow, or remove the rule",
    ),
    RuleCheck(
        code=DoctorCode.DIVERTER,
        is_meant=lambda one, _: _diverts(one),
        severity=lambda one, _: DoctorSeverity.MEDIUM if one.effect.tproxy else DoctorSeverity.LOW,
        evidence=lambda one, _mask: (
            "gives packets to another socket by TPROXY"
            if one.effect.tproxy
            else f"copies packets to another host at {one.base.hook.name}"
        ),
        effect="TPROXY: the server whose port the policy accepts gets nothing of them, another process does;"
        " copies: the other host also gets what the groups deny behind that hook",
        remedy="narrow the rule to an unbound link, or to what that process or host shall get; or remove it",
    ),
    RuleCheck(
        code=DoctorCode.INVALID_BY_DESIGN,
        is_meant=lambda one, evidence: one.effect.synproxy and not _evaluates_invalid(one, evidence),
        severity=_always(DoctorSeverity.MEDIUM),
        evidence=lambda _one, _mask: "answers for servers by SYNPROXY",
        effect="its handshakes are invalid or untracked to conntrack: its answers are dropped, and allowed"
        " TCP sessions do not open",
        remedy=EVALUATE,
    ),
    RuleCheck(
        code=DoctorCode.EARLY_PROGRAM,
        is_meant=lambda one, _: one.effect.sends_elsewhere and one.base.is_at_link,
        severity=_always(DoctorSeverity.MEDIUM),
        evidence=lambda _one, _mask: "forwards or duplicates packets to another link",
        effect="what it forwards passes no hook of IP here, so no group judges it",
        remedy="judge at the hook of the link what it forwards, or remove the rule",
    ),
)


def find_flow_tables(evidence: HostEvidence, rules: Sequence[ReachedRule]) -> Iterator[DoctorFinding]:
    """Yield a finding for each flow table that has a bound link, and a rule that adds sessions to it."""
    adding = {
        (one.base.table, one.effect.flow_table): one for one in rules if one.effect.flow_table is not None
    }
    flow_tables = ((table, one) for table in evidence.other_tables for one in table.flow_tables)
    for table, flow_table in flow_tables:
        links = sorted(name for name in evidence.bound_names if is_among(name, flow_table.devices))
        rule = adding.get((table, flow_table.name))
        if not links or rule is None:
            continue
        yield DoctorFinding(
            code=DoctorCode.FLOW_TABLE,
            severity=DoctorSeverity.MEDIUM,
            link=links[0] if len(links) == 1 else None,
            table=str(table),
            chain=rule.chain,
            evidence=f"rule with handle {rule.rule.handle} adds sessions to the flow table {flow_table.name}"
            f" with {', '.join(links)}",
            effect="packets of an offloaded session pass no hook: a running agent ends it within a second of"
            " the change that revokes it, but a guest may go on with UDP from its side",
            remedy=f"take {', '.join(links)} out of the flow table, or offload only sessions that no policy"
            " may revoke",
        )


def find_tracked_frames(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield a finding for each table of family bridge that has conntrack follow frames between ports.

    The kernel does so for a rule of a dormant table, too. With br_netfilter on for both families, frames pass
    the hooks of IP, where it is noted who opens what.
    """
    bridges = sorted(link.name for link in evidence.host.links if link.kind == "bridge")
    is_noted = set(evidence.host.bridge_hooks.families) == set(Family)
    if not bridges or is_noted or not evidence.bound_names:
        return
    for table in evidence.tables:
        first = next(tracking_rules(table), None) if table.family == "bridge" else None
        if first is not None:
            chain, rule = first
            yield DoctorFinding(
                code=DoctorCode.CONNTRACK_BRIDGE,
                severity=DoctorSeverity.HIGH,
                table=str(table),
                chain=chain,
                evidence=f"rule with handle {rule.handle} has conntrack follow frames between ports of"
                f" {', '.join(bridges)}",
                effect="what a frame opens there passes no hook of IP, so that the groups take its sender for"
                " who opened it (§6.4): a guest that sends as this host lets in whom it sends to",
                remedy="in that table drop frames of guests with addresses that are not theirs, of both"
                " families, or do without 'ct'",
            )
