"""Boot a kernel of Debian's cloud images, of this suite or another, and run tests of this repository on it.

The guest is a kernel and one shell script. Its root is this machine's own, read over virtiofs below an
overlay in the guest's memory: the same Python, the same libnftables, the same checkout, another kernel. It
has no disk and no network card, and whatever it writes is gone with it. It is 10 to 20 times as slow as this
machine.

``script/setup --development`` fetches this suite's kernel, ``--full`` those of others; the packages are
unpacked and never installed. Older kernels have what reads the root as modules, so they begin with an
archive in memory that has these.
"""

from __future__ import annotations

import contextlib
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from integration.lab import LabError

SLOWNESS = 10
"""By what deadlines of tests are multiplied in the guest."""

_ROOT = Path(__file__).parent.parent
_PACKAGE = "linux-image-cloud-amd64"
THIS_SUITE = _ROOT / ".cache" / "packages" / _PACKAGE
"""Where the kernel of this machine's suite is unpacked."""

_VIRTIOFSD = "/usr/libexec/virtiofsd"
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Runs a program that ends when this process does, however that ends."""

_FIRST = ("nice", "-n", "-10")
"""Where one of the guest's processors is put off while it holds a lock, the other one only spins."""

_GUEST = """#!/bin/sh
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
if [ "${{1-}}" != inside ]; then
    mount -t proc proc /proc
    modprobe --dirname {modules} overlay
    mount -t tmpfs -o mode=755 tmpfs /mnt
    cd /mnt
    mkdir upper work root
    mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
    mkdir -p root/usr/lib/modules
    mount --bind {modules}/lib/modules root/usr/lib/modules
    for mounted in proc:proc sys:sysfs dev:devtmpfs run:tmpfs; do
        mount -t "${{mounted#*:}}" "${{mounted#*:}}" "root/${{mounted%:*}}"
    done
    exec chroot root /bin/sh "$0" inside
fi
exec </dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
cd {directory}
echo "booted after $(cut -d' ' -f1 /proc/uptime) seconds"
export SGAGENT_PATIENCE={slowness} PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
{command} --junit-xml=/run/report.xml --override-ini=junit_suite_name="$(uname -r)" \\
    --override-ini=junit_family=xunit1 || :
stty -F /dev/ttyS1 raw
cat /run/report.xml >/dev/ttyS1
echo o >/proc/sysrq-trigger
exec sleep 60
"""
"""The guest's first process: an overlay over the root, the tests, their report on the second line."""

_ARCHIVE = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do
    /bin/busybox insmod /$module
done
/bin/busybox mount -t virtiofs -o ro root /root && exec /bin/busybox switch_root /root {first}
"""
"""The first process of an archive in memory: it loads modules, and goes on in the root."""

_BUSYBOX = _ROOT / ".cache" / "packages" / "busybox-static" / "usr" / "bin" / "busybox"

_KERNEL_OPTIONS = (
    *("root=root", "rootfstype=virtiofs", "ro", "console=ttyS0", "quiet", "panic=-1"),
    # A guest that nobody attacks, and whose namespaces come and go by the dozen.
    *("mitigations=off", "nokaslr", "rcupdate.rcu_expedited=1", "no_timer_check"),
)
"""Where this machine is busy, a timer may seem not to work, and the kernel would not go on."""


@dataclass(frozen=True, slots=True)
class Case:
    """How a test ended in the guest."""

    module: str
    name: str
    failure: str
    """Empty if it passed."""

    skipped: str
    """Why it was left out; empty if it was not."""

    properties: Mapping[str, str] = field(default_factory=dict)
    """What it recorded by ``record_property``."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the tests in the guest."""

    release: str
    """As ``uname -r`` says in the guest."""

    cases: tuple[Case, ...]
    console: str

    def of(self, module: str) -> tuple[Case, ...]:
        """Return the tests of a module of ``integration``."""
        return tuple(case for case in self.cases if case.module == f"integration.{module}")


def of_suite(suite: str) -> Path:
    """Return where the kernel of another suite is unpacked."""
    return _ROOT / ".cache" / "suites" / suite / _PACKAGE


def why_not(kernel: Path = THIS_SUITE) -> str:
    """Return why a kernel can't be booted here; empty if it can."""
    if platform.machine() != "x86_64":
        return f"the kernel is x86_64's, this is {platform.machine()}"
    for program in ("qemu-system-x86_64", _VIRTIOFSD, "modprobe", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not kernel.exists():
        option = "--development" if kernel == THIS_SUITE else "--full"
        return f"no kernel in {kernel.relative_to(_ROOT)}; script/setup {option} fetches it, as root"
    return ""


def release_of(kernel: Path = THIS_SUITE) -> str:
    """Return the release of a kernel, as its package names it."""
    return next(kernel.glob("usr/lib/modules/*")).name


def run_tests(
    tests: Sequence[str],
    *,
    seconds: float,
    kernel: Path = THIS_SUITE,
    environment: Mapping[str, str] | None = None,
) -> Report:
    """Boot a kernel, run tests in the guest and return the result.

    Args:
        tests: arguments for pytest, seen from the top of the repository.
        seconds: after which the guest is given up.
        kernel: where its package is unpacked.
        environment: more variables for the tests.

    Raises:
        LabError: the guest did not get to the end of the tests, or not in time.
    """
    with _temporary("guest") as place, _shared_root() as root:
        first = place / "first-process"
        first.write_text(_script(tests, kernel, environment or {}))
        first.chmod(0o755)
        console, report = place / "console", place / "report"
        started = ["-kernel", str(_image(kernel)), "-append", " ".join((*_KERNEL_OPTIONS, f"init={first}"))]
        if modules := _modules_of_root(kernel):
            started += ["-initrd", str(_archive(place / "archive", modules, first))]
        machine = (*_WITH_US, *_FIRST, "qemu-system-x86_64", *_hardware(root, (console, report)), *started)
        with _ended(subprocess.Popen(machine)) as guest:
            try:
                guest.wait(seconds)
            except subprocess.TimeoutExpired:
                raise LabError(f"the guest took over {seconds} seconds:\n{_tail(console)}") from None
        return _read(report, console)


def _image(kernel: Path) -> Path:
    """Return the kernel itself, which newer suites have beside its modules."""
    places = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
    return next(path for place in places for path in kernel.glob(place))


def _modules_of_root(kernel: Path) -> tuple[Path, ...]:
    """Return the modules that a kernel lacks to read the root, in the order in which they are loaded."""
    found: dict[Path, None] = {}
    for module in ("virtio_pci", "virtiofs"):
        command = (
            "modprobe",
            "--dirname",
            str(kernel / "usr"),
            "-S",
            release_of(kernel),
            "--show-depends",
            module,
        )
        shown = subprocess.run(
            command, capture_output=True, text=True, check=False
        )  # fails if it is built in
        lines = (line.split() for line in shown.stdout.splitlines())
        found |= {Path(words[1]): None for words in lines if words[0] == "insmod"}
    return tuple(found)


def _archive(folder: Path, modules: Sequence[Path], first: Path) -> Path:
    """Write the archive of a kernel that has to load modules before it finds its root."""
    for made in ("bin", "dev", "root"):
        (folder / made).mkdir(parents=True)
    for file in (*modules, _BUSYBOX):
        shutil.copy(file, folder / ("bin" if file == _BUSYBOX else "") / file.name)
    names = " ".join(module.name for module in modules)
    (folder / "init").write_text(_ARCHIVE.format(modules=names, first=first))
    (folder / "init").chmod(0o755)
    entries = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    archive = folder.with_suffix(".cpio")
    command = ("cpio", "--create", "--format=newc", "--quiet", "--file", str(archive))
    subprocess.run(command, input=entries, cwd=folder, text=True, check=True)
    return archive


def _script(tests: Sequence[str], kernel: Path, environment: Mapping[str, str]) -> str:
    """Return the guest's first process."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    words = ("env", *variables, sys.executable, "-m", "pytest", "--color=no", "--tb=short", "--quiet", *tests)
    return _GUEST.format(
        modules=shlex.quote(str(kernel / "usr")),
        directory=shlex.quote(str(_ROOT)),
        slowness=SLOWNESS,
        command=shlex.join(words),
    )


def _hardware(root: Path, lines: Sequence[Path]) -> Iterator[str]:
    """Yield the options for a machine with two processors, a root, and serial lines that end in files."""
    yield from ("-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "qemu64", "-smp", "2", "-m", "2G")
    yield from ("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none")
    # The root's server reads and writes the guest's memory, so that is to be shared.
    yield from ("-object", "memory-backend-memfd,id=memory,size=2G,share=on", "-numa", "node,memdev=memory")
    yield from ("-chardev", f"socket,id=root,path={root}")
    yield from ("-device", "vhost-user-fs-pci,chardev=root,tag=root")
    for line in lines:
        yield from ("-serial", f"file:{line}")


@contextlib.contextmanager
def _shared_root() -> Iterator[Path]:
    """Serve this root, to be read, at a socket that takes one guest."""
    served = ("--shared-dir=/", "--readonly", "--sandbox=none", "--no-announce-submounts", "--cache=always")
    with _temporary("root") as folder, socket.socket(socket.AF_UNIX) as listener:
        place = folder / "socket"
        listener.bind(str(place))
        listener.listen(1)
        number = listener.fileno()
        argv = (*_WITH_US, _VIRTIOFSD, f"--fd={number}", *served, "--log-level=error")
        with _ended(subprocess.Popen(argv, pass_fds=(number,))):
            yield place


@contextlib.contextmanager
def _temporary(role: str) -> Iterator[Path]:
    """Make a directory that the guest sees too: where it mounts nothing of its own."""
    with tempfile.TemporaryDirectory(prefix=f"{role}-", dir=_ROOT / ".cache") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process with the context, if it still runs."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _read(report: Path, console: Path) -> Report:
    """Return the report that the guest wrote to its second line."""
    text = report.read_text()
    if not text.rstrip().endswith("</testsuites>"):
        raise LabError(f"the guest did not get to its report:\n{_tail(console)}")
    suite = next(ET.fromstring(text).iter("testsuite"))  # noqa: S314 - the guest is ours
    cases = tuple(_case(element) for element in suite.iter("testcase"))
    return Report(suite.get("name", ""), cases, console.read_text(errors="replace"))


def _case(element: ET.Element) -> Case:
    """Return how one test ended."""
    failures = [found.text or "" for kind in ("failure", "error") for found in element.iter(kind)]
    skipped = [found.get("message", "") for found in element.iter("skipped")]
    return Case(
        module=element.get("classname", "").partition(".Test")[0],
        name=element.get("name", ""),
        failure="\n".join(failures),
        skipped="\n".join(skipped),
        properties={found.get("name", ""): found.get("value", "") for found in element.iter("property")},
    )


def _tail(console: Path) -> str:
    """Return the end of the guest's console."""
    return "\n".join(console.read_text(errors="replace").splitlines()[-40:])
