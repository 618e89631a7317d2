"""What mkdocs needs beside docs/: pages from elsewhere in the repository, and links at clause numbers.

mkdocs.yml names this file as its hook. A link of the repository becomes one of the site; a link to a file
that is no page of the site becomes plain text.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "overview.md",
    "ansible/README.md": "ansible.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/costs.md": "costs.md",
    "bench/peers.md": "peers.md",
    "container/README.md": "container.md",
    "examples/README.md": "examples.md",
    "examples/from-traffic/README.md": "from-traffic.md",
    "examples/shop/README.md": "shop.md",
    "integration/story.md": "story.md",
    "monitoring/README.md": "monitoring.md",
    "vagrant/README.md": "vagrant.md",
}
"""Pages from outside docs/, and their names in the site."""

CLAUSES = "semantics.md"
_LOG = logging.getLogger("mkdocs.hooks.site")  # a warning below mkdocs' logger fails a strict build
_HEADING = re.compile(r"^## §(\d+) (.+)$", re.MULTILINE)
_PART = re.compile(
    r"(?P<kept>^```.*?^```|^#.*?$|`[^`\n]+`)"
    r"|(?P<text>\[[^\[\]]*)?\]\((?P<target>[^)\s]+)\)"
    r"|§(?P<section>\d+)(?:\.(?P<clause>\d+))?",
    re.DOTALL | re.MULTILINE,
)
"""Code and headings, links, and clause numbers; whichever begins first."""


def github_anchor(heading: str, separator: str = "-") -> str:
    """Return the anchor that GitHub gives a heading, so that links work in both places."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have headings get the anchors that the repository's links use."""
    config.mdx_configs["toc"] = {"slugify": github_anchor}
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Rewrite the links of a page, and link clause numbers to the semantics."""
    clauses = Path(config.docs_dir, CLAUSES).read_text(encoding="utf-8")
    return _Rewriter(page.file.src_uri, dict(_HEADING.findall(clauses)), clauses).rewrite(markdown)


class _Rewriter:
    """One page that is being rewritten."""

    def __init__(self, name: str, sections: dict[str, str], clauses: str) -> None:
        """Take the page's name in the site, the titles of the semantics' sections, and its text."""
        self._name = name
        self._folder = posixpath.dirname(name)
        by_name = {name: path for path, name in PAGES.items()}
        self._origin = posixpath.dirname(by_name.get(name, f"docs/{name}"))
        self._sections = sections
        self._clauses = set(re.findall(r"§(\d+\.\d+)", clauses))
        self._anchored: set[str] = set()

    def rewrite(self, markdown: str) -> str:
        """Return the page's text for the site."""
        return _PART.sub(self._part, markdown)

    def _part(self, match: re.Match[str]) -> str:
        if kept := match["kept"]:
            is_code_in_line = kept.startswith("`") and not kept.startswith("```")
            return kept.replace("\\|", "|") if is_code_in_line else kept  # mkdocs needs no \\ in tables
        if match["target"]:
            return self._link(match["text"] or "", match["target"])
        return self._clause(match[0], match["section"], match["clause"])

    def _link(self, text: str, target: str) -> str:
        path, hash_sign, anchor = target.partition("#")
        if not path or "://" in target:
            return f"{text}]({target})"
        place = posixpath.normpath(posixpath.join(self._origin, path))
        if place.startswith("docs/") or place in PAGES:
            name = PAGES.get(place, place.removeprefix("docs/"))
            return f"{text}]({posixpath.relpath(name, self._folder or '.')}{hash_sign}{anchor})"
        if not (ROOT / place).exists():
            _LOG.warning("%s links to %s, which is not in the repository", self._name, place)
        return text.removeprefix("[") if text else "]"

    def _clause(self, text: str, section: str, clause: str | None) -> str:
        """Return a clause's number as a link, or where the semantics has it first, with its anchor."""
        number = f"{section}.{clause}"
        if section not in self._sections or (clause and number not in self._clauses):
            _LOG.warning("%s names %s, which %s does not have", self._name, text, CLAUSES)
            return text
        if self._name == CLAUSES and clause and number not in self._anchored:
            self._anchored.add(number)
            return f'<a id="{number}"></a>{text}'
        anchor = number if clause else github_anchor(f"§{section} {self._sections[section]}")
        return f"[{text}]({posixpath.relpath(CLAUSES, self._folder or '.')}#{anchor})"
