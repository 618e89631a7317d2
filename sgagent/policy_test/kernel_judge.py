"""Test packets against the kernel, in a child process with a private network namespace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from sgagent.compiler.compilation import Compiled, compile_
from sgagent.core.clauses import DecidedBy
from sgagent.core.counter_keys import RuleCounter
from sgagent.core.errors import KernelRefusedError, NotPermittedError, RehearsalError, SgagentError
from sgagent.core.evaluate import Decision, Packet
from sgagent.core.explanation import step_of
from sgagent.core.model import ICMPV6, Direction, Family, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.libnftables import Context, RefusedError, WorkerDiedError, guarded
from sgagent.dataplane.privileges import end_with_parent
from sgagent.nft.diff import make_plan
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.ruleset import TABLE
from sgagent.nft.transactions import encode_plan
from sgagent.policy_test.network import Network, UnsentError, enter_private_network
from sgagent.policy_test.packet_bytes import WirePacket, encode_packet, encode_reply
from sgagent.policy_test.scenario import (
    ExpectedPacket,
    ExpectedReply,
    ExpectedTraffic,
    LeftOut,
    PacketOutcome,
    decide_by_specification,
)

Tick = Callable[[], None]

_ERRORS: Mapping[str, type[SgagentError]] = {
    kind.__name__: kind for kind in (KernelRefusedError, NotPermittedError, RehearsalError)
}
"""The errors that the child process reports and the parent raises again."""

_TRACKED_BY_SOME_KERNELS = frozenset({137, 151, 152})
"""ICMPv6 types that conntrack of some kernels calls invalid, of others ignores: redirects, and advertisements
and solicitations of multicast routers (RFC 4861, RFC 4286)."""

_UNCOUNTED = (DecidedBy.SESSION, DecidedBy.ALWAYS)
"""What accepts packets without a counter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPacket:
    """The kernel's treatment of a packet."""

    passed: bool
    counted: Sequence[str]
    """The names of the counters that increased."""


_Answer = ObservedPacket | LeftOut


def judge_by_kernel(
    policy: ResolvedPolicy, traffic: Sequence[ExpectedTraffic], layout: MarkLayout, tick: Tick
) -> tuple[PacketOutcome, ...]:
    """Return the outcome of each packet when the kernel enforces the policy.

    The caller's process must have one thread.

    Args:
        policy: the policy to enforce, on links of the private namespace with the same names.
        traffic: packets and replies to them.
        layout: of the marks of sessions.
        tick: is called after each packet, in the child process.

    Raises:
        NotPermittedError: this process may not make a network namespace.
        KernelRefusedError: the kernel rejects the ruleset.
        RehearsalError: the network could not be made, or the child process died.
    """
    if not traffic:
        return ()
    # One source may send all packets of a test, which is no flood, and no packet is a user's (§13.3).
    judged = policy.without_limits().with_judges(
        lambda one: one.with_rules(lambda rule: rule.conditions.local is None)
    )
    compiled = compile_(judged, layout, first_state(policy.remembering, layout))
    try:
        text = guarded(lambda: _run_in_child(policy, compiled, traffic, tick), RehearsalError)
    except WorkerDiedError as error:
        raise RehearsalError(f"the process that sent the packets has died: {error}") from error
    report = json.loads(text)
    if "error" in report:
        raise _ERRORS[report["error"]](report["reason"])
    found = (LeftOut(**one) if "reason" in one else ObservedPacket(**one) for one in report["answers"])
    return tuple(outcome(policy, compiled, entry, one) for entry, one in zip(traffic, found, strict=True))


def outcome(
    policy: ResolvedPolicy, compiled: Compiled, entry: ExpectedTraffic, observed: _Answer
) -> PacketOutcome:
    """Return the outcome of a packet from the kernel's treatment of it.

    If the kernel decides other than the specification, that is a fault of sgagent, and the outcome says so.
    A packet that only some kernels call invalid is left out on those.
    """
    if isinstance(observed, LeftOut):
        return PacketOutcome(entry=entry, answer=observed)
    due = decide_by_specification(policy, entry)
    seen = _decision(policy, compiled, observed, due)
    if _agree(seen, due, entry):
        return PacketOutcome(entry=entry, answer=due)
    if seen.decided_by is DecidedBy.INVALID and _depends_on_kernel(entry):
        reason = "this kernel calls such a message invalid; others do not"
        return PacketOutcome(entry=entry, answer=LeftOut(reason=reason))
    by = due.rule.rule_id if due.rule else due.decided_by.value
    suspicion = f"this is a fault of sgagent, as the specification says {due.verdict.value} by {by}"
    return PacketOutcome(entry=entry, answer=seen, suspicion=suspicion)


def _depends_on_kernel(entry: ExpectedTraffic) -> bool:
    packet = entry.opener.packet
    is_message = packet.family is Family.IPV6 and packet.protocol == ICMPV6.number
    return is_message and packet.icmp_type in _TRACKED_BY_SOME_KERNELS


def _agree(seen: Decision, due: Decision, entry: ExpectedTraffic) -> bool:
    """Return whether the kernel decided as the specification does.

    For replies only the verdict counts: a reply to a protocol that conntrack does not follow is judged by
    rules, and counted.
    """
    if isinstance(entry, ExpectedReply):
        return seen.verdict is due.verdict
    return (seen.verdict, seen.decided_by, seen.rule) == (due.verdict, due.decided_by, due.rule)


def _decision(
    policy: ResolvedPolicy, compiled: Compiled, observed: ObservedPacket, due: Decision
) -> Decision:
    """Return the kernel's decision, as far as the counters show it."""
    verdict = Policy.ACCEPT if observed.passed else Policy.DROP
    key = next((compiled.counters[name] for name in observed.counted if name in compiled.counters), None)
    if key is None:
        decided_by = due.decided_by if due.decided_by in _UNCOUNTED else DecidedBy.SESSION
        return Decision(verdict=verdict, decided_by=decided_by)
    if not isinstance(key, RuleCounter):
        return Decision(verdict=verdict, decided_by=step_of(key))
    judge = next((one for one in policy.judges if one.name == key.interface), None)
    rules = judge.toward(key.direction).rules if judge else ()
    name = (key.security_group_id, key.rule_id)
    rule = next((one for one in rules if (one.security_group_id, one.rule_id) == name), None)
    return Decision(verdict=verdict, decided_by=DecidedBy.RULE, rule=rule)


def _run_in_child(
    policy: ResolvedPolicy, compiled: Compiled, traffic: Sequence[ExpectedTraffic], tick: Tick
) -> bytes:
    """Send the packets and return the report. This process has no other task."""
    try:
        enter_private_network()
        end_with_parent()  # again, since a new user namespace may have cleared it
        sent_on = {entry.opener.packet.interface for entry in traffic}
        names = sent_on | {interface.name for interface in policy.interfaces}
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        network = Network(tuple(sorted(names)), Context())
        network.build()
        network.context.run(encode_plan(make_plan(compiled.ruleset, None)))
        answers = _KernelSession(network).send_all(traffic, tick)
        report: object = {"answers": list(map(asdict, answers))}
    except SgagentError as error:
        report = {"error": type(error).__name__, "reason": str(error)}
    except RefusedError as refusal:
        report = {"error": KernelRefusedError.__name__, "reason": refusal.reason}
    except OSError as error:
        report = {"error": RehearsalError.__name__, "reason": str(error)}
    return json.dumps(report).encode()


@dataclass(slots=True)
class _KernelSession:
    """Sends packets one after the other and compares the counters before and after each."""

    network: Network
    _opened: set[str] = field(default_factory=set)
    """The names of the packets that have opened sessions."""

    def send_all(self, traffic: Sequence[ExpectedTraffic], tick: Tick) -> list[_Answer]:
        """Send packets, which open no session, then replies. Return the observations in the given order."""
        answers: dict[str, _Answer] = {}
        for keeps_sessions, kind in ((False, ExpectedPacket), (True, ExpectedReply)):
            self.network.watch(keeps_sessions=keeps_sessions)
            for entry in traffic:
                if isinstance(entry, kind):
                    answers[entry.name] = self._observe(entry, answers)
                    tick()
        self.network.close()
        return [answers[entry.name] for entry in traffic]

    def _observe(self, entry: ExpectedTraffic, earlier: Mapping[str, _Answer]) -> _Answer:
        try:
            if isinstance(entry, ExpectedReply):
                return self._reply(entry, earlier[entry.opener.name])
            return self._send(encode_packet(entry.packet), entry.packet, entry.packet.direction)
        except UnsentError as error:
            return LeftOut(reason=str(error))

    def _reply(self, entry: ExpectedReply, opened: _Answer) -> _Answer:
        """Open the session, then send the reply; a dropped opener has none, and its observation counts."""
        opener = entry.opener.packet
        reply = encode_reply(opener)
        if isinstance(opened, LeftOut) or not opened.passed:
            return opened
        if reply is None:
            return LeftOut(reason="nothing answers such a packet")
        if entry.opener.name not in self._opened:
            self._opened.add(entry.opener.name)
            self._send(encode_packet(opener), opener, opener.direction)
        inwards = opener.direction is Direction.INGRESS
        return self._send(reply, opener, Direction.EGRESS if inwards else Direction.INGRESS)

    def _send(self, wire: WirePacket, packet: Packet, direction: Direction) -> ObservedPacket:
        before = self.network.count_packets(TABLE)
        passed = self.network.passes(wire, packet.interface, direction)
        after = self.network.count_packets(TABLE)
        return ObservedPacket(passed=passed, counted=[name for name in after if after[name] > before[name]])
