"""Ask name servers for the addresses of names, by dnspython, in threads of their own.

dnspython draws the id and leaves the source port to the kernel; it goes on waiting while packets come from
another address, with another id or another question, or with garbage.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sgagent.agent.names.name_table import DnsAnswer, NameLookUp, NameStatus, NameTable, ResolvedNames
from sgagent.agent.state.directory import SealedFile, fault_of
from sgagent.core.binding import NO_FACTS, HostFacts
from sgagent.core.endpoints import Endpoint
from sgagent.core.model import CidrBlock, Family
from sgagent.ports import Clock
from sgagent.settings import Settings
from sgagent.sources.servers import DNS_PORT, dns_endpoints, host_name_servers

if TYPE_CHECKING:
    from dns.message import ChainingResult, Message

MOST_CNAMES = 8
SECONDS_OF_ALL = 20.0
"""For the answers of both families."""

_ROUNDS_SECONDS = (2.0, 5.0)
"""How long each name server may take, first and when it is asked again: a packet may be lost."""

_PAYLOAD = 1232
"""Bytes of an answer over UDP, so that it is not fragmented."""

_TYPES = {Family.IPV4: "A", Family.IPV6: "AAAA"}
_MOST_THREADS = 8


class _NoAnswerError(Exception):
    """No name server gave an answer that can be used; the message says why."""


def look_up_name(
    name: str, servers: Sequence[str], *, seconds: float = SECONDS_OF_ALL, port: int = DNS_PORT
) -> NameLookUp:
    """Return the addresses of a name of both families.

    Args:
        name: in ASCII.
        servers: their addresses, in the order in which to ask them.
        seconds: for all of it.
        port: of the name servers.
    """
    until, answers, faults = time.monotonic() + seconds, dict[Family, DnsAnswer](), list[str]()
    ordered = list(servers)
    for family in Family:
        try:
            answers[family] = _follow(name, family, ordered, until, port)
        except _NoAnswerError as error:
            faults.append(f"{_TYPES[family]}: {error}")
    longest = max((answer.ttl_seconds for answer in answers.values()), default=0.0)
    for family, answer in answers.items():
        if not answer.addresses and not answer.ttl_seconds:  # as long as what the other family has
            answers[family] = replace(answer, ttl_seconds=longest)
    return NameLookUp(name, answers, "; ".join(faults) or None)


def _follow(name: str, family: Family, servers: list[str], until: float, port: int) -> DnsAnswer:
    """Return the answer for a name, or for the one that its CNAMEs end at.

    A name server that resolves for others answers with the whole chain; where it does not, its end is asked
    for.

    Raises:
        _NoAnswerError: no server answered, or the chain is too long.
    """
    followed, is_authenticated, ttl = 0, True, float("inf")
    while True:
        message, chain = _ask(name, family, servers, until, port)
        from dns import flags, rdatatype  # noqa: PLC0415 - loaded only where a rule names a name

        followed += len(chain.cnames)
        is_authenticated &= bool(message.flags & flags.AD)
        has_ttl = bool(chain.answer or chain.cnames) or _authority_has(message, rdatatype.SOA)
        ttl = min(ttl, chain.minimum_ttl) if has_ttl else 0.0
        if followed > MOST_CNAMES:
            raise _NoAnswerError(f"more than {MOST_CNAMES} CNAMEs")
        if chain.answer is not None or not chain.cnames:
            found = frozenset(CidrBlock.parse(record.address) for record in chain.answer or ())
            return DnsAnswer(found, ttl, is_authenticated)
        name = chain.canonical_name.to_text()


def _authority_has(message: Message, kind: int) -> bool:
    return any(records.rdtype == kind for records in message.authority)


def _ask(
    name: str, family: Family, servers: list[str], until: float, port: int
) -> tuple[Message, ChainingResult]:
    """Return the first answer of a name server, which may be that there is no such name.

    A server that answers is the first to be asked from then on.

    Raises:
        _NoAnswerError: none answered, or they all failed.
    """
    fault = "no answer in time" if servers else "no name server is known"
    for seconds in _ROUNDS_SECONDS:
        for place, server in enumerate(servers):
            left = min(until - time.monotonic(), seconds)
            found = _ask_one(server, name, family, left, port) if left > 0 else fault
            if not isinstance(found, str):
                servers.insert(0, servers.pop(place))
                return found
            fault = found
    raise _NoAnswerError(fault)


def _ask_one(
    server: str, name: str, family: Family, seconds: float, port: int
) -> tuple[Message, ChainingResult] | str:
    """Return a name server's answer, or why it is none."""
    from dns import exception, flags, message, query, rcode, rdatatype  # noqa: PLC0415 - as above

    asked = message.make_query(name, _TYPES[family], use_edns=0, payload=_PAYLOAD)
    asked.flags |= flags.AD
    send = partial(query.udp_with_fallback, ignore_unexpected=True, ignore_errors=True)
    try:
        answer, _ = send(asked, server, seconds, port)
        if answer.rcode() == rcode.FORMERR:  # as servers say that do not know EDNS (RFC 6891, 7)
            asked.use_edns(edns=False)
            answer, _ = send(asked, server, seconds, port)
        code = answer.rcode()
        if code not in (rcode.NOERROR, rcode.NXDOMAIN):
            return f"{server} answered {rcode.to_text(code)}"
        if not isinstance(answer, message.QueryMessage):
            return f"{server} did not answer the question"
        is_referral = not answer.answer and not answer.flags & (flags.AA | flags.RA)
        if is_referral and code == rcode.NOERROR and _authority_has(answer, rdatatype.NS):
            return f"{server} does not resolve for others: it refers to other servers"
        return answer, answer.resolve_chaining()
    except exception.Timeout:
        return f"no answer from {server}"
    except message.ChainTooLong:
        return f"more than {MOST_CNAMES} CNAMEs, or a loop of them, from {server}"
    except (OSError, EOFError, ValueError, exception.DNSException) as error:
        return f"{server}: {str(error) or type(error).__name__}"


class Resolver(Protocol):
    """Looks names up meanwhile."""

    def ask(self, name: str, servers: Sequence[str]) -> None:
        """Look a name up, without a wait."""

    def found(self) -> Iterable[NameLookUp]:
        """Return the results since the last call."""


class BackgroundResolver:
    """Look names up in threads, which end with the process; implements :class:`Resolver`.

    Names whose last look-up failed wait behind the others: each may take a thread for :data:`SECONDS_OF_ALL`.
    """

    def __init__(self, look_up: Callable[[str, Sequence[str]], NameLookUp] = look_up_name) -> None:
        """Start no thread before the first name."""
        self._look_up = look_up
        self._asked: queue.PriorityQueue[tuple[bool, int, str, Sequence[str]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._failing: set[str] = set()
        self._found: queue.SimpleQueue[NameLookUp] = queue.SimpleQueue()
        self._threads = 0

    def ask(self, name: str, servers: Sequence[str]) -> None:
        """Look a name up, without a wait."""
        if self._threads < _MOST_THREADS:
            thread = threading.Thread(target=self._work, name=f"names-{self._threads + 1}", daemon=True)
            try:
                thread.start()
                self._threads += 1
            except RuntimeError as error:  # the limit of threads is reached
                if not self._threads:
                    self._found.put(NameLookUp(name, {}, str(error)))
                    return
        self._asked.put((name in self._failing, next(self._numbers), name, servers))

    def found(self) -> list[NameLookUp]:
        """Return the results since the last call."""
        return [self._found.get_nowait() for _ in range(self._found.qsize())]

    def wait(self, seconds: float) -> NameLookUp | None:
        """Return the next that is found; None if none is in time."""
        try:
            return self._found.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def _work(self) -> None:
        while True:
            _, _, name, servers = self._asked.get()
            try:
                found = self._look_up(name, servers)
            except Exception as error:  # noqa: BLE001 - whatever an answer does to the library, others go on
                found = NameLookUp(name, {}, f"{type(error).__name__}: {error}")
            note = self._failing.discard if found.fault is None else self._failing.add
            note(name)
            self._found.put(found)


FILE_NAME = "names.json"

TURN_SECONDS = 1.0

SECONDS_BETWEEN_WRITES = 60.0
"""Of the file, where only ages change; by either clock, as its readers measure ages by the wall clock."""

ASK_SECONDS = 5.0
"""How long a command waits for name servers."""


@dataclass(eq=False)
class NameWatch:
    """The names of one agent."""

    settings: Settings
    clock: Clock
    latest: InitVar[datetime]
    """The latest time that the host has known."""

    resolver: Resolver | None = None
    """Looks names up; None asks nobody, and keeps nothing."""

    find_servers: Callable[[], tuple[str, ...]] = host_name_servers
    """Returns the host's name servers, for a configuration that names none."""

    def __post_init__(self, latest: datetime) -> None:
        """Read the answers that an earlier agent kept; nothing is asked yet."""
        settings = self.settings
        self._file = SealedFile(settings.state.directory / FILE_NAME, "file of names")
        self.servers = self._current_servers()
        """The addresses of the name servers, in the order in which they are asked."""

        limits = settings.limits
        self._table = NameTable(
            keep_seconds=3600.0 * settings.dns.keep_hours,
            most_addresses=limits.addresses_per_name,
            most_unused=limits.names,
        )
        now = self.clock.monotonic()
        _, self._damage = self._file.load(lambda body: self._table.take_json(body, now, latest.timestamp()))
        self._write_fault: str | None = None
        self.failures = 0
        """Look-ups that failed, or failed in part, since the agent started."""

        self._facts: HostFacts = NO_FACTS
        self._resolved = self._followed = ResolvedNames()
        """What names stand for now, and what the last step, or the loop, has heard of it."""

        self._stale_at = float("-inf")
        """When what is resolved changes by itself."""

        self._turned_at = float("-inf")
        self._ask_until: float | None = None
        self._written_at = self._written_wall = float("-inf")
        """When the file was written, by either clock."""

    @property
    def fault(self) -> str | None:
        """Return why the names that rules want are not kept, else the fault of the file at the start."""
        return (self._write_fault if self._table.wanted else None) or self._damage

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return where they are asked, which is fail-safe while a rule names a name (§7.4)."""
        return dns_endpoints(self.servers)

    def want(self, names: frozenset[str]) -> None:
        """Keep these names resolved, for a step that has asked for their addresses."""
        self._followed = self._resolved
        if names or self._table.wanted:
            self._table.want(names, self.clock.monotonic())

    def resolved(self, facts: HostFacts) -> ResolvedNames:
        """Return the addresses of names on a host with these links: the same object while nothing changes."""
        now = self.clock.monotonic()
        if now >= self._stale_at or facts.links != self._facts.links:
            self._facts, self._stale_at = facts, self._table.next_change(now)
            found = self._table.resolved(now, facts)
            self._resolved = self._resolved if found == self._resolved else found
        return self._resolved

    def run_once(self, latest: Callable[[], datetime]) -> bool:
        """Add answers, ask for due names, and keep both; return whether a policy may change.

        It does so once in :data:`TURN_SECONDS`, so that answers cause no more than one step in that time.

        Args:
            latest: returns the latest time that the host has known.
        """
        now, before, servers = self.clock.monotonic(), self._followed, self.servers
        if self.resolver is None or not self._table.wanted or now - self._turned_at < TURN_SECONDS:
            return False
        self._turned_at = now
        self.servers = self._current_servers()
        answered = list(self.resolver.found())
        for found in answered:
            self._table.take(found, now)
            self.failures += found.fault is not None
        for name in list(self._table.due(now)):
            self._table.begin(name)
            self.resolver.ask(name, self.servers)
        if answered:
            self._stale_at = now
        self._followed = self.resolved(self._facts)
        is_changed = self._followed is not before or servers != self.servers
        wall = latest().timestamp()
        if is_changed or max(now - self._written_at, wall - self._written_wall) >= SECONDS_BETWEEN_WRITES:
            self._keep(now, wall)
        return is_changed

    def report(self) -> tuple[NameStatus, ...]:
        """Return how the names of rules in force are."""
        return self._table.report(self.clock.monotonic()) if self._table.wanted else ()

    def ask(self, names: Iterable[str]) -> None:
        """Look up the names that are not known, and wait for that: all calls together no more than 5 s."""
        now, resolver = self.clock.monotonic(), BackgroundResolver()
        self._ask_until = self._ask_until or now + ASK_SECONDS
        missing = {name for name in names if name not in self._table.resolved(now, NO_FACTS).addresses}
        for name in missing:
            resolver.ask(name, self.servers)
        while missing:
            found = resolver.wait(self._ask_until - self.clock.monotonic())
            if found is None:
                break
            missing.discard(found.name)
            self._table.take(found, now)
        self._stale_at = now

    def _current_servers(self) -> tuple[str, ...]:
        return self.settings.dns.servers or self.find_servers()

    def _keep(self, now: float, wall: float) -> None:
        """Write the table down; that this failed is a fault, and tried again a minute later."""
        self._written_at, self._written_wall = now, wall
        content = self._table.as_json(now, wall)
        complaint = "the addresses of names could not be kept"
        self._write_fault = fault_of(lambda: self._file.save(content), complaint)


class DnsAnswers:
    """The addresses of names, for one command."""

    def __init__(self, settings: Settings, clock: Clock, latest: datetime, *, is_asked: bool) -> None:
        """Read the agent's answers, as far as they may be read.

        Args:
            settings: the configuration.
            clock: of seconds that never go back.
            latest: the latest time that the host has known.
            is_asked: whether to ask name servers for what the agent does not know.
        """
        self._watch = NameWatch(settings, clock, latest)
        self._is_asked = is_asked

    def of(self, names: Iterable[str], facts: HostFacts) -> ResolvedNames:
        """Return the addresses of names on a host with these links."""
        if self._is_asked:
            self._watch.ask(names)
        return self._watch.resolved(facts)
