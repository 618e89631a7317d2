"""The codes of problems."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NOTED = re.compile(
    r'(?:\.(?:error|warn)|MalformedError|invalid|Fault)\(\s*"([a-z_0-9]+)"|(?:code=|_FIELD = )"([a-z_0-9]+)"'
)


def test_every_code_is_documented() -> None:
    """People script against the codes, so docs/documents.md names each of them."""
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "sgagent/documents").glob("*.py")
    )
    codes = {first or second for first, second in NOTED.findall(sources)}
    documented = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs/documents.md").read_text(encoding="utf-8")))
    assert "unknown_field" in codes
    assert codes <= documented
