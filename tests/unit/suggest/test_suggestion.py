"""The policy that is suggested for simulated traffic, against policies by hand for the same traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sgagent.core.model import CidrBlock, Direction, Policy, PortSet, Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.suggest.conversations import Traffic
from sgagent.suggest.far_ends import Measures, Widening
from sgagent.suggest.flow_lines import FlowLineReader
from sgagent.suggest.observations import Doubt
from sgagent.suggest.outcome import Suggestion, suggest
from tests.flow_records import Sessions, as_log, incoming, outgoing

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
CUSTOMERS = tuple(f"{net}.{last}" for net in ("198.51.100", "203.0.113", "192.0.2") for last in range(1, 9))
CUSTOMERS6 = tuple(f"2001:db8:{net}::{last}" for net in ("a1", "a2", "a3") for last in range(1, 9))
HOST, HOST6 = "10.0.0.11", "2001:db8::11"
SCANNER, STRANGER = "203.0.113.66", "198.51.100.99"


def read(path: Path) -> Snapshot:
    """Return the definitions of an example."""
    files = [DocumentFile(str(file), file.read_bytes()) for file in sorted(path.iterdir())]
    return parse_documents(files, Limits())[0]


def without_rules(snapshot: Snapshot) -> Snapshot:
    """Return the objects of definitions, and no rule."""
    groups = tuple(replace(group, rules=()) for group in snapshot.security_groups)
    return replace(snapshot, security_groups=groups)


def suggested(
    sessions: Sequence[Sessions],
    definitions: Snapshot | None = None,
    measures: Measures | None = None,
    directions: Sequence[Direction] = tuple(Direction),
    kept: frozenset[str] = frozenset(),
) -> Suggestion:
    """Return what is suggested for a flow log."""
    traffic = Traffic()
    FlowLineReader(traffic, "web.log", "web").read(as_log(sessions).splitlines(keepends=True))
    assert traffic.problems == []
    known = definitions or Snapshot(version="")
    return suggest(traffic, known, measures or Measures(), Limits(), directions=directions, kept=kept)


def rules_by_hand(snapshot: Snapshot) -> int:
    """Return how many rules definitions have."""
    return sum(len(group.rules) for group in snapshot.security_groups)


@dataclass(frozen=True, slots=True)
class Case:
    """An example, and the traffic that its policy is for."""

    name: str
    sessions: tuple[Sessions, ...]
    networks: tuple[str, ...] = ()
    directions: tuple[Direction, ...] = (Direction.INGRESS,)
    """Where the policy by hand leaves what goes out open, nobody looks at it."""


CASES = (
    Case("1-web", tuple(incoming(HOST, far, port) for far in CUSTOMERS for port in (80, 443))),
    Case("2-remote-access", (incoming(HOST, "192.168.10.5", 22),)),
    Case(
        "2b-workbench",
        tuple(
            incoming(HOST, f"{net}.{last}", 22) for net in ("161.117.8", "100.104.9") for last in (1, 2, 3, 4)
        ),
        networks=("161.117.0.0/16", "100.104.0.0/16"),
    ),
    Case(
        "3-databases",
        (
            incoming(HOST, "172.16.5.10", 3306),
            incoming(HOST, "192.168.8.10", 1521),
            *(incoming(HOST, f"192.168.{last}.1", 1433) for last in range(1, 6)),
            incoming(HOST, "10.0.1.21", 5432),
            incoming(HOST6, "2001:db8:0:1::21", 5432),
            incoming(HOST, "10.0.2.31", 6379),
            incoming(HOST, "10.0.2.40", 6379),
            *(incoming(HOST, far, 8080) for far in CUSTOMERS),
        ),
        networks=("192.168.0.0/16",),
    ),
    Case(
        "4-protocols",
        (incoming(HOST, "192.0.2.44", None, "icmp"), incoming(HOST6, "2001:db8:44::2", None, "icmpv6")),
    ),
    Case(
        "5-internal",
        (
            incoming(HOST, "10.0.1.31", 21),
            incoming(HOST, "10.0.3.31", 21),
            incoming("10.0.0.12", "10.0.1.32", 21),
        ),
    ),
    Case(
        "6-egress-allow-list",
        (
            outgoing(HOST, "198.51.100.80", 80),
            outgoing(HOST, "203.0.113.43", 443),
            incoming(HOST, "192.168.10.5", 22),
        ),
        directions=tuple(Direction),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_guides_cases_take_no_more_rules_than_by_hand(case: Case) -> None:
    """At most 1.2 times the rules; the proof within says that the traffic passes, and nothing is asked."""
    by_hand = read(EXAMPLES / case.name / "groups.d")
    measures = Measures(networks=tuple(map(CidrBlock.parse, case.networks)))
    found = suggested(case.sessions, without_rules(by_hand), measures, case.directions)
    assert len(found.rules) <= 1.2 * rules_by_hand(by_hand)
    assert found.questions == ()


ADMIN, RESOLVER = "10.0.9.5", "10.0.0.53"
FLEET = tuple(f"10.0.5.{last}" for last in range(1, 7))
OTHERS = {
    "mail relay": (
        (
            *(incoming(HOST, far, port) for far in CUSTOMERS for port in (25, 465)),
            *(outgoing(HOST, far, 25) for far in CUSTOMERS),
            outgoing(HOST, RESOLVER, 53, "udp"),
            outgoing(HOST, RESOLVER, 53),
            incoming(HOST, ADMIN, 22),
        ),
        ("in tcp 25, 465 any", "in tcp 22 admin", "out tcp 25 any", "out tcp, udp 53 resolver", "out closed"),
    ),
    "resolver": (
        (
            *(incoming(HOST, far, 53, protocol) for far in FLEET for protocol in ("udp", "tcp")),
            *(outgoing(HOST, far, 53, protocol) for far in CUSTOMERS for protocol in ("udp", "tcp")),
        ),
        ("in tcp, udp 53 the fleet", "out tcp, udp 53 any", "out closed"),
    ),
    "file server": (
        (*(incoming(HOST, far, port) for far in FLEET for port in (111, 2049)), incoming(HOST, ADMIN, 22)),
        ("in tcp 111, 2049 the fleet", "in tcp 22 admin", "out closed"),
    ),
    "tunnel": (
        (
            *(incoming(HOST, far, 51820, "udp") for far in CUSTOMERS),
            *(incoming(HOST6, far, 51820, "udp") for far in CUSTOMERS6),
            *(incoming(HOST, far, None, "47") for far in FLEET),
            incoming(HOST, ADMIN, None, "icmp"),
            outgoing(HOST6, "2001:db8:53::1", 53, "udp"),
        ),
        ("in udp 51820 any", "in gre the fleet", "in icmp admin", "out udp 53 resolver", "out closed"),
    ),
    "monitoring": (
        (
            *(outgoing(HOST, far, port) for far in FLEET for port in (9100, 9256)),
            *(outgoing(HOST, far, None, "icmp") for far in FLEET),
            *(incoming(HOST, f"10.0.9.{last}", 3000) for last in range(5, 9)),
        ),
        ("out tcp 9100, 9256 the fleet", "out icmp the fleet", "in tcp 3000 the office", "out closed"),
    ),
}
"""Sessions, and the rules that a person would write for them."""


@pytest.mark.parametrize("name", OTHERS)
def test_other_hosts_take_no_more_rules_than_by_hand(name: str) -> None:
    """At most 1.2 times those by hand, without any definitions."""
    sessions, by_hand = OTHERS[name]
    found = suggested(sessions)
    assert len(found.rules) <= 1.2 * len(by_hand)
    assert found.questions == ()


def shop_traffic() -> tuple[Sessions, ...]:
    """Return what the hosts of the shop do, in both families."""
    web, app, database = (
        [("10.20.1.11", "2001:db8:20::1:11"), ("10.20.1.12", "2001:db8:20::1:12")],
        [("10.20.2.11", "2001:db8:20::2:11")],
        [("10.20.3.11", "2001:db8:20::3:11")],
    )
    bastion, mirror = ("10.20.0.5", "2001:db8:20::5"), ("10.20.0.80", "2001:db8:20::80")
    found: list[Sessions] = []

    def talk(
        client: tuple[str, str], server: tuple[str, str], port: int | None, protocol: str = "tcp"
    ) -> None:
        for family, one in enumerate(zip(client, server, strict=True)):
            name = "icmpv6" if family and protocol == "icmp" else protocol
            found.extend((outgoing(*one, port, name), incoming(one[1], one[0], port, name)))

    for port in (80, 443):
        for server in web:
            for family, customers in enumerate((CUSTOMERS, CUSTOMERS6)):
                found.extend(incoming(server[family], far, port) for far in customers)
    for client in web:
        talk(client, app[0], 8080)
    talk(app[0], database[0], 5432)
    for host in (*web, *app, *database, mirror):
        talk(bastion, host, 22)
        talk(bastion, host, None, "icmp")
    for host in (*web, *app, *database, bastion):
        talk(host, mirror, 443)
        talk(host, mirror, 53, "udp")
        talk(host, mirror, 123, "udp")
    found.extend(incoming(bastion[0], f"203.0.113.{last}", 22) for last in (10, 11, 12))
    found.extend(incoming(bastion[1], f"2001:db8:113::{one}", 22) for one in (1, 2, 3))
    for family, servers in enumerate((CUSTOMERS, CUSTOMERS6)):
        found.extend(outgoing(mirror[family], far, 443) for far in servers)
        found.extend(outgoing(mirror[family], far, port, "udp") for far in servers for port in (53, 123))
    return tuple(found)


def test_the_shop_takes_no_more_rules_than_by_hand() -> None:
    """The groups of the definitions get the rules of their hosts, by at most 1.2 times as many."""
    by_hand = read(EXAMPLES / "shop" / "groups.d")
    found = suggested(shop_traffic(), without_rules(by_hand))
    assert len(found.rules) <= 1.2 * rules_by_hand(by_hand)
    assert found.questions == ()


def test_the_shop_without_definitions_gets_groups_by_what_its_hosts_do() -> None:
    """The two web servers share a group, and so do four roles for what all of them need."""
    traffic = Traffic()
    for number, host in enumerate(("1.11", "1.12", "2.11", "3.11", "0.5", "0.80")):
        part = [one for one in shop_traffic() if one.near in (f"10.20.{host}", _ipv6(host))]
        FlowLineReader(traffic, "log", f"host-{number}").read(as_log(part).splitlines(keepends=True))
    found = suggest(traffic, Snapshot(version=""), Measures(), Limits())
    groups = {one.network_interface_id: one.security_group_ids for one in found.snapshot.network_interfaces}
    assert groups["eni-host-0-eth0"] == groups["eni-host-1-eth0"] == ("sg-host-0-eth0", "sg-shared")
    assert len(set(groups.values())) == 5
    assert len(found.rules) <= 1.2 * rules_by_hand(read(EXAMPLES / "shop" / "groups.d"))
    assert found.questions == ()


def _ipv6(host: str) -> str:
    """Return the other address of a host of the shop."""
    return f"2001:db8:20::{host.removeprefix('0.').replace('.', ':')}"


def test_planted_scans_and_single_sessions_are_asked_about() -> None:
    """Nothing of a scan of ports, a sweep of hosts, or a chance session is admitted."""
    scan = [incoming(HOST, SCANNER, port, times=2) for port in range(1000, 1040)]
    once = [incoming(HOST, STRANGER, 8443, times=1), outgoing(HOST, STRANGER, 25, times=1)]
    use = [incoming(HOST, far, 443) for far in CUSTOMERS]
    found = suggested([*use, *scan, *once])
    doubts = {(one.doubt, one.peers[0][1]) for one in found.questions}
    assert {doubt for doubt, _ in doubts} == {Doubt.SCAN, Doubt.ONCE}
    accepted = [one.rule.ports for one in found.rules if one.rule.policy is Policy.ACCEPT]
    assert accepted == [PortSet.of((443, 443))]


def test_members_that_come_once_each_are_no_chance() -> None:
    """From three of a group on, and from three addresses of a list; one of each is asked about."""
    known = without_rules(read(EXAMPLES / "shop" / "groups.d"))
    mirror, bastion = "10.20.0.80", "10.20.0.5"
    hosts = ("10.20.1.11", "10.20.1.12", "10.20.2.11")
    many = [incoming(mirror, far, 443, times=1) for far in hosts]
    office = [incoming(bastion, f"203.0.113.{last}", 22, times=1) for last in (1, 2, 3)]
    found = suggested([*many, *office], known, directions=(Direction.INGRESS,))
    assert found.questions == ()
    alone = suggested([many[0], office[0]], known, directions=(Direction.INGRESS,))
    assert [one.doubt for one in alone.questions] == [Doubt.ONCE, Doubt.ONCE]
    assert alone.rules == ()


def test_a_rule_that_stays_is_listed_also_where_it_admits_all() -> None:
    """With the sessions that it admits, as evidence."""
    web = Sessions(near=HOST, far=CUSTOMERS[0], port=80, interface_id="eni-web")
    first = suggested([web], directions=(Direction.INGRESS,))
    (rule,) = first.rules
    kept = frozenset({rule.rule.rule_id})
    again = suggested([web], first.snapshot, directions=(Direction.INGRESS,), kept=kept)
    assert [(one.rule.rule_id, one.evidence.sessions) for one in again.rules] == [(rule.rule.rule_id, 3)]


@pytest.mark.parametrize("widening", Widening)
def test_each_widening_can_be_switched_off(widening: Widening) -> None:
    """Then no rule is wider in that way, and the proof holds all the same."""
    by_hand = read(EXAMPLES / "shop" / "groups.d")
    measures = Measures(widenings=frozenset(Widening) - {widening})
    wide = suggested(shop_traffic(), without_rules(by_hand))
    narrow = suggested(shop_traffic(), without_rules(by_hand), measures)
    assert widening in {one.widening for rule in wide.rules for one in rule.widened}
    assert widening not in {one.widening for rule in narrow.rules for one in rule.widened}
