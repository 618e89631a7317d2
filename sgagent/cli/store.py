"""What commands need that speak to the etcd cluster of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sgagent.core.errors import NotPermittedError, SourceUnavailableError, UsageError
from sgagent.settings import EtcdSourceSettings, Settings
from sgagent.sources.etcd.failures import LESS, CallRefusedError, EtcdError, Status, TooLargeError

PATIENCE_SECONDS = 6.0
"""For which a cluster that has no leader, or can't be reached, is asked again."""


def etcd_settings(settings: Settings) -> EtcdSourceSettings:
    """Return where the cluster is.

    Raises:
        UsageError: the configuration names another source.
    """
    if not isinstance(settings.source, EtcdSourceSettings):
        raise UsageError('the configured source is no etcd cluster (type = "etcd" in [source], or --config)')
    return settings.source


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn what the cluster's client raises into what commands exit with.

    Raises:
        NotPermittedError: the user may not do that, or is not who it says.
        SourceUnavailableError: there was no answer, or it is too large.
    """
    try:
        yield
    except CallRefusedError as error:
        if error.code in (Status.PERMISSION_DENIED, Status.UNAUTHENTICATED):
            raise NotPermittedError(f"etcd: {error}") from error
        raise SourceUnavailableError(f"etcd: {error}") from error
    except TooLargeError as error:
        raise SourceUnavailableError(f"etcd: {error} ({LESS})") from error
    except EtcdError as error:
        raise SourceUnavailableError(f"etcd: {error}") from error
