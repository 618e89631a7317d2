"""The ECS API over HTTP on loopback, with signatures that are checked, as Alibaba Cloud documents them."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, urlsplit

from tests.certificates import Issued
from tests.fakes.cloud import FakeCloud, RefusalError

KEY_ID = "LTAItestKeyId"
SECRET = "test-secret-0123456789"  # noqa: S105 - the tests' own
TOKEN = "test-security-token"  # noqa: S105 - the same

_ALGORITHM = "ACS3-HMAC-SHA256"
_MOST_AGE = dt.timedelta(minutes=15)

Script = Callable[[BaseHTTPRequestHandler], None]
"""Answers a request in place of the cloud."""


@dataclass(slots=True)
class EcsServer:
    """A running server."""

    cloud: FakeCloud
    server: ThreadingHTTPServer
    is_encrypted: bool
    script: Script | None = None
    wants_token: bool = False
    """Whether keys count only for a while, with a token."""

    nonces: set[str] = field(default_factory=set)

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.server.server_port


@contextlib.contextmanager
def ecs_server(
    cloud: FakeCloud, *, address: tuple[str, int] = ("127.0.0.1", 0), issued: Issued | None = None
) -> Iterator[EcsServer]:
    """Serve a cloud until the context is left.

    Args:
        cloud: what is answered.
        address: where to listen; port 0 lets the kernel choose.
        issued: a certificate with its key, for TLS; None speaks plain HTTP.
    """
    server = _Server(address, _Handler)
    if issued is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    running = EcsServer(cloud, server, issued is not None)
    server.running = running  # type: ignore[attr-defined]  # the library's way to hand something to its handlers
    with serving(server):
        yield running


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve in a thread until the context is left."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Serves each connection in a thread of its own."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up, which is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request after the other of a connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        """Answer a call, or do what the script says."""
        running: EcsServer = self.server.running  # type: ignore[attr-defined]  # see above
        if running.script is not None:
            running.script(self)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            parameters = checked(running, self.path, dict(self.headers.items()), body)
            status, answer = 200, running.cloud.answer(self.headers["x-acs-action"], parameters)
        except RefusalError as refusal:
            status = refusal.status
            answer = {"RequestId": f"refused-{id(refusal)}", "Code": refusal.code, "Message": refusal.message}
        reply(self, status, json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def reply(handler: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
    """Send a whole answer; whoever has gone gets none."""
    with contextlib.suppress(OSError):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json;charset=utf-8")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def checked(running: EcsServer, target: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
    """Return the parameters of a request that is signed as it must be.

    Raises:
        RefusalError: it is not.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    parts = urlsplit(target)
    query = parse_qsl(parts.query, keep_blank_values=True)
    algorithm, _, rest = fields.get("authorization", "").partition(" ")
    told = dict(piece.partition("=")[::2] for piece in rest.split(","))
    if algorithm != _ALGORITHM or told.get("Credential") != KEY_ID:
        raise RefusalError(HTTPStatus.NOT_FOUND, "InvalidAccessKeyId.NotFound")
    if running.wants_token and fields.get("x-acs-security-token") != TOKEN:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "InvalidSecurityToken.Malformed")
    payload = hashlib.sha256(body).hexdigest()
    signed = told["SignedHeaders"].split(";")
    wanted = {name for name in fields if name.startswith("x-acs-") or name in ("host", "content-type")}
    lines = "".join(f"{name}:{fields[name].strip()}\n" for name in signed)
    canonical = "\n".join(
        ("POST", parts.path or "/", _canonical(query), lines, told["SignedHeaders"], payload)
    )
    text = f"{_ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    right = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    is_right = hmac.compare_digest(right, told.get("Signature", ""))
    if not is_right or set(signed) < wanted or fields["x-acs-content-sha256"] != payload:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "SignatureDoesNotMatch")
    _check_age_and_nonce(running, fields)
    return dict(query)


def _canonical(query: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query))


def _check_age_and_nonce(running: EcsServer, fields: Mapping[str, str]) -> None:
    """Refuse a request that is old, or was made before."""
    made_at = dt.datetime.strptime(fields["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    nonce = fields["x-acs-signature-nonce"]
    if abs(dt.datetime.now(dt.UTC) - made_at) > _MOST_AGE or nonce in running.nonces:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "SignatureNonceUsed")
    running.nonces.add(nonce)
