"""Graphs are laid out without anything standing on anything else, and drawn safely in three languages."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given

from sgagent.analysis.graph import svg
from sgagent.analysis.graph.edges import make_graph
from sgagent.analysis.graph.elements import as_dot, as_mermaid
from sgagent.analysis.graph.layout import NodePlace, Size, acyclic, lay_out, ordered, ranked
from sgagent.analysis.graph.svg import HighlightedWay, as_svg, compared, highlighted
from sgagent.analysis.lint.subject import make_subject
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.draws import Draws
from tests.strategies import draws, examples
from tests.unit.analysis.test_graph import INTO_B, TIERS, TWO, graph_of

SVG = "{http://www.w3.org/2000/svg}"
RSVG = shutil.which("rsvg-convert")
HOSTILE = "'\"<script>alert(1)</script>]]>&amp;\\\"|{}\u001b[31m'"


def random_edges(draws: Draws, nodes: int) -> list[tuple[int, int]]:
    """Return edges between different nodes, circles among them."""
    found = draws.many(lambda draws: draws.sample(range(nodes), 2), 3 * nodes)
    return [(one, other) for one, other in found]


@examples(60)
@given(draws())
def test_ranks_rise_along_every_edge(draws: Draws) -> None:
    """Circles are broken by turning edges round, and nothing else changes."""
    nodes = draws.randint(2, 12)
    edges = random_edges(draws, nodes)
    turned = acyclic(nodes, edges)
    assert [frozenset(edge) for edge in turned] == [frozenset(edge) for edge in edges]
    ranks = ranked(nodes, turned)
    assert all(ranks[source] < ranks[target] for source, target in turned)
    assert min(ranks) >= 0


def test_edges_that_cross_are_untangled() -> None:
    """Two layers whose edges can all be parallel."""
    first, second = ordered([[0, 1, 2], [3, 4, 5]], [(0, 5), (1, 4), (2, 3)])
    assert [second.index(end) for end in (5, 4, 3)] == [first.index(start) for start in (0, 1, 2)]


def overlap(one: NodePlace, other: NodePlace) -> bool:
    """Tell whether two rectangles share more than a border."""
    apart = 0.001
    return (
        one.left < other.right - apart
        and other.left < one.right - apart
        and one.top < other.bottom - apart
        and other.top < one.bottom - apart
    )


@examples(60)
@given(draws())
def test_nothing_stands_on_anything_else(draws: Draws) -> None:
    """Neither nodes nor labels overlap, all is within the drawing, and edges run from node to node."""
    nodes = [Size(draws.randint(20, 200), draws.randint(20, 80)) for _ in range(draws.randint(2, 14))]
    edges = [(*edge, Size(draws.randint(10, 150), 20)) for edge in random_edges(draws, len(nodes))]
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


def test_a_viewer_without_style_sheets_shows_the_same() -> None:
    """Each element has its colour itself; the style sheet changes colours only where it is dark."""
    old, new = graph_of(TWO.format(a="", b=INTO_B)), graph_of(TWO.format(a=INTO_B, b=""))
    way = highlighted(graph_of(TIERS), HighlightedWay(source="anywhere", target="sg-app"), TIERS)
    for drawn in map(as_svg, (compared(old, new), way)):
        assert "var(" not in drawn
        root = ET.fromstring(drawn)  # noqa: S314 - we have written it
        shapes = [
            one for one in root.iter() if one.tag in {f"{SVG}{tag}" for tag in ("rect", "path", "text")}
        ]
        assert {one.attrib.get("fill") for one in shapes} <= {"none", *svg.LIGHT.values()}
        assert all("stroke" in one.attrib for one in shapes if one.attrib["fill"] == "none")
        (style,) = root.iter(f"{SVG}style")
        assert re.fullmatch(
            r"\s*svg\{[^}]*\}\s*@media\(prefers-color-scheme:dark\)\{.*\}\s*", style.text or "", re.DOTALL
        )


@pytest.mark.skipif(RSVG is None, reason="rsvg-convert is not installed (librsvg2-bin)")
def test_a_viewer_without_variables_paints_it_light() -> None:
    """Librsvg, which many programs show drawings with, has a white ground and dark text on light boxes."""
    assert RSVG is not None
    size = ET.fromstring(as_svg(graph_of(TIERS))).attrib  # noqa: S314 - we have written it
    painted = subprocess.run(  # noqa: S603 - our own drawing
        [RSVG, "--format=png"], input=as_svg(graph_of(TIERS)).encode(), capture_output=True, check=True
    )
    pixels = Counter(pixels_of(painted.stdout))
    assert sum(pixels.values()) == int(size["width"]) * int(size["height"])
    assert pixels.most_common(1)[0][0] == bytes.fromhex(svg.LIGHT["paper"][1:])
    assert all(pixels[bytes.fromhex(svg.LIGHT[colour][1:])] for colour in ("ink", "box", "beyond"))


def pixels_of(png: bytes) -> Iterator[bytes]:
    """Yield red, green and blue of each pixel of a picture with 8 bits each, with or without alpha."""
    place, packed, width, room = 8, b"", 0, 0
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        data = png[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, _, *form = struct.unpack(">IIBBBBB", data)
            room = {(8, 2, 0, 0, 0): 3, (8, 6, 0, 0, 0): 4}[tuple(form)]
        elif kind == b"IDAT":
            packed += data
        place += length + 12
    lines, size, above = zlib.decompress(packed), room * width, bytes(room * width)
    for start in range(0, len(lines), size + 1):
        above = unfiltered(lines[start], lines[start + 1 : start + 1 + size], above, room)
        yield from (above[at : at + 3] for at in range(0, size, room))


def unfiltered(kind: int, line: bytes, above: bytes, room: int) -> bytes:
    """Return a line of a picture from what stands for it there (PNG, chapter 9)."""
    found = bytearray(room)
    for place, value in enumerate(line):
        left, up, corner = found[place], above[place], above[place - room] if place >= room else 0
        estimate = left + up - corner
        paeth = min((left, up, corner), key=lambda near: abs(estimate - near))
        found.append((value + (0, left, up, (left + up) // 2, paeth)[kind]) % 256)
    return bytes(found[room:])


def test_every_colour_turns_dark() -> None:
    """The style sheet names each, so that none stays light in the dark."""
    assert {colour for _, _, colour in svg.COLOURED} == svg.LIGHT.keys()


def test_changes_are_not_told_by_colour_alone() -> None:
    """What opens has a plus, what closes a minus, and an edge that goes is dashed."""
    old = graph_of(TWO.format(a="", b=INTO_B))
    new = graph_of(TWO.format(a=INTO_B.replace("sg-a", "sg-b"), b=""))
    drawn = as_svg(compared(old, new))
    assert ">+ tcp 80, 443</text>" in drawn
    assert ">- tcp 80, 443</text>" in drawn
    assert re.search(r'class="edge closed">.*\n<path [^>]*stroke-dasharray', drawn)
    assert "style=dashed" in as_dot(compared(old, new))
    assert "stroke-dasharray" in as_mermaid(compared(old, new))


def test_ways_stand_out_in_every_language() -> None:
    """Each edge on a way is marked, and comes last in the drawing, above the others."""
    graph = highlighted(graph_of(TIERS), HighlightedWay(source="anywhere", target="sg-app"), TIERS)
    kinds = re.findall(r'<g class="edge (\w*)">', as_svg(graph))
    assert kinds == ["", "", "", "", "", "way", "way"]
    own = highlighted(graph_of(TIERS), HighlightedWay(source="sg-app", target="10.1.0.22"), TIERS)
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
