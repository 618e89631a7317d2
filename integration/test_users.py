"""Egress rules for users of this host on the wire: who made the socket decides, and nothing else (§13.3)."""

from __future__ import annotations

import ctypes
import pwd
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from integration.lab import HOST_MAC, Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import NOTICED_SECONDS, Service
from sgagent.core.conditions import LAST_USER
from tests.patience import PATIENCE

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
FAR, FAR6 = "198.51.100.7", "2001:db8:7::7"
NAMED, OTHER, ROOT = pwd.getpwnam("daemon"), 4711, 0
TCP_PORT, UDP_PORT, OPEN_PORT = 443, 53, 80
_LIBC = ctypes.CDLL(None)


def definitions(user: str | int = NAMED.pw_name, forbidden: int = LAST_USER) -> str:
    """Return definitions by which one user may open sessions; to one port all but one user may."""
    rule, of_user = "{direction: egress, authorization_object: any", f"local: {{user: {user}}}}}"
    of_forbidden = f"port_range: {OPEN_PORT}, local: {{user: {forbidden}}}}}"
    return f"""
version: 1
security_groups:
  - security_group_id: sg-1
    rules:
      - {rule}, rule_id: sgr-tcp, policy: accept, protocol: tcp, port_range: {TCP_PORT}, {of_user}
      - {rule}, rule_id: sgr-udp, policy: accept, protocol: udp, port_range: {UDP_PORT}, {of_user}
      - {rule}, rule_id: sgr-ping, policy: accept, protocol: [icmp, icmpv6], {of_user}
      - {rule}, rule_id: sgr-not, policy: drop, protocol: udp, {of_forbidden}
      - {rule}, rule_id: sgr-open, policy: accept, priority: 2, protocol: udp, port_range: {OPEN_PORT}}}
      - {rule}, rule_id: sgr-rest, policy: drop, priority: 3, protocol: all}}
network_interfaces:
  - {{network_interface_id: eni-1, mac_address: '{HOST_MAC % 0}', addresses: [{HOST}, '{HOST6}'],
     security_group_ids: [sg-1]}}
"""


agent = agent_with(definitions(), is_started=False, verifies=True)


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Let the calling thread make sockets as a user, until the context is left."""
    _LIBC.setfsuid(user)
    try:
        yield
    finally:
        _LIBC.setfsuid(ROOT)


def made_by(lab: Lab, user: int, far: str, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
    """Return a socket of the host that a user made; root uses it."""
    is_ipv4 = ip_address(far).version == 4
    with lab.host.entered(), acting_as(user):
        made = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, kind, protocol)
    made.settimeout(NOTICED_SECONDS * PATIENCE)
    made.bind((HOST if is_ipv4 else HOST6, 0))
    return made


def may_send(lab: Lab, user: int, far: str, port: int = UDP_PORT) -> bool:
    """Tell whether a datagram of a user's new socket leaves."""
    with made_by(lab, user, far) as sender:
        return _leaves(sender, b"x", (far, port))


def may_ping(lab: Lab, user: int, far: str) -> bool:
    """Tell whether an echo request of a user's new raw socket leaves."""
    version = ip_address(far).version
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    with made_by(lab, user, far, socket.SOCK_RAW, protocol) as sender:
        kind, identity = 0x0800 if version == 4 else 0x8000, user & 0xFFFF  # a session is known by it
        return _leaves(sender, struct.pack(">HHI", kind, 0xFFFF - kind ^ identity, identity << 16), (far, 0))


def _leaves(sender: socket.socket, content: bytes, where: tuple[str, int]) -> bool:
    try:
        return sender.sendto(content, where) > 0
    except PermissionError:  # whoever drops it, the sender is told so
        return False


def may_connect(lab: Lab, user: int, far: str) -> bool:
    """Tell whether a user's new socket gets a TCP connection."""
    with lab.listen(lab.peer, far, TCP_PORT), made_by(lab, user, far, socket.SOCK_STREAM) as client:
        client.settimeout(0.3 if user != NAMED.pw_uid else NOTICED_SECONDS * PATIENCE)
        return client.connect_ex((far, TCP_PORT)) == 0


def change(agent: Service, text: str) -> None:
    """Define something that takes something away, and wait until it is in force."""
    before = agent.generation()
    agent.define(text)
    wait_for(lambda: agent.generation() != before, "another generation")


def test_the_socket_s_user_decides(agent: Service, one_interface: Lab) -> None:
    """Over both families, of datagrams, connections and pings, whoever uses the socket; with a proof."""
    agent.start()
    lab = one_interface
    for far in (FAR, FAR6):
        for attempt in (may_send, may_ping, may_connect):
            found = {user: attempt(lab, user, far) for user in (NAMED.pw_uid, OTHER, ROOT, LAST_USER)}
            assert found == {NAMED.pw_uid: True, OTHER: False, ROOT: False, LAST_USER: False}, (far, attempt)
        found = {user: may_send(lab, user, far, OPEN_PORT) for user in (ROOT, OTHER, LAST_USER)}
        assert found == {ROOT: True, OTHER: True, LAST_USER: False}
    agent.wait_for_proof()
    assert agent.command("verify").status == 0
    query = f"explain egress --source {HOST} --destination {FAR} --protocol udp --port {UDP_PORT}".split()
    unknown = agent.command(*query).output
    assert unknown.startswith("drop")
    by_user = f"priority 1, object any, user {NAMED.pw_name} ({NAMED.pw_uid})"
    assert f"else accept by sgr-udp of sg-1 ({by_user})" in unknown
    assert agent.command(*query, "--user", NAMED.pw_name).output.startswith("accept")
    assert agent.command(*query, "--user", str(OTHER)).output.startswith("drop")
    wait_for(lambda: f'"user": {OTHER}' in agent.command("denied", "--json").output, "a drop of the user")
    assert agent.command("mode", "observe").status == 0
    assert may_send(lab, OTHER, FAR)
    agent.wait_for_proof()


def opened(lab: Lab, stack: ExitStack, far: str, kind: int, port: int) -> tuple[socket.socket, socket.socket]:
    """Return the far end and this host's end of a session; by the user, but for one that is open to root."""
    waiting = stack.enter_context(lab.listen(lab.peer, far, port, kind))
    waiting.settimeout(NOTICED_SECONDS * PATIENCE)
    user = ROOT if port == OPEN_PORT else NAMED.pw_uid
    here = stack.enter_context(made_by(lab, user, far, kind))
    here.connect((far, port))
    here.send(b"first")
    if kind == socket.SOCK_STREAM:
        there = stack.enter_context(waiting.accept()[0])
        there.settimeout(NOTICED_SECONDS * PATIENCE)
        assert there.recv(16) == b"first"
        return there, here
    waiting.connect(waiting.recvfrom(16)[1])
    return waiting, here


def exchange(there: socket.socket, here: socket.socket) -> None:
    """Let each end hear the other, the far one first."""
    there.send(b"answer")
    assert here.recv(16) == b"answer"
    here.send(b"again")
    assert there.recv(16) == b"again"


def test_live_sessions_of_a_user(agent: Service, one_interface: Lab) -> None:
    """They outlast other changes without a lost packet, be the far end first; revoked ones stop both ways."""
    agent.start()
    with ExitStack() as stack:
        ends = [
            opened(one_interface, stack, far, kind, port)
            for far in (FAR, FAR6)
            for kind, port in ((socket.SOCK_STREAM, TCP_PORT), (socket.SOCK_DGRAM, UDP_PORT))
        ]
        witness = opened(one_interface, stack, FAR, socket.SOCK_DGRAM, OPEN_PORT)
        change(agent, definitions(forbidden=OTHER))
        for there, here in (*ends, witness):
            exchange(there, here)
        agent.wait_for_proof()
        change(agent, definitions(user=OTHER))
        agent.wait_for_event("conntrack_entries_ended")
        for there, _ in ends:
            there.send(b"late")
        exchange(*witness)
        for _, here in ends:
            is_tcp = here.type == socket.SOCK_STREAM
            here.settimeout(0)
            with pytest.raises(ConnectionAbortedError if is_tcp else BlockingIOError):
                here.recv(16)
            with pytest.raises(BrokenPipeError if is_tcp else PermissionError):
                here.send(b"more")
        assert agent.events("conntrack_entries_ended")[-1]["entries"] == len(ends)
        agent.wait_for_proof()
