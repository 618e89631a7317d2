"""Choose how hard hypothesis looks."""

from __future__ import annotations

import gc
import os

from hypothesis import HealthCheck, Phase, settings

EXAMPLES = 60
"""Of each property, as every change has to pass: the fault that ``test_failures`` plants takes over 40."""

settings.register_profile(
    "ci",
    derandomize=True,  # the same examples every time: a red run says something about the change
    deadline=None,  # a slow machine is not a wrong answer
    max_examples=int(os.environ.get("SGAGENT_EXAMPLES", EXAMPLES)),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # what explains a failure prints more than it says
    report_multiple_bugs=False,  # each would be shrunk and printed
    suppress_health_check=[HealthCheck.too_slow],  # as the deadline
)
settings.register_profile(
    "full",
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("full" if os.environ.get("SGAGENT_FULL") else "ci")


def pytest_collection_finish() -> None:
    """Keep what was collected out of each later search for garbage, a twentieth of all time."""
    gc.freeze()
