"""Definitions from an HTTPS server, an honest one and others."""

from __future__ import annotations

import gzip
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.documents import Limits, RefusedDocumentsError
from sgagent.ports import Source
from sgagent.settings import SignatureSettings
from sgagent.settings.sources import HttpsSourceSettings, ServerUrl
from sgagent.sources.https.exchange import Exchange, NoAnswerError
from sgagent.sources.https.source import ASK_WHOLE_SECONDS, MOST_MISMATCHES, HttpsSource, name_of
from sgagent.sources.poller import LONGEST_PUT_OFF_SECONDS, SHORTEST_SECONDS, PollInterval
from sgagent.sources.servers import EndpointCache
from sgagent.sources.verified_parse import SignaturePolicy, VerifiedParser
from tests.contract.source import Origin, SourceContract
from tests.fakes.clock import FakeClock
from tests.patience import PATIENCE
from tests.server_faults import (
    HOST,
    LIMIT_BYTES,
    POLICY,
    SERVER_FAULTS,
    ServerFault,
    Stage,
    answering,
    make_stage,
    settings_for,
    source_for,
    told,
    wording,
)
from tests.signing import KEY, NOW, signature_of
from tests.tlsserver import Request, Script, TlsServer, Wire, tls_server

TABLE = Path(__file__).parents[2] / "server_faults.md"
OTHER = POLICY.replace("sg-web", "sg-app")
WITHIN_SECONDS = 5.0 * PATIENCE


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Give certificates."""
    return make_stage(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(stage: Stage) -> Iterator[TlsServer]:
    """Give an honest server whose script tests may change."""
    with tls_server(serving(POLICY), stage.issued) as running:
        yield running


@pytest.fixture
def source(stage: Stage, server: TlsServer) -> HttpsSource:
    """Give a source that asks the server."""
    return source_for(settings_for(stage, server.port))


def serving(content: str) -> Script:
    """Return what an honest server does: it names what it sends, and sends it once."""
    etag = f'"{hash(content):x}"'

    def answer(wire: Wire, request: Request) -> None:
        if request.headers.get("if-none-match") == etag:
            wire.send("HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            wire.answer(content, f"ETag: {etag}")

    return answer


def groups(source: Source) -> list[str]:
    """Return the groups that a source delivers."""
    return [group.security_group_id for group in source.fetch().snapshot.security_groups]


@pytest.mark.parametrize("fault", SERVER_FAULTS, ids=lambda fault: fault.does)
def test_what_servers_do_wrong(fault: ServerFault, stage: Stage) -> None:
    """The agent reports each in the words of tests/server_faults.md, and accepts nothing but the last."""
    said = wording(told(fault, stage))
    assert fault.does in documented_lies()[said]
    assert (said == "taken") is (fault is SERVER_FAULTS[-1])


def test_the_table_of_lies_is_whole() -> None:
    """Each row of tests/server_faults.md is about faults that are tried."""
    rows = documented_lies().values()
    assert sorted(does for row in rows for does in row) == sorted(fault.does for fault in SERVER_FAULTS)


def documented_lies() -> dict[str, list[str]]:
    """Return what tests/server_faults.md says that the agent says, and to which faults."""
    table = TABLE.read_text(encoding="utf-8")
    return {
        said: faults.split("; ")
        for said, faults in re.findall(r"^\| `(.+)` \| (.+) \|$", table, re.MULTILINE)
    }


def test_a_document_is_named_after_the_last_part_of_its_url(source: HttpsSource) -> None:
    """So messages name it as its author does."""
    (document,) = source.fetch().documents
    assert (document.name, document.content) == ("web.yaml", POLICY.encode())


@pytest.mark.parametrize(
    ("target", "name"),
    (("/a/web.yaml?x=/y", "web.yaml"), ("/", HOST), ("/%77eb%0a.json", "web\\n.json"), ("/policy", "policy")),
)
def test_names_of_documents(target: str, name: str) -> None:
    """The host where the path names nothing; escaped where it would drive a terminal."""
    assert name_of(ServerUrl(host=HOST, target=target)) == name


def test_what_did_not_change_is_not_sent_again(source: HttpsSource, server: TlsServer) -> None:
    """The second question names what came first, and its delivery is the very same."""
    first, second = source.fetch(), source.fetch()
    assert first is second
    assert "if-none-match" not in server.requests[0].headers
    assert server.requests[1].headers["if-none-match"].startswith('"')


def test_a_date_does_where_there_is_no_etag(source: HttpsSource, server: TlsServer) -> None:
    """It is sent back letter by letter."""
    date = "Wed, 25 Nov 2026 00:00:00 GMT"
    server.script = answering("200 OK", f"Last-Modified: {date}", body=POLICY)
    source.fetch()
    server.script = answering("304 Not Modified", body="")
    assert groups(source) == ["sg-web"]
    assert server.requests[-1].headers["if-modified-since"] == date


SENT_AT = "Wed, 25 Nov 2026 00:00:01 GMT"


def asks_by_name(source: HttpsSource, server: TlsServer, written_at: str, sent_at: str) -> bool:
    """Tell whether a document with these dates is asked for by its name the next time."""
    headers = (f"Last-Modified: {written_at}", f"Date: {sent_at}", 'ETag: "1-2"')
    server.script = answering("200 OK", *headers, body=POLICY)
    source.fetch()
    source.fetch()
    return "if-none-match" in server.requests[-1].headers


@pytest.mark.parametrize("written_at", (SENT_AT, "Wed, 25 Nov 2026 00:00:02 GMT"))
def test_one_of_this_second_is_sent_whole(source: HttpsSource, server: TlsServer, written_at: str) -> None:
    """It may have changed since under the same name."""
    assert not asks_by_name(source, server, written_at, SENT_AT)


@pytest.mark.parametrize(
    ("written_at", "sent_at"),
    (
        ("Wed, 25 Nov 2026 00:00:00 GMT", SENT_AT),
        ("Wed, 25 Nov 2026 00:00:00 GMT", "Wed, 25 Nov 2026 00:00:01 -0000"),
        ("yesterday", "today"),
        ("Wed, 25 Nov 99999999999 00:00:00 GMT", SENT_AT),
        ("", SENT_AT),
    ),
)
def test_an_older_document_is_asked_for_by_its_name(
    source: HttpsSource, server: TlsServer, written_at: str, sent_at: str
) -> None:
    """And one whose dates tell nothing."""
    assert asks_by_name(source, server, written_at, sent_at)


def test_the_same_content_by_another_name_is_not_read_again(source: HttpsSource, server: TlsServer) -> None:
    """What was parsed stays parsed."""
    first = source.fetch()
    server.script = answering("200 OK", 'ETag: "other"', body=POLICY)
    assert source.fetch().snapshot is first.snapshot


def test_an_etag_that_never_changes_is_seen_through(stage: Stage, server: TlsServer) -> None:
    """Now and then the document is asked for without condition."""
    clock = FakeClock()
    source = source_for(settings_for(stage, server.port), monotonic=clock.monotonic)

    def stubborn(wire: Wire, request: Request) -> None:
        if "if-none-match" in request.headers:
            wire.send("HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            wire.answer(OTHER, 'ETag: "always"')

    server.script = answering("200 OK", 'ETag: "always"', body=POLICY)
    assert groups(source) == ["sg-web"]
    server.script = stubborn
    assert groups(source) == ["sg-web"]
    clock.pass_seconds(ASK_WHOLE_SECONDS)
    assert groups(source) == ["sg-app"]


def test_gzip_is_asked_for_and_unpacked(source: HttpsSource, server: TlsServer) -> None:
    """Chunked or not."""
    packed = gzip.compress(POLICY.encode())
    head = "HTTP/1.1 200 OK\r\nContent-Encoding: GZIP\r\nTransfer-Encoding: chunked\r\n\r\n"

    def answer(wire: Wire, _request: Request) -> None:
        wire.send(head, *(b"1\r\n%c\r\n" % byte for byte in packed), "0\r\n\r\n")

    server.script = answer
    assert groups(source) == ["sg-web"]
    assert "gzip" in server.requests[0].headers["accept-encoding"]


def test_a_redirect_to_the_same_server_is_followed(source: HttpsSource, server: TlsServer) -> None:
    """Relative or not, a few times."""
    ways = {"/web.yaml": "b?c=d", "/b?c=d": f"https://{HOST}:{server.port}/e"}

    def answer(wire: Wire, request: Request) -> None:
        if request.target in ways:
            wire.answer("", f"Location: {ways[request.target]}", status="307 Temporary Redirect")
        else:
            wire.answer(POLICY)

    server.script = answer
    assert groups(source) == ["sg-web"]
    assert [request.target for request in server.requests] == ["/web.yaml", "/b?c=d", "/e"]


def test_the_host_is_asked_for_by_name(source: HttpsSource, server: TlsServer) -> None:
    """And the agent says who it is."""
    source.fetch()
    (request,) = server.requests
    assert request.headers["host"] == f"{HOST}:{server.port}"
    assert request.headers["user-agent"].startswith("sgagent/")
    assert "prefer" not in request.headers


def test_tokens_are_read_anew(source: HttpsSource, stage: Stage, server: TlsServer, tmp_path: Path) -> None:
    """So whoever renews it need not tell the agent."""
    token = tmp_path / "token"
    source = source_for(replace(settings_for(stage, server.port), token_file=token))
    for text in ("first-token", "second.token=="):
        token.write_text(text + "\n")
        token.chmod(0o640)
        source.fetch()
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer first-token", "Bearer second.token=="]


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    (
        ("secret-token", 0o644, "everybody can read this secret"),
        ("two words", 0o600, "not a bearer token"),
        ("a\r\nHost: b", 0o600, "not a bearer token"),
        ("", 0o600, "not a bearer token"),
        ("x" * 20_000, 0o600, "not a bearer token"),
        (None, 0o600, "No such file"),
    ),
)
def test_a_token_that_can_not_be_sent(
    content: str | None, mode: int, reason: str, *, stage: Stage, server: TlsServer, tmp_path: Path
) -> None:
    """It is told without its content, and nothing is asked."""
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
        token.chmod(mode)
    with pytest.raises(SourceUnavailableError, match=reason) as caught:
        source_for(replace(settings_for(stage, server.port), token_file=token)).fetch()
    assert not content or content not in str(caught.value)
    assert server.requests == []


def test_a_client_certificate_is_shown(stage: Stage) -> None:
    """To a server that wants one."""
    client = stage.trusted.issue(name="client")
    with tls_server(serving(POLICY), stage.issued, clients_of=stage.trusted.file) as server:
        settings = settings_for(stage, server.port)
        shown = replace(settings, client_certificate=client.certificate, client_key=client.key)
        assert groups(source_for(shown)) == ["sg-web"]


@pytest.mark.parametrize(
    ("name", "content", "mode", "reason"),
    (
        ("ca_file", "nonsense", 0o600, "no certificates"),
        ("ca_file", None, 0o600, "No such file"),
        ("client_certificate", "nonsense", 0o600, "no certificate with its key"),
        ("client_certificate", "nonsense", 0o644, "everybody can read"),
        ("client_certificate", None, 0o600, "No such file"),
    ),
)
def test_files_of_tls_that_are_not_as_they_should_be(
    name: str, content: str | None, mode: int, reason: str, *, stage: Stage, server: TlsServer, tmp_path: Path
) -> None:
    """They are named."""
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    settings = settings_for(stage, server.port)
    if name == "ca_file":
        settings = replace(settings, ca_file=path)
    else:
        settings = replace(settings, client_certificate=path)
    with pytest.raises(SourceUnavailableError, match=reason) as caught:
        source_for(settings).fetch()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ("token_file", "ca_file", "client_certificate", "client_key"))
def test_a_pipe_is_not_waited_for(name: str, *, stage: Stage, server: TlsServer, tmp_path: Path) -> None:
    """Opening one that nobody writes to would block every later fetch; it is named with what to do."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    client = stage.trusted.issue(name="client")
    shown = {"client_certificate": client.certificate} if name == "client_key" else {}
    changed = {**shown, name: tmp_path / "pipe"}
    settings = replace(settings_for(stage, server.port), **changed)  # type: ignore[arg-type]  # names of paths
    with pytest.raises(SourceUnavailableError) as caught:
        source_for(settings).fetch()
    assert str(caught.value).startswith(f"{tmp_path}/pipe: a pipe, a device, a socket or a directory")
    assert server.requests == []


def test_a_key_with_a_password_asks_nobody(stage: Stage, server: TlsServer, tmp_path: Path) -> None:
    """There is nobody at the terminal of a service."""
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
    key.chmod(0o600)
    client = stage.trusted.issue(name="locked")
    settings = settings_for(stage, server.port)
    with pytest.raises(SourceUnavailableError, match="no certificate with its key"):
        source_for(replace(settings, client_certificate=client.certificate, client_key=key)).fetch()


def test_how_long_a_server_wants_to_be_left_alone(stage: Stage, server: TlsServer) -> None:
    """``Retry-After`` in seconds counts, of any length and up to the longest wait; a date does not."""
    settings = settings_for(stage, server.port)
    exchange = Exchange(
        settings, EndpointCache(settings.url.host, server.port, lambda *_: ["127.0.0.1"]), 1000
    )
    for asked, seconds in (
        ("120", 120.0),
        ("99999999", LONGEST_PUT_OFF_SECONDS),
        ("999999999", LONGEST_PUT_OFF_SECONDS),
        ("9" * 5_000, LONGEST_PUT_OFF_SECONDS),
        ("Wed, 25 Nov 2026", SHORTEST_SECONDS),
        ("", SHORTEST_SECONDS),
    ):
        server.script = answering("503 Service Unavailable", f"Retry-After: {asked}")
        with pytest.raises(NoAnswerError) as caught:
            exchange.ask(settings.url)
        assert PollInterval(30, lambda: 0.0).after_failure(caught.value.put_off) == seconds


def test_what_was_found_last_is_kept_when_names_are_not_found(stage: Stage, server: TlsServer) -> None:
    """A policy that cuts the host off its resolver does not cut it off its source (§7.4)."""
    answers: list[list[str]] = [["127.0.0.1"]]

    def look_up(_host: str, _port: int) -> list[str]:
        if not answers:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return answers.pop()

    source = HttpsSource(settings_for(stage, server.port), Limits(), look_up=look_up)
    assert source.endpoints() == ()
    assert groups(source) == groups(source) == ["sg-web"]
    assert source.endpoints() == (Endpoint.at("127.0.0.1", server.port),)
    lost = HttpsSource(settings_for(stage, server.port), Limits(), look_up=look_up)
    with pytest.raises(SourceUnavailableError, match="can't be reached: Temporary failure in name"):
        lost.fetch()


def test_what_was_found_is_remembered_over_restarts(stage: Stage, server: TlsServer, tmp_path: Path) -> None:
    """By the same server's name only; a damaged memory is none."""
    found = [["127.0.0.1"]]

    def look_up(_host: str, _port: int) -> list[str]:
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found.pop()

    memory = tmp_path / "state" / "source-addresses.json"
    settings = settings_for(stage, server.port)

    def restarted(of: HttpsSourceSettings = settings) -> HttpsSource:
        return HttpsSource(of, Limits(), memory=memory, look_up=look_up)

    first = restarted()
    assert groups(first) == ["sg-web"]
    assert not memory.exists()
    memory.parent.mkdir()
    found.append(["127.0.0.1"])
    assert groups(first) == groups(restarted()) == ["sg-web"]
    with pytest.raises(SourceUnavailableError, match="Temporary failure"):
        restarted(replace(settings, url=replace(settings.url, host="other.example.com"))).fetch()
    for damage in ("", "[]", '{"host": 1}', memory.read_text().replace("127.0.0.1", "here")):
        memory.write_text(damage)
        with pytest.raises(SourceUnavailableError, match="Temporary failure"):
            restarted().fetch()


def test_an_address_that_does_not_answer_leaves_time_for_the_next(stage: Stage, server: TlsServer) -> None:
    """All addresses of a host are tried within the time for one connection."""
    with socket.create_server(("127.0.0.2", server.port), backlog=1):
        source = HttpsSource(
            settings_for(stage, server.port), Limits(), look_up=lambda *_: ["127.0.0.3", "127.0.0.1"]
        )
        assert groups(source) == ["sg-web"]


def test_an_outage_leaves_no_trace(source: HttpsSource, server: TlsServer) -> None:
    """What was delivered before is delivered after it, without being sent again."""
    before = source.fetch()
    honest, server.script = server.script, answering("500 Internal Server Error")
    with pytest.raises(SourceUnavailableError):
        source.fetch()
    server.script = honest
    assert source.fetch() is before


def test_a_refused_document_is_refused_once(source: HttpsSource, server: TlsServer) -> None:
    """Asked again and not changed, it is the same refusal, which was not worked out anew."""
    server.script = serving("version: 1\nnonsense: true\n")
    refusals = []
    for _ in range(2):
        with pytest.raises(RefusedDocumentsError) as caught:
            source.fetch()
        refusals.append(caught.value)
    assert refusals[0].problems == refusals[1].problems
    assert refusals[0].readable is refusals[1].readable
    assert server.requests[1].headers["if-none-match"]


def test_who_watches_is_not_woken_by_what_stays_the_same(source: HttpsSource, server: TlsServer) -> None:
    """Neither by a refused document nor by an outage that goes on."""
    server.script = serving("version: 1\nnonsense: true\n")
    woken = threading.Semaphore(0)
    with source.watch(woken.release):
        assert woken.acquire(timeout=WITHIN_SECONDS)
        asked_again(server)
        assert not woken.acquire(blocking=False)
        server.script = answering("500 Internal Server Error")
        assert woken.acquire(timeout=WITHIN_SECONDS)
        asked_again(server)
        assert not woken.acquire(blocking=False)


def asked_again(server: TlsServer) -> None:
    """Wait until the server was asked twice more, so that what came of the first is known."""
    known = len(server.requests)
    arrived = threading.Event()
    script = server.script

    def noted(wire: Wire, request: Request) -> None:
        script(wire, request)
        if len(server.requests) >= known + 2:
            arrived.set()

    server.script = noted
    assert arrived.wait(WITHIN_SECONDS)
    server.script = script


def test_nobody_waits_for_a_slow_server_while_it_is_watched(stage: Stage, server: TlsServer) -> None:
    """A fetch hands over what there is."""
    settings = replace(settings_for(stage, server.port), timeout_seconds=60)
    source = source_for(settings)
    woken = threading.Event()
    with source.watch(woken.set):
        assert woken.wait(WITHIN_SECONDS)
        asking = threading.Event()

        def hang(wire: Wire, _request: Request) -> None:
            asking.set()
            wire.hang()

        server.script = hang
        assert asking.wait(WITHIN_SECONDS)
        assert groups(source) == ["sg-web"]


def test_a_refresh_asks_at_once(stage: Stage, server: TlsServer) -> None:
    """Whenever the next question is due."""
    source = source_for(replace(settings_for(stage, server.port), poll_seconds=3600))
    woken = threading.Event()
    with source.watch(woken.set):
        assert woken.wait(WITHIN_SECONDS)
        woken.clear()
        server.script = serving(OTHER)
        source.refresh()
        assert woken.wait(WITHIN_SECONDS)
        assert groups(source) == ["sg-app"]


def test_a_refresh_waits_for_the_answer(stage: Stage, server: TlsServer) -> None:
    """So that who asked for it gets what the server has, or hears that it has not answered in time."""
    source = source_for(replace(settings_for(stage, server.port), poll_seconds=3600))
    with source.watch(lambda: None):
        assert groups(source) == ["sg-web"]
        server.script = serving(OTHER)
        assert source.refresh(WITHIN_SECONDS)
        assert groups(source) == ["sg-app"]
        server.script = answering("503 Service Unavailable")
        assert source.refresh(WITHIN_SECONDS)
        with pytest.raises(SourceUnavailableError, match="503"):
            source.fetch()
        server.script = lambda wire, _: wire.hang()
        assert not source.refresh(0.01)


def test_a_refresh_breaks_off_a_long_poll(stage: Stage, server: TlsServer) -> None:
    """Nobody sees a failure of that, and the next long poll follows at once."""
    source = source_for(replace(settings_for(stage, server.port), poll_seconds=3600, long_poll_seconds=3600))
    waiting = threading.Semaphore(0)

    def patient(wire: Wire, request: Request) -> None:
        if "prefer" in request.headers:
            waiting.release()
            wire.hang()
        else:
            serving(content)(wire, request)

    content, server.script = POLICY, patient
    wakes: list[list[str]] = []
    with source.watch(lambda: wakes.append(groups(source))):
        assert groups(source) == ["sg-web"]
        assert source.refresh(WITHIN_SECONDS)  # the interval is an hour; long polls begin now
        content = OTHER
        for _ in range(3):
            assert waiting.acquire(timeout=WITHIN_SECONDS)
            assert source.refresh(WITHIN_SECONDS)
            assert groups(source) == ["sg-app"]
        assert waiting.acquire(timeout=WITHIN_SECONDS)
    assert wakes == [["sg-web"], ["sg-app"]]


def test_a_long_poll_tells_of_a_change_at_once(stage: Stage, server: TlsServer) -> None:
    """The server is asked to wait, and is not asked otherwise meanwhile."""
    source = source_for(replace(settings_for(stage, server.port), poll_seconds=3600, long_poll_seconds=30))
    changed, waiting, woken = threading.Event(), threading.Event(), threading.Event()

    def patient(wire: Wire, request: Request) -> None:
        if "prefer" not in request.headers:
            serving(POLICY)(wire, request)
        elif not changed.is_set():
            waiting.set()
            changed.wait(WITHIN_SECONDS)
            serving(OTHER)(wire, request)
        else:
            wire.hang()

    server.script = patient
    with source.watch(woken.set):
        assert woken.wait(WITHIN_SECONDS)
        source.refresh()  # the interval is an hour; from here on the server is asked to wait
        assert waiting.wait(WITHIN_SECONDS)
        woken.clear()
        changed.set()
        assert woken.wait(WITHIN_SECONDS)
        assert groups(source) == ["sg-app"]
    assert [request.headers.get("prefer") for request in server.requests[:3]] == [None, None, "wait=30"]


def signing_source(stage: Stage, server: TlsServer) -> HttpsSource:
    """Return a source that takes only what is signed."""
    pinned = SignatureSettings(public_keys=(KEY.public,))
    limits = replace(Limits(), document_bytes=LIMIT_BYTES)
    return source_for(
        settings_for(stage, server.port),
        parser=VerifiedParser(limits, SignaturePolicy(pinned, now=lambda: NOW)),
    )


def serving_signed(content: str, signed: str) -> Script:
    """Return what a server does that has a document and the signature of another, or of the same."""
    signature = signature_of({"web.yaml": signed.encode()}).decode()

    def answer(wire: Wire, request: Request) -> None:
        serving(signature if request.target == "/web.yaml.sig" else content)(wire, request)

    return answer


def test_the_signature_is_beside_the_document(stage: Stage, server: TlsServer) -> None:
    """Under its URL and ``.sig``; neither is sent again while it does not change."""
    server.script = serving_signed(POLICY, POLICY)
    source = signing_source(stage, server)
    first = source.fetch()
    assert first.signed is not None
    assert source.fetch() is first
    assert [request.target for request in server.requests] == ["/web.yaml", "/web.yaml.sig"] * 2
    assert all("if-none-match" in request.headers for request in server.requests[2:])


def test_a_signature_that_is_not_there(stage: Stage, server: TlsServer) -> None:
    """The document is refused; if the server fails otherwise, it is only away."""
    source = signing_source(stage, server)

    def answer(wire: Wire, request: Request) -> None:
        if request.target.endswith(".sig"):
            wire.answer("", status=status)
        else:
            wire.answer(POLICY)

    server.script = answer
    status = "404 Not Found"
    with pytest.raises(DocumentError, match=r"web\.yaml\.sig: there is no signature"):
        source.fetch()
    status = "503 Service Unavailable"
    with pytest.raises(SourceUnavailableError, match="503"):
        source.fetch()


def test_a_publication_in_two_steps_is_never_refused(stage: Stage, server: TlsServer) -> None:
    """While document and signature do not belong together, what was there before is."""
    source = signing_source(stage, server)
    server.script = serving_signed(POLICY, POLICY)
    assert groups(source) == ["sg-web"]
    server.script = serving_signed(OTHER, POLICY)
    for _ in range(MOST_MISMATCHES - 1):
        assert groups(source) == ["sg-web"]
    server.script = serving_signed(OTHER, OTHER)
    assert groups(source) == ["sg-app"]


def test_a_document_that_nobody_signs_is_refused_in_the_end(stage: Stage, server: TlsServer) -> None:
    """And taken once somebody does."""
    source = signing_source(stage, server)
    server.script = serving_signed(POLICY, POLICY)
    source.fetch()
    server.script = serving_signed(OTHER, POLICY)
    for _ in range(MOST_MISMATCHES - 1):
        source.fetch()
    with pytest.raises(DocumentError, match="differs from the one that was signed"):
        source.fetch()
    server.script = serving_signed(OTHER, OTHER)
    assert groups(source) == ["sg-app"]


class HttpsOrigin:
    """A server in a test's hands."""

    def __init__(self, source: Source, server: TlsServer) -> None:
        """Take the source, and the server that it asks."""
        self.source = source
        self._server = server

    def write(self, content: str) -> None:
        """Serve this."""
        self._serve(serving(content))

    def remove(self) -> None:
        """Serve nothing."""
        self._serve(answering("404 Not Found"))

    def _serve(self, script: Script) -> None:
        """Serve something else, and spare the test the second until the next question."""
        self._server.script = script
        self.source.refresh()


class TestHttpsSource(SourceContract):
    """It keeps the contract of all sources."""

    @pytest.fixture
    def origin(self, source: HttpsSource, server: TlsServer) -> Origin:
        """Give a server that has nothing."""
        origin = HttpsOrigin(source, server)
        origin.remove()
        return origin
