"""Hold the repository to its own rules where no tool does it."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sgagent

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("sgagent", "ansible", "tests", "integration", "bench", "release", "script")
PACKAGING_FOLDERS = ("systemd", "debian", "container", "vagrant")
TEXT_FOLDERS = (*CODE_FOLDERS, *PACKAGING_FOLDERS, "docs", "examples", "monitoring", ".ci")
TEXT_SUFFIXES = {"", ".conf", ".json", ".md", ".nft", ".py", ".service", ".sh", ".toml", ".yaml", ".yml"}

EXCEPTION_WITH_REASON = {
    "noqa": re.compile(r"# noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*[\s#–-]+\w"),
    "type: ignore": re.compile(r"# type: ignore\[[\w-]+(, [\w-]+)*\][\s#–-]+\w"),
    "pragma: no cover": re.compile(r"# pragma: no cover[\s#–-]+\w"),
    "pragma: no branch": re.compile(r"# pragma: no branch[\s#–-]+\w"),
}
"""How each exception from a tool's rule is written when it says why."""

EMPTY_WORDS = {"common", "data", "helper", "helpers", "info", "manager", "misc", "process", "util", "utils"}
"""Names for a module that say nothing of what is in it."""

LONGEST_MODULE = 500
"""Lines; a module of twice the usual length wants to be two."""

NAMED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "8.8.8.8/32",  # the stranger of semantics §11
        "11.0.0.0/8",  # the neighbour of 10.0.0.0/8, as there
        "161.116.0.0/14",  # the workbench's public range, §10, and what borders on it
        "100.64.0.0/10",  # shared address space: metadata, health checks, the workbench's private range
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
)
"""What may be written down beside private and other special addresses."""


def test_the_installed_version_is_the_one_that_the_code_says() -> None:
    """The package's metadata and ``sgagent.__version__`` agree."""
    assert importlib.metadata.version("sgagent") == sgagent.__version__


def test_the_collection_has_the_version_of_the_code() -> None:
    """One release has both."""
    assert f"version: {sgagent.__version__}\n" in read("ansible/galaxy.yml")


def test_the_changelog_knows_the_version() -> None:
    """What comes next has a heading; after the first release the version of the code has one too."""
    headings = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert sgagent.__version__ in headings[1:] or headings == ["Unreleased"]


@pytest.mark.parametrize("mark", sorted(EXCEPTION_WITH_REASON))
def test_every_exception_from_a_rule_says_why(mark: str) -> None:
    """Wherever a tool is told to look away, the same line says why."""
    unexplained = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in code_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if f"# {mark}" in line and not EXCEPTION_WITH_REASON[mark].search(line)
    ]
    assert unexplained == []


def test_every_ignored_lint_rule_says_why() -> None:
    """Each rule that pyproject.toml ignores has a comment beside it."""
    lines = read("pyproject.toml").splitlines()
    ignored = [line for line in lines if re.match(r'\s+"[A-Z]+[0-9]+",', line)]
    assert len(ignored) > 5
    assert [line for line in ignored if not re.search(r"# \w", line)] == []


def test_modules_are_named_for_what_they_hold() -> None:
    """No module has a name under which anything could stand."""
    assert [str(path) for path in code_files() if EMPTY_WORDS & set(path.stem.split("_"))] == []


def test_modules_stay_short() -> None:
    """No module of the product grows beyond what one reads in a sitting."""
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in files_in("sgagent", {".py"})
    }
    assert {str(path): length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """Nothing refers to a folder that only the machine of its author has."""
    assert found(re.compile(r"(?<![\w.>-])/(work|home|Users)/\w+")) == []


def test_no_file_speaks_of_a_strangers_address() -> None:
    """Every IPv4 address written down is private, special, for documentation, or the specification's."""
    quad = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]|-)")
    assert [place for place in found(quad) if is_strangers(place.rsplit(" ", 1)[-1])] == []


def test_every_dependency_is_justified() -> None:
    """docs/dependencies.md has a line for each package that the product or its tools need."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    optional = [line for lines in project["optional-dependencies"].values() for line in lines]
    names = {re.split(r"[<>=]", line)[0] for line in [*project["dependencies"], *optional]}
    text = read("docs/dependencies.md")
    assert {name for name in names if f"| {name} |" not in text} == set()


def test_every_package_that_setup_installs_is_documented() -> None:
    """docs/dependencies.md names each Debian package that a script may install."""
    scripts = read("script/setup") + read("script/package") + read("script/repository")
    lists = re.findall(r"^readonly (?!ARCH)\w+=\((.*?)\)", scripts, flags=re.DOTALL | re.MULTILINE)
    packages = " ".join(lists).split()
    assert {"python3-nftables", "systemd-container", "debhelper"} <= set(packages)
    text = read("docs/dependencies.md")
    assert [package for package in packages if f"`{package}`" not in text] == []


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    """The decisions count from 1, and the list of them links to every one."""
    names = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in names] == list(range(len(names)))
    text = read("docs/adr/README.md")
    assert [name for name in names if f"({name})" not in text] == []


def read(name: str) -> str:
    """Return a file of the repository as text."""
    return (ROOT / name).read_text(encoding="utf-8")


def code_files() -> Iterator[Path]:
    """Yield every Python file of the repository."""
    for folder in CODE_FOLDERS:
        yield from files_in(folder, {".py"})


def text_files() -> Iterator[Path]:
    """Yield every file of the repository that was written by a person."""
    for path in sorted(ROOT.iterdir()):
        # Git writes a file of this name into a linked work tree.
        if path.is_file() and path.suffix in TEXT_SUFFIXES and path.name != ".git":
            yield path
    for folder in TEXT_FOLDERS:
        yield from files_in(folder, TEXT_SUFFIXES)


def files_in(folder: str, suffixes: set[str]) -> Iterator[Path]:
    """Yield the files below a folder that have one of the suffixes, in a fixed order."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts:
            yield path


def found(pattern: re.Pattern[str]) -> list[str]:
    """Return where a pattern occurs, as ``file:line: what``."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in text_files()
        if path.name != "LICENSE"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for match in pattern.finditer(line)
    ]


def is_strangers(text: str) -> bool:
    """Tell whether a text is an address that belongs to somebody whom the specification doesn't name."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address.is_global and not any(address in network for network in NAMED_NETWORKS)
