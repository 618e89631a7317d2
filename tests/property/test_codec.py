"""What is encoded is decoded to itself."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, strategies as st

from sgagent.nft.diff import make_plan
from sgagent.nft.json_listing import decode_ruleset
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import render
from sgagent.nft.transactions import encode_plan
from tests.rulesets import rulesets


def listing_of(commands: Any) -> Any:  # noqa: ANN401 - libnftables' own JSON
    """Return what libnftables would list after commands that only add, in their own notation."""
    listed: list[Any] = []
    maps: dict[str, Any] = {}
    for command in commands["nftables"]:
        [(kind, content)] = command["add"].items()
        if kind == "element":
            maps[content["name"]]["elem"] = content["elem"]
        else:
            content = {**content, "handle": 1}
            listed.append({kind: content})
            if kind == "map":
                maps[content["name"]] = content
    return {"nftables": [{"metainfo": {"version": "1.1.3"}}, *listed]}


@given(desired=rulesets())
def test_a_table_survives_its_encoding(desired: Ruleset) -> None:
    """Encoding and decoding are each other's inverse, also over the text of the JSON.

    The text for nft starts by destroying what stands, and is one block of printable lines.
    """
    commands = json.loads(json.dumps(encode_plan(make_plan(desired, None))))
    assert decode_ruleset(listing_of(commands)) == (desired, ())
    text = render(desired, persist=True)
    assert text.startswith("destroy table inet sgagent\n\ntable inet sgagent {\n\tflags persist\n")
    assert text == render(desired, persist=True)
    assert all(line.lstrip("\t").isprintable() for line in text.splitlines())
    assert "persist" not in render(desired, persist=False)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_KINDS = ("chain", "rule", "map", "set", "counter", "table", "quota", "flowtable")


@given(kind=st.sampled_from(_KINDS), content=st.dictionaries(st.text(max_size=8), _JSON, max_size=4))
def test_nothing_foreign_makes_the_decoder_fail(kind: str, content: dict[str, Any]) -> None:
    """Whatever an object looks like, it is read or named."""
    ruleset, foreign = decode_ruleset({"nftables": [{kind: {"name": "evil", **content}}]})
    assert isinstance(ruleset, Ruleset)
    assert all(name.startswith(kind) for name in foreign)


@given(desired=rulesets(), replaced=_JSON, number=st.integers(min_value=0))
def test_a_spoilt_listing_does_not_make_the_decoder_fail(
    desired: Ruleset,
    replaced: Any,  # noqa: ANN401 - JSON
    number: int,
) -> None:
    """Anything may stand anywhere below an object."""
    listing = listing_of(json.loads(json.dumps(encode_plan(make_plan(desired, None)))))
    places = list(_places(listing["nftables"][1:]))
    if places:
        container, key = places[number % len(places)]
        container[key] = replaced
    ruleset, _ = decode_ruleset(listing)
    assert isinstance(ruleset, Ruleset)


def _places(entries: list[Any]) -> Any:  # noqa: ANN401 - JSON
    """Yield every container below the objects' contents, with each of its keys."""
    waiting = [content for entry in entries for content in entry.values()]
    while waiting:
        container = waiting.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in list(keys):
            yield container, key
            if isinstance(container[key], (dict, list)):
                waiting.append(container[key])
