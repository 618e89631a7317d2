"""The ports that the guide warns of, with their usual services, and which of them are open to everyone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sgagent.analysis.bit_sets import Columns, bits_of
from sgagent.analysis.clause_reduction import Index
from sgagent.analysis.header_space import Clause
from sgagent.analysis.lint.rule_reach import RuleKey, key_of
from sgagent.analysis.packet_tables import make_tables
from sgagent.analysis.redundancy import Table, code_of
from sgagent.core.addresses import Ranges, joined, size
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import LAST_PORT, PORTED_NUMBERS, Family, Policy

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


_WIDE = {Family.IPV4: 1 << 31, Family.IPV6: 1 << 124}
"""More than half of the addresses that there are: in IPv6 the public ones are an eighth of all."""

_PARTS = 256
"""A rule for less than one such part of what counts as wide is not held to open anything to everyone."""

OpenPorts = Mapping[int, Mapping[RuleKey, Ranges]]
"""Ports that are open to everyone, by protocol and by the rules that open them."""


def is_wide(peers: Ranges, family: Family) -> bool:
    """Return whether addresses are more than half of all: everyone, some aside."""
    return size(peers) > _WIDE[family]


def ports_open_to_everyone(clauses: Sequence[Clause], family: Family) -> OpenPorts:
    """Return the ports that rules open to everyone, by clauses in the order in which they decide."""
    accepting = sum(map(_is_opening, clauses))
    # What is smaller comes, if that are few rules, to no more than a quarter of what counts.
    least = max(_WIDE[family] // (4 * accepting or 1), _WIDE[family] // _PARTS)
    counting = [clause for clause in clauses if size(clause.addresses) > least]
    found: dict[int, dict[RuleKey, list[tuple[int, int]]]] = {number: {} for number in PORTED_NUMBERS}
    tables = make_tables(counting, family)
    for number in PORTED_NUMBERS:
        for key, first, last in _opened(tables, number, family, least):
            found[number].setdefault(key, []).append((first, last))
    return {
        number: {key: joined(ranges) for key, ranges in by_rule.items()} for number, by_rule in found.items()
    }


def _is_opening(clause: Clause) -> bool:
    return clause.decided_by is DecidedBy.RULE and clause.policy is Policy.ACCEPT


def _opened(
    tables: Sequence[Table], number: int, family: Family, least: int
) -> Iterator[tuple[RuleKey, int, int]]:
    """Yield runs of ports of a protocol that are open to everyone, with each rule that does it."""
    accepted = [table.verdicts(accepts=_is_opening).accepted for table in tables]
    indices = [Index.of(table) for table in tables]
    weights = _Weights(tables)
    for first, last in _runs(tables, number):
        rows = [table.row_of(first) for table in tables]
        here = [columns[row] for columns, row in zip(accepted, rows, strict=True)]
        # Tables of other near ends hold the same far ends once more, so that this is the most it can be.
        if sum(map(Table.weigh, tables, here)) <= _WIDE[family]:
            continue
        opening: dict[RuleKey, list[tuple[Table, Columns]]] = {}
        for table, row, index in zip(tables, rows, indices, strict=True):
            for clause, columns in table.deciders(row, bits_of(index.at(row))):
                if clause.rule is not None and _is_opening(clause):
                    opening.setdefault(key_of(clause.rule), []).append((table, columns))
        if weights.of(pair for pairs in opening.values() for pair in pairs) > _WIDE[family]:
            for key, pairs in opening.items():
                if weights.of(pairs) > least:
                    yield key, first & LAST_PORT, last & LAST_PORT


class _Weights:
    """Weighs columns of several tables together, and remembers what most rows ask for again."""

    def __init__(self, tables: Sequence[Table]) -> None:
        """Take the tables; where near ends are split among them, far ends are in more than one."""
        all_ends = [ends for table in tables for ends in table.far_ends.values()]
        self._are_apart = len(set(all_ends)) == len(all_ends)
        self._known: dict[tuple[int, Columns], int] = {}

    def of(self, pairs: Iterable[tuple[Table, Columns]]) -> int:
        """Return how many far ends there are in columns of tables."""
        if not self._are_apart:
            return size(joined(ends for table, columns in pairs for ends in table.far_ranges(columns)))
        together: dict[int, tuple[Table, Columns]] = {}
        for table, columns in pairs:
            before = together.get(id(table), (table, 0))[1]
            together[id(table)] = (table, before | columns)
        return sum(self._weigh(table, columns) for table, columns in together.values())

    def _weigh(self, table: Table, columns: Columns) -> int:
        key = (id(table), columns)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = table.weigh(columns)
        return found


def _runs(tables: Sequence[Table], number: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last code of runs of ports of a protocol in which no table has a border."""
    first, last = code_of(number), code_of(number, LAST_PORT)
    starts = sorted({first, *(code for table in tables for code in table.starts if first < code <= last)})
    yield from zip(starts, [*(start - 1 for start in starts[1:]), last], strict=True)
