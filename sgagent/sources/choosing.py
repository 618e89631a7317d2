"""Make the source that the configuration names."""

from __future__ import annotations

from functools import partial
from typing import assert_never

from sgagent.core.errors import UsageError
from sgagent.ports import Host, Source
from sgagent.settings import EtcdSourceSettings, FileSourceSettings, HttpsSourceSettings, Settings
from sgagent.sources.acceptance import Acceptance
from sgagent.sources.file import FileSource
from sgagent.sources.serials import read_signature, signature_file
from sgagent.sources.vouching import ReadEnforced, Vouching


def make_source(
    settings: Settings, host: Host | None = None, *, read_enforced: ReadEnforced | None = None
) -> Source:
    """Return the source that the configuration names; nothing is asked of it yet.

    Args:
        settings: the configuration.
        host: the links of this host, for sources that deliver only what concerns it; None for everything.
        read_enforced: tells which signature this host enforced; None reads that in the state directory.

    Raises:
        UsageError: what the source needs is not installed.
    """
    source = settings.source
    kept = signature_file(settings.state.directory)
    vouching = Vouching(settings.signature, read_enforced=read_enforced or partial(read_signature, kept))
    acceptance = Acceptance(settings.limits, vouching)
    match source:
        case FileSourceSettings():
            return FileSource(source.path, settings.limits, acceptance)
        case HttpsSourceSettings():
            return _https(source, settings, acceptance)
        case EtcdSourceSettings():
            return _etcd(source, settings, host, vouching)
        case _:
            assert_never(source)


def _https(source: HttpsSourceSettings, settings: Settings, acceptance: Acceptance) -> Source:
    from sgagent.sources.https import HttpsSource  # noqa: PLC0415 - it needs what others do without
    from sgagent.sources.whereabouts import addresses_file  # noqa: PLC0415 - the same

    memory = addresses_file(settings.state.directory)
    return HttpsSource(source, settings.limits, acceptance, memory=memory)


def _etcd(source: EtcdSourceSettings, settings: Settings, host: Host | None, vouching: Vouching) -> Source:
    try:
        from sgagent.sources.etcd.source import EtcdSource  # noqa: PLC0415 - it needs what others do without
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a source of type etcd needs the Python module {error.name}"
            " (Debian: python3-h2; PyPI: sgagent[etcd])"
        ) from error
    by_hand = settings.interfaces
    return EtcdSource(source, settings.limits, by_hand=by_hand, host=host, vouching=vouching)
