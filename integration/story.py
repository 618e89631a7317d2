"""Tell a machine's story: ``python -m integration.story`` prints an administrator's view.

``--write`` puts it into integration/story.md too.

A machine without sgagent is booted. The package is installed, a policy is tried and enforced, the agent is
killed, its rules are tampered with, a policy that locks out is given up by itself, one is rolled back, the
machine is rebooted without its documents, and in the end the package is removed. Every command is run, and
every connection from outside is tried; where one ends otherwise than the story says, the story ends there.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from integration.lab import Lab, LabError, lab, wait_for
from integration.machine import Machine, machine_in
from integration.namespaces import CommandError, remove_stale_namespaces
from integration.package import INSTALLATION_SECONDS, built
from integration.parts import with_parts

DOCUMENT = Path(__file__).parent / "story.md"
PART = "story"
HOST, ADMINISTRATOR, STRANGER = "10.0.0.11", "203.0.113.5", "198.51.100.7"
WEB, SSH = 80, 22

POLICY = """\
version: 1
security_groups:
  - security_group_id: sg-web
    type: basic
    rules:
      - rule_id: sgr-http
        direction: ingress
        policy: accept
        protocol: tcp
        port_range: 80
        authorization_object: 0.0.0.0/0
      - rule_id: sgr-ssh
        direction: ingress
        policy: accept
        protocol: tcp
        port_range: 22
        authorization_object: 203.0.113.0/24
network_interfaces:
  - network_interface_id: eni-web-1
    addresses: [10.0.0.11]
    security_group_ids: [sg-web]
"""

LISTENER = """\
[Unit]
Description=What is reached at port %i
[Service]
ExecStart=/usr/bin/python3 -m http.server --directory /usr/share/doc/nftables %i
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story."""

    title: str
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Chapters:
    """The parts of a story, in the order in which they happen."""

    chapters: list[Chapter] = field(default_factory=list, init=False)

    def chapter(self, title: str) -> None:
        """Begin a part."""
        print(f"\n── {title} " + "─" * max(0, 76 - len(title)), flush=True)
        self.chapters.append(Chapter(title))

    def tell(self, *lines: str) -> None:
        """Go on with some lines."""
        for line in lines:
            print(line, flush=True)
            self.chapters[-1].lines.append(line)


@dataclass(slots=True)
class Story(Chapters):
    """The story of a machine, and who may reach it from outside."""

    machine: Machine
    wire: Lab

    def do(self, command: str, *, status: int = 0, says: str = "") -> str:
        """Run a command on the machine as root, and show it with its output.

        Args:
            command: a line for the shell.
            status: how it has to end.
            says: what has to be in its output.

        Raises:
            LabError: it ended otherwise, or said something else.
        """
        self.tell(f"{_PROMPT}{command}")
        try:
            line = f"cd /root; exec 2>&1; {command}"
            ended, told = 0, self.machine.run("bash", "-c", line, seconds=INSTALLATION_SECONDS)
        except CommandError as error:
            ended, told = error.status, error.output
        self.tell(*(line for line in told.splitlines() if not _is_tedious(line)))
        if ended != status or says not in told:
            raise LabError(f"{command}: ended with {ended}, expected {status} and {says!r}")
        return told

    def wait(self, pattern: str) -> None:
        """Wait until the agent's status says something."""
        wait_for(lambda: pattern in self._status(), f"the agent to say {pattern!r}")

    def boot(self) -> None:
        """Switch the machine on, and wait until its servers answer who may ask them."""
        self.machine.boot()
        everything = ", ".join(str(port) for port in (WEB, SSH))
        wait_for(lambda: self._reached(ADMINISTRATOR) == everything, "the servers to answer")

    def from_outside(self, expected: str) -> None:
        """Try from outside which ports are open, and show them.

        Args:
            expected: the open ports, in the form ``stranger 80; administrator 80, 22``.

        Raises:
            LabError: it is not so.
        """
        seen = f"stranger {self._reached(STRANGER)}; administrator {self._reached(ADMINISTRATOR)}"
        self.tell(f"   open: {seen}")
        if seen != expected:
            raise LabError(f"open from outside: expected {expected}")

    def _reached(self, source: str) -> str:
        return ", ".join(str(port) for port in (WEB, SSH) if self._is_open(source, port)) or "nothing"

    def _is_open(self, source: str, port: int) -> bool:
        try:
            self.wire.connect(self.wire.peer, (source, 0), (HOST, port), seconds=0.5).close()
        except OSError:
            return False
        return True

    def _status(self) -> str:
        try:
            return self.machine.run("sgagent", "status")
        except CommandError as error:
            return error.output


def _is_tedious(line: str) -> bool:
    """Tell whether a line says only how far a package manager has come."""
    return line.startswith(
        ("(Reading database", "debconf: delaying", "Processing triggers", "Not building database")
    )


OPEN = "stranger 80, 22; administrator 80, 22"
ENFORCED = "stranger 80; administrator 80, 22"
LOCKED_OUT = "stranger 80; administrator 80"


def main(arguments: Sequence[str]) -> int:
    """Tell the story to its end, and write it down if told to; return 1 if it went otherwise."""
    return tell_whole(arguments, "machine's", DOCUMENT, PART, lambda: markdown(tell()))


def tell_whole(
    arguments: Sequence[str], whose: str, document: Path, part: str, told: Callable[[], str]
) -> int:
    """Have a story told, and write it into a part of a document if told to; return 1 if it went otherwise."""
    parser = argparse.ArgumentParser(description=f"Tell a {whose} story.")
    parser.add_argument("--write", action="store_true", help=f"put it into {document.name} too")
    options = parser.parse_args(arguments)
    remove_stale_namespaces()
    try:
        content = told()
    except LabError as error:
        print(f"\nTHE STORY ENDS HERE: {error}")
        return 1
    if options.write:
        text = document.read_text(encoding="utf-8")
        document.write_text(with_parts(text, {part: content}), encoding="utf-8")
    return 0


def tell() -> Sequence[Chapter]:
    """Live through all of it, and return the chapters.

    Raises:
        LabError: it went otherwise.
    """
    with _beginning() as story:
        for chapter in _CHAPTERS:
            chapter(story)
        return story.chapters


def markdown(chapters: Iterable[Chapter]) -> str:
    """Return a story as a part of a page, with an ellipsis for repeated lines."""
    shown: set[str] = set()
    return "\n".join(
        f"## {chapter.title.capitalize()}\n\n```console\n"
        f"{_joined(_without_repeats(chapter.lines, shown))}```\n"
        for chapter in chapters
    )


def _without_repeats(lines: Iterable[str], shown: set[str]) -> Iterator[str]:
    """Yield lines, except those of an earlier status, and the package manager's own."""
    is_status = is_left_out = False
    for line in lines:
        if line.startswith(_PROMPT) or _REMARK.match(line):
            is_status, is_known = line.endswith("sgagent status"), False
        elif is_status:
            text = _masked(line, _TIMES)
            is_known = text in shown
            shown.add(text)
        else:
            is_known = _PACKAGE_MANAGER.match(line) is not None
        if not is_known:
            yield line
        elif not is_left_out:
            yield "…"
        is_left_out = is_known


def without_passing(line: str) -> str:
    """Return a line with everything that differs from run to run masked, and blanks by number."""
    return " ".join(_masked(line, _PASSING).split())


def _masked(line: str, patterns: Iterable[tuple[str, str]]) -> str:
    for pattern, word in patterns:
        line = re.sub(pattern, word, line)
    return line


_PROMPT = "root@web:~# "
_REMARK = re.compile(r"   (open:|\()")
_PACKAGE_MANAGER = re.compile(r"(Selecting|Preparing|Unpacking|Setting up|Creat\w+|Removing|Purging) .*|$")
_TIMES = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\d+ seconds?", "SECONDS"),
    (r"process \d+|MainPID=\d+", "PROCESS"),
    (r"generation \d+", "GENERATION"),
)
_PASSING = (
    *_TIMES,
    (r"  \d+s$", "  SECONDS"),
    (r"confirm-within \d+s", "confirm-within SECONDS"),
    (r"[GU]ID \d+", "ID"),
    (r"\"timestamp\": \"[^\"]+\"", "TIMESTAMP"),
    (r"port \d{5}", "PORT"),
    (r"sha256:[0-9a-f]+", "VERSION"),
    (r"sgagent_\S+\.deb|sgagent \d[\d.]+|\(\d[\d.]+-\d\)", "RELEASE"),
)
"""What differs from run to run."""


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@contextlib.contextmanager
def _beginning() -> Iterator[Story]:
    with lab() as wire:
        wire.add_host_addresses([HOST])
        with machine_in(wire.host, is_bare=True) as machine:
            shutil.copy(built(), machine.path("/root"))
            machine.write("/etc/systemd/system/listen@.service", LISTENER)
            machine.write("/root/policy/web.yaml", POLICY)
            for port in (WEB, SSH):
                machine.enable(f"listen@{port}.service")
            story = Story(machine, wire)
            story.boot()
            yield story


def installed(story: Story) -> None:
    """Install the package: nothing changes for anybody."""
    story.chapter("install")
    story.from_outside(OPEN)
    story.do("apt-get install --yes --quiet=2 ./sgagent_*_all.deb", says="nothing is enforced until")
    story.do("sgagent status", status=1, says="nothing is enforced")
    story.from_outside(OPEN)


def tried(story: Story) -> None:
    """Check a policy before it is followed, and watch which packets it would drop."""
    story.chapter("the first policy, only observed")
    story.do("cat policy/web.yaml")
    session = story.wire.connect(story.wire.peer, (STRANGER, 0), (HOST, SSH))
    with session:
        story.do("sgagent check --definitions policy", says=STRANGER)
    story.do("cp policy/web.yaml /etc/sgagent/groups.d/ && systemctl reload sgagent")
    story.from_outside(OPEN)
    story.do("sgagent hits", says="observe mode")


def enforced(story: Story) -> None:
    """Enforce it."""
    story.chapter("enforce")
    story.do("sgagent mode enforce", says="enforce")
    story.wait("verified   proved")
    story.do("sgagent status", says="enforcing since")
    story.from_outside(ENFORCED)


def confined(story: Story) -> None:
    """Show the agent's privileges: none in the process that reads, one in the other."""
    story.chapter("what it may do")
    story.do("systemd-analyze verify sgagent.service sgagent-boot.service")
    for unit in ("sgagent.service", "sgagent-boot.service"):
        story.do(f"SYSTEMD_EMOJI=0 systemd-analyze security --threshold=15 {unit} | tail --lines=1")
    story.do(
        "for process in $(pgrep --uid sgagent); do"
        " grep --no-filename --extended-regexp 'Name|CapEff' /proc/$process/status; done"
    )


def killed(story: Story) -> None:
    """Kill the agent: its rules stand, and it comes back."""
    story.chapter("kill the agent")
    story.do("systemctl show --property=MainPID sgagent; systemctl kill --signal=KILL sgagent")
    story.from_outside(ENFORCED)
    story.wait("enforcing since")
    story.do("systemctl show --property=MainPID,NRestarts sgagent", says="NRestarts=1")
    story.from_outside(ENFORCED)


def tampered_with(story: Story) -> None:
    """Try to take the rules away, with the agent there and without."""
    story.chapter("tamper with the rules")
    story.do("nft flush ruleset; nft list tables", says="table inet sgagent")
    story.do("nft add rule inet sgagent prerouting accept", status=1, says="Operation not permitted")
    story.do(
        "systemctl stop sgagent;"
        " for way in prerouting postrouting; do nft insert rule inet sgagent $way accept; done"
    )
    story.from_outside(OPEN)
    story.do("systemctl start sgagent")
    story.from_outside(ENFORCED)
    story.do("systemctl stop sgagent; nft flush ruleset; nft list tables")
    story.from_outside(OPEN)
    story.do("systemctl start sgagent")
    story.from_outside(ENFORCED)


def locked_out(story: Story) -> None:
    """Apply a policy that locks the administrator out: unconfirmed, it is given up."""
    story.chapter("a policy that locks out, on trial")
    story.do("mkdir wrong && sed s/203.0.113.0/192.0.2.0/ policy/web.yaml >wrong/web.yaml")
    story.do("sgagent apply wrong --confirm-within 4s")
    story.from_outside(LOCKED_OUT)
    story.wait("verified   proved")
    story.do("sgagent status", says="goes back")
    wait_for(lambda: "goes back" not in story._status(), "the agent to go back")  # noqa: SLF001 - of this module
    story.from_outside(ENFORCED)
    story.do("journalctl --unit=sgagent --output=cat --grep=rolled_back | tail -n 1")


def rolled_back(story: Story) -> None:
    """Enforce a change for good, and go back from it by hand."""
    story.chapter("roll back")
    story.do("cp wrong/web.yaml /etc/sgagent/groups.d/ && systemctl reload sgagent")
    story.from_outside(LOCKED_OUT)
    story.do("sgagent history")
    story.do("sgagent rollback")
    story.from_outside(ENFORCED)
    story.wait("verified   proved")
    story.do("sgagent status")


def misled(story: Story) -> None:
    """Break a document, then lose all of them: the policy in force stays."""
    story.chapter("a broken document, and none at all")
    story.do("sed -i s/tcp/tpc/ /etc/sgagent/groups.d/web.yaml; systemctl reload sgagent", status=1)
    story.do("sgagent status", says="refused")
    story.do("mv /etc/sgagent/groups.d /root/away; systemctl reload sgagent", status=1)
    story.do("sgagent status", says="down")
    story.from_outside(ENFORCED)
    story.do("mv /root/away /etc/sgagent/groups.d; cp policy/web.yaml /etc/sgagent/groups.d/")
    story.do("systemctl reload sgagent")
    story.wait("verified   proved")
    story.do("sgagent status", says="up")


def rebooted(story: Story) -> None:
    """Lose the documents and the power: the last good policy is in force before the network."""
    story.chapter("reboot without the documents")
    story.do("rm /etc/sgagent/groups.d/web.yaml; sync")
    _cut_the_power(story)
    story.from_outside(ENFORCED)
    story.do("journalctl --boot --unit=sgagent-boot --output=cat", says="enforcing")
    story.wait("verified   proved")
    story.do("sgagent status")


def damaged(story: Story) -> None:
    """Damage the definitions kept last, too: that is named, and the ones before are enforced."""
    story.chapter("reboot with a damaged file")
    story.do("sed s/sg-web/sg-new/ policy/web.yaml >/etc/sgagent/groups.d/web.yaml; systemctl reload sgagent")
    story.do("sgagent history")
    story.do("rm /etc/sgagent/groups.d/web.yaml")
    story.do("truncate --size=300 $(ls /var/lib/sgagent/history/*.json | tail --lines=1); sync")
    _cut_the_power(story)
    story.from_outside(ENFORCED)
    story.do("journalctl --boot --unit=sgagent-boot --output=cat", says="damaged")
    story.wait("verified   proved")
    story.do("sgagent status", says="eni-web-1  sg-web")


def _cut_the_power(story: Story) -> None:
    story.tell("   (the power is cut, and comes back)")
    story.machine.power_off()
    story.boot()


def removed(story: Story) -> None:
    """Remove the package: nobody is locked out."""
    story.chapter("remove")
    story.do("apt-get purge --yes --quiet=2 sgagent", says="nothing is enforced any more")
    story.do("nft list tables; ls -A /etc/sgagent /var/lib/sgagent", status=2)
    story.from_outside(OPEN)


_CHAPTERS = (
    installed,
    tried,
    enforced,
    confined,
    killed,
    tampered_with,
    locked_out,
    rolled_back,
    misled,
    rebooted,
    damaged,
    removed,
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
