"""Faults of nginx, its own or of a server behind it, and the agent's message for each.

``tests/server_faults.md`` has the words; a test compares the two.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from integration.namespaces import network_namespace
from integration.nginx import PORT, Nginx, nginx_in
from sgagent.core.errors import SgagentError
from sgagent.documents import Limits
from sgagent.settings.sources import HttpsSourceSettings, ServerUrl
from sgagent.sources.https.source import HttpsSource
from tests.certificates import Authority
from tests.server_faults import LIMIT_BYTES, POLICY, sending
from tests.tlsserver import Script, tls_server

_OK = "HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that the server does wrong."""

    does: str
    """In words, for the table."""

    target: str = "/policy.yaml"
    prepare: Callable[[Nginx], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


def behind(script: Script) -> Callable[[Nginx], contextlib.AbstractContextManager[object]]:
    """Return a context maker that puts a server behind nginx that answers by a script."""

    @contextlib.contextmanager
    def prepare(nginx: Nginx) -> Iterator[None]:
        issued = nginx.authority.issue("localhost")
        with tls_server(script, None) as backend, restarted(nginx):
            nginx.configure(issued, backend.port)
            nginx.start()
            yield

    return prepare


def publishing(content: bytes, name: str) -> Callable[[Nginx], contextlib.AbstractContextManager[object]]:
    """Return a context maker that has nginx serve a file."""

    @contextlib.contextmanager
    def prepare(nginx: Nginx) -> Iterator[None]:
        nginx.publish(content, name)
        yield

    return prepare


@contextlib.contextmanager
def restarted(nginx: Nginx) -> Iterator[None]:
    """Stop nginx, and start it as usual when the context is left."""
    nginx.stop()
    try:
        yield
    finally:
        nginx.stop()
        nginx.configure(nginx.authority.issue("localhost"))
        nginx.start()


@contextlib.contextmanager
def expired(nginx: Nginx) -> Iterator[None]:
    """Have nginx show a certificate that is over."""
    with restarted(nginx):
        nginx.configure(nginx.authority.issue("localhost", name="expired", days=-1))
        nginx.start()
        yield


@contextlib.contextmanager
def stranger(nginx: Nginx) -> Iterator[None]:
    """Have nginx show a certificate of another authority."""
    with restarted(nginx):
        nginx.configure(Authority(nginx.directory, "other").issue("localhost", name="stranger"))
        nginx.start()
        yield


PACKED = gzip.compress(POLICY.encode() * 50)
LONG = f"{_OK}Content-Length: 500\r\n\r\n{POLICY}"
CHUNK = f"{_OK}Transfer-Encoding: chunked\r\n\r\n{len(POLICY):x}\r\n{POLICY}\r\n"
FAULTS = (
    Fault("is stopped", prepare=restarted),
    Fault("has a certificate that has expired", prepare=expired),
    Fault("has a certificate of another authority", prepare=stranger),
    Fault("has no such file", "/none.yaml"),
    Fault("wants a client certificate (`ssl_verify_client`)", "/clients/policy.yaml"),
    Fault("wants a token", "/tokens/policy.yaml"),
    Fault("closes the connection (`return 444`)", "/hung-up/"),
    Fault("is closed for maintenance", "/closed/"),
    Fault(
        "sends 100 bytes a second (`limit_rate`)",
        "/slow/policy.yaml",
        publishing(POLICY.encode() + b"#" * 2000, "slow/policy.yaml"),
    ),
    Fault("redirects to another host", "/elsewhere/policy.yaml"),
    Fault("redirects to plain HTTP", "/unencrypted/policy.yaml"),
    Fault("redirects in a circle", "/circle/policy.yaml"),
    Fault(
        "serves a file that is too large", "/large.yaml", publishing(b"#" * (LIMIT_BYTES + 1), "large.yaml")
    ),
    Fault(
        "serves a gzip bomb (`gzip_static`)",
        "/packed/bomb.yaml",
        publishing(gzip.compress(bytes(20_000_000)), "packed/bomb.yaml.gz"),
    ),
    Fault(
        "serves half of a gzip file",
        "/packed/half.yaml",
        publishing(PACKED[: len(PACKED) // 2], "packed/half.yaml.gz"),
    ),
    Fault("serves a page for people", "/page.yaml", publishing(b"<html>Sorry!</html>", "page.yaml")),
    Fault("finds nobody behind it", "/behind/policy.yaml"),
    Fault("gets no answer from behind it", "/behind/policy.yaml", behind(lambda wire, _request: wire.hang())),
    Fault("gets no HTTP from behind it", "/behind/policy.yaml", behind(sending(b"\x00\xff" * 100))),
    Fault("gets half of an answer from behind it", "/behind/policy.yaml", behind(sending(LONG))),
    Fault("gets an answer without its last chunk", "/behind/policy.yaml", behind(sending(CHUNK))),
    Fault(
        "hands on that nothing changed, without having been asked",
        "/behind/policy.yaml",
        behind(sending("HTTP/1.1 304 Not Modified\r\n\r\n")),
    ),
    Fault("serves the document"),
)
"""The last one is none; it shows what being taken looks like."""


def told(nginx: Nginx, fault: Fault) -> str:
    """Return the agent's message for a fault."""
    settings = HttpsSourceSettings(
        url=ServerUrl(host="localhost", port=PORT, target=fault.target),
        ca_file=nginx.authority.file,
        timeout_seconds=3,
    )
    limits = replace(Limits(), document_bytes=LIMIT_BYTES)
    with fault.prepare(nginx):
        source = HttpsSource(settings, limits, look_up=lambda _host, _port: ["127.0.0.1"])
        try:
            source.fetch()
        except SgagentError as error:
            return str(error).splitlines()[0].replace(f"localhost:{PORT}", "policy.example.com")
        return "taken"


@contextlib.contextmanager
def nginx_alone(directory: Path) -> Iterator[Nginx]:
    """Run nginx on loopback, in a namespace that has nothing else and that the context is in."""
    with (
        network_namespace("faults") as namespace,
        nginx_in(namespace, directory / "nginx", "localhost") as running,
        namespace.entered(),
    ):
        running.publish(POLICY)
        yield running
