"""What commands say where the cluster gives no answer that helps."""

from __future__ import annotations

import pytest

from sgagent.cli.publish import translated_etcd_errors
from sgagent.core.errors import SourceUnavailableError
from sgagent.sources.etcd.messages import SizeBudget


def test_a_store_that_holds_too_much() -> None:
    """How much, and what would help, is told."""
    with (
        pytest.raises(
            SourceUnavailableError, match=r"etcd: .* more than -1 bytes.*\(.*raise limits\.document_bytes\)"
        ),
        translated_etcd_errors(),
    ):
        SizeBudget(-1).take(())
