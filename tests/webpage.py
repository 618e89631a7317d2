"""Read a page as a browser does, and hold it to what people who can't see or point need of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

_WITHOUT_END = {"br", "hr", "img", "input", "link", "meta", "path"}


@dataclass(eq=False)
class Part:
    """An element of a page."""

    name: str
    attributes: dict[str, str]
    content: list[Part | str] = field(default_factory=list)
    """Elements and texts, in the order of the page."""

    @property
    def parts(self) -> list[Part]:
        """Return the elements that are directly in it."""
        return [part for part in self.content if isinstance(part, Part)]

    @property
    def own_text(self) -> str:
        """Return the text that is directly in it."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def text(self) -> str:
        """Return all the text that is in it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.content)

    def all(self, *names: str) -> Iterator[Part]:
        """Yield every element below of these names, all if none is given, in the order of the page."""
        for part in self.parts:
            if not names or part.name in names:
                yield part
            yield from part.all(*names)

    def one(self, name: str) -> Part:
        """Return the one element of a name."""
        (found,) = self.all(name)
        return found

    def by_id(self, name: str) -> Part:
        """Return the element with an id."""
        (found,) = (part for part in self.all() if part.attributes.get("id") == name)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Part("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        part = Part(tag, {name: value or "" for name, value in attrs})
        assert len(part.attributes) == len(attrs), f"an attribute twice in {attrs}"
        self._open[-1].content.append(part)
        if tag not in _WITHOUT_END:
            self._open.append(part)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _WITHOUT_END, f"a browser takes no end of {tag}"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag, f"{tag} ends where something else does"

    def handle_data(self, data: str) -> None:
        self._open[-1].content.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def read_page(content: bytes | str) -> Part:
    """Return what a page consists of; one whose elements don't fit into each other is refused."""
    reader = _Reader()
    reader.feed(content.decode() if isinstance(content, bytes) else content)
    reader.close()
    return reader.root


def barriers(page: Part) -> list[str]:
    """Return what stands between a page and who uses it by keyboard or by ear; nothing is right."""
    return [*_ids(page), *_names(page), *_headings(page), *_tables(page), *_landmarks(page)]


def _ids(page: Part) -> Iterator[str]:
    ids = Counter(part.attributes["id"] for part in page.all() if "id" in part.attributes)
    yield from (f"id {name} twice" for name, number in ids.items() if number > 1)
    for part in page.all():
        for attribute in ("for", "list", "aria-labelledby", "aria-describedby"):
            for name in part.attributes.get(attribute, "").split():
                if name not in ids:
                    yield f"{part.name} {attribute} leads to no {name}"
        target = part.attributes.get("href", "")
        if target.startswith("#") and target[1:] not in ids:
            yield f"a link leads to no {target}"


def _names(page: Part) -> Iterator[str]:
    labelled = {label.attributes.get("for") for label in page.all("label") if label.text.strip()}
    for control in page.all("input", "select"):
        if control.attributes.get("id") not in labelled:
            yield f"{control.name} {control.attributes} has no label"
    for part in page.all("a", "button"):
        pictured = "".join(image.attributes.get("alt", "") for image in part.all("img"))
        if not (part.text + pictured).strip():
            yield f"{part.name} {part.attributes} says nothing"
    for drawing in page.all("svg", "img"):
        if not (drawing.attributes.get("aria-label") or drawing.attributes.get("alt")):
            yield f"{drawing.name} says nothing"
    if not page.one("head").one("title").text.strip() or page.one("html").attributes.get("lang") != "en":
        yield "the page has no title or language"


def _headings(page: Part) -> Iterator[str]:
    levels = [int(heading.name[1]) for heading in page.all("h1", "h2", "h3", "h4")]
    if levels.count(1) != 1 or levels[0] != 1:
        yield f"headings begin with {levels[:1]}, and there are {levels.count(1)} of the first level"
    yield from (f"a heading {low} follows one {high}" for high, low in pairwise(levels) if low > high + 1)


def _tables(page: Part) -> Iterator[str]:
    for table in page.all("table"):
        if not table.one("caption").text.strip():
            yield "a table without a caption"
        scopes = {heading.attributes.get("scope") for heading in table.all("th")}
        if not scopes <= {"col", "row"} or "col" not in scopes:
            yield f"headings of a table are for {scopes}"
        widths = {len(list(row.all("th", "td"))) for row in table.all("tr")}
        if len(widths) != 1:
            yield f"rows of {widths} cells"


def _landmarks(page: Part) -> Iterator[str]:
    for name in ("header", "nav", "main", "footer"):
        if len(list(page.all(name))) != 1:
            yield f"no {name}, or several"
    first = next(page.all("a"), None)
    if first is None or first.attributes.get("href") != "#content":
        yield "the first link does not skip to the content"
