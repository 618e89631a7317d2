"""Neighbours to plant beside sgagent: those that its doctor has to name, and clean hosts without findings.

Each is planted in a host with ``eth0``, which is bound and has 10.0.0.11, and ``eth1``, which is not.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from integration import bpf, compat
from integration.namespaces import CommandError, Namespace, network_namespace

Plant = Callable[[Namespace], None]

_ETH0 = "eth0"


@contextmanager
def bare_host() -> Iterator[Namespace]:
    """Make a host with two links and addresses, and the peers at their other ends."""
    with network_namespace("host") as host, network_namespace("peer") as peer:
        for number, name in enumerate(("eth0", "eth1")):
            host.ip(
                f"link add {name} type veth peer name {name} netns {peer.name}",
                f"link set {name} up",
                f"address add 10.{number}.0.11/24 dev {name}",
            )
            peer.ip(f"link set {name} up")
        call_ip_hooks(host, is_on=False)  # on in each new namespace, once the module is loaded
        yield host


def call_ip_hooks(host: Namespace, *, is_on: bool = True) -> None:
    """Set br_netfilter's settings, where the module is loaded."""
    with host.entered():
        for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"):
            path.write_text(f"{int(is_on)}\n")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A planted neighbour, and the findings that have to name it."""

    name: str
    plant: Plant
    found: frozenset[tuple[str, str | None, str | None, str | None]]
    """Code, link, table and chain of each finding."""

    bound: tuple[str, ...] = (_ETH0,)


def nft(
    *rules: str,
    hook: str = "prerouting",
    priority: str = "-150",
    table: str = "inet other",
    policy: str = "accept",
) -> Plant:
    """Return a function that adds a base chain with rules."""
    lines = "\n".join(f"\t\t{rule}" for rule in rules)
    head = f"type filter hook {hook} priority {priority}; policy {policy};"
    return ruleset(f"table {table} {{\n\tchain here {{\n\t\t{head}\n{lines}\n\t}}\n}}\n")


def ruleset(text: str) -> Plant:
    """Return a function that loads a ruleset."""

    def plant(host: Namespace) -> None:
        host.run("nft", "-f", "-", stdin=text)  # the library would look links up outside of the namespace

    return plant


def ip(*lines: str) -> Plant:
    """Return a function that carries lines of ``ip`` out."""
    return lambda host: host.ip(*lines)


def sysctl(**values: int) -> Plant:
    """Return a function that sets settings; two underscores stand for a slash."""
    return lambda host: host.sysctl({name.replace("__", "/"): value for name, value in values.items()})


def both(*plants: Plant) -> Plant:
    """Return a function that plants several neighbours."""

    def plant(host: Namespace) -> None:
        for one in plants:
            one(host)

    return plant


def xtables(*extensions: compat.Extension, table: str = "mangle") -> Plant:
    """Return a function that adds a rule as iptables-nft does."""

    def plant(host: Namespace) -> None:
        nft(table=f"ip {table}")(host)
        compat.add_rule(host, table, "here", extensions)

    return plant


def xdp(link: str) -> Plant:
    """Return a function that attaches a program of XDP."""

    def plant(host: Namespace) -> None:
        program = bpf.load(bpf.XDP)
        bpf.attach_xdp(host, link, program)
        os.close(program)

    return plant


def tcx(link: str) -> Plant:
    """Return a function that attaches a program of tcx."""

    def plant(host: Namespace) -> None:
        program = bpf.load(bpf.CLASSIFIER)
        bpf.attach_tcx(host, link, program)
        os.close(program)

    return plant


def tc(link: str, way: str, discipline: str = "clsact") -> Plant:
    """Return a function that adds a filter at a hook of tc."""

    def plant(host: Namespace) -> None:
        host.run("tc", "qdisc", "add", "dev", link, discipline)
        host.run(
            *("tc", "filter", "add", "dev", link, way, "protocol", "ip", "prio", "5"),
            *("u32", "match", "u32", "0", "0", "classid", "1:1"),
        )

    return plant


def _one(name: str, plant: Plant, code: str, table: str = "inet other") -> Neighbour:
    return Neighbour(name, plant, frozenset({(code, _ETH0, table, "here")}))


def _of_host(name: str, plant: Plant, code: str, link: str = _ETH0) -> Neighbour:
    return Neighbour(name, plant, frozenset({(code, link, None, None)}))


WIREGUARD = """
table ip wg-quick-wg0 {
	chain preraw {
		type filter hook prerouting priority -300;
		iifname != "wg0" ip daddr 10.9.0.2 fib saddr type != local drop
	}
	chain premangle {
		type filter hook prerouting priority -150;
		meta l4proto udp meta mark set ct mark
	}
	chain postmangle {
		type filter hook postrouting priority -150;
		meta l4proto udp meta mark 51820 ct mark set meta mark
	}
}
"""
"""As wg-quick writes it."""

BRIDGE_WITH_PORT = ip(
    "link add br0 type bridge",
    "link set br0 up",
    "link set eth0 master br0",
    "address add 10.0.0.12/24 dev br0",
)

BY_MAPS_AND_WRITES = """
table inet other {
	map m { type inet_service : verdict; elements = { 53 : jump dropping }; }
	ct timeout short { protocol tcp; policy = { established : 1s }; }
	chain dropping {
		drop
	}
	chain here {
		type filter hook input priority 0
		udp dport vmap @m
	}
	chain local {
		type filter hook prerouting priority -140
		fib daddr type local numgen random mod 10 < 5 drop
	}
	chain before {
		type filter hook prerouting priority -160
		tcp dport 81 tcp dport set 82
		ct mark set tcp dport map { 22 : 0x02010000 }
	}
	chain behind {
		type filter hook postrouting priority 310
		tcp dport set 25
	}
	chain diverting {
		type filter hook prerouting priority -160
		tcp dport 83 tproxy ip to 127.0.0.1:84
		ct timeout set "short"
	}
}
table arp other {
	chain here {
		type filter hook output priority 0
		drop
	}
}
"""

FRAMES = """
table bridge other {
	chain policed {
		type filter hook output priority 0; policy drop
		ether type { ip, ip6 } accept
	}
	chain here {
		type filter hook input priority 0
		iifname "eth0" udp dport 53 drop
	}
	chain between {
		type filter hook forward priority 0; policy drop
	}
}
"""

PLANTED = (
    Neighbour(
        "filters of frames on a bound bridge",
        both(BRIDGE_WITH_PORT, ruleset(FRAMES)),
        frozenset(("other_table_drops", "br0", "bridge other", chain) for chain in ("policed", "here")),
        ("br0",),
    ),
    Neighbour(
        "maps of verdicts, writes, diversions and ARP",
        ruleset(BY_MAPS_AND_WRITES),
        frozenset(
            {
                *(("other_table_drops", _ETH0, "inet other", chain) for chain in ("dropping", "local")),
                *(("packet_writer", _ETH0, "inet other", chain) for chain in ("before", "behind")),
                ("mark_writer", _ETH0, "inet other", "before"),
                *((code, _ETH0, "inet other", "diverting") for code in ("diverter", "session_timeout")),
                ("other_table_drops", _ETH0, "arp other", "here"),
            }
        ),
    ),
    _one("a map of verdicts in a rule", nft("meta l4proto vmap { udp : drop }"), "other_table_drops"),
    _one("a mark without a mask", nft("ct mark set meta mark"), "mark_writer"),
    _one("a constant mark", nft("ct mark set 0x00410000"), "mark_writer"),
    _one("a bit of ours", nft("ct mark set ct mark | 0x00010000", hook="output"), "mark_writer"),
    _one("a mark of a map", nft("ct mark set ip saddr map { 10.0.0.99 : 1 }"), "mark_writer"),
    _one("a mark behind a link", nft('oifname "eth0" ct mark set 7', hook="postrouting"), "mark_writer"),
    _one("a mark by index", nft("iif eth0 ct mark set 7"), "mark_writer"),
    _one("a mark by a set of links", nft('iifname { "eth0", "eth9" } ct mark set 7'), "mark_writer"),
    Neighbour(
        "a mark behind a jump",
        ruleset(
            "table ip6 other {\n\tchain there {\n\t\tct mark set 7\n\t}\n\tchain here {\n\t\ttype filter hook"
            ' input priority 0\n\t\tiifname "eth*" jump there\n\t}\n}\n'
        ),
        frozenset({("mark_writer", _ETH0, "ip6 other", "there")}),
    ),
    _one("CONNMARK --save-mark", xtables(compat.connmark(mode=1)), "mark_writer", "ip mangle"),
    _one("CONNMARK --set-mark", xtables(compat.connmark(mode=0, mark=2)), "mark_writer", "ip mangle"),
    _one("several uplinks", nft("ct mark != 0 meta mark set ct mark"), "mark_reader"),
    _one("a value of the whole mark", nft("ct mark 2 accept", hook="output"), "mark_reader"),
    _one("a map by the mark", nft("meta mark set ct mark map { 1 : 2 }"), "mark_reader"),
    _one("a mask that meets ours", nft("ct mark & 0x00ff00ff == 1 accept"), "mark_reader"),
    _one("CONNMARK --restore-mark", xtables(compat.connmark(mode=2)), "mark_reader", "ip mangle"),
    _one("-m connmark", xtables(compat.matches_connmark(1, 0xFFFFFFFF)), "mark_reader", "ip mangle"),
    Neighbour(
        "wg-quick",
        ruleset(WIREGUARD),
        frozenset(
            {
                ("mark_writer", _ETH0, "ip wg-quick-wg0", "postmangle"),
                ("mark_reader", _ETH0, "ip wg-quick-wg0", "premangle"),
            }
        ),
    ),
    _one("a zone", nft("ct zone set 7", priority="-300"), "conntrack_zone"),
    _one("a zone of one direction", nft("ct original zone set 7", priority="-300"), "conntrack_zone"),
    _one("CT --zone", xtables(compat.ct(zone=7), table="raw"), "conntrack_zone", "ip raw"),
    _one("notrack", nft("udp dport 53 notrack", priority="-300"), "notrack"),
    _one("notrack of answers", nft("udp sport 53 notrack", hook="output", priority="-300"), "notrack"),
    _one("CT --notrack", xtables(compat.ct(is_notrack=True), table="raw"), "notrack", "ip raw"),
    _one(
        "SYNPROXY",
        nft("tcp dport 80 ct state invalid,untracked synproxy mss 1460 wscale 7", hook="input", priority="0"),
        "invalid_by_design",
    ),
    _of_host(
        "two default routes",
        ip("route add default via 10.0.0.1", "route add default via 10.1.0.1 metric 100"),
        "invalid_by_design",
    ),
    _of_host(
        "a default route of two ways",
        ip("route add default nexthop via 10.0.0.1 nexthop via 10.1.0.1"),
        "invalid_by_design",
    ),
    _of_host(
        "two default routes and strict rp_filter",
        both(
            ip("route add default via 10.0.0.1", "route add default via 10.1.0.1 metric 100"),
            sysctl(net__ipv4__conf__eth0__rp_filter=1),
        ),
        "reverse_path",
    ),
    Neighbour(
        "a rule that drops by the way back",
        both(
            lambda host: host.ip(
                *(f"route add default dev eth{n} metric {n + 1}" for n in (0, 1)), version=6
            ),
            nft("meta nfproto ipv6 fib saddr . mark . iif oif missing drop", priority="-290"),
        ),
        frozenset({("reverse_path", _ETH0, "inet other", "here"), ("invalid_by_design", _ETH0, None, None)}),
    ),
    _of_host(
        "routes by mark and strict rp_filter",
        both(ip("rule add fwmark 2 table 2"), sysctl(net__ipv4__conf__eth0__rp_filter=1)),
        "reverse_path",
    ),
    _of_host(
        "routes and rules that refuse",
        ip("route add blackhole 10.0.0.128/25", "rule add pref 5 prohibit from 10.0.0.2"),
        "refusing_route",
    ),
    _of_host("XDP", xdp("eth0"), "early_program"),
    Neighbour(
        "XDP at a port of a bound bridge",
        both(BRIDGE_WITH_PORT, xdp("eth0")),
        frozenset({("early_program", "br0", None, None)}),
        ("br0",),
    ),
    _of_host("tc ingress", tc("eth0", "ingress"), "early_program"),
    _of_host("tc egress", tc("eth0", "egress"), "early_program"),
    _of_host("tc at the ingress discipline", tc("eth0", "ingress", "ingress"), "early_program"),
    _of_host("tcx", tcx("eth0"), "early_program"),
    _one(
        "a forward at a link",
        nft('fwd to "eth1"', hook='ingress device "eth0"', table="netdev other", priority="0"),
        "early_program",
        "netdev other",
    ),
    _one("policy drop inwards", nft(hook="input", priority="0", policy="drop"), "other_table_drops"),
    _one("policy drop outwards", nft(hook="output", priority="0", policy="drop"), "other_table_drops"),
    _one("a reject of the rest", nft("tcp dport 22 accept", "reject", hook="input"), "other_table_drops"),
    _one("a drop of a port", nft("tcp dport 80 drop", hook="input"), "other_table_drops"),
    _one("a drop of a link", nft('iifname "eth0" drop'), "other_table_drops"),
    _one("a drop of new sessions", nft("ct state new tcp dport 80 drop", hook="input"), "other_table_drops"),
    _one("a drop to this host", nft("ip daddr 10.0.0.11 drop"), "other_table_drops"),
    _one("a blocklist", nft("ip saddr { 203.0.113.0/24, 10.0.0.99 } drop"), "other_table_drops"),
    _one("IPv6 alone", nft("drop", hook="input", table="ip6 other"), "other_table_drops", "ip6 other"),
    _one(
        "a drop at a link",
        nft("udp dport 53 drop", hook='ingress device "eth0"', table="netdev other", priority="0"),
        "other_table_drops",
        "netdev other",
    ),
    _one(
        "policy drop of what is forwarded",
        both(
            ip("link delete eth1"),
            nft(hook="forward", priority="0", policy="drop"),
            sysctl(net__ipv4__ip_forward=1),
        ),
        "other_table_drops",
    ),
    _of_host("a macvlan above", ip("link add mv0 link eth0 type macvlan mode bridge"), "link_above", "mv0"),
    Neighbour(
        "a macvlan above a port of a bound bridge",
        both(
            ip("link add br0 type bridge", "link set eth1 master br0", "link set br0 up"),
            ip("link add mv0 link br0 type macvlan mode bridge"),
        ),
        frozenset({("link_above", "mv0", None, None)}),
        ("br0",),
    ),
    Neighbour(
        "a bound port of a bridge", BRIDGE_WITH_PORT, frozenset({("lower_device", "eth0", None, None)})
    ),
    _of_host("a gateway", sysctl(net__ipv4__ip_forward=1), "forwarding"),
    _of_host(
        "a gateway of IPv6",
        both(ip("address add fd00:1::11/64 dev eth1 nodad"), sysctl(net__ipv6__conf__all__forwarding=1)),
        "forwarding",
    ),
)
"""Those that this kernel can have; others are facts in the unit tests."""


def modules(*names: str) -> Plant:
    """Return a function that loads modules, which load by themselves where nobody keeps them from it."""

    def plant(host: Namespace) -> None:
        for name in names:
            host.run("modprobe", name)

    return plant


def transform(ends: str, what: str) -> Plant:
    """Return a function that adds a policy of IPsec."""

    def plant(host: Namespace) -> None:
        with suppress(CommandError):  # it may be no module
            modules("xfrm_user")(host)
        host.ip(f"xfrm policy add {ends} {what}")

    return plant


def ipvs(host: Namespace) -> None:
    """Add a service that is reached by NAT, as ``ipvsadm -A`` and ``-a -m`` do."""
    modules("ip_vs", "ip_vs_rr")(host)
    address = socket.inet_aton("10.0.0.11")
    service = struct.pack("=HxxI", 6, int.from_bytes(address, "little")) + struct.pack(
        "=HxxI16sIII", socket.htons(80), 0, b"rr", 0, 0, 0xFFFFFFFF
    )
    server = struct.pack("=4sHxxIiII", socket.inet_aton("10.1.0.99"), socket.htons(80), 0, 1, 0, 0)
    with host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as control:
        control.setsockopt(socket.IPPROTO_IP, _ADD_SERVICE, service)
        control.setsockopt(socket.IPPROTO_IP, _ADD_SERVER, service + server)


_ADD_SERVICE, _ADD_SERVER = 1154, 1159

BOND = both(
    modules("bonding"),
    ip("link add bond0 type bond mode active-backup", "link set eth0 down", "link set eth0 master bond0"),
    ip("link set bond0 up", "address add 10.0.0.11/24 dev bond0"),
)
FLOW_TABLE = both(
    modules("nft_flow_offload", "nf_flow_table_inet"),
    ruleset(
        """
        table inet other {
            flowtable ft { hook ingress priority 0; devices = { DEVICE }; }
            chain here { type filter hook forward priority 0; ct state established flow add @ft; }
        }""".replace("DEVICE", "eth0")
    ),
    ip("link delete eth1"),
    sysctl(net__ipv4__ip_forward=1),
)

BR_NETFILTER = both(modules("br_netfilter"), call_ip_hooks)

TRACKED_FRAMES = both(
    modules("nf_conntrack_bridge"),
    ip("link add br1 type bridge"),
    ruleset(
        """
        table bridge guests {
            chain between { type filter hook forward priority 0; ct state established,related accept; }
        }"""
    ),
)

TO_NETWORK = "src 192.0.2.0/24 dst 198.51.100.0/24 dir out"

PLANTED_WITH_MODULES = (
    _of_host(
        "a tunnel of IPsec over IPv6",
        both(
            ip("address add 2001:db8::11/64 dev eth0 nodad"),
            transform(
                "src 2001:db8:2::/64 dst 2001:db8:1::/64 dir in",
                "tmpl src 2001:db8::99 dst 2001:db8::11 proto esp mode tunnel",
            ),
        ),
        "ipsec",
    ),
    _of_host(
        "a tunnel of IPsec",
        transform(TO_NETWORK, "tmpl src 10.0.0.11 dst 203.0.113.1 proto esp mode tunnel"),
        "ipsec",
    ),
    _of_host(
        "a policy of IPsec that blocks",
        transform("src 10.0.0.0/24 dst 198.51.100.0/24 dir out", "action block"),
        "ipsec",
    ),
    Neighbour(
        "guests of a bound bridge with br_netfilter",
        both(BR_NETFILTER, BRIDGE_WITH_PORT, ip("link set eth1 master br0")),
        frozenset({("other_name", "br0", None, None)}),
        ("br0",),
    ),
    Neighbour("a bound slave of a bond", BOND, frozenset({("lower_device", "eth0", None, None)})),
    Neighbour(
        "a macvlan above a bond",
        both(BOND, ip("link add mv0 link bond0 type macvlan mode bridge")),
        frozenset({("link_above", "mv0", None, None)}),
        ("bond0",),
    ),
    Neighbour(
        "XDP at a slave of a bond",
        both(BOND, xdp("eth0")),
        frozenset({("early_program", "bond0", None, None)}),
        ("bond0",),
    ),
    Neighbour(
        "a bound port of a team",
        both(
            modules("team"),
            ip("link add team0 type team", "link set eth0 down"),
            ip("link set eth0 master team0"),
        ),
        frozenset({("lower_device", "eth0", None, None)}),
    ),
    _of_host(
        "a VLAN above",
        both(modules("8021q"), ip("link add eth0.5 link eth0 type vlan id 5")),
        "link_above",
        "eth0.5",
    ),
    _of_host(
        "an ipvlan of mode l2 above",
        both(modules("ipvlan"), ip("link add ipvl0 link eth0 type ipvlan mode l2")),
        "link_above",
        "ipvl0",
    ),
    Neighbour(
        "an ipvlan of mode l3 above",
        both(modules("ipvlan"), ip("link add ipvl0 link eth0 type ipvlan mode l3")),
        frozenset({("link_above", "ipvl0", None, None), ("invalid_by_design", "eth0", None, None)}),
    ),
    Neighbour(
        "a bound ipvlan of mode l3s",
        both(modules("ipvlan"), ip("link add ipvl0 link eth0 type ipvlan mode l3s")),
        frozenset({("other_name", "ipvl0", None, None)}),
        ("ipvl0",),
    ),
    Neighbour(
        "a bound macvlan above a bridge with br_netfilter",
        both(BR_NETFILTER, BRIDGE_WITH_PORT, ip("link add mv0 link br0 type macvlan mode bridge")),
        frozenset({("other_name", "mv0", None, None)}),
        ("mv0",),
    ),
    Neighbour(
        "a bound VLAN above a bridge that knows VLANs",
        both(
            modules("8021q"),
            BR_NETFILTER,
            BRIDGE_WITH_PORT,
            ip("link set br0 type bridge vlan_filtering 1", "link add br0.5 link br0 type vlan id 5"),
        ),
        frozenset({("other_name", "br0.5", None, None)}),
        ("br0.5",),
    ),
    _one("a flow table", FLOW_TABLE, "flow_table"),
    Neighbour(
        "frames that conntrack follows",
        TRACKED_FRAMES,
        frozenset({("conntrack_bridge", None, "bridge guests", "between")}),
    ),
    Neighbour("IPVS by NAT", ipvs, frozenset({("invalid_by_design", "eth0", None, None)})),
)
"""Those that need modules; Debian's kernel has them."""


@dataclass(frozen=True, slots=True)
class CleanHost:
    """A neighbour that a careful operator runs beside sgagent, without a finding of the doctor."""

    name: str
    plant: Plant
    bound: tuple[str, ...] = (_ETH0,)


DOCKER = """
table ip raw {
	chain PREROUTING {
		type filter hook prerouting priority -300; policy accept;
		iifname != "docker0" ip daddr 172.17.0.2 counter drop
		iifname != "lo" ip daddr 127.0.0.1 tcp dport 8080 counter drop
	}
}
table ip nat {
	chain DOCKER {
		iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80
	}
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local counter jump DOCKER
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
	}
}
table ip filter {
	chain DOCKER {
		iifname != "docker0" oifname "docker0" ip daddr 172.17.0.2 tcp dport 80 counter accept
		iifname != "docker0" oifname "docker0" counter drop
	}
	chain DOCKER-USER {
	}
	chain DOCKER-FORWARD {
		oifname "docker0" ct state related,established counter accept
		oifname "docker0" counter jump DOCKER
		iifname "docker0" counter accept
	}
	chain FORWARD {
		type filter hook forward priority 0; policy drop;
		counter jump DOCKER-USER
		counter jump DOCKER-FORWARD
	}
}
"""

PODMAN = """
table inet netavark {
	chain INPUT {
		type filter hook input priority 0; policy accept;
		ip saddr 10.88.0.0/16 meta l4proto { tcp, udp } th dport 53 accept
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		ct state invalid drop
		jump NETAVARK-ISOLATION-1
		ip daddr 10.88.0.0/16 ct state established,related accept
		ip saddr 10.88.0.0/16 accept
	}
	chain NETAVARK-ISOLATION-1 {
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		meta mark & 0x00002000 == 0x00002000 masquerade
		ip saddr 10.88.0.0/16 masquerade
	}
	chain NETAVARK-HOSTPORT-DNAT {
		tcp dport 8080 dnat ip to 10.88.0.2:80
	}
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local jump NETAVARK-HOSTPORT-DNAT
	}
}
"""

KUBE_PROXY_NFTABLES = """
table ip kube-proxy {
	set cluster-ips {
		type ipv4_addr
		elements = { 10.96.0.1, 10.96.0.10 }
	}
	map no-endpoint-services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.11 . tcp . 80 : goto reject-chain }
	}
	map firewall-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 192.0.2.7 . tcp . 443 : goto firewall-here }
	}
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.1 . tcp . 443 : goto service-here }
	}
	chain firewall-here {
		ip saddr != 203.0.113.0/24 drop
	}
	chain reject-chain {
		reject
	}
	chain service-here {
		ip daddr 10.96.0.1 tcp dport 443 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		numgen random mod 1 vmap { 0 : goto endpoint-here }
	}
	chain endpoint-here {
		meta l4proto tcp dnat to 10.244.0.5:6443
	}
	chain mark-for-masquerade {
		meta mark set meta mark | 0x00004000
	}
	chain firewall-check {
		ip daddr . meta l4proto . th dport vmap @firewall-ips
	}
	chain filter-prerouting-pre-dnat {
		type filter hook prerouting priority -110; policy accept;
		ct state new jump firewall-check
	}
	chain filter-input {
		type filter hook input priority -110; policy accept;
		ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}
	chain filter-output {
		type filter hook output priority -90; policy accept;
		ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}
	chain cluster-ips-check {
		ip daddr @cluster-ips reject
		ip daddr 10.96.0.0/16 drop
	}
	chain filter-forward {
		type filter hook forward priority -110; policy accept;
		ct state invalid drop
		ct state new jump cluster-ips-check
	}
	chain filter-output-post-dnat {
		type filter hook output priority -90; policy accept;
		ct state new jump cluster-ips-check
	}
	chain nat-prerouting {
		type nat hook prerouting priority -100; policy accept;
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain nat-postrouting {
		type nat hook postrouting priority 100; policy accept;
		meta mark & 0x00004000 == 0x00004000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
	}
}
"""

KUBE_PROXY_IPTABLES = """
table ip mangle {
	chain KUBE-KUBELET-CANARY {
	}
}
table ip nat {
	chain KUBE-MARK-MASQ {
		meta mark set meta mark | 0x00004000
	}
	chain KUBE-POSTROUTING {
		meta mark & 0x00004000 != 0x00004000 return
		meta mark set meta mark ^ 0x00004000
		masquerade fully-random
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		jump KUBE-POSTROUTING
	}
}
table ip filter {
	chain KUBE-FIREWALL {
		ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state != 0x2,0x4 counter drop
		meta mark & 0x00008000 == 0x00008000 counter drop
	}
	chain KUBE-SERVICES {
		ip daddr 10.96.0.11 tcp dport 80 counter reject
	}
	chain KUBE-FORWARD {
		ct state invalid counter drop
		meta mark & 0x00004000 == 0x00004000 counter accept
	}
	chain INPUT {
		type filter hook input priority 0; policy accept;
		ct state new counter jump KUBE-SERVICES
		counter jump KUBE-FIREWALL
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		counter jump KUBE-FORWARD
	}
	chain OUTPUT {
		type filter hook output priority 0; policy accept;
		ct state new counter jump KUBE-SERVICES
		counter jump KUBE-FIREWALL
	}
}
"""

CALICO = """
table ip filter {
	chain cali-INPUT {
		iifname "cali*" counter goto cali-wl-to-host
		meta mark & 0x00010000 == 0x00010000 accept
	}
	chain cali-wl-to-host {
		counter jump cali-from-wl-dispatch
		counter accept
	}
	chain cali-from-wl-dispatch {
		iifname "cali123" counter goto cali-fw-here
		counter drop
	}
	chain cali-fw-here {
		ct state established,related counter accept
		ct state invalid counter drop
		ct mark set ct mark & 0xffff00ff | 0x00000100
		meta mark set ct mark & 0x0000ff00
		counter drop
	}
	chain INPUT {
		type filter hook input priority 0; policy accept;
		counter jump cali-INPUT
	}
}
"""

LIBVIRT = """
table ip libvirt_network {
	chain guest_input {
		oif "virbr0" ip daddr 192.168.122.0/24 ct state established,related counter accept
		oif "virbr0" counter reject
	}
	chain guest_output {
		ip saddr 192.168.122.0/24 iif "virbr0" counter accept
		iif "virbr0" counter reject
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		counter jump guest_input
		counter jump guest_output
	}
	chain guest_nat {
		type nat hook postrouting priority 100; policy accept;
		ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
	}
}
"""

OWN_MARKS = """
table inet uplinks {
	chain pre {
		type filter hook prerouting priority -150; policy accept;
		ct mark & 0x000000ff != 0 meta mark set ct mark & 0x000000ff accept
		iifname "eth1" ct mark set ct mark & 0xffffff00 | 0x00000002
	}
	chain unreachable {
		ct mark set 7
		drop
	}
	chain lo {
		type filter hook input priority 0; policy accept;
		iifname "lo" notrack
	}
}
"""

DISPATCH = """
table inet filter {
	map inward {
		type ifname . inet_service : verdict
		elements = { "eth1" . 22 : drop, "eth0" . 22 : accept }
	}
	chain here {
		type filter hook input priority 0; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname . tcp dport vmap @inward
		meta l4proto vmap { tcp : jump of_tcp, udp : jump of_udp }
		iifname vmap { "lo" : accept, "eth0" : accept, "eth1" : drop }
	}
	chain of_tcp {
		tcp dport vmap { 22 : accept, 80-90 : accept }
		ip daddr vmap { 10.1.0.11 : drop }
	}
	chain of_udp {
		fib saddr . iif oif missing drop
		ip dscp set cs1 ip ttl set 64
	}
	chain marks {
		type filter hook prerouting priority -150
		tcp option maxseg size set 1400
		meta mark set tcp dport map { 22 : 0x00000002, 80 : 0x02010000 }
	}
}
"""
"""As a careful operator writes it: what it drops is none of eth0's, or invalid."""

CLEAN = (
    CleanHost("a dispatch by maps of verdicts", ruleset(DISPATCH)),
    CleanHost("Debian", ip("route add default via 10.0.0.1")),
    CleanHost(
        "Docker",
        both(
            ip(
                "link add docker0 type bridge",
                "address add 172.17.0.1/16 dev docker0",
                "link set docker0 up",
                "link add veth1 type veth peer name c1",
                "link set veth1 master docker0 up",
            ),
            ip("link delete eth1"),
            ruleset(DOCKER),
            sysctl(net__ipv4__ip_forward=1),
        ),
    ),
    CleanHost(
        "podman",
        both(
            ip("link add podman0 type bridge", "address add 10.88.0.1/16 dev podman0", "link set podman0 up"),
            ip("link delete eth1"),
            ruleset(PODMAN),
            sysctl(net__ipv4__ip_forward=1),
        ),
    ),
    CleanHost(
        "kube-proxy of nftables",
        both(ip("link delete eth1"), ruleset(KUBE_PROXY_NFTABLES), sysctl(net__ipv4__ip_forward=1)),
    ),
    CleanHost(
        "kube-proxy of iptables",
        both(ip("link delete eth1"), ruleset(KUBE_PROXY_IPTABLES), sysctl(net__ipv4__ip_forward=1)),
    ),
    CleanHost(
        "Calico",
        both(
            ip(
                "link delete eth1",
                "link add cali123 type veth peer name c1",
                "link set cali123 up",
                "route add 10.244.0.5/32 dev cali123 scope link",
            ),
            ruleset(CALICO),
            sysctl(net__ipv4__ip_forward=1),
        ),
    ),
    CleanHost(
        "pods behind addresses of their own, several ways, and a way of the other family",
        both(
            ip(
                "link delete eth1",
                "link add veth1 type veth peer name c1",
                "link set veth1 up",
                "link set c1 up",
                "address add 10.244.0.1/32 dev veth1",
                "route add 10.244.0.5/32 dev veth1 scope link",
                "route add 10.244.0.6/32 dev veth1 scope link",
                "route add 10.244.0.0/24 via 10.244.0.5 dev veth1",
                "route add 10.245.0.0/24 nexthop via 10.244.0.5 dev veth1 nexthop via 10.244.0.6 dev veth1",
                "route add 10.246.0.0/24 via inet6 fe80::5 dev veth1",
            ),
            sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1),
        ),
    ),
    CleanHost(
        "masked CONNMARK",
        both(
            xtables(
                compat.connmark(mode=1, mask=0x0F00, of_packet=0x0F00),
                compat.connmark(mode=2, mask=0x0F00, of_packet=0x0F00),
                compat.matches_connmark(0x0200, 0x0F00),
            )
        ),
    ),
    CleanHost(
        "a tunnel with rules of routing",
        ip(
            "tuntap add dev wg0 mode tun",
            "address add 10.9.0.2/32 dev wg0",
            "link set wg0 up",
            "route add default via 10.0.0.1",
            "rule add not fwmark 51820 table 51820",
            "route add default dev wg0 table 51820",
        ),
    ),
    CleanHost(
        "routes by mark that rp_filter knows",
        both(
            ip("rule add fwmark 2 table 2"),
            sysctl(net__ipv4__conf__eth0__rp_filter=1, net__ipv4__conf__all__src_valid_mark=1),
        ),
    ),
    CleanHost(
        "bridges",
        ip(
            "link add br0 type bridge",
            "link set br0 up",
            "link set eth0 master br0",
            "address flush dev eth0",
            "address add 10.0.0.11/24 dev br0",
            "link add br1 type bridge",
            "link set br1 up",
            "link set eth1 master br1",
        ),
        ("br0",),
    ),
    CleanHost(
        "routes that refuse others",
        ip(
            "route add blackhole 10.244.0.0/26",
            "route add unreachable 203.0.113.9",
            "route add prohibit 10.1.0.64/26",
            "rule add pref 5250 fwmark 0x80000/0xff0000 unreachable",
            "rule add pref 5251 iif eth1 prohibit",
        ),
    ),
    CleanHost("a macvlan on another link", ip("link add mv0 link eth1 type macvlan mode bridge")),
    CleanHost(
        "libvirt",
        both(
            ip(
                "link add virbr0 type bridge", "address add 192.168.122.1/24 dev virbr0", "link set virbr0 up"
            ),
            ip("link delete eth1"),
            ruleset(LIBVIRT),
            sysctl(net__ipv4__ip_forward=1),
        ),
    ),
    CleanHost("marks of one's own", ruleset(OWN_MARKS)),
    CleanHost(
        "filters of frames on another bridge",
        both(
            ip("link add br1 type bridge", "link set br1 up", "link set eth1 master br1"),
            ruleset(FRAMES.replace("eth0", "eth1")),
        ),
    ),
    CleanHost(
        "programs of another link",
        both(xdp("eth1"), tc("eth1", "ingress"), nft('iifname "eth1" drop', hook="input")),
    ),
    CleanHost("dormant tables", ruleset(WIREGUARD.replace("wg0 {", "wg0 {\n\tflags dormant", 1))),
)

CLEAN_WITH_MODULES = (
    CleanHost(
        "IPsec on another link, by an interface, and what it leaves alone",
        both(
            transform(TO_NETWORK, "tmpl src 10.1.0.11 dst 203.0.113.1 proto esp mode tunnel"),
            transform(
                "src 192.0.2.0/25 dst 198.51.100.0/24 dir out",
                "if_id 7 tmpl src 10.0.0.11 dst 203.0.113.1 proto esp mode tunnel",
            ),
            transform("src 10.0.0.0/24 dst 198.51.100.0/24 dir out", "action allow"),
        ),
    ),
    CleanHost(
        "a VLAN on another link", both(modules("8021q"), ip("link add vlan5 link eth1 type vlan id 5"))
    ),
    CleanHost(
        "WireGuard",
        both(
            modules("wireguard"),
            ip("link add wg0 type wireguard", "address add 10.9.0.2/24 dev wg0", "link set wg0 up"),
        ),
    ),
    CleanHost("a bond", BOND, ("bond0",)),
    CleanHost(
        "a port of a VRF",
        both(
            modules("vrf"),
            ip("link add red type vrf table 10", "link set red up", "link set eth1 master red"),
        ),
        ("eth0", "eth1"),
    ),
    CleanHost(
        "a bridge of guests with br_netfilter",
        both(BR_NETFILTER, ip("link add br1 type bridge", "link set br1 up", "link set eth1 master br1")),
    ),
    CleanHost("frames that conntrack and the hooks of IP follow", both(TRACKED_FRAMES, BR_NETFILTER)),
    CleanHost("IPVS that conntrack follows", both(ipvs, sysctl(net__ipv4__vs__conntrack=1))),
    CleanHost(
        "a flow table of other links",
        both(
            modules("nft_flow_offload", "nf_flow_table_inet"),
            ip("link add eth2 type dummy", "link set eth2 up", "address flush dev eth1"),
            ruleset("""
                table inet other {
                    flowtable ft { hook ingress priority 0; devices = { eth1, eth2 }; }
                    chain here { type filter hook forward priority 0; ct state established flow add @ft; }
                }"""),
            sysctl(net__ipv4__ip_forward=1),
        ),
    ),
)


ODD: tuple[tuple[str, Plant], ...] = (
    (
        "a map by mark and link",
        ruleset("""
        table inet x {
            map m { typeof ct mark . iifname : verdict; elements = { 1 . "eth0" : drop } }
            chain here { type filter hook input priority 0; ct mark . iifname vmap @m; }
        }"""),
    ),
    ("a map by mark", nft("ct mark vmap { 1 : drop, 2 : accept }")),
    ("a bridge", nft("meta mark set 1", "drop", hook="forward", table="bridge x")),
    ("ARP", nft("drop", hook="input", table="arp x")),
    (
        "jumps in turn",
        ruleset("""
        table inet x {
            chain c {
                return
            }
            chain b {
                jump c
            }
            chain a {
                goto b
            }
            chain here { type filter hook output priority 0; jump a; jump c; }
        }"""),
    ),
    (
        "a translation by a map",
        ruleset("""
        table ip x {
            chain here {
                type nat hook prerouting priority -100
                dnat to ip saddr map { 10.0.0.1 : 10.0.0.2 }
            }
        }"""),
    ),
    ("a shift", nft("meta mark set ct mark << 8")),
    ("a mark of two", nft("ct mark set ct mark | meta mark")),
    ("a mark of a hash", nft("ct mark set jhash ip saddr mod 7")),
    (
        "a helper",
        ruleset("""
        table inet x {
            ct helper h { type "ftp" protocol tcp; }
            chain here { type filter hook prerouting priority 0; ct helper set "h"; }
        }"""),
    ),
    ("a set of prefixes of links", nft('iifname { "eth*", "lo" } ct mark set 1')),
    (
        "a set that grows by marks",
        ruleset("""
        table inet x {
            set s { type mark; flags dynamic; size 10; }
            chain here { type filter hook input priority 0; update @s { ct mark }; }
        }"""),
    ),
    ("egress of a link", nft("meta mark set 1", hook='egress device "eth0"', table="netdev x", priority="0")),
    ("inet ingress", nft("drop", hook='ingress device "eth0"', priority="0")),
    ("a header within", nft("udp dport 4789 vxlan tcp dport 443 drop", table="ip x")),
    ("a quota and a limit", nft("quota over 1 mbytes drop", "limit rate 1/second drop", hook="input")),
    ("a name of many bytes", nft("drop", table="inet " + "x" * 200)),
    ("a table of nothing", ruleset("table inet x {\n}\n")),
    (
        "an object",
        ruleset("""
        table inet x {
            counter c { }
            quota q { over 1 mbytes }
            chain here { type filter hook input priority 0; counter name "c"; quota name "q" drop; }
        }"""),
    ),
)
"""Rulesets that no check is about, and how nft may refuse them."""
