"""The package: its content, Debian's objections to it, its pages and completions in their programs."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from pathlib import Path

import pytest

from integration.namespaces import run
from integration.package import ROOT, built, unpacked, why_not
from sgagent import __version__

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(bool(_reason := why_not()), reason=f"no package can be built: {_reason}"),
]

ASK_BASH = """
source /dev/stdin
complete -p sgagent
COMP_WORDS=(sgagent com) COMP_CWORD=1
_sgagent
echo "${COMPREPLY[@]}"
"""
ASK_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
read_until() {
    local text= part
    while zpty -r shell part; do text+=$part; [[ $text == *$1* ]] && { print -r -- $text; return; }; done
}
zpty -w shell "PS1=; fpath=($1 \\$fpath); autoload -U compinit; compinit -D -u; print rea''dy"
read_until ready >/dev/null
zpty -n -w shell $'sgagent compile --dry\\t; print do\\'\\'ne\\n'
read_until done
"""

DEBIAN_NAMES = {"pyyaml": "python3-yaml"}
"""The packages that Debian calls otherwise than PyPI."""

needs = {
    tool: pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
    for tool in ("lintian", "mandoc", "man", "zsh", "fish")
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the package."""
    return unpacked(built(), tmp_path_factory.mktemp("package"))


@needs["lintian"]
@pytest.mark.long
def test_debian_has_nothing_against_it() -> None:
    """No error, no warning."""
    assert run("lintian", "--allow-root", "--fail-on", "warning,error", str(built())) == ""


def test_it_holds_what_an_administrator_expects(files: Path) -> None:
    """Program, units, user, configuration, a place for documents, pages, completions and examples."""
    for name in (
        "usr/bin/sgagent",
        "usr/lib/python3/dist-packages/sgagent/cli/main.py",
        "usr/lib/sysusers.d/sgagent.conf",
        "etc/sgagent/sgagent.toml",
        "etc/sgagent/groups.d",
        "usr/share/man/man1/sgagent-run.1.gz",
        "usr/share/man/man5/sgagent.toml.5.gz",
        "usr/share/man/man5/sgagent-documents.5.gz",
        "usr/share/bash-completion/completions/sgagent",
        "usr/share/zsh/vendor-completions/_sgagent",
        "usr/share/fish/vendor_completions.d/sgagent.fish",
        "usr/share/doc/sgagent/copyright",
        "usr/share/doc/sgagent/changelog.Debian.gz",
        "usr/share/doc/sgagent/runbook.md.gz",
        "usr/share/doc/sgagent/examples/three-tier/groups.d/front.yaml",
        "usr/share/doc/sgagent/examples/monitoring/prometheus/sgagent.rules.yaml",
        "usr/share/doc/sgagent/examples/monitoring/grafana/sgagent.json",
        "usr/lib/python3/dist-packages/sgagent/agent/web/static/page.css",
        "usr/lib/python3/dist-packages/sgagent/agent/web/static/page.js",
        "usr/lib/python3/dist-packages/sgagent/agent/web/static/icon.svg",
        "usr/lib/python3/dist-packages/sgagent/agent/web/templates/page.html",
    ):
        assert (files / name).exists(), name


def test_it_holds_every_module_and_unit(files: Path) -> None:
    """Nothing of the product is left out, and nothing else is in."""
    modules = files / "usr/lib/python3/dist-packages"
    ours = {path.relative_to(ROOT) for path in (ROOT / "sgagent").rglob("*.py")}
    assert {path.relative_to(modules) for path in modules.rglob("*.py")} == ours
    for unit in (ROOT / "systemd").glob("*.service"):
        assert (files / "usr/lib/systemd/system" / unit.name).read_text() == unit.read_text()


def test_it_needs_what_the_project_needs() -> None:
    """Each dependency of the project is one of the package, by Debian's name."""
    depends = ",".join(run("dpkg-deb", "--field", str(built()), name) for name in ("Depends", "Pre-Depends"))
    names = {re.split(r"[ :|]", part.strip())[0] for part in depends.split(",")}
    text = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("]")[0]
    wanted = {DEBIAN_NAMES.get(name, f"python3-{name}") for name in re.findall(r'"([\w-]+)', text)}
    assert {"python3-nftables", "nftables"} <= names
    assert wanted <= names
    assert "python3-h2" in run("dpkg-deb", "--field", str(built()), "Recommends")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone in which one commit came after the release."""
    place = tmp_path / "clone"
    run("git", "clone", "--quiet", "--no-tags", str(ROOT), str(place))
    shutil.copytree(ROOT / "script", place / "script", dirs_exist_ok=True)
    git = ("git", "-C", str(place), "-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    run(*git, "tag", f"v{__version__}")
    run(*git, "commit", "--quiet", "--allow-empty", "--message", "docs: Go on")
    return place


def version_after_release(clone: Path) -> str:
    """Return the version that such a clone has."""
    return f"{__version__}.post1+g{run('git', '-C', str(clone), 'rev-parse', 'HEAD')[:8]}"


def test_a_commit_after_a_release_has_a_version_of_its_own(clone: Path) -> None:
    """To apt the same version is the same package, which it would not install."""
    version = version_after_release(clone)
    told = run("bash", "-c", 'cd "$1" && source script/functions.sh && version_here', "bash", str(clone))
    assert told.strip() == version
    major, minor, patch = (int(part) for part in __version__.split("."))
    for earlier, later in ((__version__, version), (version, f"{major}.{minor}.{patch + 1}")):
        run("dpkg", "--compare-versions", f"{earlier}-1", "lt", f"{later}-1")
    names = [f"sgagent_{version}-1_all.deb", built().name]
    assert run("sort", "--version-sort", stdin="\n".join(names)).splitlines()[-1] == names[0]


@pytest.mark.long
def test_a_package_has_the_version_of_its_commit(clone: Path, tmp_path: Path) -> None:
    """In its name and in the program; a build takes as long as all other tests here."""
    version = version_after_release(clone)
    package = clone / run(str(clone / "script/package"), seconds=300).strip()
    assert package.name == f"sgagent_{version}-1_all.deb"
    modules = unpacked(package, tmp_path / "files") / "usr/lib/python3/dist-packages"
    program = f"import sys; sys.path.insert(0, {str(modules)!r}); import sgagent; print(sgagent.__version__)"
    assert run("/usr/bin/python3", "-I", "-c", program).strip() == version


@needs["mandoc"]
@needs["man"]
@pytest.mark.long
def test_the_pages_are_set_without_a_warning(files: Path, tmp_path: Path) -> None:
    """By both formatters that there are."""
    packed = sorted((files / "usr/share/man").glob("man*/*.gz"))
    assert len(packed) > 10
    pages = [tmp_path / path.stem for path in packed]
    for page, path in zip(pages, packed, strict=True):
        page.write_bytes(gzip.decompress(path.read_bytes()))
    assert run("mandoc", "-T", "lint", "-W", "warning", *map(str, pages)) == ""
    setting = ("env", "LC_ALL=C.UTF-8", "MANWIDTH=100", "sh", "-c", 'man --warnings -l "$@" 2>&1 >/dev/null')
    assert run(*setting, "sh", *map(str, pages)) == ""


def test_bash_loads_its_completion(files: Path) -> None:
    """It registers itself, and completes a command."""
    script = (files / "usr/share/bash-completion/completions/sgagent").read_text()
    told = run("bash", "--norc", "-c", ASK_BASH, stdin=script)
    assert told.splitlines() == ["complete -F _sgagent sgagent", "compile"]


@needs["fish"]
def test_fish_completes(files: Path, tmp_path: Path) -> None:
    """Commands, options of a command and words for a value, and nothing of another command."""
    script = files / "usr/share/fish/vendor_completions.d/sgagent.fish"

    def offered(line: str) -> set[str]:
        asked = f"source {script}; complete -C '{line}'"
        told = run("env", f"HOME={tmp_path}", "fish", "--no-config", "-c", asked)
        return {entry.partition("\t")[0] for entry in told.splitlines()}

    assert offered("sgagent comp") == {"compile"}
    assert offered("sgagent compile --dry") == {"--dry-run"}
    assert offered("sgagent compile --output ") == {"nft", "json"}
    assert "lo=" not in offered("sgagent compile --interface ")
    assert offered("sgagent lint --disable void_drop,nev") == {"void_drop,never_reached"}
    assert offered("sgagent mode enforce o") == set()
    assert "--watch" not in offered("sgagent compile --w")


@needs["zsh"]
def test_zsh_completes(files: Path, tmp_path: Path) -> None:
    """An option of a command, at a terminal."""
    folder = files / "usr/share/zsh/vendor-completions"
    told = run("env", f"HOME={tmp_path}", "TERM=dumb", "zsh", "-f", "-c", ASK_ZSH, "zsh", str(folder))
    assert "--dry-run" in told


def test_it_is_built_without_privilege() -> None:
    """Nothing that it builds belongs to whoever built it."""
    listed = run("dpkg-deb", "--contents", str(built()))
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    assert os.access(ROOT / "script" / "package", os.X_OK)
