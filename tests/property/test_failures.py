"""What a failing property prints can be read: a case with hardly a rule, and one packet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MOST_LINES_PRINTED = 100
MOST_RULES_LEFT = 3


@pytest.mark.long
def test_a_failing_property_prints_a_short_case() -> None:
    """Where a policy forgets source ports, hardly more than a rule with source ports is left of the case."""
    file = Path(__file__).with_name("planted_fault.py")
    as_always = {name: value for name, value in os.environ.items() if not name.startswith("SGAGENT_")}
    done = subprocess.run(  # noqa: S603 - our own test
        [sys.executable, "-m", "pytest", str(file)],
        env=as_always,
        check=False,
        capture_output=True,
        text=True,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert 1 <= printed.count("rule_id:") <= MOST_RULES_LEFT
    assert "source_port_range:" in printed
    assert printed.count(" ports ") == 1, "one packet"
    assert len(printed.splitlines()) < MOST_LINES_PRINTED
