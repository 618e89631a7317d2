"""Who may talk to whom: what is an edge, what is none, and what stands out."""

from __future__ import annotations

import pytest

from sgagent.analysis.cells import code_of
from sgagent.analysis.graph.edges import make_graph
from sgagent.analysis.graph.elements import (
    ALL_TRAFFIC,
    NO_TRAFFIC,
    AllowedTraffic,
    Graph,
    NodeId,
    Outward,
    Side,
)
from sgagent.analysis.graph.svg import HighlightedWay, compared, highlighted
from sgagent.analysis.lint.subject import make_subject
from sgagent.core.addresses import NO_ADDRESSES, AddressSet, Ranges, joined
from sgagent.core.model import LAST_PORT, CidrBlock, Family, Snapshot
from sgagent.core.resolve import Exemptions
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.corpus import examples

(TIERS,) = (example.parse()[0] for example in examples() if example.name == "three-tier/web")


def snapshot_of(text: str) -> Snapshot:
    """Return what a document says."""
    return parse_documents([DocumentFile("groups.yaml", f"version: 1\n{text}".encode())], Limits())[0]


def graph_of(definitions: Snapshot | str) -> Graph:
    """Return the graph of definitions."""
    snapshot = snapshot_of(definitions) if isinstance(definitions, str) else definitions
    return make_graph(make_subject(snapshot, Exemptions()))


def edges(graph: Graph) -> dict[str, str]:
    """Return what each edge carries, in words."""
    return {
        f"{edge.source} -> {edge.target}": f"{edge.traffic}{' in part' if edge.is_partial else ''}"
        for edge in graph.edges
    }


def pair(ids: str) -> tuple[NodeId, NodeId]:
    """Return the ends of an edge that is written with an arrow."""
    source, target = ids.split(" -> ")
    side = Side.BOTH if source.startswith("sg-") else Side.SOURCE
    return NodeId(name=source, side=side), NodeId(name=target, side=Side.BOTH)


TWO = """\
security_groups:
  - {{security_group_id: sg-a, type: basic, inner_access_policy: drop, rules: [{a}]}}
  - {{security_group_id: sg-b, type: basic, inner_access_policy: drop, rules: [{b}]}}
network_interfaces:
  - {{network_interface_id: eni-a, addresses: [10.0.0.1], security_group_ids: [sg-a]}}
  - {{network_interface_id: eni-b, addresses: [10.0.0.2], security_group_ids: [sg-b]}}
"""
INTO_B = (
    "{direction: ingress, policy: accept, priority: 10, protocol: tcp, port_range: [80, 443],"
    " authorization_object: sg-a}"
)


def test_the_three_tiers() -> None:
    """The example has its tiers, in the order in which they may talk."""
    assert edges(graph_of(TIERS)) == {
        "10.9.0.0/24 -> sg-base": "icmp",
        "anywhere -> sg-web": "tcp 80, 443 in part",
        "pl-office -> sg-base": "tcp 22",
        "sg-app -> sg-app": "all",
        "sg-app -> sg-database": "tcp 5432",
        "sg-database -> sg-replica": "tcp 5432",
        "sg-replica -> sg-database": "tcp 5432 in part",
        "sg-web -> sg-app": "tcp 8080-8089, 9443",
    }


def test_a_drop_that_comes_first_takes_from_the_edge() -> None:
    """What is dropped before the accept is no part of it; all of it, no edge."""
    drop = (
        "{{direction: ingress, policy: drop, priority: 1, protocol: tcp, port_range: {ports},"
        " authorization_object: sg-a}}"
    )
    some, every = drop.format(ports=80), drop.format(ports="1/65535")
    assert edges(graph_of(TWO.format(a="", b=INTO_B))) == {"sg-a -> sg-b": "tcp 80, 443"}
    assert edges(graph_of(TWO.format(a="", b=f"{INTO_B}, {some}"))) == {"sg-a -> sg-b": "tcp 443"}
    assert edges(graph_of(TWO.format(a="", b=f"{INTO_B}, {every}"))) == {}


def test_what_the_source_may_not_send_is_no_edge() -> None:
    """The other end drops it on its way out."""
    sealed = "{direction: egress, policy: drop, priority: 1, protocol: all, authorization_object: 0.0.0.0/0}"
    graph = graph_of(TWO.format(a=sealed, b=INTO_B))
    assert edges(graph) == {}
    assert [node.outward for node in graph.nodes] == [Outward.PARTLY, Outward.OPEN]  # IPv6 leaves
    both = graph_of(TWO.format(a=sealed.replace("0.0.0.0/0", "any"), b=INTO_B))
    assert [node.outward for node in both.nodes] == [Outward.CLOSED, Outward.OPEN]


def test_what_some_members_may_not_is_in_part() -> None:
    """Another interface of the source's group has a group that drops, too."""
    text = TWO.format(a="", b=INTO_B).replace(
        "network_interfaces:",
        "  - {security_group_id: sg-sealed, type: basic, rules: [{direction: egress, policy: drop,"
        " priority: 1, protocol: tcp, port_range: 80, authorization_object: sg-b}]}\n"
        "network_interfaces:\n"
        "  - {network_interface_id: eni-c, addresses: [10.0.0.3], security_group_ids: [sg-a, sg-sealed]}",
    )
    assert edges(graph_of(text))["sg-a -> sg-b"] == "tcp 80, 443 in part"


def test_a_source_may_be_named_at_its_own_end_alone() -> None:
    """The target lets a network in; the source's rule says that it is meant for that group."""
    out = (
        "{direction: egress, policy: accept, priority: 1, protocol: tcp, port_range: 80,"
        " authorization_object: sg-b}"
    )
    graph = graph_of(TWO.format(a=out, b=INTO_B.replace("sg-a", "10.0.0.0/8")))
    assert edges(graph) == {"10.0.0.0/8 -> sg-b": "tcp 80, 443", "sg-a -> sg-b": "tcp 80"}


TAKE_80 = (
    "{direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 80,"
    " authorization_object: 10.0.0.1}"
)
SEND_80 = (
    "{direction: egress, policy: accept, priority: 1, protocol: tcp, port_range: 80,"
    " authorization_object: sg-b}"
)
SECOND_OF_A = "  - {network_interface_id: eni-c, addresses: [10.0.0.3], security_group_ids: [sg-a]}\n"


def test_what_the_target_takes_from_some_members_is_in_part() -> None:
    """The target takes one address only: that of the source's only member, or of one of two."""
    one = TWO.format(a=SEND_80, b=TAKE_80)
    assert edges(graph_of(one)) == {"10.0.0.1 -> sg-b": "tcp 80", "sg-a -> sg-b": "tcp 80"}
    two = edges(graph_of(one + SECOND_OF_A))
    assert two == {"10.0.0.1 -> sg-b": "tcp 80", "sg-a -> sg-b": "tcp 80 in part"}


def test_an_edge_needs_a_source_port_that_both_ends_let_pass() -> None:
    """The source sends from some ports only, and the target takes others, or one of them."""
    shut = "{direction: egress, policy: drop, priority: 100, protocol: all, authorization_object: any}"
    send = SEND_80.replace("port_range", "source_port_range: 1000/2000, port_range")
    for ports, expected in (("2001/3000", {}), ("2000/3000", {"sg-a -> sg-b": "tcp 80 in part"})):
        take = TAKE_80.replace("10.0.0.1", f"sg-a, source_port_range: {ports}")
        assert edges(graph_of(TWO.format(a=f"{send}, {shut}", b=take))) == expected


@pytest.mark.parametrize("source", ("source_port_range: 1000/2000", "local_address: 10.0.0.0/30"))
def test_what_the_source_drops_in_part_is_in_part(source: str) -> None:
    """By the source port, or by the address of the near end."""
    drop = (
        f"{{direction: egress, policy: drop, priority: 1, protocol: tcp, port_range: 1/65535, {source},"
        " authorization_object: 10.0.0.0/8}"
    )
    text = TWO.format(a=drop, b=INTO_B).replace("[10.0.0.1]", "[10.0.0.1, 10.0.0.9]")
    assert edges(graph_of(text))["sg-a -> sg-b"] == "tcp 80, 443 in part"


def test_what_another_rule_lets_pass_is_whole() -> None:
    """A rule that comes first decides about one member, and lets it in as well."""
    text = TWO.format(a="", b=f"{INTO_B}, {TAKE_80}") + SECOND_OF_A
    assert edges(graph_of(text))["sg-a -> sg-b"] == "tcp 80, 443"


def test_one_family_is_in_part_where_both_ends_have_both() -> None:
    """IPv6 members may not send what IPv4's may."""
    text = TWO.format(a=SEND_80, b=TAKE_80.replace("10.0.0.1", "0.0.0.0/0"))
    assert edges(graph_of(text))["sg-a -> sg-b"] == "tcp 80"
    one = text.replace("[10.0.0.1]", '[10.0.0.1, "2001:db8::1"]')
    assert edges(graph_of(one))["sg-a -> sg-b"] == "tcp 80"
    both = one.replace("[10.0.0.2]", '[10.0.0.2, "2001:db8::2"]')
    assert edges(graph_of(both))["sg-a -> sg-b"] == "tcp 80 in part"


def test_anywhere_is_in_part_where_the_families_differ() -> None:
    """One port is open to IPv4, another to IPv6."""
    rules = ", ".join(
        f"{{direction: ingress, policy: accept, protocol: tcp, port_range: {port},"
        f' authorization_object: "{everyone}"}}'
        for port, everyone in ((80, "0.0.0.0/0"), (443, "::/0"))
    )
    text = TWO.format(a="", b=rules)
    assert edges(graph_of(text)) == {"anywhere -> sg-b": "tcp 80, 443 in part"}
    both = text.replace("[10.0.0.2]", '[10.0.0.2, "2001:db8::2"]')
    assert edges(graph_of(both)) == {"anywhere -> sg-b": "tcp 80, 443 in part"}


ANY_443 = (
    "{direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 443,"
    " authorization_object: any}"
)


def test_an_interface_may_have_addresses_that_it_does_not_list() -> None:
    """It lists IPv4 only, and accepts from anywhere over both: as ``explain`` and the table do."""
    (edge,) = graph_of(TWO.format(a="", b=ANY_443)).edges
    assert edge.families == frozenset(Family)
    assert not edge.is_partial


def test_a_member_that_does_not_accept_over_an_unlisted_family_is_in_part() -> None:
    """One of two drops over IPv6, of which neither lists an address."""
    text = TWO.format(a="", b=ANY_443).replace(
        "network_interfaces:",
        "  - {security_group_id: sg-c, type: basic, inner_access_policy: drop, rules: [{direction: ingress,"
        ' policy: drop, priority: 1, protocol: all, authorization_object: "::/0"}]}\n'
        "network_interfaces:\n"
        "  - {network_interface_id: eni-c, addresses: [10.0.0.3], security_group_ids: [sg-b, sg-c]}",
    )
    assert edges(graph_of(text))["anywhere -> sg-b"] == "tcp 443 in part"


def test_a_name_that_is_not_resolved_has_its_arrow() -> None:
    """The node says that it is not; one that the DNS knows to have no address has none."""
    sends = "{{direction: egress, policy: accept, protocol: tcp, port_range: {}, authorization_object: {}}}"
    out = ", ".join(
        (sends.format(443, '"dns:a.example.org"'), sends.format(80, '["dns:b.example.org", 192.0.2.1]'))
    )
    sealed = "{direction: egress, policy: drop, priority: 2, protocol: all, authorization_object: any}"
    definitions = snapshot_of(TWO.format(a=f"{out}, {sealed}", b=""))
    graph = graph_of(definitions)
    assert edges(graph) == {
        "sg-a -> to dns:a.example.org": "tcp 443",
        "sg-a -> to dns:b.example.org": "tcp 80",
        "sg-a -> to 192.0.2.1": "tcp 80",
    }
    titles = {node.node_id.name: node.title for node in graph.nodes if node.title}
    assert titles == dict.fromkeys(("dns:a.example.org", "dns:b.example.org"), "not resolved")
    known = {"a.example.org": NO_ADDRESSES, "b.example.org": AddressSet.of([CidrBlock.parse("192.0.2.2")])}
    resolved = make_graph(make_subject(definitions, Exemptions(), names=known))
    assert edges(resolved).keys() == {"sg-a -> to dns:b.example.org", "sg-a -> to 192.0.2.1"}
    assert not [node.title for node in resolved.nodes if node.title]


MEMBERS_BY_ADDRESS = """\
security_groups:
  - {{security_group_id: sg-a, type: advanced, member_addresses: [10.0.0.1{more}], rules: [{a}]}}
  - {{security_group_id: sg-b, type: basic, inner_access_policy: drop, rules: [{b}]}}
network_interfaces:
  - {{network_interface_id: eni-b, addresses: [10.0.0.2], security_group_ids: [sg-b]}}
"""
SEALED = "{direction: egress, policy: drop, priority: 1, protocol: all, authorization_object: 0.0.0.0/0}"


@pytest.mark.parametrize("rule", ("", SEALED))
def test_members_on_no_interface_are_not_judged_by_their_group(rule: str) -> None:
    """Which other groups they have is not known, so they may send whatever the other end takes."""
    graph = graph_of(MEMBERS_BY_ADDRESS.format(more="", a=rule, b=INTO_B))
    assert edges(graph) == {"sg-a -> sg-b": "tcp 80, 443"}


def test_rules_of_a_group_that_is_attached_nowhere_have_arrows() -> None:
    """They come to what they would where it is attached alone."""
    graph = graph_of(MEMBERS_BY_ADDRESS.format(more="", a=INTO_B.replace("sg-a", "sg-b"), b=""))
    assert edges(graph) == {"sg-b -> sg-a": "tcp 80, 443"}


def test_a_member_by_address_that_is_on_an_interface_is_judged_there() -> None:
    """What the interface's groups drop passes for one member only."""
    sealed = "  - {security_group_id: sg-sealed, type: basic, rules: [" + SEALED + "]}\nnetwork_interfaces:\n"
    text = MEMBERS_BY_ADDRESS.format(more=", 10.0.0.9", a="", b=INTO_B).replace(
        "network_interfaces:\n", sealed
    )
    on_it = "  - {network_interface_id: eni-c, addresses: [10.0.0.9], security_group_ids: [sg-sealed]}\n"
    assert edges(graph_of(text + on_it)) == {"sg-a -> sg-b": "tcp 80, 443 in part"}
    assert edges(graph_of(text + on_it.replace("[sg-sealed]", "[]"))) == {
        "sg-a -> sg-b": "tcp 80, 443 in part"
    }


def test_a_host_does_not_talk_to_itself() -> None:
    """Not as a fellow member, not by a rule, not as a network; with a second host there are arrows."""
    itself = INTO_B.replace("sg-a", "sg-b")
    by_address = INTO_B.replace("sg-a", "10.0.0.2").replace("80, 443", "22")
    text = TWO.format(a="", b=f"{itself}, {by_address}").replace(
        "sg-a, type: basic, inner_access_policy: drop", "sg-a, type: basic, inner_access_policy: accept"
    )
    assert edges(graph_of(text)) == {}
    second = SECOND_OF_A.replace("sg-a", "sg-a, sg-b")
    assert edges(graph_of(text + second)) == {
        "10.0.0.2 -> sg-b": "tcp 22",
        "sg-a -> sg-a": "all",
        "sg-b -> sg-b": "tcp 80, 443",
    }


def test_a_comparison_knows_what_opens_and_closes() -> None:
    """An edge that goes is kept, without traffic."""
    old = graph_of(TWO.format(a="", b=INTO_B))
    new = graph_of(TWO.format(a=INTO_B.replace("sg-a", "sg-b"), b=INTO_B.replace("443", "8443")))
    found = {f"{edge.source} -> {edge.target}": edge for edge in compared(old, new).edges}
    assert str(found["sg-a -> sg-b"].opened) == "tcp 8443"
    assert str(found["sg-a -> sg-b"].closed) == "tcp 443"
    assert found["sg-b -> sg-a"].before == NO_TRAFFIC
    gone = {f"{edge.source} -> {edge.target}": edge for edge in compared(new, old).edges}["sg-b -> sg-a"]
    assert (gone.traffic, str(gone.closed)) == (NO_TRAFFIC, "tcp 80, 443")


@pytest.mark.parametrize(
    ("way", "marked"),
    (
        (
            HighlightedWay(source="anywhere", target="sg-database", port=5432),
            {"anywhere -> sg-web", "sg-web -> sg-app", "sg-app -> sg-database"},
        ),
        (HighlightedWay(source="anywhere", target="sg-database", port=5433), set()),
        (HighlightedWay(source="sg-web", target="10.1.0.31"), {"sg-web -> sg-app", "sg-app -> sg-database"}),
        (HighlightedWay(source="203.0.113.9", target="sg-base", port=22), {"pl-office -> sg-base"}),
        (HighlightedWay(source="sg-database", target="sg-web"), set()),
        (HighlightedWay(source="pl-office", target="sg-web", port=22), {"pl-office -> sg-base"}),
        (
            HighlightedWay(source="pl-office", target="sg-database"),
            {"pl-office -> sg-base", "sg-app -> sg-database"},
        ),
        (HighlightedWay(source="sg-app", target="10.1.0.22"), {"sg-app -> sg-app"}),
    ),
)
def test_ways_are_found(way: HighlightedWay, marked: set[str]) -> None:
    """The shortest; an address is of whoever has it, and the port is asked for where the way ends."""
    assert highlighted(graph_of(TIERS), way, TIERS).highlighted == {pair(ids) for ids in marked}


def test_who_is_nowhere_has_no_way() -> None:
    """A name that is neither a node nor an address is told."""
    with pytest.raises(ValueError, match="sg-nobody"):
        highlighted(graph_of(TIERS), HighlightedWay(source="sg-nobody", target="sg-web"), TIERS)


def some(tcp: Ranges = (), udp: Ranges = (), others: Ranges = ()) -> AllowedTraffic:
    """Return ports of TCP and UDP, and protocols without ports."""
    runs = [(code_of(6, first), code_of(6, last)) for first, last in tcp]
    runs += [(code_of(17, first), code_of(17, last)) for first, last in udp]
    runs += [(code_of(first), code_of(last, LAST_PORT)) for first, last in others]
    return AllowedTraffic(joined(runs))


@pytest.mark.parametrize(
    ("traffic", "text"),
    (
        (ALL_TRAFFIC, "all"),
        (NO_TRAFFIC, "nothing"),
        (some(tcp=((80, 80), (443, 443))), "tcp 80, 443"),
        (some(tcp=((0, 65535),), udp=((53, 53),)), "tcp; udp 53"),
        (some(others=((1, 1), (47, 47))), "icmp, gre"),
        (ALL_TRAFFIC - some(tcp=((25, 25),)), "tcp 0-24, 26-65535; udp; all other protocols"),
    ),
)
def test_traffic_is_said_in_few_words(traffic: AllowedTraffic, text: str) -> None:
    """Protocols by name, and ports of those that have them."""
    assert str(traffic) == text


def test_traffic_is_reckoned_with_as_a_set() -> None:
    """Both, either, and one without the other."""
    web, mail = some(tcp=((80, 80),)), some(tcp=((25, 25),), udp=((80, 80),))
    assert (web | mail) - mail == web
    assert not web & mail
    assert (web.has_port(80), mail.has_port(80), web.has_port(25)) == (True, True, False)
