"""A name server that answers as a test wants: wrong, late, at length, or not at all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Behaviour = Callable[[dns.message.QueryMessage, bool], bytes | None]
"""Returns the answer to a query, which came over TCP or not; None gives none."""

_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


@dataclass(slots=True)
class NameServer:
    """What is answered, and what was asked."""

    zone: dict[str, Behaviour] = field(default_factory=dict)
    """By the name without a final dot; of others there are none."""

    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    """Name, type, and whether over TCP."""

    is_silent: bool = False

    def answer(self, wire: bytes, *, is_tcp: bool) -> bytes | None:
        """Return the answer to a packet; None where there is none."""
        query = dns.message.from_wire(wire)
        assert isinstance(query, dns.message.QueryMessage)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append((name, dns.rdatatype.to_text(question.rdtype), is_tcp))
        if self.is_silent:
            return None
        return self.zone.get(name, failing(dns.rcode.NXDOMAIN))(query, is_tcp)


def addresses(
    *texts: str, ttl: int = 5, cnames: Sequence[str] = (), is_authenticated: bool = False, limit: int = 0
) -> Behaviour:
    """Return a server's answer: the addresses of the family that is asked for.

    Args:
        texts: the addresses.
        ttl: in seconds.
        cnames: the names that lead to them, one after the other.
        is_authenticated: whether the AD bit is set.
        limit: the bytes beyond which UDP is truncated; 0 is none.
    """

    def behave(query: dns.message.QueryMessage, is_tcp: bool) -> bytes:  # noqa: FBT001 - as the type says
        (question,) = query.question
        response, owner = dns.message.make_response(query), question.name.to_text()
        for cname in cnames:
            response.answer.append(dns.rrset.from_text(owner, ttl, "IN", "CNAME", f"{cname}."))
            owner = f"{cname}."
        found = [text for text in texts if _TYPES[ip_address(text).version] == question.rdtype]
        if found:
            response.answer.append(dns.rrset.from_text_list(owner, ttl, "IN", question.rdtype, found))
        if is_authenticated:
            response.flags |= dns.flags.AD
        wire = response.to_wire(max_size=65_535)
        if is_tcp or not limit or len(wire) <= limit:
            return wire
        response.answer = []
        response.flags |= dns.flags.TC
        return response.to_wire()

    return behave


def failing(code: dns.rcode.Rcode) -> Behaviour:
    """Return the answer that is a code alone, like SERVFAIL."""

    def behave(query: dns.message.QueryMessage, _is_tcp: bool) -> bytes:  # noqa: FBT001 - as the type says
        response = dns.message.make_response(query)
        response.set_rcode(code)
        return response.to_wire()

    return behave


@contextlib.contextmanager
def serving(
    server: NameServer, address: str, port: int = 0, make_socket: Callable[..., socket.socket] = socket.socket
) -> Iterator[int]:
    """Answer at an address until the context is left; yield the port.

    Args:
        server: what is answered.
        address: where.
        port: of UDP and TCP; 0 is any.
        make_socket: makes a socket of a family and type.
    """
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    udp, tcp = make_socket(family, socket.SOCK_DGRAM), make_socket(family, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with udp, tcp:
        tcp.bind((address, port))
        udp.bind(tcp.getsockname()[:2])
        tcp.listen()
        threads = [
            threading.Thread(target=work, args=(server, one))
            for work, one in ((_serve_udp, udp), (_serve_tcp, tcp))
        ]
        for thread in threads:
            thread.start()
        try:
            yield tcp.getsockname()[1]
        finally:
            for one in (udp, tcp):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def _serve_udp(server: NameServer, served: socket.socket) -> None:
    while True:
        wire, client = served.recvfrom(65_535)
        if not wire:
            return  # it was shut down
        answer = server.answer(wire, is_tcp=False)
        if answer is not None:
            served.sendto(answer, client)


def _serve_tcp(server: NameServer, served: socket.socket) -> None:
    while True:
        try:
            connection, _ = served.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            (length,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
            answer = server.answer(connection.recv(length, socket.MSG_WAITALL), is_tcp=True)
            if answer is not None:
                connection.sendall(struct.pack("!H", len(answer)) + answer)
