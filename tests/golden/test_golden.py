"""What the kernel is told for each example, byte by byte."""

from __future__ import annotations

import pytest

from tests.corpus import Example, examples
from tests.golden.tables import KEPT, compiled_text, golden_path

EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_the_compiled_text_is_the_kept_one(example: Example) -> None:
    """A change here changes what the kernel is told: look at ``script/golden``, and say why in the commit."""
    assert compiled_text(example) == golden_path(example).read_text(encoding="utf-8")


def test_every_kept_text_belongs_to_an_example() -> None:
    """No text outlives its example."""
    assert {path.name for path in KEPT.glob("*.nft")} == {golden_path(example).name for example in EXAMPLES}
