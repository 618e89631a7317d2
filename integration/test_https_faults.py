"""The agent reports nginx's faults in the words of tests/server_faults.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.nginx import Nginx, why_not
from integration.nginxfaults import FAULTS, Fault, nginx_alone, told
from tests.server_faults import wording

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"nginx can't be run: {_reason}")

TABLE = Path(__file__).parent.parent / "tests" / "server_faults.md"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Give a server that is as it should be."""
    with nginx_alone(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.does)
def test_what_nginx_does_wrong(nginx: Nginx, fault: Fault) -> None:
    """The agent reports each in words that tests/server_faults.md has, and accepts nothing but the last."""
    said = wording(told(nginx, fault))
    assert f"`{said}`" in TABLE.read_text(encoding="utf-8")
    assert (said == "taken") is (fault is FAULTS[-1])
