"""Make the source that the configuration names."""

from __future__ import annotations

from functools import partial
from typing import assert_never

from sgagent.core.errors import UsageError
from sgagent.ports import Source
from sgagent.settings import EtcdSourceSettings, FileSourceSettings, HttpsSourceSettings, Settings
from sgagent.sources.acceptance import Acceptance, ReadEnforced
from sgagent.sources.file import FileSource
from sgagent.sources.https import HttpsSource
from sgagent.sources.serials import read_signature, signature_file


def make_source(settings: Settings, *, read_enforced: ReadEnforced | None = None) -> Source:
    """Return the source that the configuration names; nothing is asked of it yet.

    Args:
        settings: the configuration.
        read_enforced: tells which signature this host enforced; None reads that in the state directory.
    """
    source = settings.source
    kept = signature_file(settings.state.directory)
    acceptance = Acceptance(
        settings.limits, settings.signature, read_enforced=read_enforced or partial(read_signature, kept)
    )
    match source:
        case FileSourceSettings():
            return FileSource(source.path, settings.limits, acceptance)
        case HttpsSourceSettings():
            return HttpsSource(source, settings.limits, acceptance)
        case EtcdSourceSettings():
            raise UsageError("sources of type etcd are not in this version")
        case _:
            assert_never(source)
