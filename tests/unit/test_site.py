"""mkdocs builds a site from docs/ without a warning, and warns of every link that leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from release.site import PAGES

ROOT = Path(__file__).parents[2]
FAULTS = {
    "[a page](nowhere.md)": "nowhere.md",
    "[an anchor](semantics.md#nowhere)": "'#nowhere'",
    "[a file](../nowhere.txt)": "nowhere.txt",
    "as in §3.99": "§3.99",
}
"""What a page may have wrong, and what the warning about it names."""


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a repository."""
    argv = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(root / "mkdocs.yml")]
    return subprocess.run(  # noqa: S603 - our own interpreter and files
        [*argv, "--site-dir", str(site)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    return folder


def read(path: Path) -> str:
    """Return a page of the site."""
    return path.read_text(encoding="utf-8")


def test_every_page_is_in_the_site(site: Path) -> None:
    """Those of docs/ and those from elsewhere."""
    names = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    pages = [name.replace("README.md", "index.md") for name in (*names, *PAGES.values())]
    assert [name for name in pages if not (site / name).with_suffix(".html").exists()] == []


def test_clause_numbers_lead_to_the_clause(site: Path) -> None:
    """From any page, at any depth; a section's number leads to its heading."""
    assert 'href="semantics.html#9.2"' in read(site / "design.html")
    assert 'href="../semantics.html#6.4"' in read(site / "adr/0002-generation-in-the-mark.html")
    assert read(site / "semantics.html").count('id="9.2"') == 1
    assert 'href="semantics.html#3-the-verdict"' in read(site / "control.html")


def test_links_out_of_docs_stay_in_the_site(site: Path) -> None:
    """A link to a page from elsewhere works in the site; one to a file that is no page is plain text."""
    assert 'href="overview.html#what-it-cannot-see"' in read(site / "threat-model.html")
    assert 'href="quick-start.html"' in read(site / "overview.html")
    assert "<td>1-web</td>" in read(site / "examples.html")


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and images are the site's own."""
    loaded = re.findall(
        r"<(?:script|img|link|source)\b[^>]*(?:src|href)=\"(?!data:)([^\"]+)\"", read(site / "index.html")
    )
    assert loaded
    assert [address for address in loaded if address.startswith(("http:", "https:", "//"))] == []


def test_a_bar_in_code_is_shown_as_it_is(site: Path) -> None:
    """In a table it is written with a backslash, which GitHub takes away."""
    assert "svg|dot|mermaid" in read(site / "commands.html")


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """Each fault of a page is named, and the build ends with 1."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("mkdocs.yml", "release/site.py", *PAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in ("examples", "monitoring"):
        shutil.copytree(ROOT / folder, tmp_path / folder, dirs_exist_ok=True)
    with (tmp_path / "docs/https.md").open("a", encoding="utf-8") as page:
        page.write("\n\n".join(("", *FAULTS, "")))
    done = build(tmp_path, tmp_path / "site")
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line or "https.md" in line]
    assert done.returncode == 1
    assert [name for name in FAULTS.values() if not any(name in line for line in warnings)] == []
