"""The quick start as a reader pastes it: each block into a shell of a booted machine, literally."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from integration.lab import Lab, lab, wait_for
from integration.machine import Machine, machine_in, why_not
from integration.namespaces import CommandError, run
from integration.package import INSTALLATION_SECONDS, ROOT, built, why_not as why_no_package
from integration.story import without_passing
from integration.traffic import is_answered
from tests.patience import PATIENCE

HOST, HOST6 = "192.0.2.10", "2001:db8::10"
READER, MONITORING, STRANGER = "203.0.113.5", "203.0.113.9", "198.51.100.7"
SSH, WEB, OTHER = 22, 80, 9100
CLONE = "/clone"
EXPECTED_FAILURES = {"failed: sgagent status"}
"""``sgagent status`` exits with 1 where nothing is enforced."""

BLOCK = re.compile(r"^## (\d)|^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)

_REASON = why_not() or why_no_package()

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(bool(_REASON), reason=f"no machine with a package: {_REASON}"),
]


@dataclass(frozen=True, slots=True)
class Block:
    """Pasted commands, and their output on the page."""

    step: int
    commands: str
    shown: str


@dataclass(slots=True)
class Desk:
    """The machine, and others that connect to it over the network."""

    machine: Machine
    wire: Lab
    session: str
    """As ``SSH_CONNECTION`` has it."""

    def paste(self, block: Block) -> str:
        """Run a block, and return its output; a line for each command that failed is part of that."""
        line = (
            f"cd {CLONE}; export HOME=/root DEBIAN_FRONTEND=noninteractive SSH_CONNECTION='{self.session}'\n"
            f"exec 2>&1; trap 'echo \"failed: $BASH_COMMAND\"' ERR\n{block.commands}true"
        )
        return self.machine.run("bash", "-c", line, seconds=INSTALLATION_SECONDS)

    def paste_step(self, number: int) -> None:
        """Run the blocks of a step; each succeeds, and prints the page's output."""
        found = [block for block in BLOCKS if block.step == number]
        assert found
        for block in found:
            self.paste_and_compare(block)

    def paste_and_compare(self, block: Block) -> None:
        """Run a block that has to succeed, and to print the page's output."""
        printed = self.paste(block)
        failed = {line for line in printed.splitlines() if line.startswith("failed: ")}
        assert failed <= EXPECTED_FAILURES, printed
        assert not block.shown or shows(block.shown, printed), printed

    def open_to(self, source: str, *ports: int) -> set[int]:
        """Return the ports at which a connection is answered, be it by a refusal."""
        return {port for port in ports if self._is_open(source, port)}

    def wait_for_drop(self) -> None:
        """Wait until the agent has read of a drop at the port that no rule admits."""
        wait_for(lambda: f"tcp {OTHER}" in self.machine.run("sgagent", "denied"), "the drop")

    def wait_until_it_observes(self) -> None:
        """Wait until the agent follows the documents that were written."""
        said = ("sh", "-c", "sgagent status || :")
        wait_for(lambda: self.machine.run(*said).startswith("observing"), "the agent to observe")

    def wait_for_rule(self, rule_id: str) -> None:
        """Wait until the agent follows the documents that have a rule."""
        wait_for(lambda: rule_id in self.machine.run("sgagent", "hits"), "the agent to follow")

    def _is_open(self, source: str, port: int) -> bool:
        return is_answered(lambda: self.wire.connect(self.wire.peer, (source, 0), (HOST, port), seconds=0.5))

    def is_answering_pings(self) -> bool:
        """Return whether one ping is answered."""
        try:
            self.wire.peer.run("ping", "-c1", "-W1", HOST)
        except CommandError:
            return False
        return True


def blocks() -> Iterator[Block]:
    """Yield the blocks of the page in their order."""
    step = 0
    for number, commands, shown in BLOCK.findall((ROOT / "docs/quick-start.md").read_text(encoding="utf-8")):
        step = int(number or step)
        if commands:
            yield Block(step, commands, shown)


def shows(shown: str, printed: str) -> bool:
    """Return whether a text equals the output, where an ellipsis stands for any lines."""
    parts = [r"(?:.*\n)*" if line == "…" else re.escape(_masked(line)) + r"\n" for line in shown.splitlines()]
    text = "".join(f"{_masked(line)}\n" for line in printed.splitlines())
    return re.fullmatch("".join(parts), text) is not None


def _masked(line: str) -> str:
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "INSTANT", line)
    return re.sub(r"^\d\d:\d\d:\d\d", "TIME", without_passing(line))


BLOCKS = tuple(blocks())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Boot a machine with a clone of the repository, and a reader who is logged in."""
    with lab() as wire:
        wire.add_host_addresses([HOST, HOST6])
        with machine_in(wire.host, is_bare=True) as machine:
            machine.write("/etc/hostname", "web\n")
            clone_into(tmp_path / "clone")
            shutil.copytree(tmp_path / "clone", machine.path(CLONE))
            run("chown", "--recursive", "1000:1000", str(machine.path(CLONE)))  # root did not clone it
            machine.boot()
            with (
                wire.listen(wire.host, HOST, WEB),
                wire.listen(wire.host, HOST, SSH) as server,
                wire.connect(wire.peer, (READER, 0), (HOST, SSH)) as client,
                server.accept()[0],
            ):
                yield Desk(machine, wire, f"{READER} {client.getsockname()[1]} {HOST} {SSH}")


def clone_into(folder: Path) -> None:
    """Clone the repository, with its files as they are now."""
    run("git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(folder))
    names = run("git", "-C", str(ROOT), "ls-files", "-z").split("\0")
    for name in filter(lambda name: (ROOT / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def test_the_quick_start_can_be_pasted(desk: Desk) -> None:
    """Each block succeeds and prints the page's output, and the clients that it names get in.

    The package that is built there is the one that is built here, byte by byte.
    """
    assert [block.step for block in BLOCKS] == [1, 2, 3, 4, 4, 5, 5, 5, 6, 7]
    _, watch, _, enforce, keep, plan, apply, confirm, _, _ = BLOCKS
    desk.paste_step(1)
    assert desk.machine.path(f"{CLONE}/dist/{built().name}").read_bytes() == built().read_bytes()
    with desk.wire.listen(desk.wire.host, HOST, OTHER), ThreadPoolExecutor(max_workers=1) as typing:
        shorter = watch.commands.replace("10m", f"{int(10 * PATIENCE)}s")
        watching = typing.submit(desk.paste_and_compare, replace(watch, commands=shorter))
        desk.wait_until_it_observes()
        for source, port in [(STRANGER, WEB)] * 2 + [(MONITORING, OTHER)] * 3:
            assert desk.open_to(source, port) == {port}
        watching.result()
    desk.wait_for_rule("sgr-web-in-tcp-9100")
    assert desk.open_to(STRANGER, WEB, OTHER) == {WEB, OTHER}
    desk.wait_for_drop()
    desk.paste_step(3)
    soon = f"{int(2 * PATIENCE)}s"  # the mode is set by then, or it would stay
    desk.paste(replace(enforce, commands=enforce.commands.replace("2m", soon)))
    wait_for(lambda: desk.open_to(STRANGER, OTHER) == {OTHER}, "the agent to go back")
    for block in (enforce, keep):
        desk.paste_and_compare(block)
        assert desk.open_to(STRANGER, SSH, WEB) == {WEB}
        assert desk.open_to(READER, SSH, WEB) == {SSH, WEB}
        assert desk.open_to(MONITORING, SSH, OTHER) == {OTHER}
    desk.paste_and_compare(plan)
    assert not desk.is_answering_pings()
    desk.paste_and_compare(apply)
    assert desk.is_answering_pings()
    desk.paste_and_compare(confirm)
    assert desk.is_answering_pings()
    assert desk.open_to(STRANGER, OTHER) == set()
    desk.wait_for_drop()
    desk.paste_step(6)
    desk.paste_step(7)
    assert desk.open_to(STRANGER, SSH, WEB, OTHER) == {SSH, WEB, OTHER}


@pytest.mark.parametrize(
    ("shown", "printed", "is_shown"),
    (
        ("one\n…\n", "one\ntwo\nthree\n", True),
        ("…\nthree\n", "one\ntwo\nthree\n", True),
        ("one\nthree\n", "one\ntwo\nthree\n", False),
        ("…\nfour\n", "one\ntwo\nthree\n", False),
    ),
)
def test_an_ellipsis_stands_for_any_lines(shown: str, printed: str, *, is_shown: bool) -> None:
    """Nothing else may be left out."""
    assert shows(shown, printed) is is_shown
