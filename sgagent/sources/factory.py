"""Factory of the configured source."""

from __future__ import annotations

from functools import partial
from typing import assert_never

from sgagent.core.errors import UsageError
from sgagent.core.memo import Memo
from sgagent.core.policy import Endpoint
from sgagent.ports import Host, Source
from sgagent.settings import (
    AliyunSourceSettings,
    EtcdSourceSettings,
    FileSourceSettings,
    HttpsSourceSettings,
    Settings,
    SourceSettings,
)
from sgagent.sources.endpoint_cache import EndpointCache, addresses_file
from sgagent.sources.files.source import FileSource
from sgagent.sources.signature_policy import ReadEnforced, SignaturePolicy, read_signature, signature_file
from sgagent.sources.verified_parse import VerifiedParser


def make_source(
    settings: Settings,
    host: Host | None = None,
    *,
    read_enforced: ReadEnforced | None = None,
    memo: Memo | None = None,
) -> Source:
    """Return the configured source without contacting it.

    Args:
        settings: the configuration.
        host: the links of this host, for sources that fetch only its definitions; None fetches everything.
        read_enforced: reads the newest enforced signature; None reads it from the state directory.
        memo: the parsed documents of before; None for a memo that only the source uses.

    Raises:
        UsageError: a Python module that the source needs is not installed.
    """
    source = settings.source
    kept = signature_file(settings.state.directory)
    signature_policy = SignaturePolicy(
        settings.signature, read_enforced=read_enforced or partial(read_signature, kept)
    )
    parser = VerifiedParser(settings.limits, signature_policy, memo=memo)
    match source:
        case FileSourceSettings():
            return FileSource(source.path, settings.limits, parser)
        case HttpsSourceSettings():
            return _https(source, settings, parser)
        case EtcdSourceSettings():
            return _etcd(source, settings, host, signature_policy, memo)
        case AliyunSourceSettings():
            return _aliyun(source, settings, host)
        case _:
            assert_never(source)


def known_endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Return the cached endpoints of the configured source."""
    return tuple(
        endpoint
        for number, (host, port) in enumerate(servers(settings.source))
        for endpoint in EndpointCache(
            host, port, memory=addresses_file(settings.state.directory, number)
        ).endpoints()
    )


def servers(source: SourceSettings) -> tuple[tuple[str, int], ...]:
    """Return host and port of each server of a source, in the order of their cache files."""
    match source:
        case FileSourceSettings():
            return ()
        case HttpsSourceSettings():
            return ((source.url.host, source.url.port),)
        case EtcdSourceSettings():
            return tuple((endpoint.host, endpoint.port) for endpoint in source.endpoints)
        case AliyunSourceSettings():
            return ((source.api.host, source.api.port),)
        case _:
            assert_never(source)


def _https(source: HttpsSourceSettings, settings: Settings, parser: VerifiedParser) -> Source:
    from sgagent.sources.https.source import HttpsSource  # noqa: PLC0415 - it needs what others do without

    memory = addresses_file(settings.state.directory)
    return HttpsSource(source, settings.limits, parser, memory=memory)


def _etcd(
    source: EtcdSourceSettings,
    settings: Settings,
    host: Host | None,
    signature_policy: SignaturePolicy,
    parsed: Memo | None,
) -> Source:
    try:
        from sgagent.sources.etcd.source import EtcdSource  # noqa: PLC0415 - it needs what others do without
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a source of type etcd needs the Python module {error.name}"
            " (Debian: python3-h2; PyPI: sgagent[etcd])"
        ) from error
    return EtcdSource(
        source,
        settings.limits,
        by_hand=settings.interfaces,
        host=host,
        signature_policy=signature_policy,
        memory=settings.state.directory,
        parsed=parsed,
    )


def _aliyun(source: AliyunSourceSettings, settings: Settings, host: Host | None) -> Source:
    if settings.signature.public_keys:
        raise UsageError(
            "signature.public_keys: the cloud's API does not sign its answers"
            " (use a source of type file, https or etcd, or remove [signature])"
        )
    if host is not None and not (source.uses_metadata or source.instance_id or settings.interfaces):
        raise UsageError(
            "source.instance_id: with credentials_file, the configuration must name this host's interfaces"
            ' (set instance_id = "i-…", or [[interface]])'
        )
    try:
        from sgagent.sources.aliyun.client import connect  # noqa: PLC0415 - it needs what others do without
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a source of type aliyun needs the Python module {error.name}"
            " (PyPI: pip install 'sgagent[aliyun]'; Debian has no package of it)"
        ) from error
    from sgagent.sources.aliyun.source import AliyunSource  # noqa: PLC0415 - the same
    from sgagent.sources.endpoint_cache import EndpointCache, addresses_file  # noqa: PLC0415 - the same

    api, memory = source.api, addresses_file(settings.state.directory)
    endpoint_cache = EndpointCache(api.host, api.port, memory=memory)
    return AliyunSource(
        source,
        settings.limits,
        connect(source, settings.limits, endpoint_cache),
        by_hand=None if host is None else settings.interfaces,
        endpoint_cache=endpoint_cache,
    )
