"""The ports that the guide warns of, with their usual services."""

from __future__ import annotations

from collections.abc import Mapping

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
"""What only the applications before it should reach. TCP."""

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
"""What belongs inside for other reasons. TCP."""

SENSITIVE: Mapping[int, str] = {**MANAGEMENT, **DATABASES, **OTHERS}


def service_text(port: int) -> str:
    """Return a port with what is behind it: ``3306 (MySQL)``."""
    return f"{port} ({SENSITIVE[port]})"
