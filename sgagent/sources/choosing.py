"""Make the source that the configuration names."""

from __future__ import annotations

from typing import assert_never

from sgagent.core.errors import UsageError
from sgagent.ports import Source
from sgagent.settings import EtcdSourceSettings, FileSourceSettings, HttpsSourceSettings, Settings
from sgagent.sources.file import FileSource
from sgagent.sources.https import HttpsSource


def make_source(settings: Settings) -> Source:
    """Return the source that the configuration names; nothing is asked of it yet."""
    source = settings.source
    match source:
        case FileSourceSettings():
            return FileSource(source.path, settings.limits)
        case HttpsSourceSettings():
            return HttpsSource(source, settings.limits)
        case EtcdSourceSettings():
            raise UsageError("sources of type etcd are not in this version")
        case _:
            assert_never(source)
