"""What nginx does wrong is told in the words that the documents show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.nginx import Nginx, why_not
from integration.nginxfaults import FAULTS, Fault, nginx_alone, told

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"nginx can't be run: {_reason}")

DOCS = Path(__file__).parent.parent / "docs" / "https.md"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Give a server that is as it should be."""
    with nginx_alone(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.does)
def test_what_nginx_does_wrong(nginx: Nginx, fault: Fault) -> None:
    """Each is told in the words that docs/https.md shows, and nothing but the last is taken."""
    said = told(nginx, fault)
    assert f"| {fault.does} | `{said}` |" in DOCS.read_text(encoding="utf-8")
    assert (said == "taken") is (fault is FAULTS[-1])


def test_the_table_is_whole() -> None:
    """No row of docs/https.md speaks of something that is not tried."""
    section = (
        DOCS.read_text(encoding="utf-8").partition("## What nginx does wrong\n")[2].partition("\n## ")[0]
    )
    assert re.findall(r"^\| (.+?) \| `", section, re.MULTILINE) == [fault.does for fault in FAULTS]
