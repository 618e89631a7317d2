"""Measure the cost for a packet of the kernel's reports of drops.

``python -m bench.tellingcost`` measures only this, as root, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from bench.frames import Frames
from bench.hosts import BenchHost, bench_host
from bench.packetcost import CONNTRACK_ONLY, FULL, LAYOUT, Effort, compiled_text, measured_costs, take_turns
from bench.policies import INTERFACE, BenchPolicy, invent
from bench.results import PacketCost
from bench.sizes import SIZES
from bench.traffic import Aim, choose
from sgagent.compiler.compilation import compile_
from sgagent.core.model import Policy
from sgagent.core.policy import FlowLogging
from sgagent.dataplane.nflog import open_log
from sgagent.nft.marks import first_state
from sgagent.nft.text import render

SILENT = "sgagent, which tells of nobody"
TELLING = "sgagent, which tells of drops: 10 a second"
UNHEARD = "the same, and nobody listens"
_DROPS = FlowLogging(verdicts=frozenset({Policy.DROP}))


def measure_telling(policy: BenchPolicy, effort: Effort) -> Iterator[PacketCost]:
    """Measure packets that the default drops, and packets that are spread over all rules."""
    text = telling_text(policy)
    rulesets = {CONNTRACK_ONLY: "", SILENT: compiled_text(policy), TELLING: text, UNHEARD: text}
    with contextlib.ExitStack() as stack:
        hosts = {name: stack.enter_context(bench_host(ruleset)) for name, ruleset in rulesets.items()}
        stack.enter_context(_listener(hosts[TELLING]))
        for host in hosts.values():
            host.close_edge()
        for aim in (Aim.NONE, Aim.SPREAD):
            rounds = take_turns(hosts, Frames(choose(policy, aim, effort.frames)), effort)
            yield from measured_costs(rounds, policy, "new", aim.value, CONNTRACK_ONLY)


def telling_text(policy: BenchPolicy) -> str:
    """Return the policy's ruleset as an agent has it that keeps a flow log of drops."""
    return render(
        compile_(policy.resolved, LAYOUT, first_state([INTERFACE], LAYOUT), _DROPS).ruleset, persist=False
    )


def _listener(host: BenchHost) -> socket.socket:
    with host.host.entered():
        return open_log(_DROPS.group)


def main() -> None:
    """Print the costs above those of connection tracking alone."""
    for size in SIZES[:2]:
        for cost in measure_telling(invent(size), FULL):
            print(f"{size}  {cost.aim:24}  {cost.contender:44}  {cost.above.median:6.0f} ns")


if __name__ == "__main__":
    main()
