"""Give a peer a place: a network of the bench, and files over this machine's that are gone with it.

The peer's packages lie over this root, and above them what the peer writes, in memory. It has ``/etc`` and
``/run`` for itself, so two of them never meet, nor does any meet this machine's own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers.packages import UNPACKED
from integration.namespaces import Namespace

LIMIT_SECONDS = 120.0
"""How long one command may take; what takes longer is cut off, and said to be."""

_MOST_TOLD = 2_000
"""Characters of what a command wrote before it failed."""

_HAND = Path(__file__).with_name("hand.py")
_KEEPER = """
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
cd /mnt
mkdir upper work root
cp -a "$1/." upper
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
for each in dev proc sys; do mount --rbind "/$each" "root/$each"; done
for each in run tmp; do mount -t tmpfs tmpfs "root/$each"; done
exec chroot root /usr/bin/python3 -c "$2"
"""


class PlaceError(Exception):
    """Say that something in a place did not work, with its output."""


class TooSlowError(Exception):
    """Say that something took longer than the bench waits for."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command went."""

    status: int
    """0 if it did what it should."""

    seconds: float
    """From its start to its end."""

    kibibytes: int
    """That the largest of its processes had in memory."""

    output: str
    pid: int


class Place:
    """Where a peer lives."""

    def __init__(self, network: Namespace, hand: subprocess.Popen[str], root: Path | None) -> None:
        """Take the hand, and where its files are as they are seen from here; None has none of its own."""
        self.network = network
        self._hand = hand
        self._root = root

    def write(self, files: dict[str, str]) -> None:
        """Write files by their absolute names in the place, which has to have its own."""
        for name, text in files.items():
            path = self._path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def run(self, *argv: str, stdin: str = "", limit: float = LIMIT_SECONDS) -> Ran:
        """Run a command in the place.

        Raises:
            TooSlowError: it did not end in time.
            PlaceError: it failed.
        """
        ran = self._ask({"argv": argv, "stdin": stdin, "stays": False, "limit": limit})
        if ran.seconds >= limit:
            raise TooSlowError(f"{argv[0]} takes more than {limit:g} s")
        if ran.status:
            raise PlaceError(f"{' '.join(argv)}: exit {ran.status}\n{ran.output[-_MOST_TOLD:]}")
        return ran

    def launch(self, *argv: str) -> int:
        """Start a process that stays until the place ends, and return its id."""
        return self._ask({"argv": argv, "stdin": "", "stays": True, "limit": 0}).pid

    @property
    def log(self) -> str:
        """Return the output of the processes that stay."""
        return self._path("/tmp/launched.log").read_text(errors="replace")  # noqa: S108 - the place's own

    def _path(self, name: str) -> Path:
        if self._root is None:
            raise PlaceError("the place has no files of its own")
        return self._root / name.removeprefix("/")

    def _ask(self, asked: dict[str, object]) -> Ran:
        if self._hand.stdin is None or self._hand.stdout is None:
            raise PlaceError("the hand has no pipes")
        self._hand.stdin.write(json.dumps(asked) + "\n")
        self._hand.stdin.flush()
        line = self._hand.stdout.readline()
        if not line:
            raise PlaceError("the hand has ended")
        return Ran(**json.loads(line))


@contextlib.contextmanager
def place_in(network: Namespace, *, has_packages: bool) -> Iterator[Place]:
    """Make a place in a network, and end all that runs there with it.

    Args:
        network: of the bench.
        has_packages: whether it has the peers' packages and files of its own; else it has this machine's.
    """
    program = _HAND.read_text(encoding="utf-8")
    inside = (
        ("unshare", "--mount", "--propagation=private", "sh", "-c", _KEEPER, "sh", str(UNPACKED), program)
        if has_packages
        else (sys.executable, "-c", program)
    )
    with subprocess.Popen(
        ["nsenter", f"--net={network.path}", *inside],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as hand:
        told = hand.stdout.readline() if hand.stdout else ""
        if told.strip() != "ready":
            raise PlaceError(f"no place could be made: {told}")
        try:
            yield Place(network, hand, Path(f"/proc/{hand.pid}/root") if has_packages else None)
        finally:
            if hand.stdin:
                hand.stdin.close()
            hand.wait()
