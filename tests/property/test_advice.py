"""Every edit that lint suggests does what it says, alone and with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.advice import MOST_RULES, examine
from tests.corpus import EXAMPLES
from tests.draws import SeededDraws
from tests.generators import random_snapshot


@pytest.mark.parametrize("seed", (*range(8), 1759))  # the last: a drop that moves shuts out others
def test_fixes_of_random_definitions(seed: int) -> None:
    """What is needless goes without a verdict changing; what changes verdicts changes those that it says."""
    examine(random_snapshot(SeededDraws(seed), most_rules=MOST_RULES))


@pytest.mark.parametrize(
    "path",
    sorted((*EXAMPLES.glob("[0-9]*/groups.d"), *EXAMPLES.glob("lint/*/bad.yaml"))),
    ids=lambda path: str(path.relative_to(EXAMPLES)),
)
def test_fixes_of_the_examples(path: Path) -> None:
    """So do those of the guide's cases, and of the examples of each check."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [DocumentFile(str(one), one.read_bytes()) for one in paths]
    examine(parse_documents(files, Limits())[0])
