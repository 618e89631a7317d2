"""How long answers are waited for that were asked for together."""

from __future__ import annotations

import pytest

from sgagent.sources.etcd.grpc import STEP_BYTES, AnswerDeadline, TooSlowError


def begun(allowance: AnswerDeadline, now: float, received: int = 0) -> AnswerDeadline:
    """Return a time budget with another wait begun."""
    allowance.begin(now, received)
    return allowance


def test_each_answer_has_its_time() -> None:
    """And no more."""
    wait = begun(AnswerDeadline(5.0, 20.0), 100.0)
    assert wait.deadline(100.0, 0) == wait.deadline(104.9, 0) == 105.0
    with pytest.raises(TooSlowError, match="no answer within 5 seconds"):
        wait.deadline(105.0, 0)


def test_a_long_answer_has_as_long_for_each_step() -> None:
    """A byte now and then is none."""
    wait = begun(AnswerDeadline(5.0, 20.0), 100.0, 7)
    assert wait.deadline(104.0, 7 + STEP_BYTES) == 109.0
    assert wait.deadline(108.0, 7 + 2 * STEP_BYTES - 1) == 109.0
    with pytest.raises(TooSlowError, match="no answer within 5 seconds"):
        wait.deadline(109.0, 7 + 2 * STEP_BYTES - 1)


def test_all_answers_share_their_time() -> None:
    """However steadily they come, whole or step by step."""
    allowance = AnswerDeadline(5.0, 20.0)
    for number in range(4):
        allowance.begin(number * 4.0, 0)
        allowance.deadline(number * 4.0 + 3.9, 0)
        allowance.end(number * 4.0 + 4.0)
    allowance.begin(16.0, 0)
    assert allowance.deadline(16.0, 0) == 20.0
    assert allowance.deadline(19.0, STEP_BYTES) == 20.0
    with pytest.raises(TooSlowError, match="not all answers within 20 seconds"):
        allowance.deadline(20.0, 2 * STEP_BYTES)


def test_what_nobody_waits_is_free() -> None:
    """Whoever takes answers may take their own time over each."""
    allowance = AnswerDeadline(5.0, 20.0)
    begun(allowance, 0.0).end(4.0)
    assert begun(allowance, 1000.0).deadline(1000.0, 0) == 1005.0
    assert allowance.waited_seconds == 4.0
