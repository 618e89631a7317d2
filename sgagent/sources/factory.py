"""Makes the configured source; only its module is imported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module

from sgagent.core.errors import UsageError
from sgagent.core.memo import Memo
from sgagent.ports import Host, Source
from sgagent.settings import Settings
from sgagent.settings.sources import SeveralSources
from sgagent.sources.verified_parse import (
    ReadEnforced,
    SignaturePolicy,
    VerifiedParser,
    read_signature,
    signature_file,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """The context that a source may need besides its own settings."""

    settings: Settings
    host: Host | None
    """The links of this host, for sources that fetch only its definitions; None fetches everything."""

    signature_policy: SignaturePolicy
    parser: VerifiedParser
    memo: Memo | None
    """The documents parsed before; None for a memo that only the source uses."""


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
    parser = VerifiedParser(settings.limits, policy, memo=memo or Memo())
    context = SourceContext(settings=settings, host=host, signature_policy=policy, parser=parser, memo=memo)
    declared = settings.source
    if isinstance(declared, SeveralSources):
        return _union(settings, declared, host, memo)
    try:
        module = import_module(f"sgagent.sources.{declared.folder or declared.kind.value}.source")
        source: Source = module.make_source(declared, context)
    except ModuleNotFoundError as error:
        needed = f"needs the Python module {error.name}{declared.requirement}"
        raise UsageError(f"a source of type {declared.kind.value} {needed}") from error
    return source


def _union(settings: Settings, declared: SeveralSources, host: Host | None, memo: Memo | None) -> Source:
    """Return the union of sources, each made as if it were the only one."""
    from sgagent.sources.several.source import UnionSource  # noqa: PLC0415 - few have several

    sources = [(one.place, make_source(replace(settings, source=one), host)) for one in declared.sources]
    return UnionSource(sources, VerifiedParser(settings.limits, memo=memo or Memo()))
