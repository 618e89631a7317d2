"""Ports of services that the guide warns of, and the number that counts as too many ports."""

from __future__ import annotations

from collections.abc import Mapping

from sgagent.analysis.lint.rule_reach import OpenPorts, RuleKey
from sgagent.core.addresses import Ranges, size
from sgagent.core.model import PORTED_NUMBERS

MANAGEMENT: Mapping[int, str] = {
    22: "SSH",
    23: "Telnet",
    3389: "Remote Desktop",
    5900: "VNC",
    5985: "WinRM",
    5986: "WinRM",
    2375: "Docker",
    2376: "Docker",
    6443: "Kubernetes",
    10250: "kubelet",
}
"""Who gets in here runs the machine. TCP."""

DATABASES: Mapping[int, str] = {
    1433: "SQL Server",
    1521: "Oracle",
    2379: "etcd",
    2380: "etcd",
    3306: "MySQL",
    5432: "PostgreSQL",
    5984: "CouchDB",
    6379: "Redis",
    7000: "Cassandra",
    8086: "InfluxDB",
    9042: "Cassandra",
    9200: "Elasticsearch",
    9300: "Elasticsearch",
    11211: "Memcached",
    27017: "MongoDB",
}
"""Services that only the applications before them should reach. TCP."""

OTHERS: Mapping[int, str] = {
    21: "FTP",
    111: "portmapper",
    135: "Windows RPC",
    139: "NetBIOS",
    389: "LDAP",
    445: "SMB",
    512: "rexec",
    513: "rlogin",
    514: "rsh",
    873: "rsync",
    2049: "NFS",
    2181: "ZooKeeper",
    9092: "Kafka",
}
"""Services that belong inside for other reasons. TCP."""

REFLECTORS: Mapping[int, str] = {
    19: "chargen",
    111: "portmapper",
    137: "NetBIOS",
    161: "SNMP",
    389: "LDAP",
    1900: "SSDP",
    3702: "WS-Discovery",
    5353: "mDNS",
    11211: "Memcached",
}
"""Services that answer a forged request with many times its bytes, which hit the victim. UDP."""

SENSITIVE: Mapping[int, str] = {**MANAGEMENT, **DATABASES, **OTHERS}

MANY_PORTS = 1000
"""A rule that opens more to everyone than so many opens everything, for what a person can oversee."""

NARROW_PORTS = 64
"""A rule for more ports is not about one of them."""


def service_text(port: int) -> str:
    """Return a TCP port with its service: ``3306 (MySQL)``."""
    return f"{port} ({SENSITIVE[port]})"


def everything(open_: OpenPorts) -> dict[RuleKey, Ranges]:
    """Return the rules that open more ports to everyone than can be overseen."""
    return {
        key: ports
        for number, by_rule in open_.items()
        for key, ports in by_rule.items()
        if number in PORTED_NUMBERS and size(ports) > MANY_PORTS
    }
