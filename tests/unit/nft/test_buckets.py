"""Elements of a meter's set: which of them the rule's own packets put in."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from sgagent.nft.buckets import one_of_each
from sgagent.nft.own_table import decode_ruleset
from tests import bytecode as b

SET = "limit/eth0/lim/ipv4/10-60-20"


def limit(
    rate: int = 10, seconds: int = 60, burst: int = 20, *, is_of_bytes: bool = False, flags: int = 1
) -> bytes:
    """Return the statement of an element."""
    numbers = (number64(1, rate), number64(2, seconds), b.number(3, burst))
    return b.nested(
        7, b.name(1, "limit"), b.nested(2, *numbers, b.number(4, is_of_bytes), b.number(5, flags))
    )


def number64(kind: int, value: int) -> bytes:
    """Return an attribute that is a number of 8 bytes."""
    return b.attribute(kind, struct.pack(">Q", value))


def ends(milliseconds: int = 90_000) -> bytes:
    """Return the time that an element has left."""
    return number64(5, milliseconds)


def source(last: int) -> bytes:
    """Return a key."""
    return bytes((10, 0, 0, last))


def dumped(*elements: bytes, name: str = SET, length: int = 4, key_type: int = 7) -> b.Dump:
    """Return a dump of a set with elements."""
    beside = b.nested(9, b.number(1, 65536)), number64(11, 120_000)
    found = b.Dump().declare().set_of(name, length, flags=0x30, key_type=key_type, beside=beside)
    return found.elements(name, *elements)


def strange(dump: b.Dump) -> str | None:
    """Return what is found in the only set."""
    ruleset, foreign = decode_ruleset(dump.content)
    assert foreign == ()
    (found,) = ruleset.meter_sets
    return found.strange_bucket


def test_buckets_of_the_limit_are_ours() -> None:
    """However much time they have left, with the kernel's padding or without; or none at all."""
    padding = b.attribute(8, b"")
    own = [b.element(source(1), limit(), ends()), b.element(source(2), limit(), padding, ends(1))]
    assert strange(dumped(*own)) is None
    assert strange(dumped()) is None


def test_buckets_of_ipv6_sources_are_ours_too() -> None:
    """Their keys are longer."""
    name = "limit/eth0/lim/ipv6/10-60-20"
    key = ip_address("2001:db8::1").packed
    own, other = b.element(key, limit(), ends()), b.element(key, limit(11), ends())
    assert strange(dumped(own, name=name, length=16, key_type=8)) is None
    assert strange(dumped(own, other, name=name, length=16, key_type=8)) == (
        "2001:db8::1 with limit rate over 11/minute burst 20 packets"
    )


@pytest.mark.parametrize(
    ("beside", "said"),
    (
        ((limit(10_000, 1, 5_000), ends()), "limit rate over 10000/second burst 5000 packets"),
        ((limit(seconds=7), ends()), "limit rate over 10/7s burst 20 packets"),
        ((limit(burst=21), ends()), "limit rate over 10/minute burst 21 packets"),
        ((limit(flags=0), ends()), "limit rate 10/minute burst 20 packets"),
        ((limit(is_of_bytes=True), ends()), "limit rate over 10/minute burst 20 bytes"),
        ((b.nested(7, b.name(1, "quota"), b.nested(2)), ends()), "quota"),
        ((limit(), number64(4, 300_000), ends()), "limit rate over 10/minute burst 20 packets, timeout 300s"),
        ((limit(),), "limit rate over 10/minute burst 20 packets, no end"),
        ((ends(),), "no limit"),
        ((b.nested(11, limit(), limit()), ends()), "several statements"),
        (
            (limit(), ends(), b.attribute(6, b.comment("x"))),
            "limit rate over 10/minute burst 20 packets, a comment",
        ),
        ((limit(), b.number(3, 2), ends()), "limit rate over 10/minute burst 20 packets, flags"),
    ),
)
def test_any_other_bucket_is_named(beside: tuple[bytes, ...], said: str) -> None:
    """By its source, and by what it says beside its tokens, which are state."""
    own = b.element(source(1), limit(), ends())
    assert strange(dumped(own, b.element(source(3), *beside))) == f"10.0.0.3 with {said}"


def test_one_whose_limit_is_missing_is_named_so() -> None:
    """The kernel asks no bucket then, and each packet of the source is beyond the limit."""
    assert strange(dumped(b.element(source(3), ends()))) == "10.0.0.3 with no limit"


def test_of_equal_buckets_one_message_is_left() -> None:
    """Sources and times are no difference; of what differs, nothing is left out."""
    lists = [[b.element(source(n), limit(), ends(n)) for n in range(first, first + 9)] for first in (0, 9)]
    dump = dumped(*lists[0]).elements(SET, *lists[1])
    assert one_of_each(dump.content) == dump.messages[2]
    dump.elements(SET, b.element(source(20), limit(), ends()), b.element(source(21), limit(11), ends()))
    assert one_of_each(dump.content) == dump.messages[2] + dump.messages[4]


@pytest.mark.parametrize(
    "other",
    (
        b.element(source(3)),
        b.element(source(3), limit()),
        b.element(source(3), limit(), number64(4, 0)),
        b.element(source(3), limit(), ends(), b.attribute(6, bytes(8))),
        b.nested(1, b.number(3, 2)),
        b.nested(1, limit(), b.number(3, 2)),
        b"\4\0\1\0",
    ),
)
def test_elements_of_another_form_are_not_taken_for_equal(other: bytes) -> None:
    """Such as one without key, limit, end, or all of them."""
    dump = dumped(b.element(source(1), limit(), ends())).elements(SET, other)
    assert one_of_each(dump.content) == dump.messages[2] + dump.messages[3]
    assert strange(dump) is not None
