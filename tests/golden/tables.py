"""Compile the examples into the texts that are kept here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sgagent.compiler.compilation import compile_
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.text import render
from tests.corpus import Example, examples

KEPT = Path(__file__).resolve().parent
LAYOUT = MarkLayout(0xFFFF0000)


def golden_path(example: Example) -> Path:
    """Return where the text of an example is kept: ``1-web.nft``, ``three-tier-web.nft``."""
    return KEPT / f"{example.name.replace('/', '-')}.nft"


def compiled_text(example: Example) -> str:
    """Return the table of an example on a host that starts anew, as ``nft -f`` would load it."""
    policy = example.policy()
    state = first_state(policy.remembering, LAYOUT)
    return render(compile_(policy, LAYOUT, state).ruleset, persist=True)


def all_texts() -> Iterator[tuple[Path, str]]:
    """Yield each file that has to be kept, with what has to be in it."""
    for example in examples():
        yield golden_path(example), compiled_text(example)
