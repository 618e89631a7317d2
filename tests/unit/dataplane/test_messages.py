"""Which marks the agent may have cleared is said in a content that can be read in one way, or not at all."""

from __future__ import annotations

import pytest

from sgagent.compiler.marks import MarkLayout, MarkTest
from sgagent.dataplane.plan_decoder import MalformedPlanError
from sgagent.dataplane.protocol import NUMBER, read_marks, write_marks

WHOLE = MarkLayout(0xFFFFFFFF)


@pytest.mark.parametrize(
    "tests", ((), (MarkTest(0xFFC00000, 0x00400000),), WHOLE.of_other_generations(WHOLE.last_generation))
)
def test_what_is_written_is_read(tests: tuple[MarkTest, ...]) -> None:
    """With no test, with one, and with as many as the widest mask has bits for generations."""
    assert read_marks(write_marks(0xFFFF0000, tests)) == (0xFFFF0000, tests)


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"\0\0\0",
        NUMBER.pack(1) + b"\0",
        NUMBER.pack(1) + NUMBER.pack(1),
        write_marks(1, [MarkTest(1, 1)] * 33),
    ),
)
def test_what_does_not_say_which_marks_is_refused(content: bytes) -> None:
    """A content that ends in the midst of a test is no request without it, which would be for all marks."""
    with pytest.raises(MalformedPlanError):
        read_marks(content)
