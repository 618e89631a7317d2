"""The source as it asks a server that speaks the API's own protocol, through the cloud's own SDK."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from sgagent.core.binding import HandBinding
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.core.rule_values import objects_text
from sgagent.documents import Limits
from sgagent.settings.sources import AliyunSourceSettings, ServerUrl
from sgagent.sources.aliyun.ecs_api import Action, Api, ApiCall, ApiError, NotAllowedError, ThrottledError
from sgagent.sources.aliyun.source import AliyunSource
from sgagent.sources.servers import EndpointCache, ResolveHost
from tests.certificates import Authority
from tests.contract.source import Origin, SourceContract
from tests.ecsserver import KEY_ID, SECRET, TOKEN, EcsServer, ecs_server, reply
from tests.fakes.cloud import REGION, FakeApi, FakeCloud, RefusalError, permission
from tests.patience import PATIENCE

pytest.importorskip("alibabacloud_ecs20140526", reason="the cloud's SDK is not installed (sgagent[aliyun])")

from sgagent.sources.aliyun.client import SdkApi, SdkTransport

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(Tea|alibabacloud|darabonba).*")
"""The SDK's own affair."""

GROUPS = ApiCall(Action.GROUPS)


@pytest.fixture
def server() -> Iterator[EcsServer]:
    """Give a server with one group and this host's interface."""
    cloud = FakeCloud()
    cloud.add_group("sg-web", permission(SourceCidrIp="0.0.0.0/0"))
    cloud.add_interface("eni-1", "10.0.0.1", "sg-web", instance="i-here")
    with ecs_server(cloud) as running:
        yield running


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Give a file with the right access key."""
    return write_key(tmp_path / "key")


def write_key(path: Path, secret: str = SECRET, token: str = "") -> Path:
    """Write an access key as Alibaba Cloud's tools do."""
    path.write_text(
        f"[default]\ntype = access_key\naccess_key_id = {KEY_ID}\naccess_key_secret = {secret}\n"
        + (f"security_token = {token}\n" if token else "")
    )
    path.chmod(0o600)
    return path


def settings_for(server: EcsServer, key_file: Path) -> AliyunSourceSettings:
    """Return settings that lead to a server."""
    endpoint = ServerUrl(host="127.0.0.1", port=server.port, is_encrypted=server.is_encrypted)
    return AliyunSourceSettings(
        region=REGION,
        endpoint=endpoint,
        poll_seconds=1,
        connect_timeout_seconds=1,
        timeout_seconds=1,
        credentials_file=key_file,
        instance_id="i-here",
    )


def source_for(
    settings: AliyunSourceSettings, by_hand: tuple[HandBinding, ...] | None = (), limits: Limits | None = None
) -> AliyunSource:
    """Return a source that never puts anything off."""
    api, endpoint_cache = api_for(settings, limits)
    return AliyunSource(
        settings, limits or Limits(), api, by_hand=by_hand, endpoint_cache=endpoint_cache, random=lambda: 0.0
    )


def api_for(
    settings: AliyunSourceSettings,
    limits: Limits | None = None,
    look_up: ResolveHost = lambda *_: ["127.0.0.1"],
) -> tuple[SdkApi, EndpointCache]:
    """Return the API, and what finds it."""
    endpoint_cache = EndpointCache(settings.api.host, settings.api.port, look_up)
    return SdkApi(settings, limits or Limits(), endpoint_cache), endpoint_cache


def said(source: AliyunSource) -> str:
    """Return why a source delivers nothing."""
    with pytest.raises(SourceUnavailableError) as caught:
        source.fetch()
    return str(caught.value)


def test_signed_questions_are_answered(server: EcsServer, key_file: Path) -> None:
    """Signatures, dates and nonces are checked by the server; the group comes with its rule."""
    (group,) = source_for(settings_for(server, key_file)).fetch().snapshot.security_groups
    assert [objects_text(rule.authorization_objects) for rule in group.rules] == ["0.0.0.0/0"]
    assert [action for action, _ in server.cloud.asked][:2] == [
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
    ]
    assert len(server.nonces) == len(server.cloud.asked)


def test_what_has_not_changed_is_the_same_delivery(server: EcsServer, key_file: Path) -> None:
    """Answers with other numbers and times are no news."""
    source = source_for(settings_for(server, key_file))
    assert source.fetch() is source.fetch()


def test_lists_and_texts_are_signed_as_they_are_sent(server: EcsServer, key_file: Path) -> None:
    """Parameters with several values, quotes and letters of any kind."""
    api = api_for(settings_for(server, key_file))[0]
    names = ["eni-1", "eni ü&=/~*"]
    answer = api.ask(ApiCall(Action.INTERFACES, {"NetworkInterfaceId": names, "MaxResults": 10}))
    assert json.dumps(answer).count("eni-1") == 1
    asked = dict(server.cloud.asked[-1][1])
    assert [asked[f"NetworkInterfaceId.{number}"] for number in (1, 2)] == names


def test_a_key_for_a_while_is_shown_with_its_token(server: EcsServer, key_file: Path) -> None:
    """And who renews the file need not tell the agent."""
    server.wants_token = True
    api = api_for(settings_for(server, key_file))[0]
    with pytest.raises(NotAllowedError, match="InvalidSecurityToken"):
        api.ask(GROUPS)
    write_key(key_file, token=TOKEN)
    assert api.ask(GROUPS)["SecurityGroups"]


def test_wrong_keys_are_refused_and_never_shown(server: EcsServer, key_file: Path) -> None:
    """The message says what the API says."""
    write_key(key_file, secret="not-the-secret")  # noqa: S106 - a wrong one
    with pytest.raises(NotAllowedError, match="SignatureDoesNotMatch") as caught:
        api_for(settings_for(server, key_file))[0].ask(GROUPS)
    assert "not-the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    (
        ("[default]\naccess_key_id = a\naccess_key_secret = b\n", 0o644, "everybody can read this secret"),
        ("my-secret", 0o600, "no access key"),
        ("[default]\naccess_key_id = a\n", 0o600, "no access key"),
        ("[other]\naccess_key_id = a\naccess_key_secret = my-secret\n", 0o600, "no access key"),
    ),
)
def test_files_without_a_key(server: EcsServer, key_file: Path, content: str, mode: int, reason: str) -> None:
    """What is wrong is told without what is in the file."""
    key_file.write_text(content)
    key_file.chmod(mode)
    told = said(source_for(settings_for(server, key_file)))
    assert told.startswith(f"{key_file}: {reason}")
    assert "my-secret" not in told


@pytest.mark.parametrize("name", ("credentials_file", "ca_file"))
def test_a_pipe_is_not_waited_for(name: str, *, server: EcsServer, key_file: Path, tmp_path: Path) -> None:
    """Opening one that nobody writes to would block every later fetch."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    changed = {name: tmp_path / "pipe"}
    settings = replace(settings_for(server, key_file), **changed)  # type: ignore[arg-type]  # names of paths
    told = said(source_for(settings))
    assert told.startswith(f"{tmp_path}/pipe: a pipe, a device, a socket or a directory")


def test_throttling_is_told_apart(server: EcsServer, key_file: Path) -> None:
    """By its code, and by the status that proxies in between use."""
    api = api_for(settings_for(server, key_file))[0]
    for refusal in (RefusalError(400, "Throttling.User"), RefusalError(503, "ServiceUnavailable")):
        server.cloud.refusals = [refusal]
        with pytest.raises(ThrottledError):
            api.ask(GROUPS)
    server.cloud.refusals = [RefusalError(400, "Throttling")] * 3
    assert source_for(settings_for(server, key_file)).fetch().snapshot.security_groups


def test_a_refusal_is_worded_alike_each_time(server: EcsServer, key_file: Path) -> None:
    """Its number changes with each answer; what is told does not, so that it is told once."""
    server.cloud.refusals = [RefusalError(403, "Forbidden.RAM", "User not authorized")] * 2
    source = source_for(settings_for(server, key_file))
    first, second = said(source), said(source)
    assert first == second == "DescribeNetworkInterfaces i-here: Forbidden.RAM: User not authorized"


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close without an answer."""
    handler.close_connection = True
    handler.connection.close()


def page_for_people(handler: BaseHTTPRequestHandler) -> None:
    """Answer as a captive portal does."""
    reply(handler, 200, b"<html>Please sign in</html>")


def half(handler: BaseHTTPRequestHandler) -> None:
    """Announce more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"SecurityGroups": ')
    handler.close_connection = True


def list_of(handler: BaseHTTPRequestHandler) -> None:
    """Answer JSON of another shape."""
    reply(handler, 200, b"[]")


def broken(handler: BaseHTTPRequestHandler) -> None:
    """Fail in a way that is not the API's."""
    reply(handler, 502, b"<html>Bad Gateway</html>")


@pytest.mark.parametrize(
    ("script", "reason"),
    (
        (hang_up, "can't be reached"),
        (page_for_people, "unexpected answer: not JSON"),
        (half, "can't be reached"),
        (list_of, "unexpected answer: not a JSON object"),
        (broken, "unexpected answer: not JSON"),
    ),
)
def test_answers_that_are_none(server: EcsServer, key_file: Path, script: object, reason: str) -> None:
    """Each is told in a line, alike each time, and nothing is taken."""
    server.script = script  # type: ignore[assignment]  # one of the above
    source = source_for(settings_for(server, key_file))
    first = said(source)
    assert reason in first
    assert said(source) == first


def test_a_server_that_says_nothing_is_not_waited_for(server: EcsServer, key_file: Path) -> None:
    """It has the configured time."""
    waiting = threading.Event()

    def say_nothing(_: BaseHTTPRequestHandler) -> None:
        waiting.wait(10)

    server.script = say_nothing
    told = said(source_for(settings_for(server, key_file)))
    waiting.set()
    assert told.endswith("no answer within 1 s (1 s to connect)")


def test_nobody_at_the_end_point(server: EcsServer, key_file: Path) -> None:
    """The reason of the system is told."""
    settings = settings_for(server, key_file)
    nobody = replace(settings, endpoint=ServerUrl(host="127.0.0.1", port=1, is_encrypted=False))
    assert said(source_for(nobody)) == "http://127.0.0.1:1: can't be reached: Connection refused"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority that the configuration trusts."""
    return Authority(tmp_path)


@pytest.fixture
def secure(authority: Authority) -> Iterator[EcsServer]:
    """Give a server with TLS, under a name."""
    cloud = FakeCloud()
    cloud.add_group("sg-web", permission(SourceCidrIp="0.0.0.0/0"))
    with ecs_server(cloud, issued=authority.issue(NAME)) as running:
        yield running


NAME = "ecs.example.com"


def by_name(server: EcsServer, key_file: Path, authority: Authority | None) -> AliyunSourceSettings:
    """Return settings that lead to a server by its name, over TLS."""
    settings = settings_for(server, key_file)
    return replace(
        settings,
        endpoint=ServerUrl(host=NAME, port=server.port),
        ca_file=authority.file if authority else None,
    )


def test_the_api_is_found_without_a_resolver(secure: EcsServer, key_file: Path, authority: Authority) -> None:
    """A policy may cut the host off it; the way to the API stays open, and so it must be found (§7.4)."""
    settings = by_name(secure, key_file, authority)
    answers = [["127.0.0.1"]]

    def look_up(host: str, port: int) -> list[str]:
        assert (host, port) == (NAME, secure.port)
        if not answers:
            raise OSError
        return answers.pop()

    api, endpoint_cache = api_for(settings, look_up=look_up)
    source = AliyunSource(settings, Limits(), api, by_hand=None, endpoint_cache=endpoint_cache)
    assert source.fetch().snapshot.security_groups
    secure.cloud.add_group("sg-new")
    assert len(source.fetch().snapshot.security_groups) == 2
    assert source.endpoints() == (Endpoint.at("127.0.0.1", secure.port),)


def test_certificates_are_verified(secure: EcsServer, key_file: Path) -> None:
    """One of an authority that nobody named is not trusted."""
    told = said(source_for(by_name(secure, key_file, None), by_hand=None))
    assert told.startswith(
        f"https://{NAME}:{secure.port}: TLS failed: the server's certificate is not trusted"
    )


def test_a_trickling_answer_has_its_time(secure: EcsServer, key_file: Path, authority: Authority) -> None:
    """Each byte in time does not make the whole in time."""
    is_over = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not is_over.wait(0.1):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    secure.script = trickle
    told = said(source_for(by_name(secure, key_file, authority), by_hand=None))
    is_over.set()
    assert told == f"https://{NAME}:{secure.port}: no whole answer within 1 s"


@pytest.mark.parametrize("is_connected", (False, True))
def test_silence_behind_tls_is_reported_alike(
    secure: EcsServer, key_file: Path, authority: Authority, *, is_connected: bool
) -> None:
    """Whichever of the SDK and its proxy would lose patience first."""
    source, is_over = source_for(by_name(secure, key_file, authority), by_hand=None), threading.Event()
    if is_connected:
        source.fetch()

    def say_nothing(_: BaseHTTPRequestHandler) -> None:
        is_over.wait(10)

    secure.script = say_nothing
    told = said(source)
    is_over.set()
    assert told == f"https://{NAME}:{secure.port}: no whole answer within 1 s"


def test_an_answer_without_end_is_cut(secure: EcsServer, key_file: Path, authority: Authority) -> None:
    """Before the memory is full of it."""

    def pour(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b" " * 10_000)

    secure.script = pour
    source = source_for(
        by_name(secure, key_file, authority), by_hand=None, limits=Limits(document_bytes=50_000)
    )
    assert said(source) == f"https://{NAME}:{secure.port}: the answer has more than 50000 bytes"


def test_nobody_is_led_elsewhere(secure: EcsServer, key_file: Path, authority: Authority) -> None:
    """A redirect to another host ends in front of it, and what the questions hold stays here."""
    reached = threading.Event()

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["Host"] != f"{NAME}:{secure.port}":
            reached.set()
        handler.send_response(307)
        handler.send_header("Location", f"https://elsewhere.example.com:{secure.port}/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    secure.script = elsewhere
    told = said(source_for(by_name(secure, key_file, authority), by_hand=None))
    assert f"the SDK connects to 'elsewhere.example.com:{secure.port}', not the endpoint" in told
    assert not reached.is_set()


def test_nobody_at_the_address(secure: EcsServer, key_file: Path, authority: Authority) -> None:
    """And no address at all."""
    settings = by_name(secure, key_file, authority)
    nobody = replace(settings, endpoint=ServerUrl(host=NAME, port=1))
    assert said(source_for(nobody, by_hand=None)) == f"https://{NAME}:1: can't be reached: Connection refused"

    def nowhere(host: str, port: int) -> list[str]:
        raise OSError(host, port)

    api, endpoint_cache = api_for(settings, look_up=nowhere)
    lost = AliyunSource(settings, Limits(), api, by_hand=None, endpoint_cache=endpoint_cache)
    assert said(lost).endswith("can't be reached: its address is not known")


def test_a_moment_without_descriptors_ends_no_proxy(server: EcsServer, key_file: Path) -> None:
    """The connection for which none is left is lost; the next request has a proxy again."""
    settings = settings_for(server, key_file)
    transport = SdkTransport(settings, EndpointCache("127.0.0.1", server.port), 1_000)
    assert answer_of(transport).startswith(b"HTTP/1.1 403")
    url, (most, hard) = urlsplit(transport.url()), resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as served, socket.socket() as refused:
        refused.settimeout(PATIENCE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (refused.fileno() + 1, hard))
        try:
            served.connect((url.hostname, url.port))  # by the descriptor that the waiting proxy has already
            with pytest.raises(ConnectionError):  # noqa: PT012 - either, as the proxy is slower or faster
                refused.connect((url.hostname, url.port))
                refused.recv(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    assert answer_of(transport).startswith(b"HTTP/1.1 403")


def answer_of(transport: SdkTransport) -> bytes:
    """Return what a proxy says to a request for another end point."""
    address = urlsplit(transport.url())
    with socket.create_connection((address.hostname, address.port), PATIENCE) as near:
        near.sendall(b"CONNECT elsewhere.example:443 HTTP/1.1\r\n\r\n")
        return b"".join(iter(lambda: near.recv(100), b""))


def test_a_question_is_broken_off(secure: EcsServer, key_file: Path, authority: Authority) -> None:
    """Whoever stops does not wait for a silent server."""
    asked, is_over = threading.Event(), threading.Event()

    def say_nothing(_: BaseHTTPRequestHandler) -> None:
        asked.set()
        is_over.wait(30)

    secure.script = say_nothing
    settings = replace(by_name(secure, key_file, authority), timeout_seconds=30)
    source = source_for(settings, by_hand=None)
    with source.watch(lambda: None):
        assert asked.wait(10)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    is_over.set()


def test_documents_that_are_too_large_are_refused(server: EcsServer, key_file: Path) -> None:
    """By the limits of all documents."""
    source = source_for(settings_for(server, key_file), limits=Limits(document_bytes=100))
    with pytest.raises(DocumentError, match="more than 100 bytes"):
        source.fetch()


def test_the_way_to_the_api_is_told(server: EcsServer, key_file: Path) -> None:
    """The end point's addresses, and the metadata service where that is asked."""
    settings = settings_for(server, key_file)
    source = source_for(settings)
    server.cloud.is_away = True
    assert "InternalError" in said(source)
    assert source.endpoints() == (Endpoint.at("127.0.0.1", server.port),)
    by_role = AliyunSource(
        replace(settings, credentials_file=None),
        Limits(),
        api_for(settings)[0],
        by_hand=(),
        read_instance_id=str,
    )
    assert Endpoint.at("100.100.100.200", 80) in by_role.endpoints()


def test_the_metadata_service_is_asked_once_who_this_host_is(server: EcsServer, key_file: Path) -> None:
    """The instance stays what it is."""
    asked: list[str] = []

    def answer() -> str:
        asked.append("who")
        return "i-here"

    settings = replace(settings_for(server, key_file), credentials_file=None, instance_id=None)
    api = api_for(settings_for(server, key_file))[0]
    source = AliyunSource(settings, Limits(), api, by_hand=(), read_instance_id=answer)
    assert source.fetch().snapshot.network_interfaces
    assert source.fetch().snapshot.network_interfaces
    assert asked == ["who"]


def test_the_sdk_is_kept_quiet(server: EcsServer, key_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The log is JSON, and nobody else writes to it."""
    api = api_for(settings_for(server, key_file))[0]
    for name in ("credentials", "darabonba-core"):
        logging.getLogger(name).error("something")
    api.ask(GROUPS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "refusal",
    (
        RefusalError(400, "Throttling.User"),
        RefusalError(503, "ServiceUnavailable"),
        RefusalError(404, "InvalidPrefixListId.NotFound"),
        RefusalError(403, "Forbidden.RAM"),
        RefusalError(500, "InternalError"),
    ),
    ids=lambda refusal: str(refusal.code),
)
def test_the_fake_refuses_as_the_client(server: EcsServer, key_file: Path, refusal: RefusalError) -> None:
    """The same kind of error, in the same words; and the same answer."""
    told = []
    apis: list[Api] = [api_for(settings_for(server, key_file))[0], FakeApi(server.cloud)]
    for api in apis:
        server.cloud.refusals = [refusal]
        with pytest.raises(ApiError) as caught:
            api.ask(GROUPS)
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]
    one, other = ({**api.ask(GROUPS), "RequestId": ""} for api in apis)
    assert one == other


class CloudOrigin:
    """A cloud that has what a test writes as a native document."""

    def __init__(self, source: AliyunSource, cloud: FakeCloud) -> None:
        """Take the source and the cloud that it asks."""
        self.source = source
        self._cloud = cloud

    def write(self, content: str) -> None:
        """Have the cloud know the groups of a document; a broken one is a rule that is none."""
        document = yaml.safe_load(content)
        self._cloud.is_away = False
        self._cloud.groups.clear()
        for group in document.get("security_groups", []):
            self._cloud.add_group(group["security_group_id"])
        if "nonsense" in document:
            self._cloud.add_group("sg-broken", permission(PortRange="nonsense", SourceCidrIp="192.0.2.1"))
        self.source.refresh()

    def remove(self) -> None:
        """Be out of reach."""
        self._cloud.is_away = True
        self.source.refresh()


class TestAliyunSource(SourceContract):
    """It keeps the contract of all sources."""

    @pytest.fixture
    def origin(self, server: EcsServer, key_file: Path) -> Origin:
        """Give a cloud out of reach."""
        server.cloud.interfaces.clear()
        server.cloud.is_away = True
        return CloudOrigin(source_for(settings_for(server, key_file), by_hand=None), server.cloud)
