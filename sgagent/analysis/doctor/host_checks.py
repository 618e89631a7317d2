"""Checks of the host as a whole: IPVS, units that flush, programs, clock, kernel, and the metrics' port."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.findings import DoctorCode, DoctorFinding, DoctorSeverity
from sgagent.analysis.doctor.rule_checks import EVALUATE

WITH_USER_DATA = (1, 1, 2)
"""The first version of libnftables that writes user data into named sets, and of nft that can read it."""

_FIRST_WITH_FAULT = (0, 9, 8)
_DAY_SECONDS = 86_400.0


def find_virtual_servers(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield services of IPVS whose packets conntrack calls invalid."""
    evaluating = {link.name for link in evidence.policy.bound if link.evaluates_invalid}
    left = sorted(evidence.bound_names - evaluating)
    settings = evidence.settings
    for server in evidence.virtual_servers if left else ():
        by_nat = server.translates and settings.virtual_servers_tracked is False
        by_route = server.routes and settings.picks_up is False
        if by_nat or by_route:
            why = "net.ipv4.vs.conntrack is 0" if by_nat else "net.netfilter.nf_conntrack_tcp_loose is 0"
            yield DoctorFinding(
                code=DoctorCode.INVALID_BY_DESIGN,
                severity=DoctorSeverity.MEDIUM,
                link=left[0] if len(left) == 1 else None,
                evidence=f"IPVS serves {server.text} by {'NAT' if by_nat else 'routing'}, and {why}",
                effect="conntrack calls packets of its sessions invalid, so they are dropped: clients of an"
                " allowed service time out",
                remedy=f"{'set net.ipv4.vs.conntrack to 1, or ' if by_nat else ''}{EVALUATE}",
            )


def find_flushers(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield enabled units that flush rules."""
    for one in evidence.units:
        yield DoctorFinding(
            code=DoctorCode.FLUSHER,
            severity=DoctorSeverity.MEDIUM if one.flushes_all else DoctorSeverity.LOW,
            evidence=f"{one.unit} is enabled, and {one.file} "
            + (
                "flushes the whole ruleset"
                if one.flushes_all
                else "replaces the tables of iptables or its own"
            ),
            effect="its start, reload or stop removes our table where the running agent does not own it, and"
            " after the agent was stopped: the host is open until the agent runs again"
            if one.flushes_all
            else "it filters beside the groups, and a reload of it drops and admits as its own rules say;"
            " sessions that only one of both allows die",
            remedy=f"in {one.file}, replace 'flush ruleset' by 'destroy table …' of its own, or disable it"
            if one.flushes_all
            else f"let one of both filter: 'systemctl disable --now {one.unit}', or accept everything there",
        )


def find_old_nft(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield programs that end when they list a table that the libnftables here wrote."""
    if evidence.library is None or evidence.library < WITH_USER_DATA:
        return
    for one in evidence.nft_programs:
        if not _FIRST_WITH_FAULT <= one.version < WITH_USER_DATA:
            continue
        where = f" of {one.process}" if one.process else ""
        yield DoctorFinding(
            code=DoctorCode.OLD_NFT,
            severity=DoctorSeverity.MEDIUM,
            evidence=f"{one.path}{where} is nft {_text(one.version)}; libnftables here is"
            f" {_text(evidence.library)}",
            effect="nft before 1.1.2 can end with SIGSEGV when it lists named sets or maps that libnftables"
            " from 1.1.2 on declared: what sets rules by it (kube-proxy, Calico) stops to work",
            remedy="update nft there to 1.1.2 or later",
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def find_clock(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield whether the clock is wrong, or may be where rules end by it."""
    clock = evidence.clock
    if clock is None:
        return
    is_before = clock.now < clock.built - _DAY_SECONDS
    if is_before or (clock.is_synchronised is False and evidence.policy.depends_on_time):
        yield DoctorFinding(
            code=DoctorCode.CLOCK,
            severity=DoctorSeverity.MEDIUM if is_before else DoctorSeverity.LOW,
            evidence="the host's clock is before the day on which this package was made"
            if is_before
            else "the kernel's clock is not synchronised, and rules of this host end at a time",
            effect="rules end too late or too early; signatures count as not yet valid, or never as expired",
            remedy="let systemd-timesyncd or chrony set the clock",
        )


def find_kernel_features(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield the missing features of the kernel on which promises stand."""
    kernel, own = evidence.kernel, evidence.own_table
    if kernel is None:
        return
    can_own = kernel.owns_tables if own is None else (own.is_owned or own.is_persistent) or kernel.owns_tables
    if can_own is False:
        yield DoctorFinding(
            code=DoctorCode.KERNEL_FEATURE,
            severity=DoctorSeverity.MEDIUM,
            evidence=f"kernel {kernel.release} or its nft can't declare 'flags owner, persist'",
            effect="every process with CAP_NET_ADMIN can change or flush our table; until the agent repairs"
            " it, within about a second, denied packets pass",
            remedy="use Linux 6.9 or later with nftables 1.1 or later",
        )


def find_metrics_port(evidence: HostEvidence) -> Iterator[DoctorFinding]:
    """Yield who else waits at the port of the metrics."""
    holder = evidence.port_holder
    if holder is not None:
        yield DoctorFinding(
            code=DoctorCode.METRICS_PORT,
            severity=DoctorSeverity.MEDIUM,
            evidence=f"a process of user {holder.user} waits at {holder.address}, which is metrics.listen",
            effect="the agent serves no metrics, and a scrape reads what that process says",
            remedy="end that process; give metrics.listen a port below net.ipv4.ip_unprivileged_port_start",
        )
