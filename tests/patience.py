"""How patient tests are, as the deadlines of promises too are for a machine that has nothing else to do."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("SGAGENT_PATIENCE", "1"))
"""By what deadlines are multiplied, where a machine is slower or busier than those that they were set for."""
