"""How long to wait before the next try."""

from __future__ import annotations

from sgagent.core.retry import RetryDelay


def test_delays_double_up_to_the_longest() -> None:
    """The longest delay is repeated; a success leads back to the first."""
    backoff = RetryDelay(1.0, 60.0)
    expected = [1, 2, 4, 8, 16, 32, 60, 60]
    assert [backoff.after_failure() for _ in expected] == expected
    backoff.after_success()
    assert [backoff.after_failure() for _ in expected] == expected
