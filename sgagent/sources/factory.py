"""Factory of the configured source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from sgagent.core.errors import UsageError
from sgagent.core.memo import Memo
from sgagent.ports import Host, Source
from sgagent.settings import Settings, SourceType
from sgagent.sources.verified_parse import (
    ReadEnforced,
    SignaturePolicy,
    VerifiedParser,
    read_signature,
    signature_file,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a source may need besides its own settings."""

    settings: Settings
    host: Host | None
    """The links of this host, for sources that fetch only its definitions; None fetches everything."""

    signature_policy: SignaturePolicy
    parser: VerifiedParser
    memo: Memo | None
    """The documents parsed before; None for a memo that only the source uses."""


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """Where the code of a type of source is."""

    name: str
    """In this package. The function ``make_source`` of its module ``source`` returns the source."""

    requirement: str = ""
    """Which package has the Python modules that it needs."""


FOLDERS: Mapping[SourceType, SourceFolder] = {
    SourceType.FILE: SourceFolder("files"),
    SourceType.HTTPS: SourceFolder("https"),
    SourceType.ETCD: SourceFolder("etcd", " (Debian: python3-h2; PyPI: sgagent[etcd])"),
    SourceType.ALIYUN: SourceFolder(
        "aliyun", " (PyPI: pip install 'sgagent[aliyun]'; Debian has no package of it)"
    ),
}
"""The types of sources; only the configured one is imported."""


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
        memo: the documents parsed before; None for a memo that only the source uses.

    Raises:
        UsageError: a Python module that the source needs is not installed.
    """
    kept = signature_file(settings.state.directory)
    policy = SignaturePolicy(settings.signature, read_enforced=read_enforced or partial(read_signature, kept))
    parser = VerifiedParser(settings.limits, policy, memo=memo)
    context = SourceContext(settings=settings, host=host, signature_policy=policy, parser=parser, memo=memo)
    folder = FOLDERS[settings.source.kind]
    try:
        module = import_module(f"sgagent.sources.{folder.name}.source")
        source: Source = module.make_source(settings.source, context)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a source of type {settings.source.kind.value} needs the Python module {error.name}"
            f"{folder.requirement}"
        ) from error
    return source
