"""A host on which single packets meet a table in chosen states, and the kernel's treatment of each is seen.

Tables of the test stand around the agent's hooks. Before them they drop what the test did not send, take
packets out of conntrack's hands, and set marks. Right behind they note which packets came through, and with
which mark, and drop them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from integration.lab import TEST_MAC, Lab, lab, wait_for
from integration.probe import SENTINEL
from integration.verified_packets import FOLLOWED_BY_PORTS, as_bytes, make_sessions
from sgagent.core.model import Family
from sgagent.dataplane.counter_messages import CounterReading
from sgagent.dataplane.generation import RulesetGeneration
from sgagent.dataplane.libnftables import Context
from sgagent.dataplane.table import list_anew
from sgagent.policy_test.packet_bytes import WirePacket
from sgagent.verify.packets import CtState, PacketAtHook

_STAGE = """
add table inet teststage
delete table inet teststage
table inet teststage {{
    set seen_ipv4 {{ typeof ip id; size 65536; flags dynamic; }}
    set seen_ipv6 {{ typeof @nh,16,16; size 65536; flags dynamic; }}
    set marks_ipv4 {{ typeof ip id . ct mark; size 65536; flags dynamic; }}
    set marks_ipv6 {{ typeof @nh,16,16 . ct mark; size 65536; flags dynamic; }}
    set untracked_ipv4 {{ typeof ip id; {untracked_ipv4} }}
    set untracked_ipv6 {{ typeof @nh,16,16; {untracked_ipv6} }}
    map mark_ipv4 {{ typeof ip id : ct mark; {mark_ipv4} }}
    map mark_ipv6 {{ typeof @nh,16,16 : ct mark; {mark_ipv6} }}
    chain arrival {{
        type filter hook prerouting priority -450; policy accept;
        ip id {sentinel} ip protocol 253 add @seen_ipv4 {{ ip id }} drop
        iifname != "lo" ether saddr != {mac} drop
    }}
    chain departure {{
        type filter hook output priority -450; policy accept;
        oifname != "lo" meta nfproto ipv6 @nh,16,16 0 drop
    }}
    chain raw_in {{
        type filter hook prerouting priority -300; policy accept;
        ether saddr {mac} jump raw
    }}
    chain raw_out {{
        type filter hook output priority -300; policy accept;
        jump raw
    }}
    chain raw {{
        meta nfproto ipv4 ip id @untracked_ipv4 notrack
        meta nfproto ipv6 @nh,16,16 @untracked_ipv6 notrack
    }}
    chain before_in {{
        type filter hook prerouting priority -151; policy accept;
        ether saddr {mac} jump before
    }}
    chain before_out {{
        type filter hook postrouting priority 299; policy accept;
        oifname != "lo" jump before
    }}
    chain before {{
        meta nfproto ipv4 ct state new ct mark set ip id map @mark_ipv4
        meta nfproto ipv6 ct state new ct mark set @nh,16,16 map @mark_ipv6
    }}
    chain behind_in {{
        type filter hook prerouting priority -149; policy accept;
        ether saddr {mac} goto behind
    }}
    chain behind_out {{
        type filter hook postrouting priority 301; policy accept;
        oifname != "lo" goto behind
    }}
    chain behind {{
        meta nfproto ipv4 add @seen_ipv4 {{ ip id }}
        meta nfproto ipv6 add @seen_ipv6 {{ @nh,16,16 }}
        meta nfproto ipv4 add @marks_ipv4 {{ ip id . ct mark }}
        meta nfproto ipv6 add @marks_ipv6 {{ @nh,16,16 . ct mark }}
        drop
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The kernel's treatment of a packet."""

    accepted: bool
    mark: int | None
    """None where it has no session, or was dropped."""


class Stage:
    """Plays packets on a host."""

    def __init__(self, built: Lab, context: Context) -> None:
        """Take a host and its peer, and libnftables in the host's namespace."""
        self.lab = built
        self.context = context

    def load(self, commands: Any) -> None:  # noqa: ANN401 - JSON as libnftables takes it
        """Put a table in the place of the one that is there."""
        with self.lab.host.entered():
            self.context.load("add table inet sgagent\ndelete table inet sgagent")
            self.context.run(commands)

    def dump(self) -> bytes:
        """Return the table as the kernel runs it."""
        with self.lab.host.entered():
            return list_anew().dump or b""

    def counters(self) -> dict[str, int]:
        """Return the packets of each counter."""
        with self.lab.host.entered(), RulesetGeneration() as generation:
            found = CounterReading().read(generation.list_counters())
        return {name: value.packets for name, value in found.items()}

    def play(self, packets: Sequence[PacketAtHook]) -> list[Observation | None]:
        """Send packets, and return the kernel's treatment of each; None for one that can't be sent.

        A packet is left out that would be of a session of another one.
        """
        chosen = [pair for pair in _apart(packets) if packets[pair[0]].interface in self.lab.interfaces]
        with self.lab.host.entered():
            self.context.load(_text([packets[place] for place, _ in chosen]))
            made = make_sessions([packets[place] for place, _ in chosen])
        sent = [
            (number, place, wire)
            for number, ((place, wire), is_made) in enumerate(zip(chosen, made, strict=True), start=1)
            if is_made
        ]
        for (hook, link), some in groupby(
            sorted(sent, key=lambda one: _where(packets[one[1]])), key=lambda one: _where(packets[one[1]])
        ):
            self._send(hook, link, [(number, wire) for number, _, wire in some])
        found: list[Observation | None] = [None] * len(packets)
        seen = {family: self._numbers(f"seen_{family.value}") for family in Family}
        marks = {family: dict(self._pairs(f"marks_{family.value}")) for family in Family}
        for number, place, _ in sent:
            family = packets[place].family
            found[place] = Observation(accepted=number in seen[family], mark=marks[family].get(number))
        return found

    def _send(self, hook: str, link: str, wires: Sequence[tuple[int, WirePacket]]) -> None:
        if hook == "prerouting":
            self.lab.put_on_wire(link, wires)
            wait_for(lambda: SENTINEL in self._numbers("seen_ipv4"), "the end of the batch")
        else:
            self.lab.put_out(link, wires)

    def _elements(self, name: str) -> list[Any]:
        listing = json.loads(self.lab.host.nft("-j", "list", "set", "inet", "teststage", name))
        return [
            one["elem"]["val"] if isinstance(one, dict) and "elem" in one else one
            for item in listing["nftables"]
            for one in item.get("set", {}).get("elem", ())
        ]

    def _numbers(self, name: str) -> frozenset[int]:
        return frozenset(self._elements(name))

    def _pairs(self, name: str) -> Iterator[tuple[int, int]]:
        for one in self._elements(name):
            identity, mark = one["concat"]
            yield identity, mark


def _where(packet: PacketAtHook) -> tuple[str, str]:
    return packet.hook, packet.interface


def _apart(packets: Sequence[PacketAtHook]) -> list[tuple[int, WirePacket]]:
    """Return the places of packets that can be sent, with their bytes, none of a session of another."""
    taken: set[object] = set()
    found: list[tuple[int, WirePacket]] = []
    for place, packet in enumerate(packets):
        wire = as_bytes(packet) if packet.hook in ("prerouting", "postrouting") else None
        ends = _tuples(packet)
        if wire is not None and not taken & ends:
            taken |= ends
            found.append((place, wire))
    return found


def _tuples(packet: PacketAtHook) -> set[object]:
    """Return conntrack's possible keys of the packet and its session, either way."""
    has_ports = packet.protocol in FOLLOWED_BY_PORTS
    ports = (packet.source_port, packet.destination_port) if has_ports else (0, 0)
    found: set[object] = {
        (packet.protocol, packet.source, packet.destination, *ports),
        (packet.protocol, packet.destination, packet.source, *ports[::-1]),
    }
    if packet.session is not None:
        for ends in (packet.session.original, packet.session.reply):
            number = packet.session.protocol
            ports = (ends.source_port, ends.destination_port) if number in FOLLOWED_BY_PORTS else (0, 0)
            found.add((number, ends.source, ends.destination, *ports))
    return found


def _text(packets: Sequence[PacketAtHook]) -> str:
    """Return the tables around the agent's hooks, for packets that are numbered from 1."""
    numbered = list(enumerate(packets, start=1))
    parts: dict[str, str] = {}
    for family in Family:
        own = [(number, packet) for number, packet in numbered if packet.family is family]
        untracked = [str(number) for number, packet in own if packet.state is CtState.UNTRACKED]
        marks = [
            f"{number} : {packet.session.mark:#x}"
            for number, packet in own
            if packet.session is not None and packet.state is CtState.NEW
        ]
        parts[f"untracked_{family.value}"] = _elements(untracked)
        parts[f"mark_{family.value}"] = _elements(marks)
    return _STAGE.format(mac=TEST_MAC, sentinel=SENTINEL, **parts)


def _elements(texts: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(texts)} }}" if texts else ""


@contextlib.contextmanager
def stage(*links: str) -> Iterator[Stage]:
    """Build a host with links, and remove it."""
    with lab(*links) as built:
        built.host.sysctl({"net/netfilter/nf_conntrack_tcp_be_liberal": 1})
        with built.host.entered():
            context = Context()
        yield Stage(built, context)
