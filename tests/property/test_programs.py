"""What the decoder makes of programs is what they do, packet by packet."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given

from sgagent.nft.own_table import decode_ruleset
from sgagent.nft.ruleset import Ruleset
from sgagent.verify.interpreter import run
from sgagent.verify.packets import PacketAtHook
from sgagent.verify.programs import read_table
from tests.aimed_packets import Edges, Search
from tests.assembler import altered_tables, dump_of
from tests.bytecode_machine import Machine, NotModelledError
from tests.draws import SeededDraws
from tests.rulesets import rulesets
from tests.verified_cases import at_hook, verified_case

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
TABLES = range(2_000 if IS_FULL else 12)
ALTERATIONS, PACKETS = 3, 40
NOT_LOADED = (KeyError, IndexError, ValueError, RecursionError)
"""What the machine stumbles over where the kernel would have refused the rule."""


@given(desired=rulesets())
def test_a_table_survives_its_program(desired: Ruleset) -> None:
    """Assembling and decoding are each other's inverse."""
    assert decode_ruleset(dump_of(desired)) == (desired, ())


def packets_for(table: Ruleset, seed: int) -> list[PacketAtHook]:
    """Return packets at and beside what a table compares, with headers that are whole in themselves."""
    draws, search = SeededDraws(seed), Search(table, Edges(table))
    found = (at_hook(search.anything(draws)) for _ in range(PACKETS))
    return [whole(one) for one in found if one.hook in ("prerouting", "postrouting")]


def whole(packet: PacketAtHook) -> PacketAtHook:
    """Return a packet in which the type of ICMP is the first byte of what stands in the place of ports."""
    if packet.icmp_type is None or packet.source_port is None:
        return packet
    return replace(packet, source_port=packet.icmp_type << 8 | packet.source_port & 0xFF)


@pytest.mark.parametrize("seed", TABLES)
def test_a_program_does_what_it_is_read_as(seed: int) -> None:
    """As compiled, and with faults in it that no notation has; one that reads as before does as before."""
    case = verified_case(seed, most_rules=6)
    packets = packets_for(case.table, seed)
    before = dump_of(case.table)
    assert decode_ruleset(before) == (case.table, ())
    machine = Machine(before)
    expected = [machine.run(packet) for packet in packets]
    for dump in (before, *altered_tables(case.table, SeededDraws(seed), ALTERATIONS)):
        is_kept = decode_ruleset(dump) == (case.table, ())
        table, altered = read_table(dump), Machine(dump)
        for packet, outcome in zip(packets, expected, strict=True):
            try:
                found = altered.run(packet)
            except NotModelledError:
                assert not is_kept
                assert table.unsupported
                break
            except NOT_LOADED:
                assert not is_kept
                break
            if is_kept:
                assert found == outcome
            if not table.unsupported:
                trace = run(table, packet)
                read = trace.verdict.value == "accept", list(trace.counters), trace.mark
                assert read == (found.is_accepted, found.counters, found.mark)
