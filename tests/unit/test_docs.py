"""The documents say what the code does, as far as that can be told."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from sgagent.agent import lockout_hold, manual_override
from sgagent.agent.control import hits, requests
from sgagent.analysis.doctor import findings
from sgagent.cli.inputs import hand_bindings
from sgagent.cli.main import COMMANDS, find_command
from sgagent.compiler.compilation import compile_
from sgagent.core.binding import NO_FACTS, bind
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, parse_documents
from sgagent.nft.marks import MarkLayout, first_state
from sgagent.nft.text import render
from sgagent.settings import Settings
from sgagent.settings.sources import SourceSettings
from sgagent.sources.etcd.host_reports import HostReport
from sgagent.sources.files.reader import is_document_name

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FILE = re.compile(r"`((?:bench|examples|integration|release|script|sgagent|tests)/[\w./-]+)`")
TEST = re.compile(r"`((?:tests|integration)/[\w/]+\.py)`(?: ((?:`\w+`(?:, )?)+))?")
CODE = re.compile(
    r'(?:\.(?:error|warn)|MalformedError|SignatureFaultError|Fault|refusal|invalid)\(\s*"([a-z_0-9]+)"'
    r'|(?:code=|Problem\.(?:error|warning)\([^"()]*)"([a-z_0-9]+)"'
)
CORE_CODE = re.compile(r'(?:_error|_warn|_refuse)\([^"]*"([a-z_]+)"')
SHOWN = re.compile(r"<!-- from (.+?), (\S+=\S*) -->\n```nft\n(.*?)```", re.DOTALL)
OBJECT = re.compile(r"^\t(?:chain|map|counter) .*?^\t\}\n", re.DOTALL | re.MULTILINE)


def documents() -> list[Path]:
    """Return every document of the repository."""
    names = ("docs", "monitoring", "bench", "examples", "integration", "container", "vagrant", "ansible")
    folders = [ROOT / name for name in names]
    return [*sorted(ROOT.glob("*.md")), *(path for one in folders for path in sorted(one.rglob("*.md")))]


def read(name: str) -> str:
    """Return a document."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """What a document links to inside the repository is there."""
    targets = {link.partition("#")[0] for link in LINK.findall(path.read_text(encoding="utf-8"))}
    inside = {target for target in targets if target and "://" not in target}
    assert [target for target in sorted(inside) if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_anchors_lead_to_headings(path: Path) -> None:
    """An anchor in a link is one of a heading, in this document or in the other."""
    links = (link.partition("#") for link in LINK.findall(path.read_text(encoding="utf-8")))
    missing = [
        f"{target}#{anchor}"
        for target, _, anchor in links
        if anchor
        and "://" not in target
        and anchor not in _anchors_of(path.parent / target if target else path)
    ]
    assert missing == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    """What a document names by its path in the repository is there; the changelog may name what was."""
    named = set(FILE.findall(path.read_text(encoding="utf-8"))) if path.name != "CHANGELOG.md" else set()
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def _anchors_of(path: Path) -> set[str]:
    """Return the anchors that headings have, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=_WHOLE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


TABLE = re.compile(r"(?<!\|)\n\n?(\|[^\n]*\n[^\n]*)")
"""The first two lines of a table."""


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_table_has_a_head(path: Path) -> None:
    """A line of dashes is below its first line: an empty line within a table would end it."""
    heads = TABLE.findall(re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL))
    assert [head for head in heads if not re.search(r"\n\|[-:| ]+\|$", head)] == []


def test_every_document_is_in_the_index() -> None:
    """docs/README.md links to each document and recipe, and the site's navigation has it."""
    index, navigation = read("docs/README.md"), read("mkdocs.yml")
    paths = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/recipes").glob("*.md")]
    names = [str(path.relative_to(ROOT / "docs")) for path in paths if path.name != "README.md"]
    assert [name for name in names if f": {name}" not in navigation] == []
    assert [name for name in names if f"({name})" not in index] == []


def options_of(command: str) -> set[str]:
    """Return the options of a command as it declares them."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments, _ = find_command(command)
    add_arguments(parser)
    return {text for action in parser._actions for text in action.option_strings}  # noqa: SLF001 - argparse tells them nowhere else


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented_and_every_documented_option_exists(command: str) -> None:
    """In docs/commands.md the section of a command and the table of shared options name its options alone."""
    text = read("docs/commands.md")
    sections = dict(re.findall(r"^## `sgagent (\w+)`\n(.*?)(?=^## |\Z)", text, _WHOLE))
    assert command in sections, f"docs/commands.md has no section on sgagent {command}"
    documented = {*OPTION.findall(sections[command]), *shared_options(text, command)}
    assert documented - _OF_OTHER_PROGRAMS == options_of(command)


def shared_options(text: str, command: str) -> set[str]:
    """Return the options of a command that the table of shared options has."""
    table = text.partition("| option | meaning | of |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(--[a-z][a-z-]+)[^|]* \| .* \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) == len(table.splitlines()) - 1
    return {option for option, of in rows if (f"`{command}`" in of) is not of.startswith("all")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_prints_a_result_has_json(command: str) -> None:
    """All but the daemon, which prints none."""
    assert ("--json" in options_of(command)) is (command != "run")


_SUFFIXES = {".yaml", ".yml", ".json", ".conf", ".toml", ".txt"}
_WHOLE = re.DOTALL | re.MULTILINE
_OF_OTHER_PROGRAMS = {"--check", "--config"}
"""Options of nft, and the one of every command."""


def codes_outside_documents() -> Iterator[str]:
    """Return the codes of problems that resolving, binding, reading files or the configuration finds."""
    folders = (ROOT / "sgagent/settings", ROOT / "sgagent/sources")
    for path in (ROOT / "sgagent/signatures.py", *chain.from_iterable(one.rglob("*.py") for one in folders)):
        yield from (one or other for one, other in CODE.findall(path.read_text(encoding="utf-8")))
    for name in ("resolve", "binding"):
        text = read(f"sgagent/core/{name}.py")
        yield from CORE_CODE.findall(text)
        yield from re.findall(r'code="([a-z_]+)"', text)


def test_codes_of_meaning_are_documented() -> None:
    """docs/documents.md and docs/configuration.md name the codes that no reader of documents makes."""
    documented = set(re.findall(r"`([a-z_]+)`", read("docs/documents.md") + read("docs/configuration.md")))
    codes = set(codes_outside_documents())
    assert {"mixed_group_types", "port_of_master", "not_a_file", "bad_mask"} <= codes
    assert codes <= documented


def test_every_documented_code_exists() -> None:
    """Each code that docs/documents.md lists in a table stands in the sources."""
    listed = set(re.findall(r"^\| `([a-z_]+)`(?:, `([a-z_]+)`)? \|", _codes_part(), re.MULTILINE))
    codes = {code for pair in listed for code in pair if code}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sgagent").rglob("*.py"))
    assert len(codes) > 30
    assert [code for code in sorted(codes) if f'"{code}"' not in sources and not _is_made(code)] == []


def _codes_part() -> str:
    return read("docs/documents.md").partition("## Codes")[2]


def _is_made(code: str) -> bool:
    """Tell whether a code is put together: ``many_groups`` and ``many_rules`` are."""
    return code in {"many_groups", "many_rules"}


def test_every_key_of_the_configuration_is_documented() -> None:
    """docs/configuration.md names each key that the settings have, and the keys of their tables."""
    text = read("docs/configuration.md")
    settings = Settings()
    names = (field.name for field in dataclasses.fields(settings) if field.name != "source")
    tables = [name for name in names if dataclasses.is_dataclass(getattr(settings, name))]
    assert {"signature", "verify"} <= set(tables)
    for table in tables:
        section = text.partition(f"## `[{table}]`")[2].partition("\n## ")[0]
        keys = {field.name for field in dataclasses.fields(getattr(settings, table))}
        assert keys_in(section) == keys - _NOT_OF_THE_CONFIGURATION


@pytest.mark.parametrize("kind", get_args(SourceSettings), ids=lambda kind: str(kind.__name__))
def test_every_key_of_each_source_is_documented(kind: type[SourceSettings]) -> None:
    """docs/configuration.md has a part for each type of source with its keys, and no others."""
    sources = read("docs/configuration.md").partition("## `[source]`")[2].partition("\n## ")[0]
    name = kind.__name__.removesuffix("SourceSettings").lower()
    section = sources.partition(f'### `type = "{name}"`')[2].partition("\n### ")[0]
    assert keys_in(section) == {field.name for field in dataclasses.fields(kind)}


def keys_in(section: str) -> set[str]:
    """Return the keys that the tables of a section name."""
    return set(re.findall(r"^\| `([a-z0-9_]+)` \|", section, re.MULTILINE))


def test_every_field_of_the_control_protocol_is_documented() -> None:
    """docs/control.md names each field of questions, orders and answers."""
    documented = set(re.findall(r"`([a-z_]+)`", read("docs/control.md")))
    modules = (requests, hits, findings)
    names = {module.__name__ for module in (*modules, manual_override, lockout_hold)}
    values = (value for module in modules for value in vars(module).values())
    here = [value for value in values if getattr(value, "__module__", "") in names]
    carried = [value for value in here if dataclasses.is_dataclass(value)]
    fields = {field.name for value in carried for field in dataclasses.fields(value)}
    assert len(fields) > 50
    assert sorted(fields - documented) == []


def test_every_question_of_the_control_protocol_is_documented() -> None:
    """The table of docs/control.md has the word of each question and order, and no others."""
    table = read("docs/control.md").partition("| `question` | fields |\n")[2].partition("\n\n")[0]
    words = (row.split("|")[1] for row in table.splitlines())
    assert set(re.findall(r"`([a-z]+)`", "".join(words))) == set(requests.KINDS)


_NOT_OF_THE_CONFIGURATION = {"nodes", "problems", "is_asked_for"}
"""Limits that follow from others, and whether a table is there."""


def test_the_names_of_documents_are_documented() -> None:
    """docs/documents.md says which files of a directory are read."""
    suffixes = re.findall(r"`\*(\.\w+)`", read("docs/documents.md").partition("A directory is")[2])
    assert set(suffixes) == {suffix for suffix in _SUFFIXES if is_document_name(f"web{suffix}")}


def test_every_standing_of_a_host_is_documented() -> None:
    """docs/etcd.md names them as ``sgagent fleet status`` sorts them."""
    named = re.findall(r"`([a-z]+)`", read("docs/etcd.md").partition("sorts by standing")[2])
    assert named[: len(HostReport)] == [standing.value for standing in HostReport]


def test_the_tests_that_the_design_names_exist() -> None:
    """A promise in docs/design.md names the tests that hold it; they are there."""
    named = TEST.findall(read("docs/design.md"))
    assert len(named) > 15
    missing = [
        f"{path}: {test}"
        for path, tests in named
        for test in re.findall(r"\w+", tests) or [""]
        if test not in {*_tests_in(ROOT / path), ""} or not (ROOT / path).exists()
    ]
    assert missing == []


def _tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_way_of_a_rule_names_what_there_is() -> None:
    """Each stop is a module, and each name beside it is defined."""
    way = read("docs/design.md").partition("## The way of a rule")[2].partition("## Structure")[0]
    modules = re.findall(r"`([a-z_]+/[a-z_/]+)`", way)
    assert len(modules) > 10
    sources = {module: ROOT / f"sgagent/{module}.py" for module in modules}
    assert [module for module, path in sources.items() if not path.is_file()] == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "sgagent").rglob("*.py"))
    names = re.findall(r"`(?:[A-Za-z]+\.)?([A-Za-z_]+)`", way)
    assert [name for name in names if not re.search(rf"(?:class|def) {name}\b", code)] == []


def test_the_glossary_is_short() -> None:
    """Who begins can read it; a word more needs one that goes."""
    assert 0 < read("docs/glossary.md").count("\n- **") <= 30


def test_the_tables_that_are_read_aloud_are_what_is_compiled() -> None:
    """Each chain and map that docs/ruleset.md shows stands in the compiled table, letter by letter."""
    shown = SHOWN.findall(read("docs/ruleset.md"))
    assert len(shown) > 10
    for origin, binding, block in shown:
        table = compiled(origin, binding)
        objects = OBJECT.findall(block)
        assert objects
        assert [text for text in objects if text not in table] == []


def test_what_a_reader_pastes_has_no_prompt() -> None:
    """Each block of shell in the quick start and the recipes holds commands alone."""
    pages = [ROOT / "docs/quick-start.md", *sorted((ROOT / "docs/recipes").glob("*.md"))]
    pasted = {page: blocks(page.read_text(encoding="utf-8"), "sh") for page in pages}
    assert len(pasted[pages[0]]) > 5
    lines = [line for found in pasted.values() for block in found for line in block.splitlines()]
    assert [line for line in lines if re.match(r"[#$>] |.*\bip netns\b", line)] == []
    assert [page for page in pages if "```console" in page.read_text(encoding="utf-8")] == []


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def compiled(origin: str, binding: str) -> str:
    """Return the table that documents come to: those of an example, or those that docs/ruleset.md shows."""
    if origin.startswith("examples/"):
        paths = sorted((ROOT / origin / "groups.d").iterdir())
        files = [DocumentFile(path.name, path.read_bytes()) for path in paths]
    else:
        (text,) = blocks(read("docs/ruleset.md"), "yaml")
        files = [DocumentFile("shown.yaml", text.encode())]
    settings = Settings()
    snapshot, _ = parse_documents(files, settings.limits)
    bound = bind(snapshot, hand_bindings([binding]), NO_FACTS, automatically=False)
    policy = resolve(snapshot, bound, Exemptions(platform=settings.platform)).policy
    layout = MarkLayout(settings.enforcement.mark_mask)
    state = first_state([interface.name for interface in policy.interfaces], layout)
    return render(compile_(policy, layout, state).ruleset, persist=True)
