"""Tables of dumps, and what is foreign in them."""

from __future__ import annotations

import pytest

from sgagent.nft import ruleset as nft
from sgagent.nft.own_table import decode_ruleset
from tests import bytecode as b

ACCEPT, DROP = b.verdict_data(b.ACCEPT), b.verdict_data(b.DROP)


def test_no_table_is_an_empty_one() -> None:
    """As the tables of others are nothing of ours."""
    assert decode_ruleset(b"") == (nft.Ruleset(), ())
    other = b.Dump(table="other").declare().chain("a").content
    assert decode_ruleset(other) == (nft.Ruleset(), ())
    assert decode_ruleset(b.Dump(family=b.IP).declare().chain("a").content) == (nft.Ruleset(), ())


def test_chains_counters_and_comments() -> None:
    """A base chain has its hook; values of counters are no part of it."""
    dump = b.Dump().declare(4).base("base", hook=4, priority=300)
    dump.chain("a", b.attribute(12, b.comment("mine"))).counter("c", b.attribute(8, b.comment("x")))
    chains = (nft.Chain(name="a", comment="mine"), nft.Chain(name="base", hook=nft.Hook("postrouting", 300)))
    assert decode_ruleset(dump.content) == (nft.Ruleset(chains=chains, counters=(nft.Counter("c", "x"),)), ())


def test_a_map_of_intervals() -> None:
    """Ends are keys of their own; the last may lack one, and neighbours may share one."""
    dump = b.Dump().declare().set_of("m", 2, flags=0xC, key_type=13)
    dump.elements(
        "m",
        b.element(b"\x04\0", verdict_of=DROP),
        b.element(b"\0\x64", verdict_of=DROP),
        b.element(b"\0\x51", b.INTERVAL_END),
        b.element(b"\0\x50", verdict_of=ACCEPT),
        b.element(b"\0\xc8", verdict_of=ACCEPT),
        b.element(b"\x01\0", b.INTERVAL_END),
        b.element(b"\0\0", b.INTERVAL_END),
    )
    found, foreign = decode_ruleset(dump.content)
    assert foreign == ()
    assert [(one.key[0], one.verdict) for one in found.verdict_maps[0].elements] == [
        (nft.Interval.single(80), nft.Accept()),
        (nft.Interval(100, 199), nft.Drop()),
        (nft.Interval(200, 255), nft.Accept()),
        (nft.Interval(1024, 65535), nft.Drop()),
    ]


def test_a_map_of_ranges_of_several_fields() -> None:
    """Each element has both ends."""
    fields = b.nested(9, b.nested(2, *(b.nested(1, b.number(1, length)) for length in (1, 2))))
    dump = b.Dump().declare().set_of("m", 8, flags=0x8C, key_type=12 << 6 | 13, beside=(fields,))
    last = b.nested(10, b.attribute(1, b"\x06\0\0\0\0\x5a\0\0"))
    dump.elements("m", b.element(b"\x06\0\0\0\0\x50\0\0", last, verdict_of=DROP))
    key = (nft.Interval.single(6), nft.Interval(80, 90))
    types = (nft.KeyType.INET_PROTO, nft.KeyType.INET_SERVICE)
    expected = nft.VerdictMap(
        name="m", key_types=types, is_interval=True, elements=(nft.Element(key, nft.Drop()),)
    )
    assert decode_ruleset(dump.content) == (nft.Ruleset(verdict_maps=(expected,)), ())


def test_a_map_of_links_and_one_of_marks() -> None:
    """Names are filled up with zeros, and marks have the host's byte order."""
    dump = (
        b.Dump()
        .declare()
        .set_of("links", 16, flags=0x8, key_type=41)
        .set_of("marks", 4, flags=0x8, key_type=19)
    )
    dump.elements("links", b.element(b"eth0" + bytes(12), verdict_of=DROP))
    dump.elements("marks", *(b.element(n.to_bytes(4, "little"), verdict_of=DROP) for n in (256, 1)))
    found, foreign = decode_ruleset(dump.content)
    assert foreign == ()
    links, marks = found.verdict_maps
    assert links.elements == (nft.Element((nft.Symbol("eth0"),), nft.Drop()),)
    assert [one.key for one in marks.elements] == [(nft.Interval.single(1),), (nft.Interval.single(256),)]


ENTRY = b.element(bytes(4), verdict_of=DROP)


@pytest.mark.parametrize(
    ("dump", "name"),
    (
        (b.Dump().declare().base("x", kind="nat"), "chain x"),
        (b.Dump().declare().base("x", hook=5), "chain x"),
        (b.Dump().declare().chain("x", b.number(10, 2)), "chain x"),
        (b.Dump().declare().chain("x", b.number(20, 2)), "chain x"),
        (b.Dump().declare().set_of("x", 4), "set x"),
        (b.Dump().declare().set_of("x", 4, flags=0x10), "set x"),
        (b.Dump().declare().set_of("x", 4, flags=0x48), "map x"),
        (b.Dump().declare().set_of("x", 4, flags=0x18, key_type=7), "map x"),
        (b.Dump().declare().set_of("x", 4, flags=0x8, key_type=9), "map x"),
        (b.Dump().declare().set_of("x", 8, flags=0x8, key_type=7).elements("x", ENTRY), "map x"),
        (
            b.Dump().declare().set_of("x", 4, flags=0x8, key_type=7, beside=(b.nested(9, b.number(1, 5)),)),
            "map x",
        ),
        (b.Dump().declare().set_of("x", 4, flags=0x8, key_type=7, beside=(b.number(99, 5),)), "map x"),
        *(
            (b.Dump().declare().set_of("x", 4, flags=0x8, key_type=7).elements("x", one), "map x")
            for one in (
                b.element(bytes(4), verdict_of=b.verdict_data(b.CONTINUE)),
                b.element(bytes(4), b.attribute(4, bytes(8)), verdict_of=DROP),
                b.element(bytes(4), b.attribute(6, b.comment("x")), verdict_of=DROP),
                b.element(bytes(4), b.number(3, 2), verdict_of=DROP),
                b.element(bytes(4), b.nested(7, b.name(1, "counter")), verdict_of=DROP),
                b.element(bytes(4), b.INTERVAL_END),
                b.element(bytes(4), b.nested(10, b.attribute(1, bytes(4))), verdict_of=DROP),
                b.element(bytes(4)),
            )
        ),
        (b.Dump().declare().add(b.NEW_OBJECT, b.name(2, "x"), b.number(3, 3)), "ct helper x"),
        (b.Dump().declare().add(22, b.name(2, "x")), "flowtable x"),
        (b.Dump().declare(1), "table sgagent"),
        (b.Dump().declare(8), "table sgagent"),
    ),
)
def test_an_object_that_is_not_ours_is_named_and_left_out(dump: b.Dump, name: str) -> None:
    """What sgagent would never make is for the plan to remove."""
    assert decode_ruleset(dump.content) == (nft.Ruleset(), (name,))


@pytest.mark.parametrize(
    "beside", (b.attribute(7, b.comment("mine")), b.nested(5, b.number(1, 6)), b.number(77, 1))
)
def test_a_rule_with_something_beside_is_foreign(beside: bytes) -> None:
    """Its instructions are right, and there is more."""
    dump = b.Dump().declare().chain("a").rule("a", b.verdict(b.ACCEPT), beside=beside)
    assert decode_ruleset(dump.content) == (nft.Ruleset(chains=(nft.Chain(name="a"),)), ("rule a",))


def test_a_policy_of_drop_is_foreign_and_its_chain_is_not() -> None:
    """The chain stands, so that it need not be made anew for its policy."""
    ruleset, foreign = decode_ruleset(b.Dump().declare().base("x", policy=0).content)
    assert ruleset.chains == (nft.Chain(name="x", hook=nft.Hook(name="prerouting", hook_priority=-150)),)
    assert foreign == ("policy x",)


def test_a_map_that_belongs_to_a_rule_is_not_ours() -> None:
    """Nor is a chain that does; neither can be deleted alone."""
    dump = b.table_with(b.meta(16), b.look_up("__map0", is_map=True))
    dump.set_of("__map0", 1, flags=0xB, key_type=12)
    assert decode_ruleset(dump.content) == (nft.Ruleset(chains=(nft.Chain(name="a"),)), ("rule a",))
    dump = (
        b.Dump()
        .declare()
        .chain("a")
        .chain("__chain0", b.number(10, 4))
        .rule("a", b.verdict(b.JUMP, "__chain0"))
    )
    assert decode_ruleset(dump.content) == (nft.Ruleset(chains=(nft.Chain(name="a"),)), ("rule a",))


def test_two_chains_of_one_name() -> None:
    """The kernel takes the second in the transaction that renames the first."""
    found, foreign = decode_ruleset(b.Dump().declare().chain("a").chain("a").content)
    assert (found.chains, foreign) == ((nft.Chain(name="a"),), ("chain a",))


def test_selectors_have_each_a_row() -> None:
    """What the compiler may read, the decoder knows; a match of iptables reads the control group."""
    from sgagent.nft.fields import FIELDS  # noqa: PLC0415 - only this test asks for the table

    assert {row.selector for row in FIELDS} >= set(nft.SELECTORS) - {nft.SOCKET_GROUP}
