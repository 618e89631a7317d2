"""The metadata service, which knows which instance this host is."""

from __future__ import annotations

import pytest

from sgagent.core.errors import SourceUnavailableError
from sgagent.sources.aliyun.ecs_api import read_instance_id
from tests.metadataserver import metadata_server


def test_the_instance_is_told_to_who_shows_a_token() -> None:
    """Hardened services answer nobody else."""
    with metadata_server("i-here") as running:
        assert read_instance_id("127.0.0.1", running.port) == "i-here"
        assert running.asked == ["/latest/meta-data/instance-id"]


@pytest.mark.parametrize("said", ("", "<html>Please sign in</html>", "i-" + "x" * 5000, "eni-1"))
def test_what_is_no_instance_is_not_believed(said: str) -> None:
    """Somebody else may answer at that address."""
    with metadata_server(said) as running, pytest.raises(SourceUnavailableError, match="no instance id"):
        read_instance_id("127.0.0.1", running.port)


def test_nobody_there() -> None:
    """Most hosts are no instances; the message says what to set then."""
    with pytest.raises(SourceUnavailableError, match=r"Connection refused .*instance_id"):
        read_instance_id("127.0.0.1", 1)
