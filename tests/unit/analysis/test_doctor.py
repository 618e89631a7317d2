"""The checks of the doctor that need facts which tests with real links do not have."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sgagent.analysis.doctor.facts import (
    ClockFact,
    DefaultRoute,
    ForeignLink,
    HostEvidence,
    KernelFact,
    KernelSettings,
    NftProgram,
    PortHolder,
    Routing,
    TransformPolicy,
    UnitFact,
    VirtualServer,
)
from sgagent.analysis.doctor.findings import (
    Blindness,
    Diagnosis,
    DiagnosisSummary,
    DoctorCode,
    DoctorFinding,
    DoctorSeverity,
    NotSeen,
)
from sgagent.analysis.doctor.policy_fact import BoundLink, PolicyFact
from sgagent.analysis.doctor.registry import diagnose
from sgagent.core.binding import BridgeHooks, HostFacts, IpvlanMode, Link
from sgagent.core.model import CidrBlock, Family
from sgagent.nft.kernel_table import KernelTable, read_tables
from tests import bytecode as b

ROOT = Path(__file__).parents[3]
DAY = 86_400.0
ETH0 = Link(
    name="eth0", index=2, addresses=(CidrBlock.around(Family.IPV4, 0x0A00000B, 32),), has_hardware=True
)
POLICY = PolicyFact(bound=(BoundLink(name="eth0"),))
HOST = HostEvidence(policy=POLICY, host=HostFacts(links=(ETH0,)))
EVALUATING = replace(POLICY, bound=(BoundLink(name="eth0", evaluates_invalid=True),))


def other_table() -> b.Dump:
    """Return the beginning of a table of somebody else."""
    return b.Dump("other").declare()


def beside(dump: b.Dump) -> HostEvidence:
    """Return a host with a table."""
    return replace(HOST, tables=tuple(read_tables(dump.content)))


OWN = partial(KernelTable, family="inet", name="sgagent")


def found(evidence: HostEvidence) -> list[tuple[str, str | None]]:
    """Return code and link of each finding."""
    return [(one.code.value, one.link) for one in diagnose(evidence)]


def test_of_nothing_nothing_is_said() -> None:
    """A host with one link and no neighbour."""
    assert found(HOST) == []


def test_the_page_has_each_code() -> None:
    """docs/doctor.md has a row for every code, and no others."""
    text = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    tables = text.partition("\n## Links\n")[2]  # behind what --platform prints
    rows = re.findall(r"^\| `([a-z_]+)` \| (?!denied|allowed|to know)", tables, re.MULTILINE)
    assert sorted(rows) == sorted(code.value for code in DoctorCode)


@pytest.mark.parametrize(
    ("server", "settings", "is_found"),
    (
        ("nat", KernelSettings(virtual_servers_tracked=False), True),
        ("nat", KernelSettings(virtual_servers_tracked=True), False),
        ("nat", KernelSettings(), False),
        ("route", KernelSettings(virtual_servers_tracked=False, picks_up=True), False),
        ("route", KernelSettings(picks_up=False), True),
    ),
)
def test_half_seen_virtual_servers_are_told(server: str, settings: KernelSettings, *, is_found: bool) -> None:
    """By NAT without vs.conntrack; by routing where sessions are not picked up in the middle."""
    one = VirtualServer(text="TCP 10.0.0.11:80", translates=server == "nat", routes=server == "route")
    evidence = replace(HOST, virtual_servers=(one,), settings=settings)
    assert found(evidence) == [("invalid_by_design", "eth0")] * is_found
    assert found(replace(evidence, policy=EVALUATING)) == []


def test_an_ipvlan_of_mode_l3_on_a_bound_link_is_named_for_both_reasons() -> None:
    """It is open, and conntrack sees half of its sessions; evaluating helps against the second."""
    above = Link(name="ipvl0", index=5, kind="ipvlan", lower="eth0", ipvlan_mode=IpvlanMode.L3)
    evidence = replace(HOST, host=HostFacts(links=(ETH0, above)))
    assert found(evidence) == [("link_above", "ipvl0"), ("invalid_by_design", "eth0")]
    assert found(replace(evidence, policy=EVALUATING)) == [("link_above", "ipvl0")]


@pytest.mark.parametrize(
    ("near", "expected"), (("10.0.0.11", True), ("10.0.0.0/8", True), ("10.0.0.12", False), ("::/0", False))
)
def test_what_ipsec_does_to_a_bound_link_is_named(near: str, *, expected: bool) -> None:
    """Once for all that it puts into others, and once for all that it blocks."""
    transforms = [
        TransformPolicy(text=f"out {n}", near=CidrBlock.parse(near), blocks=blocks)
        for blocks in (True, False)
        for n in range(3)
    ]
    findings = diagnose(replace(HOST, transforms=tuple(transforms)))
    assert [(one.code.value, one.severity.value) for one in findings] == (
        [("ipsec", "medium"), ("ipsec", "low")] if expected else []
    )
    assert all(one.evidence.endswith("out 0 and 2 more") for one in findings)
    unbound = replace(HOST, policy=PolicyFact(bound=(BoundLink(name="eth1"),)), transforms=tuple(transforms))
    assert found(unbound) == []


def test_a_link_of_a_container_above_a_port_of_a_bound_bridge_is_named() -> None:
    """As one above the bridge itself; one above another link is not."""
    port = Link(name="eth0", index=2, master="br0", master_kind="bridge")
    links = (replace(ETH0, name="br0", index=3, kind="bridge"), port)
    policy = replace(POLICY, bound=(BoundLink(name="br0"),))
    evidence = HostEvidence(policy=policy, host=HostFacts(links=links))
    for lower, is_found in (("br0", True), ("eth0", True), ("eth1", False)):
        foreign = ForeignLink(name="eth0.5", kind="vlan", lower=lower, owner="process 7 (web)")
        assert found(replace(evidence, foreign_links=(foreign,))) == [("link_above", "br0")] * is_found


def test_links_above_are_no_finding_where_unbound_links_are_closed() -> None:
    """Then nothing is open."""
    above = Link(name="eth0.5", index=5, kind="vlan", lower="eth0")
    evidence = replace(HOST, host=HostFacts(links=(ETH0, above)))
    assert found(evidence) == [("link_above", "eth0.5")]
    assert found(replace(evidence, policy=replace(POLICY, is_open_to_unbound=False))) == []


def test_a_bound_macvlan_above_a_bridge_with_br_netfilter_is_named() -> None:
    """Its packets show as the bridge's."""
    links = (
        replace(ETH0, name="br0", kind="bridge", has_hardware=False),
        Link(name="mv0", index=5, kind="macvlan", lower="br0"),
    )
    policy = replace(POLICY, bound=(BoundLink(name="mv0"),))
    hooks = BridgeHooks(families=(Family.IPV4,))
    evidence = HostEvidence(policy=policy, host=HostFacts(links=links, bridge_hooks=hooks))
    assert found(evidence) == [("other_name", "mv0")]
    assert found(replace(evidence, host=HostFacts(links=links))) == []


def test_a_bound_bridge_that_judges_frames_between_its_ports_is_named() -> None:
    """What guests say to each other is lost: allowed packets, not denied ones that pass."""
    ports = (Link(name=f"p{n}", index=n, master="br0", master_kind="bridge") for n in (3, 4))
    links = (replace(ETH0, name="br0", kind="bridge", has_hardware=False), *ports)
    policy = replace(POLICY, bound=(BoundLink(name="br0"),))
    host = HostFacts(links=links, bridge_hooks=BridgeHooks(families=(Family.IPV4,)))
    (named,) = diagnose(HostEvidence(policy=policy, host=host))
    assert (named.code.value, named.severity, named.link) == ("other_name", DoctorSeverity.MEDIUM, "br0")


def flow_table(*devices: str, is_used: bool = True) -> HostEvidence:
    """Return a host with a flow table, and maybe a rule that adds sessions to it."""
    dump = other_table().base("forward", hook=2).flow_table("ft", *devices)
    if is_used:
        dump.rule("forward", b.expression("flow_offload", b.name(1, "ft")))
    return replace(beside(dump), settings=KernelSettings(forwarding=(Family.IPV4,)))


def test_a_flow_table_of_a_bound_link_is_named() -> None:
    """If a rule adds sessions to it; a prefix of names counts too."""
    assert found(flow_table("eth0", "eth1")) == [("flow_table", "eth0")]
    assert found(flow_table("eth*")) == [("flow_table", "eth0")]
    assert found(flow_table("eth1", "eth2")) == []
    assert found(flow_table("eth0", is_used=False)) == []


def test_a_host_that_does_not_forward_offloads_nothing() -> None:
    """So its flow table is no finding."""
    assert found(replace(flow_table("eth0"), settings=KernelSettings())) == []


@pytest.mark.parametrize(
    ("name", "argument", "code"),
    (
        ("SYNPROXY", b"", "invalid_by_design"),
        ("NOTRACK", b"", "notrack"),
        ("REJECT", b"", "other_table_drops"),
    ),
)
def test_targets_of_iptables_are_known(name: str, argument: bytes, code: str) -> None:
    """By their names, as nftables calls them."""
    target = b.expression("target", b.name(1, name), b.number(2, 0), b.attribute(3, argument))
    evidence = beside(other_table().base("input", hook=1).rule("input", target))
    assert found(evidence) == [(code, "eth0")]


def test_many_rules_of_a_chain_are_counted() -> None:
    """Five are named, and the last of them says how many more there are."""
    dump = other_table().base("input", hook=1)
    for handle in range(9):
        dump.rule("input", b.expression("notrack"), beside=b.attribute(3, handle.to_bytes(8, "big")))
    findings = diagnose(beside(dump))
    assert len(findings) == 5
    assert [one.evidence for one in findings if "4 more" in one.evidence]


def test_default_routes_that_rules_choose_between_are_no_finding() -> None:
    """Several uplinks with 'ip rule' know their way back."""
    routes = tuple(
        DefaultRoute(family=Family.IPV6, links=(name,), metric=metric)
        for metric, name in enumerate(("eth0", "eth1"))
    )
    evidence = replace(HOST, routing=Routing(defaults=routes))
    assert found(evidence) == [("invalid_by_design", "eth0")]
    chosen = Routing(defaults=routes, is_by_policy=frozenset({Family.IPV6}))
    assert found(replace(evidence, routing=chosen)) == []
    assert found(replace(evidence, policy=replace(POLICY, bound=(BoundLink(name="eth9"),)))) == []


def test_units_that_flush_weigh_more_than_those_that_filter() -> None:
    """The first remove our table."""
    units = (
        UnitFact(unit="nftables.service", file="/etc/nftables.conf", flushes_all=True),
        UnitFact(unit="firewalld.service", file="its configuration", flushes_all=False),
    )
    findings = diagnose(replace(HOST, units=units))
    assert [one.severity for one in findings] == [DoctorSeverity.MEDIUM, DoctorSeverity.LOW]
    assert {one.code for one in findings} == {DoctorCode.FLUSHER}


@pytest.mark.parametrize(
    ("version", "library", "is_found"),
    (
        ((1, 0, 6), (1, 1, 3), True),
        ((1, 1, 1), (1, 1, 2), True),
        ((0, 9, 8), (1, 1, 3), True),
        ((0, 9, 7), (1, 1, 3), False),
        ((1, 1, 3), (1, 1, 3), False),
        ((1, 0, 6), (1, 1, 1), False),
        ((1, 0, 6), None, False),
    ),
)
def test_old_programs_are_named_beside_a_library_that_writes_more(
    version: tuple[int, ...], library: tuple[int, ...] | None, *, is_found: bool
) -> None:
    """Nft 0.9.8 to 1.1.1, beside libnftables from 1.1.2 on."""
    program = NftProgram(path="/usr/sbin/nft", version=version, process="process 7 (kube-proxy)")
    assert found(replace(HOST, nft_programs=(program,), library=library)) == [("old_nft", None)] * is_found


@pytest.mark.parametrize(
    ("clock", "depends", "is_found"),
    (
        (ClockFact(now=100 * DAY, built=50 * DAY, is_synchronised=False), False, False),
        (ClockFact(now=100 * DAY, built=50 * DAY, is_synchronised=False), True, True),
        (ClockFact(now=100 * DAY, built=50 * DAY, is_synchronised=None), True, False),
        (ClockFact(now=100 * DAY, built=50 * DAY, is_synchronised=True), True, False),
        (ClockFact(now=10 * DAY, built=50 * DAY, is_synchronised=True), False, True),
    ),
)
def test_clocks_matter_if_rules_end_or_they_are_wrong(
    clock: ClockFact, *, depends: bool, is_found: bool
) -> None:
    """Most virtual machines have no synchronised clock, and no rule that ends."""
    evidence = replace(HOST, clock=clock, policy=replace(POLICY, depends_on_time=depends))
    assert found(evidence) == [("clock", None)] * is_found


@pytest.mark.parametrize(
    ("own", "owns", "is_found"),
    (
        (None, False, True),
        (None, None, False),
        (None, True, False),
        (OWN(is_owned=False, is_persistent=False), False, True),
        (OWN(is_owned=True, is_persistent=True), None, False),
        (OWN(is_owned=False, is_persistent=True), None, False),
    ),
)
def test_no_ownership_is_named(own: KernelTable | None, *, owns: bool | None, is_found: bool) -> None:
    """As the table that stands shows, else as kernel and nft say."""
    evidence = replace(
        HOST, kernel=KernelFact(release="6.1.0", owns_tables=owns), tables=() if own is None else (own,)
    )
    assert found(evidence) == [("kernel_feature", None)] * is_found


def test_who_took_the_port_of_the_metrics_is_named() -> None:
    """By user."""
    (one,) = diagnose(replace(HOST, port_holder=PortHolder(address="127.0.0.1:9469", user=1000)))
    assert one.code is DoctorCode.METRICS_PORT
    assert "user 1000" in one.evidence


def test_two_looks_are_joined() -> None:
    """What either found is found, and only what neither saw is not seen."""
    one = DoctorFinding(
        code=DoctorCode.CLOCK, severity=DoctorSeverity.LOW, evidence="e", effect="f", remedy="r"
    )
    other = replace(one, severity=DoctorSeverity.HIGH, code=DoctorCode.MARK_WRITER)
    ruleset, tcx = (NotSeen(what=what, reason=what.value) for what in (Blindness.RULESET, Blindness.TCX))
    mine = Diagnosis(findings=(one,), not_seen=(ruleset, tcx))
    joined = mine.joined(Diagnosis(findings=(other, one), not_seen=(tcx,)))
    assert joined == Diagnosis(findings=(other, one), not_seen=(tcx,))
    summary = DiagnosisSummary(high=1, medium=0, low=1, codes=("mark_writer", "clock"))
    assert DiagnosisSummary.of(joined) == summary
