"""Numbers in texts of others: of the web page, the command line, documents and tables."""

from __future__ import annotations

import pytest

from sgagent.core.rule_values import decimal


@pytest.mark.parametrize(
    ("text", "number"),
    (
        ("0", 0),
        ("65535", 65535),
        ("00080", 80),
        ("65536", None),
        ("100000", None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        (" 1", None),
        ("1_0", None),
        ("²", None),
        ("\u0661", None),
    ),
)
def test_only_short_ascii_digits_are_a_number(text: str, number: int | None) -> None:
    """Python reads more as one, and refuses thousands of digits with an error of its own."""
    assert decimal(text, 65535) == number
