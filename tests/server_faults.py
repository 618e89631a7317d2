"""What servers do wrong, and what the agent says to it.

``python -m tests.server_faults`` prints the table of ``tests/server_faults.md``; a test compares the two.
"""

from __future__ import annotations

import gzip
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sgagent.core.errors import SgagentError
from sgagent.documents import Limits
from sgagent.settings.sources import HttpsSourceSettings, ServerUrl
from sgagent.sources.https.source import HttpsSource
from tests.certificates import Authority, Issued
from tests.tlsserver import Request, Script, Wire, tls_server

HOST = "policy.example.com"
POLICY = "version: 1\nsecurity_groups: [{security_group_id: sg-web, type: basic}]\n"
LIMIT_BYTES = 100_000
"""Of a document, in these tests."""

PATIENCE_SECONDS = 20
"""How long the agent waits for a connection, and for an answer, in these tests …"""

SHORT_SECONDS = 1
"""… and where it is to wait in vain."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Certificates, and what the client trusts."""

    trusted: Authority
    issued: Issued
    stranger: Issued
    """Of an authority that is not trusted."""

    expired: Issued
    elsewhere: Issued
    """For another host."""


@dataclass(frozen=True, slots=True)
class ServerFault:
    """One thing that a server does wrong."""

    does: str
    """In words, for the table."""

    script: Script
    issued: Callable[[Stage], Issued | None] = lambda stage: stage.issued
    wants_certificate: bool = False
    seconds: int = PATIENCE_SECONDS
    """How long the agent waits for an answer."""


def make_stage(directory: Path) -> Stage:
    """Return certificates of all kinds."""
    trusted, other = Authority(directory), Authority(directory, "other")
    return Stage(
        trusted=trusted,
        issued=trusted.issue(HOST),
        stranger=other.issue(HOST, name="stranger"),
        expired=trusted.issue(HOST, name="expired", days=-1),
        elsewhere=trusted.issue("elsewhere.example.com", name="elsewhere"),
    )


def settings_for(stage: Stage, port: int, seconds: int = PATIENCE_SECONDS) -> HttpsSourceSettings:
    """Return settings that ask a server of a test."""
    return HttpsSourceSettings(
        url=ServerUrl(host=HOST, port=port, target="/web.yaml"),
        poll_seconds=1,
        connect_timeout_seconds=PATIENCE_SECONDS,
        timeout_seconds=seconds,
        ca_file=stage.trusted.file,
    )


def source_for(settings: HttpsSourceSettings, **more: object) -> HttpsSource:
    """Return a source that finds the host on loopback."""
    limits = replace(Limits(), document_bytes=LIMIT_BYTES)
    return HttpsSource(settings, limits, look_up=lambda _host, _port: ["127.0.0.1"], **more)  # type: ignore[arg-type]  # the source's own parameters, passed through


def told(fault: ServerFault, stage: Stage) -> str:
    """Return what the agent says to a fault; the port, which changes, is left out."""
    clients = stage.trusted.file if fault.wants_certificate else None
    with tls_server(fault.script, fault.issued(stage), clients_of=clients) as server:
        source = source_for(settings_for(stage, server.port, fault.seconds))
        try:
            source.fetch()
        except SgagentError as error:
            return re.sub(rf"{HOST}:\d+", HOST, str(error)).splitlines()[0]
        return "taken"


def wording(said: str) -> str:
    """Return what the agent says without what differs between servers: URLs, times, statuses and garbage."""
    for pattern, general in (
        (r"https://policy\.example\.com\S*: ", ""),
        (r"^error: \w+\.yaml", "error: DOCUMENT"),
        (r"redirected to '[^']*'", "redirected to 'URL'"),
        (r"within \d+ s", "within N s"),
        (r"answered (?!304)\d+[A-Za-z ]*(?= \(|$)", "answered STATUS"),
        (r"not HTTP: \\x.*", "not HTTP: …"),
        (r"'<html>.*'", "'<html>…'"),
    ):
        said = re.sub(pattern, general, said, count=1)
    return said


def answering(status: str, *headers: str, body: str = "no") -> Script:
    """Return a script that always answers the same."""
    return lambda wire, _request: wire.answer(body, *headers, status=status)


def sending(*pieces: bytes | str) -> Script:
    """Return a script that always sends the same bytes, and ends."""
    return lambda wire, _request: wire.send(*pieces)


def _drip_body(wire: Wire, _request: Request) -> None:
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nversion: 1\n#")
    wire.drip(b"#", 0.02)


def _drip_head(wire: Wire, _request: Request) -> None:
    wire.send("HTTP/1.1 200 OK\r\nX-Long: ")
    wire.drip(b"a", 0.02)


def _interim_for_ever(wire: Wire, _request: Request) -> None:
    wire.drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.02)


def _endless(wire: Wire, _request: Request) -> None:
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.pour(b"400\r\n" + b"#" * 0x400 + b"\r\n")


def _endless_head(wire: Wire, _request: Request) -> None:
    wire.send("HTTP/1.1 200 OK\r\n")
    wire.pour(b"X-More: 1\r\n" * 100)


def _loop(wire: Wire, request: Request) -> None:
    target = "/b" if request.target == "/a" else "/a"
    wire.answer("", f"Location: {target}", status="302 Found")


_PACKED = gzip.compress(POLICY.encode())
_BOMB = gzip.compress(bytes(20_000_000))
_OK = "HTTP/1.1 200 OK\r\n"

SERVER_FAULTS = (
    ServerFault("speaks no TLS", sending(b"HTTP/1.1 200 OK\r\n\r\n"), lambda _stage: None),
    ServerFault("has a certificate of an untrusted authority", answering("200 OK"), lambda s: s.stranger),
    ServerFault("has an expired certificate", answering("200 OK"), lambda s: s.expired),
    ServerFault("has a certificate for another host", answering("200 OK"), lambda s: s.elsewhere),
    ServerFault("requires a missing client certificate", answering("200 OK"), wants_certificate=True),
    ServerFault("accepts and is silent", lambda wire, _request: wire.hang(), seconds=SHORT_SECONDS),
    ServerFault("sends the head byte by byte", _drip_head, seconds=SHORT_SECONDS),
    ServerFault("sends the body byte by byte", _drip_body, seconds=SHORT_SECONDS),
    ServerFault("repeats `100 Continue`", _interim_for_ever, seconds=SHORT_SECONDS),
    ServerFault("closes without an answer", lambda _wire, _request: None),
    ServerFault("does not speak HTTP", sending(b"\x00\xff" * 100)),
    ServerFault("sends an endless header", sending(_OK, "X: ", "a" * 100_000)),
    ServerFault("sends endless headers", _endless_head),
    ServerFault("sends a garbled head", sending(_OK, ":::\x01\r\n\r\n")),
    ServerFault("announces more than it sends", sending(_OK, f"Content-Length: 500\r\n\r\n{POLICY}")),
    ServerFault("announces less than it sends", sending(_OK, f"Content-Length: 45\r\n\r\n{POLICY}")),
    ServerFault("announces an invalid length", sending(_OK, f"Content-Length: many\r\n\r\n{POLICY}")),
    ServerFault("announces a length with `_`", sending(_OK, f"Content-Length: 4_5\r\n\r\n{POLICY}")),
    ServerFault("announces no length", sending(_OK, f"\r\n{POLICY}")),
    ServerFault(
        "announces two lengths", sending(_OK, f"Content-Length: 45\r\nContent-Length: 500\r\n\r\n{POLICY}")
    ),
    ServerFault(
        "breaks off between chunks",
        sending(_OK, f"Transfer-Encoding: chunked\r\n\r\n{len(POLICY):x}\r\n{POLICY}\r\n"),
    ),
    ServerFault(
        "announces a negative chunk",
        sending(_OK, f"Transfer-Encoding: chunked\r\n\r\n-5\r\n{POLICY}\r\n0\r\n\r\n"),
    ),
    ServerFault("announces too large a body", sending(_OK, "Content-Length: 99999999999\r\n\r\n")),
    ServerFault("sends an endless body", _endless),
    ServerFault("sends a gzip bomb", lambda wire, _request: wire.answer(_BOMB, "Content-Encoding: gzip")),
    ServerFault(
        "sends half a gzip body", lambda wire, _request: wire.answer(_PACKED[:-12], "Content-Encoding: gzip")
    ),
    ServerFault(
        "sends more after a gzip body",
        lambda wire, _request: wire.answer(_PACKED + b"more", "Content-Encoding: gzip"),
    ),
    ServerFault("calls plain text gzip", answering("200 OK", "Content-Encoding: gzip", body=POLICY)),
    ServerFault(
        "uses an encoding that was not requested", answering("200 OK", "Content-Encoding: br", body=POLICY)
    ),
    ServerFault(
        "redirects to another host",
        answering("302 Found", "Location: https://elsewhere.example.com/web.yaml"),
    ),
    ServerFault(
        "redirects to plain HTTP", answering("301 Moved Permanently", f"Location: http://{HOST}/web.yaml")
    ),
    ServerFault("redirects in a circle", _loop),
    ServerFault("redirects without a target", answering("302 Found")),
    ServerFault("answers 304 to an unconditional request", sending("HTTP/1.1 304 Not Modified\r\n\r\n")),
    ServerFault("answers 401", answering("401 Unauthorized")),
    ServerFault("answers 403", answering("403 Forbidden")),
    ServerFault("answers 404", answering("404 Not Found")),
    ServerFault("answers 500", answering("500 Internal Server Error")),
    ServerFault("answers 503 with `Retry-After`", answering("503 Service Unavailable", "Retry-After: 120")),
    ServerFault("answers a status that does not exist", answering("799 Whatever\x1b[2J")),
    ServerFault("sends an empty body", answering("200 OK", body="")),
    ServerFault("sends an HTML page", answering("200 OK", body="<html><body>Sorry!</body></html>")),
    ServerFault(
        "sends zlib as `deflate`",
        lambda wire, _request: wire.answer(zlib.compress(POLICY.encode()), "Content-Encoding: deflate"),
    ),
)
"""The last one is no fault; it shows what being taken looks like."""


def table() -> str:
    """Return the table of what the agent says and to which faults, in Markdown."""
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as directory:
        stage = make_stage(Path(directory))
        for fault in SERVER_FAULTS:
            rows.setdefault(wording(told(fault, stage)), []).append(fault.does)
    lines = [f"| `{said}` | {'; '.join(faults)} |" for said, faults in rows.items()]
    return "\n".join(["| the agent says | to a server that |", "|---|---|", *lines, ""])


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201 - what it is for
