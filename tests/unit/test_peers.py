"""What the bench writes for each peer, and what it makes of what was measured."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from bench.peers.__main__ import PAGE, PART, RESULTS
from bench.peers.contender import rules_of
from bench.peers.contenders import CONTENDERS, DAEMON
from bench.peers.figures import Counted, Figures, Operation, PeerResults, read_figures
from bench.peers.firewalld import firewalld_files, rich_rule
from bench.peers.foomuuri import foomuuri_file
from bench.peers.iptables import ipset_text, iptables_rule, iptables_text
from bench.peers.picture import draw
from bench.peers.report import peer_lines
from bench.peers.watch import Stream, Wrong, choose_probes
from bench.policies import BenchPolicy, invent
from bench.results import Machine, PacketCost, Spread, write_results
from bench.sizes import SIZES
from bench.traffic import Aim
from integration.parts import with_parts
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedRule

POLICY = invent(SIZES[1])
RULES = rules_of(POLICY.resolved)
MACHINE = Machine(processors=2, kernel="6.12", nftables="nftables v1.1.3", python="3.13.5", load=0.1)


def a_rule(policy: BenchPolicy, *, of_group: bool, verdict: Policy = Policy.ACCEPT) -> ResolvedRule:
    """Return the first rule of a kind."""
    return next(
        rule
        for rule in rules_of(policy.resolved)
        if rule.peer.name.startswith("sg-") is of_group
        and rule.policy is verdict
        and rule.peer.name != "0.0.0.0/0"
    )


def test_firewalld_gets_every_rule_and_every_member() -> None:
    """The zone has as many rules as the policy, the ipsets as many entries as there are members."""
    files = firewalld_files(POLICY)
    zone = ET.fromstring(files["/etc/firewalld/zones/bench.xml"])  # noqa: S314 - written just now
    assert zone.get("target") == "DROP"
    assert len(zone.findall("rule")) == SIZES[1].rules
    assert {rule.get("family") for rule in zone.findall("rule")} == {"ipv4"}
    ipsets = [text for name, text in files.items() if "/ipsets/" in name]
    assert sum(text.count("<entry>") for text in ipsets) == SIZES[1].members


def test_firewalld_asks_drops_of_a_priority_before_its_accepts() -> None:
    """Priorities in the zone grow as the policy's do, and are the same only for like verdicts."""
    zone = ET.fromstring(firewalld_files(POLICY)["/etc/firewalld/zones/bench.xml"])  # noqa: S314 - as above
    found = [(int(rule.get("priority", "0")), rule.find("drop") is not None) for rule in zone.findall("rule")]
    assert [number for number, _ in found] == sorted(number for number, _ in found)
    assert len({number for number, _ in found}) == len(set(found))


def test_a_rich_rule_says_what_the_file_says() -> None:
    """A rule of a group names the ipset, one of a network the address."""
    of_group, of_network = a_rule(POLICY, of_group=True), a_rule(POLICY, of_group=False)
    assert f'source ipset="{of_group.peer.name}" port port="' in rich_rule(of_group)
    assert f'source address="{of_network.peer.name}" ' in rich_rule(of_network)
    assert rich_rule(of_group).endswith(" accept")


def test_foomuuri_gets_the_rules_in_order() -> None:
    """Lists stand before the rules, rules in the policy's order, and a drop behind them."""
    text = foomuuri_file(POLICY, [])
    _, _, inwards = text.partition("public-localhost {\n")
    lines = inwards.splitlines()
    assert lines[SIZES[1].rules] == "  drop"
    assert [line.split()[-1] for line in lines[: SIZES[1].rules]] == [rule.policy.value for rule in RULES]
    assert text.count("  @sg-") == len(POLICY.groups)


def test_foomuuri_asks_what_came_later_first() -> None:
    """A rule that was added stands before the policy's own."""
    added = a_rule(POLICY, of_group=True, verdict=Policy.DROP)
    _, _, inwards = foomuuri_file(POLICY, [added]).partition("public-localhost {\n")
    assert f"saddr @{added.peer.name} drop" in inwards.splitlines()[0]


def test_iptables_asks_the_port_before_the_set() -> None:
    """A set is looked up only where the port fits; a network is compared, not looked up."""
    of_group = iptables_rule(a_rule(POLICY, of_group=True))
    assert of_group.index("--dport") < of_group.index("--match-set")
    assert "-s 172." in iptables_rule(a_rule(POLICY, of_group=False))


def test_iptables_gets_every_rule_and_every_member() -> None:
    """The table has a line for each rule, the sets have one for each member."""
    assert iptables_text(POLICY).count(" --dport ") == SIZES[1].rules
    assert ipset_text(POLICY).count("\nadd ") == SIZES[1].members


def test_probes_are_told_apart_by_what_the_policy_says() -> None:
    """There are packets of every kind, and all that were aimed at no rule are denied."""
    probes = choose_probes(POLICY)
    assert probes.allowed
    assert probes.sessions
    assert len(probes.denied) >= 60
    assert len(probes.allowed) + len(probes.denied) == 300


def measured() -> PeerResults:
    """Return results of two sizes: a contender that is not quick, and one that is cut off."""
    fine = Figures(
        size=SIZES[1],
        contender=DAEMON,
        seconds={operation.value: Spread(0.0125, 0.01, 0.02) for operation in Operation},
        peak_mebibytes=80.0,
        steady_mebibytes=70.0,
        wrong=Wrong(probes=300, kept_out=0, let_in=0),
        stream=Stream(changes=3, sent=1_000, kept_out=0, let_in=0, cut=0),
        counted=Counted(before=300, after=300),
    )
    slow = Figures(
        size=SIZES[1],
        contender="firewalld",
        failures={Operation.START.value: "> 120 s", Operation.RULE.value: "no such rule"},
    )
    costs = tuple(
        PacketCost(
            size=SIZES[1],
            session="new",
            aim=aim.value,
            contender=name,
            whole=Spread.of([cost + 700]),
            above=Spread.of([cost]),
        )
        for aim in (Aim.SPREAD, Aim.NONE)
        for name, cost in ((DAEMON, 500.0), ("firewalld", 20_000.0))
    )
    figures = (fine, slow, replace(fine, size=SIZES[2]))
    versions = {"firewalld": "2.3.1"}
    return PeerResults(machine=MACHINE, versions=versions, is_quick=False, figures=figures, packets=costs)


def test_figures_survive_being_written(tmp_path: Path) -> None:
    """What is read back equals what was written."""
    write_results(measured(), tmp_path / "peers.json")
    assert read_figures(tmp_path / "peers.json") == measured()


def test_tables_say_what_was_cut_off_and_what_failed() -> None:
    """A cut-off operation shows the limit, one that failed says that it can't be, with the reason below."""
    page = "\n".join(peer_lines(measured()))
    assert "| firewalld | > 120 s |  | can't |" in page
    assert "no such rule" in page
    assert "| sgagent run | 12.5 | 12.5 | 12.5 | 12.5 | 80 | 70 | 0/300 |" in page
    assert "20,000 (40×)" in page
    assert "| 3 | 1,000 | 0 | 0 | 0 | 300/300 |" in page


def test_the_page_has_a_place_for_the_tables() -> None:
    """What the last run kept is what the page shows."""
    page = PAGE.read_text(encoding="utf-8")
    assert with_parts(page, {PART: "\nnew\n"}) != page
    assert "\n".join(peer_lines(read_figures(RESULTS))) in page


def test_the_picture_has_a_point_for_every_figure() -> None:
    """It is well-formed; a packet, two times and the memory are drawn of whoever has them."""
    root = ET.fromstring(draw(measured()))  # noqa: S314 - drawn just now
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 + 2 + 2 + 2
    names = {text.text for text in root.findall("{http://www.w3.org/2000/svg}text")}
    assert {DAEMON, "firewalld"} <= names & set(CONTENDERS)
