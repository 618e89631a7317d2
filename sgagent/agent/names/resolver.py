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
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sgagent.agent.names.name_table import DnsAnswer, NameLookUp
from sgagent.core.model import CidrBlock, Family
from sgagent.sources.servers import DNS_PORT

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
        has_ttl = chain.answer is not None or _authority_has(message, rdatatype.SOA)
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
    """Return what a name server answered, or why that is no answer."""
    from dns import exception, flags, message, query, rcode, rdatatype  # noqa: PLC0415 - as above

    asked = message.make_query(name, _TYPES[family], use_edns=0, payload=_PAYLOAD)
    asked.flags |= flags.AD
    try:
        answer, _ = query.udp_with_fallback(
            asked, server, seconds, port, ignore_unexpected=True, ignore_errors=True
        )
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
        ...

    def found(self) -> Iterable[NameLookUp]:
        """Return what was found since the last call."""
        ...


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
        self._asked.put((name in self._failing, next(self._numbers), name, servers))
        if self._threads < _MOST_THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name=f"names-{self._threads}", daemon=True).start()

    def found(self) -> list[NameLookUp]:
        """Return what was found since the last call."""
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
