"""Makes the configured source; only its module is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from sgagent.core.errors import UsageError
from sgagent.core.memo import Memo
from sgagent.ports import Host, Source
from sgagent.settings import Settings
from sgagent.settings.sources import SeveralSources
from sgagent.signatures import Signed
from sgagent.sources.verified_parse import (
    SignaturePolicy,
    VerifiedParser,
    read_signature,
    signature_file,
)

ReadKept = Callable[[Path], Signed | None]
"""Returns the signature in a file of the state directory; None for none. Raises OSError or ValueError."""


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
    read_kept: ReadKept = read_signature,
    place: str | None = None,
    memo: Memo | None = None,
) -> Source:
    """Return the configured source without contacting it.

    Args:
        settings: the configuration.
        host: the links of this host, for sources that fetch only its definitions; None fetches everything.
        read_kept: reads the newest enforced signature from a file in the state directory.
        place: of the source, where it is one of several, each with a signature of its own.
        memo: the documents parsed before; None for a memo that only the source uses.

    Raises:
        UsageError: a Python module that the source needs is not installed.
    """
    kept = signature_file(settings.state.directory, place)
    policy = SignaturePolicy(settings.signature, read_enforced=partial(read_kept, kept))
    parser = VerifiedParser(settings.limits, policy, memo=memo or Memo())
    context = SourceContext(settings=settings, host=host, signature_policy=policy, parser=parser, memo=memo)
    declared = settings.source
    if isinstance(declared, SeveralSources):
        return _union(settings, declared, host, read_kept, memo)
    try:
        module = import_module(f"sgagent.sources.{declared.folder or declared.kind.value}.source")
        source: Source = module.make_source(declared, context)
    except ModuleNotFoundError as error:
        needed = f"needs the Python module {error.name}{declared.requirement}"
        raise UsageError(f"a source of type {declared.kind.value} {needed}") from error
    return source


def _union(
    settings: Settings, declared: SeveralSources, host: Host | None, read_kept: ReadKept, memo: Memo | None
) -> Source:
    """Return the union of sources, each made as if it were the only one, with a signature of its own."""
    from sgagent.sources.union import UnionSource  # noqa: PLC0415 - few have several

    sources = [
        (one.place, make_source(replace(settings, source=one), host, read_kept=read_kept, place=one.place))
        for one in declared.sources
    ]
    return UnionSource(sources, VerifiedParser(settings.limits, memo=memo or Memo()))
