"""What is encoded is text that anybody can read, and what is decoded can be anything."""

from __future__ import annotations

import json

from hypothesis import given, strategies as st

from sgagent.nft.diff import make_plan
from sgagent.nft.own_table import decode_ruleset
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import render
from sgagent.nft.transactions import encode_plan
from sgagent.verify.programs import read_table
from sgagent.verify.verified_table import VerifiedTable
from tests import bytecode as b
from tests.rulesets import rulesets


@given(desired=rulesets())
def test_a_table_is_encoded_as_text(desired: Ruleset) -> None:
    """The commands survive JSON. The text destroys what stands, and is one block of printable lines."""
    commands = encode_plan(make_plan(desired, None))
    assert json.loads(json.dumps(commands)) == commands
    text = render(desired, persist=True)
    assert text.startswith("destroy table inet sgagent\n\ntable inet sgagent {\n\tflags persist\n")
    assert text == render(desired, persist=True)
    assert all(line.lstrip("\t").isprintable() for line in text.splitlines())
    assert "persist" not in render(desired, persist=False)


def whole_dump() -> bytes:
    """Return a table with something of everything."""
    ipv4, tcp = b.meta(15) + b.compare(b"\x02"), b.meta(16) + b.compare(b"\x06")
    dump = b.table_with(
        *(ipv4, b.payload(1, 12, 4), b.mask(b"\xff\0\0\0"), b.compare(b"\x0a\0\0\0")),
        *(tcp, b.payload(2, 2, 2), b.within(b"\0\x50", b"\0\x5a"), b.look_up("set")),
        *(b.ct(3), b.swap(4), b.set_mark(), b.count("c"), b.look_up("map", is_map=True)),
        b.verdict(b.GOTO, "to"),
        others=("to",),
    )
    dump.base("base").counter("c").set_of("set", 2, flags=7).set_of("map", 4, flags=0xC, key_type=7)
    drop = b.element(bytes(4), verdict_of=b.verdict_data(b.DROP))
    return dump.elements("map", drop, b.element(b"\xff\0\0\0", b.INTERVAL_END)).content


WHOLE = whole_dump()


@given(place=st.integers(0, len(WHOLE) - 1), replaced=st.binary(min_size=1, max_size=8))
def test_a_spoilt_dump_does_not_make_the_decoder_fail(place: int, replaced: bytes) -> None:
    """Anything may stand anywhere."""
    spoilt = WHOLE[:place] + replaced + WHOLE[place + len(replaced) :]
    for dump in (spoilt, WHOLE[:place]):
        ruleset, foreign = decode_ruleset(dump)
        assert isinstance(ruleset, Ruleset)
        assert all(isinstance(name, str) for name in foreign)
        assert isinstance(read_table(dump), VerifiedTable)
