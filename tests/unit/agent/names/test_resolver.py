"""Asking name servers, right ones and wrong ones, over loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from sgagent.agent.names.name_table import NameLookUp
from sgagent.agent.names.resolver import BackgroundResolver, look_up_name
from sgagent.core.model import Family
from tests.nameserver import Behaviour, NameServer, addresses, failing, serving
from tests.patience import PATIENCE

HERE, OTHER = "127.0.0.1", "127.0.0.2"
NAME = "mirror.example.org"
A, B = "192.0.2.1", "192.0.2.2"
A6 = "2001:db8::1"
SHORT_SECONDS = 0.3


@contextlib.contextmanager
def server(behave: Behaviour | None = None) -> Iterator[tuple[NameServer, int]]:
    """Serve one name."""
    made = NameServer({NAME: behave} if behave else {})
    with serving(made, HERE) as port:
        yield made, port


def ask(behave: Behaviour | None, *, name: str = NAME, seconds: float = 5 * PATIENCE) -> NameLookUp:
    """Return what is found of a name that is answered so."""
    with server(behave) as (_, port):
        return look_up_name(name, [HERE], seconds=seconds, port=port)


def texts(found: NameLookUp) -> list[str]:
    """Return the addresses that were found."""
    return sorted(str(block) for answer in found.answers.values() for block in answer.addresses)


def test_both_families_are_asked_for() -> None:
    """With their TTL."""
    found = ask(addresses(A, B, A6, ttl=77))
    assert (texts(found), found.fault) == ([A, B, A6], None)
    assert {answer.ttl_seconds for answer in found.answers.values()} == {77}


@pytest.mark.parametrize("is_authenticated", (False, True))
def test_the_ad_bit_is_reported(is_authenticated: bool) -> None:  # noqa: FBT001 - of a parameter
    """As the name server says it, which is asked for it."""
    found = ask(addresses(A, A6, is_authenticated=is_authenticated))
    assert {answer.is_authenticated for answer in found.answers.values()} == {is_authenticated}


@pytest.mark.parametrize("behave", (None, addresses()))
def test_no_such_name_and_no_address_are_answers(behave: Behaviour | None) -> None:
    """Of both families, without a fault."""
    found = ask(behave)
    assert (texts(found), found.fault, len(found.answers)) == ([], None, 2)


def test_a_family_without_addresses_holds_as_long_as_the_other() -> None:
    """Where the server does not say how long; else the name would be asked for every five seconds."""
    found = ask(addresses(A, ttl=900))
    assert {answer.ttl_seconds for answer in found.answers.values()} == {900}


def with_authority(kind: str, record: str) -> Behaviour:
    """Return an answer without addresses that has a record of authority."""

    def behave(query: dns.message.QueryMessage, _is_tcp: bool) -> bytes:  # noqa: FBT001 - as the type says
        response = dns.message.make_response(query)
        if kind != "referral":
            response.flags |= dns.flags.RA
        response.authority.append(dns.rrset.from_text("example.org.", 900, "IN", record, AUTHORITY[record]))
        return response.to_wire()

    return behave


AUTHORITY = {"NS": "ns.example.org.", "SOA": "ns.example.org. a.example.org. 1 3600 600 86400 300"}


@pytest.mark.parametrize(("record", "seconds"), (("SOA", 300), ("NS", 0)))
def test_only_a_zone_says_how_long_an_empty_answer_holds(record: str, seconds: float) -> None:
    """The least of its SOA's times (RFC 2308); other records of authority say nothing."""
    found = ask(with_authority("empty", record))
    assert found.fault is None
    assert {answer.ttl_seconds for answer in found.answers.values()} == {seconds}


def test_a_server_that_refers_to_others_has_not_answered() -> None:
    """It does not resolve for this host, so that what was known of the name stays."""
    found = ask(with_authority("referral", "NS"))
    assert (found.answers, "does not resolve for others" in (found.fault or "")) == ({}, True)


def test_a_silent_server_is_waited_for_once() -> None:
    """The one that answered for a family is asked first for the other."""
    silent = NameServer(is_silent=True)
    with server(addresses(A, A6)) as (made, port), serving(silent, OTHER, port):
        found = look_up_name(NAME, [OTHER, HERE], port=port)
    assert texts(found) == [A, A6]
    assert (len(silent.asked), len(made.asked)) == (1, 2)


@pytest.mark.parametrize("code", (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR))
def test_a_failure_is_none(code: dns.rcode.Rcode) -> None:
    """It says which server failed how."""
    found = ask(failing(code))
    assert found.answers == {}
    assert f"{HERE} answered {dns.rcode.to_text(code)}" in (found.fault or "")


def test_a_server_without_edns_is_asked_without() -> None:
    """It calls the first question malformed (RFC 6891, 7)."""

    def behave(query: dns.message.QueryMessage, is_tcp: bool) -> bytes | None:  # noqa: FBT001 - the type's
        return (failing(dns.rcode.FORMERR) if query.edns >= 0 else addresses(A, A6))(query, is_tcp)

    found = ask(behave)
    assert (texts(found), found.fault) == ([A, A6], None)


def test_cnames_are_followed_to_the_eighth() -> None:
    """The ninth is too many."""
    chain = [f"c{number}.example.org" for number in range(9)]
    assert texts(ask(addresses(A, cnames=chain[:8]))) == [A]
    found = ask(addresses(A, cnames=chain))
    assert (found.answers, "more than 8 CNAMEs" in (found.fault or "")) == ({}, True)


def test_a_server_that_leaves_the_end_of_a_chain_out_is_asked_for_it() -> None:
    """Up to eight CNAMEs in all."""
    with server(addresses(cnames=["a.example.net", "b.example.net"])) as (made, port):
        made.zone["b.example.net"] = addresses(A, cnames=[f"c{number}.example.net" for number in range(6)])
        assert texts(look_up_name(NAME, [HERE], port=port)) == [A]
        made.zone["b.example.net"] = addresses(A, cnames=[f"c{number}.example.net" for number in range(7)])
        assert look_up_name(NAME, [HERE], port=port).answers == {}


def test_a_chain_in_several_answers_holds_for_its_shortest_ttl() -> None:
    """An answer that is a CNAME alone has a TTL, too (§12.3)."""
    with server(addresses(ttl=300, cnames=["a.example.net"])) as (made, port):
        made.zone["a.example.net"] = addresses(A, A6, ttl=77)
        found = look_up_name(NAME, [HERE], port=port)
        made.zone["a.example.net"] = addresses(A, A6, ttl=900)
        later = look_up_name(NAME, [HERE], port=port)
    seconds = [{answer.ttl_seconds for answer in one.answers.values()} for one in (found, later)]
    assert seconds == [{77}, {300}]


@pytest.mark.parametrize("through", (("a.example.org", NAME), (NAME,)))
def test_a_loop_of_cnames_is_a_failure(through: tuple[str, ...]) -> None:
    """In one answer, and through several."""
    assert ask(addresses(cnames=through)).answers == {}
    with server(addresses(cnames=["a.example.net"])) as (made, port):
        made.zone["a.example.net"] = addresses(cnames=[NAME])
        assert "more than 8 CNAMEs" in (look_up_name(NAME, [HERE], port=port).fault or "")


def test_a_truncated_answer_is_asked_for_over_tcp() -> None:
    """200 addresses do not fit into a packet."""
    many = [f"198.51.100.{last}" for last in range(200)]
    with server(addresses(*many, limit=1232)) as (made, port):
        assert len(texts(look_up_name(NAME, [HERE], port=port))) == 200
    assert (NAME, "A", True) in made.asked


def test_the_case_of_an_answer_means_nothing() -> None:
    """Some servers change it, some questions too."""

    def behave(query: dns.message.QueryMessage, is_tcp: bool) -> bytes:  # noqa: FBT001 - as the type says
        wire = addresses(A)(query, is_tcp)
        assert wire is not None
        return wire.replace(b"mirror", b"MiRRoR")

    assert texts(ask(behave)) == [A]


def about(name: str) -> Behaviour:
    """Return an answer to the question, whose records are those of another name."""

    def behave(query: dns.message.QueryMessage, _is_tcp: bool) -> bytes:  # noqa: FBT001 - as the type says
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", query.question[0].rdtype, A))
        return response.to_wire()

    return behave


def test_records_of_another_name_are_no_addresses() -> None:
    """The answer is one without any."""
    with server() as (made, port):
        made.zone[NAME] = lambda query, is_tcp: (
            about("bank.example.org")(query, is_tcp) if query.question[0].rdtype == 1 else None
        )
        found = look_up_name(NAME, [HERE], seconds=SHORT_SECONDS, port=port)
    assert texts(found) == []


def forged(kind: str, query: dns.message.QueryMessage) -> bytes:
    """Return a packet that is no answer to a query."""
    response = dns.message.make_response(query)
    response.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "203.0.113.66"))
    match kind:
        case "another id":
            response.id ^= 1
        case "another question":
            response.question = [dns.rrset.from_text("bank.example.org.", 0, "IN", "A")]
        case "a query":
            response.flags &= ~dns.flags.QR
        case "garbage":
            return b"\x00" + bytes(range(40))
        case "half a packet":
            return response.to_wire()[:20]
    return response.to_wire()


@pytest.mark.parametrize("kind", ("another id", "another question", "a query", "garbage", "half a packet"))
def test_what_is_no_answer_is_passed_over(kind: str) -> None:
    """The right answer behind it counts; alone it is silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind((HERE, 0))

        def serve() -> None:
            for _ in Family:
                wire, client = served.recvfrom(4096)
                query = dns.message.from_wire(wire)
                assert isinstance(query, dns.message.QueryMessage)
                served.sendto(forged(kind, query), client)
                right = addresses(A)(query, False)  # noqa: FBT003 - the type's own parameter
                assert right is not None
                served.sendto(right, client)

        thread = threading.Thread(target=serve)
        thread.start()
        found = look_up_name(NAME, [HERE], port=served.getsockname()[1])
        thread.join()
    assert texts(found) == [A]
    with server(lambda query, _: forged(kind, query)) as (_, port):
        alone = look_up_name(NAME, [HERE], seconds=SHORT_SECONDS, port=port)
    assert (alone.answers, alone.fault is not None) == ({}, True)


def test_an_answer_from_another_port_is_passed_over() -> None:
    """Only the port that was asked may answer."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        served.bind((HERE, 0))

        def serve() -> None:
            wire, client = served.recvfrom(4096)
            query = dns.message.from_wire(wire)
            assert isinstance(query, dns.message.QueryMessage)
            answer = addresses(A)(query, False)  # noqa: FBT003 - the type's own parameter
            assert answer is not None
            other.sendto(answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        found = look_up_name(NAME, [HERE], seconds=SHORT_SECONDS, port=served.getsockname()[1])
        thread.join()
    assert found.answers == {}


def test_each_question_has_another_id_and_port() -> None:
    """So that nobody off the way can guess them."""
    seen = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind((HERE, 0))
        port = served.getsockname()[1]

        def serve() -> None:
            for _ in range(20):
                wire, client = served.recvfrom(4096)
                seen.add((wire[:2], client[1]))
                query = dns.message.from_wire(wire)
                assert isinstance(query, dns.message.QueryMessage)
                answer = addresses(A)(query, False)  # noqa: FBT003 - the type's own parameter
                assert answer is not None
                served.sendto(answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(10):
            look_up_name(NAME, [HERE], port=port)
        thread.join()
    assert len({identity for identity, _ in seen}) > 15
    assert len({source for _, source in seen}) > 10


def test_the_next_server_is_asked_where_one_fails() -> None:
    """In the order of the configuration."""
    broken = NameServer({NAME: failing(dns.rcode.SERVFAIL)})
    with server(addresses(A)) as (_, port), serving(broken, "127.0.0.99", port):
        found = look_up_name(NAME, ["127.0.0.99", HERE], port=port)
        assert (texts(found), found.fault) == ([A], None)
    assert "no name server is known" in (look_up_name(NAME, []).fault or "")


def test_a_silent_server_takes_no_more_than_the_time() -> None:
    """And says which it was."""
    with server() as (made, port):
        made.is_silent = True
        found = look_up_name(NAME, [HERE], seconds=SHORT_SECONDS, port=port)
    assert f"no answer from {HERE}" in (found.fault or "")


def test_look_ups_go_on_behind_one_that_breaks() -> None:
    """An answer that the library can't stand is a failure of that name."""

    def look_up(name: str, _servers: object) -> NameLookUp:
        if name == "bad":
            raise RuntimeError("broken")
        return NameLookUp(name, {})

    resolver = BackgroundResolver(look_up)
    for name in ("bad", "good", *map(str, range(20))):
        resolver.ask(name, ())
    found = [resolver.wait(5 * PATIENCE) for _ in range(22)]
    assert {one.name: one.fault for one in found if one and one.fault} == {"bad": "RuntimeError: broken"}
    assert resolver.found() == []
    assert resolver.wait(0.01) is None


def test_a_name_for_which_no_thread_starts_has_failed() -> None:
    """It is asked for again later, as any other that failed."""
    resolver = BackgroundResolver(lambda name, _: NameLookUp(name, {}))
    threading.stack_size(1 << 46)  # more than there is
    try:
        resolver.ask("first", ())
    finally:
        threading.stack_size(0)
    (failed,) = resolver.found()
    assert failed == NameLookUp("first", {}, "can't start new thread")
    resolver.ask("first", ())
    assert resolver.wait(5 * PATIENCE) == NameLookUp("first", {})


def test_names_that_failed_wait_behind_the_others() -> None:
    """Many of them, on a server that is silent, would keep all threads from names that change."""
    looked_up: list[str] = []
    gates = {f"gate-{number}": threading.Event() for number in range(8)}

    def look_up(name: str, _servers: object) -> NameLookUp:
        if name in gates:
            gates[name].wait(5 * PATIENCE)
        else:
            looked_up.append(name)
        return NameLookUp(name, {}, "no answer" if name.startswith("dead") else None)

    resolver = BackgroundResolver(look_up)
    dead = [f"dead-{number}" for number in range(4)]
    for name in dead:
        resolver.ask(name, ())
    assert {one.name for one in (resolver.wait(5 * PATIENCE) for _ in dead) if one} == set(dead)
    looked_up.clear()
    for name in (*gates, *dead, "good"):  # each thread waits at a gate, and one goes on alone
        resolver.ask(name, ())
    gates["gate-0"].set()
    for _ in range(1 + len(dead) + 1):
        assert resolver.wait(5 * PATIENCE)
    for gate in gates.values():
        gate.set()
    assert looked_up == ["good", *dead]
