"""Make the source that the configuration names."""

from __future__ import annotations

from typing import assert_never

from sgagent.core.errors import UsageError
from sgagent.ports import Source
from sgagent.settings import FileSourceSettings, HttpsSourceSettings, Settings
from sgagent.sources.file import FileSource


def make_source(settings: Settings) -> Source:
    """Return the source that the configuration names; nothing is asked of it yet.

    Raises:
        UsageError: what the source needs is not installed.
    """
    source = settings.source
    match source:
        case FileSourceSettings():
            return FileSource(source.path, settings.limits)
        case HttpsSourceSettings():
            raise UsageError("sources of type https are not in this version")
        case _:
            assert_never(source)
