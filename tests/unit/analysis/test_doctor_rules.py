"""What the doctor says of single rules of other tables, down to the severity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.analysis.doctor.facts import DefaultRoute, HostEvidence, KernelSettings, Routing
from sgagent.analysis.doctor.policy_fact import BoundLink, PolicyFact
from sgagent.analysis.doctor.registry import diagnose
from sgagent.core.binding import BridgeHooks, HostFacts, Link
from sgagent.core.model import CidrBlock, Family
from sgagent.nft.kernel_table import read_tables
from tests import bytecode as b

ADDRESS = bytes((10, 0, 0, 11))
ETH0, ETH1 = (name.ljust(16, b"\0") for name in (b"eth0", b"eth1"))
HOST = HostEvidence(
    policy=PolicyFact(bound=(BoundLink(name="eth0"),)),
    host=HostFacts(
        links=(
            Link(name="eth0", index=2, addresses=(CidrBlock.around(Family.IPV4, 0x0A00000B, 32),)),
            Link(name="eth1", index=3),
        )
    ),
)
DNS = b"\0\x35"
PORT, STATE, LINK = b.payload(b.TRANSPORT, 2, 2), b.ct(0), b.meta(6)
TO_ADDRESS = b.payload(b.NETWORK, 16, 4)
UDP = (b.meta(16), b.compare(b"\x11"))
DROP, ACCEPT, JUMP = (b.verdict_data(*one) for one in ((b.DROP,), (b.ACCEPT,), (b.JUMP, "c")))
OTHER = [("other_table_drops", "low")]
ALL = [("other_table_drops", "medium")]
INPUT, OUTPUT, FORWARD, POSTROUTING = 1, 3, 2, 4
BRIDGE = 7


def found(dump: b.Dump, evidence: HostEvidence = HOST) -> list[tuple[str, str]]:
    """Return code and severity of each finding."""
    diagnosis = diagnose(replace(evidence, tables=tuple(read_tables(dump.content))))
    return [(one.code.value, one.severity.value) for one in diagnosis]


def at(hook: int = 0, priority: int = -150, family: int = b.INET) -> b.Dump:
    """Return a table of somebody else with a base chain and another chain."""
    return b.Dump("other", family).declare().base("a", hook=hook, priority=priority).chain("c")


def by_map(key: bytes, length: int, *elements: bytes, flags: int = 8, policy: int = b.ACCEPT) -> b.Dump:
    """Return a table with a rule at input that looks a key up in a map of verdicts."""
    dump = b.Dump("other").declare().base("a", hook=INPUT, policy=policy).chain("c")
    dump.set_of("m", length, flags=flags).elements("m", *elements)
    return dump.rule("a", key, b.look_up("m", is_map=True))


def one(key: bytes, verdict: bytes, *beside: bytes) -> bytes:
    """Return an element of such a map."""
    return b.element(key, *beside, verdict_of=verdict)


def rest(verdict: bytes) -> bytes:
    """Return the element for all other keys."""
    return b.nested(1, b.nested(2, verdict), b.number(3, 2))


def word(number: int) -> bytes:
    """Return a number of the host's byte order."""
    return number.to_bytes(4, "little")


LINK_AND_PORT = LINK + b.payload(b.TRANSPORT, 2, 2, register=12)


@pytest.mark.parametrize(
    ("dump", "expected"),
    (
        (by_map(PORT, 2, one(DNS, DROP)), OTHER),
        (by_map(PORT, 2, one(DNS, ACCEPT)), []),
        (by_map(PORT, 2, one(DNS, JUMP)), []),
        (by_map(PORT, 2, one(DNS, JUMP)).rule("c", b.verdict(b.DROP)), OTHER),
        (by_map(PORT, 2, one(DNS, JUMP)).rule("c", b.verdict(b.ACCEPT)), []),
        (by_map(PORT, 2, one(DNS, ACCEPT), rest(DROP)), OTHER),
        (by_map(PORT, 2, one(DNS, DROP, b.nested(7, b.name(1, "counter")))), OTHER),
        (by_map(PORT, 2, one(DNS, DROP), one(b"\0\x36", b"", b.INTERVAL_END), flags=12), OTHER),
        (by_map(b.meta(16), 1, one(b"\x11", DROP)), OTHER),
        (by_map(LINK, 16, one(ETH0, DROP)), ALL),
        (by_map(LINK, 16, one(ETH1, DROP)), []),
        (by_map(LINK, 16, one(b"eth".ljust(16, b"\0"), DROP), flags=12), ALL),
        (by_map(LINK, 16, one(b"veth".ljust(16, b"\0"), DROP), flags=12), []),
        (by_map(LINK, 16, one(ETH0, ACCEPT), rest(DROP)), []),
        (by_map(LINK_AND_PORT, 20, one(ETH0 + DNS + b"\0\0", DROP)), OTHER),
        (by_map(LINK_AND_PORT, 20, one(ETH1 + DNS + b"\0\0", DROP)), []),
        (by_map(STATE, 4, one(word(2), ACCEPT), one(word(1), DROP)), []),
        (by_map(STATE, 4, one(word(8), DROP)), ALL),
        (by_map(STATE, 4, one(word(2), ACCEPT), rest(DROP)), ALL),
        (by_map(STATE, 4, one(word(8), ACCEPT), rest(DROP)), []),
        (by_map(TO_ADDRESS, 4, one(ADDRESS, DROP)), OTHER),
        (by_map(TO_ADDRESS, 4, one(bytes((10, 0, 0, 12)), DROP)), []),
        (by_map(b.meta(3), 4, one(word(1), DROP)), []),
        (by_map(LINK, 16, one(ETH0, ACCEPT), policy=b.DROP), []),
        (by_map(LINK, 16, one(ETH1, ACCEPT), policy=b.DROP), ALL),
    ),
)
def test_a_map_of_verdicts_is_read_element_by_element(dump: b.Dump, expected: list[tuple[str, str]]) -> None:
    """Each is a drop, an acceptance or a jump for the packets that meet it; a dispatch is no finding."""
    assert found(dump) == expected


def test_a_map_that_packets_fill_may_lead_to_each_chain() -> None:
    """Those that it has count; a drop where later ones may lead can't be compared."""
    dump = by_map(PORT, 2, flags=8 | 0x20).rule("c", b.verdict(b.DROP))
    assert found(dump) == []
    assert found(by_map(PORT, 2, one(DNS, DROP), flags=8 | 0x20)) == OTHER
    assert found(dump.rule("c", b.expression("notrack"))) == [("notrack", "medium")]


def write(base: int, offset: int, length: int) -> bytes:
    """Return the change of bytes of a packet."""
    return b.expression(
        "payload", b.number(5, 1), b.number(2, base), b.number(3, offset), b.number(4, length)
    )


TO_PORT, FROM_PORT = write(b.TRANSPORT, 2, 2), write(b.TRANSPORT, 0, 2)


@pytest.mark.parametrize(
    ("hook", "priority", "written", "severity"),
    (
        (0, -160, TO_PORT, "medium"),
        (0, -160, write(b.NETWORK, 16, 4), "medium"),
        (0, -160, write(b.NETWORK, 24, 16), "medium"),
        (0, -160, FROM_PORT, "high"),
        (0, -300, write(b.NETWORK, 12, 4), "high"),
        (0, -300, write(b.NETWORK, 8, 16), "high"),
        (0, -150, TO_PORT, "high"),
        (INPUT, -300, TO_PORT, "high"),
        (FORWARD, 0, TO_PORT, "high"),
        (OUTPUT, 400, FROM_PORT, "medium"),
        (POSTROUTING, 299, TO_PORT, "medium"),
        (POSTROUTING, 300, TO_PORT, "high"),
        (0, -160, write(b.NETWORK, 8, 2), None),
        (0, -160, write(b.NETWORK, 0, 2), None),
        (0, -160, write(b.TRANSPORT, 6, 2), None),
        (0, -160, write(b.LINK, 0, 6), None),
    ),
)
def test_a_translation_is_named(hook: int, priority: int, written: bytes, severity: str | None) -> None:
    """Behind our hook it opens, before it only where it changes the sender; TTL, DSCP, checksums are free."""
    gateway = replace(HOST, settings=KernelSettings(forwarding=(Family.IPV4,)))
    dump = at(hook, priority).rule("a", *UDP, b.constant(DNS), written)
    assert found(dump, gateway) == ([] if severity is None else [("packet_writer", severity)])


def fib(result: int, flags: int) -> bytes:
    """Return a look-up of a route."""
    return b.expression("fib", b.number(1, 1), b.number(2, result), b.number(3, flags))


LOCAL = b.compare(word(2))
OF_DESTINATION, OF_SOURCE = fib(3, 2), fib(3, 1)


@pytest.mark.parametrize(
    ("hook", "test", "expected"),
    (
        (0, (OF_DESTINATION, LOCAL), ALL),
        (INPUT, (OF_DESTINATION, LOCAL), ALL),
        (OUTPUT, (OF_DESTINATION, LOCAL), []),
        (0, (OF_DESTINATION, b.compare(word(2), b.NOT_EQUAL)), []),
        (0, (OF_DESTINATION, b.compare(word(3))), []),
        (0, (OF_SOURCE, LOCAL), []),
        (0, (fib(1, 0x21), b.compare(word(0))), []),
    ),
)
def test_a_drop_of_what_is_for_this_host_is_named(
    hook: int, test: tuple[bytes, ...], expected: list[tuple[str, str]]
) -> None:
    """By the route's kind; what rp_filter does as a rule, and drops of other kinds, are no finding."""
    assert found(at(hook).rule("a", *test, b.verdict(b.DROP))) == expected


WAYS = replace(
    HOST,
    routing=Routing(
        defaults=tuple(
            DefaultRoute(family=family, links=(link,)) for family in Family for link in ("eth0", "eth1")
        )
    ),
)
BACK, MISSING = fib(1, 0x29), b.compare(word(0))


@pytest.mark.parametrize(
    ("rule", "families"),
    (
        ((BACK, MISSING), {"IPv4", "IPv6"}),
        ((fib(2, 0x2D), MISSING), {"IPv4", "IPv6"}),
        ((b.meta(15), b.compare(b"\x0a"), BACK, MISSING), {"IPv6"}),
        ((b.expression("match", b.name(1, "rpfilter"), b.attribute(3, b"\x08")),), {"IPv4", "IPv6"}),
        ((b.expression("match", b.name(1, "rpfilter"), b.attribute(3, b"\x09")),), set()),
        ((b.expression("match", b.name(1, "rpfilter"), b.attribute(3, b"\0")),), set()),
        ((fib(1, 0x21), MISSING), set()),
        ((BACK, b.compare(word(0), b.NOT_EQUAL)), set()),
        ((LINK, b.compare(ETH1), BACK, MISSING), set()),
    ),
)
def test_a_drop_by_one_of_several_ways_back_is_named(rule: tuple[bytes, ...], families: set[str]) -> None:
    """As a strict rp_filter: by fib and iptables' rpfilter, if they ask for the link."""
    tables = tuple(read_tables(at().rule("a", *rule, b.verdict(b.DROP)).content))
    named = [one for one in diagnose(replace(WAYS, tables=tables)) if one.code.value == "reverse_path"]
    assert {word for one in named for word in ("IPv4", "IPv6") if word in one.evidence} == families
    assert all((one.link, one.table, one.chain) == ("eth0", "inet other", "a") for one in named)
    assert diagnose(replace(HOST, tables=tables)) == ()


@pytest.mark.parametrize(
    "test",
    (
        (b.expression("limit", *(b.number(kind, 1) for kind in (1, 2, 3, 4, 5))),),
        (b.expression("quota"),),
        (b.expression("connlimit"),),
        (b.expression("numgen", b.number(1, 1)), b.swap(4), b.compare(word(5), b.LESS)),
        (b.meta(32), b.within(word(1), word(2))),
        (b.expression("match", b.name(1, "hashlimit")),),
    ),
)
def test_a_drop_of_some_packets_is_named(test: tuple[bytes, ...]) -> None:
    """By rate, volume, number, chance or time: low, as most of a session may pass."""
    (finding,) = diagnose(
        replace(HOST, tables=tuple(read_tables(at(INPUT).rule("a", *test, b.verdict(b.DROP)).content)))
    )
    assert (finding.code.value, finding.severity.value) == OTHER[0]
    assert "some (by rate" in finding.evidence


ARP = 3


@pytest.mark.parametrize("hook", (0, 1))
def test_a_drop_of_arp_is_named(hook: int) -> None:
    """At input and output, which arp numbers its own way."""
    (finding,) = diagnose(
        replace(HOST, tables=tuple(read_tables(at(hook, family=ARP).rule("a", b.verdict(b.DROP)).content)))
    )
    assert finding.severity.value == "medium"
    assert f"all ARP messages that reach it at {('input', 'output')[hook]}" in finding.evidence
    assert found(at(hook, family=ARP).rule("a", LINK, b.compare(ETH1), b.verdict(b.DROP))) == (
        [] if not hook else ALL
    )
    assert found(at(hook, family=ARP).rule("a", write(b.NETWORK, 14, 4))) == []


BRIDGE = 7
PORT_OF_GUEST = b"vnet0".ljust(16, b"\0")
BRIDGED = replace(
    HOST,
    host=HostFacts(
        links=(
            replace(HOST.host.links[0], kind="bridge"),
            Link(name="eth1", index=3, has_hardware=True, master="eth0", master_kind="bridge"),
            Link(name="vnet0", index=4, kind="tun", master="eth0", master_kind="bridge"),
        )
    ),
)
"""The bound link is a bridge."""


@pytest.mark.parametrize(
    ("hook", "rule", "expected"),
    (
        (0, (b.verdict(b.DROP),), ALL),
        (INPUT, (LINK, b.compare(ETH1), b.verdict(b.DROP)), ALL),
        (INPUT, (LINK, b.compare(PORT_OF_GUEST), b.verdict(b.DROP)), []),
        (POSTROUTING, (b.meta(7), b.compare(ETH1), b.verdict(b.DROP)), ALL),
        (OUTPUT, (b.meta(7), b.compare(PORT_OF_GUEST), b.verdict(b.DROP)), []),
        (FORWARD, (b.verdict(b.DROP),), []),
        (INPUT, (*UDP, PORT, b.compare(DNS), b.verdict(b.DROP)), OTHER),
        (0, (*UDP, b.constant(DNS), TO_PORT), [("packet_writer", "medium")]),
        (0, (*UDP, b.constant(DNS), FROM_PORT), [("packet_writer", "high")]),
        (INPUT, (*UDP, b.constant(DNS), FROM_PORT), [("packet_writer", "high")]),
        (POSTROUTING, (*UDP, b.constant(DNS), TO_PORT), [("packet_writer", "high")]),
        (OUTPUT, (*UDP, b.constant(DNS), TO_PORT), [("packet_writer", "high")]),
    ),
)
def test_rules_of_frames_are_about_bound_bridges(
    hook: int, rule: tuple[bytes, ...], expected: list[tuple[str, str]]
) -> None:
    """By ports that lead out; a guest's filter, what guests say to each other and other bridges are none."""
    dump = at(hook, family=BRIDGE).rule("a", *rule)
    assert found(dump, BRIDGED) == expected
    assert found(dump) == []


@pytest.mark.parametrize(("port", "expected"), ((ETH1, []), (PORT_OF_GUEST, ALL)))
def test_a_policy_of_frames_is_about_ports_leading_out(port: bytes, expected: list[tuple[str, str]]) -> None:
    """Rules that accept all of them leave nothing to it, also beside bound links that are no bridges."""
    bound = replace(BRIDGED.policy, bound=(*BRIDGED.policy.bound, BoundLink(name="lan0")))
    dump = b.Dump("other", BRIDGE).declare().base("a", hook=INPUT, policy=b.DROP)
    dump.rule("a", LINK, b.compare(port), b.verdict(b.ACCEPT))
    assert found(dump, replace(BRIDGED, policy=bound)) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    (
        ((b.expression("tproxy"),), [("diverter", "medium")]),
        ((*UDP, b.expression("target", b.name(1, "TPROXY"))), [("diverter", "medium")]),
        ((b.meta(3), b.compare(word(1)), b.expression("tproxy")), []),
        ((b.expression("target", b.name(1, "DNPT")),), [("packet_writer", "medium")]),
        ((b.expression("target", b.name(1, "SNPT")),), [("packet_writer", "high")]),
        ((b.expression("dup"),), [("diverter", "low")]),
        ((b.expression("objref", b.number(1, 7), b.name(2, "t")),), [("session_timeout", "low")]),
    ),
)
def test_what_takes_or_copies_is_named(rule: tuple[bytes, ...], expected: list[tuple[str, str]]) -> None:
    """TPROXY, unless a mark picks its packets; addresses of another prefix; copies; timeouts of sessions."""
    assert found(at(priority=-160).rule("a", *rule)) == expected


@pytest.mark.parametrize(("mark", "severity"), ((0x02010000, "high"), (0x00000001, "medium")))
def test_a_mark_of_a_map_weighs_as_its_values(mark: int, severity: str) -> None:
    """One that sets bits of ours may look like an acceptance, whatever the others are."""
    about = (b.name(2, "m"), b.number(3, 8), b.number(4, 13), b.number(5, 2), b.number(6, 19), b.number(7, 4))
    dump = at().add(b.NEW_SET, *about)
    for port, value in ((DNS, mark), (b"\0\x16", 2)):
        dump.elements(
            "m", b.nested(1, b.nested(1, b.attribute(1, port)), b.nested(2, b.attribute(1, word(value))))
        )
    chosen = b.expression("lookup", b.name(1, "m"), b.number(2, 1), b.number(3, 1))
    assert found(dump.rule("a", PORT, chosen, b.set_mark())) == [("mark_writer", severity)]


def test_frames_that_conntrack_follows_are_named_where_no_hook_of_ip_sees_them() -> None:
    """Their sender counts as who opened a session (§6.4); a dormant table has them followed as well."""
    bridge, hooks = Link(name="br0", index=4, kind="bridge"), BridgeHooks(families=tuple(Family))
    guests = replace(HOST, host=replace(HOST.host, links=(*HOST.host.links, bridge)))
    judged = replace(guests, host=replace(guests.host, bridge_hooks=hooks))
    tracking = at(FORWARD, 0, BRIDGE).rule("c", STATE)
    assert found(tracking, guests) == [("conntrack_bridge", "high")]
    assert found(at(FORWARD, 0, BRIDGE).rule("c", b.set_mark()), guests) == found(tracking, guests)
    assert found(tracking, HOST) == found(tracking, judged) == []
    assert found(at(FORWARD, 0, BRIDGE).rule("a", PORT), guests) == found(at().rule("a", STATE), guests) == []
    (dormant,) = read_tables(tracking.content)
    dormant.is_dormant = True
    assert len(diagnose(replace(guests, tables=(dormant,)))) == 1
