"""A table and a plan as people read them."""
# ruff: noqa: E101 - nft itself lists elements behind tabs and blanks

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.binding import check_interface_name
from sgagent.nft import ruleset as nft
from sgagent.nft.text import describe, differences, quoted, render
from sgagent.nft.transactions import (
    AddChain,
    AddElements,
    AddRule,
    AddTable,
    Delete,
    DeleteElements,
    DestroyTable,
    Flush,
)
from tests.contract import tables

EXPECTED = """\
destroy table inet sgagent

table inet sgagent {
	flags persist

	counter rule/eth0/ssh { }
	counter rule/eth0/web { }

	map networks/eth0 {
		typeof ip saddr : verdict
		flags interval
		elements = { 10.0.0.0/8 : goto rule/eth0/web,
			     198.51.100.0/29 : goto rule/eth0/ssh }
	}

	map peers/eth0 {
		typeof ip saddr : verdict
		elements = { 192.0.2.1 : goto rule/eth0/ssh,
			     192.0.2.2 : goto rule/eth0/web }
	}

	map ports/eth0 {
		typeof meta l4proto . th dport : verdict
		flags interval
		elements = { tcp . 443 : goto rule/eth0/web,
			     udp . 1024-65535 : goto rule/eth0/ssh }
	}

	chain prerouting {
		type filter hook prerouting priority -150; policy accept;
		iifname "eth0" goto ingress/eth0
	}

	chain ingress/eth0 {
		ct state == invalid drop
		ip saddr vmap @peers/eth0
		ip saddr vmap @networks/eth0
		meta l4proto . th dport vmap @ports/eth0
		drop
	}

	chain rule/eth0/ssh {
		counter name "rule/eth0/ssh" accept
	}

	chain rule/eth0/web {
		counter name "rule/eth0/web" ct mark set ct mark & 0x0001ffff | 0x00010000 accept
	}

	chain generation {
		comment "generation 1"
	}
}
"""


def test_a_table_reads_as_nft_lists_it() -> None:
    """Base chains first, then as a packet meets them; numbers are written as people write them."""
    assert render(tables.WHOLE, persist=True) == EXPECTED


def test_a_text_in_quotes_ends_only_at_its_end() -> None:
    """A quotation mark or a line end within a comment can't end it."""
    assert quoted('a"; drop; \n "') == '"a?; drop; ? ?"'


@pytest.mark.parametrize("name", ("eth*", "*", "", "@evil", 'a"b', "a\\", "a\nb"))
def test_an_interface_name_is_never_a_pattern(name: str) -> None:
    """Names that nftables would read as something else are refused by every encoder."""
    rule = nft.Rule((nft.Match(nft.META_IIFNAME, (nft.Symbol(name),)),))
    with pytest.raises(ValueError, match="not an interface name"):
        check_interface_name(name)
    with pytest.raises(ValueError, match="not an interface name"):
        render(nft.Ruleset(chains=(nft.Chain(name="a", rules=(rule,)),)), persist=False)


def test_a_prefix_of_names_ends_with_the_sign() -> None:
    """It is the only pattern that the kernel knows; what it begins with is checked as a name is."""

    def written(prefix: str) -> str:
        rule = nft.Rule((nft.Match(nft.META_OIFNAME, (nft.NamePrefix(prefix),)), nft.Accept()))
        return render(nft.Ruleset(chains=(nft.Chain(name="a", rules=(rule,)),)), persist=False)

    assert 'oifname "br-*" accept' in written("br-")
    with pytest.raises(ValueError, match="not an interface name"):
        written('br"')


@pytest.mark.parametrize(
    ("first", "last", "length"), ((0, 0xFFFFFFFF, 0), (8, 15, 29), (7, 7, 32), (8, 14, None), (4, 11, None))
)
def test_a_range_is_a_prefix_only_where_it_is_aligned(first: int, last: int, length: int | None) -> None:
    """A power of two of numbers from a multiple of itself on is a prefix, nothing else is."""
    assert nft.prefix_length(first, last, 32) == length


MEMBERS = tuple(tables.member(0xC0000200 + number, "rule/eth0/web") for number in range(1, 6))
IPV4 = (nft.KeyType.IPV4_ADDR,)


@pytest.mark.parametrize(
    ("operation", "line"),
    (
        (AddTable(), "add table inet sgagent"),
        (DestroyTable(), "delete table inet sgagent"),
        (AddChain(tables.STATE), "add chain generation: generation 1"),
        (Flush("chain", "a\x1b[2J"), "empty chain a\\x1b[2J"),
        (Flush("map", "a"), "empty map a"),
        (AddRule("a", nft.Rule((nft.Goto("b"),))), "add rule in chain a: goto b"),
        (
            AddRule("a", nft.Rule((nft.Limit(10, 20), nft.Log("default/eth0", 9)))),
            'add rule in chain a: limit rate 10/second burst 20 packets log prefix "default/eth0" group 9',
        ),
        (
            AddElements(
                "m", (nft.KeyType.INET_PROTO,), (nft.Element((nft.Interval.single(58),), nft.Drop()),)
            ),
            "add element icmpv6 of map m: icmpv6 : drop",
        ),
        (
            DeleteElements("m", IPV4, MEMBERS),
            (
                "delete 5 elements of map m: 192.0.2.1 : goto rule/eth0/web, 192.0.2.2 : goto rule/eth0/web, "
                "192.0.2.3 : goto rule/eth0/web, …"
            ),
        ),
        (Delete("ct helper", "ftp"), "delete foreign ct helper ftp"),
    ),
)
def test_an_operation_is_described_on_one_line(operation: AddTable, line: str) -> None:
    """What a plan does is said in a line for each operation, safe to print."""
    assert describe(operation) == line


def test_what_somebody_changed_is_named_by_object() -> None:
    """Each once, safe to print, and only the first few; a table that is gone, or made anew, is one object."""
    assert differences(tables.WHOLE, tables.WHOLE, ()) == ()
    assert differences(tables.WHOLE, None, ()) == ("table inet sgagent",)
    assert differences(tables.WHOLE, tables.ONE_MEMBER_LESS, ()) == ("element 192.0.2.1 of map peers/eth0",)
    found = differences(tables.WHOLE, tables.WHOLE, (f"map {tables.WHOLE.verdict_maps[0].name}",))
    assert found == ("table inet sgagent",)
    emptied = tuple(replace(chain, rules=()) for chain in tables.WHOLE.chains)
    found = differences(tables.WHOLE, replace(tables.WHOLE, chains=emptied), ("chain e\x1bvil",))
    assert "chain e\\x1bvil" in found
    assert len(found) == len(set(found)) == 5
