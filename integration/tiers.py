"""The three machines of the three-tier example on one bridge, as ``vagrant/provision.sh`` makes them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from integration.machine import Machine, machine_in
from integration.namespaces import CommandError, Namespace, network_namespace
from integration.package import EARLIER, INSTALLATION_SECONDS, ROOT, built

FOLDER = "/sgagent"
"""Where the machines have the repository, as in the Vagrantfile."""

CUSTOMER, CUSTOMER6 = "198.51.100.23", "2001:db8:23::1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A machine's name, and the network interface that the documents give it."""

    name: str
    mac: str
    addresses: tuple[str, ...]


TIERS = (
    Tier(name="web", mac="00:16:3e:00:10:01", addresses=("10.1.0.11", "10.1.0.12", "2001:db8:1::11")),
    Tier(name="app", mac="00:16:3e:00:10:02", addresses=("10.1.0.21", "2001:db8:1::21")),
    Tier(name="database", mac="00:16:3e:00:10:04", addresses=("10.1.0.31", "10.1.0.32", "2001:db8:1::31")),
)


@dataclass(frozen=True, slots=True)
class Town:
    """The machines, and a customer on the same wire."""

    machines: dict[str, Machine]
    customer: Namespace

    def provision(self, tier: Tier) -> str:
        """Run the script that vagrant runs, and return its output."""
        script = f"{FOLDER}/vagrant/provision.sh"
        return self.machines[tier.name].run(script, tier.name, seconds=INSTALLATION_SECONDS)

    def reaches(self, source: str, address: str, port: int) -> bool:
        """Tell whether a connection is made from a tier, or from the customer."""
        try:
            if source == "customer":
                self.customer.run(str(ROOT / "vagrant" / "reach.sh"), address, str(port))
            else:
                self.machines[source].run(f"{FOLDER}/vagrant/reach.sh", address, str(port))
        except CommandError as error:
            if error.status == 1:
                return False
            raise
        return True


@contextlib.contextmanager
def town() -> Iterator[Town]:
    """Boot the machines with an empty root, and the repository as vagrant would bring it."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(network_namespace("switch"))
        switch.ip("link add br0 type bridge", "link set br0 up")
        customer = stack.enter_context(plugged_in(switch, "customer", "02:00:00:00:02:00"))
        customer.ip(f"address add {CUSTOMER}/32 dev eth0", "route add 10.1.0.0/24 dev eth0")
        customer.ip(
            f"address add {CUSTOMER6}/128 dev eth0 nodad", "route add 2001:db8:1::/64 dev eth0", version=6
        )
        machines = {tier.name: stack.enter_context(_machine(switch, tier)) for tier in TIERS}
        for machine in machines.values():
            machine.boot()  # in this thread: a machine ends with the one that booted it
        yield Town(machines, customer)


@contextlib.contextmanager
def _machine(switch: Namespace, tier: Tier) -> Iterator[Machine]:
    with plugged_in(switch, tier.name, tier.mac) as network, machine_in(network, is_bare=True) as machine:
        for address in tier.addresses:
            version = 6 if ":" in address else 4
            network.ip(
                f"address add {address}/{64 if version == 6 else 24} dev eth0" + " nodad" * (version == 6)
            )
        network.ip("route add 198.51.100.0/24 dev eth0")
        network.ip("route add 2001:db8:23::/64 dev eth0", version=6)
        for folder in ("examples", "vagrant"):
            shutil.copytree(ROOT / folder, machine.path(f"{FOLDER}/{folder}"))
        machine.path(f"{FOLDER}/dist").mkdir()
        for package in (built(EARLIER), built()):
            shutil.copy(package, machine.path(f"{FOLDER}/dist"))
        yield machine


@contextlib.contextmanager
def plugged_in(switch: Namespace, name: str, mac: str) -> Iterator[Namespace]:
    """Make a namespace whose ``eth0`` is plugged into the switch."""
    with network_namespace(name) as made:
        switch.ip(
            f"link add {name} type veth peer name eth0 netns {made.name} address {mac}",
            f"link set {name} master br0 up",
        )
        made.ip("link set eth0 up")
        yield made
