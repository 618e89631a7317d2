"""Whatever the kernel says of the tables of others is read, and looked at, without a fault."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given, strategies as st

from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.policy_fact import BoundLink, PolicyFact
from sgagent.analysis.doctor.registry import diagnose
from sgagent.netlink import attribute
from sgagent.nft.kernel_table import FAULTS, KernelTable, read_tables

_NFTABLES = 10 << 8
EVIDENCE = PolicyFact(bound=(BoundLink(name="eth0"),))
NAMES = (
    *("meta", "ct", "payload", "bitwise", "cmp", "range", "lookup", "immediate", "match", "target", "dynset"),
    *(
        "flow_offload",
        "notrack",
        "synproxy",
        "reject",
        "numgen",
        "fib",
        "hash",
        "byteorder",
        "fwd",
        "quota",
        "?",
    ),
)


def message(kind: int, family: int, payload: bytes) -> bytes:
    """Return a message of the kernel."""
    content = struct.pack("=BBH", family, 0, 0) + payload
    header = struct.pack("=IHHII", 16 + len(content), _NFTABLES | kind, 0, 1, 0)
    return header + content + bytes(-len(content) % 4)


def number(value: int) -> bytes:
    """Return a number as netlink has it."""
    return struct.pack(">I", value & 0xFFFFFFFF)


values = st.one_of(
    st.integers(-5, 24).map(number),
    st.binary(max_size=20),
    st.binary(max_size=16).map(lambda value: attribute(1, value)),
    st.integers(-5, 1).map(lambda code: attribute(2, attribute(1, number(code)) + attribute(2, b"there\0"))),
    st.sampled_from([b"CONNMARK\0", b"CT\0", b"connmark\0", b"eth0\0", b"there\0"]),
)
data = st.lists(st.tuples(st.integers(1, 9), values), max_size=8).map(
    lambda found: b"".join(attribute(kind, value) for kind, value in found)
)
expressions = st.builds(
    lambda name, content: attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, content)),
    st.sampled_from(NAMES),
    data,
)
rules = st.builds(
    lambda chain, found: message(
        6,
        1,
        attribute(1, b"other\0")
        + attribute(2, chain)
        + attribute(3, bytes(8))
        + attribute(4, b"".join(found)),
    ),
    st.sampled_from([b"here\0", b"there\0"]),
    st.lists(expressions, max_size=8),
)
CHAINS = message(0, 1, attribute(1, b"other\0")) + b"".join(
    message(3, 1, attribute(1, b"other\0") + attribute(3, name + b"\0") + hook)
    for name, hook in (
        (
            b"here",
            attribute(4, attribute(1, number(0)) + attribute(2, number(-150))) + attribute(5, number(1)),
        ),
        (b"there", b""),
    )
)


@given(st.lists(rules, max_size=5))
def test_any_program_is_looked_at(found: list[bytes]) -> None:
    """Expressions of any form, in any order."""
    tables = read_tables(CHAINS + b"".join(found))
    assert sum(len(chain.rules) for chain in tables[0].chains) == len(found)
    diagnose(HostEvidence(policy=EVIDENCE, tables=tuple(tables)))


@given(st.lists(rules, min_size=1, max_size=3), st.data())
def test_damaged_messages_are_refused_or_looked_at(found: list[bytes], draw: st.DataObject) -> None:
    """Octets that are others, and an end too soon."""
    text = bytearray(CHAINS + b"".join(found))
    for place in draw.draw(st.lists(st.integers(0, len(text) - 1), max_size=20)):
        text[place] = draw.draw(st.integers(0, 255))
    tables: list[KernelTable] = []
    with contextlib.suppress(*FAULTS):
        tables = read_tables(bytes(text[: draw.draw(st.integers(0, len(text)))]))
    diagnose(HostEvidence(policy=EVIDENCE, tables=tuple(tables)))
