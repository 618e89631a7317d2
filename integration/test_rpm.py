"""The RPM: the same files, units and scripts as the Debian package, in the places of Fedora."""

from __future__ import annotations

import bz2
import re
import shutil
from pathlib import Path

import pytest

from integration.namespaces import CommandError, run
from integration.package import ROOT, built, built_rpm, unpacked, why_not
from sgagent import __version__

POLICY = ROOT / ".cache/packages"
SELINUX_TOOLS = ("checkmodule", "m4", "make", "semodule_expand", "semodule_link", "semodule_package")
TOOLS = ("rpm", "rpmbuild", "rpmlint")
_missing = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(_reason := why_not() or ", ".join(_missing)), reason=f"no package can be built: {_reason}"
    ),
]

PLACES = (
    ("usr/lib/sgagent/sgagent/", "usr/lib/python3/dist-packages/sgagent/"),
    ("usr/share/zsh/site-functions/", "usr/share/zsh/vendor-completions/"),
)
"""Where the RPM has what the Debian package has elsewhere."""

ONLY_DEBIAN = re.compile(r"usr/lib/python3/dist-packages/sgagent-|usr/share/(doc|lintian)/")
ONLY_RPM = re.compile(r"usr/share/(doc|licenses)/")
PEDANTRY = re.compile(
    r"manpage-not-compressed|no-signature|no-packager-tag|no-group-tag|no-changelogname-tag"
    r"|files-duplicate|spelling-error|invalid-license"
)
"""What Fedora's builders add, and names of licences by SPDX, as Fedora wants them."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the RPM into a root of its own; scripts would need a whole system in it."""
    folder = tmp_path_factory.mktemp("root")
    run("rpm", f"--root={folder}", "--install", "--nodeps", "--noscripts", "--nosignature", str(built_rpm()))
    return folder


def test_the_same_files_make_the_same_package() -> None:
    """Byte by byte."""
    before = built_rpm().read_bytes()
    run(str(ROOT / "script/package"), "--rpm", "--version", __version__, seconds=300)
    assert built_rpm().read_bytes() == before


def test_it_holds_what_the_debian_package_holds(root: Path, tmp_path: Path) -> None:
    """Modules, units, the account, configuration, pages and completions have the same content."""
    debian = unpacked(built(), tmp_path)
    by_rpm = run("rpm", "--query", "--list", "--package", str(built_rpm()))
    by_dpkg = run("sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar --list', "sh", str(built()))
    ours = {name: path for name, path in files(root, by_rpm).items() if not ONLY_RPM.match(name)}
    theirs = {name: path for name, path in files(debian, by_dpkg).items() if not ONLY_DEBIAN.match(name)}
    assert set(ours) == set(theirs)
    differing = {name for name, path in ours.items() if path.read_bytes() != theirs[name].read_bytes()}
    assert {name for name in differing if not name.endswith(".gz")} == {"usr/bin/sgagent"}


_LINES = re.MULTILINE | re.DOTALL


def files(folder: Path, listed: str) -> dict[str, Path]:
    """Return the files of a package by their names in the Debian package."""
    named = {}
    for line in listed.splitlines():
        name = line.strip().removeprefix(".").removeprefix("/")
        path = folder / name
        for here, there in PLACES:
            name = there + name.removeprefix(here) if name.startswith(here) else name
        if path.is_file():
            named[name] = path
    return named


def test_what_is_installed_is_what_was_built(root: Path) -> None:
    """By rpm's own check, and the configuration is the administrator's."""
    assert run("rpm", f"--root={root}", "--verify", "--nodeps", "sgagent") == ""
    assert run("rpm", f"--root={root}", "--query", "--configfiles", "sgagent").split() == [
        "/etc/sgagent/sgagent.toml"
    ]


def test_the_program_runs_from_its_own_modules(root: Path) -> None:
    """In the place that the package gives them, and with nothing of this tree."""
    modules = str(root / "usr/lib/sgagent")
    program = (root / "usr/bin/sgagent").read_text().replace('"/usr/lib/sgagent"', repr(modules))
    assert modules in program
    told = run("/usr/bin/python3", "-I", "-", "check", str(ROOT / "examples/1-web/groups.d"), stdin=program)
    assert told == "ok: nothing wrong\n"


def test_it_depends_on_what_the_project_needs() -> None:
    """Each dependency of the project, by Fedora's name, of the version that the project needs."""
    required = run("rpm", "--query", "--requires", "--package", str(built_rpm())).splitlines()
    text = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("]")[0]
    fedora = {"prometheus-client": "prometheus_client", "dnspython": "dns"}
    floors = re.findall(r'"([\w-]+)>=([\d.]+)"', text)
    wanted = {f"python3-{fedora.get(name, name)} >= {floor}" for name, floor in floors}
    others = {"nftables >= 1.0.9", "python3-nftables >= 1.0.9", "python3 >= 3.11"}
    assert len(floors) == text.count('",')
    assert wanted | others <= set(required)


def test_its_scripts_do_what_debians_do() -> None:
    """Account, units and bytecode at an installation; the rules go at a removal, and not at an upgrade."""
    scripts = run("rpm", "--query", "--scripts", "--package", str(built_rpm()))
    parts = dict(re.findall(r"^(\w+) scriptlet[^\n]*\n(.*?)(?=^\w+ scriptlet|\Z)", scripts, _LINES))
    assert "systemd-sysusers sgagent.conf" in parts["postinstall"]
    assert "__pycache__" in parts["postinstall"]
    assert re.search(r'"\$1" -eq 0.*sgagent flush', parts["preuninstall"], re.DOTALL)
    assert re.search(r'"\$1" -ge 1.*try-restart sgagent.service', parts["postuninstall"], re.DOTALL)


def test_rpmlint_has_nothing_against_it() -> None:
    """Except the usual complaints about every package that is not built by a distribution."""
    told = run("sh", "-c", 'rpmlint "$@" || :', "sh", str(built_rpm()))
    findings = [line for line in told.splitlines() if re.search(r": [EW]: ", line)]
    assert [line for line in findings if not PEDANTRY.search(line)] == []


@pytest.mark.skipif(
    not (POLICY / "selinux-policy-default").exists() or None in map(shutil.which, SELINUX_TOOLS),
    reason="tools of SELinux are missing",
)
def test_the_selinux_module_fits_a_policy(root: Path, tmp_path: Path) -> None:
    """As the RPM brings its sources: it compiles, and Debian's policy with it breaks no assertion."""
    shutil.copytree(root / "usr/share/doc/sgagent/selinux", tmp_path, dirs_exist_ok=True)
    (tmp_path / "sgagent.if").touch()
    include = POLICY / "selinux-policy-dev/usr/share/selinux/devel/include"
    make = ("make", f"--directory={tmp_path}", f"--file={include}/Makefile", f"HEADERDIR={include}")
    base = POLICY / "selinux-policy-default/usr/share/selinux/default/base.pp.bz2"
    (tmp_path / "base.pp").write_bytes(bz2.decompress(base.read_bytes()))

    def put_together() -> None:
        run(*make, "NAME=default", "TYPE=mcs", "AWK=awk", "sgagent.pp")
        run("semodule_link", "-o", *(str(tmp_path / name) for name in ("linked", "base.pp", "sgagent.pp")))
        run("semodule_expand", str(tmp_path / "linked"), str(tmp_path / "policy"))

    put_together()
    source = tmp_path / "sgagent.te"
    source.write_text(source.read_text() + "dev_read_raw_memory(sgagent_t)\n")
    put_together()
    source.write_text(source.read_text() + "allow sgagent_t memory_device_t:chr_file write;\n")
    with pytest.raises(CommandError, match="neverallow"):
        put_together()


def test_the_selinux_module_knows_the_files_of_the_package(root: Path) -> None:
    """The program, the configuration and the folders that the unit makes, and the unit's permissions."""
    source = root / "usr/share/doc/sgagent/selinux"
    paths = re.findall(r"^(/[\w/]+)", (source / "sgagent.fc").read_text(), re.MULTILINE)
    unit = (root / "usr/lib/systemd/system/sgagent.service").read_text()
    folders = dict(re.findall(r"^(State|Logs|Runtime)Directory=(\w+)$", unit, re.MULTILINE))
    places = {"State": "/var/lib", "Logs": "/var/log", "Runtime": "/run"}
    made = {f"{places[kind]}/{name}" for kind, name in folders.items()}
    assert set(paths) == made | {"/usr/bin/sgagent", "/etc/sgagent"}
    policy = (source / "sgagent.te").read_text()
    held = re.findall(r"allow sgagent_t self:capability (\w+);", policy)
    assert re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE) == [
        f"CAP_{name.upper()}" for name in held
    ]
