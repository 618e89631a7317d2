"""Graphs are laid out without anything standing on anything else, and drawn safely in three languages."""

from __future__ import annotations

import json
import re
from itertools import combinations
from random import Random
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings

from sgagent.core.graphing.layout import Place, Size, lay_out
from sgagent.core.graphing.making import make_graph
from sgagent.core.graphing.marking import Way, compared, highlighted
from sgagent.core.graphing.ranks import acyclic, ordered, ranked
from sgagent.core.graphing.svg import as_svg
from sgagent.core.graphing.texts import as_dot, as_mermaid
from sgagent.core.lint.subject import make_subject
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.strategies import seeds
from tests.unit.core.test_graph import INTO_B, TIERS, TWO, graph_of

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "'\"<script>alert(1)</script>]]>&amp;\\\"|{}\u001b[31m'"


def random_edges(random: Random, nodes: int) -> list[tuple[int, int]]:
    """Return edges between different nodes, circles among them."""
    found = [tuple(random.sample(range(nodes), 2)) for _ in range(random.randint(0, 3 * nodes))]
    return [(one, other) for one, other in found]


@settings(max_examples=60)
@given(seeds)
def test_ranks_rise_along_every_edge(seed: int) -> None:
    """Circles are broken by turning edges round, and nothing else changes."""
    random = Random(seed)
    nodes = random.randint(2, 12)
    edges = random_edges(random, nodes)
    turned = acyclic(nodes, edges)
    assert [frozenset(edge) for edge in turned] == [frozenset(edge) for edge in edges]
    ranks = ranked(nodes, turned)
    assert all(ranks[source] < ranks[target] for source, target in turned)
    assert min(ranks) >= 0


def test_edges_that_cross_are_untangled() -> None:
    """Two layers whose edges can all be parallel."""
    first, second = ordered([[0, 1, 2], [3, 4, 5]], [(0, 5), (1, 4), (2, 3)])
    assert [second.index(end) for end in (5, 4, 3)] == [first.index(start) for start in (0, 1, 2)]


def overlap(one: Place, other: Place) -> bool:
    """Tell whether two rectangles share more than a border."""
    apart = 0.001
    return (
        one.left < other.right - apart
        and other.left < one.right - apart
        and one.top < other.bottom - apart
        and other.top < one.bottom - apart
    )


@settings(max_examples=60)
@given(seeds)
def test_nothing_stands_on_anything_else(seed: int) -> None:
    """Neither nodes nor labels overlap, all is within the drawing, and edges run from node to node."""
    random = Random(seed)
    nodes = [Size(random.randint(20, 200), random.randint(20, 80)) for _ in range(random.randint(2, 14))]
    edges = [(*edge, Size(random.randint(10, 150), 20)) for edge in random_edges(random, len(nodes))]
    layout = lay_out(nodes, edges)
    rectangles = [*layout.nodes, *(route.label for route in layout.routes)]
    assert not [pair for pair in combinations(rectangles, 2) if overlap(*pair)]
    assert all(one.left >= 0 and one.right <= layout.size.width for one in rectangles)
    assert all(one.top >= 0 and one.bottom <= layout.size.height for one in rectangles)
    for (source, target, _), route in zip(edges, layout.routes, strict=True):
        (x, y), (end_x, end_y) = route.points[0], route.points[-1]
        assert (y, end_y) == (layout.nodes[source].y, layout.nodes[target].y)
        assert x in (layout.nodes[source].left, layout.nodes[source].right)
        assert end_x in (layout.nodes[target].left, layout.nodes[target].right)


def test_the_drawing_can_be_read_aloud() -> None:
    """It has a title, and says every edge in words; each edge and node says itself when it is pointed at."""
    root = ET.fromstring(as_svg(graph_of(TIERS)))  # noqa: S314 - we have written it
    assert root.attrib["role"] == "img"
    ids = {element.attrib["id"]: element for element in root.iter() if "id" in element.attrib}
    assert all(name in ids for name in root.attrib["aria-labelledby"].split())
    said = ids["sgagent-graph-text"].text or ""
    assert "sg-web to sg-app: tcp 8080-8089, 9443 (by sgr-app-web, sgr-web-to-app)" in said
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert "sg-app to sg-database: tcp 5432 (by sgr-database-app)" in titles


def test_the_drawing_needs_nothing_else() -> None:
    """It loads nothing and runs nothing, and is light or dark as the reader likes."""
    drawn = as_svg(graph_of(TIERS))
    assert "prefers-color-scheme:dark" in drawn
    assert set(re.findall(r"https?://[^\s\"]+", drawn)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\((.)", drawn)) == {"#"}
    assert "<script" not in drawn


def test_changes_are_not_told_by_colour_alone() -> None:
    """What opens has a plus, what closes a minus, and an edge that goes is dashed."""
    old = graph_of(TWO.format(a="", b=INTO_B))
    new = graph_of(TWO.format(a=INTO_B.replace("sg-a", "sg-b"), b=""))
    drawn = as_svg(compared(old, new))
    assert ">+ tcp 80, 443</text>" in drawn
    assert ">- tcp 80, 443</text>" in drawn
    assert re.search(r"\.closed path\{[^}]*stroke-dasharray", drawn)
    assert "style=dashed" in as_dot(compared(old, new))
    assert "stroke-dasharray" in as_mermaid(compared(old, new))


def test_ways_stand_out_in_every_language() -> None:
    """Each edge on a way is marked, and comes last in the drawing, above the others."""
    graph = highlighted(graph_of(TIERS), Way(source="anywhere", target="sg-app"), TIERS)
    kinds = re.findall(r'<g class="edge (\w*)">', as_svg(graph))
    assert kinds == ["", "", "", "", "way", "way"]
    own = highlighted(graph_of(TIERS), Way(source="sg-app", target="10.1.0.22"), TIERS)
    assert as_svg(own).count('<g class="node way">') == 1
    assert as_dot(graph).count("penwidth=3") == 2
    assert as_mermaid(graph).count("stroke-width:3px") == 2


@pytest.fixture
def hostile() -> Snapshot:
    """Return definitions whose names would break out of any language."""
    group = {"security_group_id": "sg-a", "type": "basic", "name": HOSTILE}
    text = json.dumps({"version": 1, "security_groups": [group]})
    return parse_documents([DocumentFile("hostile.json", text.encode())], Limits())[0]


def test_names_stay_text(hostile: Snapshot) -> None:
    """Whatever a name holds, it is shown and does nothing."""
    graph = make_graph(make_subject(hostile, Exemptions()))
    root = ET.fromstring(as_svg(graph))  # noqa: S314 - we have written it
    assert not list(root.iter(f"{SVG}script"))
    assert "script" in "".join(text.text or "" for text in root.iter(f"{SVG}text"))
    label = re.search(r'label="((?:[^"\\]|\\.)*)"\]', as_dot(graph))
    assert label is not None
    assert "<script" not in as_mermaid(graph)
    assert as_mermaid(graph).count('"') == 2
