"""Templates escape every value, and only the first page loads Jinja2."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sgagent.agent.web
from sgagent.agent.web.page import UNSAFE_FILTERS

FOLDER = Path(sgagent.agent.web.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").iterdir())
UNSAFE = re.compile(rf"\|\s*({'|'.join(sorted(UNSAFE_FILTERS))})\b|\bautoescape\b|%-?\s*filter\b")
UNQUOTED = re.compile(r"=\s*\{\{")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_avoids_escaping(template: Path) -> None:
    """None uses a filter that returns markup, switches autoescape off, or has a value outside quotes."""
    text = template.read_text()
    assert not UNSAFE.search(text)
    assert not UNQUOTED.search(text)


@pytest.mark.parametrize(
    "text", ("{{ x|safe }}", "{{ x | e }}", "{% autoescape false %}", "{% filter safe %}")
)
def test_a_template_that_avoids_escaping_would_be_found(text: str) -> None:
    """The pattern of the test above matches each way to avoid escaping."""
    assert UNSAFE.search(text)
    assert UNQUOTED.search("<a href={{ x }}>")


def test_no_module_makes_markup() -> None:
    """No value is marked as safe in Python either; all texts reach the templates unescaped."""
    modules = [path for path in FOLDER.rglob("*.py") if "Markup" in path.read_text()]
    assert modules == []
    assert len(TEMPLATES) > 10


@pytest.mark.one_python
def test_the_daemon_starts_without_jinja2() -> None:
    """Importing what serves the page loads no template engine; the first page does."""
    program = (
        "import sys, sgagent.cli.daemon_assembly\n"
        "from sgagent.agent.web.page import PageContent, render_page\n"
        "before = 'jinja2' in sys.modules\n"
        "render_page(PageContent(title='', is_healthy=True, headline='', sections=(), now=0.0))\n"
        "print(before, 'jinja2' in sys.modules)\n"
    )
    result = subprocess.run(  # noqa: S603 - this Python with a text of ours
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]
