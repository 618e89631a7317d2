"""Rules are what their instructions do, and never what somebody calls them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from sgagent.core import model
from sgagent.core.conditions import GroupPath
from sgagent.nft import ruleset as r
from sgagent.nft.attributes import UnreadableError
from sgagent.nft.expressions import Xtables
from sgagent.nft.own_table import decode_ruleset
from sgagent.nft.program import statements_of
from sgagent.nft.ruleset import (
    Accept,
    Count,
    Drop,
    Goto,
    Interval,
    Limit,
    Log,
    LookUp,
    Match,
    NamePrefix,
    Operator,
    SetMark,
    Statement,
    Symbol,
    TupleDirection,
)
from tests import bytecode as b

IPV4 = b.meta(15) + b.compare(b"\x02")
IPV6 = b.meta(15) + b.compare(b"\x0a")
TCP = b.meta(16) + b.compare(b"\x06")
ICMPV6 = b.meta(16) + b.compare(b"\x3a")
SADDR = b.payload(b.NETWORK, 12, 4)
DPORT = b.payload(b.TRANSPORT, 2, 2)
ETHERNET = b.meta(8) + b.compare(struct.pack("=H", 1))
FRAME_TO, LINK_LOCAL_MAC = b.payload(b.LINK, 0, 6), b"\x01\x80\xc2\0\0\0"
TCP_SPORT, TCP_DPORT = r.source_port(model.TCP), r.destination_port(model.TCP)
ADDRESS, NETWORK_10 = Interval.single(0x0A000001), Interval(0x0A000000, 0x0AFFFFFF)
ALL = 0xFFFFFFFF


def host(number: int) -> bytes:
    """Return a number as this host keeps it."""
    return struct.pack("=I", number)


def decoded(*expressions: bytes) -> tuple[Statement, ...] | None:
    """Return a rule as it is read; None where it is not."""
    dump = b.table_with(*expressions, others=("to",))
    dump.set_of("__set0", 4, flags=0x3).elements("__set0", b.element(bytes((10, 0, 0, 1))))
    dump.set_of("named", 4).elements("named", b.element(bytes((10, 0, 0, 1))))
    ruleset, foreign = decode_ruleset(dump.content)
    chain = ruleset.chain_by_name["a"]
    assert bool(chain.rules) is ("rule a" not in foreign)
    return chain.rules[0].statements if chain.rules else None


SAME: tuple[tuple[tuple[bytes, ...], Statement], ...] = (
    ((IPV4, SADDR, b.compare(bytes((10, 0, 0, 1)))), Match(r.IP_SADDR, (ADDRESS,))),
    ((SADDR, b.compare(bytes((10, 0, 0, 1))), IPV4), Match(r.IP_SADDR, (ADDRESS,))),
    ((IPV4, IPV4, SADDR, b.compare(bytes((10, 0, 0, 1)))), Match(r.IP_SADDR, (ADDRESS,))),
    ((IPV4, b.payload(1, 12, 1), b.compare(b"\x0a")), Match(r.IP_SADDR, (NETWORK_10,))),
    ((IPV4, SADDR, b.mask(b"\xff\0\0\0"), b.compare(b"\x0a\0\0\0")), Match(r.IP_SADDR, (NETWORK_10,))),
    (
        (IPV4, SADDR, b.mask(b"\xff\0\0\0", b"\x01\0\0\0"), b.compare(b"\x0b\0\0\0")),
        Match(r.IP_SADDR, (NETWORK_10,)),
    ),
    ((IPV4, SADDR, b.within(b"\x0a\0\0\0", b"\x0a\xff\xff\xff")), Match(r.IP_SADDR, (NETWORK_10,))),
    (
        (IPV4, SADDR, b.compare(b"\x0a\0\0\0", b.AT_LEAST), b.compare(b"\x0a\xff\xff\xff", b.AT_MOST)),
        Match(r.IP_SADDR, (NETWORK_10,)),
    ),
    (
        (IPV4, SADDR, b.compare(b"\x0a\0\0\x01", b.NOT_EQUAL)),
        Match(r.IP_SADDR, (ADDRESS,), Operator.NOT_EQUAL),
    ),
    ((IPV4, SADDR, b.look_up("__set0")), Match(r.IP_SADDR, (ADDRESS,))),
    ((IPV4, SADDR, b.look_up("__set0", negated=True)), Match(r.IP_SADDR, (ADDRESS,), Operator.NOT_EQUAL)),
    (
        (ETHERNET, FRAME_TO, b.within(LINK_LOCAL_MAC, LINK_LOCAL_MAC[:5] + b"\x0f")),
        Match(r.ETHER_DADDR, (Interval(0x0180C2000000, 0x0180C200000F),)),
    ),
    (
        (FRAME_TO, b.mask(b"\xff\xff\xff\xff\xff\xf0"), b.compare(LINK_LOCAL_MAC), ETHERNET),
        Match(r.ETHER_DADDR, (Interval(0x0180C2000000, 0x0180C200000F),)),
    ),
    ((TCP, DPORT, b.compare(b"\0\x50")), Match(TCP_DPORT, (Interval.single(80),))),
    ((b.payload(2, 2, 2), b.compare(b"\0\x50")), Match(r.TH_DPORT, (Interval.single(80),))),
    ((b.meta(6), b.compare(b"eth0" + bytes(12))), Match(r.META_IIFNAME, (Symbol("eth0"),))),
    ((b.meta(6), b.compare(b"eth0\0")), Match(r.META_IIFNAME, (Symbol("eth0"),))),
    ((b.meta(6), b.compare(b"eth")), Match(r.META_IIFNAME, (NamePrefix("eth"),))),
    ((b.ct(0), b.mask(host(8)), b.compare(host(0), b.NOT_EQUAL)), Match(r.CT_STATE, (Symbol("new"),))),
    ((b.ct(0), b.compare(host(8))), Match(r.CT_STATE, (Symbol("new"),))),
    ((b.ct(0), b.mask(host(8)), b.compare(host(0))), Match(r.CT_STATE, (Symbol("new"),), Operator.NOT_EQUAL)),
    ((b.ct(0), b.compare(host(8), b.NOT_EQUAL)), Match(r.CT_STATE, (Symbol("new"),), Operator.NOT_EQUAL)),
    (
        (b.ct(3), b.mask(host(0xF0)), b.compare(host(0x10))),
        Match(r.CT_MARK, (Interval.single(16),), mask=0xF0),
    ),
    ((b.ct(3), b.swap(4), b.within(b"\0\0\0\x01", b"\0\0\0\x05")), Match(r.CT_MARK, (Interval(1, 5),))),
    (
        (b.ct(19, 0), b.compare(b"\x0a\0\0\x01")),
        Match(r.ct_tuple(TupleDirection.ORIGINAL, "ip saddr"), (ADDRESS,)),
    ),
    ((b.ct(3), b.mask(host(ALL ^ 5), host(5)), b.set_mark()), SetMark(keep=ALL, put=5)),
    ((b.constant(host(5)), b.set_mark()), SetMark(keep=5, put=5)),
    ((b.count("c"),), Count("c")),
    (
        (
            b.expression(
                "limit",
                b.attribute(1, bytes(7) + b"\x0a"),
                b.attribute(2, bytes(7) + b"\x01"),
                b.number(3, 5),
            ),
        ),
        Limit(10, 5),
    ),
    ((b.expression("log", b.attribute(1, b"\x24\xfd"), b.name(2, "p")),), Log("p", 9469)),
)


@pytest.mark.parametrize(("expressions", "statement"), SAME)
def test_programs_that_do_the_same_are_equal(expressions: tuple[bytes, ...], statement: Statement) -> None:
    """Whatever version of nft wrote them: orders, masks, sizes of reads, ranges and sets."""
    assert decoded(*expressions, b.verdict(b.ACCEPT)) == (statement, Accept())


def test_a_read_of_several_fields_is_several_matches() -> None:
    """As nft merges neighbouring ones."""
    both = decoded(TCP, b.payload(2, 0, 4), b.compare(b"\0\x44\0\x43"), b.verdict(b.DROP))
    assert both == (
        Match(TCP_SPORT, (Interval.single(68),)),
        Match(TCP_DPORT, (Interval.single(67),)),
        Drop(),
    )
    hops = decoded(IPV6, b.payload(1, 7, 17), b.compare(b"\x01" + bytes(16)), b.verdict(b.DROP))
    assert hops == (
        Match(r.IP6_HOPLIMIT, (Interval.single(1),)),
        Match(r.IP6_SADDR, (Interval.single(0),)),
        Drop(),
    )
    types = decoded(
        ICMPV6, b.payload(2, 0, 1), b.compare(b"\x85"), IPV6, b.payload(1, 7, 1), b.compare(b"\xff")
    )
    assert types == (
        Match(r.ICMPV6_TYPE, (Interval.single(133),)),
        Match(r.IP6_HOPLIMIT, (Interval.single(255),)),
    )


HIDDEN: tuple[bytes, ...] = (
    b.ct(7) + b.compare(b"\x0a"),
    b.meta(8) + b.compare(struct.pack("=H", 1)),
    b.meta(1) + b.compare(b"\x08\0"),
    b.payload(b.LINK, 12, 2) + b.compare(b"\x08\0"),
    FRAME_TO + b.compare(LINK_LOCAL_MAC),
    b.meta(15) + b.compare(b"\x0a"),
    b.meta(16) + b.compare(b"\x11"),
    b.ct(10) + b.compare(b"\x06"),
    b.ct(2) + b.compare(host(1)),
    b.expression("fib", b.number(1, 1), b.number(2, 1), b.number(3, 1)) + b.compare(b"\0\0\0\x01"),
    b.expression(
        "inner",
        b.number(1, 0),
        b.number(2, 1),
        b.number(3, 0xF),
        b.number(4, 8),
        b.nested(5, b.payload(2, 2, 2)),
    ),
)


@pytest.mark.parametrize("condition", HIDDEN)
@pytest.mark.parametrize("place", (0, 1, 2, 3))
def test_a_condition_that_nft_takes_for_implied_makes_another_rule(condition: bytes, place: int) -> None:
    """Wherever it stands; where it is understood it is seen, and else the rule is not read."""
    parts = [IPV4, TCP, SADDR + b.compare(b"\x0a\0\0\x01"), DPORT + b.compare(b"\0\x50")]
    bare = decoded(*parts, b.verdict(b.ACCEPT))
    assert bare is not None
    assert decoded(*parts[:place], condition, *parts[place:], b.verdict(b.ACCEPT)) != bare


UNREAD: tuple[tuple[bytes, ...], ...] = (
    (SADDR, b.compare(b"\x0a\0\0\x01")),
    (IPV4, b.payload(1, 8, 8), b.compare(b"\x40\x06\0\0\x0a\0\0\x01")),
    (ICMPV6, b.payload(2, 0, 1), b.compare(b"\x85")),
    (IPV4, SADDR, b.look_up("named")),
    (IPV4, b.payload(1, 16, 4, register=9), b.payload(1, 12, 8), b.compare(bytes(4), register=9)),
    (b.meta(16, register=2), b.compare(b"\x06")),
    (b.ct(3), b.within(b"\0\0\0\x01", b"\0\0\0\x05")),
    (b.ct(3), b.mask(host(ALL), host(5)), b.set_mark()),
    (b.ct(3), b.mask(host(0), host(5)), b.set_mark()),
    (b.meta(3), b.set_mark()),
    (b.verdict(b.ACCEPT), b.verdict(b.DROP)),
    (b.verdict(b.GOTO, "to"), b.count("c")),
    (b.expression("counter", b.attribute(1, bytes(8)), b.attribute(2, bytes(8))),),
    (b.expression("reject", b.number(1, 2), b.attribute(2, b"\x03")),),
    (b.expression("notrack"),),
    (
        b.expression(
            "limit",
            *(b.attribute(kind, bytes(7) + b"\x01") for kind in (1, 2)),
            b.number(3, 5),
            b.number(5, 1),
        ),
    ),
    (b.expression("log", b.attribute(1, b"\x24\xfd"), b.name(2, "p"), b.number(3, 64)),),
    (b.expression("log", b.number(5, 4)),),
    (b.expression("meta", b.number(1, 1), b.number(2, 16), b.number(9, 1)), b.compare(b"\x06")),
    (b.expression("objref", b.number(1, 2), b.name(2, "q")),),
    (b.expression("bitwise", *(b.number(kind, 4) for kind in range(1, 4))),),
)


@pytest.mark.parametrize("expressions", UNREAD)
def test_what_sgagent_never_writes_is_not_read(expressions: tuple[bytes, ...]) -> None:
    """Not half of it either."""
    assert decoded(*expressions) is None


def test_a_condition_behind_something_done_is_seen() -> None:
    """The counter counts before it."""
    counted = decoded(IPV4, b.count("c"), SADDR, b.compare(b"\x0a\0\0\x01"), b.verdict(b.GOTO, "to"))
    family = Match(r.META_NFPROTO, (Symbol("ipv4"),))
    assert counted == (family, Count("c"), Match(r.IP_SADDR, (ADDRESS,)), Goto("to"))


def test_a_look_up_of_several_fields() -> None:
    """Each stands in registers of its own, one behind the other."""

    def read(*load: bytes) -> tuple[Statement, ...] | None:
        dump = b.table_with(*load, b.look_up("m", is_map=True))
        dump.set_of("m", 8, flags=0x8, key_type=12 << 6 | 13)
        dump.elements("m", b.element(b"\x06\0\0\0\0\x50\0\0", verdict_of=b.verdict_data(b.DROP)))
        ruleset, _ = decode_ruleset(dump.content)
        assert ruleset.verdict_maps[0].elements[0].key == (Interval.single(6), Interval.single(80))
        rules = ruleset.chains[0].rules
        return rules[0].statements if rules else None

    by_port = (LookUp((r.META_L4PROTO, r.TH_DPORT), "m"),)
    assert read(b.meta(16), b.payload(2, 2, 2, register=9)) == by_port
    assert read(b.meta(16, register=8), b.payload(2, 2, 2, register=9)) == by_port
    assert read(b.meta(16), b.payload(2, 2, 2, register=10)) is None
    assert read(b.payload(2, 2, 2, register=9), b.meta(16)) == by_port
    assert read(b.meta(15), b.payload(2, 2, 2, register=9)) == (LookUp((r.META_NFPROTO, r.TH_DPORT), "m"),)
    assert read(b.meta(16), b.mask(b"\x0f"), b.payload(2, 2, 2, register=9)) is None


def of_group(path: bytes, flags: bytes = b"\1\0\0\0", rest: bytes = b"") -> Xtables:
    """Return the match of iptables on a control group, as the kernel shows it."""
    argument = (flags + path.ljust(512, b"\0")).ljust(520, b"\0") + rest
    return Xtables(is_target=False, name="cgroup", revision=2, argument=argument)


def test_iptables_match_on_a_control_group_is_understood() -> None:
    """By its path; its negation, others of its kind, and what else it may hold are not."""
    for path in ("/system.slice/nginx.service", "/", "/\udcff"):
        (found,) = statements_of([of_group(path.encode("utf-8", "surrogateescape"))], {})
        assert found == Match(r.SOCKET_GROUP, (GroupPath(path),))
    for other in (
        *(of_group(b"/a", flags) for flags in (b"\0\1\0\0", b"\1\0\1\0", b"\1\1\0\0", b"\0\0\0\0")),
        *(of_group(b"a"), of_group(b"/a", rest=b"\1"), of_group(b"/a\0b")),
        *(replace(of_group(b"/a"), revision=1), replace(of_group(b"/a"), name="owner")),
        replace(of_group(b"/a"), is_target=True),
    ):
        with pytest.raises(UnreadableError):
            statements_of([other], {})
