"""Tell the shop's story: ``python -m integration.shopstory`` goes from nothing to enforcing on three hosts.

``--write`` puts it into examples/shop/README.md too. Machines for the three tiers are booted without sgagent,
and the steps of docs/quick-start.md are typed on each, with the shop's documents in place of those of
``sgagent init``. Who reaches whom is tried before and afterwards; where it is not as the story says, it ends.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from integration.fleetstory import listening, markdown
from integration.lab import LabError, wait_for
from integration.machine import Machine, machine_in
from integration.namespaces import CommandError, Namespace, network_namespace
from integration.package import INSTALLATION_SECONDS, ROOT, built
from integration.story import Chapter, Chapters, tell_whole
from integration.tiers import plugged_in

DOCUMENT = ROOT / "examples" / "shop" / "README.md"
PART = "shop"
NETWORK, NETWORK6 = "10.20.0.0/16", "2001:db8:20::/64"
MACHINES = {
    "web": ("10.20.1.11", "2001:db8:20::1:11"),
    "app": ("10.20.2.11", "2001:db8:20::2:11"),
    "database": ("10.20.3.11", "2001:db8:20::3:11"),
}
OTHERS = {
    "bastion": ("10.20.0.5", "2001:db8:20::5"),
    "mirror": ("10.20.0.80", "2001:db8:20::80"),
    "office": ("203.0.113.20", "2001:db8:113::20"),
    "customer": ("198.51.100.23", "2001:db8:23::1"),
}
ADDRESSES = MACHINES | OTHERS
Flow: TypeAlias = tuple[str, str, int]
ALLOWED: tuple[Flow, ...] = (
    ("customer", "web", 443),
    ("web", "app", 8080),
    ("app", "database", 5432),
    ("bastion", "web", 22),
    ("bastion", "app", 22),
    ("bastion", "database", 22),
    ("database", "mirror", 443),
)
FORBIDDEN: tuple[Flow, ...] = (
    ("customer", "web", 22),
    ("customer", "app", 8080),
    ("customer", "database", 5432),
    ("office", "database", 22),
    ("web", "database", 5432),
    ("database", "app", 8080),
    ("web", "customer", 443),
)
STEPS = (
    "apt-get install --yes --quiet=2 ./sgagent_*_all.deb",
    "cp shop/*.yaml /etc/sgagent/groups.d/ && systemctl reload sgagent",
    "sgagent check",
)
"""What is typed on each machine until it observes."""

ENFORCEMENT = ("sgagent mode enforce --confirm-within 2m",)
KEPT = ("sgagent confirm",)
TRIES = 3


@dataclass(slots=True)
class Shop(Chapters):
    """The machines, everybody else on the same wire, and the lines of the story."""

    machines: dict[str, Machine]
    networks: dict[str, Namespace]
    lines_typed: int = 0

    def type_everywhere(self, commands: Sequence[str], shown: str) -> None:
        """Type commands on each machine at once, and show the output of one of them.

        Raises:
            LabError: one failed.
        """
        with ThreadPoolExecutor() as pool:
            printed = list(pool.map(lambda name: self._type(name, commands), self.machines))
        self.lines_typed += len(commands) * len(self.machines)
        self._show(shown, dict(zip(self.machines, printed, strict=True))[shown])

    def type(self, name: str, command: str) -> None:
        """Type a command on one machine, and show its output."""
        self.lines_typed += 1
        self._show(name, self._type(name, (command,)))

    def try_flows(self, *, is_enforced: bool) -> None:
        """Try every flow over both families, and show which pass.

        Raises:
            LabError: one passes that must not, or the reverse.
        """
        wanted = {flow: flow in ALLOWED or not is_enforced for flow in (*ALLOWED, *FORBIDDEN)}
        with ThreadPoolExecutor(len(wanted)) as pool:
            seen = dict(
                zip(wanted, pool.map(lambda flow: self._is_open(flow, wanted[flow]), wanted), strict=True)
            )
        for source in dict.fromkeys(source for source, _, _ in wanted):
            ends = {is_open: _ends(seen, source, is_open=is_open) for is_open in (True, False)}
            self.tell(f"   {source:8}  {_joined('open', ends[True])}{_joined('shut', ends[False])}".rstrip())
        if seen != wanted:
            raise LabError(f"expected {wanted}, seen {seen}")

    def _show(self, name: str, printed: Sequence[tuple[str, str]]) -> None:
        for command, text in printed:
            self.tell(f"root@{name}:~# {command}", *text.splitlines())

    def _type(self, name: str, commands: Sequence[str]) -> list[tuple[str, str]]:
        printed = []
        for command in commands:
            line = f"cd /root; exec 2>&1; export DEBIAN_FRONTEND=noninteractive; {command}"
            try:
                told = self.machines[name].run("bash", "-c", line, seconds=INSTALLATION_SECONDS)
            except CommandError as error:
                raise LabError(f"{name}: {command}: ended with {error.status}:\n{error.output}") from error
            if command.startswith("apt-get"):
                told = "".join(line for line in told.splitlines() if line.startswith("sgagent:"))
            printed.append((command, told))
        return printed

    def _is_open(self, flow: Flow, is_wanted: bool) -> bool:  # noqa: FBT001 - what is to be open is tried again
        """Return whether a connection is made, over each family alike.

        Raises:
            LabError: the families differ.
        """
        source, target, port = flow
        tries = TRIES if is_wanted else 1
        found = {
            any(self._connects(source, address, port) for _ in range(tries)) for address in ADDRESSES[target]
        }
        if len(found) != 1:
            raise LabError(f"{flow}: one family passes, and the other does not")
        return found.pop()

    def _connects(self, source: str, address: str, port: int) -> bool:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.networks[source].socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(0.5)
            try:
                client.connect((address, port))
            except TimeoutError:
                return False
            return True


def _ends(seen: Mapping[Flow, bool], source: str, *, is_open: bool) -> list[str]:
    return [
        f"{end} {port}" for (one, end, port), passes in seen.items() if one == source and passes is is_open
    ]


def _joined(word: str, ends: Sequence[str]) -> str:
    return f"{word}: {', '.join(ends)}  " if ends else ""


def main(arguments: Sequence[str]) -> int:
    """Tell the story to its end, and write it down if told to; return 1 if it went otherwise."""
    return tell_whole(arguments, "shop's", DOCUMENT, PART, lambda: markdown(tell()))


def tell() -> Sequence[Chapter]:
    """Live through all of it, and return the chapters.

    Raises:
        LabError: it went otherwise.
    """
    with _beginning() as shop:
        began = time.monotonic()
        shop.chapter("nothing is filtered")
        shop.try_flows(is_enforced=False)
        shop.chapter("install, and observe")
        shop.type_everywhere(STEPS, "web")
        shop.try_flows(is_enforced=False)
        wait_for(lambda: _is_all_noticed(shop), "the agents to have read of what would be dropped")
        shop.type("database", "sgagent denied")
        shop.chapter("enforce")
        shop.type_everywhere(ENFORCEMENT, "web")
        shop.try_flows(is_enforced=True)
        shop.type_everywhere(KEPT, "web")
        shop.type("web", "sgagent status")
        shop.try_flows(is_enforced=True)
        shop.tell(f"   {shop.lines_typed} lines, {time.monotonic() - began:.0f} seconds")
        return shop.chapters


def _is_all_noticed(shop: Shop) -> bool:
    """Return whether the database has noticed each flow to it that it would drop, over both families."""
    report = json.loads(shop.machines["database"].run("sgagent", "denied", "--json"))
    seen = {(one["source"]["address"], one["destination"]["port"]) for one in report["flows"]}
    wanted = {
        (address, port)
        for source, target, port in FORBIDDEN
        if target == "database"
        for address in ADDRESSES[source]
    }
    return wanted <= seen


@contextlib.contextmanager
def _beginning() -> Iterator[Shop]:
    """Boot the machines, with the package and the documents in root's home."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(network_namespace("switch"))
        switch.ip("link add br0 type bridge", "link set br0 up")
        networks = {}
        for number, name in enumerate(ADDRESSES):
            networks[name] = stack.enter_context(plugged_in(switch, name, f"02:00:00:00:04:{number:02x}"))
            _give_addresses(networks[name], name)
        for name, ports in {"web": (443, 22), "app": (8080, 22), "database": (5432, 22)}.items():
            for port in ports:
                stack.enter_context(listening(networks[name], port))
        for name in ("mirror", "customer"):
            stack.enter_context(listening(networks[name], 443))
        machines = {}
        for name in MACHINES:
            machine = stack.enter_context(machine_in(networks[name], is_bare=True))
            shutil.copy(built(), machine.path("/root"))
            shutil.copytree(ROOT / "examples/shop/groups.d", machine.path("/root/shop"))
            machine.write("/etc/hostname", f"{name}\n")
            machine.boot()
            machines[name] = machine
        yield Shop(machines, networks)


def _give_addresses(network: Namespace, name: str) -> None:
    """Give somebody both addresses, and routes to everybody on the wire."""
    address, address6 = ADDRESSES[name]
    network.ip(f"address add {address}/32 dev eth0", "route add default dev eth0")
    network.ip(f"address add {address6}/128 dev eth0 nodad", "route add default dev eth0", version=6)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
