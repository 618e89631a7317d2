"""Put a guest behind a bridge of the host, as container engines do, with ports published and a way out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from integration.lab import Lab, wait_for
from integration.namespaces import CommandError, Namespace, network_namespace

HOST_ADDRESS = "172.20.0.1"
GUEST_ADDRESS = "172.20.0.2"
HOST_ADDRESS6 = "fd20::1"
GUEST_ADDRESS6 = "fd20::2"

_NAT = """
table inet testnat {{
    chain published {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "eth0" meta nfproto ipv4 tcp dport 8080 dnat ip to {guest}:80
        iifname "eth0" meta nfproto ipv4 udp dport 5353 dnat ip to {guest}:53
    }}
    chain way_out {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" ip saddr {guest} masquerade
        oifname "eth0" ip6 saddr {guest6} masquerade
    }}
}}
"""


@contextlib.contextmanager
def guest(lab: Lab, bridge: str = "docker0") -> Iterator[Namespace]:
    """Make a guest behind a bridge; the host forwards, and translates no addresses."""
    with network_namespace("guest") as made:
        lab.host.sysctl({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
        lab.host.ip(
            f"link add {bridge} type bridge",
            f"link add port0 type veth peer name eth0 netns {made.name}",
            f"link set port0 master {bridge} up",
            f"link set {bridge} up",
            f"address add {HOST_ADDRESS}/24 dev {bridge}",
            f"address add {HOST_ADDRESS6}/64 dev {bridge} nodad",
        )
        made.ip(
            "link set eth0 up",
            f"address add {GUEST_ADDRESS}/24 dev eth0",
            f"address add {GUEST_ADDRESS6}/64 dev eth0 nodad",
        )
        made.ip(f"route add default via {HOST_ADDRESS}")
        made.ip(f"route add default via {HOST_ADDRESS6}", version=6)
        for address in (HOST_ADDRESS, HOST_ADDRESS6):
            wait_for(lambda to=address: _reaches(made, to), f"the bridge to carry what goes to {address}")  # type: ignore[misc]  # a default binds the loop's value
        yield made


def _reaches(made: Namespace, address: str) -> bool:
    """Tell whether an address answers; both ends know each other's hardware then."""
    try:
        made.run("ping", "-n", "-q", "-c", "1", "-W", "1", address)
    except CommandError:
        return False
    return True


def publish(lab: Lab) -> None:
    """Publish the guest's TCP port 80 as 8080 and UDP port 53 as 5353; hide its address on the way out."""
    lab.load(_NAT.format(guest=GUEST_ADDRESS, guest6=GUEST_ADDRESS6))
