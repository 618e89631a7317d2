"""The verifier's reading of a table agrees with the kernel, packet by packet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest

from integration.verified_packets import with_flags_as_made
from integration.verify_stage import Stage, stage
from sgagent.core.model import Family, Policy
from sgagent.dataplane.libnftables import RefusedError
from sgagent.nft.diff import make_plan
from sgagent.nft.transactions import encode_plan
from sgagent.verify import Outcome
from sgagent.verify.expectation import stated_memory
from sgagent.verify.interpreter import run
from sgagent.verify.packets import NO_PROTOCOL, CtState, PacketAtHook
from sgagent.verify.programs import read_table
from sgagent.verify.proof import prove
from sgagent.verify.verified_table import VerifiedTable, table_of
from tests.aimed_packets import Edges, Search, Target
from tests.alterable import AlterableTable
from tests.differential import find_difference
from tests.draws import SeededDraws
from tests.planted_faults import KINDS, draw_fault, load_commands
from tests.verified_cases import VerifiedCase, at_hook, verified_case

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
FIRST_SEED = int(os.environ.get("SGAGENT_SEED", "1"))
CASES = 300 if IS_FULL else 8
PACKETS = 1500
"""Drawn for a case; a third of them can be sent."""

SHOWN_KINDS = tuple(kind for kind in KINDS if kind not in ("hook changed", "priority changed"))
"""Packets of the test are judged at the hooks that are ours, as they are on the wire."""

LINKS = ("eth0", "br-0f.12", "eth9")
"""The last one is bound by nobody."""


def drawn_packets(case: VerifiedCase) -> list[PacketAtHook]:
    """Return packets that are aimed at rules of the case's table."""
    draws = SeededDraws(case.seed)
    search = Search(case.table, Edges(case.table))
    places = AlterableTable(case.table).places["rule"]
    targets = [Target(chain=place.chain, rule=place.rule) for place in places]
    drawn = (
        search.aimed(draws, draws.choice(targets)) if targets else search.anything(draws)
        for _ in range(PACKETS)
    )
    return [with_flags_as_made(one) for one in map(at_hook, drawn) if one.interface in LINKS]


def mismatches(kernel: Stage, table: VerifiedTable, packets: Sequence[PacketAtHook]) -> tuple[list[str], int]:
    """Return how kernel and verifier differ, and how many packets were judged."""
    before = kernel.counters()
    observed = kernel.play(packets)
    found, hits, number = [], Counter[str](), 0
    for packet, seen in zip(packets, observed, strict=True):
        if seen is None:
            continue
        number += 1
        trace = run(table, packet)
        hits.update(trace.counters)
        if seen.accepted is not (trace.verdict is Policy.ACCEPT):
            found.append(f"{'passes' if seen.accepted else 'is dropped'}: {packet}: {trace}")
        elif seen.accepted and seen.mark != trace.mark:
            found.append(f"has mark {seen.mark}: {packet}: {trace}")
    after = kernel.counters()
    counted = Counter({name: packets - before[name] for name, packets in after.items()})
    found += [
        f"{name} counts {counted[name]}, not {hits[name]}" for name in after if counted[name] != hits[name]
    ]
    return found, number


def test_the_kernel_does_what_the_verifier_reads(capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, counter and mark: of new, live, related, untracked and invalid packets of both families."""
    wrong: list[str] = []
    number = 0
    with stage(*LINKS) as kernel:
        for seed in range(FIRST_SEED, FIRST_SEED + CASES):
            case = verified_case(seed, links=LINKS[:2], has_limits=False)
            kernel.load(encode_plan(make_plan(case.table, None)))
            found, judged = mismatches(kernel, read_table(kernel.dump()), drawn_packets(case))
            wrong += [f"seed {seed}: {text}" for text in found]
            number += judged
    with capsys.disabled():
        print(f"\n  {number} packets, {len(wrong)} mismatches")
    assert not wrong, "\n".join(wrong[:10])
    assert number > 250 * CASES


def test_headers_that_are_cut_off() -> None:
    """The kernel applies the rules for all protocols to a packet of IPv6 without an upper layer."""
    network = 0x20010DB8 << 96
    places = product(("prerouting", "postrouting"), LINKS, (CtState.INVALID, CtState.UNTRACKED))
    packets = [
        PacketAtHook(
            hook=hook,
            interface=link,
            family=Family.IPV6,
            protocol=NO_PROTOCOL,
            source=network | number,
            destination=network | 0x99,
            state=state,
        )
        for number, (hook, link, state) in enumerate(places, start=1)
    ]
    accepted = 0
    with stage(*LINKS) as kernel:
        for seed in range(1, 13):
            case = verified_case(seed, links=LINKS[:2], has_limits=False)
            kernel.load(encode_plan(make_plan(case.table, None)))
            table = read_table(kernel.dump())
            found, judged = mismatches(kernel, table, packets)
            assert (found, judged) == ([], len(packets)), f"seed {seed}"
            accepted += sum(run(table, packet).verdict is Policy.ACCEPT for packet in packets)
    on_others = 12 * len(packets) // len(LINKS)
    assert on_others < accepted < 12 * len(packets)


def on_a_link(packet: PacketAtHook) -> PacketAtHook:
    """Return the packet on a link that is there, if it is on one that nobody names."""
    return replace(packet, interface=LINKS[-1]) if packet.interface.startswith("other") else packet


@pytest.mark.parametrize("start", range(FIRST_SEED, FIRST_SEED + (2_000 if IS_FULL else 30), 30))
def test_the_kernel_shows_what_the_verifier_refutes(start: int) -> None:
    """An altered table is refuted as the kernel lists it, and the packet behaves there as is said."""
    tally: Counter[str] = Counter()
    with stage(*LINKS) as kernel:
        for seed in range(start, start + 30):
            case = verified_case(seed, links=LINKS[:2], most_rules=10, has_limits=False)
            fault = draw_fault(AlterableTable(case.table), SeededDraws(seed), SHOWN_KINDS)
            try:
                kernel.load(load_commands(fault))
            except RefusedError:
                tally["refused"] += 1
                continue
            table = read_table(kernel.dump())
            proof = prove(table, case.policy, memory=stated_memory(table_of(case.table)))
            if proof.counterexample is None:
                tally[proof.outcome.value] += 1
                assert proof.outcome is Outcome.PROVED, f"seed {seed}: {fault}: {proof.unsupported}"
                assert find_difference(case.table, fault, SeededDraws(seed)) is None, f"seed {seed}: {fault}"
                continue
            packet = with_flags_as_made(on_a_link(proof.counterexample.packet))
            found, judged = mismatches(kernel, table, [packet])
            assert not found, f"seed {seed}: {fault}: {found}"
            tally["shown" if judged else "not sendable"] += 1
    assert tally["shown"] >= 12, tally
