"""Every packet of every example, on the kernel, against the command line's output for the example."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import tempfile
from collections import Counter

import pytest

from integration import forkserver
from integration.kernel_verdicts import judge
from integration.lab import Lab, lab
from integration.nameservers import DNS, knowing, on_the_wire
from sgagent.core.clauses import DecidedBy
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.nft import names
from sgagent.policy_test.scenario import ExpectedPacket, ExpectedReply
from tests.corpus import Example, examples

EXAMPLES = examples()
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])


@pytest.mark.sampled(14)
@every_example
def test_the_kernel_decides_as_its_file_says(example: Example) -> None:
    """A packet that must pass does, one that must not does not, and each rule counts each new session."""
    with lab(*example.scenario.links) as built:
        built.load(printed_ruleset(built, example))
        expected = example.scenario.packets
        passed = judge(built, [entry.packet for entry in expected])
        wrong = [
            entry.name
            for entry, passes in zip(expected, passed, strict=True)
            if passes is not (entry.expected.verdict is Policy.ACCEPT)
        ]
        assert not wrong
        hits = {name: packets for name, (packets, _) in built.counters().items()}
        wanted = expected_hits(expected, example.policy())
        assert {name: hits[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("example", "reply"),
    [
        pytest.param(example, reply, id=f"{example.name}: {reply.name}")
        for example in EXAMPLES
        for reply in example.scenario.replies
    ],
)
def test_an_answer_follows_its_session(example: Example, reply: ExpectedReply) -> None:
    """A connection that was let in gets its answers out, whatever else may leave."""
    packet = reply.opener.packet
    with lab(*example.scenario.links) as built:
        built.load(printed_ruleset(built, example))
        assert is_answered(built, packet) is (reply.expected.verdict is Policy.ACCEPT)


def printed_ruleset(built: Lab, example: Example) -> str:
    """Return the output of ``sgagent compile --dry-run`` for an example, on a host whose names are known."""
    arguments = ("compile", "--dry-run", "--definitions", str(example.definitions))
    with contextlib.ExitStack() as stack:
        configuration = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".toml"))
        configuration.write(DNS + example.configuration())
        configuration.flush()
        if example.scenario.names:
            stack.enter_context(on_the_wire(built, knowing(example.scenario.names)))
        done = forkserver.run((*arguments, "--config", configuration.name), built.host, seconds=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected_hits(expected: tuple[ExpectedPacket, ...], policy: ResolvedPolicy) -> Counter[str]:
    """Return how often each rule's and default's counter is hit by the packets."""
    hits: Counter[str] = Counter()
    for entry in expected:
        found, direction = policy.judge(entry.packet.interface), entry.packet.direction
        interface = found.name if found else entry.packet.interface
        if entry.expected.rule_id is not None:
            hits[names.rule_chain(interface, entry.expected.rule_id)] += 1
        elif entry.expected.decided_by is DecidedBy.INNER:
            hits[names.inner_chain(interface)] += 1
        elif entry.expected.decided_by is DecidedBy.DEFAULT:
            hits[names.default_chain(direction, interface)] += 1
        elif entry.expected.decided_by is DecidedBy.SPOOFED:
            hits[names.step_chain("spoofed", direction, interface)] += 1
    return hits


def is_answered(built: Lab, packet: Packet) -> bool:
    """Tell whether a real TCP connection is made where the packet would open one, and answered."""
    source, destination = (
        str(ipaddress.IPv4Address(end) if packet.family is Family.IPV4 else ipaddress.IPv6Address(end))
        for end in (packet.source, packet.destination)
    )
    inwards = packet.direction is Direction.INGRESS
    client, server = (built.peer, built.host) if inwards else (built.host, built.peer)
    built.add_host_addresses([destination if inwards else source], packet.interface)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(built.listen(server, destination, packet.destination_port or 0))
        try:
            connection = opened.enter_context(
                built.connect(
                    client, (source, packet.source_port or 0), (destination, listener.getsockname()[1])
                )
            )
        except TimeoutError:
            return False
        accepted = opened.enter_context(listener.accept()[0])
        accepted.sendall(b"answer")
        return connection.recv(6, socket.MSG_WAITALL) == b"answer"
