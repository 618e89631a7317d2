"""The traffic of this host as it is: conntrack's sessions, TCP sockets and listeners, into conversations."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

from sgagent.cli.agent_client import interruptible
from sgagent.cli.init import FirstPolicy, filtered_links, id_part
from sgagent.cli.output import progress, warn
from sgagent.core.binding import HostFacts, HostListener, Link, bind
from sgagent.core.errors import UsageError
from sgagent.core.model import TCP, Direction, Family, NetworkInterface, Protocol, Snapshot
from sgagent.core.rule_values import free_id
from sgagent.core.tracked_sessions import ConntrackEntry, FlowTuple
from sgagent.dataplane.conntrack_entries import EntryListing
from sgagent.dataplane.live_sessions import TcpSession, list_listeners, list_sockets
from sgagent.documents import DocumentFile, parse_documents
from sgagent.host.links import NetlinkHost
from sgagent.settings import Settings
from sgagent.suggest.conversations import Conversation, Traffic
from sgagent.suggest.far_ends import Measures
from sgagent.suggest.outcome import Suggestion, suggest

PASSED_ON = "sessions that this host passes on for others: a flow log has them"


LOOK_SECONDS = 2.0
"""Between two looks: conntrack knows a session for longer, also one that has ended."""


def watch(
    settings: Settings, definitions: Snapshot, seconds: float, kept: frozenset[str]
) -> Suggestion | None:
    """Watch this host for some time, or until Ctrl-C, and return the suggestion for incoming traffic.

    Args:
        settings: the configuration.
        definitions: at hand.
        seconds: how long.
        kept: the ids of rules that stay.

    Returns:
        None where no session was seen.
    """
    live = LiveTraffic(settings, definitions, Traffic())
    pause, until = threading.Event(), time.monotonic() + seconds
    looks = int(seconds // LOOK_SECONDS) + 1
    with progress("watching the traffic, until Ctrl-C", looks) as advance, interruptible() as is_interrupted:
        while not is_interrupted():
            live.poll()
            advance()
            left = until - time.monotonic()
            if left <= 0:
                break
            pause.wait(min(left, LOOK_SECONDS))
    if not live.traffic.passed:
        return None
    return suggest(
        live.traffic,
        live.definitions,
        Measures(),
        settings.limits,
        directions=(Direction.INGRESS,),
        kept=kept,
    )


def first_policy(settings: Settings, policy: FirstPolicy, seconds: float) -> FirstPolicy:
    """Watch the traffic while a first policy observes it, and return the one that is suggested.

    What the command's options and the login admit stays.
    """
    file = DocumentFile("<first>", policy.text.encode())
    definitions, _ = parse_documents([file], settings.limits)
    rules = [rule.rule_id for group in definitions.security_groups for rule in group.rules]
    asked = frozenset(name for name in rules if name.startswith(("sgr-ssh-", "sgr-web-")))
    found = watch(settings, definitions, seconds, asked)
    if found is None:
        return replace(
            policy, notes=(*policy.notes, "no session was seen: the policy is as without watching")
        )
    questions = (f"not admitted: {question}" for question in found.questions)
    return replace(
        policy,
        text=f"# The first policy of this host, by 'sgagent init --from-traffic'.\n{found.text}",
        admitted=tuple(f"{one.rule.rule_id}: {one.evidence}" for one in found.rules),
        notes=(*policy.notes, *questions),
    )


class _Seen(NamedTuple):
    """A session on the wire: who opened it comes first."""

    family: Family
    protocol: int
    ends: FlowTuple


@dataclass
class LiveTraffic:
    """Looks at this host, once or again and again; a session that stays is counted once."""

    settings: Settings
    definitions: Snapshot
    """With the interfaces of this host that they lacked."""

    traffic: Traffic

    def __post_init__(self) -> None:
        """Look at the links.

        Raises:
            UsageError: they can't be listed.
        """
        try:
            facts = NetlinkHost().facts()
        except OSError as error:
            raise UsageError(f"the links of this host can't be listed: {error.strerror}") from error
        self.definitions, self._interfaces = _with_own_interfaces(self.settings, self.definitions, facts)
        self._sites = {
            (block.family, block.first): self._interfaces[link.name]
            for link in facts.links
            if link.name in self._interfaces
            for block in link.addresses
        }
        self._own = {(block.family, block.first) for link in facts.links for block in link.addresses}
        self._present = frozenset[_Seen]()
        self._listeners: Sequence[HostListener] = ()
        self._is_warned = False

    def poll(self) -> None:
        """Count the sessions that came since the last look.

        Raises:
            UsageError: the sockets can't be listed.
        """
        second = int(time.time())
        tracked = frozenset(self._tracked())
        try:
            self._listeners = list_listeners()
            standing = frozenset(self._standing())
        except OSError as error:
            raise UsageError(f"the sockets of this host can't be listed: {error.strerror}") from error
        for one in sorted((tracked | standing) - self._present, key=str):
            self._count(one, second, is_standing=one in standing)
        self._present = tracked | standing

    def notes(self) -> list[str]:
        """Return which listeners nobody was seen to use."""
        used = {(one.protocol, one.port) for one in self.traffic.passed if one.direction is Direction.INGRESS}
        idle = sorted({(one.protocol, one.port) for one in self._listeners} - used)
        return [
            f"nobody came to {Protocol(protocol)} {port}, where a program listens" for protocol, port in idle
        ]

    def _tracked(self) -> Iterator[_Seen]:
        """Yield the sessions that conntrack follows and that begin or end at this host."""
        try:
            with closing(EntryListing((), all_protocols=True)) as listing:
                is_last = False
                while not is_last:
                    entries, is_last = listing.next_piece()
                    yield from filter(None, map(self._on_the_wire, entries))
        except OSError as error:
            if not self._is_warned:
                warn(f"conntrack can't be read, so only TCP sockets are seen: {error.strerror}")
            self._is_warned = True

    def _on_the_wire(self, entry: ConntrackEntry) -> _Seen | None:
        """Return an entry as its first packet is on the wire (§2.2)."""
        into, out = entry.original, entry.reply.turned
        is_in = (entry.family, into.destination) in self._own
        is_out = (entry.family, out.source) in self._own
        if is_in and is_out:
            return None  # to itself
        if not is_in and not is_out:
            self.traffic.left_out[PASSED_ON] += 1
            return None
        return _Seen(entry.family, entry.protocol, into if is_in else out)

    def _standing(self) -> Iterator[_Seen]:
        """Yield the sessions of TCP sockets with others."""
        sockets = list_sockets()
        incoming = set(sockets.at_listeners)
        for one in sockets.sessions:
            if (one.family, one.peer_address) not in self._own:
                yield _Seen(one.family, TCP.wire_number, _ends(one, is_incoming=one in incoming))

    def _count(self, one: _Seen, second: int, *, is_standing: bool) -> None:
        is_in = (one.family, one.ends.destination) in self._own
        near, far = one.ends.source, one.ends.destination
        if is_in:
            near, far = far, near
        site = self._sites.get((one.family, near))
        if site is None:
            return  # by a link that is not filtered
        conversation = Conversation(
            site=site,
            direction=Direction.INGRESS if is_in else Direction.EGRESS,
            family=one.family,
            protocol=one.protocol,
            port=one.ends.destination_port,
            near=near,
            far=far,
        )
        tally = self.traffic.tally(conversation)
        tally.count(second, one.ends.source_port, 0, 0)
        tally.is_standing |= is_standing


def _ends(one: TcpSession, *, is_incoming: bool) -> FlowTuple:
    out = FlowTuple(one.local_address, one.local_port, one.peer_address, one.peer_port)
    return out.turned if is_incoming else out


def _with_own_interfaces(
    settings: Settings, definitions: Snapshot, facts: HostFacts
) -> tuple[Snapshot, dict[str, str]]:
    """Return definitions with an interface for each link of this host to filter, and the id for each link."""
    found = {
        one.interface: one.network_interface.network_interface_id
        for one in bind(definitions, settings.interfaces, facts, automatically=True).bindings
        if one.network_interface is not None
    }
    host = id_part(socket.gethostname().partition(".")[0])
    bare = [link for link in filtered_links(facts.links) if link.name not in found]
    made = list(_made(bare, host, definitions))
    found |= {link.name: one.network_interface_id for link, one in zip(bare, made, strict=True)}
    whole = sorted((*definitions.network_interfaces, *made), key=lambda one: one.network_interface_id)
    return replace(definitions, network_interfaces=tuple(whole)), found


def _made(links: Iterable[Link], host: str, definitions: Snapshot) -> Iterator[NetworkInterface]:
    taken = set(definitions.interface_by_id)
    for link in links:
        name = f"eni-{host}-{id_part(link.name)}"
        name = free_id(name, taken)
        taken.add(name)
        yield NetworkInterface(
            network_interface_id=name, mac_address=link.mac_address, addresses=link.addresses
        )
