"""Files of packets, whatever is in them, are read or refused."""

from __future__ import annotations

from hypothesis import given, strategies as st

from sgagent.core.errors import DocumentError
from sgagent.policy_test.scenario import Scenario, parse_packets
from tests.corpus import EXAMPLES

FILES = [path.read_bytes() for path in sorted(EXAMPLES.glob("*/packets.yaml"))]


def read_or_refused(content: bytes) -> bool:
    """Tell that a file is either a scenario or an error with at least one problem."""
    try:
        return isinstance(parse_packets(content, "packets.yaml"), Scenario)
    except DocumentError as error:
        return bool(error.problems)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Bytes of any kind never end in another exception."""
    assert read_or_refused(content)


@given(st.sampled_from(FILES), st.integers(min_value=0), st.integers(min_value=0), st.binary(max_size=12))
def test_a_damaged_file_is_read_or_refused(content: bytes, place: int, cut: int, put: bytes) -> None:
    """A good file with a hole, or with something put in, never ends in another exception."""
    start = place % len(content)
    assert read_or_refused(content[:start] + put + content[start + cut % 20 :])
