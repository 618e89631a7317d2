"""Have the kernel judge the packets of a policy's tests, in a process and a network of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from sgagent.compiler.compile import Compiled, compile_
from sgagent.compiler.marks import MarkLayout, first_state
from sgagent.core.errors import (
    KernelRefusedError,
    NotPermittedError,
    RehearsalError,
    SgagentError,
    UsageError,
)
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.forked_listing import WorkerDiedError, guarded
from sgagent.dataplane.libnftables import Context, RefusedError
from sgagent.dataplane.privileges import end_with_parent
from sgagent.nft.json_commands import encode_plan
from sgagent.nft.plan import make_plan
from sgagent.packets import ExpectedPacket, ExpectedReply, ExpectedTraffic, LeftOut, Outcome
from sgagent.rehearsal.hearing import Heard, outcome
from sgagent.rehearsal.isolation import enter_private_network
from sgagent.rehearsal.network import Network, UnsentError, packets_by_counter
from sgagent.rehearsal.onwire import as_answer, as_wire
from sgagent.rehearsal.wire import WirePacket

Tick = Callable[[], None]

_ERRORS: Mapping[str, type[SgagentError]] = {
    kind.__name__: kind for kind in (KernelRefusedError, NotPermittedError, RehearsalError, UsageError)
}
"""What the other process may raise, and this one raises again."""


def rehearse(
    policy: ResolvedPolicy, traffic: Sequence[ExpectedTraffic], layout: MarkLayout, tick: Tick
) -> tuple[Outcome, ...]:
    """Return what becomes of packets when the kernel enforces the policy.

    To be called from a process with one thread.

    Args:
        policy: what to enforce; its links are made anew and are no links of this host.
        traffic: the packets, and answers to them.
        layout: of the marks of sessions.
        tick: is called, in the other process, after each packet.

    Raises:
        NotPermittedError: there can be no private network.
        KernelRefusedError: the kernel does not take the policy.
        RehearsalError: something went wrong that is not the policy's fault.
        UsageError: a tool is not installed.
    """
    if not traffic:
        return ()
    compiled = compile_(policy, layout, first_state([one.name for one in policy.interfaces], layout))
    try:
        text = guarded(lambda: _in_private(policy, compiled, traffic, tick), RehearsalError)
    except WorkerDiedError as error:
        raise RehearsalError(f"the process that did it has died: {error}") from error
    answers = json.loads(text)
    if "error" in answers:
        raise _ERRORS[answers["error"]](answers["reason"])
    return tuple(
        outcome(policy, compiled, entry, _read(answer))
        for entry, answer in zip(traffic, answers["answers"], strict=True)
    )


def _read(answer: Mapping[str, object]) -> Heard | LeftOut:
    """Return what the other process has written about a packet."""
    if "left_out" in answer:
        return LeftOut(reason=str(answer["left_out"]))
    counted = answer["counted"]
    assert isinstance(counted, list)  # noqa: S101 - the other process is this program; for the type checker
    return Heard(passed=bool(answer["passed"]), counted=tuple(map(str, counted)))


def _in_private(
    policy: ResolvedPolicy, compiled: Compiled, traffic: Sequence[ExpectedTraffic], tick: Tick
) -> bytes:
    """Do the rehearsal in this process, which does nothing else, and write what came of it."""
    try:
        enter_private_network()
        end_with_parent()  # once more, as a new user namespace may have ended that
        stage = _Stage(Network(tuple(interface.name for interface in policy.interfaces), Context()))
        stage.set_up(compiled)
        content: object = {"answers": [_written(answer) for answer in stage.play(traffic, tick)]}
    except SgagentError as error:
        content = {"error": type(error).__name__, "reason": str(error)}
    except RefusedError as refusal:
        content = {"error": KernelRefusedError.__name__, "reason": refusal.reason}
    except (OSError, subprocess.SubprocessError) as error:
        content = {"error": RehearsalError.__name__, "reason": str(error)}
    return json.dumps(content).encode()


def _written(answer: Heard | LeftOut) -> Mapping[str, object]:
    match answer:
        case Heard():
            return {"passed": answer.passed, "counted": answer.counted}
        case LeftOut():
            return {"left_out": answer.reason}
        case _:
            assert_never(answer)


@dataclass(slots=True)
class _Stage:
    """Sends packets one after the other, and looks after each which counters have moved."""

    network: Network
    _opened: set[str] = field(default_factory=set)
    """The names of the packets that have opened sessions."""

    def set_up(self, compiled: Compiled) -> None:
        """Build the links and load the policy."""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        self.network.build()
        self.network.context.run(encode_plan(make_plan(compiled.ruleset, None)))

    def play(self, traffic: Sequence[ExpectedTraffic], tick: Tick) -> list[Heard | LeftOut]:
        """Return what was heard of each packet: first of those that open nothing, then of answers."""
        answers: dict[str, Heard | LeftOut] = {}
        for keeps_sessions, kind in ((False, ExpectedPacket), (True, ExpectedReply)):
            self.network.watch(keeps_sessions=keeps_sessions)
            for entry in traffic:
                if isinstance(entry, kind):
                    answers[entry.name] = self._hear(entry, answers)
                    tick()
        self.network.close()
        return [answers[entry.name] for entry in traffic]

    def _hear(self, entry: ExpectedTraffic, earlier: Mapping[str, Heard | LeftOut]) -> Heard | LeftOut:
        try:
            match entry:
                case ExpectedPacket():
                    return self._send(as_wire(entry.packet), entry.packet, entry.packet.direction)
                case ExpectedReply():
                    return self._answer(entry, earlier[entry.opener.name])
                case _:
                    assert_never(entry)
        except UnsentError as error:
            return LeftOut(reason=str(error))

    def _answer(self, entry: ExpectedReply, opened: Heard | LeftOut) -> Heard | LeftOut:
        """Open the session for good and answer; what does not pass opens none, and nothing answers it."""
        opener = entry.opener.packet
        answer = as_answer(opener)
        if isinstance(opened, LeftOut) or not opened.passed:
            return opened
        if answer is None:
            return LeftOut(reason="nothing answers such a packet")
        if entry.opener.name not in self._opened:
            self._opened.add(entry.opener.name)
            self._send(as_wire(opener), opener, opener.direction)
        inwards = opener.direction is Direction.INGRESS
        return self._send(answer, opener, Direction.EGRESS if inwards else Direction.INGRESS)

    def _send(self, wire: WirePacket, packet: Packet, direction: Direction) -> Heard:
        before = self._counters()
        passed = self.network.passes(wire, packet.interface, direction)
        after = self._counters()
        return Heard(passed=passed, counted=tuple(name for name in after if after[name] > before[name]))

    def _counters(self) -> Mapping[str, int]:
        return packets_by_counter(self.network.context.list_counters())
