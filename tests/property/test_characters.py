"""No character makes a reader see another text than a person sees."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from sgagent.cli.configuration import load_settings
from sgagent.core.errors import DocumentError, Problem, UsageError
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writer import as_json, as_yaml, write_document
from sgagent.policy_test.scenario import parse_packets
from sgagent.sources.etcd.key_layout import read_json

LINE_BREAKS = (
    "\n",  # POSIX
    "\r\n",
    "\r",  # YAML, and the old Mac OS
    "\v",  # Unicode Standard Annex 14, and str.splitlines
    "\f",
    "\x1c",  # str.splitlines
    "\x1d",
    "\x1e",
    "\x85",  # YAML 1.1, XML 1.1
    "\u2028",  # YAML 1.1, ECMAScript
    "\u2029",
)
"""What some standard or library takes for the end of a line."""

INVISIBLE = ("\0", "\x7f", "\x9f", "\ufeff", "\u200b")
BIDIRECTIONAL = (
    *("\u061c", "\u200e", "\u200f", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e"),
    *("\u2066", "\u2067", "\u2068", "\u2069"),
)
SEPARATORS = ("\x85", "\u2028", "\u2029", "\ufeff")
"""What may stand in quoted texts only."""

CHARACTERS = st.sampled_from((*LINE_BREAKS, *INVISIBLE, *BIDIRECTIONAL))
OTHER = f"[{''.join((*LINE_BREAKS, *INVISIBLE, *BIDIRECTIONAL)).replace(chr(10), '')}]"
"""Matches each of them, but line feeds."""

HIDDEN = "      - {direction: ingress, policy: accept, protocol: all, authorization_object: 0.0.0.0/0}"
SHOWN = """version: 1<1>
# old<2>
security_groups:<3>
  - security_group_id: sg-1
    name: plain<4>
    tags: {a: "double<5>", 'single<6>': b}
    rules:  # agreed<7>
      - direction: ingress<8>
        policy: accept  # because<9>
        protocol: tcp
        port_range: [22,<10> 443]
        authorization_object: 10.0.0.0/8
        description: |
          folded<11>
"""
"""With places where a character and what it hides may stand."""

QUOTED = ("<5>", "<6>")
PLACES = tuple(f"<{number}>" for number in range(1, 12))


def with_characters(places: dict[str, str]) -> str:
    """Return the document with these texts at these places, and nothing at the others."""
    text = SHOWN
    for place in PLACES:
        text = text.replace(place, places.get(place, ""))
    return text


def parse(text: str, name: str = "a.yaml") -> Snapshot:
    """Return what a document holds."""
    return parse_documents([DocumentFile(name, text.encode())], Limits())[0]


def refusal(text: str, name: str = "a.yaml") -> Problem | None:
    """Return the only error of a document; None if it is taken."""
    try:
        parse(text, name)
    except DocumentError as error:
        (problem,) = error.problems
        return problem
    return None


def seen(snapshot: Snapshot) -> object:
    """Return what is enforced."""
    return [(one.security_group_id, [rule.rule_id for rule in one.rules]) for one in snapshot.security_groups]


@given(
    st.dictionaries(st.sampled_from(PLACES), st.tuples(CHARACTERS, st.sampled_from(("", HIDDEN))), max_size=3)
)
@example({"<7>": ("\u2028", HIDDEN)})
@example({"<7>": ("\x85", HIDDEN)})
@example({"<7>": ("\r", HIDDEN)})
@example({"<7>": ("\n", HIDDEN)})
@example({"<5>": ("\u2029", "")})
@example({"<1>": ("\r", "")})
def test_what_looks_like_one_line_is_one_line(put: dict[str, tuple[str, str]]) -> None:
    """What is taken means what it means to a program that ends lines at line feeds and nowhere else."""
    shown = with_characters({place: character + hidden for place, (character, hidden) in put.items()})
    plain = re.sub(OTHER, "_", shown.replace("\r\n", "\n"))
    if refusal(shown) is None:
        assert seen(parse(shown)) == seen(parse(plain))


@pytest.mark.parametrize("character", (*SEPARATORS, *BIDIRECTIONAL, "\r", "\v", "\f", "\0"))
@pytest.mark.parametrize("place", PLACES)
def test_where_it_stands_is_told(character: str, place: str) -> None:
    """The error names line and column, as an editor counts them, the character, and what to do."""
    shown = with_characters({place: f"{character}."})
    problem = refusal(shown)
    if place in QUOTED and character in SEPARATORS:
        assert problem is None
        (group,) = parse(shown).security_groups
        told = {"<5>": ("a", f"double{character}."), "<6>": (f"single{character}.", "b")}
        assert told[place] in group.tags
        return
    before = shown[: shown.index(character)]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert problem is not None
    assert problem.origin.line == line
    assert f"column {column}: " in problem.message
    assert f"U+{ord(character):04X}" in problem.message
    assert problem.remedy.startswith("remove it")


@pytest.mark.parametrize("character", (*SEPARATORS, *BIDIRECTIONAL))
@pytest.mark.parametrize("name", ("a.yaml", "a.json"))
@pytest.mark.parametrize("indent", (None, 1))
def test_json(character: str, name: str, indent: int | None) -> None:
    """In JSON it is the same: line separators are text in strings, and an error between values."""
    group = {"security_group_id": "sg-1", "name": f"a{character}b"}
    text = json.dumps({"version": 1, "security_groups": [group]}, ensure_ascii=False, indent=indent)
    if character in SEPARATORS:
        assert parse(text, name).security_groups[0].name == f"a{character}b"
        text = text.replace(character, "").replace("[", f"[{character}")
    problem = refusal(text, name)
    before = text[: text.index(character)]
    assert problem is not None
    assert (problem.code, problem.origin.line) == ("bad_character", before.count("\n") + 1)
    assert f"column {len(before) - before.rfind(chr(10))}: U+{ord(character):04X}" in problem.message


@pytest.mark.parametrize("character", (*SEPARATORS, *BIDIRECTIONAL))
@pytest.mark.parametrize("name", ("a.yaml", "a.json"))
def test_escapes_can_be_seen_and_are_text(character: str, name: str) -> None:
    """Between quotes an escape is as good as any text, and what is written by us is read by us."""
    group = {"security_group_id": "sg-1", "name": f"a{character}b"}
    snapshot = parse(json.dumps({"version": 1, "security_groups": [group]}), name)
    assert snapshot.security_groups[0].name == f"a{character}b"
    native = write_document(snapshot)
    assert parse(as_json(native).decode()) == parse(as_yaml(native)) == snapshot


@pytest.mark.parametrize("places", (("<5>",), ("<2>", "<5>"), ("<5>", "<11>")))
def test_what_stands_in_for_a_separator_is_in_no_text(places: tuple[str, ...]) -> None:
    """A text with private-use characters of its own keeps them, if enough are left."""
    some = "".join(map(chr, range(0xE000, 0xE010)))
    text = with_characters(dict.fromkeys(places, f"{some}\u2028"))
    if places == ("<5>",):
        assert ("a", f"double{some}\u2028") in parse(text).security_groups[0].tags
    else:
        assert refusal(text) is not None


@pytest.mark.one_python
def test_a_text_with_all_private_use_characters_is_refused() -> None:
    """None is left that could stand in for its separator."""
    every = "".join(map(chr, (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))))
    assert refusal(with_characters({"<5>": f"{every}\u2028"})) is not None


@pytest.mark.parametrize("character", (*LINE_BREAKS, *INVISIBLE, *BIDIRECTIONAL))
@pytest.mark.parametrize("line", ("# agreed{}strict = true", 'mode = "{}observe"', "{}strict = true"))
def test_the_configuration(character: str, line: str, tmp_path: Path) -> None:
    """A configuration ends lines at line feeds too, whatever stands in its comments."""
    path = tmp_path / "sgagent.toml"
    path.write_bytes(f"[enforcement]\n{line.format(character)}\n".encode())
    if character in ("\n", "\r\n") and '"' not in line:
        assert load_settings(argparse.Namespace(config=path)).enforcement.strict
    elif character in ("\u200b", "\x9f") and line.startswith("#"):  # no standard ends a line there
        assert not load_settings(argparse.Namespace(config=path)).enforcement.strict
    else:
        place = f"2: column {line.index('{') + 1}: U+{ord(character[0]):04X}"
        with pytest.raises(
            UsageError, match=re.escape(place) if character in (*SEPARATORS, *BIDIRECTIONAL) else None
        ):
            load_settings(argparse.Namespace(config=path))


@pytest.mark.parametrize("character", (*SEPARATORS, *BIDIRECTIONAL, "\r"))
def test_packets(character: str) -> None:
    """So it is with files of packets."""
    with pytest.raises(DocumentError) as caught:
        parse_packets(f"bind: {{eth0: sg-1}}\n# x{character}packets: []\n".encode(), "packets.yaml")
    (problem,) = caught.value.problems
    assert (problem.code, problem.origin.line) == ("bad_character", 2)


@pytest.mark.parametrize("character", BIDIRECTIONAL)
def test_keys_of_a_store(character: str) -> None:
    """What is read of etcd is no way around it."""
    assert read_json(json.dumps({"name": character}, ensure_ascii=False).encode()) is None
    assert read_json(json.dumps({"name": character}).encode()) == {"name": character}
