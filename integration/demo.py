"""Show the daemon at work: ``python -m integration.demo`` (``script/demo`` sets up its needs).

For each example a host and the world around it are built from network namespaces, the real daemon enforces
the example's groups on the host's interface, and each flow of the example is tried with real packets. A table
says what was expected, what was seen and what decided; at the end the daemon's metrics are scraped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from integration.flows import try_flows
from integration.lab import lab, wait_for
from integration.nameservers import DNS, knowing, on_the_wire
from integration.namespaces import remove_stale_namespaces
from integration.service import Service, service_on
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Decision, evaluate
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.policy_test.scenario import ExpectedPacket, ExpectedReply, ExpectedTraffic, disagreement
from sgagent.verify import Outcome
from tests.corpus import Example, examples

_FLOW, _DECIDER = 50, 22
"""Columns of the table."""

_WIDTH = 98
_PROOF_SECONDS = 30.0
_TEDIOUS = ("_bucket", "_created", "_bytes_total", "_sum", "_count")
"""Parts of the names of metrics that are many and say little here."""


@dataclass(frozen=True, slots=True)
class Row:
    """One flow of the table."""

    flow: str
    expected: Policy
    seen: Policy
    decider: str
    hits: int | None
    fault: str | None

    def __str__(self) -> str:
        """Return the line of the table."""
        hits = "" if self.hits is None else str(self.hits)
        flow = self.flow if len(self.flow) <= _FLOW else self.flow[: _FLOW - 1] + "…"
        verdicts = f"{self.expected.value:8}  {self.seen.value:6}"
        line = f"  {flow:{_FLOW}}  {verdicts}  {self.decider:{_DECIDER}} {hits:>4}"
        return f"{line}\n  ^ MISMATCH: {self.fault}" if self.fault else line.rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if everything was as expected, 2 for a case that is not there, else 1."""
    options = _options(arguments)
    chosen = [example for example in examples() if _is_chosen(example, options)]
    if unknown := [case for case in options.cases if not any(case in example.name for example in chosen)]:
        names = ", ".join(example.name for example in examples())
        print(f"script/demo: no such case: {unknown[0]!r} (there are {names})", file=sys.stderr)
        return 2
    remove_stale_namespaces()
    began = time.monotonic()
    faults, flows, proved, scrape = 0, 0, 0, ""
    for example in chosen:
        print(f"\n{example.name}   {_bound(example)}")
        print(f"  {'flow':{_FLOW}}  {'expected':8}  {'seen':6}  {'decided by':{_DECIDER}} hits")
        rows, is_proved, scrape = _show(example, options.interpreter)
        flows += len(rows)
        proved += is_proved
        faults += sum(row.fault is not None for row in rows)
    print(f"\nThe daemon's metrics, scraped over HTTP on {chosen[-1].name}:\n")
    print(_excerpt(scrape))
    seconds = time.monotonic() - began
    outcome = f"{faults} mismatches, {proved} tables proved"
    print(f"\n{len(chosen)} cases, {flows} flows, {outcome}, {seconds:.0f} seconds")
    return 1 if faults or proved < len(chosen) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/demo", description="Show the daemon at work on the examples."
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="parts of names of examples; all if none is given"
    )
    parser.add_argument("--vectors", action="store_true", help="the small vectors too")
    parser.add_argument("--interpreter", default=sys.executable, help="what runs the agent's modules")
    return parser.parse_args(arguments)


def _is_chosen(example: Example, options: argparse.Namespace) -> bool:
    """Tell whether an example is to be shown."""
    if options.cases:
        return any(case in example.name for case in options.cases)
    return options.vectors or not example.name.startswith("vectors/")


def _bound(example: Example) -> str:
    """Return the bindings, for the heading."""
    bindings = (
        f"{binding.interface} = {binding.network_interface_id or ', '.join(binding.security_group_ids)}"
        for binding in example.scenario.bindings
    )
    return "; ".join(bindings)


def _show(example: Example, interpreter: str) -> tuple[list[Row], bool, str]:
    """Run one example, print its rows, and return them, whether the agent proved its table, and a scrape."""
    scenario = example.scenario
    with (
        lab(*scenario.links) as built,
        tempfile.TemporaryDirectory(prefix="sgagent-demo-") as directory,
        service_on(built.host, Path(directory), interpreter) as agent,
        on_the_wire(built, knowing(scenario.names)) if scenario.names else nullcontext(),
    ):
        agent.verifies = True
        for document in example.definitions.iterdir():
            agent.define(document.read_text(), document.name)
        agent.configure(example.configuration() + (DNS if scenario.names else ""))
        by_pattern = set(scenario.links) - {binding.interface for binding in scenario.bindings}
        for number, link in enumerate(by_pattern):
            built.host.ip(f"link set {link} name later{number}")
        agent.start()
        for number, link in enumerate(by_pattern):  # is judged from its next packet on
            built.host.ip(f"link set later{number} name {link}")
        if scenario.names:
            wait_for(lambda: agent.metric("sgagent_dns_names", state="unresolved") == 0, "the names")
        forged = [one.packet for one in scenario.packets if one.expected.decided_by is DecidedBy.SPOOFED]
        answered = try_flows(built, [entry.packet for entry in scenario.packets], forged)
        verdicts = {
            entry.name: Policy.ACCEPT if passes else Policy.DROP
            for entry, passes in zip(scenario.packets, answered, strict=True)
        }
        hits = _Hits(agent, example.policy())
        rows = []
        for row in _rows(scenario.traffic, verdicts, example.policy(), hits):
            rows.append(row)
            print(row, flush=True)
        outcomes = [outcome.value for outcome in Outcome]
        wait_for(
            lambda: any(agent.metric("sgagent_verified", outcome=one) for one in outcomes),
            "a proof",
            _PROOF_SECONDS,
        )
        is_proved = agent.metric("sgagent_verified", outcome="proved") == 1
        print("  the table in the kernel is " + ("proved" if is_proved else "NOT PROVED"))
        return rows, is_proved, agent.scrape()


def _rows(
    traffic: Sequence[ExpectedTraffic], verdicts: dict[str, Policy], policy: ResolvedPolicy, hits: _Hits
) -> Iterator[Row]:
    """Return the rows of one example; a reply has been seen if its session was answered."""
    for entry in traffic:
        opener = entry.opener if isinstance(entry, ExpectedReply) else entry
        seen, decision = verdicts[opener.name], evaluate(policy, opener.packet)
        if isinstance(entry, ExpectedReply):
            decision = Decision(verdict=decision.verdict, decided_by=DecidedBy.SESSION)
        fault = disagreement(entry.expected, decision)
        if seen is not entry.expected.verdict:
            fault = f"{entry.expected.verdict.value} was expected, {seen.value} was seen"
        counted = hits.of(opener, decision)
        if decision.rule is not None and not counted:
            fault = fault or "the rule that decides has no hit"
        yield Row(entry.name, entry.expected.verdict, seen, _decider(decision), counted, fault)


def _decider(decision: Decision) -> str:
    """Return the decider, with the rule's name if it is one."""
    return decision.rule.rule_id if decision.rule else decision.decided_by.value


class _Hits:
    """The hits in the daemon's metrics."""

    def __init__(self, agent: Service, policy: ResolvedPolicy) -> None:
        """Scrape them."""
        self._families = agent.families()
        self._policy = policy

    def of(self, entry: ExpectedPacket, decision: Decision) -> int | None:
        """Return the hits of the decider; None where nothing is counted."""
        judge, direction = self._policy.judge(entry.packet.interface), entry.packet.direction
        if judge is None:
            return None
        interface = judge.name
        if decision.rule is not None:
            return self._value("rule", interface=interface, rule_id=decision.rule.rule_id)
        if decision.decided_by is DecidedBy.DEFAULT:
            return self._value("default", interface=interface, direction=direction.value)
        if decision.decided_by is DecidedBy.INNER:
            return self._value("inner", interface=interface)
        if decision.decided_by is DecidedBy.SPOOFED:
            return self._value("spoofed", interface=interface, direction=direction.value)
        return None

    def _value(self, what: str, **labels: str) -> int:
        """Return the value of the sample that has these labels."""
        samples = self._families[f"sgagent_{what}_packets"].samples
        return int(sum(sample.value for sample in samples if labels.items() <= sample.labels.items()))


def _excerpt(scrape: str) -> str:
    """Return the lines of a scrape that tell most, folded to the width of the table."""
    samples = [line for line in scrape.splitlines() if line.startswith("sgagent_")]
    telling = [line for line in samples if not any(word in line for word in _TEDIOUS)]
    return "\n".join([*map(_folded, telling), f"… and {len(samples) - len(telling)} more samples"])


def _folded(line: str) -> str:
    """Return a long line broken behind a comma."""
    if len(line) <= _WIDTH:
        return line
    place = line.rfind(",", 0, _WIDTH) + 1
    return f"{line[:place]}\n    {line[place:]}"


if __name__ == "__main__":
    sys.exit(main())
