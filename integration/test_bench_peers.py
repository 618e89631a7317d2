"""The bench of the peers runs one of them on the kernel, and leaves the rest alone."""

from __future__ import annotations

import contextlib

import pytest

from bench.packetcost import Effort
from bench.peers.contenders import COMMAND, CONTENDERS
from bench.peers.figures import Operation
from bench.peers.measuring import Bout, measure_packets
from bench.peers.watch import choose_probes
from bench.policies import invent
from bench.sizes import SIZES
from integration.namespaces import run

NAMES = ("nft, a list", COMMAND)
"""Those that need no package of another's."""

EFFORT = Effort(rounds=2, seconds=0.005, frames=256)


@pytest.mark.long
def test_two_contenders_decide_as_the_policy_says() -> None:
    """Each does all that is asked of it, no packet is decided otherwise, and nothing else changes."""
    before = run("nft", "list", "tables")
    policy = invent(SIZES[0])
    probes = choose_probes(policy)
    with contextlib.ExitStack() as stack:
        bouts = {name: Bout(name, policy, probes, repeats=1).measure(stack) for name in NAMES}
        hosts = {name: host for name, (_, host) in bouts.items() if host is not None}
        costs = list(measure_packets(policy, hosts, EFFORT))
    for figures, _ in bouts.values():
        assert not figures.failures
        assert set(figures.seconds) == {operation.value for operation in Operation}
        assert figures.wrong is not None
        assert (figures.wrong.kept_out, figures.wrong.let_in) == (0, 0)
        assert figures.stream is not None
        assert figures.stream.sent > 0
        assert figures.stream.let_in == 0
        assert figures.counted is not None
        assert figures.counted.before > 0
    assert {cost.contender for cost in costs} > set(NAMES)
    assert run("nft", "list", "tables") == before
    assert set(NAMES) < set(CONTENDERS)
