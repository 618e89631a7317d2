"""Client of the ECS API by Alibaba Cloud's SDK; the only module that imports the SDK.

The SDK builds and signs requests, speaks HTTP and parses errors. The client does not use the SDK's models of
answers: the document parser reads the raw answers, as it reads saved ones.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from sgagent.settings import AliyunSourceSettings
from sgagent.sources.aliyun.credentials import METADATA_HOST, AccessKey, read_access_key
from sgagent.sources.aliyun.pagination import (
    Answer,
    ApiCall,
    ApiError,
    NotAllowedError,
    NotThereError,
    ThrottledError,
)
from sgagent.sources.aliyun.sdk_transport import SdkTransport
from sgagent.sources.endpoint_cache import EndpointCache

_VERSION = "2014-05-26"
_LOGGERS = ("credentials", "darabonba-core", "alibabacloud-tea")
"""The SDK's loggers, which write to standard error; the client raises what matters."""

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


def connect(settings: AliyunSourceSettings, limits: Limits, endpoint_cache: EndpointCache) -> SdkApi:
    """Return the configured API without sending a request."""
    passage = SdkTransport(
        settings.api,
        lambda: endpoint_cache.addresses,
        connect_seconds=settings.connect_timeout_seconds,
        answer_seconds=settings.timeout_seconds,
        most_bytes=limits.document_bytes,
    )
    return SdkApi(settings, passage)


class SdkApi:
    """The API of one region; implements :class:`Api`."""

    def __init__(self, settings: AliyunSourceSettings, passage: SdkTransport) -> None:
        """Create the SDK's client without sending a request.

        Args:
            settings: the endpoint and the credentials.
            passage: the proxy for every request; unused for an endpoint without TLS, as in tests.
        """
        _keep_quiet()
        self._settings = settings
        self._passage = passage
        protocol = "HTTPS" if settings.api.is_encrypted else "HTTP"
        self._client = Client(
            Config(
                region_id=settings.region,
                endpoint=settings.api.authority,
                protocol=protocol,
                credential=_signer(settings),
                connect_timeout=settings.connect_timeout_seconds * 1000,
                read_timeout=settings.timeout_seconds * 1000,
                ca=None if settings.ca_file is None else str(settings.ca_file),
                user_agent=f"sgagent/{__version__}",
                tls_min_version="TLSv1.2",
            )
        )

    def ask(self, call: ApiCall) -> Answer:
        """Return the body of the answer.

        Raises:
            ApiError: the API sent no usable answer.
            SourceUnavailableError: there are no credentials.
        """
        query = Utils.query({**call.parameters, "RegionId": self._settings.region})
        way = (
            RuntimeOptions(https_proxy=self._passage.url())
            if self._settings.api.is_encrypted
            else RuntimeOptions()
        )
        self._passage.fault = ""
        try:
            answer = self._client.call_api(_form(call), OpenApiRequest(query=query), way)
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
        ours = next((cause for cause in chain if isinstance(cause, SourceUnavailableError)), None)
        if ours is not None:
            return ours
        place = self._settings.api
        if self._passage.fault:
            return ApiError(f"{place}: {self._passage.fault}")
        tls = next((cause for cause in chain if isinstance(cause, ssl.SSLError)), None)
        if tls is not None:
            return ApiError(f"{place}: TLS failed: {_reason_of_tls(tls)}")
        if any("Timeout" in type(cause).__name__ for cause in chain):
            return ApiError(f"{place}: no answer within {self._patience}")
        if any(isinstance(cause, ValueError) and not isinstance(cause, OSError) for cause in chain):
            return ApiError(f"{call}: unexpected answer: not JSON")
        return ApiError(f"{place}: can't be reached: {_system_reason(chain)}")

    @property
    def _patience(self) -> str:
        settings = self._settings
        return f"{settings.timeout_seconds} s ({settings.connect_timeout_seconds} s to connect)"


class _Signer:
    """Credentials provider of the SDK; it reads them for each request, so that rotation needs no restart."""

    def __init__(self, read: Callable[[], AccessKey]) -> None:
        self._read = read

    def get_credential(self) -> CredentialModel:
        """Return the current credentials; the SDK calls this."""
        key = self._read()
        return CredentialModel(
            access_key_id=key.access_key_id,
            access_key_secret=key.access_key_secret,
            security_token=key.security_token,
            type="sts" if key.security_token else "access_key",
        )


def _signer(settings: AliyunSourceSettings) -> _Signer:
    """Return the provider for the configured file, or else for the instance's RAM role."""
    if settings.credentials_file is not None:
        return _Signer(partial(read_access_key, settings.credentials_file))
    role = EcsRamRoleCredentialsProvider(
        role_name=settings.ram_role, disable_imds_v1=True, async_update_enabled=False
    )
    return _Signer(partial(_key_of_role, role))


def _key_of_role(role: EcsRamRoleCredentialsProvider) -> AccessKey:
    """Return the credentials of a RAM role; the SDK caches them until shortly before they expire.

    Raises:
        NotAllowedError: the instance has no such role.
        SourceUnavailableError: the metadata service can't be reached, or its answer is malformed.
    """
    place = f"http://{METADATA_HOST}: no credentials of the RAM role"
    try:
        found = role.get_credentials()
    except CredentialException as error:
        raise NotAllowedError(f"{place}: {error.message}") from error
    except (RetryError, OSError, ValueError, KeyError, TypeError) as error:
        raise SourceUnavailableError(f"{place}: {_system_reason(list(_causes(error)))}") from error
    return AccessKey(
        access_key_id=found.get_access_key_id(),
        access_key_secret=found.get_access_key_secret(),
        security_token=found.get_security_token(),
    )


def _form(call: ApiCall) -> Params:
    return Params(
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


def _refusal(call: ApiCall, error: AlibabaCloudException) -> ApiError:
    """Return the exception for an error of the API."""
    code, status = str(error.code or ""), error.status_code
    text = error.data.get("Message") if isinstance(error.data, Mapping) else None
    message = f"{call}: {code}: {text or 'without a message'}"
    is_busy = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    if isinstance(error, ThrottlingException) or code.startswith("Throttling") or is_busy:
        return ThrottledError(message, wait_seconds=(error.retry_after or 0) / 1000)
    if "NotFound" in code or "NotExist" in code:
        return NotThereError(message)
    if code.startswith(_NOT_ALLOWED) or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return NotAllowedError(message)
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
        inner = [
            getattr(cause, name, None) for name in ("inner_exception", "reason", "__cause__", "__context__")
        ]
        waiting += [*inner, *cause.args]


def _system_reason(chain: Sequence[BaseException]) -> str:
    """Return the innermost system error's text, or else the type of the innermost error."""
    reasons = [cause.strerror for cause in chain if isinstance(cause, OSError) and cause.strerror]
    return reasons[-1] if reasons else type(chain[-1]).__name__


def _reason_of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    return (error.reason or "no reason given").replace("_", " ").lower()


def _keep_quiet() -> None:
    """Replace the SDK's log handlers, which write to standard error."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
