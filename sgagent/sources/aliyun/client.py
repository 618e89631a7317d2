"""Client of the ECS API by Alibaba Cloud's SDK; the only module that imports the SDK.

The SDK builds and signs requests, speaks HTTP and parses errors. The client does not use the SDK's models of
answers: the document parser reads the raw answers, as it reads saved ones.

The SDK needs a resolver for every connection and bounds neither time nor size of an answer. But it accepts a
proxy: a CONNECT proxy on loopback connects only to the configured endpoint, at its cached addresses if its
name can't be resolved, and closes a connection whose answer takes too long or is too large. TLS stays end to
end.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from alibabacloud_credentials.exceptions import CredentialException
from alibabacloud_credentials.models import CredentialModel
from alibabacloud_credentials.provider import EcsRamRoleCredentialsProvider
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException, ThrottlingException
from alibabacloud_tea_openapi.utils import Utils
from alibabacloud_tea_openapi.utils_models import Config, OpenApiRequest, Params
from darabonba.runtime import RuntimeOptions
from Tea.exceptions import RetryError, TeaException

from sgagent import __version__
from sgagent.core.errors import SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings.sources import AliyunSourceSettings
from sgagent.sources.aliyun import ecs_api
from sgagent.sources.aliyun.ecs_api import AccessKey, ApiAnswer, ApiCall, ApiError
from sgagent.sources.servers import (
    ConnectionDeadline,
    EndpointCache,
    connect_to_first,
    require_regular,
    tls_reason,
)

_LONGEST_HEAD = 16 * 1024
_PIECE_BYTES = 64 * 1024
_LOOK_SECONDS = 0.25
"""Interval of checks of the time limit while no data arrives."""

_GRACE_SECONDS = 1
"""How much longer than the proxy the SDK waits: the proxy knows why there is no answer."""


@dataclass(slots=True)
class SdkTransport:
    """A proxy for one endpoint; :meth:`url` starts it."""

    settings: AliyunSourceSettings
    """The only endpoint that the proxy connects to, and the timeouts of a connection and of an answer."""

    endpoint_cache: EndpointCache
    """The cached addresses of the endpoint."""

    most_bytes: int
    """Limit for the size of an answer, as sent."""

    fault: str = ""
    """Why the last connection failed; empty after a successful one."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)

    def url(self) -> str:
        """Return the proxy's URL; starts it, unless it runs."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", 0))
                _start(self._serve, self._listener)
            return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Shut down all open connections."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):  # the peer has closed the connection
                    end.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket) -> None:
        """Accept connections until there is no descriptor or thread for one."""
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                near, _ = listener.accept()
                _start(self._lead, near)
        with self._lock:
            self._listener = None
        listener.close()

    def _lead(self, near: socket.socket) -> None:
        """Serve one connection until it ends."""
        with self._held(near):
            seconds = self.settings.connect_timeout_seconds
            near.settimeout(seconds)
            try:
                target = _read_target(near)
            except OSError:
                return
            host, port = self.settings.api.host, self.settings.api.port
            if target != (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"):
                self._refuse(near, 403, f"the SDK connects to {target!r}, not the endpoint")
                return
            try:
                far = connect_to_first(self.endpoint_cache.addresses, port, ConnectionDeadline(seconds))
            except OSError as error:
                reason = error.strerror or type(error).__name__
                if isinstance(error, TimeoutError):
                    reason = f"no connection within {seconds} s"
                self._refuse(near, 502, f"can't be reached: {reason}")
                return
            with self._held(far), contextlib.suppress(OSError):
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self.fault = ""
                self._carry(near, far)

    @contextlib.contextmanager
    def _held(self, end: socket.socket) -> Iterator[None]:
        """Register a connection for :meth:`cut`, and close it at the end."""
        with self._lock:
            self._open.add(end)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(end)
            end.close()

    def _refuse(self, near: socket.socket, status: int, fault: str) -> None:
        self.fault = fault
        with contextlib.suppress(OSError):
            near.sendall(f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n".encode())

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Copy bytes in both directions; each request resets the bounds of its answer."""
        seconds = self.settings.timeout_seconds
        ends_at, room = time.monotonic() + seconds, self.most_bytes
        for end in (near, far):
            end.settimeout(seconds)
        while room >= 0 and time.monotonic() <= ends_at:
            ready, _, _ = select.select([near, far], [], [], _LOOK_SECONDS)
            for end in ready:
                piece = end.recv(_PIECE_BYTES)
                if not piece:
                    return
                if end is near:
                    ends_at, room = time.monotonic() + seconds, self.most_bytes
                    far.sendall(piece)
                else:
                    room -= len(piece)
                    near.sendall(piece)
        if room < 0:
            self.fault = f"the answer has more than {self.most_bytes} bytes"
        else:  # or nothing was asked any more, and so nobody wants to know
            self.fault = self.fault or f"no whole answer within {seconds} s"


def _start(serve: Callable[[socket.socket], None], served: socket.socket) -> None:
    threading.Thread(target=serve, args=(served,), name="passage", daemon=True).start()


def _read_target(near: socket.socket) -> str:
    """Return the target of a CONNECT request.

    Raises:
        OSError: the request does not arrive in time, or is malformed.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        piece = near.recv(_PIECE_BYTES)
        if not piece or len(head) > _LONGEST_HEAD:
            raise ConnectionAbortedError
        head += piece
    method, _, rest = head.partition(b" ")
    if method != b"CONNECT":
        raise ConnectionAbortedError
    return rest.partition(b" ")[0].decode("ascii", "replace").lower()


_VERSION = "2014-05-26"
_LOGGERS = ("credentials", "darabonba-core", "alibabacloud-tea")
"""The SDK's loggers, which would write to standard error; the client raises what matters."""

_NOT_ALLOWED = (
    "Forbidden",
    "IncompleteSignature",
    "InvalidAccessKey",
    "InvalidSecurityToken",
    "MissingSecurityToken",
    "NoPermission",
    "SignatureDoesNotMatch",
)
"""Prefixes of error codes for missing or insufficient credentials."""


class SdkApi:
    """The API of one region; implements :class:`Api`."""

    def __init__(self, settings: AliyunSourceSettings, limits: Limits, endpoint_cache: EndpointCache) -> None:
        """Create the SDK's client without sending a request.

        An endpoint without TLS, as in tests, needs no proxy.

        Args:
            settings: the endpoint and the credentials.
            limits: the size limit of an answer.
            endpoint_cache: the cached addresses of the endpoint.
        """
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.handlers[:] = [logging.NullHandler()]
            logger.propagate = False
        self._settings = settings
        self._passage = SdkTransport(settings, endpoint_cache, limits.document_bytes)
        grace = _GRACE_SECONDS if settings.api.is_encrypted else 0
        self._client = Client(
            Config(
                region_id=settings.region,
                endpoint=settings.api.authority,
                protocol="HTTPS" if settings.api.is_encrypted else "HTTP",
                credential=_Signer(settings),
                connect_timeout=(settings.connect_timeout_seconds + grace) * 1000,
                read_timeout=(settings.timeout_seconds + grace) * 1000,
                ca=None if settings.ca_file is None else str(settings.ca_file),
                user_agent=f"sgagent/{__version__}",
                tls_min_version="TLSv1.2",
            )
        )

    def ask(self, call: ApiCall) -> ApiAnswer:
        """Return the body of the answer.

        Raises:
            ApiError: the API sent no usable answer.
            SourceUnavailableError: there are no credentials, or authorities that can't be read.
        """
        if self._settings.ca_file is not None:
            require_regular(self._settings.ca_file)
        query = Utils.query({**call.parameters, "RegionId": self._settings.region})
        proxy = {"https_proxy": self._passage.url()} if self._settings.api.is_encrypted else {}
        self._passage.fault = ""
        form = Params(
            action=call.action.value,
            version=_VERSION,
            protocol="HTTPS",
            pathname="/",
            method="POST",
            auth_type="AK",
            style="RPC",
            req_body_type="formData",
            body_type="json",
        )
        try:
            answer = self._client.call_api(form, OpenApiRequest(query=query), RuntimeOptions(**proxy))
        except AlibabaCloudException as error:
            raise _refusal(call, error) from error
        except TeaException as error:
            raise self._failure(call, error) from error
        body = answer.get("body")
        if not isinstance(body, Mapping):
            raise ApiError(f"{call}: unexpected answer: not a JSON object")
        return body

    def break_off(self) -> None:
        """Cancel the request in progress, from another thread."""
        self._passage.cut()

    def _failure(self, call: ApiCall, error: Exception) -> SourceUnavailableError:
        """Return why a request got no answer; the same reason has the same message."""
        chain = list(_causes(error))
        for cause in chain:
            if isinstance(cause, SourceUnavailableError):
                return cause
        place = self._settings.api
        if self._passage.fault:
            return ApiError(f"{place}: {self._passage.fault}")
        for cause in chain:
            if isinstance(cause, ssl.SSLError):
                return ApiError(f"{place}: {tls_reason(cause)}")
        if any("Timeout" in type(cause).__name__ for cause in chain):
            seconds, connecting = self._settings.timeout_seconds, self._settings.connect_timeout_seconds
            return ApiError(f"{place}: no answer within {seconds} s ({connecting} s to connect)")
        if any(isinstance(cause, ValueError) and not isinstance(cause, OSError) for cause in chain):
            return ApiError(f"{call}: unexpected answer: not JSON")
        return ApiError(f"{place}: can't be reached: {_system_reason(chain)}")


class _Signer:
    """Credentials provider of the SDK; it reads them for each request, so that rotation needs no restart."""

    def __init__(self, settings: AliyunSourceSettings) -> None:
        self._read: Callable[[], AccessKey]
        if settings.credentials_file is not None:
            self._read = partial(ecs_api.read_access_key, settings.credentials_file)
        else:
            role = EcsRamRoleCredentialsProvider(
                role_name=settings.ram_role, disable_imds_v1=True, async_update_enabled=False
            )
            self._read = partial(_key_of_role, role)

    def get_credential(self) -> CredentialModel:
        """Return the credentials in the configured file, or else those of the instance's RAM role."""
        key = self._read()
        return CredentialModel(
            access_key_id=key.access_key_id,
            access_key_secret=key.access_key_secret,
            security_token=key.security_token,
            type="sts" if key.security_token else "access_key",
        )


def _key_of_role(role: EcsRamRoleCredentialsProvider) -> AccessKey:
    """Return the credentials of a RAM role; the SDK caches them until shortly before they expire.

    Raises:
        NotAllowedError: the instance has no such role.
        SourceUnavailableError: the metadata service can't be reached, or its answer is malformed.
    """
    place = f"http://{ecs_api.METADATA_HOST}: no credentials of the RAM role"
    try:
        found = role.get_credentials()
    except CredentialException as error:
        raise ecs_api.NotAllowedError(f"{place}: {error.message}") from error
    except (RetryError, OSError, ValueError, KeyError, TypeError) as error:
        raise SourceUnavailableError(f"{place}: {_system_reason(list(_causes(error)))}") from error
    return AccessKey(
        access_key_id=found.get_access_key_id(),
        access_key_secret=found.get_access_key_secret(),
        security_token=found.get_security_token(),
    )


def _refusal(call: ApiCall, error: AlibabaCloudException) -> ApiError:
    """Return the exception for an error of the API."""
    code, status = str(error.code or ""), error.status_code
    text = error.data.get("Message") if isinstance(error.data, Mapping) else None
    message = f"{call}: {code}: {text or 'without a message'}"
    is_busy = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, ThrottlingException) or code.startswith("Throttling") or is_busy:
        return ecs_api.ThrottledError(message, wait_seconds=(error.retry_after or 0) / 1000)
    if "NotFound" in code or "NotExist" in code:
        return ecs_api.NotThereError(message)
    if code.startswith(_NOT_ALLOWED) or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ecs_api.NotAllowedError(message)
    return ApiError(message)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, through the wrappers of the SDK and its libraries."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        names = ("inner_exception", "reason", "__cause__", "__context__")
        waiting += [*(getattr(cause, name, None) for name in names), *cause.args]


def _system_reason(chain: Sequence[BaseException]) -> str:
    """Return the innermost system error's text, or else the type of the innermost error."""
    reasons = [cause.strerror for cause in chain if isinstance(cause, OSError) and cause.strerror]
    return reasons[-1] if reasons else type(chain[-1]).__name__
